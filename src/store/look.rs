//! What lies in a directory of tokens or of one token, for who wants to know whether it is sound.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, lstat};

use crate::error::{Error, Result};
use crate::files::{Keeper, TEMPORARY, check_kept};

/// An entry of a directory.
#[derive(Debug)]
pub struct Entry {
    /// Its path.
    pub path: PathBuf,
    /// What is wrong with its kind, owner or mode.
    pub wrong: Option<Error>,
    /// How old it is, where it is something that was being written.
    pub draft: Option<Duration>,
}

/// All entries of a directory, sorted. They may belong to the user `keeper`, beside us and root. Opens
/// none of them.
///
/// # Errors
/// [`Error::Io`] and [`Error::Refused`] where the directory cannot be listed.
pub fn look(dir: &Path, keeper: Option<u32>) -> Result<Vec<Entry>> {
    let unreadable = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::PermissionDenied => Error::Refused {
            path: dir.to_owned(),
            reason: "no permission; run as its owner".to_owned(),
        },
        std::io::ErrorKind::NotFound => Error::NotFound(dir.display().to_string()),
        _ => Error::io(format!("listing {}", dir.display()), e),
    };
    let entries = std::fs::read_dir(dir).map_err(unreadable)?;
    let paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    let mut all: Vec<_> = paths.into_iter().map(|path| entry(path, keeper)).collect();
    all.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(all)
}

fn entry(path: PathBuf, keeper: Keeper) -> Entry {
    let name = path.file_name().unwrap_or_default();
    let temporary = name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes());
    Entry {
        wrong: judge(&path, keeper).err(),
        draft: temporary.then(|| age(&path)).flatten(),
        path,
    }
}

fn judge(path: &Path, keeper: Keeper) -> Result<()> {
    let refused = |reason: &str| Error::Refused {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let Ok(stat) = lstat(path) else {
        // Gone since.
        return Ok(());
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::Directory => check_kept(path, &stat, keeper),
        FileType::Symlink => Err(refused(
            "a symbolic link, and links are not followed here; put the file itself there",
        )),
        _ => Err(refused("neither a file nor a directory; remove it")),
    }
}

fn age(path: &Path) -> Option<Duration> {
    let modified = path.symlink_metadata().ok()?.modified().ok()?;
    Some(
        SystemTime::now()
            .duration_since(modified)
            .unwrap_or_default(),
    )
}
