//! The settings of a TPM token, checked once.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::pin::Guard;
use super::tcti::{self, Tcti};
use crate::error::{Error, Result};
use crate::files::Dir;
use crate::provider::Settings;
use crate::secret::Secret;

/// Length of the longest password that any TPM takes, in bytes: that of a SHA-512 digest.
const PASSWORD_MOST: usize = 64;

/// The settings of a TPM token.
#[derive(Debug)]
pub(super) struct Options {
    /// Where the TPM is.
    pub(super) tcti: Tcti,
    /// When it is given up.
    pub(super) timeout: Duration,
    /// What counts wrong PINs.
    pub(super) guard: Guard,
    owner_auth_file: Option<PathBuf>,
}

impl Options {
    /// Reads the settings without touching anything.
    pub(super) fn read(settings: &Settings) -> Result<Self> {
        let setting = |name| settings.get(name).map(String::as_str);
        let seconds = match setting("timeout") {
            None => 30,
            Some(text) => text
                .parse()
                .ok()
                .filter(|seconds| (1..=600).contains(seconds))
                .ok_or_else(|| Error::input(format!("timeout = {text:?}: use 1 to 600 seconds")))?,
        };
        Ok(Options {
            tcti: Tcti::parse(setting("tcti").unwrap_or(tcti::DEFAULT))?,
            timeout: Duration::from_secs(seconds),
            guard: setting("pin_guard").map_or(Ok(Guard::Nv), Guard::parse)?,
            owner_auth_file: setting("owner_auth_file").map(file).transpose()?,
        })
    }

    /// The owner's password, where there is a file with it: its first line. The file and its
    /// directory must be safe from others.
    pub(super) fn owner(&self) -> Result<Option<Secret>> {
        let Some(path) = &self.owner_auth_file else {
            return Ok(None);
        };
        let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str))
        else {
            return Err(bad_file(path));
        };
        let mut password = Dir::open(dir)?.read_secret(name)?;
        let end = password.expose().iter().position(|byte| *byte == b'\n');
        password.truncate(end.unwrap_or(password.len()));
        match password.len() {
            0..=PASSWORD_MOST => Ok(Some(password)),
            _ => Err(Error::input(format!(
                "{}: longer than any password of a TPM",
                path.display()
            ))),
        }
    }
}

fn file(setting: &str) -> Result<PathBuf> {
    let path = PathBuf::from(setting);
    match path.is_absolute() && path.file_name().is_some() {
        true => Ok(path),
        false => Err(bad_file(&path)),
    }
}

fn bad_file(path: &Path) -> Error {
    let path = path.display();
    Error::input(format!("owner_auth_file = {path}: use an absolute path"))
}
