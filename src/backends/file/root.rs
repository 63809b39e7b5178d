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
/// It gets its name once it is whole and on the disk, so that no crash leaves half a root:
/// at most a draft, `root.….new`, that nothing reads.
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;

    use rustix::fs::Mode;
    use tempfile::TempDir;

    use super::*;

    /// A directory with a root in it.
    fn made() -> TempDir {
        let dir = TempDir::new().unwrap();
        create(dir.path()).unwrap();
        dir
    }

    fn mode(dir: &TempDir) -> u32 {
        let status = std::fs::metadata(path(dir.path())).unwrap();
        status.permissions().mode() & 0o7777
    }

    fn set_mode(dir: &TempDir, mode: u32) {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path(dir.path()), mode).unwrap();
    }

    fn reason(dir: &TempDir) -> String {
        match read(dir.path()) {
            Err(Error::Refused { path: at, reason }) => {
                assert_eq!(at, path(dir.path()));
                reason
            }
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_root_is_32_bytes_and_stays() {
        let dir = made();
        let [one, two] = [(); 2].map(|()| read(dir.path()).unwrap());
        assert_eq!(one.len(), 32);
        assert_eq!(one.expose(), two.expose());
        assert_ne!(one.expose(), read(made().path()).unwrap().expose());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// Seen to fail with `renameat` in place of `linkat`.
    #[test]
    fn a_root_is_never_replaced() {
        let dir = made();
        let before = read(dir.path()).unwrap();
        assert!(matches!(create(dir.path()), Err(Error::Exists(_))));
        assert_eq!(read(dir.path()).unwrap().expose(), before.expose());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        // Nor is what only has its name.
        let planted = TempDir::new().unwrap();
        symlink("/nowhere", path(planted.path())).unwrap();
        assert!(matches!(create(planted.path()), Err(Error::Exists(_))));
    }

    #[test]
    fn of_many_that_create_one_succeeds() {
        let dir = TempDir::new().unwrap();
        let made = std::thread::scope(|scope| {
            let creators: Vec<_> = (0..8).map(|_| scope.spawn(|| create(dir.path()))).collect();
            let results = creators.into_iter().map(|creator| creator.join().unwrap());
            results.filter(Result::is_ok).count()
        });
        assert_eq!(made, 1);
        assert_eq!(read(dir.path()).unwrap().len(), 32);
    }

    /// Runs itself in a shell with that umask. Seen to fail without the fchmod.
    #[test]
    fn the_mode_is_0600_whatever_the_umask() {
        const DIR: &str = "DEVKEY_TEST_ROOT_DIR";
        if let Some(dir) = std::env::var_os(DIR) {
            return create(Path::new(&dir)).unwrap();
        }
        for umask in ["0000", "0022", "0277", "0777"] {
            let dir = TempDir::new().unwrap();
            let name = "backends::file::root::tests::the_mode_is_0600_whatever_the_umask";
            let output = Command::new("sh")
                .args(["-c", r#"umask "$1"; exec "$0" --exact "$2""#])
                .arg(std::env::current_exe().unwrap())
                .args([umask, name])
                .env(DIR, dir.path())
                .output();
            assert!(output.unwrap().status.success());
            assert_eq!(mode(&dir), 0o600, "umask {umask}");
        }
    }

    /// Seen to fail without the checks of ROTH and of WGRP | WOTH.
    #[test]
    fn modes_are_checked() {
        let dir = made();
        for allowed in [0o600, 0o400, 0o640, 0o440, 0o700] {
            set_mode(&dir, allowed);
            read(dir.path()).unwrap();
        }
        for refused in [0o604, 0o644, 0o444] {
            set_mode(&dir, refused);
            assert!(reason(&dir).contains("chmod o-rwx"), "{refused:o}");
        }
        for refused in [0o620, 0o660, 0o602, 0o606, 0o666] {
            set_mode(&dir, refused);
            assert!(reason(&dir).contains("chmod go-w"), "{refused:o}");
        }
    }

    /// Seen to fail without the check of st_uid.
    #[test]
    fn the_owner_is_checked() {
        let dir = made();
        let mut status = fs::stat(path(dir.path())).unwrap();
        let objects = |status: &Stat, euid| objection(status, euid, Path::new("root")).is_some();
        for (owner, euid, refused) in [
            (1000, 1000, false),
            (0, 1000, false),
            (0, 0, false),
            (1000, 1001, true),
            (1000, 0, true),
        ] {
            status.st_uid = owner;
            assert_eq!(objects(&status, euid), refused, "{owner} read by {euid}");
        }
    }

    /// Seen to fail without O_NOFOLLOW, O_NONBLOCK (it hangs) and the check of the type.
    #[test]
    fn only_a_regular_file_is_read() {
        let dir = made();
        let kept = dir.path().join("kept");
        std::fs::rename(path(dir.path()), &kept).unwrap();
        symlink(&kept, path(dir.path())).unwrap();
        assert!(reason(&dir).contains("symbolic link"));
        std::fs::remove_file(path(dir.path())).unwrap();
        fs::mknodat(CWD, path(dir.path()), FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(reason(&dir).contains("regular"));
        std::fs::remove_file(path(dir.path())).unwrap();
        std::fs::create_dir(path(dir.path())).unwrap();
        assert!(reason(&dir).contains("regular"));
    }

    /// Seen to fail without the check of st_size.
    #[test]
    fn the_size_is_checked() {
        let dir = made();
        for len in [0, 31, 33, 64] {
            std::fs::write(path(dir.path()), vec![1; len]).unwrap();
            assert!(reason(&dir).contains("32 bytes"), "{len}");
        }
    }

    #[test]
    fn a_missing_root_and_a_missing_directory_are_named() {
        let dir = TempDir::new().unwrap();
        assert!(matches!(read(dir.path()), Err(Error::DeviceGone { .. })));
        let nowhere = dir.path().join("nowhere");
        assert!(matches!(read(&nowhere), Err(Error::NotFound(_))));
        assert!(matches!(create(&nowhere), Err(Error::NotFound(_))));
    }
}
