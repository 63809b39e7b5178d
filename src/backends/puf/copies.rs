//! The helper data's two files in the token's directory. It is public, and without it the keys are
//! lost: one copy heals the other.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use super::stable;
use crate::error::{Error, Result};
use crate::files::Dir;
use crate::fuzzy::Helper;

/// Their names.
pub(super) const NAMES: [&str; 2] = ["helper", "helper.copy"];

/// Helper data of either format.
#[derive(Debug, Clone)]
pub(super) enum Enrolled {
    /// For the fuzzy extractor.
    Noisy(Box<Helper>),
    /// For a source that always says the same.
    Stable(Vec<u8>),
}

impl Enrolled {
    /// # Errors
    /// [`Error::NewerRecord`] without its path; [`Error::NotReproduced`] for all else.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        match stable::is_helper(bytes) {
            true if bytes.len() == stable::HELPER_LEN => Ok(Enrolled::Stable(bytes.to_vec())),
            true => Err(Error::NotReproduced),
            false => Ok(Enrolled::Noisy(Box::new(Helper::parse(bytes)?))),
        }
    }

    /// The bytes to store.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Enrolled::Noisy(helper) => helper.encode(),
            Enrolled::Stable(bytes) => bytes,
        }
    }

    /// What a token records of it: a hash of all of it, in hex.
    pub(super) fn binding(&self) -> String {
        binding(self.bytes())
    }
}

/// Writes both copies, the one that counts last.
///
/// # Errors
/// [`Error::Exists`] where there is an enrolment: it is never replaced.
pub(super) fn write(dir: &Path, enrolled: &Enrolled) -> Result<()> {
    let [first, second] = NAMES;
    let open = Dir::open(dir)?;
    if open.entry_stamp(first).is_some() {
        return Err(Error::Exists(dir.join(first).display().to_string()));
    }
    open.write(second, enrolled.bytes(), true)?;
    open.write(first, enrolled.bytes(), false)
}

/// The helper data that the token was made with, from whichever copy has it, and writes the other
/// one anew where it can.
///
/// # Errors
/// [`Error::OtherDevice`] for that of another enrolment, [`Error::BadRecord`] for none or a broken
/// one, [`Error::NewerRecord`].
pub(super) fn read(dir: &Path, wanted: Option<&str>) -> Result<Enrolled> {
    let open = Dir::open(dir)?;
    match NAMES.map(|name| copy(&open, name, wanted)) {
        [Ok(good), Ok(_)] => Ok(good),
        [Ok(good), Err(broken)] => Ok(heal(&open, NAMES[1], good, &broken)),
        [Err(broken), Ok(good)] => Ok(heal(&open, NAMES[0], good, &broken)),
        [Err(e), Err(_)] => Err(e),
    }
}

/// As [`read`], but writes nothing: what is wrong with the copy that is not good goes with it.
pub(super) fn inspect(dir: &Path, wanted: Option<&str>) -> Result<(Enrolled, Option<Error>)> {
    let open = Dir::open(dir)?;
    match NAMES.map(|name| copy(&open, name, wanted)) {
        [Ok(good), Ok(_)] => Ok((good, None)),
        [Ok(good), Err(broken)] | [Err(broken), Ok(good)] => Ok((good, Some(broken))),
        [Err(e), Err(_)] => Err(e),
    }
}

/// The helper data in a directory, from whichever copy has it; changes nothing.
pub(super) fn peek(dir: &Path) -> Result<Enrolled> {
    let open = Dir::open(dir)?;
    let [first, second] = NAMES;
    copy(&open, first, None).or_else(|_| copy(&open, second, None))
}

/// A read-only store is fine: the other copy is good.
fn heal(dir: &Dir, name: &str, good: Enrolled, broken: &Error) -> Enrolled {
    match dir.write(name, good.bytes(), true) {
        Ok(()) => log::warn!("{broken}; written anew from the other copy"),
        Err(e) => log::warn!("{broken}; the other copy is good, and this one stays so: {e}"),
    }
    good
}

fn copy(dir: &Dir, name: &str, wanted: Option<&str>) -> Result<Enrolled> {
    let path = dir.path(name);
    let bytes = match dir.read(name) {
        Ok((bytes, _)) => bytes,
        Err(Error::NotFound(_)) => return Err(bad(path, "it is missing")),
        Err(e) => return Err(e),
    };
    let parsed = Enrolled::parse(&bytes).map_err(|e| match e {
        Error::NewerRecord { found, known, .. } => Error::NewerRecord {
            path: path.clone(),
            found,
            known,
        },
        _ => bad(
            path.clone(),
            "it is no helper data of a PUF, or was changed",
        ),
    });
    match wanted {
        Some(wanted) if wanted != binding(&bytes) => {
            Err(parsed.err().unwrap_or_else(|| Error::OtherDevice {
                device: path.display().to_string(),
                reason: "it is the helper data of another enrolment, or was changed; put back the \
                         one that was there"
                    .to_owned(),
            }))
        }
        _ => parsed,
    }
}

fn bad(path: PathBuf, what: &str) -> Error {
    Error::BadRecord {
        path,
        reason: format!("{what}; put it back from a backup, or make a new token"),
    }
}

fn binding(bytes: &[u8]) -> String {
    let hash = digest(&SHA256, bytes);
    base16ct::lower::encode_string(hash.as_ref().split_at(16).0)
}
