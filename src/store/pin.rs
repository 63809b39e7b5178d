//! What a store keeps of a PIN: the token's secret sealed under it, and how many tries were used.

use std::path::Path;

use aws_lc_rs::hmac;
use base16ct::lower as hex;
use serde::{Deserialize, Serialize};

use super::record::{FORMAT, bad, covered, encode_block, mac_of, read_head, split, verify};
use crate::error::{Error, Result};
use crate::provider::Blob;

/// Who logs in by a PIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Uses and makes keys (`CKU_USER`).
    User,
    /// Sets the user's PIN and initialises the token (`CKU_SO`); uses no key.
    So,
}

impl Role {
    /// Both.
    pub const ALL: [Role; 2] = [Role::User, Role::So];

    /// Its name in records, and to the cryptography that keeps the two apart.
    pub fn name(self) -> &'static str {
        match self {
            Role::User => "user",
            Role::So => "so",
        }
    }

    /// The file of its PIN.
    pub(super) fn pin_file(self) -> String {
        format!("{}.pin", self.name())
    }

    /// The file of the tries used.
    pub(super) fn tries_file(self) -> String {
        format!("{}.tries", self.name())
    }
}

/// How a PIN was stretched: Argon2id (RFC 9106).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stretch {
    /// Memory, in KiB.
    pub memory: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
    /// Salt, in lower-case hexadecimal.
    pub salt: String,
}

/// A PIN: what it takes to check one, and what a right one gives.
#[derive(Debug, Clone)]
pub struct PinRecord {
    /// Whose it is.
    pub role: Role,
    /// Wrong PINs in a row that lock it.
    pub tries: u32,
    /// Whether its owner is to change it (`CKF_USER_PIN_TO_BE_CHANGED`).
    pub to_be_changed: bool,
    /// How it is stretched.
    pub stretch: Stretch,
    /// The token's secret, sealed under the stretched PIN.
    pub sealed: Blob,
    /// Digest of what the MAC covers, and the MAC.
    seal: Option<([u8; 32], [u8; 32])>,
}

/// The lines of text at the head of a PIN's record.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PinHead {
    version: u32,
    role: Role,
    tries: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    to_be_changed: bool,
    stretch: Stretch,
}

/// How many tries were used since the last right PIN.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TriesHead {
    version: u32,
    used: u32,
}

impl PinRecord {
    /// A new record.
    pub fn new(role: Role, tries: u32, stretch: Stretch, sealed: Blob) -> Self {
        PinRecord {
            role,
            tries,
            to_be_changed: false,
            stretch,
            sealed,
            seal: None,
        }
    }

    /// Reads the contents of a PIN's file; `path` is for messages.
    pub(super) fn parse(text: &str, role: Role, path: &Path) -> Result<Self> {
        let (text_head, blocks) = split(text, path)?;
        let head: PinHead = read_head(text_head, path)?;
        if head.role != role {
            return Err(bad(path, "it is the record of the other role's PIN"));
        }
        let [sealed, mac] = blocks.as_slice() else {
            return Err(bad(path, "not a sealed secret and a MAC"));
        };
        Ok(PinRecord {
            role,
            tries: head.tries,
            to_be_changed: head.to_be_changed,
            stretch: head.stretch,
            sealed: sealed.blob.clone(),
            seal: Some((covered(text, sealed.end), mac_of(mac, path)?)),
        })
    }

    /// The contents of the PIN's file, with a MAC under the token's key.
    pub(super) fn encode(&self, mac_key: &hmac::Key) -> Result<String> {
        let head = PinHead {
            version: FORMAT,
            role: self.role,
            tries: self.tries,
            to_be_changed: self.to_be_changed,
            stretch: self.stretch.clone(),
        };
        let mut text = toml::to_string(&head).map_err(|e| Error::Internal(e.to_string()))?;
        text += &encode_block(&self.sealed.label, &self.sealed.bytes)?;
        super::record::append_mac(&mut text, mac_key)?;
        Ok(text)
    }

    /// Checks the MAC of a record that was read, by the secret that it gave.
    ///
    /// # Errors
    /// [`Error::BadBlob`] where it does not fit.
    pub fn check(&self, mac_key: &hmac::Key) -> Result<()> {
        let (digest, mac) = self.seal.as_ref().ok_or(Error::BadBlob)?;
        verify(mac_key, digest, mac)
    }

    /// The salt's bytes.
    ///
    /// # Errors
    /// [`Error::BadBlob`] where it is not hexadecimal.
    pub fn salt(&self) -> Result<Vec<u8>> {
        hex::decode_vec(&self.stretch.salt).map_err(|_| Error::BadBlob)
    }
}

/// Reads the contents of a file of tries.
pub(super) fn parse_tries(text: &str, path: &Path) -> Result<u32> {
    Ok(read_head::<TriesHead>(text, path)?.used)
}

/// The contents of a file of tries.
pub(super) fn encode_tries(used: u32) -> Result<String> {
    let head = TriesHead {
        version: FORMAT,
        used,
    };
    toml::to_string(&head).map_err(|e| Error::Internal(e.to_string()))
}
