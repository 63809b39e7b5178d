//! PINs: what can be one, and what it is stretched to.

use std::str;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use base16ct::lower as hex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::fork;
use crate::provider::KeyAuth;
use crate::secret::Secret;
use crate::store::{PinRecord, Role, Stretch};

/// Shortest PIN in bytes.
pub const MIN_PIN: usize = 4;
/// Longest PIN in bytes: what the prompts of OpenSSL's engine and provider take.
pub const MAX_PIN: usize = 32;
/// Tries of a PIN, unless its maker says otherwise.
pub const DEFAULT_TRIES: u32 = 10;

/// Length of the salt in bytes: RFC 9106 §3.1 recommends 16.
const SALT_LEN: usize = 16;
/// Length of what a PIN is stretched to, in bytes.
const STRETCHED_LEN: usize = 32;
/// RFC 9106 §4, second recommendation: 64 MiB, 3 passes, 4 lanes.
const MEMORY: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// A machine gives one login this part of its memory at most.
const SHARE: u64 = 16;
/// Least memory in KiB, however small the machine; OWASP's password cheat sheet goes no lower
/// than 7 MiB.
const LEAST_MEMORY: u32 = 8 * 1024;
/// Most memory in KiB and most passes that a record may ask for: one that was tampered with must not
/// exhaust the machine.
const MOST_MEMORY: u32 = 1024 * 1024;
const MOST_PASSES: u32 = 64;
const MOST_LANES: u32 = 16;

/// A PIN: [`MIN_PIN`] to [`MAX_PIN`] bytes of UTF-8.
#[derive(Debug, Serialize, Deserialize)]
#[serde(try_from = "Secret")]
pub struct Pin(Secret);

impl Pin {
    /// Takes the bytes over.
    ///
    /// # Errors
    /// [`Error::PinLength`]; [`Error::BadPin`] for what is not UTF-8 or holds a NUL.
    pub fn new(bytes: Secret) -> Result<Self> {
        if !(MIN_PIN..=MAX_PIN).contains(&bytes.len()) {
            return Err(Error::PinLength);
        }
        match str::from_utf8(bytes.expose()) {
            Ok(text) if !text.contains('\0') => Ok(Pin(bytes)),
            Ok(_) => Err(Error::BadPin("a PIN has no NUL".to_owned())),
            Err(_) => Err(Error::BadPin("a PIN is UTF-8 text".to_owned())),
        }
    }

    /// The bytes, to send them on or to compare them.
    pub(crate) fn expose(&self) -> &[u8] {
        self.0.expose()
    }

    /// What opens the secret that is sealed for a role of the token with this serial.
    ///
    /// # Errors
    /// [`Error::BadBlob`] where the parameters are out of range: no devkey wrote them.
    pub(super) fn stretch(&self, how: &Stretch, role: Role, serial: &str) -> Result<KeyAuth> {
        if how.memory > MOST_MEMORY || how.passes > MOST_PASSES || how.lanes > MOST_LANES {
            return Err(Error::BadBlob);
        }
        let params = Params::new(how.memory, how.passes, how.lanes, Some(STRETCHED_LEN));
        let params = params.map_err(|_| Error::BadBlob)?;
        let salt = hex::decode_vec(&how.salt).map_err(|_| Error::BadBlob)?;
        let mut stretched = Secret::new(vec![0; STRETCHED_LEN]);
        // Each takes its memory, and a service has many clients, some of whom only try.
        let turn = fork::turn();
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(self.expose(), &salt, stretched.expose_mut())
            .map_err(|_| Error::BadBlob)?;
        drop(turn);
        bound(&stretched, role, serial)
    }
}

/// Separates roles and tokens: a PIN's record is of no use in another's place.
fn bound(stretched: &Secret, role: Role, serial: &str) -> Result<KeyAuth> {
    let prk = Salt::new(HKDF_SHA256, b"devkey pin v1").extract(stretched.expose());
    let mut auth = Secret::new(vec![0; STRETCHED_LEN]);
    prk.expand(
        &[role.name().as_bytes(), b"\0", serial.as_bytes()],
        HKDF_SHA256,
    )?
    .fill(auth.expose_mut())?;
    Ok(KeyAuth::Secret(auth))
}

