//! ECDSA and ECDH over P-256 and P-384.
//!
//! Nonces are hedged: `ECDSA_do_sign` (aws-lc, crypto/fipsmodule/ecdsa/ecdsa.c) feeds
//! SHA-512(private key ‖ digest) into the generator as additional data, so that a generator that
//! repeats itself does not give the key away. It wipes the nonce and its inverse itself
//! (`OPENSSL_cleanse(&k, …)` there), and `OPENSSL_free` the scalar of a dropped key.

use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P384, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm,
};

use super::material::Material;
use super::no_scheme;
use crate::error::{Error, Result};
use crate::key::{Hash, KeyKind, PublicKey, Scheme, Usage};
use crate::provider::Key;
use crate::secret::Secret;

/// An opened key: holds only what its usage needs.
#[derive(Debug)]
pub(super) struct EcKey {
    curve: Curve,
    signer: Option<EcdsaKeyPair>,
    agreer: Option<PrivateKey>,
}

/// A curve's parts of aws-lc, and the hash that is as long as its field.
#[derive(Debug, Clone, Copy)]
struct Curve {
    kind: KeyKind,
    hash: Hash,
    signing: &'static EcdsaSigningAlgorithm,
    agreement: &'static agreement::Algorithm,
}

/// The public key of the private key that `material` gives.
pub(super) fn public(kind: KeyKind, material: &Material) -> Result<PublicKey> {
    let scalar = scalar(kind, material)?;
    let private = PrivateKey::from_private_key(Curve::of(kind)?.agreement, scalar.expose())
        .map_err(|_| Error::Crypto)?;
    PublicKey::from_sec1(kind, private.compute_public_key()?.as_ref())
}

impl EcKey {
    /// Derives the key again; the tag has been checked.
    pub(super) fn open(material: &Material, public: &PublicKey, usage: Usage) -> Result<Self> {
        let curve = Curve::of(public.kind())?;
        let scalar = scalar(curve.kind, material)?;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(
            curve.signing,
            scalar.expose(),
            public.point().unwrap_or_default(),
        )
        .map_err(|_| Error::BadBlob)?;
        let agreer = usage
            .agree
            .then(|| PrivateKey::from_private_key(curve.agreement, scalar.expose()))
            .transpose()
            .map_err(|_| Error::BadBlob)?;
        Ok(EcKey {
            curve,
            signer: usage.sign.then_some(pair),
            agreer,
        })
    }
}

impl Key for EcKey {
    fn sign(&self, scheme: Scheme, input: &[u8]) -> Result<Vec<u8>> {
        if scheme != Scheme::Ecdsa {
            return Err(no_scheme(scheme, self.curve.kind));
        }
        let signer = self
            .signer
            .as_ref()
            .ok_or_else(|| Error::NotPermitted("sign".to_owned()))?;
        let digest = self.curve.hash.import(input)?;
        Ok(signer.sign_digest(&digest)?.as_ref().to_vec())
    }

    fn agree(&self, peer: &PublicKey) -> Result<Secret> {
        let agreer = self
            .agreer
            .as_ref()
            .ok_or_else(|| Error::NotPermitted("agree on a key".to_owned()))?;
        let point = peer
            .point()
            .filter(|_| peer.kind() == self.curve.kind)
            .ok_or_else(|| Error::input(format!("the peer's key is no {}", self.curve.kind)))?;
        agreement::agree(
            agreer,
            UnparsedPublicKey::new(self.curve.agreement, point),
            Error::Crypto,
            |shared| Ok(Secret::new(shared.to_vec())),
        )
    }
}

impl Curve {
    fn of(kind: KeyKind) -> Result<Self> {
        let (hash, signing, agreement) = match kind {
            KeyKind::EcP256 => (Hash::Sha256, &ECDSA_P256_SHA256_FIXED_SIGNING, &ECDH_P256),
            KeyKind::EcP384 => (Hash::Sha384, &ECDSA_P384_SHA384_FIXED_SIGNING, &ECDH_P384),
            _ => return Err(Error::Internal(format!("{kind} is no curve"))),
        };
        Ok(Curve {
            kind,
            hash,
            signing,
            agreement,
        })
    }
}

/// The private key: big-endian, as long as the field.
fn scalar(kind: KeyKind, material: &Material) -> Result<Secret> {
    reject(kind, |counter| {
        material.derive("ec scalar", &[counter], kind.bits() / 8)
    })
}

/// Rejection sampling after FIPS 186-5 A.2.2: the first candidate in 1..n-1 (there, one is added to
/// a candidate below n-1; here, zero is rejected too: either is uniform). HKDF with a counter takes
/// the place of the random bit generator. A candidate is rejected once in 2³² for P-256, once in
/// 2¹⁹⁰ for P-384, and what is learnt from that is nothing of the one kept.
fn reject(kind: KeyKind, candidate: impl Fn(u8) -> Result<Secret>) -> Result<Secret> {
    for counter in 0..=u8::MAX {
        let scalar = candidate(counter)?;
        let in_range = match kind {
            KeyKind::EcP384 => p384::SecretKey::from_slice(scalar.expose()).is_ok(),
            _ => p256::SecretKey::from_slice(scalar.expose()).is_ok(),
        };
        if in_range {
            return Ok(scalar);
        }
    }
    Err(Error::Crypto)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order of P-256 (SP 800-186 §3.2.1.3), and of P-384 (§3.2.1.4).
    const N256: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    const N384: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf\
                        581a0db248b0a77aecec196accc52973";

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len() / 2)
            .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
            .collect()
    }

    /// Seen to fail with `if in_range` made `if true`, and with the counter not passed on.
    #[test]
    fn what_is_no_scalar_is_rejected_and_the_next_one_taken() {
        for (kind, order) in [(KeyKind::EcP256, N256), (KeyKind::EcP384, N384)] {
            let order = unhex(order);
            let mut last = order.clone();
            *last.last_mut().unwrap() -= 1;
            let zero = vec![0; order.len()];
            let high = vec![0xff; order.len()];
            let stream = [zero, order, high, last.clone()];
            let kept = reject(kind, |at| Ok(Secret::new(stream[usize::from(at)].clone())));
            assert_eq!(kept.unwrap().expose(), last);
        }
    }

    #[test]
    fn a_source_that_gives_no_scalar_ends() {
        let stuck = reject(KeyKind::EcP256, |_| Ok(Secret::new(vec![0; 32])));
        assert!(matches!(stuck, Err(Error::Crypto)));
    }
}
