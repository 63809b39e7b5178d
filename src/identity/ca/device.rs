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
        if lost.device.is_empty() {
            return Err(Error::input(format!(
                "no TPM is known for serial {serial}: it was issued at level {}, or before the books kept TPMs",
                lost.level
            )));
        }
        let all = self.list(now)?;
        let device = device(&lost, &all);
        let barred = Barred {
            at: now,
            reason,
            serial: serial.clone(),
            subject: lost.subject,
        };
        // First: whatever happens then, it gets nothing new.
        for ek in &device {
            self.books.put_barred(*ek, &barred)?;
        }
        let mut revoked = Vec::new();
        for entry in all.into_iter().filter(|entry| shares(entry, &device)) {
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

/// The EKs of the TPM of an entry: those that it has proven, those that were proven beside one of them, and
/// so on.
fn device(of: &Entry, all: &[Entry]) -> Vec<Digest> {
    let mut device = of.device.clone();
    device.sort_unstable();
    device.dedup();
    loop {
        let known = device.len();
        for entry in all {
            if shares(entry, &device) {
                device.extend(&entry.device);
            }
        }
        device.sort_unstable();
        device.dedup();
        if device.len() == known {
            return device;
        }
    }
}

fn shares(entry: &Entry, device: &[Digest]) -> bool {
    entry.device.iter().any(|ek| device.contains(ek))
}
