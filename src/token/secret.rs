//! A token's secret and what is made of it: the key of its records' MACs and its keys' auths.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{hkdf, hmac};

use crate::error::Result;
use crate::provider::KeyAuth;
use crate::secret::Secret;
use crate::store::ObjectId;

/// Length of a token's secret and of a key's auth in bytes.
const LEN: usize = 32;

/// A token's secret, in the clear.
pub(super) struct TokenSecret {
    secret: Secret,
    mac_key: hmac::Key,
    /// Whether keys have an auth of it: those of a token with PINs.
    guards_keys: bool,
}

impl TokenSecret {
    /// A secret that was unsealed.
    pub(super) fn new(secret: Secret, guards_keys: bool) -> Result<Self> {
        let mac_key = hmac::Key::from(prk(&secret).expand(&[b"record mac"], hmac::HMAC_SHA256)?);
        Ok(TokenSecret {
            secret,
            mac_key,
            guards_keys,
        })
    }

    /// The secret of a new token with PINs.
    pub(super) fn fresh() -> Result<Self> {
        TokenSecret::new(Secret::random(LEN)?, true)
    }

    /// The bytes, to seal them.
    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The key that the MACs of the token's records are made with.
    pub(super) fn mac_key(&self) -> &hmac::Key {
        &self.mac_key
    }

    /// Whether keys have an auth of it.
    pub(super) fn guards_keys(&self) -> bool {
        self.guards_keys
    }

    /// Whether it is the same secret, in constant time.
    pub(super) fn equals(&self, other: &TokenSecret) -> bool {
        verify_slices_are_equal(self.secret.expose(), other.secret.expose()).is_ok()
    }

    /// What authorises the key with this id.
    pub(super) fn auth(&self, key: &ObjectId) -> Result<KeyAuth> {
        if !self.guards_keys {
            return Ok(KeyAuth::None);
        }
        let mut auth = Secret::new(vec![0; LEN]);
        prk(&self.secret)
            .expand(&[b"key auth\0", key.as_str().as_bytes()], hkdf::HKDF_SHA256)?
            .fill(auth.expose_mut())?;
        Ok(KeyAuth::Secret(auth))
    }
}

/// HKDF-SHA-256 (RFC 5869), one purpose to each output.
fn prk(secret: &Secret) -> hkdf::Prk {
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"devkey token secret v1").extract(secret.expose())
}
