//! Public keys of PUFs that came through a trusted channel.
//!
//! A PUF has no maker who vouches for it, and a CA cannot see where a key lives. What it can know is
//! that a key was made on the factory line, by a device that somebody stood before: whoever registers a
//! key says so. A key counts only where it was registered before its device asked, so that nobody
//! registers in arrears what turned up. A simulated PUF, a file store and a TPM are no such thing: where
//! the device itself says that it is one, its key is neither registered nor, registered or not, given the
//! level. A device that lies on the line is the line's failure.

use serde::{Deserialize, Serialize};

use super::Ca;
use crate::error::{Error, Result};
use crate::identity::flow::{Digest, Request, Source, fingerprint, plain};
use crate::key::PublicKey;

/// Name of the back end that says that it is a PUF.
const PUF: &str = "puf";
/// Longest name of a lot and longest label, in bytes.
const MAX_TEXT: usize = 128;

/// A registered key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registered {
    /// The lot that it came with.
    pub lot: String,
    /// What people call the device.
    pub label: String,
    /// When it was registered.
    pub at: u64,
}

impl Ca {
    /// Registers a key of which nothing is known but that it came through a trusted channel. Gives
    /// whether it is new; what is registered already stays as it is.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a label or lot that is empty or too long, and those of writing.
    pub fn register(&self, public: &PublicKey, entry: &Registered) -> Result<bool> {
        plain("a lot's name", &entry.lot, MAX_TEXT)?;
        plain("a device's label", &entry.label, MAX_TEXT)?;
        match self.books.put_registered(fingerprint(public), entry) {
            Err(Error::Exists(_)) => Ok(false),
            written => written.map(|()| true),
        }
    }

    /// Registers the key of a request that its device made on the line.
    ///
    /// # Errors
    /// As [`Ca::register`]; and [`Error::BadInput`] where the device says that it is no PUF.
    pub fn register_request(&self, request: &Request, entry: &Registered) -> Result<bool> {
        if let Some(reason) = disqualified(request.source()) {
            return Err(Error::input(format!(
                "the key cannot be registered: {reason}"
            )));
        }
        self.register(request.public(), entry)
    }

    /// Takes a registration back.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn unregister(&self, key: Digest) -> Result<()> {
        self.books.remove_registered(key)
    }

    /// The entry of a key.
    pub fn registered(&self, key: Digest) -> Result<Option<Registered>> {
        self.books.registered(key)
    }

    /// All registered keys, by fingerprint.
    pub fn all_registered(&self) -> Result<Vec<(Digest, Registered)>> {
        let mut all = Vec::new();
        for key in self.books.all_registered()? {
            if let Some(entry) = self.books.registered(key)? {
                all.push((key, entry));
            }
        }
        Ok(all)
    }
}

/// Why what a device says of itself cannot be a PUF.
pub(super) fn disqualified(source: &Source) -> Option<String> {
    match (source.back_end.as_str(), source.stand_in) {
        (PUF, false) => None,
        (PUF, true) => Some("its PUF may be a simulator or a file (allow_file)".to_owned()),
        (other, _) => Some(format!("its back end is {other:?}, and no PUF")),
    }
}
