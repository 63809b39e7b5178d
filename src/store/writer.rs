//! Writing to a store, by one process at a time.

use std::fmt;
use std::path::Path;

use aws_lc_rs::hmac;

use super::watch::Forget;
use super::{Certificate, KeyRecord, ObjectId, PinRecord, Role, TOKEN, TokenRecord};
use crate::error::{Error, Result};
use crate::files::{Dir, Keeper, WriteLock};

/// A store that nobody else writes to: what was listed since it was made is still so.
#[derive(Debug)]
pub struct Writer {
    dir: Dir,
    _forget: Option<Forget>,
    _lock: WriteLock,
}

impl Writer {
    /// Waits for other writers to a token's directory and keeps them out.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        Writer::kept(path, None, None)
    }

    /// As [`Writer::at`], of a directory that may be the keeper's; drops `forget` when it is done.
    pub(super) fn kept(path: &Path, keeper: Keeper, forget: Option<Forget>) -> Result<Self> {
        let dir = Dir::kept(path, keeper)?;
        let lock = dir.lock()?;
        Ok(Writer {
            dir,
            _forget: forget,
            _lock: lock,
        })
    }

    /// Writes a key's record, a new one or the successor of the one with its id.
    pub fn put_key(
        &self,
        key: &KeyRecord,
        mac_key: Option<&hmac::Key>,
        replace: bool,
    ) -> Result<()> {
        let contents = key.encode(mac_key)?;
        let name = key.id.file();
        // What could not be read again would be a key lost.
        let read = KeyRecord::parse(&contents, key.id.clone(), Path::new(name.as_ref()))
            .map_err(unreadable)?;
        if (&read.label, &read.cka_id) != (&key.label, &key.cka_id) {
            return Err(unreadable("its names"));
        }
        self.write(&name, &contents, replace)
    }

    /// Writes a certificate, a new one or the successor of the one with its id.
    ///
    /// # Errors
    /// [`Error::BadInput`] for one certificate of a file that holds several.
    pub fn put_certificate(&self, certificate: &Certificate, replace: bool) -> Result<()> {
        let contents = certificate.encode()?;
        let name = certificate.id.file();
        if replace {
            self.alone(&certificate.id)?;
        }
        Certificate::parse_file(&contents, &name, Path::new(name.as_ref())).map_err(unreadable)?;
        self.write(&name, &contents, replace)
    }

    /// Writes certificates, a chain, into one file: that of `id`, whatever it holds so far, in one step.
    pub fn put_chain(&self, id: &ObjectId, chain: &[Certificate], replace: bool) -> Result<()> {
        let contents = Certificate::encode_file(chain)?;
        let name = id.file();
        let read = Certificate::parse_file(&contents, &name, Path::new(name.as_ref()));
        if read.map_err(unreadable)?.len() != chain.len() {
            return Err(unreadable("its certificates"));
        }
        self.write(&name, &contents, replace)
    }

    /// Removes the file that a certificate is in, with all that are in it.
    ///
    /// # Errors
    /// [`Error::NotFound`]
    pub fn remove_chain(&self, id: &ObjectId) -> Result<()> {
        match id.is_certificate() {
            true => self.dir.remove(&id.file()),
            false => Err(Error::input(format!("{id} is no certificate"))),
        }
    }

    /// Removes a key or a certificate.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::BadInput`] for one certificate of a file that holds several.
    pub fn remove(&self, id: &ObjectId) -> Result<()> {
        if id.is_certificate() {
            self.alone(id)?;
        }
        self.dir.remove(&id.file())
    }

    /// Removes all keys and certificates, those that cannot be read too.
    pub fn clear(&self) -> Result<()> {
        let names = self.dir.names()?;
        let ours = |name: &&String| super::is_object(name) || super::ssh::is_ssh(name);
        for name in names.iter().filter(ours) {
            self.dir.remove(name)?;
        }
        Ok(())
    }

    /// Writes the record of a PIN, and then, where that is not so already, that no try was used: cut
    /// short in between, the tries of the PIN before are not given back.
    pub fn put_pin(&self, pin: &PinRecord, mac_key: &hmac::Key) -> Result<()> {
        let contents = pin.encode(mac_key)?;
        let name = pin.role.pin_file();
        PinRecord::parse(&contents, pin.role, Path::new(&name)).map_err(unreadable)?;
        self.dir.write_public(&name, contents.as_bytes(), true)?;
        match self.dir.read(&pin.role.tries_file()) {
            Err(Error::NotFound(_)) => Ok(()),
            Ok((tries, _)) if tries == super::pin::encode_tries(0)?.as_bytes() => Ok(()),
            _ => self.put_tries(pin.role, 0),
        }
    }

    /// Removes the record of a PIN, where there is one.
    pub fn remove_pin(&self, role: Role) -> Result<()> {
        for name in [role.pin_file(), role.tries_file()] {
            match self.dir.remove(&name) {
                Ok(()) | Err(Error::NotFound(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes how many tries of a PIN were used: on the disk when this returns.
    pub fn put_tries(&self, role: Role, used: u32) -> Result<()> {
        let contents = super::pin::encode_tries(used)?;
        self.dir
            .write_public(&role.tries_file(), contents.as_bytes(), true)
    }

    /// Writes the token's own record anew.
    pub fn put_token(&self, token: &TokenRecord) -> Result<()> {
        let contents = token.encode()?;
        TokenRecord::parse(&contents, Path::new(TOKEN)).map_err(unreadable)?;
        self.write(TOKEN, &contents, true)
    }

    /// Refuses to touch a file for the sake of one certificate that it holds among others.
    fn alone(&self, id: &ObjectId) -> Result<()> {
        let name = id.file();
        let path = self.dir.path(&name);
        let (bytes, _) = self.dir.read(&name)?;
        let all = Certificate::parse_file(super::text(&bytes, &path)?, &name, &path)?;
        if all.len() > 1 {
            return Err(Error::input(format!(
                "{} holds {} certificates; change or remove the file itself",
                path.display(),
                all.len()
            )));
        }
        Ok(())
    }

    fn write(&self, name: &str, contents: &str, replace: bool) -> Result<()> {
        if replace && self.dir.entry_stamp(name).is_none() {
            return Err(Error::NotFound(self.dir.path(name).display().to_string()));
        }
        self.dir.write_public(name, contents.as_bytes(), replace)
    }
}

fn unreadable(what: impl fmt::Display) -> Error {
    Error::input(format!("a record that could not be read again: {what}"))
}
