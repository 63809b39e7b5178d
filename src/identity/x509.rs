//! X.509 (RFC 5280): requests, certificates and revocation lists, made and checked.
//!
//! The structures are those of `x509-cert`; nothing is encoded by hand. What is signed is kept and
//! checked as the bytes that came, never as an encoding of our own of them.

pub mod certificate;
pub mod chain;
pub mod crl;
pub mod describe;
pub mod extensions;
pub mod issue;
pub mod name;
pub mod request;
mod signed;

pub use certificate::{expiry, matches_key};
pub use crl::{Reason, Revoked, crl, is_revoked};
pub use describe::{Description, describe};
pub use extensions::{ANY_POLICY, ExtendedUsage};
pub use issue::{Authority, CertificateSpec, Issuer, Serial, issue, self_signed};
pub use name::{AltName, Subject};
pub use request::{Request, RequestSpec};

use der::DateTime;
use x509_cert::time::Time;

use crate::error::{Error, Result};

/// Longest request or certificate that is looked at, in bytes.
pub const MAX_LEN: usize = 64 * 1024;

/// A time of X.509: UTCTime until 2049, GeneralizedTime from 2050 (RFC 5280 §4.1.2.5).
fn time(unix_seconds: u64) -> Result<Time> {
    DateTime::from_unix_duration(std::time::Duration::from_secs(unix_seconds))
        .map(Time::from)
        .map_err(|_| Error::input("a time of X.509 is before the year 10000"))
}

/// What was being encoded is ours: that it cannot be is a defect, or a name far too long.
fn encoding(error: der::Error) -> Error {
    Error::Internal(format!("encoding DER: {error}"))
}
