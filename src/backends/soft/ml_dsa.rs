//! ML-DSA (FIPS 204) over the message itself, with an empty context.
//!
//! Signatures are hedged: aws-lc draws 32 random bytes for each (`mld_sign_signature` in
//! crypto/fipsmodule/ml_dsa/mldsa/sign.c), which are hashed together with the private key and the
//! message, so that a generator that repeats itself does not give the key away. It wipes what it
//! works with (`MLD_FREE` there), and `OPENSSL_free` seed and private key of a dropped key.

use aws_lc_rs::signature::{
    KeyPair, ML_DSA_44_SIGNING, ML_DSA_65_SIGNING, ML_DSA_87_SIGNING, PqdsaKeyPair,
    PqdsaSigningAlgorithm,
};

use super::material::Material;
use super::no_scheme;
use crate::error::{Error, Result};
use crate::key::{KeyKind, PublicKey, Scheme};
use crate::provider::Key;

/// Length of ξ in bytes, from which FIPS 204 §5.1 makes all of a key.
const SEED_LEN: usize = 32;

/// An opened key. There is no usage but signing.
#[derive(Debug)]
pub(super) struct MlDsaKey {
    kind: KeyKind,
    pair: PqdsaKeyPair,
}

/// The public key of the private key that `material` gives.
pub(super) fn public(kind: KeyKind, material: &Material) -> Result<PublicKey> {
    PublicKey::from_ml_dsa(kind, pair(kind, material)?.public_key().as_ref())
}

impl MlDsaKey {
    /// Derives the key again; the tag has been checked.
    pub(super) fn open(material: &Material, public: &PublicKey) -> Result<Self> {
        let kind = public.kind();
        let pair = pair(kind, material)?;
        match public.ml_dsa() == Some(pair.public_key().as_ref()) {
            true => Ok(MlDsaKey { kind, pair }),
            false => Err(Error::BadBlob),
        }
    }
}

impl Key for MlDsaKey {
    fn sign(&self, scheme: Scheme, input: &[u8]) -> Result<Vec<u8>> {
        if scheme != Scheme::MlDsa {
            return Err(no_scheme(scheme, self.kind));
        }
        let mut signature = vec![0; self.kind.signature_len()];
        let len = self.pair.sign(input, &mut signature)?;
        signature.truncate(len);
        Ok(signature)
    }
}

/// The key pair of FIPS 204 §6.1 (ML-DSA.KeyGen_internal): any seed makes one.
fn pair(kind: KeyKind, material: &Material) -> Result<PqdsaKeyPair> {
    let algorithm = algorithm(kind)?;
    let seed = material.derive("ml-dsa seed", &[], SEED_LEN)?;
    PqdsaKeyPair::from_seed(algorithm, seed.expose()).map_err(|_| Error::Crypto)
}

fn algorithm(kind: KeyKind) -> Result<&'static PqdsaSigningAlgorithm> {
    match kind {
        KeyKind::MlDsa44 => Ok(&ML_DSA_44_SIGNING),
        KeyKind::MlDsa65 => Ok(&ML_DSA_65_SIGNING),
        KeyKind::MlDsa87 => Ok(&ML_DSA_87_SIGNING),
        _ => Err(Error::Internal(format!("{kind} is no ML-DSA"))),
    }
}
