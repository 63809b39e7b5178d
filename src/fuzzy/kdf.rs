//! What is derived from the corrected response: HKDF-SHA-256 (RFC 5869, NIST SP 800-56C rev. 2
//! two-step), one purpose to each output.
//!
//! What it protects against: changed helper data. The salt is a hash of all helper data but the tag,
//! so that each changed bit changes every output; the tag is an HMAC over the same bytes under a key
//! that is derived from the whole response and not from the code's K bits, so that it can be made
//! only by who knows every cell (Boyen, Dodis, Katz, Ostrovsky, Smith, EUROCRYPT 2005; Becker 2017,
//! "Robust Fuzzy Extractors and Helper Data Manipulation Attacks Revisited").
//!
//! aws-lc-rs wipes what it copies of the input, and aws-lc all that it frees (`OPENSSL_free`,
//! crypto/mem.c: `OPENSSL_cleanse` before `free`); an HMAC context is cleansed when dropped.

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::hmac;

use super::ROOT_LEN;
use crate::error::{Error, Result};
use crate::secret::Secret;

/// Length of a tag in bytes.
pub(super) const TAG_LEN: usize = 32;

const SALT: &[u8] = b"devkey/puf/v1/salt\0";
const CONFIRM: &[u8] = b"devkey/puf/v1/confirm";
const ROOT: &[u8] = b"devkey/puf/v1/root";

/// What all outputs of one enrolment are expanded from.
pub(super) struct Material(Prk);

impl Material {
    /// From the whole corrected response and all helper data but the tag. The data's own header says
    /// how long its parts are, so that the concatenation is unambiguous.
    pub(super) fn new(response: &Secret, data: &[u8]) -> Self {
        let mut salt = Context::new(&SHA256);
        salt.update(SALT);
        salt.update(data);
        let salt = Salt::new(HKDF_SHA256, salt.finish().as_ref());
        Material(salt.extract(response.expose()))
    }

    /// The tag of the helper data.
    pub(super) fn tag(&self, data: &[u8]) -> Result<[u8; TAG_LEN]> {
        let tag = hmac::sign(&self.key()?, data);
        tag.as_ref().try_into().map_err(|_| Error::Crypto)
    }

    /// Whether `tag` is the helper data's; in constant time.
    pub(super) fn confirms(&self, data: &[u8], tag: &[u8]) -> bool {
        self.key()
            .is_ok_and(|key| hmac::verify(&key, data, tag).is_ok())
    }

    /// The root.
    pub(super) fn root(&self) -> Result<Secret> {
        self.expand(ROOT, ROOT_LEN)
    }

    fn key(&self) -> Result<hmac::Key> {
        let key = self.expand(CONFIRM, TAG_LEN)?;
        Ok(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))
    }

    fn expand(&self, purpose: &[u8], len: usize) -> Result<Secret> {
        let mut secret = Secret::new(vec![0; len]);
        self.0
            .expand(&[purpose], Len(len))?
            .fill(secret.expose_mut())?;
        Ok(secret)
    }
}

/// A length in bytes, as HKDF wants it.
struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        base16ct::lower::encode_string(bytes)
    }

    /// Against Python's hmac and hashlib: what was derived once is derived for ever. Fails with any
    /// label changed, and without the salt.
    #[test]
    fn known_answers() {
        let response = Secret::new((0..=255).collect());
        let material = Material::new(&response, b"header, syndrome and map");
        let root = material.root().unwrap();
        assert_eq!(
            hex(root.expose()),
            "96e9f58f2f95621d1448e8ca30ea49b7759d6aada77267848c00a42a835c82f7"
        );
        let tag = material.tag(b"header, syndrome and map").unwrap();
        assert_eq!(
            hex(&tag),
            "b41caa1d1aeffb54bcf0c03df80e2cefbde0abf248bbc8a5030b6c1fdcc6f014"
        );
    }

    /// Fails with `true` for the comparison, and with a salt over the label alone.
    #[test]
    fn a_tag_confirms_its_data_and_no_other() {
        let response = Secret::new(vec![7; 256]);
        let material = Material::new(&response, b"data");
        let tag = material.tag(b"data").unwrap();
        assert!(material.confirms(b"data", &tag));
        assert!(!material.confirms(b"date", &tag));
        for bit in 0..256 {
            let mut bad = tag;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!material.confirms(b"data", &bad));
        }
        let other = Material::new(&response, b"date");
        assert_ne!(other.tag(b"data").unwrap(), tag);
        assert_ne!(
            other.root().unwrap().expose(),
            material.root().unwrap().expose()
        );
    }
}
