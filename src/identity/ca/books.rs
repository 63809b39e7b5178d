//! The files of a CA.

mod records;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::files::{Dir, TEMPORARY, WriteLock, make_dir, stem, temporary_name};
use crate::identity::bundle::{self, Most};
use crate::identity::flow::Digest;
use crate::identity::x509::Serial;
use crate::secret::Secret;
use records::Lists;
pub(super) use records::{Answered, Asked, Barred, Taken, Withdrawn};

const CONFIG: &str = "ca.toml";
const CHAIN: &str = "ca.pem";
const LISTS: &str = "lists.toml";
const EK_ROOTS: &str = "ek-roots";
/// Directories of the books, besides.
const CHALLENGES: &str = "challenges";
const ANSWERED: &str = "answered";
const ISSUED: &str = "issued";
const REGISTERED: &str = "registered";
const REVOKED: &str = "revoked";
/// Books of earlier versions have not this one.
const BARRED: &str = "barred";
const DIRECTORIES: [&str; 7] = [
    EK_ROOTS, CHALLENGES, ANSWERED, ISSUED, REGISTERED, REVOKED, BARRED,
];

/// A CA's directory.
#[derive(Debug)]
pub(super) struct Books {
    path: PathBuf,
}

/// Held while the books are written.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "dropping it lets go")] WriteLock);

impl Books {
    /// Makes the directory. It gets its name when `fill` is done.
    pub(super) fn create(path: &Path, fill: impl FnOnce(&Books) -> Result<()>) -> Result<()> {
        if path.symlink_metadata().is_ok() {
            return Err(Error::Exists(path.display().to_string()));
        }
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let under_way = parent.join(temporary_name()?);
        make_dir(&under_way, false)?;
        let books = Books {
            path: under_way.clone(),
        };
        let made = || {
            for name in DIRECTORIES {
                make_dir(&under_way.join(name), false)?;
            }
            fill(&books)?;
            fs::rename(&under_way, path)
                .map_err(|e| Error::io(format!("creating {}", path.display()), e))
        };
        made().inspect_err(|_| {
            // The name is ours alone.
            let _ = fs::remove_dir_all(&under_way);
        })
    }

    pub(super) fn open(path: &Path) -> Result<Self> {
        Dir::open(path)?;
        Ok(Books {
            path: path.to_owned(),
        })
    }

    /// Keeps other writers out, and clears what killed ones left.
    pub(super) fn lock(&self) -> Result<Lock> {
        let lock = Dir::open(&self.path)?.lock()?;
        exists(make_dir(&self.path.join(BARRED), false))?;
        for name in DIRECTORIES {
            let dir = self.dir(name)?;
            let left = |name: &String| name.starts_with(TEMPORARY);
            dir.names()?
                .iter()
                .filter(|name| left(name))
                .try_for_each(|name| dir.remove(name))?;
        }
        Ok(Lock(lock))
    }

    pub(super) fn put_config(&self, text: &str) -> Result<()> {
        Dir::open(&self.path)?.write(CONFIG, text.as_bytes(), false)
    }

    pub(super) fn config(&self) -> Result<(String, PathBuf)> {
        let dir = Dir::open(&self.path)?;
        let path = dir.path(CONFIG);
        Ok((text(&path, dir.read(CONFIG)?.0)?, path))
    }

    pub(super) fn put_chain(&self, chain: &[Vec<u8>]) -> Result<()> {
        let blocks = chain
            .iter()
            .map(|der| pem(der))
            .collect::<Result<String>>()?;
        Dir::open(&self.path)?.write(CHAIN, blocks.as_bytes(), false)
    }

    pub(super) fn chain(&self) -> Result<Vec<Vec<u8>>> {
        let dir = Dir::open(&self.path)?;
        certificates(&dir.path(CHAIN), &dir.read(CHAIN)?.0, Most::CHAIN)
    }

    pub(super) fn add_ek_root(&self, der: &[u8]) -> Result<()> {
        let name = format!("{}.pem", Digest::of(der));
        let dir = self.dir(EK_ROOTS)?;
        exists(dir.write(&name, pem(der)?.as_bytes(), false))
    }

