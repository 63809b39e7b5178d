//! OpenSSH certificates: `LABEL-cert.pub` files, as OpenSSH itself wants them.
//!
//! They lie beside the key in the token's directory, so that they go where it goes, and are for
//! CertificateFile and HostCertificate to name. Programs that insist on a place of their own, such as
//! `~/.ssh`, have them written there.

use std::path::{Path, PathBuf};

use super::Store;
use crate::error::{Error, Result};
use crate::files::{Dir, Keeper};

/// What the name of such a file ends in; ssh(1) looks for it beside an identity.
pub const SSH_ENDING: &str = "-cert.pub";

/// A directory with certificates of OpenSSH.
#[derive(Debug)]
pub struct SshFiles<'a> {
    dir: PathBuf,
    keeper: Keeper,
    /// The token that the directory is.
    store: Option<&'a Store>,
}

impl<'a> SshFiles<'a> {
    /// Those of a token.
    pub(super) fn of(store: &'a Store) -> Self {
        SshFiles {
            dir: store.dir.clone(),
            keeper: store.keeper,
            store: Some(store),
        }
    }

    /// Those of a directory that is no token.
    pub fn at(dir: &Path) -> Self {
        SshFiles {
            dir: dir.to_owned(),
            keeper: None,
            store: None,
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All files and what is in each.
    pub fn list(&self) -> Result<Vec<(PathBuf, Result<String>)>> {
        let dir = Dir::kept(&self.dir, self.keeper)?;
        let names = dir.names()?;
        let names = names.iter().filter(|name| is_ssh(name));
        let read = |name: &String| {
            let path = dir.path(name);
            let text = dir.read(name).and_then(|(bytes, _)| {
                let text = super::text(&bytes, &path)?;
                Ok(text.to_owned())
            });
            (path, text)
        };
        Ok(names.map(read).collect())
    }

    /// Writes a file: the old contents or the new, never anything between.
    pub fn put(&self, name: &str, line: &str) -> Result<()> {
        // A writer of the store clears away what others are writing.
        let _writer = self.store.map(Store::writer).transpose()?;
        let dir = Dir::kept(&self.dir, self.keeper)?;
        dir.write_public(&checked(name)?, line.as_bytes(), true)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// [`Error::NotFound`]
    pub fn remove(&self, name: &str) -> Result<()> {
        Dir::kept(&self.dir, self.keeper)?.remove(&checked(name)?)
    }
}

pub(super) fn is_ssh(name: &str) -> bool {
    name.ends_with(SSH_ENDING) && !name.starts_with('.')
}

/// Accepts what cannot leave the directory.
fn checked(name: &str) -> Result<String> {
    let allowed = |c: char| c.is_alphanumeric() || "-_.@+ ".contains(c);
    match is_ssh(name) && name.len() <= 200 && name.chars().all(allowed) {
        true => Ok(name.to_owned()),
        false => Err(Error::input(format!(
            "{name:?} cannot name a file of a certificate"
        ))),
    }
}
