//! What counts: the token's own counter, or where that is not to be had, the whole TPM.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use devkey::Error;
use devkey::backends::tpm::BACK_END;
use devkey::provider::{KeyAuth, Provider, Tries};
use devkey::secret::Secret;

use crate::tpm::{Action, Proxy, Swtpm};
use crate::{Made, RIGHT, TRIES, WRONG, create, lockouts, pin, property, settings};

/// TPM2_PolicySecret and TPM2_Unseal.
const POLICY_SECRET: u32 = 0x151;
const UNSEAL: u32 = 0x15e;

const DA: &[(&str, &str)] = &[("pin_guard", "da")];

/// The NV indices that there are.
pub(crate) fn indices(swtpm: &Swtpm) -> Vec<String> {
    let list = swtpm.tool("tpm2_getcap", &["handles-nv-index"]);
    let handle = |line: &str| line.trim_start_matches("- ").to_lowercase();
    list.lines().map(handle).collect()
}

fn seal(provider: &dyn Provider) -> devkey::Result<devkey::provider::Blob> {
    provider.seal(&Secret::random(32).unwrap(), &pin(RIGHT), TRIES)
}

fn said<T: std::fmt::Debug>(result: devkey::Result<T>) -> String {
    result.unwrap_err().to_string()
}

/// A new PIN is a new counter and a new seal; the old ones go, and so does a lock. Seen failing with
/// nothing done in `pin::forget`.
#[test]
fn another_pin_is_another_counter() {
    let made = Made::new(&[]);
    for _ in 0..TRIES {
        made.wrong();
    }
    assert!(matches!(made.unseal(RIGHT), Err(Error::PinLocked)));
    let new = made.provider.seal(&made.secret, &pin(9), 3).unwrap();
    assert_eq!(indices(&made.swtpm).len(), 2);
    made.provider.forget(&made.blob).unwrap();
    assert_eq!(indices(&made.swtpm).len(), 1);
    // Again: it is gone already, and the new one stays.
    made.provider.forget(&made.blob).unwrap();
    assert_eq!(indices(&made.swtpm).len(), 1);
    let opened = made.provider.unseal(&new, &pin(9)).unwrap();
    assert_eq!(opened.expose(), made.secret.expose());
    assert_eq!(made.provider.tries(&new).unwrap().unwrap().of, 3);
    for with in [RIGHT, WRONG, 9] {
        assert!(said(made.unseal(with)).contains("devkey pin unlock"));
    }
    assert!(said(made.provider.tries(&made.blob)).contains("devkey pin unlock"));
    assert_eq!(lockouts(&made.swtpm), 0);
    made.swtpm.assert_empty();
}

/// A counter is one token's.
#[test]
fn tokens_do_not_share_their_counters() {
    let made = Made::new(&[]);
    let other = Made {
        blob: made.provider.seal(&made.secret, &pin(9), 3).unwrap(),
        provider: made.provider.clone(),
        secret: Secret::new(made.secret.expose().to_vec()),
        swtpm: Swtpm::start(),
    };
    // The PIN of one is a wrong one for the other.
    assert_eq!(
        made.provider
            .unseal(&made.blob, &pin(9))
            .unwrap_err()
            .to_string(),
        "wrong PIN, 4 tries left"
    );
    assert_eq!(other.wrong(), Some(2));
    assert_eq!((made.tries().left, other.tries().left), (4, 2));
    made.opens();
    assert_eq!((made.tries().left, other.tries().left), (5, 2));
}

/// What others cost the whole TPM does not cost the token; while the TPM is locked, even a right
/// PIN has to wait, and is not called wrong.
#[test]
fn a_tpm_that_others_have_locked_is_named() {
    let made = Made::new(&[]);
    let other = create(&made.swtpm.tcti(), DA);
    let blob = seal(&*other).unwrap();
    while lockouts(&made.swtpm) < property(&made.swtpm, "TPM2_PT_MAX_AUTH_FAIL") {
        other.unseal(&blob, &pin(WRONG)).unwrap_err();
    }
    assert_eq!(made.tries().left, TRIES);
    let locked = said(made.unseal(RIGHT));
    assert!(locked.contains("the whole TPM is locked"), "{locked}");
    assert_eq!(made.wrong(), Some(TRIES - 1));
    made.swtpm
        .tool("tpm2_dictionarylockout", &["--clear-lockout"]);
    made.opens();
}

