//! PINs in a TPM: who counts the wrong ones, what passes without the right one (nothing), and what a
//! power cut costs. On swtpm, with tpm2-tools as the attacker.
#![cfg(feature = "tpm")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

mod attacks;
mod bus;
mod guards;
mod power;

#[path = "../common/tpm.rs"]
mod tpm;

use std::sync::Arc;

use aws_lc_rs::hmac;
use devkey::Error;
use devkey::backends::tpm::BACK_END;
use devkey::key::{Hash, Scheme};
use devkey::provider::{Blob, Key, KeyAuth, NewKey, Place, Provider, Settings, Tries};
use devkey::secret::Secret;

use tpm::Swtpm;

const RIGHT: u8 = 7;
const WRONG: u8 = 8;
const TRIES: u32 = 5;

/// A token's secret, sealed in a TPM.
struct Made {
    swtpm: Swtpm,
    provider: Arc<dyn Provider>,
    secret: Secret,
    blob: Blob,
}

impl Made {
    fn new(extra: &[(&str, &str)]) -> Self {
        Made::on(Swtpm::start(), extra)
    }

    fn on(swtpm: Swtpm, extra: &[(&str, &str)]) -> Self {
        let provider = create(&swtpm.tcti(), extra);
        let secret = Secret::random(32).unwrap();
        let blob = provider.seal(&secret, &pin(RIGHT), TRIES).unwrap();
        Made {
            swtpm,
            provider,
            secret,
            blob,
        }
    }

    fn unseal(&self, with: u8) -> devkey::Result<Secret> {
        self.provider.unseal(&self.blob, &pin(with))
    }

    fn opens(&self) {
        assert_eq!(self.unseal(RIGHT).unwrap().expose(), self.secret.expose());
    }

    fn tries(&self) -> Tries {
        self.provider.tries(&self.blob).unwrap().unwrap()
    }

    /// A wrong PIN: what it answers, which is how many tries are left.
    fn wrong(&self) -> Option<u32> {
        match self.unseal(WRONG) {
            Err(Error::WrongPin { tries_left }) => tries_left,
            other => panic!("{other:?}"),
        }
    }
}

fn settings(tcti: &str, extra: &[(&str, &str)]) -> Settings {
    let all = [&[("tcti", tcti)], extra].concat();
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    all.iter().map(own).collect()
}

fn create(tcti: &str, extra: &[(&str, &str)]) -> Arc<dyn Provider> {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(tcti, extra);
    let place = Place {
        dir: dir.path(),
        settings: &settings,
        binding: None,
    };
    (BACK_END.create)(&place).unwrap()
}

fn pin(byte: u8) -> KeyAuth {
    KeyAuth::Secret(Secret::new(vec![byte; 32]))
}

/// A property of the TPM, as tpm2_getcap shows it.
fn property(swtpm: &Swtpm, name: &str) -> u32 {
    let all = swtpm.tool("tpm2_getcap", &["properties-variable"]);
    let line = all.lines().find(|line| line.contains(name)).unwrap();
    let value = line.rsplit_once("0x").unwrap().1.trim();
    u32::from_str_radix(value, 16).unwrap()
}

fn lockouts(swtpm: &Swtpm) -> u32 {
    property(swtpm, "TPM2_PT_LOCKOUT_COUNTER")
}

fn signs(key: &dyn Key, new: &NewKey) -> devkey::Result<()> {
    let digest = Hash::Sha256.digest(b"hello");
    let signature = key.sign(Scheme::Ecdsa, &digest)?;
    new.public.verify(Scheme::Ecdsa, &digest, &signature)
}

/// What a stretched PIN proves itself to.
#[derive(Debug, Clone, Copy)]
enum Part {
    Counter,
    Object,
}

impl Part {
    const ALL: [Part; 2] = [Part::Counter, Part::Object];

    /// The auth that follows from [`pin`] for it.
    fn auth(self, byte: u8) -> Vec<u8> {
        let what: &[u8] = match self {
            Part::Counter => b"devkey tpm pin counter",
            Part::Object => b"devkey tpm sealed secret",
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32]);
        hmac::sign(&key, what).as_ref().to_vec()
    }
}

/// Right PINs open, wrong ones cost exactly one try on the token's own counter. Seen failing, with
/// more than one gone, without the arm for `is_auth` in `counted`.
#[test]
fn a_wrong_pin_costs_one_try_of_its_own() {
    let made = Made::new(&[]);
    made.opens();
    let full = Tries {
        by_device: true,
        left: TRIES,
        of: TRIES,
        recovery: None,
        shared: false,
    };
    assert_eq!(made.tries(), full);
    for left in [TRIES - 1, TRIES - 2] {
        assert_eq!(made.wrong(), Some(left));
        assert_eq!(made.tries().left, left);
    }
    made.opens();
    assert_eq!(made.tries(), full);
    for left in (0..TRIES).rev() {
        assert_eq!(made.wrong(), Some(left));
    }
    assert_eq!(made.tries().left, 0);
    for with in [WRONG, RIGHT, WRONG] {
        let locked = made.unseal(with);
        assert!(matches!(locked, Err(Error::PinLocked)), "{locked:?}");
    }
    assert_eq!(lockouts(&made.swtpm), 0);
    made.swtpm.assert_empty();
}
