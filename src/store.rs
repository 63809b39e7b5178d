//! The store: one versioned file per object in the token's directory.
//!
//! Reading needs no lock and no write access. Writing replaces whole files under an advisory lock.
//! The store knows no provider: to it a key's private half is an opaque block of text.

mod certificate;
mod id;
mod look;
mod pin;
pub mod record;
mod ssh;
mod watch;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use certificate::Certificate;
pub use id::ObjectId;
pub use look::{Entry, look};
pub use pin::{PinRecord, Role, Stretch};
pub use record::{KeyRecord, TokenRecord};
pub use ssh::{SSH_ENDING, SshFiles};
pub use writer::Writer;

use crate::error::{Error, Result};
use crate::files::{Dir, Keeper, Stamp, TEMPORARY, make_dir, stem, temporary_name};

/// Name of the file that makes a directory a token.
const TOKEN: &str = "token";

/// A token that is still being made after this time never will be.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A change younger than this may share its time stamp with one that comes after it.
const SETTLED: Duration = Duration::from_millis(50);

/// All public objects of a token at one moment.
#[derive(Debug, Default)]
pub struct Listing {
    /// The key pairs, by id.
    pub keys: Vec<Arc<KeyRecord>>,
    /// The certificates, by id.
    pub certificates: Vec<Arc<Certificate>>,
    /// Files that could not be understood. They never hide the others.
    pub broken: Vec<Error>,
}

impl Listing {
    /// The key of an id.
    pub fn key(&self, id: &ObjectId) -> Option<&Arc<KeyRecord>> {
        self.keys.iter().find(|key| key.id == *id)
    }

    /// The key that a certificate certifies.
    pub fn key_of(&self, certificate: &Certificate) -> Option<&Arc<KeyRecord>> {
        let public = certificate.public_key()?;
        self.keys.iter().find(|key| key.public == public)
    }
}

/// A token's directory.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    keeper: Keeper,
    token: TokenRecord,
    cache: Mutex<Cache>,
    watch: Arc<watch::Watch>,
}

#[derive(Debug, Default)]
struct Cache {
    /// State of the directory that the listing shows; `None` where it may have changed since.
    settled: Option<Stamp>,
    files: HashMap<String, (Stamp, Parsed)>,
    listing: Arc<Listing>,
}

/// What one file holds.
#[derive(Debug, Clone)]
enum Parsed {
    Key(Arc<KeyRecord>),
    Certificates(Vec<Arc<Certificate>>),
}

impl Store {
    /// Opens a token's directory and reads its record, after checking owner and mode of both.
    pub fn open(dir: &Path) -> Result<Self> {
        Store::kept(dir, None)
    }

    /// Opens a token's directory that may belong to the user `keeper`, beside us and root.
    pub fn kept(dir: &Path, keeper: Option<u32>) -> Result<Self> {
        let (bytes, _) = Dir::kept(dir, keeper)?.read(TOKEN)?;
        let path = dir.join(TOKEN);
        Ok(Store {
            token: TokenRecord::parse(text(&bytes, &path)?, &path)?,
            dir: dir.to_owned(),
            keeper,
            cache: Mutex::default(),
            watch: Arc::default(),
        })
    }

    /// Makes a token's directory. `prepare` fills it and gives the record; until it has, there is
    /// no such token.
    ///
    /// # Errors
    /// [`Error::Exists`] where there is a directory already.
    pub fn create(dir: &Path, prepare: impl FnOnce(&Path) -> Result<TokenRecord>) -> Result<Self> {
        Store::create_as(dir, false, prepare)
    }

    /// As [`Store::create`]; what is public in an `open` one, all users may read.
    pub(crate) fn create_as(
        dir: &Path,
        open: bool,
        prepare: impl FnOnce(&Path) -> Result<TokenRecord>,
    ) -> Result<Self> {
        if dir.symlink_metadata().is_ok() {
            return Err(Error::Exists(dir.display().to_string()));
        }
        let nowhere = || Error::input(format!("{} cannot be a directory", dir.display()));
        let parent = dir.parent().ok_or_else(nowhere)?;
        let draft = parent.join(temporary_name()?);
        make_dir(&draft, open)?;
        clear_drafts(parent);
        let made = prepare(&draft)
            .and_then(|record| {
                let name = draft.join(TOKEN);
                TokenRecord::parse(&record.encode()?, &name)?;
                Dir::open(&draft)?.write_public(TOKEN, record.encode()?.as_bytes(), false)
            })
            .and_then(|()| publish(&draft, dir));
        if made.is_err() {
            // Whatever was made so far is of no use to anyone.
            let _ = std::fs::remove_dir_all(&draft);
        }
        made?;
        Store::open(dir)
    }