/// The fallback: everybody's wrong PINs are everybody's. Seen failing, for the power cuts, without
/// the call of `orderly` in `shared`.
#[test]
fn without_a_counter_the_whole_tpm_counts() {
    let mut made = Made::new(DA);
    assert!(indices(&made.swtpm).is_empty());
    let of = property(&made.swtpm, "TPM2_PT_MAX_AUTH_FAIL");
    let recovery = u64::from(property(&made.swtpm, "TPM2_PT_LOCKOUT_INTERVAL"));
    made.opens();
    let full = Tries {
        by_device: true,
        left: of,
        of,
        recovery: Some(recovery),
        shared: true,
    };
    assert_eq!(made.tries(), full);
    for failed in 1..of {
        assert_eq!(made.wrong(), Some(of - failed));
        made.opens();
        assert_eq!(lockouts(&made.swtpm), failed, "a right PIN forgives none");
        // A power cut adds none, whatever came last.
        made.swtpm.power_cut();
        assert_eq!(lockouts(&made.swtpm), failed);
    }
    made.wrong();
    made.swtpm.power_cut();
    assert_eq!(lockouts(&made.swtpm), of);
    assert_eq!(made.tries().left, 0);
    assert!(matches!(made.unseal(RIGHT), Err(Error::PinLocked)));
    made.swtpm
        .tool("tpm2_dictionarylockout", &["--clear-lockout"]);
    made.opens();
    assert_eq!(made.tries(), full);
    made.provider.forget(&made.blob).unwrap();
    made.swtpm.assert_empty();
}

/// Where the TPM is locked, nothing is sent that could count. Seen failing without the first look at
/// the lockout in `shared`.
#[test]
fn a_locked_tpm_is_not_asked() {
    let swtpm = Swtpm::start();
    let proxy = Proxy::before(&swtpm);
    let provider = create(&proxy.tcti(), DA);
    let blob = seal(&*provider).unwrap();
    while provider.tries(&blob).unwrap().unwrap().left > 0 {
        provider.unseal(&blob, &pin(WRONG)).unwrap_err();
    }
    proxy.take();
    for with in [RIGHT, WRONG] {
        let locked = provider.unseal(&blob, &pin(with));
        assert!(matches!(locked, Err(Error::PinLocked)), "{locked:?}");
    }
    assert!(!proxy.take().contains(&UNSEAL));
}

/// A TPM that does not count guards nothing by itself. Seen failing without the comparison in
/// `counts`.
#[test]
fn a_tpm_that_does_not_count_is_refused() {
    let swtpm = Swtpm::start();
    let off = ["--setup-parameters", "-n", "3", "-t", "0", "-l", "0"];
    swtpm.tool("tpm2_dictionarylockout", &off);
    let refused = said(seal(&*create(&swtpm.tcti(), DA)));
    assert!(refused.contains("switched off"), "{refused}");
}