/// Parameters for a new PIN on this machine, with a fresh salt.
pub(super) fn new_stretch() -> Result<Stretch> {
    let (memory, passes) = affordable(total_memory());
    let mut salt = [0; SALT_LEN];
    aws_lc_rs::rand::fill(&mut salt)?;
    Ok(Stretch {
        memory,
        passes,
        lanes: LANES,
        salt: hex::encode_string(&salt),
    })
}

/// Memory in KiB and passes on a machine with `total` KiB: less memory is made up for by passes.
fn affordable(total: u64) -> (u32, u32) {
    let (mut memory, mut passes) = (MEMORY, PASSES);
    while u64::from(memory) > total / SHARE && memory > LEAST_MEMORY {
        memory /= 2;
        passes *= 2;
    }
    (memory, passes)
}

/// The machine's memory, in KiB.
fn total_memory() -> u64 {
    let about = rustix::system::sysinfo();
    #[allow(clippy::useless_conversion, reason = "32 bits wide on some machines")]
    let total = u64::from(about.totalram);
    total.saturating_mul(u64::from(about.mem_unit)) / 1024
}

impl TryFrom<Secret> for Pin {
    type Error = Error;

    fn try_from(bytes: Secret) -> Result<Self> {
        Pin::new(bytes)
    }
}

impl PinRecord {
    /// Whether `used` tries lock it.
    pub fn locked_after(&self, used: u32) -> bool {
        used >= self.tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(bytes: &[u8]) -> Result<Pin> {
        Pin::new(Secret::new(bytes.to_vec()))
    }

    fn stretched(pin: &Pin, how: &Stretch, role: Role, serial: &str) -> Vec<u8> {
        match pin.stretch(how, role, serial).unwrap() {
            KeyAuth::Secret(auth) => auth.expose().to_vec(),
            KeyAuth::None => panic!("no auth"),
        }
    }

    fn small(salt: &str) -> Stretch {
        Stretch {
            memory: 64,
            passes: 1,
            lanes: 1,
            salt: salt.to_owned(),
        }
    }

    /// Seen to fail with `MIN_PIN - 1` and `MAX_PIN + 1`, and with the text not looked at.
    #[test]
    fn what_cannot_be_a_pin() {
        for length in [0, 3, 33, 1000] {
            assert!(matches!(pin(&vec![b'1'; length]), Err(Error::PinLength)));
        }
        for length in [4, 32] {
            pin(&vec![b'1'; length]).unwrap();
        }
        assert!(matches!(pin(b"12\x00345"), Err(Error::BadPin(_))));
        assert!(matches!(pin(b"12\xff45"), Err(Error::BadPin(_))));
        pin("Grüße".as_bytes()).unwrap();
    }

    /// Seen to fail with role or serial taken out of `bound`, and with the salt left out.
    #[test]
    fn pins_of_other_roles_tokens_and_salts_differ() {
        let (salt, other) = (
            "00112233445566778899aabbccddeeff",
            "ff112233445566778899aabbccddeeff",
        );
        let pin = pin(b"1234").unwrap();
        let auth = stretched(&pin, &small(salt), Role::User, "A");
        assert_eq!(auth, stretched(&pin, &small(salt), Role::User, "A"));
        for differing in [
            stretched(&pin, &small(salt), Role::So, "A"),
            stretched(&pin, &small(salt), Role::User, "B"),
            stretched(&pin, &small(other), Role::User, "A"),
        ] {
            assert_ne!(auth, differing);
        }
    }

    /// Seen to fail without the first `if` of `stretch`.
    #[test]
    fn a_record_cannot_exhaust_the_machine() {
        let pin = pin(b"1234").unwrap();
        let salt = "00112233445566778899aabbccddeeff";
        for greedy in [
            Stretch {
                memory: MOST_MEMORY + 1,
                ..small(salt)
            },
            Stretch {
                passes: MOST_PASSES + 1,
                ..small(salt)
            },
            Stretch {
                memory: 1024,
                lanes: MOST_LANES + 1,
                ..small(salt)
            },
            small("00"),
            small("zz"),
        ] {
            let refused = pin.stretch(&greedy, Role::User, "A");
            assert!(matches!(refused, Err(Error::BadBlob)), "{greedy:?}");
        }
    }

    #[test]
    fn a_small_machine_takes_more_passes_over_less_memory() {
        assert_eq!(affordable(16 << 20), (MEMORY, PASSES));
        assert_eq!(affordable(512 << 10), (MEMORY / 2, PASSES * 2));
        assert_eq!(affordable(1024), (LEAST_MEMORY, PASSES * 8));
    }
}
