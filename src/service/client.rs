//! The client: a token whose provider runs in the key service.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::TokenPlace;
use crate::error::{Error, Result};
use crate::key::{DecryptScheme, PublicKey, Scheme};
use crate::secret::Secret;
use crate::store::{Certificate, KeyRecord, ObjectId, Store};
use crate::token::{CertificateRequest, KeyRequest, Names, Token};

/// Starts the program as a private child with the socket as its standard input.
pub type Launcher = fn(program: &Path, socket: OwnedFd) -> Result<()>;

/// The way to the key service, shared by all remote tokens of a process.
#[derive(Debug)]
pub struct Link {
    program: PathBuf,
    launch: Launcher,
}

impl Link {
    /// A link that starts `program` by `launch` at the first operation that needs it.
    pub fn new(program: PathBuf, launch: Launcher) -> Self {
        Link { program, launch }
    }
}

/// A token across the socket.
#[derive(Debug)]
pub struct RemoteToken {
    store: Store,
    place: TokenPlace,
    link: Arc<Link>,
}

impl RemoteToken {
    /// A token whose public half is `store`. Asks nobody.
    pub fn new(store: Store, place: TokenPlace, link: Arc<Link>) -> Self {
        RemoteToken { store, place, link }
    }
}

fn todo<T>() -> Result<T> {
    Err(Error::unsupported("the key service"))
}

impl Token for RemoteToken {
    fn store(&self) -> &Store {
        &self.store
    }
    fn sign(&self, _: &KeyRecord, _: Scheme, _: &[u8]) -> Result<Vec<u8>> {
        todo()
    }
    fn agree(&self, _: &KeyRecord, _: &PublicKey) -> Result<Secret> {
        todo()
    }
    fn decrypt(&self, _: &KeyRecord, _: DecryptScheme, _: &[u8]) -> Result<Secret> {
        todo()
    }
    fn generate(&self, _: &KeyRequest) -> Result<KeyRecord> {
        todo()
    }
    fn add_certificate(&self, _: &CertificateRequest) -> Result<Certificate> {
        todo()
    }
    fn rename(&self, _: &ObjectId, _: &Names) -> Result<()> {
        todo()
    }
    fn delete(&self, _: &ObjectId) -> Result<()> {
        todo()
    }
}
