//! The first 36 bytes of every blob:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format version: 1 |
//! | 1 | the key's kind; 0 for a sealed secret |
//! | 1 | usage: 1 sign, 2 agree, 4 decrypt |
//! | 1 | whether the key or secret wants an auth |
//! | 32 | random salt |
//!
//! then the body: a tag of 32 bytes for a derived key, else ciphertext and a tag of 16 bytes.
//!
//! Nothing is parsed: what the record claims says what the first four bytes must be.

use aws_lc_rs::rand;

use crate::error::{Error, Result};
use crate::key::{KeyKind, Usage};
use crate::provider::{Blob, KeyAuth};

/// The only format so far.
const VERSION: u8 = 1;
/// Length of the salt in bytes.
const SALT_LEN: usize = 32;

/// What a blob is: the first four bytes of its header.
pub(super) type Type = [u8; 4];

/// The type of a sealed token secret.
pub(super) fn sealed(auth: &KeyAuth) -> Type {
    [VERSION, 0, 0, wants(auth)]
}

/// The type of a key's blob.
pub(super) fn key(kind: KeyKind, usage: Usage, auth: &KeyAuth) -> Type {
    let kind = match kind {
        KeyKind::EcP256 => 1,
        KeyKind::EcP384 => 2,
        KeyKind::Rsa2048 => 3,
        KeyKind::Rsa3072 => 4,
        KeyKind::Rsa4096 => 5,
        KeyKind::Ed25519 => 6,
        KeyKind::MlDsa44 => 7,
        KeyKind::MlDsa65 => 8,
        KeyKind::MlDsa87 => 9,
    };
    let usage = u8::from(usage.sign) | u8::from(usage.agree) << 1 | u8::from(usage.decrypt) << 2;
    [VERSION, kind, usage, wants(auth)]
}

fn wants(auth: &KeyAuth) -> u8 {
    u8::from(matches!(auth, KeyAuth::Secret(_)))
}

/// A header: authenticated with all that is derived or wrapped under it.
#[derive(Debug)]
pub(super) struct Header {
    of: Type,
    salt: [u8; SALT_LEN],
}

impl Header {
    /// A header with a fresh salt.
    pub(super) fn new(of: Type) -> Result<Self> {
        let mut salt = [0; SALT_LEN];
        rand::fill(&mut salt)?;
        Ok(Header { of, salt })
    }

    /// The header and the body of a blob that must be `of` this type.
    pub(super) fn read<'b>(blob: &'b Blob, label: &str, of: Type) -> Result<(Self, &'b [u8])> {
        if blob.label != label {
            return Err(Error::BadBlob);
        }
        if let Some(version) = blob.bytes.first().filter(|version| **version > VERSION) {
            return Err(Error::unsupported(format!(
                "a key blob of format {version}; this devkey reads format {VERSION}: upgrade it"
            )));
        }
        let (found, rest) = blob.bytes.split_first_chunk().ok_or(Error::BadBlob)?;
        let (salt, body) = rest.split_first_chunk().ok_or(Error::BadBlob)?;
        if *found != of {
            return Err(Error::BadBlob);
        }
        Ok((Header { of, salt: *salt }, body))
    }

    /// A blob with this header.
    pub(super) fn blob(&self, label: &str, body: &[u8]) -> Blob {
        Blob {
            label: label.to_owned(),
            bytes: [&self.of, self.salt.as_slice(), body].concat(),
        }
    }

    /// The type.
    pub(super) fn of(&self) -> &Type {
        &self.of
    }

    /// The salt.
    pub(super) fn salt(&self) -> &[u8] {
        &self.salt
    }
}
