//! Public keys as OpenSSH writes them: RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4.

use base64ct::{Base64, Base64Unpadded, Encoding};
use devkey::key::{Hash, KeyKind, PublicKey};

use crate::output::printable;

/// A line for `authorized_keys`; `None` for a key that OpenSSH does not know.
pub(crate) fn line(public: &PublicKey, comment: &str) -> Option<String> {
    let name = name(public.kind())?;
    let encoded = Base64::encode_string(&blob(name, public));
    Some(format!("{name} {encoded} {}", printable(comment)))
}

/// What `ssh-keygen -l` shows of the key; `None` for a key that OpenSSH does not know.
pub(crate) fn fingerprint(public: &PublicKey) -> Option<String> {
    let digest = Hash::Sha256.digest(&blob(name(public.kind())?, public));
    Some(format!("SHA256:{}", Base64Unpadded::encode_string(&digest)))
}

/// Whether OpenSSH knows keys of this kind.
pub(crate) fn knows(kind: KeyKind) -> bool {
    name(kind).is_some()
}

fn name(kind: KeyKind) -> Option<&'static str> {
    match kind {
        KeyKind::EcP256 => Some("ecdsa-sha2-nistp256"),
        KeyKind::EcP384 => Some("ecdsa-sha2-nistp384"),
        KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => Some("ssh-rsa"),
        KeyKind::Ed25519 => Some("ssh-ed25519"),
        // No RFC gives ML-DSA a name in SSH.
        KeyKind::MlDsa44 | KeyKind::MlDsa65 | KeyKind::MlDsa87 => None,
    }
}

fn blob(name: &str, public: &PublicKey) -> Vec<u8> {
    let mut blob = Vec::new();
    string(&mut blob, name.as_bytes());
    if let Some(curve) = name.strip_prefix("ecdsa-sha2-") {
        string(&mut blob, curve.as_bytes());
    }
    if let Some(point) = public.point() {
        string(&mut blob, point);
    }
    if let Some((modulus, exponent)) = public.rsa() {
        mpint(&mut blob, exponent);
        mpint(&mut blob, modulus);
    }
    blob
}

/// `string` of RFC 4251 §5: four bytes of length, then the bytes.
fn string(to: &mut Vec<u8>, bytes: &[u8]) {
    // No part of a public key comes near 4 GiB.
    to.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    to.extend_from_slice(bytes);
}

/// `mpint` of RFC 4251 §5, of a positive number without leading zeros.
fn mpint(to: &mut Vec<u8>, number: &[u8]) {
    match number.first() {
        Some(0x80..) => string(to, &[&[0], number].concat()),
        _ => string(to, number),
    }
}
