//! Taking certificates back.

use super::books::Withdrawn;
use super::{Ca, Entry, State};
use crate::error::{Error, Result};
use crate::identity::flow::{Digest, Issued};
use crate::identity::signer::Signer;
use crate::identity::ssh::krl::Krl;
use crate::identity::x509::{self, Reason, Revoked, Serial};

impl Ca {
    /// Revokes what has this serial, for ever.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a serial that was never taken, [`Error::Exists`] where it is revoked
    /// already.
    pub fn revoke(&self, serial: &Serial, reason: Reason, now: u64) -> Result<()> {
        if self.books.taken(serial)?.is_none() {
            return Err(Error::NotFound(format!("serial {serial}")));
        }
        match self
            .books
            .put_revoked(serial, &Withdrawn { at: now, reason })
        {
            Err(Error::Exists(_)) => Err(Error::Exists(format!("the revocation of {serial}"))),
            written => written,
        }
    }

    /// The list of what is revoked and not yet expired (RFC 5280), for so many seconds: DER.
    ///
    /// # Errors
    /// Those of signing and writing.
    pub fn crl(&self, signer: &dyn Signer, valid_for: u64, now: u64) -> Result<Vec<u8>> {
        self.check_signer(signer)?;
        let _lock = self.books.lock()?;
        let revoked: Vec<Revoked> = self.revoked(now)?.iter().filter_map(revoked).collect();
        let number = self.books.next_list(now)?;
        let valid = (now, now.saturating_add(valid_for));
        x509::crl(signer, &self.issuer, number, valid, &revoked)
    }

    /// The same for OpenSSH's RevokedKeys. A key that others may have is listed by itself, too.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the CA's key is none of OpenSSH's, and those of writing.
    pub fn krl(&self, now: u64) -> Result<Vec<u8>> {
        let _lock = self.books.lock()?;
        let all = self.revoked(now)?;
        let serials: Vec<u64> = all.iter().filter_map(|entry| entry.ssh_serial).collect();
        let stolen = |entry: &&Entry| {
            entry.reason == Some(Reason::KeyCompromise) && entry.ssh_serial.is_some()
        };
        let mut keys = Vec::new();
        for entry in all.iter().filter(stolen) {
            match self.books.issued(&entry.serial) {
                Err(Error::NotFound(_)) => {}
                file => keys.push(Issued::parse(&file?)?.public().clone()),
            }
        }
        let krl = Krl {
            authority: self.public(),
            serials: &serials,
            keys: &keys,
            version: self.books.next_list(now)?,
            date: now,
            comment: &self.config.name,
        };
        krl.encode()
    }

    /// Refuses a key that was revoked because others may have it: whoever holds the device could answer any
    /// challenge with it.
    ///
    /// # Errors
    /// [`Error::BadInput`].
    pub(super) fn check_not_stolen(&self, key: Digest, now: u64) -> Result<()> {
        let of_key =
            |entry: &&Entry| entry.key == key && entry.reason == Some(Reason::KeyCompromise);
        match self.list(now)?.iter().find(of_key) {
            None => Ok(()),
            Some(entry) => Err(Error::input(format!(
                "the key was revoked with serial {}, for others may have it; the device needs a new one",
                entry.serial
            ))),
        }
    }

    /// An expired one needs no revocation any more; one whose key is stolen stays, for SSH knows keys.
    fn revoked(&self, now: u64) -> Result<Vec<Entry>> {
        let mut all = self.list(now)?;
        all.retain(|entry| {
            let stolen = entry.reason == Some(Reason::KeyCompromise);
            entry.state == State::Revoked && (stolen || entry.not_after >= now)
        });
        Ok(all)
    }
}

fn revoked(entry: &Entry) -> Option<Revoked> {
    Some(Revoked {
        serial: entry.serial.clone(),
        at: entry.revoked_at?,
        reason: entry.reason?,
    })
}
