//! Names of subjects: X.501 names, and the other names of RFC 5280 §4.2.1.6.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use base16ct::lower as hex;
use der::asn1::{Ia5String, ObjectIdentifier, OctetString};
use der::{Any, Encode, Tag, Tagged};
use serde::{Deserialize, Serialize};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::ext::pkix::name::{GeneralName, HardwareModuleName, OtherName};
use x509_cert::name::Name;

use super::encoding;
use crate::error::{Error, Result};

/// Most attributes that a subject may have.
const MAX_ATTRIBUTES: usize = 32;
/// Longest URI and e-mail address, in bytes.
const MAX_TEXT: usize = 1024;
/// Longest serial number of a hardware module, in bytes.
const MAX_HARDWARE_SERIAL: usize = 64;

/// Upper bounds of RFC 5280 appendix A.1, in characters, where they are not 64.
const BOUNDS: &[(ObjectIdentifier, usize)] = &[
    (ObjectIdentifier::new_unwrap("2.5.4.7"), 128),
    (ObjectIdentifier::new_unwrap("2.5.4.8"), 128),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1"), 255),
];
const COUNTRY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.6");

/// An X.501 name whose every attribute is plain text within the bounds of RFC 5280. May be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subject(Name);

impl Subject {
    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first attribute of a type, by its short name (`CN`) or OID.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let wanted = AttributeTypeAndValue::from_str(&format!("{name}="))
            .ok()?
            .oid;
        let mut all = self.0.iter();
        text(&all.find(|attribute| attribute.oid == wanted)?.value)
    }

    /// The name, DER.
    pub fn to_der(&self) -> Result<Vec<u8>> {
        self.0.to_der().map_err(encoding)
    }

    pub(super) fn name(&self) -> Name {
        self.0.clone()
    }
}

impl TryFrom<Name> for Subject {
    type Error = Error;

    fn try_from(name: Name) -> Result<Self> {
        if name.iter().count() > MAX_ATTRIBUTES {
            return Err(Error::input(format!(
                "a name has at most {MAX_ATTRIBUTES} attributes"
            )));
        }
        name.iter().try_for_each(check)?;
        Ok(Subject(name))
    }
}

impl FromStr for Subject {
    type Err = Error;

    /// Reads the text of RFC 4514: the most specific attribute first, as in `CN=pump 7,O=Example`.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |_| {
            Error::input(format!(
                "{text:?} is no name as in RFC 4514; write it as CN=pump 7,O=Example, without blanks \
                 after commas"
            ))
        };
        if text.is_empty() {
            return Ok(Subject::default());
        }
        // Written by others as a separator; in a value it stands behind a backslash (RFC 4514 §2.4).
        let bare =
            |(at, _)| at == 0 || text.get(..at).is_some_and(|before| !before.ends_with('\\'));
        if text.match_indices(';').any(bare) || text.starts_with('/') {
            return Err(Error::input(
                "the parts of a name are separated by commas (RFC 4514)",
            ));
        }
        Subject::try_from(Name::from_str(text).map_err(bad)?)
    }
}

impl fmt::Display for Subject {
    /// The text of RFC 4514.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Subject {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.to_string()
    }
}

/// A name beside the subject's. As text: `dns:pump7.example`, `ip:192.0.2.7`,
/// `uri:https://pump7.example/`, `email:pump7@example`, `hw:1.3.6.1.4.1.32473.1:00a7`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AltName {
    /// A host's name; a wildcard in its first label is one too.
    Dns(String),
    /// An address.
    Ip(IpAddr),
    /// A URI with a scheme.
    Uri(String),
    /// A mailbox.
    Email(String),
    /// A hardware module's type and serial number (hardwareModuleName, RFC 4108 §5).
    HardwareModule {
        /// What kind of module: an OID of its maker's.
        type_oid: String,
        /// Which of them, 1 to 64 bytes.
        serial: Vec<u8>,
    },
}

