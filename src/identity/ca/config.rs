//! `ca.toml`: what a CA is, and what it issues.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Pattern;
use crate::error::{Error, Result};
use crate::identity::flow::{Digest, MAX_NAME, Request, SshKind, plain};
use crate::identity::level::Level;
use crate::identity::x509::ExtendedUsage;

/// The one version that there is.
const VERSION: u32 = 1;
/// Longest time that a device gets for its answer, in seconds: 30 days, for USB sticks by post.
const MAX_ANSWER_WITHIN: u64 = 30 * 86400;
/// Longest life of a certificate, in days.
const MAX_DAYS: u32 = 36500;

/// What stands in `ca.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// 1.
    pub version: u32,
    /// What devices call the CA.
    pub name: String,
    /// Name of the token that has its key.
    pub token: String,
    /// The key: SHA-256 of its SubjectPublicKeyInfo.
    pub key: Digest,
    /// Seconds that a device has for its answer.
    #[serde(default = "an_hour")]
    pub answer_within: u64,
    /// Certificate policies (OIDs) that state levels here, in the place of devkey's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<Level, Vec<String>>,
    /// What is issued, by name.
    pub profiles: BTreeMap<String, Profile>,
}

/// What is issued to a kind of device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// How long certificates are valid.
    pub days: u32,
    /// The level that has to be proven.
    #[serde(default = "Profile::any_level")]
    pub level: Level,
    /// Whether X.509 certificates are issued.
    #[serde(default = "Profile::yes")]
    pub x509: bool,
    /// Whether SSH certificates are issued, and to whom.
    #[serde(default)]
    pub ssh: Vec<SshKind>,
    /// The names that may be had; none but these.
    #[serde(default)]
    pub names: Vec<Pattern>,
    /// Purposes of X.509 certificates.
    #[serde(default)]
    pub extended_usage: Vec<ExtendedUsage>,
    /// Where the revocation list is fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl_url: Option<String>,
    /// What a server grants to SSH users, such as `permit-pty`.
    #[serde(default)]
    pub ssh_extensions: Vec<String>,
}

fn an_hour() -> u64 {
    3600
}

impl Config {
    /// Reads `ca.toml`.
    ///
    /// # Errors
    /// [`Error::BadConfig`] with the line, [`Error::NewerRecord`].
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let bad = |line, reason: String| Error::BadConfig {
            path: path.to_owned(),
            line,
            reason,
        };
        let config: Config = toml::from_str(text).map_err(|e: toml::de::Error| {
            let start = e.span().unwrap_or_default().start;
            let line = text
                .bytes()
                .take(start)
                .filter(|byte| *byte == b'\n')
                .count()
                + 1;
            bad(line, e.message().to_owned())
        })?;
        if config.version > VERSION {
            return Err(Error::NewerRecord {
                path: path.to_owned(),
                found: config.version,
                known: VERSION,
            });
        }
        config.sound().map_err(|e| bad(0, e.to_string()))?;
        Ok(config)
    }

    /// The contents of the file.
    pub fn encode(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::Internal(format!("ca.toml: {e}")))
    }

    /// # Errors
    /// [`Error::BadConfig`] where it could not be read again.
    pub(super) fn check(&self, text: &str) -> Result<()> {
        Config::parse(text, Path::new("ca.toml")).map(|_| ())
    }

    /// The profile of that name; without a name the only one, or the one called "device".
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn profile(&self, name: Option<&str>) -> Result<(&str, &Profile)> {
        let only = self
            .profiles
            .keys()
            .next()
            .filter(|_| self.profiles.len() == 1);
        let wanted = name.or(only.map(String::as_str)).unwrap_or("device");
        let found = self.profiles.get_key_value(wanted);
        found
            .map(|(name, profile)| (name.as_str(), profile))
            .ok_or_else(|| {
                let known: Vec<&str> = self.profiles.keys().map(String::as_str).collect();
                Error::NotFound(format!(
                    "profile {wanted:?} (there are: {})",
                    known.join(", ")
                ))
            })
    }

    fn sound(&self) -> Result<()> {
        plain("the CA's name", &self.name, MAX_NAME)?;
        if !(1..=MAX_ANSWER_WITHIN).contains(&self.answer_within) {
            return Err(Error::input("answer_within is 1 s to 30 days, in seconds"));
        }
        if self.profiles.is_empty() {
            return Err(Error::input("there is no profile: [profiles.device]"));
        }
        for (name, profile) in &self.profiles {
            plain("a profile's name", name, MAX_NAME)?;
            profile
                .sound()
                .map_err(|e| Error::input(format!("profile {name}: {e}")))?;
        }
        Ok(())
    }
}

impl Profile {
    fn any_level() -> Level {
        Level::Software
    }

    fn yes() -> bool {
        true
    }

    fn sound(&self) -> Result<()> {
        if !(1..=MAX_DAYS).contains(&self.days) {
            return Err(Error::input(format!("days is 1 to {MAX_DAYS}")));
        }
        match self.x509 || !self.ssh.is_empty() {
            true => Ok(()),
            false => Err(Error::input("it issues neither X.509 nor SSH certificates")),
        }
    }

    /// Whether this may be issued to a device that has proven `level`.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] would be of a key; this is [`Error::BadInput`] with what is not allowed.
    pub(super) fn check(&self, request: &Request, level: Level) -> Result<()> {
        if level < self.level {
            let wanted = self.level;
            return Err(Error::input(format!(
                "level {wanted} is wanted, and {level} is what the device can show"
            )));
        }
        match request.ssh() {
            Some(ssh) if !self.ssh.contains(&ssh.kind) => {
                let kind = ssh.kind.name();
                return Err(Error::input(format!(
                    "the profile issues no SSH certificates to a {kind}"
                )));
            }
            None if !self.x509 => {
                return Err(Error::input(
                    "the profile issues SSH certificates alone, and the request asks for none",
                ));
            }
            _ => {}
        }
        self.check_names(request)?;
        self.check_usage(request)
    }

    fn check_names(&self, request: &Request) -> Result<()> {
        let csr = request.csr();
        let mut names: Vec<(String, String)> = Vec::new();
        if self.x509 && !csr.subject.is_empty() {
            names.push(("subject".to_owned(), csr.subject.to_string()));
        }
        for alt_name in csr.alt_names.iter().filter(|_| self.x509) {
            let text = alt_name.to_string();
            let (kind, name) = text.split_once(':').unwrap_or_default();
            names.push((kind.to_owned(), name.to_owned()));
        }
        let principals = request.ssh().into_iter().flat_map(|ssh| &ssh.principals);
        names.extend(principals.map(|name| ("principal".to_owned(), name.clone())));
        let allowed = |(kind, name): &&(String, String)| {
            self.names.iter().any(|pattern| pattern.allows(kind, name))
        };
        match names.iter().find(|name| !allowed(name)) {
            None => Ok(()),
            Some((kind, name)) => Err(Error::input(format!(
                "the name {kind}:{name} is not allowed by the profile"
            ))),
        }
    }

    fn check_usage(&self, request: &Request) -> Result<()> {
        let csr = request.csr();
        let granted = |usage: &&ExtendedUsage| self.extended_usage.contains(usage);
        match csr.extended_usage.iter().find(|usage| !granted(usage)) {
            Some(usage) if self.x509 => Err(Error::input(format!(
                "the purpose {usage} is not allowed by the profile"
            ))),
            _ => Ok(()),
        }
    }
}
