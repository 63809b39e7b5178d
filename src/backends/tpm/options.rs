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

const OWNER: &str = "owner_auth_file";
const ENDORSEMENT: &str = "endorsement_auth_file";

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
    endorsement_auth_file: Option<PathBuf>,
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
            owner_auth_file: file(settings, OWNER)?,
            endorsement_auth_file: file(settings, ENDORSEMENT)?,
        })
    }

    /// The owner's password, where there is a file with it.
    pub(super) fn owner(&self) -> Result<Option<Secret>> {
        self.owner_auth_file.as_deref().map(password).transpose()
    }

    /// The endorsement hierarchy's password, where there is a file with it.
    pub(super) fn endorsement(&self) -> Result<Option<Secret>> {
        self.endorsement_auth_file
            .as_deref()
            .map(password)
            .transpose()
    }
}

/// The first line of a file. The file and its directory must be safe from others.
fn password(path: &Path) -> Result<Secret> {
    let name = path.file_name().and_then(OsStr::to_str);
    let (Some(dir), Some(name)) = (path.parent(), name) else {
        return Err(Error::input(format!("{}: not a file", path.display())));
    };
    let mut password = Dir::open(dir)?.read_secret(name)?;
    let end = password.expose().iter().position(|byte| *byte == b'\n');
    password.truncate(end.unwrap_or(password.len()));
    match password.len() {
        0..=PASSWORD_MOST => Ok(password),
        _ => Err(Error::input(format!(
            "{}: longer than any password of a TPM",
            path.display()
        ))),
    }
}

fn file(settings: &Settings, name: &str) -> Result<Option<PathBuf>> {
    let Some(path) = settings.get(name).map(PathBuf::from) else {
        return Ok(None);
    };
    match path.is_absolute() && path.file_name().is_some() {
        true => Ok(Some(path)),
        false => Err(Error::input(format!(
            "{name} = {}: use an absolute path",
            path.display()
        ))),
    }
}
