//! The settings of a PUF token, parsed once.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::fuzzy::Profile;
use crate::provider::Settings;

/// Most bytes of a measurement that are read: what lies beyond is of no use to any profile.
pub(super) const MAX_MEASUREMENT: usize = 64 * 1024;

/// Where the node of a PUF is by convention.
const DEVICE: &str = "/dev/puf0";

/// The settings: name and meaning.
pub(super) const SETTINGS: &[(&str, &str)] = &[
    (
        "device",
        "path of the node: /dev/puf0 (the default), a tty for kind = serial",
    ),
    (
        "kind",
        "raw: noisy start-up values (the default); stable: the same secret bytes at each open; \
         serial: a microcontroller that reads raw values",
    ),
    (
        "offset",
        "where the window begins in the device's measurement, in bytes: by default 0",
    ),
    (
        "profile",
        "how much is read: dk-256, dk-512, dk-1024, dk-2048; by default the largest up to \
         dk-1024 that the device has room for",
    ),
    (
        "readings",
        "how many measurements of a live device a token is made from: 1 to 15, by default 5",
    ),
    (
        "map",
        "yes: the helper data also say which cells differed among three or more readings, which \
         about doubles their length and bears more noise; for live devices",
    ),
    (
        "length",
        "kind = stable: how many bytes are read, 32 (the default) to 64",
    ),
    (
        "min_entropy",
        "kind = stable: bits of min-entropy that you vouch for, at least 256",
    ),
    (
        "allow_file",
        "yes: a regular file may stand for the device, as sysfs' *.sram attributes do",
    ),
    (
        "timeout",
        "seconds after which a device that does not answer is given up: 1 to 600, by default 10",
    ),
    (
        "hold",
        "seconds for which the root stays in memory after its use: 0 (the default) to 86400; \
         boot: until the key service ends, for a window that can be read only once",
    ),
    (
        "scrub",
        "yes, with hold = boot: the window is overwritten once it was read",
    ),
    (
        "renew",
        "directory of a token on the same window: the new one takes its enrolment over and has \
         other keys; heeded only when a token is made",
    ),
];

/// What kind of device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Noisy start-up values of a character device or file.
    Raw,
    /// The same 32 to 64 secret bytes at each open.
    Stable {
        /// How many bytes are read.
        length: usize,
    },
    /// A microcontroller at a serial line that reads raw values.
    Serial,
}

/// How long the root is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// So long after its last use.
    For(Duration),
    /// As long as the process lives.
    Boot {
        /// The window is overwritten after its reading.
        scrub: bool,
    },
}

/// The settings of a token.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) device: PathBuf,
    pub(super) kind: Kind,
    pub(super) offset: usize,
    pub(super) profile: Option<Profile>,
    pub(super) readings: usize,
    pub(super) map: bool,
    pub(super) allow_file: bool,
    pub(super) timeout: Duration,
    pub(super) hold: Hold,
    pub(super) renew: Option<PathBuf>,
}

impl Options {
    /// Parses settings whose names are known.
    ///
    /// # Errors
    /// [`Error::BadInput`] with what is allowed.
    pub(super) fn read(settings: &Settings) -> Result<Self> {
        let from = From(settings);
        let hold = from.hold()?;
        Ok(Options {
            device: from.path("device")?.unwrap_or_else(|| DEVICE.into()),
            kind: from.kind()?,
            offset: from.number("offset", 0, 0, MAX_MEASUREMENT, "bytes")?,
            profile: from.get("profile").map(Profile::from_name).transpose()?,
            readings: from.number("readings", 5, 1, 15, "measurements")?,
            map: from.yes("map")?,
            allow_file: from.yes("allow_file")?,
            timeout: Duration::from_secs(from.number("timeout", 10, 1, 600, "seconds")? as u64),
            hold,
            renew: from.path("renew")?,
        })
    }
}

/// Whether settings ask for the key service: a root that is held wants a process that outlives one
/// operation and is nobody else's.
pub(super) fn want_service(settings: &Settings) -> bool {
    settings.get("hold").is_some_and(|hold| hold != "0")
}

/// Settings by name.
struct From<'s>(&'s Settings);

