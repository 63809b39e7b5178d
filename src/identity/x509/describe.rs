//! What a certificate says, for people and for JSON.

use std::fmt;

use base16ct::lower as hex;
use der::DateTime;
use der::oid::ObjectIdentifier;
use serde::Serialize;
use spki::SubjectPublicKeyInfoRef;
use x509_cert::ext::pkix::crl::CrlDistributionPoints;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};

use super::alt_name::AltName;
use super::certificate::Certificate;
use super::name::shown;
use super::serial::Serial;
use super::usage::ExtendedUsage;
use crate::error::Result;
use crate::identity::level::Level;
use crate::key::{Hash, PublicKey};

/// What a certificate says. Nothing of it was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Description {
    /// Whose it is: RFC 4514 text.
    pub subject: String,
    /// Other names of the holder.
    pub alt_names: Vec<String>,
    /// Who issued it: RFC 4514 text.
    pub issuer: String,
    /// Its number.
    pub serial: Serial,
    /// First second of validity, since 1970.
    pub not_before: u64,
    /// Last second of validity, since 1970.
    pub not_after: u64,
    /// Kind of the certified key, or the OID of its algorithm.
    pub key: String,
    /// Whether it is a CA's.
    pub ca: bool,
    /// Purposes; none sets no bounds.
    pub extended_usage: Vec<ExtendedUsage>,
    /// OIDs of its policies.
    pub policies: Vec<String>,
    /// The level that the policies state.
    pub level: Option<Level>,
    /// Where the issuer's revocation list is fetched.
    pub crl_urls: Vec<String>,
    /// SHA-256 of the whole, in hexadecimal.
    pub fingerprint: String,
}

/// Says what a certificate (DER) says.
///
/// # Errors
/// [`Error::BadInput`](crate::Error::BadInput) where it is not a certificate.
pub fn describe(der: &[u8]) -> Result<Description> {
    let certificate = Certificate::read(der)?;
    let known = &certificate.known;
    let policies: Vec<_> = known
        .policies
        .iter()
        .flatten()
        .map(ObjectIdentifier::to_string)
        .collect();
    Ok(Description {
        subject: certificate.subject.to_string(),
        alt_names: known.alt_names.iter().map(alt_name).collect(),
        issuer: certificate.issuer.to_string(),
        serial: certificate.serial.clone(),
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        key: key(&certificate.spki),
        ca: known.is_authority(),
        extended_usage: known.extended.clone().unwrap_or_default(),
        level: Level::stated_by(&policies),
        policies,
        crl_urls: known.crl.as_ref().map(urls).unwrap_or_default(),
        fingerprint: hex::encode_string(&Hash::Sha256.digest(der)),
    })
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usage: Vec<_> = self
            .extended_usage
            .iter()
            .map(ExtendedUsage::to_string)
            .collect();
        let rows = [
            ("subject", self.subject.clone()),
            ("names", self.alt_names.join(", ")),
            ("issuer", self.issuer.clone()),
            ("serial", self.serial.to_string()),
            ("valid from", date(self.not_before)),
            ("valid until", date(self.not_after)),
            ("key", self.key.clone()),
            ("CA", if self.ca { "yes" } else { "" }.to_owned()),
            ("for", usage.join(", ")),
            ("level", self.level.map_or("", Level::name).to_owned()),
            ("policies", self.policies.join(", ")),
            ("revocation", self.crl_urls.join(", ")),
            ("SHA-256", self.fingerprint.clone()),
        ];
        for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
            writeln!(f, "{name:<12} {}", shown(value))?;
        }
        Ok(())
    }
}

/// A time as RFC 3339 text.
fn date(unix_seconds: u64) -> String {
    let time = std::time::Duration::from_secs(unix_seconds);
    DateTime::from_unix_duration(time).map_or_else(|_| unix_seconds.to_string(), |t| t.to_string())
}

fn key(spki: &[u8]) -> String {
    let by_oid = || {
        let info = SubjectPublicKeyInfoRef::try_from(spki).ok()?;
        Some(info.algorithm.oid.to_string())
    };
    match PublicKey::from_spki(spki) {
        Ok(public) => public.kind().to_string(),
        Err(_) => by_oid().unwrap_or_default(),
    }
}

fn alt_name(general: &GeneralName) -> String {
    match (AltName::try_from(general), general) {
        (Ok(name), _) => name.to_string(),
        (_, GeneralName::DirectoryName(name)) => format!("name:{name}"),
        _ => "another".to_owned(),
    }
}

fn urls(points: &CrlDistributionPoints) -> Vec<String> {
    let names = points
        .0
        .iter()
        .filter_map(|point| match &point.distribution_point {
            Some(DistributionPointName::FullName(names)) => Some(names),
            _ => None,
        });
    let url = |name: &GeneralName| match name {
        GeneralName::UniformResourceIdentifier(url) => Some(url.to_string()),
        _ => None,
    };
    names.flatten().filter_map(url).collect()
}
