//! What is in the books.

use serde::Serialize;

use super::Ca;
use crate::error::{Error, Result};
use crate::identity::flow::Digest;
use crate::identity::level::Level;
use crate::identity::x509::{Reason, Serial};

/// What became of a serial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Taken, and nothing was issued: a process was killed, or is at it.
    Unfinished,
    /// Good.
    Good,
    /// Past its end.
    Expired,
    /// Taken back.
    Revoked,
}

/// A serial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The serial, in hexadecimal.
    pub serial: Serial,
    /// What became of it.
    pub state: State,
    /// The level that it states.
    pub level: Level,
    /// Whose it is: RFC 4514 text.
    pub subject: String,
    /// Other names of it.
    pub alt_names: Vec<String>,
    /// Names of its SSH certificate.
    pub principals: Vec<String>,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub key: Digest,
    /// The same of its TPM's endorsement keys. None where it has no TPM, or was issued before they were
    /// kept.
    pub device: Vec<Digest>,
    /// The profile by which it was issued.
    pub profile: String,
    /// When it was issued.
    pub at: u64,
    /// Last second of its validity.
    pub not_after: u64,
    /// Serial of its SSH certificate.
    pub ssh_serial: Option<u64>,
    /// When it was revoked.
    pub revoked_at: Option<u64>,
    /// Why it was revoked.
    pub reason: Option<Reason>,
}

impl Ca {
    /// All serials, the oldest first.
    pub fn list(&self, now: u64) -> Result<Vec<Entry>> {
        let mut all = Vec::new();
        for serial in self.books.serials()? {
            all.extend(self.find(&serial, now)?);
        }
        all.sort_by(|one, other| (one.at, &one.serial).cmp(&(other.at, &other.serial)));
        Ok(all)
    }

    /// One serial.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn entry(&self, serial: &Serial, now: u64) -> Result<Entry> {
        let found = self.find(serial, now)?;
        found.ok_or_else(|| Error::NotFound(format!("serial {serial}")))
    }

    /// The file for the device, once more.
    ///
    /// # Errors
    /// [`Error::NotFound`] where nothing was issued.
    pub fn issued_file(&self, serial: &Serial) -> Result<Vec<u8>> {
        self.books.issued(serial)
    }

    fn find(&self, serial: &Serial, now: u64) -> Result<Option<Entry>> {
        let Some(taken) = self.books.taken(serial)? else {
            return Ok(None);
        };
        let revoked = self.books.revoked(serial)?;
        let state = match &revoked {
            Some(_) => State::Revoked,
            None if !taken.issued => State::Unfinished,
            None if now > taken.not_after => State::Expired,
            None => State::Good,
        };
        Ok(Some(Entry {
            serial: serial.clone(),
            state,
            level: taken.level,
            subject: taken.subject,
            alt_names: taken.alt_names,
            principals: taken.principals,
            key: taken.key,
            device: taken.device,
            profile: taken.profile,
            at: taken.at,
            not_after: taken.not_after,
            ssh_serial: taken.ssh_serial,
            revoked_at: revoked.as_ref().map(|revoked| revoked.at),
            reason: revoked.map(|revoked| revoked.reason),
        }))
    }
}
