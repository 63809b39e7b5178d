//! Power cuts: swtpm is killed, without TPM2_Shutdown, and started again.

use devkey::Error;
use devkey::key::{KeyKind, Usage};
use devkey::provider::KeyAuth;
use devkey::secret::Secret;

use crate::tpm::{Action, Proxy, Swtpm, answer};
use crate::{Made, RIGHT, TRIES, WRONG, create, lockouts, pin, signs};

/// TPM2_Shutdown.
const SHUTDOWN: u32 = 0x145;

/// A power cut forgets nothing and costs nothing: neither on the token's counter nor on the TPM's.
/// Seen failing, with 1 on the TPM's, without the call of `orderly` in `counted`.
#[test]
fn a_power_cut_costs_nothing() {
    let mut made = Made::new(&[]);
    for _ in 0..5 {
        made.opens();
        made.swtpm.power_cut();
        assert_eq!(made.tries().left, TRIES);
        assert_eq!(lockouts(&made.swtpm), 0);
    }
    for left in [TRIES - 1, TRIES - 2] {
        assert_eq!(made.wrong(), Some(left));
        made.swtpm.power_cut();
        assert_eq!(made.tries().left, left);
        assert_eq!(lockouts(&made.swtpm), 0);
    }
    made.opens();
    made.swtpm.power_cut();
    assert_eq!(made.tries().left, TRIES);
}

/// Unless it comes between the two commands: then it costs one try of the whole TPM, whose own
/// the counter's are not. What others cut short is forgiven, too.
#[test]
fn a_power_cut_within_a_login_costs_one() {
    let swtpm = Swtpm::start();
    let proxy = Proxy::before(&swtpm);
    let provider = create(&proxy.tcti(), &[]);
    let secret = Secret::random(32).unwrap();
    let blob = provider.seal(&secret, &pin(RIGHT), TRIES).unwrap();
    let mut made = Made {
        swtpm,
        provider,
        secret,
        blob,
    };
    proxy.script(|code| match code {
        SHUTDOWN => Action::Answer(answer(0)),
        _ => Action::Pass,
    });
    made.opens();
    made.swtpm.power_cut();
    assert_eq!(lockouts(&made.swtpm), 1);
    assert_eq!(made.tries().left, TRIES);
    made.opens();
    proxy.script(|_| Action::Pass);
    made.opens();
    made.swtpm.power_cut();
    assert_eq!(lockouts(&made.swtpm), 1);
}

/// Seen failing with `with_no_da(false)` in `objects::template`.
#[test]
fn keys_lose_nothing_over_a_hundred_power_cuts() {
    let mut swtpm = Swtpm::start();
    let provider = create(&swtpm.tcti(), &[]);
    for auth in [KeyAuth::None, pin(RIGHT)] {
        let new = provider
            .generate(KeyKind::EcP256, Usage::SIGN, &auth)
            .unwrap();
        let key = provider
            .open(&new.blob, &new.public, Usage::SIGN, &auth)
            .unwrap();
        for _ in 0..100 {
            signs(&*key, &new).unwrap();
            swtpm.power_cut();
        }
        // Who has another auth is refused, and it counts nowhere.
        let other = provider
            .open(&new.blob, &new.public, Usage::SIGN, &pin(WRONG))
            .and_then(|key| signs(&*key, &new));
        assert!(matches!(other, Err(Error::BadBlob)), "{other:?}");
        assert_eq!(lockouts(&swtpm), 0);
    }
}
