//! The program that is run as the key service: whether it may be.

use std::path::{Path, PathBuf};

use rustix::fs::{FileType, stat};

use crate::error::{Error, Result};
use crate::files::check_owner_and_mode;

/// Modes, inode(7).
const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o022;

/// Finds the program, and refuses one that another user could have put there: it will run with
/// the rights of this process, and the token's secrets pass through it. Every directory above it
/// counts; others may write into one with the sticky bit, which leaves them what is their own.
///
/// # Errors
/// [`Error::DeviceGone`] where there is no such program; [`Error::Refused`].
pub(super) fn check(program: &Path) -> Result<PathBuf> {
    let real = program
        .canonicalize()
        .map_err(|e| gone(program, &e.to_string()))?;
    for path in real.ancestors() {
        let mut stat = stat(path).map_err(|e| gone(program, &e.to_string()))?;
        if path != real && stat.st_mode & STICKY != 0 {
            stat.st_mode &= !OTHERS_WRITE;
        }
        check_owner_and_mode(path, &stat)?;
        if path == real && FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(gone(program, "not a file"));
        }
        if stat.st_mode & 0o111 == 0 {
            return Err(gone(program, "not executable"));
        }
    }
    Ok(real)
}

/// There is no key service to be had.
pub(super) fn gone(program: &Path, reason: &str) -> Error {
    Error::DeviceGone {
        device: program.display().to_string(),
        reason: format!(
            "the key service cannot be started: {reason}; install devkeyd there, \
             or name it in devkey.toml: devkeyd = \"/path/to/devkeyd\""
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Seen to fail with each of the lines of `check` that it is about taken out, and with
    /// `ancestors` cut to two.
    #[test]
    fn only_a_program_that_nobody_else_could_write_is_run() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("devkeyd");
        let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        let remedy = |e: Error| match e {
            Error::DeviceGone { device, reason } => {
                assert_eq!(device, program.display().to_string());
                assert!(reason.contains("devkeyd = "), "{reason}");
            }
            other => panic!("{other}"),
        };
        remedy(check(&program).unwrap_err());
        fs::create_dir(&program).unwrap();
        remedy(check(&program).unwrap_err());
        fs::remove_dir(&program).unwrap();
        fs::write(&program, "").unwrap();
        mode(&program, 0o644).unwrap();
        remedy(check(&program).unwrap_err());
        mode(&program, 0o755).unwrap();
        let real = dir.path().canonicalize().unwrap().join("devkeyd");
        assert_eq!(check(&program).unwrap(), real);
        mode(&program, 0o775).unwrap();
        assert!(matches!(check(&program), Err(Error::Refused { .. })));
        mode(&program, 0o755).unwrap();
        mode(dir.path(), 0o777).unwrap();
        assert!(matches!(check(&program), Err(Error::Refused { .. })));
        mode(dir.path(), 0o1777).unwrap();
        assert_eq!(check(&program).unwrap(), real);
        mode(dir.path(), 0o700).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&program, &link).unwrap();
        assert_eq!(check(&link).unwrap(), real);
        let deep = dir.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        let deep = deep.join("devkeyd");
        fs::rename(&program, &deep).unwrap();
        check(&deep).unwrap();
        mode(dir.path(), 0o770).unwrap();
        let refused = check(&deep).unwrap_err().to_string();
        assert!(
            refused.contains(&*dir.path().to_string_lossy()),
            "{refused}"
        );
        assert!(refused.contains("others can write it"), "{refused}");
    }
}