    /// Whether a directory holds a token, or may: one that cannot be looked into is not passed over
    /// in silence.
    pub fn exists(dir: &Path) -> bool {
        match dir.join(TOKEN).symlink_metadata() {
            Ok(_) => true,
            Err(e) => e.kind() == std::io::ErrorKind::PermissionDenied,
        }
    }

    /// The token's record, as it was when the store was opened.
    pub fn token(&self) -> &TokenRecord {
        &self.token
    }

    /// The token's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All public objects as they are now. Costs one look at the directory where nothing changed.
    pub fn list(&self) -> Result<Arc<Listing>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        // The common case in one system call: a private operation asks for its key each time.
        if cache.settled.is_some()
            && cache.settled == Dir::stamp_at(&self.dir, self.keeper)
            && cache.certificates().next().is_none()
        {
            return Ok(cache.listing.clone());
        }
        let dir = Dir::kept(&self.dir, self.keeper)?;
        if cache.settled != Some(dir.stamp()) || cache.certificates_changed(&dir) {
            cache.refresh(&dir)?;
        }
        Ok(cache.listing.clone())
    }

    /// The record of a PIN as it is now; `None` where none is set.
    pub fn pin(&self, role: Role) -> Result<Option<PinRecord>> {
        let parse = |text: &str, path: &Path| PinRecord::parse(text, role, path);
        self.now(&role.pin_file(), parse)
    }

    /// How many tries of a PIN were used since the last right one, as far as the store knows.
    pub fn tries_used(&self, role: Role) -> Result<u32> {
        let used = self.now(&role.tries_file(), pin::parse_tries)?;
        Ok(used.unwrap_or_default())
    }

    /// What a file holds now; `None` where there is none.
    fn now<T>(&self, name: &str, parse: impl Fn(&str, &Path) -> Result<T>) -> Result<Option<T>> {
        let dir = Dir::kept(&self.dir, self.keeper)?;
        match dir.read(name) {
            Ok((bytes, _)) => {
                let path = dir.path(name);
                parse(text(&bytes, &path)?, &path).map(Some)
            }
            Err(Error::NotFound(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The certificates of OpenSSH that lie beside its keys.
    pub fn ssh_files(&self) -> SshFiles<'_> {
        SshFiles::of(self)
    }

    /// Keeps other writers out until the result is dropped.
    pub fn writer(&self) -> Result<Writer> {
        Writer::kept(&self.dir, self.keeper, Some(self.forget()))
    }
}

impl Cache {
    /// Whether an administrator wrote into a certificate's file in place.
    fn certificates_changed(&self, dir: &Dir) -> bool {
        self.certificates()
            .any(|(name, stamp)| dir.entry_stamp(name) != Some(*stamp))
    }

    /// The files of certificates, as they were read.
    fn certificates(&self) -> impl Iterator<Item = (&String, &Stamp)> {
        let files = self.files.iter();
        let files = files.filter(|(_, (_, parsed))| matches!(parsed, Parsed::Certificates(_)));
        files.map(|(name, (stamp, _))| (name, stamp))
    }

    /// Reads what is new, keeps what is not, forgets what is gone.
    fn refresh(&mut self, dir: &Dir) -> Result<()> {
        let mut files = HashMap::new();
        let mut broken = Vec::new();
        for name in dir.names()? {
            let known = self.files.remove(&name);
            match known.filter(|(stamp, _)| dir.entry_stamp(&name) == Some(*stamp)) {
                Some(unchanged) => {
                    files.insert(name, unchanged);
                }
                None => match parse(dir, &name) {
                    Ok(Some(parsed)) => {
                        files.insert(name, parsed);
                    }
                    // Gone since the directory was listed.
                    Ok(None) | Err(Error::NotFound(_)) => {}
                    Err(e) => broken.push(e),
                },
            }
        }
        for error in &broken {
            log::warn!("{error}");
        }
        self.settled = settled(&dir.stamp()).then(|| dir.stamp());
        self.listing = Arc::new(listing(&files, broken));
        self.files = files;
        Ok(())
    }
}

/// Removes what was left of tokens whose making was cut short, long enough ago to be sure of it.
fn clear_drafts(parent: &Path) {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        let draft = entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(TEMPORARY.as_bytes());
        let modified = entry.metadata().and_then(|about| about.modified());
        let age = modified.ok().and_then(|time| time.elapsed().ok());
        if draft && age.is_some_and(|age| age > ABANDONED) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Gives a finished draft its name, durably.
fn publish(draft: &Path, dir: &Path) -> Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, draft, CWD, dir, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => return Err(Error::Exists(dir.display().to_string())),
        Err(e) => return Err(Error::io(format!("creating {}", dir.display()), e.into())),
    }
    let parent = dir.parent().unwrap_or(dir);
    std::fs::File::open(parent)
        .and_then(|parent| parent.sync_all())
        .map_err(|e| Error::io(format!("syncing {}", parent.display()), e))
}

/// Reads one file; `None` where it is none of ours.
fn parse(dir: &Dir, name: &str) -> Result<Option<(Stamp, Parsed)>> {
    let path = dir.path(name);
    if let Some(id) = stem(name, "key") {
        let (bytes, stamp) = dir.read(name)?;
        let id = ObjectId::key(id).map_err(|e| record::bad(&path, &e.to_string()))?;
        let record = KeyRecord::parse(text(&bytes, &path)?, id, &path)?;
        return Ok(Some((stamp, Parsed::Key(Arc::new(record)))));
    }
    if !is_object(name) {
        return Ok(None);
    }
    let (bytes, stamp) = dir.read(name)?;
    let all = Certificate::parse_file(text(&bytes, &path)?, name, &path)?;
    let all = all.into_iter().map(Arc::new).collect();
    Ok(Some((stamp, Parsed::Certificates(all))))
}

/// Whether a file holds a key or certificates.
fn is_object(name: &str) -> bool {
    ["key", "crt", "pem"]
        .iter()
        .any(|ending| stem(name, ending).is_some())
}

fn text<'a>(bytes: &'a [u8], path: &Path) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|_| record::bad(path, "not text"))
}