    /// Certificates of makers of TPMs, DER.
    pub(super) fn ek_roots(&self) -> Result<Vec<Vec<u8>>> {
        let dir = self.dir(EK_ROOTS)?;
        let mut all = Vec::new();
        let certificate = |name: &String| {
            ["pem", "crt", "cer", "der"]
                .iter()
                .any(|e| stem(name, e).is_some())
        };
        for name in dir.names()?.iter().filter(|name| certificate(name)) {
            let (path, bytes) = (dir.path(name), dir.read(name)?.0);
            all.extend(certificates(&path, &bytes, Most::ANCHORS)?);
        }
        let most = Most::ANCHORS.certificates;
        match all.len() <= most {
            true => Ok(all),
            false => Err(Error::input(format!(
                "{}: more than {most} certificates",
                self.path.join(EK_ROOTS).display()
            ))),
        }
    }

    pub(super) fn put_asked(
        &self,
        nonce: Digest,
        asked: &Asked,
        secret: Option<&Secret>,
    ) -> Result<()> {
        let dir = self.dir(CHALLENGES)?;
        if let Some(secret) = secret {
            // Into a file of mode 0600.
            dir.write(&format!("{nonce}.secret"), secret.expose(), false)?;
        }
        put(&dir, &toml_of(nonce), asked, false)
    }

    pub(super) fn asked(&self, nonce: Digest) -> Result<Option<Asked>> {
        get(&self.dir(CHALLENGES)?, &toml_of(nonce))
    }

    pub(super) fn secret(&self, nonce: Digest) -> Result<Secret> {
        self.dir(CHALLENGES)?
            .read_secret(&format!("{nonce}.secret"))
    }

    /// Forgets questions that nobody can answer any more since `before`. Under the lock.
    pub(super) fn forget_asked(&self, before: u64) -> Result<()> {
        let dir = self.dir(CHALLENGES)?;
        for name in dir.names()? {
            let Some(nonce) = stem(&name, "toml") else {
                continue;
            };
            let asked: Option<Asked> = get(&dir, &name)?;
            if asked.is_none_or(|asked| asked.expires >= before) {
                continue;
            }
            // The question first: without it no answer is taken, whatever else is left.
            dir.remove(&name)?;
            gone(dir.remove(&format!("{nonce}.secret")))?;
            gone(self.dir(ANSWERED)?.remove(&name))?;
        }
        Ok(())
    }

    pub(super) fn put_answered(&self, nonce: Digest, serial: &Serial) -> Result<()> {
        let answered = Answered {
            serial: serial.clone(),
        };
        put(&self.dir(ANSWERED)?, &toml_of(nonce), &answered, true)
    }

    pub(super) fn answered(&self, nonce: Digest) -> Result<Option<Serial>> {
        let answered: Option<Answered> = get(&self.dir(ANSWERED)?, &toml_of(nonce))?;
        Ok(answered.map(|answered| answered.serial))
    }

    /// Takes a serial.
    ///
    /// # Errors
    /// [`Error::Exists`] where it is taken.
    pub(super) fn take(&self, serial: &Serial, taken: &Taken) -> Result<()> {
        put(&self.dir(ISSUED)?, &toml_of(serial), taken, false)
    }

    /// Says that a serial was issued; the file for the device is written first.
    pub(super) fn put_issued(&self, serial: &Serial, taken: &Taken, file: &[u8]) -> Result<()> {
        let dir = self.dir(ISSUED)?;
        dir.write(&format!("{serial}.json"), file, false)?;
        put(&dir, &toml_of(serial), taken, true)
    }

    pub(super) fn taken(&self, serial: &Serial) -> Result<Option<Taken>> {
        get(&self.dir(ISSUED)?, &toml_of(serial))
    }

    /// The file for the device.
    pub(super) fn issued(&self, serial: &Serial) -> Result<Vec<u8>> {
        Ok(self.dir(ISSUED)?.read(&format!("{serial}.json"))?.0)
    }

    /// All serials.
    pub(super) fn serials(&self) -> Result<Vec<Serial>> {
        self.names_in(ISSUED)?
            .iter()
            .map(|name| name.parse())
            .collect()
    }

