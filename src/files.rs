//! Files that are safe to read and that are replaced whole or not at all.
//!
//! Every path is opened once, without following a symbolic link, and judged by `fstat` on the open
//! descriptor, so that nothing can change between the look and the use.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Gid, Uid, geteuid};

use crate::error::{Error, Result};
use crate::secret::Secret;

/// Largest file that is read, in bytes: a record with a 4096-bit RSA key has about 4 KiB.
const MAX_FILE: u64 = 256 * 1024;

/// How long a writer waits for another one.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);

/// Start of the names of files that are being written.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// A directory that only its owner, and root, can write.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    stat: Stat,
    path: PathBuf,
    keeper: Keeper,
}

/// The user, beside root and ourselves, whose files are trusted: the system's key service keeps its
/// tokens under a user of its own.
pub(crate) type Keeper = Option<u32>;

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Stamp {
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }

    /// Time of the last change in seconds and nanoseconds since the epoch.
    pub(crate) fn changed(&self) -> (i64, i64) {
        self.changed
    }
}

impl Dir {
    /// Opens a directory and checks its owner and mode.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Dir::kept(path, None)
    }

    /// Opens a directory that may be the keeper's.
    pub(crate) fn kept(path: &Path, keeper: Keeper) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| fs::open(path, flags, Mode::empty()))
            .map_err(|e| cannot_open(path, e))?;
        let stat = fs::fstat(&fd).map_err(|e| failed("reading the state of", path, e))?;
        check_kept(path, &stat, keeper)?;
        Ok(Dir {
            fd,
            stat,
            path: path.to_owned(),
            keeper,
        })
    }

    /// [`Dir::stamp`] of a directory that is not opened; `None` where it could not be, or ought not.
    pub(crate) fn stamp_at(path: &Path, keeper: Keeper) -> Option<Stamp> {
        let stat = fs::lstat(path).ok()?;
        check_kept(path, &stat, keeper).ok()?;
        Some(Stamp::of(&stat))
    }

    /// The state of the directory itself: changes whenever an entry is made, renamed or removed.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::of(&self.stat)
    }

    /// [`Dir::stamp`] as it is by now; `None` where the descriptor is good for nothing.
    pub(crate) fn stamp_now(&self) -> Option<Stamp> {
        fs::fstat(&self.fd).ok().map(|stat| Stamp::of(&stat))
    }

    /// Path of an entry, for messages.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The names in the directory, sorted; names that are no UTF-8 are not ours.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let entries = fs::Dir::read_from(&self.fd);
        let entries = entries.map_err(|e| failed("listing", &self.path, e))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| failed("listing", &self.path, e))?;
            if let Ok(name) = entry.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The state of an entry, not following a symbolic link; `None` where there is no such entry.
    pub(crate) fn entry_stamp(&self, name: &str) -> Option<Stamp> {
        let stat = fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(Stamp::of(&stat))
    }

    /// Reads an entry whole, after checking that it is a regular file that others cannot write.
    pub(crate) fn read(&self, name: &str) -> Result<(Vec<u8>, Stamp)> {
        self.read_checked(name, |_| Ok(()))
    }

    /// Reads an entry that holds a secret: one that others can read is refused.
    pub(crate) fn read_secret(&self, name: &str) -> Result<Secret> {
        let checked = self.read_checked(name, |stat| match stat.st_mode & 0o004 {
            0 => Ok(()),
            _ => {
                let path = self.path(name);
                let remedy = format!("others can read it; chmod o-rwx {}", path.display());
                Err(refused(&path, &remedy))
            }
        });
        Ok(Secret::new(checked?.0))
    }

    fn read_checked(
        &self,
        name: &str,
        check: impl Fn(&Stat) -> Result<()>,
    ) -> Result<(Vec<u8>, Stamp)> {
        let path = self.path(name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = retry_on_intr(|| fs::openat(&self.fd, name, flags, Mode::empty()))
            .map_err(|e| cannot_open(&path, e))?;
        let stat = fs::fstat(&fd).map_err(|e| failed("reading the state of", &path, e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(refused(&path, "not a regular file"));
        }
        check_kept(&path, &stat, self.keeper)?;
        check(&stat)?;
        // Room for all of it at once: a buffer that grows would leave copies of a secret behind.
        let mut bytes = Vec::with_capacity(stat.st_size.clamp(0, MAX_FILE as i64) as usize + 1);
        let read = std::fs::File::from(fd)
            .take(MAX_FILE)
            .read_to_end(&mut bytes);
        match read {
            Ok(length) if (length as u64) < MAX_FILE => Ok((bytes, Stamp::of(&stat))),
            Ok(_) => Err(refused(&path, "too long for a file of a token")),
            Err(e) => Err(Error::io(format!("reading {}", path.display()), e)),
        }
    }

    /// Writes an entry: the old contents or the new, never anything between, also after a crash.
    ///
    /// With `replace` unset an existing entry is [`Error::Exists`]. What would be too long to be read
    /// again is [`Error::BadInput`].
    pub(crate) fn write(&self, name: &str, contents: &[u8], replace: bool) -> Result<()> {
        self.write_as(name, contents, replace, self.private_mode())
    }

    /// Writes an entry that is no secret: whoever may look into the directory may read it.
    pub(crate) fn write_public(&self, name: &str, contents: &[u8], replace: bool) -> Result<()> {
        let all = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
        match self.stat.st_mode & 0o055 {
            0o055 => self.write_as(name, contents, replace, all),
            _ => self.write(name, contents, replace),
        }
    }

    fn write_as(&self, name: &str, contents: &[u8], replace: bool, mode: Mode) -> Result<()> {
        if contents.len() as u64 >= MAX_FILE {
            return Err(Error::input(format!(
                "{} bytes are too long for a file of a token",
                contents.len()
            )));
        }
        let temporary = temporary_name()?;
        let written = self
            .write_new(&temporary, contents, mode)
            .and_then(|()| self.rename(&temporary, name, replace));
        if written.is_err() {
            // The name is ours alone; that it may not exist is fine.
            let _ = fs::unlinkat(&self.fd, temporary.as_str(), AtFlags::empty());
        }
        written?;
        let synced = self.sync();
        if synced.is_err() && !replace {
            // Who is told that it failed does not expect it to be there.
            let _ = fs::unlinkat(&self.fd, name, AtFlags::empty());
        }
        synced
    }

    /// Removes an entry, durably.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => self.sync(),
            Err(Errno::NOENT) => Err(Error::NotFound(self.path(name).display().to_string())),
            Err(e) => Err(failed("removing", &self.path(name), e)),
        }
    }

    /// Keeps other writers out until the result is dropped, and clears what a killed one left.
    pub(crate) fn lock(&self) -> Result<WriteLock> {
        let path = self.path("lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| fs::openat(&self.fd, "lock", flags, Mode::RUSR | Mode::WUSR))
            .map_err(|e| failed("opening", &path, e))?;
        let start = Instant::now();
        while let Err(e) = fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            if e != Errno::WOULDBLOCK && e != Errno::INTR {
                return Err(failed("locking", &path, e));
            }
            if start.elapsed() > LOCK_DEADLINE {
                return Err(Error::Timeout {
                    what: format!("another process that holds {}", path.display()),
                    seconds: LOCK_DEADLINE.as_secs(),
                });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.clear_temporaries();
        Ok(WriteLock { _fd: fd })
    }

    fn clear_temporaries(&self) {
        for name in self.names().unwrap_or_default() {
            if name.starts_with(TEMPORARY) {
                let _ = fs::unlinkat(&self.fd, name.as_str(), AtFlags::empty());
            }
        }
    }

    fn write_new(&self, name: &str, contents: &[u8], mode: Mode) -> Result<()> {
        let path = self.path(name);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR))
            .map_err(|e| failed("creating", &path, e))?;
        let mode = self.give(&fd, mode);
        // Exactly so, whatever the umask took away.
        fs::fchmod(&fd, mode).map_err(|e| failed("setting the mode of", &path, e))?;
        let mut file = std::fs::File::from(fd);
        file.write_all(contents)
            .and_then(|()| file.sync_all())
            .map_err(|e| Error::io(format!("writing {}", path.display()), e))
    }

    /// 0600; and where the directory is open to its group and to nobody else, so are its files.
    fn private_mode(&self) -> Mode {
        match self.stat.st_mode & 0o044 {
            0o040 => Mode::RUSR | Mode::WUSR | Mode::RGRP,
            _ => Mode::RUSR | Mode::WUSR,
        }
    }

    /// Gives a new file to the directory's owner and group, where we may; a group that is not the
    /// directory's gets nothing.
    fn give(&self, file: &OwnedFd, mode: Mode) -> Mode {
        let owner = Uid::from_raw(self.stat.st_uid);
        let owner = (owner != geteuid()).then_some(owner);
        let group = Gid::from_raw(self.stat.st_gid);
        match fs::fchown(file, owner, Some(group)) {
            Ok(()) => mode,
            Err(_) if mode.contains(Mode::ROTH) => mode,
            Err(_) => mode - Mode::RGRP,
        }
    }

    fn rename(&self, from: &str, to: &str, replace: bool) -> Result<()> {
        let renamed = if replace {
            fs::renameat(&self.fd, from, &self.fd, to)
        } else {
            fs::renameat_with(&self.fd, from, &self.fd, to, RenameFlags::NOREPLACE)
        };
        match renamed {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(Error::Exists(self.path(to).display().to_string())),
            Err(e) => Err(failed("writing", &self.path(to), e)),
        }
    }

    fn sync(&self) -> Result<()> {
        retry_on_intr(|| fs::fsync(&self.fd)).map_err(|e| failed("syncing", &self.path, e))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Held while a store is written. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct WriteLock {
    _fd: OwnedFd,
}

/// Makes a directory of mode 0700, or 0755 where all may look into it, with its parents, which the
/// group cannot write, whatever the umask.
pub(crate) fn make_dir(path: &Path, open: bool) -> Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .map_err(|e| Error::io(format!("creating {}", parent.display()), e))?;
    }
    match fs::mkdir(path, Mode::RWXU) {
        Ok(()) if open => fs::chmod(path, Mode::from_raw_mode(0o755))
            .map_err(|e| failed("setting the mode of", path, e)),
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(Error::Exists(path.display().to_string())),
        Err(e) => Err(failed("creating", path, e)),
    }
}

