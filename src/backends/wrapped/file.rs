//! The file `root.wrapped`: 8 bytes that say what it is, then what the device made of the root.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::Dir;

/// Its name in the token's directory.
const NAME: &str = "root.wrapped";
/// Its first bytes, before the version.
const MAGIC: &[u8; 7] = b"DKWROOT";
/// The one version of the format.
const VERSION: u8 = 1;

/// Where the wrapped root of the token in `dir` is.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// Writes it: whole, or not at all.
///
/// # Errors
/// [`Error::Exists`] where there is one: it is never replaced.
pub(super) fn create(dir: &Path, wrapped: &[u8]) -> Result<()> {
    let contents = [MAGIC, &[VERSION][..], wrapped].concat();
    Dir::open(dir)?.write(NAME, &contents, false)
}

/// What the device made of the root.
///
/// # Errors
/// [`Error::Refused`] where another than its owner could have read or written it: whoever runs on
/// the same machine might have the same device unwrap it. [`Error::DeviceGone`] where it is not
/// there.
pub(super) fn read(dir: &Path) -> Result<Vec<u8>> {
    let contents = Dir::open(dir)?.read_secret(NAME).map_err(|e| match e {
        Error::NotFound(device) => Error::DeviceGone {
            device,
            reason: "the token's wrapped root is not there; put it back, or make a new token"
                .to_owned(),
        },
        other => other,
    })?;
    match contents.expose().strip_prefix(MAGIC) {
        Some([VERSION, wrapped @ ..]) => Ok(wrapped.to_vec()),
        Some([found, ..]) => Err(Error::NewerRecord {
            path: path(dir),
            found: u32::from(*found),
            known: u32::from(VERSION),
        }),
        _ => Err(Error::BadRecord {
            path: path(dir),
            reason: "not a wrapped root; put back the file that was there".to_owned(),
        }),
    }
}