    pub(super) fn put_revoked(&self, serial: &Serial, withdrawn: &Withdrawn) -> Result<()> {
        put(&self.dir(REVOKED)?, &toml_of(serial), withdrawn, false)
    }

    pub(super) fn revoked(&self, serial: &Serial) -> Result<Option<Withdrawn>> {
        get(&self.dir(REVOKED)?, &toml_of(serial))
    }

    /// Bars a TPM by its endorsement key; what is barred stays as it is. Under the lock.
    pub(super) fn put_barred(&self, ek: Digest, barred: &Barred) -> Result<()> {
        exists(put(&self.dir(BARRED)?, &toml_of(ek), barred, false))
    }

    pub(super) fn barred(&self, ek: Digest) -> Result<Option<Barred>> {
        match self.dir(BARRED) {
            Err(Error::NotFound(_)) => Ok(None),
            dir => get(&dir?, &toml_of(ek)),
        }
    }

    pub(super) fn put_registered(&self, key: Digest, registered: &super::Registered) -> Result<()> {
        put(&self.dir(REGISTERED)?, &toml_of(key), registered, false)
    }

    pub(super) fn registered(&self, key: Digest) -> Result<Option<super::Registered>> {
        get(&self.dir(REGISTERED)?, &toml_of(key))
    }

    /// Fingerprints of all registered keys.
    pub(super) fn all_registered(&self) -> Result<Vec<Digest>> {
        self.names_in(REGISTERED)?
            .iter()
            .map(|name| name.parse())
            .collect()
    }

    pub(super) fn remove_registered(&self, key: Digest) -> Result<()> {
        self.dir(REGISTERED)?.remove(&toml_of(key))
    }

    /// A number for the next list. It grows with the clock too, so that books from a copy do not go
    /// back. Under the lock.
    pub(super) fn next_list(&self, now: u64) -> Result<u64> {
        let dir = Dir::open(&self.path)?;
        let last: Option<Lists> = get(&dir, LISTS)?;
        let number = last
            .map_or(0, |last| last.number.saturating_add(1))
            .max(now);
        put(&dir, LISTS, &Lists { number }, true)?;
        Ok(number)
    }

    fn dir(&self, name: &str) -> Result<Dir> {
        Dir::open(&self.path.join(name))
    }

    /// Names of the records of a directory, without their ending.
    fn names_in(&self, name: &str) -> Result<Vec<String>> {
        let names = self.dir(name)?.names()?;
        Ok(names
            .iter()
            .filter_map(|name| stem(name, "toml"))
            .map(str::to_owned)
            .collect())
    }
}

fn toml_of(name: impl std::fmt::Display) -> String {
    format!("{name}.toml")
}

fn put(dir: &Dir, name: &str, record: &impl Serialize, replace: bool) -> Result<()> {
    let text = toml::to_string(record).map_err(|e| Error::Internal(format!("a record: {e}")))?;
    dir.write(name, text.as_bytes(), replace)
}

fn get<T: DeserializeOwned>(dir: &Dir, name: &str) -> Result<Option<T>> {
    let path = dir.path(name);
    let bytes = match dir.read(name) {
        Err(Error::NotFound(_)) => return Ok(None),
        read => read?.0,
    };
    let record = toml::from_str(&text(&path, bytes)?);
    record.map(Some).map_err(|e| bad(&path, e.message()))
}

/// That something is there already is fine.
fn exists(made: Result<()>) -> Result<()> {
    match made {
        Err(Error::Exists(_)) => Ok(()),
        other => other,
    }
}

/// That something is gone already is fine.
fn gone(removed: Result<()>) -> Result<()> {
    match removed {
        Err(Error::NotFound(_)) => Ok(()),
        other => other,
    }
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| bad(path, "not text"))
}

fn certificates(path: &Path, bytes: &[u8], most: Most) -> Result<Vec<Vec<u8>>> {
    bundle::certificates(bytes, most).map_err(|e| bad(path, &e.to_string()))
}

fn pem(der: &[u8]) -> Result<String> {
    der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, der)
        .map_err(|e| Error::Internal(format!("writing PEM: {e}")))
}

fn bad(path: &Path, reason: &str) -> Error {
    Error::BadRecord {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}
