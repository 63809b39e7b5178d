//! Whatever signs: requests, answers, certificates.

use crate::error::Result;
use crate::key::{Hash, KeyKind, PublicKey, Scheme, ecdsa_input};
use crate::store::KeyRecord;
use crate::token::Token;

/// A private key that signs by its public half's one usual scheme.
pub trait Signer {
    /// Its public half.
    fn public(&self) -> &PublicKey;

    /// Signs; see [`Key::sign`](crate::provider::Key::sign).
    fn sign(&self, scheme: Scheme, input: &[u8]) -> Result<Vec<u8>>;
}

/// A key of a token.
#[derive(Debug, Clone, Copy)]
pub struct TokenSigner<'a> {
    /// Its token.
    pub token: &'a dyn Token,
    /// Its record.
    pub key: &'a KeyRecord,
}

impl Signer for TokenSigner<'_> {
    fn public(&self) -> &PublicKey {
        &self.key.public
    }

    fn sign(&self, scheme: Scheme, input: &[u8]) -> Result<Vec<u8>> {
        self.token.sign(self.key, scheme, input)
    }
}

/// The scheme that certificates and answers are signed by with a key of this kind, and its hash: as
/// strong as the key.
pub fn usual(kind: KeyKind) -> (Scheme, Option<Hash>) {
    match kind {
        KeyKind::EcP256 => (Scheme::Ecdsa, Some(Hash::Sha256)),
        KeyKind::EcP384 => (Scheme::Ecdsa, Some(Hash::Sha384)),
        KeyKind::Rsa2048 => (Scheme::RsaPkcs1(Hash::Sha256), Some(Hash::Sha256)),
        KeyKind::Rsa3072 | KeyKind::Rsa4096 => (Scheme::RsaPkcs1(Hash::Sha384), Some(Hash::Sha384)),
        KeyKind::Ed25519 => (Scheme::Ed25519, None),
        KeyKind::MlDsa44 | KeyKind::MlDsa65 | KeyKind::MlDsa87 => (Scheme::MlDsa, None),
    }
}

/// Signs a message by [`usual`]. ECDSA gives r‖s of fixed width.
pub fn sign_message(signer: &dyn Signer, message: &[u8]) -> Result<Vec<u8>> {
    let (scheme, input) = prepared(signer.public().kind(), message)?;
    signer.sign(scheme, &input)
}

/// Verifies what [`sign_message`] signed.
///
/// # Errors
/// [`Error::Crypto`](crate::Error::Crypto) for a wrong signature.
pub fn verify_message(public: &PublicKey, message: &[u8], signature: &[u8]) -> Result<()> {
    let (scheme, input) = prepared(public.kind(), message)?;
    public.verify(scheme, &input, signature)
}

fn prepared(kind: KeyKind, message: &[u8]) -> Result<(Scheme, Vec<u8>)> {
    let (scheme, hash) = usual(kind);
    let input = match hash {
        None => message.to_vec(),
        Some(hash) if kind.is_ec() => ecdsa_input(kind, &hash.digest(message))?,
        Some(hash) => hash.digest(message),
    };
    Ok((scheme, input))
}
