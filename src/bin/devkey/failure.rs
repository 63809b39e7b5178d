//! Why a command failed, and what to do about it.

use std::fmt::Display;

use devkey::Error;

/// The result of a command's steps.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// What is wrong, with its remedy where there is one.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) what: String,
    pub(crate) remedy: Option<String>,
}

impl Failure {
    /// An error with a remedy of its own.
    pub(crate) fn new(error: impl Display, remedy: impl Into<String>) -> Self {
        Failure {
            what: error.to_string(),
            remedy: Some(remedy.into()),
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let text = error.to_string();
        match (error, text.split_once("; ")) {
            // The library ends these with what to do.
            (
                Error::DeviceGone { .. } | Error::Refused { .. } | Error::NewerRecord { .. },
                Some((what, remedy)),
            ) => Failure::new(what, remedy),
            _ => Failure {
                what: text,
                remedy: remedy(error).map(str::to_owned),
            },
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::from(&error)
    }
}

/// What helps whatever the command was; many errors say it themselves.
fn remedy(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::BadConfig { .. } => "correct it, then `devkey config check`",
        Error::Full(_) => "make room and run the command again; what was there before is intact",
        Error::ReadOnly(_) => "mount it read-write, or name another place with --dir",
        Error::Unsupported(_) => "`devkey token show` lists what the token can do",
        Error::OtherDevice { .. } => {
            "go back to that device, or make a new token with `devkey init`"
        }
        Error::NotReproduced => {
            "put the device and the helper data of its enrolment together again, and run the command again"
        }
        Error::BadBlob => "restore the key's file, or delete the key and make a new one",
        Error::BadRecord { .. } => "restore the file from a copy, or move it away",
        Error::Timeout { .. } => "run the command again",
        Error::Internal(_) => "run the command again with DEVKEY_LOG=debug and report what it says",
        _ => return None,
    })
}
