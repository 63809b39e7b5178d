//! What stands in the files.

use serde::{Deserialize, Serialize};

use crate::identity::flow::Digest;
use crate::identity::level::Level;
use crate::identity::x509::{Reason, Serial};

/// A question that was asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::identity::ca) struct Asked {
    pub(in crate::identity::ca) profile: String,
    /// The level that an answer earns.
    pub(in crate::identity::ca) level: Level,
    pub(in crate::identity::ca) expires: u64,
    /// The challenge, as the file that was given out.
    pub(in crate::identity::ca) challenge: String,
}

/// An answer that was taken.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::identity::ca) struct Answered {
    pub(in crate::identity::ca) serial: Serial,
}

/// A serial that is taken.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::identity::ca) struct Taken {
    /// Whether the certificates were signed; else a process was killed, or is at it.
    pub(in crate::identity::ca) issued: bool,
    pub(in crate::identity::ca) profile: String,
    pub(in crate::identity::ca) level: Level,
    pub(in crate::identity::ca) subject: String,
    pub(in crate::identity::ca) alt_names: Vec<String>,
    pub(in crate::identity::ca) principals: Vec<String>,
    /// Stands for the key.
    pub(in crate::identity::ca) key: Digest,
    /// Stand for the endorsement keys of its TPM. None where there is no TPM, and in books of before these
    /// were kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::identity::ca) device: Vec<Digest>,
    /// Serial of the SSH certificate: the last 8 bytes of the other.
    pub(in crate::identity::ca) ssh_serial: Option<u64>,
    pub(in crate::identity::ca) at: u64,
    pub(in crate::identity::ca) not_after: u64,
}

/// A certificate that is no longer good.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::identity::ca) struct Withdrawn {
    pub(in crate::identity::ca) at: u64,
    pub(in crate::identity::ca) reason: Reason,
}

/// The number of the last list.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lists {
    pub(super) number: u64,
}

/// A TPM that is certified no more.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::identity::ca) struct Barred {
    pub(in crate::identity::ca) at: u64,
    pub(in crate::identity::ca) reason: Reason,
    /// What it was revoked with.
    pub(in crate::identity::ca) serial: Serial,
    /// Whose that was, for people.
    pub(in crate::identity::ca) subject: String,
}
