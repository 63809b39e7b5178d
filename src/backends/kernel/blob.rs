//! The file `kernel.blob`: what `keyctl pipe` prints of the token's key, which is the key itself,
//! sealed. An administrator can load it by hand.

use std::path::Path;

use crate::error::{Error, Result};
use crate::files::Dir;

/// Its name in the token's directory.
const NAME: &str = "kernel.blob";

/// Writes it: whole, or not at all.
///
/// # Errors
/// [`Error::Exists`] where there is one: it is never replaced.
pub(super) fn create(dir: &Path, sealed: &str) -> Result<()> {
    Dir::open(dir)?.write(NAME, sealed.as_bytes(), false)
}

/// Reads it.
///
/// # Errors
/// [`Error::Refused`] where others can read it: any user of the machine could have the kernel
/// load it. [`Error::DeviceGone`] where it is not there.
pub(super) fn read(dir: &Path) -> Result<String> {
    let contents = Dir::open(dir)?.read_secret(NAME).map_err(|e| match e {
        Error::NotFound(device) => Error::DeviceGone {
            device,
            reason: "the sealed key of the kernel is not there; put it back, or make a new token"
                .to_owned(),
        },
        other => other,
    })?;
    let text = std::str::from_utf8(contents.expose()).map(str::trim_end);
    // What a person's editor left is forgiven; a NUL would end the text early.
    match text {
        Ok(text) if text.chars().all(|c| c.is_ascii_graphic() || c == ' ') => Ok(text.to_owned()),
        _ => Err(Error::BadRecord {
            path: dir.join(NAME),
            reason: "not a sealed key; put back the file that was there".to_owned(),
        }),
    }
}
