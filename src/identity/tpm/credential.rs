//! TPM2_MakeCredential without a TPM (part 1 §24, annexes B.10 and C.6).

use aws_lc_rs::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey};
use aws_lc_rs::cipher::{self, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, OaepPublicEncryptingKey, PublicEncryptingKey};

use super::kdf::{kdfa, kdfe, mac};
use super::reader::sized;
use super::structures::Public;
use super::verify::is_ek;
use crate::error::{Error, Result};
use crate::key::{Hash, KeyKind};
use crate::provider::Credential;
use crate::secret::Secret;

/// Longest secret in bytes: every EK takes it.
pub const MAX_SECRET: usize = 32;

/// What the seed is for, with the zero byte that ends it (part 1 §24.4).
const IDENTITY: &[u8] = b"IDENTITY\0";

/// Encrypts a secret of 1 to [`MAX_SECRET`] bytes for the TPM of this EK (TPMT_PUBLIC), which gives
/// it back only where an object of this Name is loaded.
///
/// # Errors
/// [`Error::BadInput`] where the EK is none, or secret or Name have another size.
pub fn make_credential(ek_public: &[u8], name: &[u8], secret: &[u8]) -> Result<Credential> {
    let ek = Public::parse(ek_public)?;
    let bits = is_ek(&ek)?;
    if !(1..=MAX_SECRET).contains(&secret.len()) {
        return Err(Error::input(format!(
            "a credential's secret has 1 to {MAX_SECRET} bytes"
        )));
    }
    if !matches!(name.len(), 34 | 50 | 66) {
        return Err(Error::input("that is not the Name of a TPM object"));
    }
    let (seed, encrypted_secret) = seed(&ek)?;
    Ok(Credential {
        id_object: protect(ek.hash, bits, seed.expose(), name, secret)?,
        encrypted_secret,
    })
}

/// TPMS_ID_OBJECT: the secret under keys that follow from the seed and the Name.
fn protect(hash: Hash, bits: usize, seed: &[u8], name: &[u8], secret: &[u8]) -> Result<Vec<u8>> {
    let key = kdfa(hash, seed, b"STORAGE", [name, &[]], bits);
    let mut identity = sized(secret)?;
    encrypt(key.expose(), &mut identity)?;
    let size = hash.size() * 8;
    let key = kdfa(hash, seed, b"INTEGRITY", [&[], &[]], size);
    let key = hmac::Key::new(mac(hash), key.expose());
    let outer = hmac::sign(&key, &[identity.as_slice(), name].concat());
    Ok([sized(outer.as_ref())?, identity].concat())
}

/// AES in CFB mode, from an IV of zeros: the key is used once.
fn encrypt(key: &[u8], bytes: &mut [u8]) -> Result<()> {
    let algorithm = match key.len() {
        16 => &cipher::AES_128,
        _ => &cipher::AES_256,
    };
    let key = EncryptingKey::cfb128(UnboundCipherKey::new(algorithm, key)?)?;
    let iv = EncryptionContext::Iv128(FixedLength::from([0; 16]));
    key.less_safe_encrypt(bytes, iv)?;
    Ok(())
}

/// A fresh seed, and what gives it to the EK alone: contents of a TPM2B_ENCRYPTED_SECRET.
fn seed(ek: &Public) -> Result<(Secret, Vec<u8>)> {
    match ek.key.kind() {
        KeyKind::EcP256 | KeyKind::EcP384 => shared(ek),
        _ => wrapped(ek),
    }
}

/// Annex B.10.4: OAEP with the hash of the EK's Name.
fn wrapped(ek: &Public) -> Result<(Secret, Vec<u8>)> {
    let algorithm = match ek.hash {
        Hash::Sha256 => &rsa::OAEP_SHA256_MGF1SHA256,
        Hash::Sha384 => &rsa::OAEP_SHA384_MGF1SHA384,
        Hash::Sha512 => &rsa::OAEP_SHA512_MGF1SHA512,
    };
    let seed = Secret::random(ek.hash.size())?;
    let key = PublicEncryptingKey::from_der(&ek.key.to_spki()).map_err(|_| Error::Crypto)?;
    let key = OaepPublicEncryptingKey::new(key)?;
    let mut space = vec![0; key.ciphertext_size()];
    let sealed = key.encrypt(algorithm, seed.expose(), &mut space, Some(IDENTITY))?;
    Ok((seed, sealed.to_vec()))
}

/// Annex C.6.4: one-pass Diffie-Hellman with an ephemeral key.
///
/// An ephemeral key for which a coordinate begins with a zero byte is thrown away: TPMs differ in
/// whether such a byte counts. One in 128 goes so.
fn shared(ek: &Public) -> Result<(Secret, Vec<u8>)> {
    let algorithm = match ek.key.kind() {
        KeyKind::EcP256 => &agreement::ECDH_P256,
        _ => &agreement::ECDH_P384,
    };
    let peer = UnparsedPublicKey::new(algorithm, ek.key.point().unwrap_or_default());
    loop {
        let private = EphemeralPrivateKey::generate(algorithm, &SystemRandom::new())?;
        let public = private.compute_public_key()?;
        let (x, y) = halves(public.as_ref());
        let z = agreement::agree_ephemeral(private, peer, Error::Crypto, |z| {
            Ok(Secret::new(z.to_vec()))
        })?;
        if [x, y, z.expose()].iter().any(|n| n.first() == Some(&0)) {
            continue;
        }
        let bits = ek.hash.size() * 8;
        let seed = kdfe(ek.hash, z.expose(), b"IDENTITY", [x, &ek.x], bits);
        return Ok((seed, [sized(x)?, sized(y)?].concat()));
    }
}

/// The coordinates of an uncompressed point.
fn halves(point: &[u8]) -> (&[u8], &[u8]) {
    let both = point.get(1..).unwrap_or_default();
    both.split_at(both.len() / 2)
}
