//! The file `root`: 32 random bytes, written once, read through one descriptor on which all checks
//! are made.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::super::soft::ROOT_LEN;
use crate::error::{Error, Result};
use crate::secret::Secret;

/// Its name in the token's directory.
const NAME: &str = "root";

/// Where the root of the token in `dir` is.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// Writes a new root.
///
/// It gets its name once it is whole and on the disk, so that no crash leaves half a root.
///
/// # Errors
/// [`Error::Exists`] where there is one: it is never replaced.
pub(super) fn create(dir: &Path) -> Result<()> {
    let context = |errno: Errno| Error::io(format!("making {}", path(dir).display()), errno.into());
    let to = open_dir(dir, OFlags::RDONLY)?;
    let draft = format!("{NAME}.{:016x}.new", u64::from_ne_bytes(random()?));
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::openat(&to, &draft, flags, Mode::RUSR | Mode::WUSR).map_err(context)?;
    let named = fill(file).and_then(|()| {
        fs::linkat(&to, &draft, &to, NAME, AtFlags::empty()).map_err(|errno| match errno {
            Errno::EXIST => Error::Exists(path(dir).display().to_string()),
            errno => context(errno),
        })
    });
    fs::unlinkat(&to, &draft, AtFlags::empty()).map_err(context)?;
    named?;
    fs::fsync(&to).map_err(context)
}

/// Reads the root and keeps nothing of it.
///
/// # Errors
/// [`Error::Refused`] where another than its owner could have read or written it,
/// [`Error::DeviceGone`] where it is not there.
pub(super) fn read(dir: &Path) -> Result<Secret> {
    let mut file = File::from(open(dir)?);
    let status = fs::fstat(&file)
        .map_err(|errno| Error::io(format!("reading {}", path(dir).display()), errno.into()))?;
    if let Some(reason) = objection(&status, geteuid().as_raw(), &path(dir)) {
        return refused(dir, reason);
    }
    let mut root = Secret::new(vec![0; ROOT_LEN]);
    file.read_exact(root.expose_mut())
        .map_err(|error| Error::io(format!("reading {}", path(dir).display()), error))?;
    Ok(root)
}

fn open(dir: &Path) -> Result<OwnedFd> {
    // Without O_NONBLOCK a planted FIFO would hold the caller for ever.
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    fs::openat(open_dir(dir, OFlags::PATH)?, NAME, flags, Mode::empty()).or_else(
        |errno| match errno {
            Errno::NOENT => Err(Error::DeviceGone {
                device: path(dir).display().to_string(),
                reason: "the token's root is not there; put it back, or make a new token"
                    .to_owned(),
            }),
            Errno::LOOP => refused(dir, symlink(&path(dir))),
            Errno::ACCESS => refused(
                dir,
                "no permission to read the token's root; use it as its owner or through devkeyd"
                    .to_owned(),
            ),
            errno => Err(Error::io(
                format!("opening {}", path(dir).display()),
                errno.into(),
            )),
        },
    )
}

fn open_dir(dir: &Path, access: OFlags) -> Result<OwnedFd> {
    let flags = access | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::openat(CWD, dir, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => Error::NotFound(dir.display().to_string()),
        Errno::ACCESS => Error::Refused {
            path: dir.to_owned(),
            reason: "no permission to open the token's directory".to_owned(),
        },
        errno => Error::io(format!("opening {}", dir.display()), errno.into()),
    })
}

fn fill(file: OwnedFd) -> Result<()> {
    let context = |error| Error::io("writing a new root", error);
    // Whatever the umask took away.
    fs::fchmod(&file, Mode::RUSR | Mode::WUSR).map_err(|errno| context(errno.into()))?;
    let mut file = File::from(file);
    file.write_all(Secret::random(ROOT_LEN)?.expose())
        .and_then(|()| file.sync_all())
        .map_err(context)
}

fn random() -> Result<[u8; 8]> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(bytes)
}

/// What is wrong with the file that was opened, and what to do about it.
fn objection(status: &Stat, euid: u32, path: &Path) -> Option<String> {
    let path = path.display();
    let mode = Mode::from_raw_mode(status.st_mode);
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Some("not a regular file; remove it and put the root back".to_owned());
    }
    if status.st_uid != euid && status.st_uid != 0 {
        return Some(format!(
            "belongs to user {}, who could change it; chown {euid} {path}",
            status.st_uid
        ));
    }
    if mode.intersects(Mode::WGRP | Mode::WOTH) {
        return Some(format!("others may write it; chmod go-w {path}"));
    }
    if mode.intersects(Mode::ROTH) {
        return Some(format!("others may read it; chmod o-rwx {path}"));
    }
    if status.st_size != ROOT_LEN as i64 {
        return Some(format!(
            "a root has {ROOT_LEN} bytes and this file {}; put back the one that was there",
            status.st_size
        ));
    }
    None
}

fn symlink(path: &Path) -> String {
    format!(
        "a symbolic link; put the file itself there (rm {})",
        path.display()
    )
}

fn refused<T>(dir: &Path, reason: String) -> Result<T> {
    Err(Error::Refused {
        path: path(dir),
        reason,
    })
}
