//! Records: a few lines of TOML, then PEM blocks (RFC 7468).
//!
//! A key's record starts with the back end's own PEM block, so that a program that reads keys of
//! that format (OpenSSL with the tpm2 provider, for one) can read the record itself. The text and
//! blocks before the last block are what the record's MAC covers, byte for byte.

use std::path::Path;

use aws_lc_rs::hmac;
use base16ct::lower as hex;
use der::pem::{self, LineEnding};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::ObjectId;
use crate::error::{Error, Result};
use crate::key::{Hash, PublicKey, Usage};
use crate::provider::{Blob, Capability, Settings};

/// The newest format of records that this version reads and the one that it writes.
pub const FORMAT: u32 = 1;

const PUBLIC_KEY: &str = "PUBLIC KEY";
const MAC: &str = "DEVKEY RECORD MAC";

/// What a token is, as its `token` file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRecord {
    /// Format of the record.
    pub version: u32,
    /// `CK_TOKEN_INFO.label`: at most 32 bytes.
    pub label: String,
    /// `CK_TOKEN_INFO.serialNumber`: 16 ASCII characters, stable for ever.
    pub serial: String,
    /// `CK_TOKEN_INFO.model`: at most 16 bytes.
    pub model: String,
    /// Name of the back end.
    pub back_end: String,
    /// Whether the keys are in hardware: the module cannot ask a back end that it has not.
    #[serde(default)]
    pub hardware: bool,
    /// What the back end recorded of its device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
    /// Settings of the back end, where they are not the default.
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    pub settings: Settings,
    /// Whether its keys want a login: whether there are PINs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pin: bool,
    /// What the device was seen to do when the token was made.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// The secret of a token without a PIN, sealed by the back end; without a secret no MACs.
    #[serde(skip)]
    pub secret: Option<Blob>,
}

/// A key pair: one record, one file, so that no half of a pair can exist.
#[derive(Debug, Clone)]
pub struct KeyRecord {
    /// Names the record; also its file's name.
    pub id: ObjectId,
    /// `CKA_LABEL`.
    pub label: String,
    /// `CKA_ID`.
    pub cka_id: Vec<u8>,
    /// What the key may be used for.
    pub usage: Usage,
    /// The public half.
    pub public: PublicKey,
    /// The private half, wrapped by the back end.
    pub blob: Blob,
    /// Digest of what the MAC covers, and the MAC.
    seal: Seal,
}

/// The digest of a record's text and the MAC over it.
#[derive(Debug, Clone, Copy, Default)]
struct Seal {
    digest: [u8; 32],
    mac: Option<[u8; 32]>,
}

/// The lines of text at the head of a key's record.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyHead {
    version: u32,
    id: String,
    label: String,
    cka_id: String,
    usage: Usage,
}

/// Longest `CKA_LABEL` and `CKA_ID` in bytes: OpenSSH reads both into 255 bytes, and one that is
/// longer makes it drop every key of the token.
pub const MAX_NAME: usize = 255;

/// Whether label and ID, where there are any, can be names: 1 to [`MAX_NAME`] bytes.
pub fn check_names(label: Option<&str>, cka_id: Option<&[u8]>) -> Result<()> {
    let lengths = [
        ("a label", label.map(str::len)),
        ("an ID", cka_id.map(<[u8]>::len)),
    ];
    for (what, length) in lengths {
        if length.is_some_and(|length| length == 0 || length > MAX_NAME) {
            return Err(Error::input(format!("{what} has 1 to {MAX_NAME} bytes")));
        }
    }
    Ok(())
}

