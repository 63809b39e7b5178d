//! How a device and its enrolment are, for people and for monitoring. Nothing is written: not even
//! helper data of which one copy is broken, as the first use of the token would do.

use std::path::{Path, PathBuf};

use super::copies::{self, Enrolled};
use super::measure::{Verification, try_all};
use super::node::{self, Wanted};
use super::options::{Hold, Kind, Options};
use crate::error::{Error, Result};
use crate::fuzzy::Profile;
use crate::provider::{Place, Settings};

/// The device of a token, by its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its node.
    pub path: PathBuf,
    /// The window is read once, at boot, and may be overwritten then.
    pub once: bool,
    /// It is a reader at a serial line, which has one client at a time.
    pub line: bool,
    /// A regular file may stand for it.
    file: bool,
}

/// A token's device and enrolment, as they were found.
#[derive(Debug)]
pub struct Health {
    /// How readings went.
    pub tried: Verification,
    /// The profile and the number of secret bits that it was enrolled with; `None` for a stable source.
    pub design: Option<(Profile, usize)>,
    /// What is wrong with one of the two copies of the helper data.
    pub broken: Option<Error>,
}

impl Device {
    /// The one that the settings name. Touches nothing.
    ///
    /// # Errors
    /// [`Error::BadInput`]
    pub fn of(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        Ok(Device {
            path: options.device,
            once: matches!(options.hold, Hold::Boot { .. }),
            line: matches!(options.kind, Kind::Serial),
            file: options.allow_file,
        })
    }

    /// A character device that belongs to no token.
    pub fn at(path: &Path) -> Self {
        Device {
            path: path.to_owned(),
            once: false,
            line: false,
            file: false,
        }
    }

    /// Judges its kind, owner and mode, and does not open it.
    ///
    /// # Errors
    /// [`Error::DeviceGone`] where it is not there, [`Error::Refused`] where it is no device, or open
    /// to all.
    pub fn look(&self) -> Result<()> {
        let wanted = Wanted {
            file: self.file,
            write: false,
        };
        node::look(&self.path, wanted)
    }
}

/// Reads a token's device `times` times and tries each reading alone, as
/// [`verify`](super::verify) does.
///
/// # Errors
/// Those of the helper data, and of a device that cannot be read even once.
pub fn examine(place: &Place<'_>, times: usize) -> Result<Health> {
    let (enrolled, broken) = copies::inspect(place.dir, place.binding)?;
    Ok(Health {
        tried: try_all(&enrolled, place, times, &mut |_| ())?,
        design: match &enrolled {
            Enrolled::Noisy(helper) => Some((helper.profile(), helper.k())),
            Enrolled::Stable(_) => None,
        },
        broken,
    })
}
