//! Public keys as OpenSSH writes them: RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4.

use base64ct::{Base64Unpadded, Encoding};
use ssh_encoding::Mpint;

use super::wire;
use crate::error::{Error, Result};
use crate::key::{Hash, KeyKind, PublicKey};

/// Longest public key that is read, in bytes; RSA-4096 has 535.
const MAX: usize = 2048;

/// The name of the algorithm; `None` for a key that OpenSSH does not know.
pub fn algorithm(kind: KeyKind) -> Option<&'static str> {
    match kind {
        KeyKind::EcP256 => Some("ecdsa-sha2-nistp256"),
        KeyKind::EcP384 => Some("ecdsa-sha2-nistp384"),
        KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => Some("ssh-rsa"),
        KeyKind::Ed25519 => Some("ssh-ed25519"),
        // No RFC gives ML-DSA a name in SSH.
        KeyKind::MlDsa44 | KeyKind::MlDsa65 | KeyKind::MlDsa87 => None,
    }
}

/// A line for `authorized_keys`, without its end; control characters in the comment are escaped.
///
/// # Errors
/// [`Error::Unsupported`] for a key that OpenSSH does not know.
pub fn line(public: &PublicKey, comment: &str) -> Result<String> {
    Ok(wire::line(known(public.kind())?, &blob(public)?, comment))
}

/// Reads a line as [`line`] and ssh-keygen write it: the key and the comment.
///
/// # Errors
/// [`Error::BadInput`] for anything else: options before the key, a certificate, another line.
pub fn from_line(line: &str) -> Result<(PublicKey, String)> {
    let (name, base64, comment) = wire::words(line)?;
    let key = from_blob(&wire::decode(base64, MAX)?)?;
    if algorithm(key.kind()) != Some(name) {
        return Err(Error::input(format!("the key is no {name} key")));
    }
    Ok((key, comment.to_owned()))
}

/// The key as RFC 4253 §6.6 encodes it: what the Base64 of a line holds.
///
/// # Errors
/// [`Error::Unsupported`] for a key that OpenSSH does not know.
pub fn blob(public: &PublicKey) -> Result<Vec<u8>> {
    let mut blob = Vec::new();
    wire::put(&mut blob, known(public.kind())?)?;
    put_fields(&mut blob, public)?;
    Ok(blob)
}

/// Reads what [`blob`] writes.
pub fn from_blob(blob: &[u8]) -> Result<PublicKey> {
    wire::whole(blob, |from| {
        let name: String = wire::take(from)?;
        take_fields(from, &name)
    })
}

/// What `ssh-keygen -l` shows of the key.
///
/// # Errors
/// [`Error::Unsupported`] for a key that OpenSSH does not know.
pub fn fingerprint(public: &PublicKey) -> Result<String> {
    let digest = Hash::Sha256.digest(&blob(public)?);
    Ok(format!("SHA256:{}", Base64Unpadded::encode_string(&digest)))
}

/// [`algorithm`], or the error.
pub(super) fn known(kind: KeyKind) -> Result<&'static str> {
    algorithm(kind).ok_or_else(|| Error::unsupported(format!("{kind} keys in SSH")))
}

/// The key without the algorithm's name.
pub(super) fn put_fields(to: &mut Vec<u8>, public: &PublicKey) -> Result<()> {
    if let Some(curve) = known(public.kind())?.strip_prefix("ecdsa-sha2-") {
        wire::put(to, curve)?;
    }
    if let Some(point) = public.point() {
        wire::put(to, point)?;
    }
    if let Some((modulus, exponent)) = public.rsa() {
        wire::put(to, &Mpint::from_positive_bytes(exponent))?;
        wire::put(to, &Mpint::from_positive_bytes(modulus))?;
    }
    Ok(())
}

/// The fields of an algorithm's key.
pub(super) fn take_fields(from: &mut &[u8], name: &str) -> Result<PublicKey> {
    match name {
        "ssh-rsa" => {
            let (exponent, modulus) = (positive(from)?, positive(from)?);
            PublicKey::from_rsa(&modulus, &exponent)
        }
        "ssh-ed25519" => PublicKey::from_ed25519(&wire::take::<Vec<u8>>(from)?),
        "ecdsa-sha2-nistp256" => point(from, KeyKind::EcP256, "nistp256"),
        "ecdsa-sha2-nistp384" => point(from, KeyKind::EcP384, "nistp384"),
        other => Err(Error::input(format!(
            "{other:?} is no SSH algorithm of devkey's keys"
        ))),
    }
}

/// A positive `mpint`, without leading zeros.
pub(super) fn positive(from: &mut &[u8]) -> Result<Vec<u8>> {
    let number: Mpint = wire::take(from)?;
    let bytes = number.as_positive_bytes();
    Ok(bytes
        .ok_or_else(|| Error::input("a negative number in SSH data"))?
        .to_vec())
}

/// RFC 5656 §3.1: the curve's name again, then the point. Points are never compressed here, so that
/// a key has one encoding.
fn point(from: &mut &[u8], kind: KeyKind, curve: &str) -> Result<PublicKey> {
    let (named, point) = (wire::take::<String>(from)?, wire::take::<Vec<u8>>(from)?);
    if named != curve || point.first() != Some(&4) {
        return Err(Error::input(format!("no uncompressed point of {curve}")));
    }
    PublicKey::from_sec1(kind, &point)
}