/// The one field that every version of every record has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl TokenRecord {
    /// Reads the contents of a `token` file; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let (head, blocks) = split(text, path)?;
        let mut record: TokenRecord = read_head(head, path)?;
        let mut blocks = blocks.into_iter();
        record.secret = blocks.next().map(|block| block.blob);
        if blocks.next().is_some() {
            return Err(bad(path, "more than one PEM block"));
        }
        let ascii = |text: &str, most| text.len() <= most && text.is_ascii() && !text.is_empty();
        if record.label.len() > 32 || !ascii(&record.serial, 16) || !ascii(&record.model, 16) {
            return Err(bad(path, "label, serial or model too long or not ASCII"));
        }
        Ok(record)
    }

    /// The contents of the `token` file.
    pub fn encode(&self) -> Result<String> {
        let mut text = toml::to_string(self).map_err(|e| Error::Internal(e.to_string()))?;
        if let Some(secret) = &self.secret {
            text += &encode_block(&secret.label, &secret.bytes)?;
        }
        Ok(text)
    }
}

impl KeyRecord {
    /// A new record, without a MAC.
    pub fn new(
        id: ObjectId,
        label: String,
        cka_id: Vec<u8>,
        usage: Usage,
        public: PublicKey,
        blob: Blob,
    ) -> Self {
        KeyRecord {
            id,
            label,
            cka_id,
            usage,
            public,
            blob,
            seal: Seal::default(),
        }
    }

    /// Reads the contents of a key's file; `id` is the file's stem, `path` for messages.
    pub fn parse(text: &str, id: ObjectId, path: &Path) -> Result<Self> {
        let (text_head, blocks) = split(text, path)?;
        let head: KeyHead = read_head(text_head, path)?;
        if head.id != id.as_str() {
            return Err(bad(path, "the file was renamed: its record has another id"));
        }
        let (blob, public, mac) = match blocks.as_slice() {
            [blob, public] => (blob, public, None),
            [blob, public, mac] => (blob, public, Some(mac)),
            _ => return Err(bad(path, "not a key block, a public key and a MAC")),
        };
        if public.blob.label != PUBLIC_KEY {
            return Err(bad(path, "no PUBLIC KEY block"));
        }
        let cka_id = hex::decode_vec(&head.cka_id)
            .map_err(|_| bad(path, "cka_id is not lower-case hexadecimal"))?;
        check_names(Some(&head.label), Some(&cka_id)).map_err(|e| bad(path, &e.to_string()))?;
        let mac = mac.map(|block| mac_of(block, path));
        Ok(KeyRecord {
            label: head.label,
            cka_id,
            usage: head.usage,
            public: PublicKey::from_spki(&public.blob.bytes)
                .map_err(|e| bad(path, &e.to_string()))?,
            blob: blob.blob.clone(),
            seal: Seal {
                digest: covered(text, public.end),
                mac: mac.transpose()?,
            },
            id,
        })
    }

    /// The contents of the key's file, with a MAC under `mac_key` where the token has one.
    pub fn encode(&self, mac_key: Option<&hmac::Key>) -> Result<String> {
        let head = KeyHead {
            version: FORMAT,
            id: self.id.as_str().to_owned(),
            label: self.label.clone(),
            cka_id: hex::encode_string(&self.cka_id),
            usage: self.usage,
        };
        let mut text = toml::to_string(&head).map_err(|e| Error::Internal(e.to_string()))?;
        text += &encode_block(&self.blob.label, &self.blob.bytes)?;
        text += &encode_block(PUBLIC_KEY, &self.public.to_spki())?;
        if let Some(key) = mac_key {
            append_mac(&mut text, key)?;
        }
        Ok(text)
    }

    /// Checks the MAC of a record that was read.
    ///
    /// # Errors
    /// [`Error::BadBlob`] where it is missing or does not fit.
    pub fn check(&self, mac_key: &hmac::Key) -> Result<()> {
        let mac = self.seal.mac.ok_or(Error::BadBlob)?;
        verify(mac_key, &self.seal.digest, &mac)
    }
}

/// A PEM block and where it ends in the text.
pub(crate) struct Block {
    pub(crate) blob: Blob,
    pub(super) end: usize,
}

