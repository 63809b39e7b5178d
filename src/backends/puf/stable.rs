//! A source that gives the same secret bytes at each open: no code corrects anything, and its
//! operator vouches for the entropy. Helper data is kept all the same, so that another device is
//! noticed.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `DKPUFSTB` |
//! | 8 | 2 | version, little-endian: 1 |
//! | 10 | 2 | how many bytes are read, little-endian |
//! | 12 | 4 | offset, little-endian |
//! | 16 | 16 | enrolment id, random |
//! | 32 | 32 | zeros |
//! | 64 | 32 | tag |

use std::fs;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};

use super::source::Window;
use crate::error::{Error, Result};
use crate::secret::Secret;

const MAGIC: &[u8; 8] = b"DKPUFSTB";
const VERSION: u16 = 1;
const HEADER: usize = 64;

/// Length of helper data in bytes.
pub(super) const HELPER_LEN: usize = HEADER + 32;

/// Files of a machine with numbers that others know, some of which everybody can read: no secrets therefore.
const KNOWN: &[&str] = &[
    "/etc/machine-id",
    "/sys/class/dmi/id/product_uuid",
    "/sys/class/dmi/id/product_serial",
    "/sys/class/dmi/id/board_serial",
    "/sys/firmware/devicetree/base/serial-number",
    "/proc/sys/kernel/random/boot_id",
];

/// Whether helper data is of this kind.
pub(super) fn is_helper(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// What helper data says was read.
pub(super) fn window(helper: &[u8]) -> Result<Window> {
    let known = helper.get(8..16).and_then(|bytes| bytes.try_into().ok());
    let [v0, v1, l0, l1, o0, o1, o2, o3]: [u8; 8] = known.ok_or(Error::NotReproduced)?;
    if u16::from_le_bytes([v0, v1]) != VERSION {
        return Err(Error::NotReproduced);
    }
    Ok(Window::exactly(
        u32::from_le_bytes([o0, o1, o2, o3]) as usize,
        u16::from_le_bytes([l0, l1]).into(),
    ))
}

/// New helper data and the root for what was read.
pub(super) fn enroll(reading: &Secret, offset: usize) -> Result<(Vec<u8>, Secret)> {
    let (length, offset) = (reading.len() as u16, offset as u32);
    let mut helper = [MAGIC.as_slice(), &VERSION.to_le_bytes()].concat();
    helper.extend(length.to_le_bytes());
    helper.extend(offset.to_le_bytes());
    helper.extend(Secret::random(16)?.expose());
    helper.resize(HEADER, 0);
    let (root, tag) = derive(&helper, reading)?;
    helper.extend(tag.expose());
    Ok((helper, root))
}

/// The root of helper data, from a fresh reading.
///
/// # Errors
/// [`Error::NotReproduced`], whatever the reason.
pub(super) fn reconstruct(helper: &[u8], reading: &Secret) -> Result<Secret> {
    let parts = helper.split_at_checked(HEADER);
    let (header, tag) = parts.ok_or(Error::NotReproduced)?;
    let (root, right) = derive(header, reading)?;
    verify_slices_are_equal(right.expose(), tag).map_err(|_| Error::NotReproduced)?;
    Ok(root)
}

/// Refuses what can be no secret of 256 bits.
pub(super) fn check(reading: Secret) -> Result<Secret> {
    let refused = |reason: &str| {
        Err(Error::input(format!(
            "what was read {reason}; a source of keys gives secret random bytes"
        )))
    };
    let bytes = reading.expose();
    if bytes
        .iter()
        .all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace() || *b == 0)
    {
        return refused("is text: a serial number or name, which is no secret");
    }
    if repeats(bytes) {
        return refused("repeats itself");
    }
    if let Some(file) = KNOWN.iter().find(|file| is_known(bytes, file)) {
        return refused(&format!("is in {file}, which everybody can read"));
    }
    Ok(reading)
}

