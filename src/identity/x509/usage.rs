//! Purposes of certified keys (RFC 5280 §4.2.1.12).

use std::fmt;
use std::str::FromStr;

use der::oid::ObjectIdentifier;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A purpose of RFC 5280 §4.2.1.12, by its name there (`clientAuth`) or as an OID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExtendedUsage(pub(super) ObjectIdentifier);

impl ExtendedUsage {
    /// id-kp-serverAuth.
    pub const SERVER: ExtendedUsage =
        ExtendedUsage(ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1"));
    /// id-kp-clientAuth.
    pub const CLIENT: ExtendedUsage =
        ExtendedUsage(ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2"));
    /// tcg-kp-EKCertificate, TCG EK Credential Profile 2.6 §3.2.
    pub const ENDORSEMENT: ExtendedUsage =
        ExtendedUsage(ObjectIdentifier::new_unwrap("2.23.133.8.1"));
    /// anyExtendedKeyUsage.
    pub(super) const ANY: ExtendedUsage =
        ExtendedUsage(ObjectIdentifier::new_unwrap("2.5.29.37.0"));

    const NAMES: [(&'static str, ExtendedUsage); 7] = [
        ("serverAuth", Self::SERVER),
        ("clientAuth", Self::CLIENT),
        (
            "codeSigning",
            ExtendedUsage(ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3")),
        ),
        (
            "emailProtection",
            ExtendedUsage(ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.4")),
        ),
        (
            "timeStamping",
            ExtendedUsage(ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.8")),
        ),
        (
            "OCSPSigning",
            ExtendedUsage(ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9")),
        ),
        ("endorsementKey", Self::ENDORSEMENT),
    ];
}

impl FromStr for ExtendedUsage {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let named = Self::NAMES.iter().find(|(name, _)| *name == text);
        let by_oid = || ObjectIdentifier::new(text).ok().map(ExtendedUsage);
        named
            .map(|(_, usage)| *usage)
            .or_else(by_oid)
            .ok_or_else(|| {
                let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
                Error::input(format!(
                    "{text:?} is no purpose: an OID or one of {}",
                    names.join(", ")
                ))
            })
    }
}

impl fmt::Display for ExtendedUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, usage)| usage == self) {
            Some((name, _)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

as_text!(ExtendedUsage);
