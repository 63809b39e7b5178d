//! How sure a CA is of where a key lives.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// tcg-cap-verifiedTPMResidency, TCG OID Registry 1.0 §2.5.
const VERIFIED_TPM_RESIDENCY: &str = "2.23.133.11.1.1";
/// tcg-cap-verifiedTPMFixed, TCG OID Registry 1.0 §2.5.
const VERIFIED_TPM_FIXED: &str = "2.23.133.11.1.2";
/// devkey's own policies. Numbers below 2.25 need no registration (X.667 §6.3); this one was chosen
/// at random below 2^31, since many parsers hold an arc in 32 bits. A CA puts its own in its place.
const DEVKEY_SOFTWARE: &str = "2.25.1476890237.1.1";
const DEVKEY_PUF: &str = "2.25.1476890237.1.2";

/// The assurance that a certificate states, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Who asked holds the private key. Nothing is known of where it is.
    Software,
    /// The public key was registered through a trusted channel as one that a PUF makes.
    Puf,
    /// The key was proven to live in a TPM whose maker vouches for it, and to be unable to leave it.
    Tpm,
}

impl Level {
    /// All levels, the weakest first.
    pub const ALL: [Level; 3] = [Level::Software, Level::Puf, Level::Tpm];

    /// Its name in files, on the command line and in SSH certificates.
    pub fn name(self) -> &'static str {
        match self {
            Level::Software => "software",
            Level::Puf => "puf",
            Level::Tpm => "tpm",
        }
    }

    /// The certificate policies (RFC 5280 §4.2.1.4) that state it.
    pub fn policies(self) -> &'static [&'static str] {
        match self {
            Level::Software => &[DEVKEY_SOFTWARE],
            Level::Puf => &[DEVKEY_PUF],
            Level::Tpm => &[VERIFIED_TPM_RESIDENCY, VERIFIED_TPM_FIXED],
        }
    }

    /// The strongest level that these policies state: all of those that it has are among them.
    pub fn stated_by(policies: &[String]) -> Option<Level> {
        let among = |policy: &&str| policies.iter().any(|stated| stated == policy);
        let stated = |level: &Level| level.policies().iter().all(among);
        Level::ALL.into_iter().rev().find(stated)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = Level::ALL.into_iter().find(|level| level.name() == name);
        known.ok_or_else(|| {
            Error::input(format!(
                "{name:?} is no level: one of software, puf and tpm is"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_order_is_of_strength() {
        for level in Level::ALL {
            assert_eq!(level.name().parse::<Level>().unwrap(), level);
        }
        assert!("TPM".parse::<Level>().is_err());
        assert!(Level::ALL.is_sorted());
    }
}
