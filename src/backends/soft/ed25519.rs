//! Ed25519 (RFC 8032). aws-lc wipes the expanded key after each signature (`OPENSSL_cleanse(az, …)`
//! in crypto/fipsmodule/curve25519/curve25519.c).

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

use super::material::Material;
use super::no_scheme;
use crate::error::{Error, Result};
use crate::key::{KeyKind, PublicKey, Scheme};
use crate::provider::Key;
use crate::secret::Secret;

/// An opened key. There is no usage but signing.
#[derive(Debug)]
pub(super) struct Ed25519Key(Ed25519KeyPair);

/// The public key of the private key that `material` gives.
pub(super) fn public(material: &Material) -> Result<PublicKey> {
    let seed = seed(material)?;
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| Error::Crypto)?;
    PublicKey::from_ed25519(pair.public_key().as_ref())
}

impl Ed25519Key {
    /// Derives the key again; the tag has been checked.
    pub(super) fn open(material: &Material, public: &PublicKey) -> Result<Self> {
        let public = public.point().unwrap_or_default();
        Ed25519KeyPair::from_seed_and_public_key(seed(material)?.expose(), public)
            .map(Ed25519Key)
            .map_err(|_| Error::BadBlob)
    }
}

impl Key for Ed25519Key {
    fn sign(&self, scheme: Scheme, input: &[u8]) -> Result<Vec<u8>> {
        if scheme != Scheme::Ed25519 {
            return Err(no_scheme(scheme, KeyKind::Ed25519));
        }
        Ok(self.0.try_sign(input)?.as_ref().to_vec())
    }
}

/// The private key of RFC 8032 §5.1.5: any 32 bytes.
fn seed(material: &Material) -> Result<Secret> {
    material.derive("ed25519 seed", &[], 32)
}
