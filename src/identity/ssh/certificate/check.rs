//! Whether a certificate is good for what a peer uses it for.

use super::{Certificate, Kind};
use crate::error::{Error, Result};
use crate::identity::level::Level;
use crate::identity::ssh::key;
use crate::key::PublicKey;

/// What a certificate has to be good for.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Whom it is for.
    pub kind: Kind,
    /// The CAs that are trusted.
    pub authorities: &'a [PublicKey],
    /// When, in seconds since 1970.
    pub at: u64,
}

impl Certificate {
    /// Whether a trusted CA signed it, for that kind of peer, and it is valid then. The peer's name and
    /// its level are asked for apart.
    ///
    /// # Errors
    /// [`Error::BadInput`] says which of these fails.
    pub fn check(&self, expected: &Expected<'_>) -> Result<()> {
        let contents = &self.contents;
        if !expected.authorities.contains(&self.authority) {
            let fingerprint = key::fingerprint(&self.authority)?;
            return refused(format!("its CA, {fingerprint}, is not trusted"));
        }
        if contents.kind != expected.kind {
            let (is, wanted) = (word(contents.kind), word(expected.kind));
            return refused(format!("it is for a {is}, not for a {wanted}"));
        }
        if expected.at < contents.valid_after {
            return refused("it is not valid yet");
        }
        if expected.at >= contents.valid_before {
            return refused("it has expired");
        }
        match contents.unknown_critical() {
            Some(name) => refused(format!("its critical option {name:?} is unknown")),
            None => Ok(()),
        }
    }

    /// Whether it names a principal. One without principals names nobody: OpenSSH would take it for
    /// everybody.
    pub fn names(&self, principal: &str) -> bool {
        self.contents
            .principals
            .iter()
            .any(|name| name == principal)
    }

    /// # Errors
    /// [`Error::BadInput`] where it states no level that is at least `least`.
    pub fn check_level(&self, least: Level) -> Result<()> {
        match self.level() {
            Some(level) if level >= least => Ok(()),
            Some(level) => refused(format!("it states level {level}, and {least} is wanted")),
            None => refused(format!("it states no level, and {least} is wanted")),
        }
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::User => "user",
        Kind::Host => "host",
    }
}

fn refused<T>(reason: impl std::fmt::Display) -> Result<T> {
    Err(Error::input(format!("refused: {reason}")))
}