/// Root and tag.
fn derive(header: &[u8], reading: &Secret) -> Result<(Secret, Secret)> {
    let prk = Salt::new(HKDF_SHA256, header).extract(reading.expose());
    let output = |purpose: &[u8]| expand(&prk, purpose);
    Ok((
        output(b"devkey/puf/stable/v1/root")?,
        output(b"devkey/puf/stable/v1/confirm")?,
    ))
}

fn expand(prk: &Prk, purpose: &[u8]) -> Result<Secret> {
    let mut output = Secret::new(vec![0; 32]);
    prk.expand(&[purpose], HKDF_SHA256)?
        .fill(output.expose_mut())?;
    Ok(output)
}

/// Few values, or a period of up to half the length: 32 random bytes have at least 20 different
/// ones but for one time in 10^8.
fn repeats(bytes: &[u8]) -> bool {
    let mut values = bytes.to_vec();
    values.sort_unstable();
    values.dedup();
    let periodic = (1..=bytes.len() / 2).any(|period| {
        let shifted = bytes.get(period..).unwrap_or_default();
        bytes.iter().zip(shifted).all(|(a, b)| a == b)
    });
    let few = values.len() < bytes.len() / 2;
    zeroize::Zeroize::zeroize(&mut values);
    few || periodic
}

/// Whether the id in a file is in there, as its digits say.
fn is_known(bytes: &[u8], file: &str) -> bool {
    let Ok(text) = fs::read_to_string(file) else {
        return false;
    };
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id = base16ct::mixed::decode_vec(&digits).unwrap_or_default();
    id.len() >= 8 && bytes.windows(id.len()).any(|window| window == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(bytes: &[u8]) -> Secret {
        Secret::new(bytes.to_vec())
    }

    /// 32 bytes as random as any.
    fn good() -> Vec<u8> {
        crate::key::Hash::Sha256.digest(b"good")
    }

    /// Seen to fail with `enroll` whose header has no random id.
    #[test]
    fn the_root_comes_back_and_no_other() {
        let (helper, root) = enroll(&secret(&good()), 0).unwrap();
        assert_eq!(helper.len(), HELPER_LEN);
        let again = reconstruct(&helper, &secret(&good())).unwrap();
        assert_eq!(again.expose(), root.expose());
        assert_ne!(
            enroll(&secret(&good()), 0).unwrap().1.expose(),
            root.expose()
        );
    }

    /// Seen to fail without `verify_slices_are_equal`.
    #[test]
    fn each_changed_bit_is_one_error() {
        let (helper, _) = enroll(&secret(&good()), 0).unwrap();
        let refuses = |helper: &[u8], reading: &[u8]| {
            let refused = reconstruct(helper, &secret(reading));
            assert!(matches!(refused, Err(Error::NotReproduced)), "{refused:?}");
        };
        for bit in 0..helper.len() * 8 {
            let mut changed = helper.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            refuses(&changed, &good());
        }
        for len in 0..helper.len() {
            refuses(&helper[..len], &good());
        }
        let mut other = good();
        other[31] ^= 1;
        refuses(&helper, &other);
    }

    /// Seen to fail without each of the three conditions in `check`.
    #[test]
    fn what_is_no_secret_is_refused() {
        let refuses = |bytes: &[u8], word: &str| match check(secret(bytes)) {
            Err(Error::BadInput(reason)) => assert!(reason.contains(word), "{reason}"),
            other => panic!("{bytes:?}: {other:?}"),
        };
        refuses(&[b'7'; 32], "text");
        refuses(b"4c4c4544-0039-4710-8051-c4c04f4a0000", "text");
        refuses(&[0xff; 32], "repeats");
        refuses(
            &[good()[..16].to_vec(), good()[..16].to_vec()].concat(),
            "repeats",
        );
        check(secret(&good())).unwrap();
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let id = base16ct::mixed::decode_vec(boot_id.trim().replace('-', "")).unwrap();
        refuses(&[&good()[..16], &id].concat(), "boot_id");
    }
}
