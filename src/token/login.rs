//! Login: a PIN opens the token's secret, and the keys' auths come from that.
//!
//! Where the device does not count wrong PINs, they are counted here: a try is on the disk before
//! the PIN is compared, so that no kill and no power cut makes a guess free. Whoever can write to
//! the store can put an older count back: then the PIN's length and Argon2id are what stands. Where
//! the store cannot be written to at all, logins go on uncounted.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::hmac;

use super::pin::{Pin, new_stretch};
use super::secret::TokenSecret;
use super::{LocalToken, Token};
use crate::error::{Error, Result};
use crate::fork;
use crate::provider::{KeyAuth, Sealing, Tries};
use crate::secret::Secret;
use crate::store::{PinRecord, Role, Store};

/// The part of a token that PINs are for. On a token without PINs all of it is
/// [`Error::Unsupported`].
pub trait Login {
    /// Logs in, in place of who was logged in before.
    ///
    /// A device that counts keeps its last try back unless `last_try` is set: that is for people who
    /// were asked, not for programs that offer a PIN to every token there is.
    ///
    /// # Errors
    /// [`Error::WrongPin`]; the same wrong PIN as the last time costs no try. [`Error::PinLocked`],
    /// [`Error::PinNotSet`].
    fn login(&self, role: Role, pin: &Pin, last_try: bool) -> Result<()>;

    /// Forgets the secret and all keys that were opened by it.
    fn logout(&self) -> Result<()>;

    /// Changes a PIN. Needs no login, changes none, and leaves the keys as they are.
    ///
    /// # Errors
    /// As [`Login::login`].
    fn set_pin(&self, role: Role, old: &Pin, new: &Pin) -> Result<()>;

    /// Sets the user's PIN, the first one or in place of one that is locked or forgotten.
    ///
    /// # Errors
    /// [`Error::LoginRequired`] unless the SO is logged in.
    fn init_pin(&self, new: &Pin, to_be_changed: bool) -> Result<()>;

    /// How many tries there are left. Asks the device where that counts.
    fn tries(&self, role: Role) -> Result<Tries>;

    /// Deletes all objects and the user's PIN, and gives the token a new secret and label.
    ///
    /// # Errors
    /// As [`Login::login`] of the SO.
    fn reset(&self, so: &Pin, label: &str) -> Result<()>;
}

/// What a token without login says of a PIN, by its store alone: asks no device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinState {
    /// Tries left, as far as the store knows.
    pub left: u32,
    /// Tries left after a right PIN.
    pub of: u32,
    /// Whether its owner is to change it.
    pub to_be_changed: bool,
}

impl PinState {
    /// The state of a PIN; `None` where none is set.
    pub fn of(store: &Store, role: Role) -> Result<Option<Self>> {
        let Some(record) = store.pin(role)? else {
            return Ok(None);
        };
        let used = store.tries_used(role)?;
        Ok(Some(PinState {
            left: record.tries.saturating_sub(used),
            of: record.tries,
            to_be_changed: record.to_be_changed,
        }))
    }
}

/// Who is logged in, and what was tried.
#[derive(Default)]
pub(super) struct Logins {
    now: Mutex<Option<LoggedIn>>,
    wrong: Mutex<Option<Wrong>>,
}

type LoggedIn = (Role, Arc<TokenSecret>);

/// The last wrong PIN, by a digest under a key of this process.
struct Wrong {
    key: hmac::Key,
    digest: hmac::Tag,
}

impl Logins {
    /// The secret, for who is logged in as `role`.
    pub(super) fn secret(&self, role: Role) -> Result<Arc<TokenSecret>> {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        match &*now {
            Some((who, secret)) if *who == role => Ok(secret.clone()),
            _ => Err(Error::LoginRequired),
        }
    }

    /// Puts a login in the place of the one before, which it gives.
    fn replace(&self, login: Option<LoggedIn>) -> Option<LoggedIn> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *now, login)
    }

    fn was_wrong(&self, record: &PinRecord, pin: &Pin) -> bool {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |wrong: &Wrong| {
            hmac::verify(&wrong.key, &attempt(record, pin), wrong.digest.as_ref()).is_ok()
        };
        wrong.as_ref().is_some_and(same)
    }

    fn note_wrong(&self, record: &PinRecord, pin: &Pin) -> Result<()> {
        let key = Secret::random(32)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
        let digest = hmac::sign(&key, &attempt(record, pin));
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        *wrong = Some(Wrong { key, digest });
        Ok(())
    }
}

/// The salt is of this PIN alone: after a change the same text is another attempt.
fn attempt(record: &PinRecord, pin: &Pin) -> zeroize::Zeroizing<Vec<u8>> {
    let parts = [record.role.name(), record.stretch.salt.as_str(), ""];
    zeroize::Zeroizing::new([parts.join("\0").as_bytes(), pin.expose()].concat())
}