/// The owner's password: asked for, read from a file that others cannot read, and not known to
/// those who only use the token. Seen failing with a password session in `Live::as_owner`, and with
/// nothing done in `pin::forget`.
#[test]
fn an_owner_with_a_password_is_asked_for_it() {
    let swtpm = Swtpm::start();
    swtpm.provision();
    swtpm.tool("tpm2_changeauth", &["-c", "o", "a password"]);
    let refused = said(seal(&*create(&swtpm.tcti(), &[])));
    for remedy in ["owner_auth_file", "pin_guard=da"] {
        assert!(refused.contains(remedy), "{refused}");
    }
    seal(&*create(&swtpm.tcti(), DA)).unwrap();
    let file = swtpm.file("owner");
    std::fs::write(&file, "a password\n").unwrap();
    let known = [("owner_auth_file", file.to_str().unwrap())];
    let provider = create(&swtpm.tcti(), &known);
    for (mode, works) in [(0o644, false), (0o600, true)] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let sealed = seal(&*provider);
        match sealed {
            Ok(blob) => {
                assert!(works);
                provider.forget(&blob).unwrap();
            }
            Err(Error::Refused { reason, .. }) => assert!(!works, "{reason}"),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(indices(&swtpm).is_empty());
    let proxy = Proxy::before(&swtpm);
    let overheard = create(&proxy.tcti(), &known);
    let blob = seal(&*overheard).unwrap();
    let traffic = proxy.overheard();
    assert!(!traffic.windows(10).any(|part| part == b"a password"));
    // Login needs neither the file nor the password.
    let user = create(&swtpm.tcti(), &[]);
    user.unseal(&blob, &pin(RIGHT)).unwrap();
    user.unseal(&blob, &pin(WRONG)).unwrap_err();
    assert_eq!(user.tries(&blob).unwrap().unwrap().left, TRIES - 1);
    let refused = said(user.forget(&blob));
    assert!(refused.contains("owner_auth_file"), "{refused}");
    provider.forget(&blob).unwrap();
    std::fs::write(&file, "another").unwrap();
    let refused = said(seal(&*provider));
    assert!(refused.contains("another password"), "{refused}");
    assert_eq!(lockouts(&swtpm), 0);
    swtpm.assert_empty();
}

/// Seen failing without the arm for TPM_RC_NV_SPACE in `no_counter`.
#[test]
fn full_nv_memory_is_named() {
    let swtpm = Swtpm::start();
    let provider = create(&swtpm.tcti(), &[]);
    let define = |size: &str, number: usize| {
        let handle = format!("{:#x}", 0x0150_0000 + number);
        let index = ["-C", "o", "-s", size, &handle];
        swtpm.try_tool("tpm2_nvdefine", &index).status.success()
    };
    let mut number = 0;
    for size in ["2048", "256", "8", "1"] {
        while define(size, number) {
            number += 1;
        }
    }
    let refused = seal(&*provider).unwrap_err();
    assert!(matches!(&refused, Error::Full(_)), "{refused:?}");
    assert!(refused.to_string().contains("pin_guard=da"), "{refused}");
    assert_eq!(indices(&swtpm).len(), number);
    seal(&*create(&swtpm.tcti(), DA)).unwrap();
    swtpm.assert_empty();
}

/// TPM2_Clear takes everything; that is said, and not that the PIN is wrong.
#[test]
fn a_cleared_tpm_is_named() {
    for guard in [&[], DA] {
        let made = Made::new(guard);
        made.swtpm.tool("tpm2_clear", &["-c", "p"]);
        for with in [RIGHT, WRONG] {
            let refused = made.unseal(with);
            let other = matches!(refused, Err(Error::OtherDevice { .. }));
            assert!(other, "{refused:?}");
        }
        assert!(indices(&made.swtpm).is_empty());
    }
}

/// An answer that is lost is no reason to ask again: the try may have been counted. Seen failing,
/// with more tries gone, without `once` in `counted` and in `shared`.
#[test]
fn a_lost_answer_costs_no_second_try() {
    // TPM2_Unseal is first answered by TPM_RC_RETRY, which costs nothing, and sent again.
    for (guard, command, first) in [("nv", POLICY_SECRET, 0), ("da", UNSEAL, 1)] {
        let swtpm = Swtpm::start();
        let proxy = Proxy::before(&swtpm);
        let provider = create(&proxy.tcti(), &[("pin_guard", guard)]);
        let blob = seal(&*provider).unwrap();
        let left = || provider.tries(&blob).unwrap().unwrap().left;
        let full = left();
        // A connection that breaks leaves its sessions in a TPM without a resource manager.
        let sweep = || {
            proxy.script(|_| Action::Pass);
            swtpm.flush_what_is_left("-l");
        };
        let lose = || {
            let mut asked = 0;
            move |code| {
                asked += usize::from(code == command);
                match code == command && asked > first {
                    true => Action::CutReply(0),
                    false => Action::Pass,
                }
            }
        };
        proxy.script(lose());
        let lost = provider.unseal(&blob, &pin(WRONG));
        assert!(matches!(lost, Err(Error::DeviceGone { .. })), "{lost:?}");
        sweep();
        assert_eq!(left(), full - 1, "{guard}");
        // Everything else is asked again.
        let once = AtomicBool::new(false);
        proxy.script(move |code| {
            let lose = code != command && code != FLUSH && !once.swap(true, Ordering::Relaxed);
            match lose {
                true => Action::CutReply(0),
                false => Action::Pass,
            }
        });
        provider.unseal(&blob, &pin(RIGHT)).unwrap();
        sweep();
        proxy.script(lose());
        provider.unseal(&blob, &pin(RIGHT)).unwrap_err();
        sweep();
        provider.unseal(&blob, &pin(RIGHT)).unwrap();
    }
}

/// TPM2_FlushContext.
const FLUSH: u32 = 0x165;

#[test]
fn what_does_not_fit_is_refused() {
    let made = Made::new(&[]);
    let secret = Secret::random(32).unwrap();
    let seal = |auth: &KeyAuth, tries| made.provider.seal(&secret, auth, tries);
    assert!(matches!(
        seal(&KeyAuth::None, 3),
        Err(Error::Unsupported(_))
    ));
    assert!(matches!(seal(&pin(1), 0), Err(Error::BadInput(_))));
    for len in [0, 31, 33] {
        let auth = KeyAuth::Secret(Secret::new(vec![1; len]));
        assert!(matches!(seal(&auth, 3), Err(Error::BadInput(_))));
        let opened = made.provider.unseal(&made.blob, &auth);
        assert!(matches!(opened, Err(Error::BadInput(_))), "{opened:?}");
    }
    let opened = made.provider.unseal(&made.blob, &KeyAuth::None);
    assert!(matches!(opened, Err(Error::BadBlob)), "{opened:?}");
    assert_eq!(made.tries().left, TRIES);
    for (name, value) in [
        ("pin_guard", "NV"),
        ("pin_guard", ""),
        ("owner_auth_file", "owner"),
        ("owner_auth_file", "/"),
        ("owner_auth_file", ""),
        ("endorsement_auth_file", "endorsement"),
    ] {
        let refused = said((BACK_END.check)(&settings(
            "swtpm:host=::1,port=1",
            &[(name, value)],
        )));
        assert!(refused.contains(name), "{refused}");
    }
}
