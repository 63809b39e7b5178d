//! Kinds of keys, what they can do, and their public halves.

mod public;

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

pub use public::PublicKey;

use crate::error::{Error, Result};

/// What kind of key pair: the algorithm with its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyKind {
    /// NIST P-256 (secp256r1), FIPS 186-5.
    #[serde(rename = "ec-p256")]
    EcP256,
    /// NIST P-384 (secp384r1), FIPS 186-5.
    #[serde(rename = "ec-p384")]
    EcP384,
    /// RSA with a 2048-bit modulus and e = 65537.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    /// RSA with a 3072-bit modulus and e = 65537.
    #[serde(rename = "rsa-3072")]
    Rsa3072,
    /// RSA with a 4096-bit modulus and e = 65537.
    #[serde(rename = "rsa-4096")]
    Rsa4096,
    /// Ed25519, RFC 8032.
    #[serde(rename = "ed25519")]
    Ed25519,
    /// ML-DSA-44, FIPS 204.
    #[serde(rename = "ml-dsa-44")]
    MlDsa44,
    /// ML-DSA-65, FIPS 204.
    #[serde(rename = "ml-dsa-65")]
    MlDsa65,
    /// ML-DSA-87, FIPS 204.
    #[serde(rename = "ml-dsa-87")]
    MlDsa87,
}

impl KeyKind {
    /// Every kind, the recommended first.
    pub const ALL: [KeyKind; 9] = [
        KeyKind::EcP256,
        KeyKind::EcP384,
        KeyKind::Rsa2048,
        KeyKind::Rsa3072,
        KeyKind::Rsa4096,
        KeyKind::Ed25519,
        KeyKind::MlDsa44,
        KeyKind::MlDsa65,
        KeyKind::MlDsa87,
    ];

    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            KeyKind::EcP256 => "ec-p256",
            KeyKind::EcP384 => "ec-p384",
            KeyKind::Rsa2048 => "rsa-2048",
            KeyKind::Rsa3072 => "rsa-3072",
            KeyKind::Rsa4096 => "rsa-4096",
            KeyKind::Ed25519 => "ed25519",
            KeyKind::MlDsa44 => "ml-dsa-44",
            KeyKind::MlDsa65 => "ml-dsa-65",
            KeyKind::MlDsa87 => "ml-dsa-87",
        }
    }

    /// Length of a signature in bytes: r‖s for ECDSA, the modulus for RSA, FIPS 204 table 2 for
    /// ML-DSA.
    pub fn signature_len(self) -> usize {
        match self {
            KeyKind::EcP256 | KeyKind::Ed25519 => 64,
            KeyKind::EcP384 => 96,
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => self.bits() / 8,
            KeyKind::MlDsa44 => 2420,
            KeyKind::MlDsa65 => 3309,
            KeyKind::MlDsa87 => 4627,
        }
    }

    /// Size in bits: of the field, the modulus, or ML-DSA's public key (FIPS 204 table 2).
    pub fn bits(self) -> usize {
        match self {
            KeyKind::EcP256 | KeyKind::Ed25519 => 256,
            KeyKind::EcP384 => 384,
            KeyKind::Rsa2048 => 2048,
            KeyKind::Rsa3072 => 3072,
            KeyKind::Rsa4096 => 4096,
            KeyKind::MlDsa44 => 8 * 1312,
            KeyKind::MlDsa65 => 8 * 1952,
            KeyKind::MlDsa87 => 8 * 2592,
        }
    }

    /// All that keys of this kind can be used for.
    pub fn uses(self) -> Usage {
        Usage {
            sign: true,
            agree: self.is_ec(),
            decrypt: self.is_rsa(),
        }
    }

    /// # Errors
    /// [`Error::Unsupported`] for a usage that keys of this kind cannot have, or for none at all.
    pub fn check_usage(self, usage: Usage) -> Result<()> {
        let uses = self.uses();
        if usage != Usage::NOTHING && uses.covers(usage) {
            return Ok(());
        }
        let most = match (uses.agree, uses.decrypt) {
            (true, _) => "signing and key agreement",
            (_, true) => "signing and decryption",
            _ => "signing",
        };
        Err(Error::unsupported(format!("a {self} key is for {most}")))
    }

    /// Whether this is one of the NIST curves.
    pub fn is_ec(self) -> bool {
        matches!(self, KeyKind::EcP256 | KeyKind::EcP384)
    }

    /// Whether this is RSA.
    pub fn is_rsa(self) -> bool {
        matches!(self, KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096)
    }

    /// Whether this is ML-DSA.
    pub fn is_ml_dsa(self) -> bool {
        matches!(self, KeyKind::MlDsa44 | KeyKind::MlDsa65 | KeyKind::MlDsa87)
    }

    /// The signature schemes that a key of this kind can be asked for.
    pub fn schemes(self) -> &'static [Scheme] {
        use Hash::{Sha256, Sha384, Sha512};
        match self {
            KeyKind::EcP256 | KeyKind::EcP384 => &[Scheme::Ecdsa],
            KeyKind::Ed25519 => &[Scheme::Ed25519],
            KeyKind::MlDsa44 | KeyKind::MlDsa65 | KeyKind::MlDsa87 => &[Scheme::MlDsa],
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => &[
                Scheme::RsaPkcs1(Sha256),
                Scheme::RsaPkcs1(Sha384),
                Scheme::RsaPkcs1(Sha512),
                Scheme::RsaPss(Sha256),
                Scheme::RsaPss(Sha384),
                Scheme::RsaPss(Sha512),
            ],
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for KeyKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        KeyKind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| {
                Error::input(format!(
                    "unknown key kind {name:?}; see `devkey key new --help`"
                ))
            })
    }
}