/// Splits a file into the text before the first PEM block and the blocks.
pub(crate) fn split<'a>(text: &'a str, path: &Path) -> Result<(&'a str, Vec<Block>)> {
    const END: &str = "\n-----END ";
    let first = find_block(text, 0).unwrap_or(text.len());
    let (head, _) = text.split_at(first);
    let (mut at, mut blocks) = (first, Vec::new());
    while let Some(start) = find_block(text, at) {
        let rest = text.get(start..).unwrap_or_default();
        let cut = || bad(path, "a PEM block has no end");
        let last = rest.find(END).ok_or_else(cut)? + END.len();
        let tail = rest.get(last..).unwrap_or_default();
        let length = last + tail.find('\n').map_or(tail.len(), |newline| newline + 1);
        let block = rest.get(..length).unwrap_or_default();
        let (label, bytes) = pem::decode_vec(block.as_bytes())
            .map_err(|e| bad(path, &format!("a PEM block is damaged: {e}")))?;
        at = start + length;
        blocks.push(Block {
            blob: Blob {
                label: label.to_owned(),
                bytes,
            },
            end: at,
        });
    }
    Ok((head, blocks))
}

/// Where the first PEM block at or after `from`, which is the start of a line, begins. In the middle
/// of a line it is text: a label may say so.
fn find_block(text: &str, from: usize) -> Option<usize> {
    const BEGIN: &str = "-----BEGIN ";
    let rest = text.get(from..)?;
    let lines = rest.match_indices(BEGIN).map(|(at, _)| at);
    let mut starts = lines.filter(|at| {
        rest.get(..*at)
            .is_some_and(|t| t.is_empty() || t.ends_with('\n'))
    });
    starts.next().map(|at| from + at)
}

/// Reads a record's head: first the version, which decides whether the rest can be understood.
pub(super) fn read_head<T: DeserializeOwned>(head: &str, path: &Path) -> Result<T> {
    let found = toml::from_str::<Version>(head)
        .map_err(|e| bad(path, e.message()))?
        .version;
    if found > FORMAT {
        return Err(Error::NewerRecord {
            path: path.to_owned(),
            found,
            known: FORMAT,
        });
    }
    toml::from_str(head).map_err(|e| bad(path, e.message()))
}

pub(super) fn encode_block(label: &str, bytes: &[u8]) -> Result<String> {
    pem::encode_string(label, LineEnding::LF, bytes).map_err(|e| Error::Internal(e.to_string()))
}

pub(super) fn bad(path: &Path, reason: &str) -> Error {
    Error::BadRecord {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

/// Appends the MAC over a record's text.
pub(super) fn append_mac(text: &mut String, key: &hmac::Key) -> Result<()> {
    let mac = hmac::sign(key, &mac_input(&digest(text.as_bytes())));
    *text += &encode_block(MAC, mac.as_ref())?;
    Ok(())
}

/// The digest of the first `end` bytes, which a MAC covers.
pub(super) fn covered(text: &str, end: usize) -> [u8; 32] {
    digest(text.as_bytes().get(..end).unwrap_or_default())
}

/// The MAC that a block holds.
pub(super) fn mac_of(block: &Block, path: &Path) -> Result<[u8; 32]> {
    match <[u8; 32]>::try_from(block.blob.bytes.as_slice()) {
        Ok(mac) if block.blob.label == MAC => Ok(mac),
        _ => Err(bad(path, "the last block is no MAC of 32 bytes")),
    }
}

/// Checks a MAC over a record's digest.
pub(super) fn verify(mac_key: &hmac::Key, digest: &[u8; 32], mac: &[u8; 32]) -> Result<()> {
    hmac::verify(mac_key, &mac_input(digest), mac).map_err(|_| Error::BadBlob)
}

fn digest(text: &[u8]) -> [u8; 32] {
    let digest = Hash::Sha256.digest(text);
    <[u8; 32]>::try_from(digest.as_slice()).unwrap_or_default()
}

/// What the MAC is computed over: a name for this use of the key, and the digest of the text.
fn mac_input(digest: &[u8; 32]) -> Vec<u8> {
    [b"devkey record v1".as_slice(), digest].concat()
}
