//! How bytes stand in JSON: Base64 (RFC 4648 §4), digests in hexadecimal, X.509 as PEM (RFC 7468).

use std::fmt;
use std::str::FromStr;

use base16ct::lower as hex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::key::Hash;

/// 32 bytes: a SHA-256 digest, a nonce, a MAC. As text: 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// SHA-256 of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut digest = [0; 32];
        digest.copy_from_slice(&Hash::Sha256.digest(bytes));
        Digest(digest)
    }

    /// 32 random bytes.
    ///
    /// # Errors
    /// [`Error::Crypto`] where there are no random numbers.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes)?;
        Ok(Digest(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_string(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = [0; 32];
        match hex::decode(text, &mut bytes) {
            Ok(decoded) if decoded.len() == 32 => Ok(Digest(bytes)),
            _ => Err(Error::input("64 lower-case hexadecimal digits are wanted")),
        }
    }
}

as_text!(Digest);

/// Bytes as Base64.
pub(super) mod base64 {
    use base64ct::{Base64, Encoding};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(
        bytes: &[u8],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&Base64::encode_string(bytes))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        Base64::decode_vec(&text).map_err(|_| D::Error::custom("a value is not Base64"))
    }
}

/// A public key as Base64 of its SubjectPublicKeyInfo.
pub(super) mod spki {
    use serde::de::Error;
    use serde::{Deserializer, Serializer};

    use super::base64;
    use crate::key::PublicKey;

    pub(in super::super) fn serialize<S: Serializer>(
        public: &PublicKey,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        base64::serialize(&public.to_spki(), to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<PublicKey, D::Error> {
        let der = base64::deserialize(from)?;
        let public = PublicKey::from_spki(&der).map_err(D::Error::custom)?;
        // Digests are over the encoding: there is one.
        match public.to_spki() == der {
            true => Ok(public),
            false => Err(D::Error::custom(
                "a public key is not encoded as in RFC 5280",
            )),
        }
    }
}

/// One block of PEM, whose label the type says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pem<L: Label> {
    pub(super) der: Vec<u8>,
    label: std::marker::PhantomData<L>,
}

/// A label of PEM.
pub(super) trait Label {
    const LABEL: &'static str;
}

/// RFC 7468 §5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CertificateLabel;

/// RFC 7468 §7.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestLabel;

impl Label for CertificateLabel {
    const LABEL: &'static str = "CERTIFICATE";
}

impl Label for RequestLabel {
    const LABEL: &'static str = "CERTIFICATE REQUEST";
}

impl<L: Label> Pem<L> {
    pub(super) fn new(der: Vec<u8>) -> Self {
        Pem {
            der,
            label: std::marker::PhantomData,
        }
    }
}

impl<L: Label> Serialize for Pem<L> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let text = der::pem::encode_string(L::LABEL, der::pem::LineEnding::LF, &self.der);
        to.serialize_str(&text.map_err(serde::ser::Error::custom)?)
    }
}

impl<'de, L: Label> Deserialize<'de> for Pem<L> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match der::pem::decode_vec(text.as_bytes()) {
            Ok((label, der)) if label == L::LABEL => Ok(Pem::new(der)),
            _ => Err(serde::de::Error::custom(format!(
                "one PEM block {:?} is wanted",
                L::LABEL
            ))),
        }
    }
}