impl AltName {
    /// # Errors
    /// [`Error::BadInput`] where it is not what its kind says it is.
    fn checked(self) -> Result<Self> {
        let fine = match &self {
            AltName::Dns(name) => is_dns(name),
            AltName::Ip(_) => true,
            AltName::Uri(uri) => is_uri(uri),
            AltName::Email(address) => is_email(address),
            AltName::HardwareModule { type_oid, serial } => {
                let right = 1..=MAX_HARDWARE_SERIAL;
                ObjectIdentifier::new(type_oid).is_ok() && right.contains(&serial.len())
            }
        };
        match fine {
            true => Ok(self),
            false => Err(Error::input(format!("{self} is no name of its kind"))),
        }
    }

    pub(super) fn general(&self) -> Result<GeneralName> {
        let ia5 = |text: &str| Ia5String::new(text).map_err(encoding);
        Ok(match self.clone().checked()? {
            AltName::Dns(name) => GeneralName::DnsName(ia5(&name)?),
            AltName::Ip(address) => GeneralName::from(address),
            AltName::Uri(uri) => GeneralName::UniformResourceIdentifier(ia5(&uri)?),
            AltName::Email(address) => GeneralName::Rfc822Name(ia5(&address)?),
            AltName::HardwareModule { type_oid, serial } => {
                GeneralName::OtherName(hardware(&type_oid, serial).map_err(encoding)?)
            }
        })
    }
}

impl TryFrom<&GeneralName> for AltName {
    type Error = Error;

    fn try_from(general: &GeneralName) -> Result<Self> {
        let other = || Error::input("an alternative name of a kind that devkey does not know");
        let name = match general {
            GeneralName::DnsName(name) => AltName::Dns(name.to_string()),
            GeneralName::UniformResourceIdentifier(uri) => AltName::Uri(uri.to_string()),
            GeneralName::Rfc822Name(address) => AltName::Email(address.to_string()),
            GeneralName::IpAddress(bytes) => AltName::Ip(address(bytes.as_bytes())?),
            GeneralName::OtherName(name) => match HardwareModuleName::from_other_name(name) {
                Ok(Some(module)) => AltName::HardwareModule {
                    type_oid: module.hw_type.to_string(),
                    serial: module.hw_serial_num.as_bytes().to_vec(),
                },
                _ => return Err(other()),
            },
            _ => return Err(other()),
        };
        name.checked()
    }
}

impl FromStr for AltName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::input(format!(
                "{text:?} is no alternative name; write dns:NAME, ip:ADDRESS, uri:URI, email:ADDRESS or \
                 hw:OID:HEX"
            ))
        };
        let (kind, value) = text.split_once(':').ok_or_else(bad)?;
        let name = match kind.to_ascii_lowercase().as_str() {
            "dns" => AltName::Dns(value.to_owned()),
            "ip" => AltName::Ip(value.parse().map_err(|_| bad())?),
            "uri" => AltName::Uri(value.to_owned()),
            "email" => AltName::Email(value.to_owned()),
            "hw" => {
                let (type_oid, serial) = value.split_once(':').ok_or_else(bad)?;
                AltName::HardwareModule {
                    type_oid: type_oid.to_owned(),
                    serial: hex::decode_vec(serial.to_ascii_lowercase()).map_err(|_| bad())?,
                }
            }
            _ => return Err(bad()),
        };
        name.checked()
    }
}

impl fmt::Display for AltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AltName::Dns(name) => write!(f, "dns:{name}"),
            AltName::Ip(address) => write!(f, "ip:{address}"),
            AltName::Uri(uri) => write!(f, "uri:{uri}"),
            AltName::Email(address) => write!(f, "email:{address}"),
            AltName::HardwareModule { type_oid, serial } => {
                write!(f, "hw:{type_oid}:{}", hex::encode_string(serial))
            }
        }
    }
}

impl TryFrom<String> for AltName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<AltName> for String {
    fn from(name: AltName) -> Self {
        name.to_string()
    }
}