/// A hash of the SHA-2 family (FIPS 180-4). SHA-1 is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hash {
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-384, 48 bytes.
    Sha384,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl Hash {
    /// Length of a digest in bytes.
    pub fn size(self) -> usize {
        self.algorithm().output_len()
    }

    /// Digest of `data`.
    pub fn digest(self, data: &[u8]) -> Vec<u8> {
        digest::digest(self.algorithm(), data).as_ref().to_vec()
    }

    /// The implementation of the hash.
    pub fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha384 => &digest::SHA384,
            Hash::Sha512 => &digest::SHA512,
        }
    }

    /// A finished digest of exactly [`Hash::size`] bytes, as the implementation wants it.
    pub(crate) fn import(self, digest: &[u8]) -> Result<digest::Digest> {
        digest::Digest::import_less_safe(digest, self.algorithm())
            .map_err(|_| Error::input(format!("a digest of {} bytes is wanted", self.size())))
    }
}

/// A signature scheme: what [`Key::sign`](crate::provider::Key::sign) is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// ECDSA (FIPS 186-5) over a digest that [`ecdsa_input`] fitted to the curve; gives r‖s.
    Ecdsa,
    /// RSASSA-PKCS1-v1_5 (RFC 8017 §8.2) over a digest.
    RsaPkcs1(Hash),
    /// RSASSA-PSS (RFC 8017 §8.1) over a digest; MGF1 with the same hash, salt as long as it.
    RsaPss(Hash),
    /// Ed25519 (RFC 8032) over the message itself.
    Ed25519,
    /// ML-DSA (FIPS 204 §5.2) over the message itself, with an empty context; hedged.
    MlDsa,
}

/// A decryption scheme. RSAES-PKCS1-v1_5 is not offered: it cannot be made safe (Bleichenbacher).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecryptScheme {
    /// RSAES-OAEP (RFC 8017 §7.1) with an empty label; MGF1 with the same hash.
    RsaOaep(Hash),
}

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Signatures.
    pub sign: bool,
    /// Key agreement (ECDH).
    #[serde(default)]
    pub agree: bool,
    /// Decryption (RSA-OAEP).
    #[serde(default)]
    pub decrypt: bool,
}

impl Usage {
    /// Signatures only: the default.
    pub const SIGN: Usage = Usage {
        sign: true,
        agree: false,
        decrypt: false,
    };

    /// Nothing at all.
    pub const NOTHING: Usage = Usage {
        sign: false,
        agree: false,
        decrypt: false,
    };

    /// What both allow.
    pub fn and(self, other: Usage) -> Usage {
        Usage {
            sign: self.sign && other.sign,
            agree: self.agree && other.agree,
            decrypt: self.decrypt && other.decrypt,
        }
    }

    /// Whether all that `wanted` asks for is here.
    pub fn covers(self, wanted: Usage) -> bool {
        (self.sign || !wanted.sign)
            && (self.agree || !wanted.agree)
            && (self.decrypt || !wanted.decrypt)
    }
}

impl Default for Usage {
    fn default() -> Self {
        Usage::SIGN
    }
}

/// Longest input to ECDSA that is accepted, in bytes: the digest of the longest hash.
pub const MAX_DIGEST: usize = 64;

/// Fits a digest of any length up to [`MAX_DIGEST`] to the curve: the leftmost bits of a longer
/// one, a shorter one padded with zeros on the left, which is the same integer (FIPS 186-5 §6.4.1).
///
/// The result has the curve's size: 32 or 48 bytes.
pub fn ecdsa_input(kind: KeyKind, digest: &[u8]) -> Result<Vec<u8>> {
    if !kind.is_ec() {
        return Err(Error::input(format!("{kind} is no ECDSA key")));
    }
    if digest.is_empty() || digest.len() > MAX_DIGEST {
        return Err(Error::input(format!(
            "a digest has 1 to {MAX_DIGEST} bytes, not {}",
            digest.len()
        )));
    }
    let size = kind.bits() / 8;
    let kept = digest.get(..size).unwrap_or(digest);
    let mut fitted = vec![0; size - kept.len()];
    fitted.extend_from_slice(kept);
    Ok(fitted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for kind in KeyKind::ALL {
            assert_eq!(kind.name().parse::<KeyKind>().unwrap(), kind);
        }
        assert!("dsa-1024".parse::<KeyKind>().is_err());
    }

    #[test]
    fn digests_are_fitted_to_the_curve() {
        assert_eq!(ecdsa_input(KeyKind::EcP256, &[7; 64]).unwrap(), [7; 32]);
        let short = ecdsa_input(KeyKind::EcP384, &[7; 32]).unwrap();
        assert_eq!(short.len(), 48);
        assert_eq!(short[..16], [0; 16]);
        assert!(ecdsa_input(KeyKind::EcP256, &[]).is_err());
        assert!(ecdsa_input(KeyKind::EcP256, &[0; 65]).is_err());
        assert!(ecdsa_input(KeyKind::Ed25519, &[0; 32]).is_err());
    }
}
