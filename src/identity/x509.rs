//! X.509 (RFC 5280): requests, certificates and revocation lists, made and checked.
//!
//! The structures are those of `x509-cert`; nothing is encoded by hand. What is signed is kept and
//! checked as the bytes that came, never as an encoding of our own of them.

mod alt_name;
mod certificate;
pub mod chain;
mod crl;
mod describe;
mod extensions;
mod issue;
mod issuer;
mod known;
mod name;
mod request;
mod serial;
mod signed;
mod usage;

use std::time::Duration;

use der::DateTime;
use x509_cert::time::Time;

pub use alt_name::AltName;
pub use certificate::{expiry, matches_key};
pub use crl::{Reason, Revoked, crl, is_revoked};
pub use describe::{Description, describe};
pub use extensions::ANY_POLICY;
pub use issue::{Authority, CertificateSpec, issue, self_signed};
pub use issuer::Issuer;
pub use name::Subject;
pub use request::{Request, RequestSpec};
pub use serial::Serial;
pub use usage::ExtendedUsage;

use crate::error::{Error, Result};

/// Longest request or certificate that is looked at, in bytes.
pub const MAX_LEN: usize = 64 * 1024;

/// A time of X.509: UTCTime until 2049, GeneralizedTime from 2050 (RFC 5280 §4.1.2.5).
fn time(unix_seconds: u64) -> Result<Time> {
    DateTime::from_unix_duration(Duration::from_secs(unix_seconds))
        .map(Time::from)
        .map_err(|_| Error::input("a time of X.509 is before the year 10000"))
}

/// What was being encoded is ours: that it cannot be is a defect, or a name far too long.
fn encoding(error: der::Error) -> Error {
    Error::Internal(format!("encoding DER: {error}"))
}