impl From<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn kind(&self) -> Result<Kind> {
        let length = self.number("length", 32, 32, 64, "bytes")?;
        let entropy = self.number("min_entropy", 0, 256, 512, "bits")?;
        match self.get("kind").unwrap_or("raw") {
            "raw" => Ok(Kind::Raw),
            "serial" => Ok(Kind::Serial),
            "stable" if entropy > 8 * length => Err(Error::input(format!(
                "min_entropy = \"{entropy}\": {length} bytes have no more than {} bits",
                8 * length
            ))),
            "stable" if entropy >= 256 => Ok(Kind::Stable { length }),
            "stable" => Err(Error::input(
                "kind = \"stable\" wants min_entropy, at least \"256\": nothing can be measured \
                 of a source that always says the same, so its maker must vouch for it",
            )),
            other => Err(Error::input(format!(
                "kind = {other:?}: use raw, stable or serial"
            ))),
        }
    }

    fn hold(&self) -> Result<Hold> {
        let scrub = self.yes("scrub")?;
        match self.get("hold") {
            Some("boot") => Ok(Hold::Boot { scrub }),
            _ if scrub => Err(Error::input(
                "scrub = \"yes\" wants hold = \"boot\": what is overwritten is not read again",
            )),
            _ => {
                let seconds = self.number("hold", 0, 0, 86400, "seconds, or boot")?;
                Ok(Hold::For(Duration::from_secs(seconds as u64)))
            }
        }
    }

    fn path(&self, name: &str) -> Result<Option<PathBuf>> {
        let path = self.get(name).map(PathBuf::from);
        match path {
            Some(path) if !path.is_absolute() => Err(Error::input(format!(
                "{name} = {path:?}: use an absolute path"
            ))),
            path => Ok(path),
        }
    }

    fn yes(&self, name: &str) -> Result<bool> {
        match self.get(name) {
            Some("yes") => Ok(true),
            None | Some("no") => Ok(false),
            Some(other) => Err(Error::input(format!("{name} = {other:?}: use yes or no"))),
        }
    }

    fn number(
        &self,
        name: &str,
        default: usize,
        min: usize,
        max: usize,
        of: &str,
    ) -> Result<usize> {
        let Some(text) = self.get(name) else {
            return Ok(default);
        };
        let number = text.parse().ok().filter(|n| (min..=max).contains(n));
        number.ok_or_else(|| Error::input(format!("{name} = {text:?}: use {min} to {max} {of}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(settings: &[(&str, &str)]) -> Result<Options> {
        let owned = |(name, value): &(&str, &str)| (String::from(*name), String::from(*value));
        Options::read(&settings.iter().map(owned).collect())
    }

    #[test]
    fn without_settings_there_are_defaults() {
        let options = read(&[]).unwrap();
        assert_eq!(options.device, PathBuf::from("/dev/puf0"));
        assert_eq!(options.kind, Kind::Raw);
        assert_eq!(options.hold, Hold::For(Duration::ZERO));
        assert!(!options.allow_file && options.profile.is_none());
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        for (name, value) in [
            ("device", "puf0"),
            ("kind", "RAW"),
            ("offset", "-1"),
            ("offset", "65537"),
            ("profile", "dk-128"),
            ("readings", "0"),
            ("map", "1"),
            ("allow_file", "true"),
            ("timeout", "0"),
            ("hold", "forever"),
            ("scrub", "maybe"),
            ("renew", "../old"),
            ("min_entropy", "255"),
        ] {
            let refused = read(&[(name, value)]);
            let Err(Error::BadInput(reason)) = refused else {
                panic!("{name} = {value} is taken");
            };
            assert!(reason.contains(value) || name == "kind", "{reason}");
        }
    }

    /// Seen to fail without each of the guards in `kind` and `hold`.
    #[test]
    fn what_does_not_go_together_is_refused() {
        for settings in [
            &[("kind", "stable")][..],
            &[("kind", "stable"), ("min_entropy", "300")],
            &[("scrub", "yes"), ("hold", "5")],
        ] {
            assert!(read(settings).is_err(), "{settings:?}");
        }
        let stable = [("kind", "stable"), ("min_entropy", "300"), ("length", "64")];
        assert_eq!(read(&stable).unwrap().kind, Kind::Stable { length: 64 });
        let boot = read(&[("scrub", "yes"), ("hold", "boot")]).unwrap();
        assert_eq!(boot.hold, Hold::Boot { scrub: true });
    }

    #[test]
    fn what_is_held_is_held_by_the_service() {
        let wants = |name: &str, value: &str| want_service(&[(name.into(), value.into())].into());
        assert!(!wants("hold", "0") && wants("hold", "1") && wants("hold", "boot"));
    }
}