impl Login for LocalToken {
    fn login(&self, role: Role, pin: &Pin, last_try: bool) -> Result<()> {
        let _inside = fork::enter();
        let secret = self.unlock(&self.pin(role)?, pin, last_try)?;
        let secret = match role {
            Role::User => self.shared.keys.join(secret),
            Role::So => Arc::new(secret),
        };
        self.enter(Some((role, secret)));
        Ok(())
    }

    fn logout(&self) -> Result<()> {
        let _inside = fork::enter();
        self.enter(None);
        Ok(())
    }

    fn set_pin(&self, role: Role, old: &Pin, new: &Pin) -> Result<()> {
        let _inside = fork::enter();
        let record = self.pin(role)?;
        let secret = self.unlock(&record, old, false)?;
        self.replace_pin(
            Some(&record),
            self.sealed(role, new, record.tries, &secret)?,
            &secret,
        )
    }

    fn init_pin(&self, new: &Pin, to_be_changed: bool) -> Result<()> {
        let _inside = fork::enter();
        let secret = self.logins.secret(Role::So)?;
        let so = self.pin(Role::So)?;
        // The secret of a login from before another process's reset opens nothing.
        so.check(secret.mac_key())
            .map_err(|_| Error::LoginRequired)?;
        let tries = so.tries;
        let old = self.store().pin(Role::User)?;
        let mut record = self.sealed(Role::User, new, tries, &secret)?;
        record.to_be_changed = to_be_changed;
        self.replace_pin(old.as_ref(), record, &secret)
    }

    fn tries(&self, role: Role) -> Result<Tries> {
        let _inside = fork::enter();
        let record = self.pin(role)?;
        if let Some(tries) = self.shared.provider.tries(&record.sealed)? {
            return Ok(tries);
        }
        let used = self.store().tries_used(role)?;
        Ok(Tries {
            left: record.tries.saturating_sub(used),
            of: record.tries,
            by_device: false,
            recovery: None,
            shared: false,
        })
    }

    fn reset(&self, so: &Pin, label: &str) -> Result<()> {
        let _inside = fork::enter();
        super::create::check_label(label)?;
        let record = self.pin(Role::So)?;
        self.unlock(&record, so, false)?;
        self.enter(None);
        self.erase()?;
        let secret = TokenSecret::fresh()?;
        self.replace_pin(
            Some(&record),
            self.sealed(Role::So, so, record.tries, &secret)?,
            &secret,
        )?;
        // Who logged in meanwhile has the secret of before.
        self.shared.keys.revoke();
        let mut token = self.store().token().clone();
        token.label = label.to_owned();
        self.store().writer()?.put_token(&token)
    }
}

impl LocalToken {
    /// Puts a login in the place of the one before.
    fn enter(&self, login: Option<LoggedIn>) {
        if let Some((Role::User, before)) = self.logins.replace(login) {
            self.shared.keys.leave(&before);
        }
    }

    fn pin(&self, role: Role) -> Result<PinRecord> {
        if !self.store().token().pin {
            return Err(Error::unsupported("PINs, on a token that was made without"));
        }
        self.store().pin(role)?.ok_or(Error::PinNotSet)
    }

    /// The token's secret, for a right PIN.
    fn unlock(&self, record: &PinRecord, pin: &Pin, last_try: bool) -> Result<TokenSecret> {
        if self.logins.was_wrong(record, pin) {
            return Err(match self.tries_known(record)? {
                0 => Error::PinLocked,
                left => Error::WrongPin {
                    tries_left: Some(left),
                },
            });
        }
        let counts = self.shared.provider.sealing() == Sealing::UnderAuth;
        // Before it costs anything; where the device counts, the store may be behind.
        if !counts && record.locked_after(self.store().tries_used(record.role)?) {
            return Err(Error::PinLocked);
        }
        let auth = pin.stretch(&record.stretch, record.role, &self.store().token().serial)?;
        let unsealed = match self.shared.provider.sealing() {
            Sealing::UnderAuth => self.unseal_by_device(record, &auth, last_try),
            Sealing::Never | Sealing::Freely => self.unseal_counted(record, &auth),
        };
        if let Err(Error::WrongPin { .. }) = unsealed {
            self.logins.note_wrong(record, pin)?;
        }
        let secret = TokenSecret::new(unsealed?, true)?;
        record.check(secret.mac_key())?;
        Ok(secret)
    }

