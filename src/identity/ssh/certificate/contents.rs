//! What a certificate says, and what a CA never lets one say.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::identity::ssh::{key, wire};
use crate::key::PublicKey;

/// Most principals of a certificate: OpenSSH reads no more (SSHKEY_CERT_MAX_PRINCIPALS).
const MAX_PRINCIPALS: usize = 256;
/// Longest principal and key ID that are issued, in bytes: a DNS name has at most 253.
const MAX_NAME: usize = 255;

/// The critical options that OpenSSH 9.2 knows, all of them for users. It refuses a certificate with
/// another.
const CRITICAL: [&str; 3] = ["force-command", "source-address", "verify-required"];

/// Options or extensions: name and value. Those that are flags have an empty value.
pub type Options = BTreeMap<String, String>;

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Who logs in. Its principals are names of accounts, or what a server maps to accounts.
    User,
    /// A server. Its principals are the names that clients call it by.
    Host,
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Whom it is for.
    pub kind: Kind,
    /// Its key. OpenSSH knows every kind but ML-DSA.
    pub key: PublicKey,
    /// Its number at the CA; 0 where the CA counts none, and such a one is revoked by its key alone.
    pub serial: u64,
    /// What sshd's log calls it.
    pub key_id: String,
    /// The names that it is good for. None at all would make it good for every name.
    pub principals: Vec<String>,
    /// Start of its validity, in seconds since 1970.
    pub valid_after: u64,
    /// End of its validity, in seconds since 1970: the first second at which it is not valid.
    pub valid_before: u64,
    /// What a server must know and heed, or refuse the certificate.
    pub critical_options: Options,
    /// What a server may pass over, such as `permit-pty`.
    pub extensions: Options,
}

impl Contents {
    /// # Errors
    /// [`Error::BadInput`] for what no CA should sign: no principal, one that is a pattern or more
    /// than a word, a validity that ends before it starts, a critical option that makes OpenSSH refuse
    /// the certificate.
    pub(super) fn check(&self) -> Result<()> {
        if self.principals.is_empty() || self.principals.len() > MAX_PRINCIPALS {
            return Err(Error::input(format!(
                "a certificate has 1 to {MAX_PRINCIPALS} principals"
            )));
        }
        self.principals
            .iter()
            .try_for_each(|name| principal(name))?;
        if self.valid_before <= self.valid_after {
            return Err(Error::input("the certificate would end before it starts"));
        }
        if self.key_id.is_empty() || self.key_id.len() > MAX_NAME {
            return Err(Error::input(format!("a key ID has 1 to {MAX_NAME} bytes")));
        }
        plain("key ID", &self.key_id)?;
        self.check_options()
    }

    fn check_options(&self) -> Result<()> {
        if let Some(unknown) = self.unknown_critical() {
            return Err(Error::input(format!(
                "OpenSSH refuses certificates with the critical option {unknown:?}"
            )));
        }
        let options = self.critical_options.iter().chain(&self.extensions);
        options.into_iter().try_for_each(|(name, value)| {
            plain("option", value)?;
            match name.is_empty() || name.contains(char::is_whitespace) {
                true => Err(Error::input(format!("{name:?} names no option"))),
                false => plain("option", name),
            }
        })
    }

    /// A critical option that no server of OpenSSH 9.2 heeds.
    pub(super) fn unknown_critical(&self) -> Option<&str> {
        let heeded = |name: &str| self.kind == Kind::User && CRITICAL.contains(&name);
        let mut names = self.critical_options.keys().map(String::as_str);
        names.find(|name| !heeded(name))
    }

    /// PROTOCOL.certkeys, from the key to the extensions.
    pub(super) fn put(&self, to: &mut Vec<u8>) -> Result<()> {
        key::put_fields(to, &self.key)?;
        wire::put(to, &self.serial)?;
        wire::put(to, &self.kind.number())?;
        wire::put(to, &self.key_id)?;
        wire::put(to, &self.principals)?;
        wire::put(to, &self.valid_after)?;
        wire::put(to, &self.valid_before)?;
        wire::put(to, &encoded(&self.critical_options)?)?;
        wire::put(to, &encoded(&self.extensions)?)
    }

    /// What [`Contents::put`] or ssh-keygen wrote for a key of that algorithm.
    pub(super) fn take(from: &mut &[u8], algorithm: &str) -> Result<Self> {
        let contents = Contents {
            key: key::take_fields(from, algorithm)?,
            serial: wire::take(from)?,
            kind: Kind::of(wire::take(from)?)?,
            key_id: wire::take(from)?,
            principals: wire::take(from)?,
            valid_after: wire::take(from)?,
            valid_before: wire::take(from)?,
            critical_options: wire::nested(from, options)?,
            extensions: wire::nested(from, options)?,
        };
        plain("key ID", &contents.key_id)?;
        let names = &contents.principals;
        names.iter().try_for_each(|name| plain("principal", name))?;
        Ok(contents)
    }
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Kind::User => 1,
            Kind::Host => 2,
        }
    }

    fn of(number: u32) -> Result<Self> {
        match number {
            1 => Ok(Kind::User),
            2 => Ok(Kind::Host),
            _ => Err(Error::input("a certificate for neither user nor host")),
        }
    }
}

/// One word, which no reader takes for a pattern or for several.
fn principal(name: &str) -> Result<()> {
    let special = |c: char| c.is_whitespace() || c.is_control() || ",*?!\"'\\#".contains(c);
    match name.is_empty() || name.len() > MAX_NAME || name.contains(special) {
        true => Err(Error::input(format!("{name:?} cannot be a principal"))),
        false => Ok(()),
    }
}

/// Nothing here may add a line to a log, or to what a server reads.
fn plain(what: &str, text: &str) -> Result<()> {
    match text.contains(char::is_control) {
        true => Err(Error::input(format!("control characters in the {what}"))),
        false => Ok(()),
    }
}

/// Each value stands in a string of its own; flags have none.
fn encoded(options: &Options) -> Result<Vec<u8>> {
    let mut list = Vec::new();
    for (name, value) in options {
        let mut data = Vec::new();
        if !value.is_empty() {
            wire::put(&mut data, value)?;
        }
        wire::put(&mut list, name)?;
        wire::put(&mut list, &data)?;
    }
    Ok(list)
}

/// PROTOCOL.certkeys: sorted by name, each name once.
fn options(from: &mut &[u8]) -> Result<Options> {
    let mut options = Options::new();
    while !from.is_empty() {
        let name: String = wire::take(from)?;
        let value = wire::nested(from, |data| match data {
            [] => Ok(String::new()),
            _ => wire::take(data),
        })?;
        if options
            .last_key_value()
            .is_some_and(|(last, _)| *last >= name)
        {
            return Err(Error::input("options out of order, or one of them twice"));
        }
        plain("option", &name)?;
        plain("option", &value)?;
        options.insert(name, value);
    }
    Ok(options)
}