/// Whether two names are the same: as bytes, or as text without regard to case, runs of blanks and
/// kind of string (RFC 5280 §7.1), as makers' chains want it.
pub(super) fn same(one: &Name, other: &Name) -> bool {
    let folded = |name: &Name| -> Option<Vec<Vec<(ObjectIdentifier, String)>>> {
        let part = |a: &AttributeTypeAndValue| {
            let words: Vec<_> = text(&a.value)?
                .split_whitespace()
                .map(str::to_lowercase)
                .collect();
            Some((a.oid, words.join(" ")))
        };
        name.iter_rdn()
            .map(|rdn| rdn.iter().map(part).collect())
            .collect()
    };
    one == other || folded(one).is_some_and(|one| Some(one) == folded(other))
}

/// The text of an attribute; `None` where it is of a kind that is not plain text.
fn text(value: &Any) -> Option<&str> {
    let text = std::str::from_utf8(value.value()).ok()?;
    let fine = match value.tag() {
        Tag::Utf8String => true,
        Tag::PrintableString => text.bytes().all(is_printable_string),
        Tag::Ia5String => text.is_ascii(),
        _ => false,
    };
    fine.then_some(text)
}

/// PrintableString: X.680 §41.4.
fn is_printable_string(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte)
}

fn check(attribute: &AttributeTypeAndValue) -> Result<()> {
    let AttributeTypeAndValue { oid, value } = attribute;
    let bound = BOUNDS.iter().find(|(bounded, _)| bounded == oid);
    let bound = bound.map_or(64, |(_, bound)| *bound);
    let fits = |text: &str| match *oid {
        COUNTRY => text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic()),
        _ => (1..=bound).contains(&text.chars().count()) && !text.contains(char::is_control),
    };
    match text(value).is_some_and(fits) {
        true => Ok(()),
        false => Err(Error::input(format!(
            "attribute {oid} of a name is not plain text of 1 to {bound} characters (a country has 2)"
        ))),
    }
}

/// RFC 1034 §3.5, with digits first (RFC 1123 §2.1) and a wildcard as RFC 9525 §6.3.
fn is_dns(name: &str) -> bool {
    let labels = name.strip_prefix("*.").unwrap_or(name);
    let label = |label: &str| {
        let middle = label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (1..=63).contains(&label.len())
            && middle
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && labels.split('.').all(label)
}

/// RFC 3986 §3.1: a scheme, and something behind it, of printable ASCII.
fn is_uri(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else {
        return false;
    };
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    uri.len() <= MAX_TEXT
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(letter)
        && !rest.is_empty()
        && rest
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte))
}

fn is_email(address: &str) -> bool {
    let Some((mailbox, host)) = address.rsplit_once('@') else {
        return false;
    };
    let letter = |byte: u8| byte.is_ascii_graphic() && !b"\"(),:;<>@[\\]".contains(&byte);
    (1..=64).contains(&mailbox.len())
        && mailbox.bytes().all(letter)
        && !host.starts_with('*')
        && is_dns(host)
}

fn address(bytes: &[u8]) -> Result<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Ok(four.into());
    }
    let sixteen = <[u8; 16]>::try_from(bytes);
    sixteen
        .map(IpAddr::from)
        .map_err(|_| Error::input("an address has 4 or 16 bytes"))
}

fn hardware(type_oid: &str, serial: Vec<u8>) -> der::Result<OtherName> {
    let module = HardwareModuleName {
        hw_type: ObjectIdentifier::new(type_oid)?,
        hw_serial_num: OctetString::new(serial)?,
    };
    OtherName::try_from(&module)
}

#[cfg(test)]
mod tests {
    use der::Decode;

    use super::*;

    #[test]
    fn subjects_are_read_back() {
        for text in [
            "CN=pump 7,O=Example\\, Inc.,C=DE",
            "",
            "CN=Zoë+SERIALNUMBER=7,DC=example",
        ] {
            let subject: Subject = text.parse().unwrap();
            assert_eq!(subject.to_string(), text);
            let der = subject.to_der().unwrap();
            assert_eq!(
                Subject::try_from(Name::from_der(&der).unwrap()).unwrap(),
                subject
            );
        }
        let subject: Subject = "CN=pump 7,O=Example".parse().unwrap();
        assert_eq!(subject.attribute("cn"), Some("pump 7"));
        assert_eq!(subject.attribute("C"), None);
    }
}