    /// Unseals by a device that does not count: the try is on the disk before.
    fn unseal_counted(&self, record: &PinRecord, auth: &KeyAuth) -> Result<Secret> {
        let counter = unless_read_only(self.store().writer())?;
        let used = self.store().tries_used(record.role)?;
        if record.locked_after(used) {
            return Err(Error::PinLocked);
        }
        let count = |used| match &counter {
            Some(writer) => unless_read_only(writer.put_tries(record.role, used)),
            None => Ok(None),
        };
        let counted = count(used + 1)?.is_some();
        match self.shared.provider.unseal(&record.sealed, auth) {
            Ok(secret) => count(0).map(|_| secret),
            Err(Error::BadBlob) => {
                let left = record.tries.saturating_sub(used + 1);
                let tries_left = counted.then_some(left);
                Err(Error::WrongPin { tries_left })
            }
            // Not the PIN's fault.
            Err(other) => count(used).and(Err(other)),
        }
    }

    /// Unseals by a device that counts, and notes for others what it said.
    fn unseal_by_device(
        &self,
        record: &PinRecord,
        auth: &KeyAuth,
        last_try: bool,
    ) -> Result<Secret> {
        let before = self.shared.provider.tries(&record.sealed)?;
        let left = before.map_or(u32::MAX, |tries| tries.left);
        if left == 0 || (left == 1 && !last_try) {
            self.mirror(record, left);
            return Err(Error::PinLocked);
        }
        let unsealed = self.shared.provider.unseal(&record.sealed, auth);
        match &unsealed {
            Ok(_) => self.mirror(record, record.tries),
            Err(Error::WrongPin { tries_left }) => self.mirror(record, tries_left.unwrap_or(left)),
            Err(Error::PinLocked) => self.mirror(record, 0),
            Err(_) => {}
        }
        unsealed
    }

    /// Writes what the device said where it can be read without asking the device. That it cannot
    /// be written harms nobody: the device goes by its own count.
    fn mirror(&self, record: &PinRecord, left: u32) {
        let used = record.tries.saturating_sub(left);
        if self.store().tries_used(record.role).ok() == Some(used) {
            return;
        }
        if let Err(e) = self
            .store()
            .writer()
            .and_then(|writer| writer.put_tries(record.role, used))
        {
            log::debug!("the number of tries left is not noted: {e}");
        }
    }

    fn tries_known(&self, record: &PinRecord) -> Result<u32> {
        let used = self.store().tries_used(record.role)?;
        Ok(record.tries.saturating_sub(used))
    }

    fn sealed(&self, role: Role, pin: &Pin, tries: u32, secret: &TokenSecret) -> Result<PinRecord> {
        let serial = &self.store().token().serial;
        seal_pin(&*self.shared.provider, role, pin, tries, serial, secret)
    }

    /// Puts a PIN in the place of another one; nothing is left of the one that loses.
    fn replace_pin(
        &self,
        old: Option<&PinRecord>,
        new: PinRecord,
        secret: &TokenSecret,
    ) -> Result<()> {
        let written = self
            .store()
            .writer()
            .and_then(|writer| writer.put_pin(&new, secret.mac_key()));
        // It may have been written all the same, and not be synced.
        let loser = match self.store().pin(new.role)? {
            Some(there) if there.sealed == new.sealed => old,
            _ => Some(&new),
        };
        if let Some(loser) = loser
            && let Err(e) = self.shared.provider.forget(&loser.sealed)
        {
            log::warn!("the device keeps what the old PIN was checked by: {e}");
        }
        written
    }

    /// Deletes all objects and the user's PIN.
    fn erase(&self) -> Result<()> {
        self.shared.keys.revoke();
        let writer = self.store().writer()?;
        let listing = self.store().list()?;
        writer.clear()?;
        for key in &listing.keys {
            self.shared.provider.forget(&key.blob)?;
        }
        let user = self.store().pin(Role::User)?;
        writer.remove_pin(Role::User)?;
        user.map_or(Ok(()), |user| self.shared.provider.forget(&user.sealed))
    }
}

impl Drop for LocalToken {
    fn drop(&mut self) {
        self.enter(None);
    }
}

/// `None` for what a store that cannot be written to refuses.
fn unless_read_only<T>(done: Result<T>) -> Result<Option<T>> {
    match done {
        Ok(done) => Ok(Some(done)),
        // What was read before had owner and mode as they should be.
        Err(Error::ReadOnly(_) | Error::Refused { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A PIN's record: the secret sealed under the PIN.
pub(super) fn seal_pin(
    provider: &dyn crate::provider::Provider,
    role: Role,
    pin: &Pin,
    tries: u32,
    serial: &str,
    secret: &TokenSecret,
) -> Result<PinRecord> {
    let stretch = new_stretch()?;
    let auth = pin.stretch(&stretch, role, serial)?;
    let sealed = provider.seal(secret.secret(), &auth, tries)?;
    Ok(PinRecord::new(role, tries, stretch, sealed))
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logins(…)")
    }
}
