//! The file `root`: 32 random bytes, written once.

use std::path::{Path, PathBuf};

use super::super::soft::ROOT_LEN;
use crate::error::{Error, Result};
use crate::files::Dir;
use crate::secret::Secret;

/// Its name in the token's directory.
const NAME: &str = "root";

/// Where the root of the token in `dir` is.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// Writes a new root: whole, or not at all.
///
/// # Errors
/// [`Error::Exists`] where there is one: it is never replaced.
pub(super) fn create(dir: &Path) -> Result<()> {
    Dir::open(dir)?.write(NAME, Secret::random(ROOT_LEN)?.expose(), false)
}

/// Reads the root and keeps nothing of it.
///
/// # Errors
/// [`Error::Refused`] where another than its owner could have read or written it,
/// [`Error::DeviceGone`] where it is not there.
pub(super) fn read(dir: &Path) -> Result<Secret> {
    let root = Dir::open(dir)?.read_secret(NAME).map_err(|e| match e {
        Error::NotFound(device) => Error::DeviceGone {
            device,
            reason: "the token's root is not there; put it back, or make a new token".to_owned(),
        },
        other => other,
    })?;
    match root.len() {
        ROOT_LEN => Ok(root),
        length => Err(Error::Refused {
            path: path(dir),
            reason: format!(
                "a root has {ROOT_LEN} bytes and this file {length}; put back the one that was there"
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    /// A directory with a root in it.
    fn made() -> TempDir {
        let dir = TempDir::new().unwrap();
        create(dir.path()).unwrap();
        dir
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

    /// Seen to fail with `true` in place of `false` in `create`.
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