/// A name for a file that is being written; no two are the same.
pub(crate) fn temporary_name() -> Result<String> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random)?;
    Ok(format!("{TEMPORARY}{:016x}", u64::from_ne_bytes(random)))
}

/// A file's name without its ending, where it has that ending.
pub(crate) fn stem<'a>(name: &'a str, ending: &str) -> Option<&'a str> {
    let path = Path::new(name);
    if path.extension() != Some(OsStr::new(ending)) || name.starts_with('.') {
        return None;
    }
    path.file_stem()?.to_str()
}

/// Refuses what belongs to another user than us and root, and what others can write.
pub(crate) fn check_owner_and_mode(path: &Path, stat: &Stat) -> Result<()> {
    check_kept(path, stat, None)
}

/// Refuses what belongs to another user than us, root and the keeper, and what others can write.
pub(crate) fn check_kept(path: &Path, stat: &Stat, keeper: Keeper) -> Result<()> {
    match objection(path, stat, geteuid().as_raw(), keeper) {
        Some(reason) => Err(refused(path, &reason)),
        None => Ok(()),
    }
}

/// What is wrong with owner or mode for a process of user `us`, and what to do about it.
fn objection(path: &Path, stat: &Stat, us: u32, keeper: Keeper) -> Option<String> {
    let path = path.display();
    let owner = stat.st_uid;
    if owner != us && owner != 0 && Some(owner) != keeper {
        return Some(format!(
            "belongs to user {owner}, who could change it; run as that user, or chown {us} {path}"
        ));
    }
    let writable = stat.st_mode & 0o022 != 0;
    writable.then(|| format!("others can write it; chmod go-w {path}"))
}

