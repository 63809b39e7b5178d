//! Signatures on certificates: RFC 5656 §3.1.2, RFC 8332 §3, RFC 8709 §6.

use ssh_encoding::Mpint;

use super::{key, wire};
use crate::error::{Error, Result};
use crate::identity::signer::{Signer, sign_message, verify_message};
use crate::key::{Hash, KeyKind, PublicKey, Scheme};

/// Signs; gives the algorithm's name and the signature in one encoding. RSA never signs by `ssh-rsa`,
/// which is SHA-1.
pub(super) fn sign(signer: &dyn Signer, message: &[u8]) -> Result<Vec<u8>> {
    let kind = signer.public().kind();
    if kind.is_rsa() {
        return sign_rsa(signer, message, usual_hash(kind));
    }
    let value = sign_message(signer, message)?;
    let value = match kind.is_ec() {
        true => pair(&value)?,
        false => value,
    };
    encode(key::known(kind)?, &value)
}

/// Signs with an RSA key by the algorithm of this hash.
///
/// # Errors
/// [`Error::Unsupported`] for a hash that RFC 8332 has no algorithm for.
pub(super) fn sign_rsa(signer: &dyn Signer, message: &[u8], hash: Hash) -> Result<Vec<u8>> {
    let name = match hash {
        Hash::Sha256 => "rsa-sha2-256",
        Hash::Sha512 => "rsa-sha2-512",
        _ => return Err(Error::unsupported("RSA by that hash in SSH")),
    };
    let value = signer.sign(Scheme::RsaPkcs1(hash), &hash.digest(message))?;
    encode(name, &value)
}

/// Verifies what [`sign`] or OpenSSH signed.
///
/// # Errors
/// [`Error::BadInput`] for an algorithm that is not the key's, [`Error::Crypto`] for a wrong
/// signature.
pub(super) fn verify(public: &PublicKey, message: &[u8], signature: &[u8]) -> Result<()> {
    let kind = public.kind();
    let (name, value) = wire::whole(signature, |from| {
        Ok((wire::take::<String>(from)?, wire::take::<Vec<u8>>(from)?))
    })?;
    match (name.as_str(), key::known(kind)?) {
        ("rsa-sha2-256", "ssh-rsa") => rsa_verify(public, Hash::Sha256, message, &value),
        ("rsa-sha2-512", "ssh-rsa") => rsa_verify(public, Hash::Sha512, message, &value),
        ("ssh-rsa", _) => Err(Error::input("a signature by ssh-rsa, which is SHA-1")),
        (name, own) if name != own => Err(Error::input(format!("a signature by {name:?}"))),
        _ if kind.is_ec() => verify_message(public, message, &fixed(kind, &value)?),
        _ => verify_message(public, message, &value),
    }
}

fn encode(name: &str, value: &[u8]) -> Result<Vec<u8>> {
    let mut signature = Vec::new();
    wire::put(&mut signature, name)?;
    wire::put(&mut signature, value)?;
    Ok(signature)
}

/// As strong as the key: TPMs sign SHA-256, and not all of them SHA-512.
fn usual_hash(kind: KeyKind) -> Hash {
    match kind {
        KeyKind::Rsa2048 => Hash::Sha256,
        _ => Hash::Sha512,
    }
}

fn rsa_verify(public: &PublicKey, hash: Hash, message: &[u8], signature: &[u8]) -> Result<()> {
    public.verify(Scheme::RsaPkcs1(hash), &hash.digest(message), signature)
}

/// r‖s as two `mpint`.
fn pair(signature: &[u8]) -> Result<Vec<u8>> {
    let (r, s) = signature.split_at(signature.len() / 2);
    let mut pair = Vec::new();
    wire::put(&mut pair, &Mpint::from_positive_bytes(r))?;
    wire::put(&mut pair, &Mpint::from_positive_bytes(s))?;
    Ok(pair)
}

/// Two `mpint` as r‖s of the curve's width.
fn fixed(kind: KeyKind, value: &[u8]) -> Result<Vec<u8>> {
    let width = kind.signature_len() / 2;
    let (r, s) = wire::whole(value, |from| {
        Ok((key::positive(from)?, key::positive(from)?))
    })?;
    let mut fixed = Vec::new();
    for number in [r, s] {
        let zeros = width.checked_sub(number.len()).ok_or(Error::Crypto)?;
        fixed.resize(fixed.len() + zeros, 0);
        fixed.extend_from_slice(&number);
    }
    Ok(fixed)
}