fn listing(files: &HashMap<String, (Stamp, Parsed)>, broken: Vec<Error>) -> Listing {
    let mut listing = Listing {
        broken,
        ..Listing::default()
    };
    for (_, parsed) in files.values() {
        match parsed {
            Parsed::Key(key) => listing.keys.push(key.clone()),
            Parsed::Certificates(all) => listing.certificates.extend_from_slice(all),
        }
    }
    listing.keys.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    listing
        .certificates
        .sort_unstable_by(|a, b| a.id.cmp(&b.id));
    listing
}

/// Whether a later change is sure to give the directory another time stamp.
fn settled(stamp: &Stamp) -> bool {
    let (seconds, nanos) = stamp.changed();
    let changed = UNIX_EPOCH + Duration::new(seconds.max(0) as u64, nanos.max(0) as u32);
    SystemTime::now()
        .duration_since(changed)
        .is_ok_and(|age| age > SETTLED)
}

/// Reads a text as each of the files of a token, for [`untrusted`](crate::untrusted).
pub(crate) fn untrusted(text: &str, path: &Path) -> Result<()> {
    let again = |same: bool| match same {
        true => Ok(()),
        false => Err(Error::Internal("a record was read wrongly".to_owned())),
    };
    if let Ok(token) = TokenRecord::parse(text, path) {
        let encoded = token.encode()?;
        again(TokenRecord::parse(&encoded, path).is_ok_and(|again| again == token))?;
    }
    let id = ObjectId::key("k")?;
    if let Ok(key) = KeyRecord::parse(text, id.clone(), path) {
        let encoded = key.encode(None)?;
        let read = KeyRecord::parse(&encoded, id, path);
        again(read.is_ok_and(|again| again.public == key.public && again.label == key.label))?;
    }
    for role in [Role::User, Role::So] {
        let _ = PinRecord::parse(text, role, path);
    }
    let _ = pin::parse_tries(text, path);
    let _ = Certificate::parse_file(text, "c.crt", path);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails with `>` in `settled` turned round: a second change within one tick of the file
    /// system's clock would then never be seen.
    #[test]
    fn a_listing_is_kept_only_when_the_clock_has_moved_on() {
        let home = tempfile::TempDir::new().unwrap();
        let dir = Dir::open(home.path()).unwrap();
        assert!(!settled(&dir.stamp()));
        std::thread::sleep(SETTLED * 2);
        assert!(settled(&dir.stamp()));
    }
}
