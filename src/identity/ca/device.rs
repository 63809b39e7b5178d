//! Devices, as far as the CA knows one again: by the endorsement keys (EKs) of its TPM.
//!
//! A key is made anew in a TPM that was stolen; its EKs stay. A TPM has several, and may show any of them: so
//! a challenge has each one that is shown prove that it is of the same TPM, and the books keep all of them.

use super::books::{Barred, Withdrawn};
use super::evidence::asked;
use super::{Ca, Entry, State};
use crate::error::{Error, Result};
use crate::identity::flow::{Challenge, Digest, Request, fingerprint};
use crate::identity::x509::{Reason, Serial};

impl Ca {
    /// Revokes all that the TPM of a serial got, and certifies it no more. Gives what was revoked by this.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a serial that was never taken, [`Error::BadInput`] where no TPM is known for
    /// it, and those of writing.
    pub fn revoke_device(&self, serial: &Serial, reason: Reason, now: u64) -> Result<Vec<Serial>> {
        let _lock = self.books.lock()?;
        let lost = self.entry(serial, now)?;
        let (level, subject) = (lost.level, lost.subject.clone());
        let all = of_device(lost, self.list(now)?);
        let mut device: Vec<Digest> = all.iter().flat_map(|entry| entry.device.clone()).collect();
        device.sort_unstable();
        device.dedup();
        if device.is_empty() {
            return Err(Error::input(format!(
                "no TPM is known for serial {serial}: it was issued at level {level}, or before the books kept TPMs"
            )));
        }
        let barred = Barred {
            at: now,
            reason,
            serial: serial.clone(),
            subject,
        };
        // First: whatever happens then, it gets nothing new.
        for ek in &device {
            self.books.put_barred(*ek, &barred)?;
        }
        let mut revoked = Vec::new();
        for entry in all {
            if entry.state != State::Revoked {
                let withdrawn = Withdrawn { at: now, reason };
                self.books.put_revoked(&entry.serial, &withdrawn)?;
                revoked.push(entry.serial);
            }
        }
        Ok(revoked)
    }

    /// Refuses a TPM that was revoked, whatever its keys and names are.
    ///
    /// # Errors
    /// [`Error::BadInput`].
    pub(super) fn check_not_barred(&self, request: &Request) -> Result<()> {
        for evidence in request.evidence() {
            // What is no EK proves nothing, here or elsewhere.
            let Ok(checked) = evidence.check() else {
                continue;
            };
            let ek = fingerprint(&checked.ek);
            if let Some(barred) = self.books.barred(ek)? {
                let Barred {
                    serial, subject, ..
                } = barred;
                return Err(Error::input(format!(
                    "its TPM was revoked as that of {subject}, with serial {serial}: no key in it is \
                     certified any more (endorsement key {ek})"
                )));
            }
        }
        Ok(())
    }
}

/// Stand for the EKs that a challenge is for.
pub(super) fn endorsement(challenge: &Challenge) -> Result<Vec<Digest>> {
    let all = asked(challenge);
    let ek = all.iter().map(|evidence| evidence.check());
    ek.map(|checked| Ok(fingerprint(&checked?.ek))).collect()
}

/// All that the TPM of an entry got: entries that share an EK with one of them, or the key, and so on. A key
/// may have been certified without its TPM too: before the books kept TPMs, or at a lower level.
fn of_device(lost: Entry, mut all: Vec<Entry>) -> Vec<Entry> {
    all.retain(|entry| entry.serial != lost.serial);
    let mut found = vec![lost];
    loop {
        let related = |entry: &Entry| found.iter().any(|known| share(known, entry));
        let (more, left): (Vec<_>, Vec<_>) = all.into_iter().partition(related);
        if more.is_empty() {
            return found;
        }
        found.extend(more);
        all = left;
    }
}

fn share(one: &Entry, other: &Entry) -> bool {
    one.key == other.key || one.device.iter().any(|ek| other.device.contains(ek))
}
