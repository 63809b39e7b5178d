//! What can go wrong, named by what the caller can do about it.
//!
//! An [`Error`] crosses the socket of the key service unchanged, so a remote token fails exactly
//! as a local one does. Cryptographic failure carries no source on purpose.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The result of everything in this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed. The text says what is wrong and, where there is one, the remedy.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Error {
    /// The PIN is wrong; `tries_left` is known where the back end counts.
    #[error("wrong PIN{}", tries(*.tries_left))]
    WrongPin {
        /// Tries left before the PIN is locked.
        tries_left: Option<u32>,
    },
    /// No more tries: the SO must unlock, or time must pass.
    #[error("the PIN is locked")]
    PinLocked,
    /// There is no such PIN on the token.
    #[error("the PIN is not set")]
    PinNotSet,
    /// No PIN is that short or that long. Nothing was counted.
    #[error("a PIN has 4 to 32 bytes")]
    PinLength,
    /// What cannot be a PIN. Nothing was counted.
    #[error("{0}")]
    BadPin(String),
    /// The operation needs a login first.
    #[error("log in first")]
    LoginRequired,
    /// The device cannot be reached: not there, no permission, or it went away.
    #[error("{device}: {reason}")]
    DeviceGone {
        /// Path or address of the device.
        device: String,
        /// What happened and what to do.
        reason: String,
    },
    /// The device answered, with an error.
    #[error("{device}: {reason}")]
    DeviceError {
        /// Path or address of the device.
        device: String,
        /// What it answered.
        reason: String,
    },
    /// The device is not the one that the token was made on.
    #[error("{device} is not the device that this token was made on: {reason}")]
    OtherDevice {
        /// Path or address of the device.
        device: String,
        /// What differs.
        reason: String,
    },
    /// The device or the service did not answer in time.
    #[error("{what} did not answer within {seconds} s")]
    Timeout {
        /// Who was asked.
        what: String,
        /// The deadline, in seconds.
        seconds: u64,
    },
    /// A key blob that this back end did not make, or that was changed since.
    #[error("the record does not belong to this token, or was changed; put the original file back")]
    BadBlob,
    /// The back end cannot do this, whatever the input.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// Something of that name exists already.
    #[error("{0} exists already")]
    Exists(String),
    /// There is no such thing.
    #[error("{0} not found")]
    NotFound(String),
    /// No room on the disk or in the device.
    #[error("no room left: {0}")]
    Full(String),
    /// The input is malformed or out of range.
    #[error("{0}")]
    BadInput(String),
    /// The key's use does not include this operation.
    #[error("the key may not be used to {0}")]
    NotPermitted(String),
    /// The store or the file system refuses writes.
    #[error("{0} is read-only")]
    ReadOnly(String),
    /// Owner, mode or kind of a file is not safe, or access to it is refused.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// A file of the store cannot be understood.
    #[error("{}: {reason}", path.display())]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file was written by a newer devkey.
    #[error("{}: written by a newer devkey (format {found}, this one reads up to {known}); upgrade devkey", path.display())]
    NewerRecord {
        /// The file.
        path: PathBuf,
        /// Format version found.
        found: u32,
        /// Newest format version known here.
        known: u32,
    },
    /// The configuration is wrong.
    #[error("{}:{line}: {reason}", path.display())]
    BadConfig {
        /// The file.
        path: PathBuf,
        /// Line, from 1; 0 where the file as a whole is meant.
        line: usize,
        /// What is wrong with it and what is expected.
        reason: String,
    },
    /// A system call failed.
    #[error("{context}: {source}")]
    Io {
        /// What was being done, with the path.
        context: String,
        /// The system's error.
        #[serde(with = "io_error")]
        source: io::Error,
    },
    /// A PUF's reading and helper data do not give the enrolled key back. Deliberately says no more,
    /// whatever the reason: who edits helper data learns nothing from the answer.
    #[error(
        "the PUF does not give the enrolled key back: another chip, too much noise, or changed helper data"
    )]
    NotReproduced,
    /// A cryptographic operation failed. Deliberately says no more.
    #[error("cryptographic operation failed")]
    Crypto,
    /// A defect of devkey itself: an invariant did not hold.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// An I/O error with what was being done; errors with a remedy of their own get their variant.
    pub fn io(context: impl Into<String>, source: io::Error) -> Self {
        let context = context.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::Full(format!("{context}: {source}"))
            }
            io::ErrorKind::ReadOnlyFilesystem => Error::ReadOnly(context),
            _ => Error::Io { context, source },
        }
    }

    /// Bad input, with what is wrong with it.
    pub fn input(reason: impl Into<String>) -> Self {
        Error::BadInput(reason.into())
    }

    /// [`Error::NotPermitted`] to do `what`, unless it is allowed.
    pub fn permit(allowed: bool, what: &str) -> Result<()> {
        match allowed {
            true => Ok(()),
            false => Err(Error::NotPermitted(what.to_owned())),
        }
    }

    /// An operation that the back end does not have.
    pub fn unsupported(what: impl Into<String>) -> Self {
        Error::Unsupported(what.into())
    }
}

impl From<aws_lc_rs::error::Unspecified> for Error {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Error::Crypto
    }
}

fn tries(left: Option<u32>) -> String {
    match left {
        None => String::new(),
        Some(1) => ", 1 try left".to_owned(),
        Some(n) => format!(", {n} tries left"),
    }
}

/// An [`io::Error`] as its errno, or as text where it has none.
mod io_error {
    use std::io;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    enum Wire {
        Os(i32),
        Text(String),
    }

    pub(super) fn serialize<S: Serializer>(error: &io::Error, to: S) -> Result<S::Ok, S::Error> {
        match error.raw_os_error() {
            Some(code) => Wire::Os(code),
            None => Wire::Text(error.to_string()),
        }
        .serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<io::Error, D::Error> {
        Ok(match Wire::deserialize(from)? {
            Wire::Os(code) => io::Error::from_raw_os_error(code),
            Wire::Text(text) => io::Error::other(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_crosses_the_wire_unchanged() {
        let before = Error::Io {
            context: "reading /x".into(),
            source: io::Error::from_raw_os_error(13),
        };
        let bytes = postcard::to_stdvec(&before).unwrap();
        let after: Error = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(before.to_string(), after.to_string());
        let Error::Io { source, .. } = after else {
            panic!("another variant came back");
        };
        assert_eq!(source.raw_os_error(), Some(13));
    }

    #[test]
    fn a_full_disk_has_its_own_variant() {
        let full = Error::io("writing", io::Error::from_raw_os_error(28));
        assert!(matches!(full, Error::Full(_)));
    }
}