fn cannot_open(path: &Path, errno: Errno) -> Error {
    match errno {
        Errno::LOOP => refused(path, "a symbolic link, and links are not followed here"),
        Errno::NOTDIR => refused(path, "not a directory, or a symbolic link to one"),
        Errno::ACCESS | Errno::PERM => refused(path, "no permission; run as its owner"),
        Errno::NOENT => Error::NotFound(path.display().to_string()),
        other => failed("opening", path, other),
    }
}

fn failed(doing: &str, path: &Path, errno: Errno) -> Error {
    match errno {
        Errno::ACCESS | Errno::PERM => refused(path, "no permission to write it; run as its owner"),
        other => Error::io(format!("{doing} {}", path.display()), other.into()),
    }
}

fn refused(path: &Path, reason: &str) -> Error {
    Error::Refused {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;

    use rustix::fs::CWD;
    use tempfile::TempDir;

    use super::*;

    const FILE: &str = "file";

    /// A directory with a file in it.
    fn made() -> (TempDir, Dir) {
        let home = TempDir::new().unwrap();
        let dir = Dir::open(home.path()).unwrap();
        dir.write(FILE, b"contents", false).unwrap();
        (home, dir)
    }

    fn reason<T: std::fmt::Debug>(result: Result<T>) -> String {
        match result {
            Err(Error::Refused { reason, .. }) => reason,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Runs itself in a shell with that umask. Seen to fail without the fchmod in `write_new`.
    #[test]
    fn the_mode_is_0600_whatever_the_umask() {
        const DIR: &str = "DEVKEY_TEST_FILES_DIR";
        if let Some(dir) = std::env::var_os(DIR) {
            let dir = Dir::open(Path::new(&dir)).unwrap();
            return dir.write(FILE, b"", false).unwrap();
        }
        for umask in ["0000", "0022", "0277", "0777"] {
            let home = TempDir::new().unwrap();
            let output = Command::new("sh")
                .args(["-c", r#"umask "$1"; exec "$0" --exact "$2""#])
                .arg(std::env::current_exe().unwrap())
                .args([umask, "files::tests::the_mode_is_0600_whatever_the_umask"])
                .env(DIR, home.path())
                .output();
            assert!(output.unwrap().status.success());
            let mode = std::fs::metadata(home.path().join(FILE))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o7777, 0o600, "umask {umask}");
        }
    }

    /// Seen to fail without the 0o004 test of `read_secret` and the 0o022 test of `objection`.
    #[test]
    fn modes_are_checked() {
        let (home, dir) = made();
        let set_mode = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(home.path().join(FILE), mode).unwrap();
        };
        for allowed in [0o600, 0o400, 0o640, 0o440, 0o700] {
            set_mode(allowed);
            dir.read_secret(FILE).unwrap();
        }
        for refused in [0o604, 0o644, 0o444] {
            set_mode(refused);
            dir.read(FILE).unwrap();
            assert!(
                reason(dir.read_secret(FILE)).contains("chmod o-rwx"),
                "{refused:o}"
            );
        }
        for refused in [0o620, 0o660, 0o602, 0o606, 0o666] {
            set_mode(refused);
            assert!(reason(dir.read(FILE)).contains("chmod go-w"), "{refused:o}");
        }
    }

    /// Seen to fail without the test of the owner in `objection`.
    #[test]
    fn the_owner_is_checked() {
        let (home, _) = made();
        let mut stat = fs::stat(home.path()).unwrap();
        for (owner, us, keeper, refused) in [
            (1000, 1000, None, false),
            (0, 1000, None, false),
            (0, 0, None, false),
            (1000, 1001, None, true),
            (1000, 0, None, true),
            (1000, 1001, Some(1000), false),
            (1000, 1001, Some(1002), true),
        ] {
            stat.st_uid = owner;
            let objects = objection(home.path(), &stat, us, keeper).is_some();
            assert_eq!(objects, refused, "{owner} read by {us}");
        }
    }

    /// Seen to fail without O_NOFOLLOW, O_NONBLOCK (it hangs) and the test of the type.
    #[test]
    fn only_a_regular_file_is_read() {
        let (home, dir) = made();
        let path = home.path().join(FILE);
        let kept = home.path().join("kept");
        std::fs::rename(&path, &kept).unwrap();
        symlink(&kept, &path).unwrap();
        assert!(reason(dir.read(FILE)).contains("symbolic link"));
        std::fs::remove_file(&path).unwrap();
        fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(reason(dir.read(FILE)).contains("regular"));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(reason(dir.read(FILE)).contains("regular"));
    }
}
