//! How the objects of a token are named.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Names an object within its token: a key by the stem of its file, a certificate by the whole name
/// of its file and, where the file holds several, its place in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectId(String);

impl ObjectId {
    /// A fresh id for a key: 16 hexadecimal digits.
    pub fn random() -> Result<Self> {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random)?;
        Ok(ObjectId(base16ct::lower::encode_string(&random)))
    }

    /// A fresh id for a certificate.
    pub fn random_certificate() -> Result<Self> {
        Ok(ObjectId(format!("{}.crt", ObjectId::random()?)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names a certificate: no key's id has a dot.
    pub fn is_certificate(&self) -> bool {
        self.0.contains('.')
    }

    /// Whether both name certificates of one file.
    pub fn same_file(&self, other: &ObjectId) -> bool {
        self.file() == other.file()
    }

    /// The name of its file.
    pub(super) fn file(&self) -> Cow<'_, str> {
        match (self.is_certificate(), self.0.split_once('#')) {
            (false, _) => Cow::Owned(format!("{}.key", self.0)),
            (true, Some((file, _))) => Cow::Borrowed(file),
            (true, None) => Cow::Borrowed(&self.0),
        }
    }

    /// The id of the key whose file has this stem.
    pub(super) fn key(stem: &str) -> Result<Self> {
        match stem.contains(['.', '#']) {
            false => ObjectId::try_from(stem.to_owned()),
            true => Err(Error::input(format!("{stem:?} cannot name a key"))),
        }
    }

    /// The id of a certificate by its place in a file.
    pub(super) fn certificate(file: &str, index: usize) -> Option<Self> {
        let id = ObjectId::try_from(file.to_owned()).ok()?;
        match (file.contains('#'), index) {
            (true, _) => None,
            (false, 0) => Some(id),
            (false, n) => Some(ObjectId(format!("{file}#{n}"))),
        }
    }
}

impl TryFrom<String> for ObjectId {
    type Error = Error;

    /// Accepts what can be a file's stem and nothing that could leave the directory.
    fn try_from(id: String) -> Result<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.#@+ ".contains(c);
        if id.is_empty() || id.len() > 128 || id.starts_with('.') || !id.chars().all(allowed) {
            return Err(Error::input(format!("{id:?} cannot name an object")));
        }
        Ok(ObjectId(id))
    }
}

impl From<ObjectId> for String {
    fn from(id: ObjectId) -> Self {
        id.0
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
