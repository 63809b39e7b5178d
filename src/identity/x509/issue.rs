//! Certificates, made.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::rand;
use base16ct::lower as hex;
use der::{Decode, Sequence};
use serde::{Deserialize, Serialize};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::certificate::Version;
use x509_cert::ext::Extensions;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::Validity;

use super::certificate::Certificate;
use super::extensions::{self, ExtendedUsage};
use super::name::{AltName, Subject};
use super::{encoding, signed, time};
use crate::error::{Error, Result};
use crate::identity::signer::Signer;
use crate::key::{PublicKey, Usage};

/// Longest serial number, in bytes (RFC 5280 §4.1.2.2).
const MAX_SERIAL: usize = 20;

/// A certificate's serial number: positive, of at most 20 bytes. As text: hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial(Vec<u8>);

impl Serial {
    /// From big-endian bytes; leading zeros do not count.
    ///
    /// # Errors
    /// [`Error::BadInput`] for zero, and for what takes more than 20 bytes as a signed number.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let bytes = bytes.get(zeros..).unwrap_or_default();
        let sign = usize::from(bytes.first().is_some_and(|byte| *byte >= 0x80));
        match (1..=MAX_SERIAL).contains(&(bytes.len() + sign)) {
            true => Ok(Serial(bytes.to_vec())),
            false => Err(Error::input(
                "a serial number is positive and has at most 20 bytes",
            )),
        }
    }

    /// A new one: 127 random bits.
    ///
    /// # Errors
    /// [`Error::Crypto`] where there are no random numbers.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        rand::fill(&mut bytes)?;
        if let Some(first) = bytes.first_mut() {
            // Always as long, and positive.
            *first = *first & 0x7f | 0x40;
        }
        Serial::new(&bytes)
    }

    /// Big-endian, without leading zeros.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As it stands in a certificate, that of another CA too, which may be zero or negative.
    pub(super) fn read(serial: &SerialNumber) -> Self {
        let bytes = serial.as_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Serial(bytes.get(zeros..).unwrap_or_default().to_vec())
    }

    pub(super) fn number(&self) -> Result<SerialNumber> {
        SerialNumber::new(&self.0).map_err(encoding)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_string(&self.0))
    }
}

impl FromStr for Serial {
    type Err = Error;

    /// Hexadecimal of either case, with or without colons.
    fn from_str(text: &str) -> Result<Self> {
        let digits = text.replace(':', "").to_ascii_lowercase();
        let whole = format!("{}{digits}", if digits.len() % 2 == 1 { "0" } else { "" });
        let bytes = hex::decode_vec(&whole)
            .map_err(|_| Error::input(format!("{text:?} is no serial number in hexadecimal")))?;
        Serial::new(&bytes)
    }
}

impl TryFrom<String> for Serial {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> Self {
        serial.to_string()
    }
}

/// What a certificate is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSpec {
    /// Its number; no other certificate of the issuer's has it.
    pub serial: Serial,
    /// The key that it certifies.
    pub public: PublicKey,
    /// Who holds that key.
    pub subject: Subject,
    /// Other names of the holder.
    pub alt_names: Vec<AltName>,
    /// First second of validity, since 1970.
    pub not_before: u64,
    /// Last second of validity, since 1970.
    pub not_after: u64,
    /// What the key may be used for. Of no meaning for a CA, which signs certificates and lists.
    pub key_usage: Usage,
    /// Purposes; none sets no bounds.
    pub extended_usage: Vec<ExtendedUsage>,
    /// OIDs of certificate policies; those of a [`Level`](crate::identity::level::Level) state it. A CA
    /// below the root needs [`ANY_POLICY`](super::ANY_POLICY), or its certificates' policies are void.
    pub policies: Vec<String>,
    /// Whether this is a CA, and how many CAs there may be below it.
    pub ca: Option<Authority>,
    /// Where the issuer's revocation list is fetched.
    pub crl_url: Option<String>,
}

/// What makes a CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// How many CAs may stand between it and a device; any number where there is none.
    pub path_len: Option<u8>,
}

/// Who signs: what of a CA's certificate goes into those that it issues.
#[derive(Debug, Clone)]
pub struct Issuer {
    public: PublicKey,
    pub(super) subject: Name,
    pub(super) key_id: Vec<u8>,
    validity: (u64, u64),
}

impl Issuer {
    /// From the CA's own certificate (DER).
    ///
    /// # Errors
    /// [`Error::BadInput`] where it is not a certificate, or not a CA's.
    pub fn from_certificate(der: &[u8]) -> Result<Self> {
        let certificate = Certificate::read(der)?;
        if !certificate.known.is_authority() || certificate.subject.is_empty() {
            return Err(Error::input("not the certificate of a CA"));
        }
        let public = PublicKey::from_spki(&certificate.spki)?;
        let key_id = match certificate.known.subject_key {
            Some(id) => id,
            None => extensions::key_id(&public)?,
        };
        Ok(Issuer {
            public,
            subject: certificate.subject,
            key_id,
            validity: (certificate.not_before, certificate.not_after),
        })
    }

    /// The CA's key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Who it is, as text (RFC 4514).
    pub fn subject(&self) -> String {
        self.subject.to_string()
    }

    /// The last second in which its own certificate is valid, since 1970: what it issues ends no later.
    pub fn not_after(&self) -> u64 {
        self.validity.1
    }

    /// # Errors
    /// [`Error::BadInput`] where `signer` is not this CA's key.
    pub(super) fn check(&self, signer: &dyn Signer) -> Result<()> {
        match signer.public() == &self.public {
            true => Ok(()),
            false => Err(Error::input(
                "the key is not the one of the CA's certificate",
            )),
        }
    }
}

/// Issues a certificate: DER.
///
/// # Errors
/// [`Error::BadInput`] for a specification that contradicts itself or the CA's certificate,
/// [`Error::Unsupported`] for a usage that the key cannot have, and those of signing.
pub fn issue(ca: &dyn Signer, issuer: &Issuer, spec: &CertificateSpec) -> Result<Vec<u8>> {
    issuer.check(ca)?;
    if spec.not_before < issuer.validity.0 || spec.not_after > issuer.validity.1 {
        return Err(Error::input(
            "the certificate would be valid when the CA's is not",
        ));
    }
    sign(ca, issuer.subject.clone(), &issuer.key_id, spec)
}

/// Makes a root: the certificate of a CA that signs itself. DER.
///
/// # Errors
/// As [`issue`].
pub fn self_signed(ca: &dyn Signer, spec: &CertificateSpec) -> Result<Vec<u8>> {
    if spec.ca.is_none() || &spec.public != ca.public() {
        return Err(Error::input(
            "who signs itself is a CA, and its own key is certified",
        ));
    }
    sign(
        ca,
        spec.subject.name(),
        &extensions::key_id(&spec.public)?,
        spec,
    )
}

/// TBSCertificate (RFC 5280 §4.1) as devkey makes it. The type of `x509-cert` cannot be filled without
/// its builder, which brings SHA-1.
#[derive(Sequence)]
struct Body {
    #[asn1(
        context_specific = "0",
        tag_mode = "EXPLICIT",
        default = "Default::default"
    )]
    version: Version,
    serial_number: SerialNumber,
    signature: AlgorithmIdentifierOwned,
    issuer: Name,
    validity: Validity,
    subject: Name,
    subject_public_key_info: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Extensions>,
}

fn sign(ca: &dyn Signer, issuer: Name, key_id: &[u8], spec: &CertificateSpec) -> Result<Vec<u8>> {
    consistent(spec)?;
    let spki = SubjectPublicKeyInfoOwned::from_der(&spec.public.to_spki()).map_err(encoding)?;
    let body = Body {
        version: Version::V3,
        serial_number: spec.serial.number()?,
        signature: signed::algorithm(ca.public().kind()),
        issuer,
        validity: Validity::new(time(spec.not_before)?, time(spec.not_after)?),
        subject: spec.subject.name(),
        subject_public_key_info: spki,
        extensions: Some(extensions_of(key_id, spec)?),
    };
    signed::sign(ca, &body)
}

fn consistent(spec: &CertificateSpec) -> Result<()> {
    let nameless = spec.subject.is_empty();
    if nameless && (spec.ca.is_some() || spec.alt_names.is_empty()) {
        return Err(Error::input(
            "a certificate needs a subject, or a device's an alternative name",
        ));
    }
    if spec.not_before > spec.not_after {
        return Err(Error::input("the certificate would end before it begins"));
    }
    match spec.ca {
        Some(_) => Ok(()),
        None => spec.public.kind().check_usage(spec.key_usage),
    }
}

fn extensions_of(issuer_key: &[u8], spec: &CertificateSpec) -> Result<Extensions> {
    let mut all = match spec.ca {
        Some(authority) => extensions::authority(authority.path_len)?.to_vec(),
        None => vec![
            extensions::no_authority()?,
            extensions::key_usage(spec.key_usage)?,
        ],
    };
    all.push(extensions::subject_key(&extensions::key_id(&spec.public)?)?);
    all.push(extensions::authority_key(issuer_key)?);
    if !spec.alt_names.is_empty() {
        all.push(extensions::alt_names(
            &spec.alt_names,
            spec.subject.is_empty(),
        )?);
    }
    if !spec.extended_usage.is_empty() {
        all.push(extensions::extended_usage(&spec.extended_usage)?);
    }
    if !spec.policies.is_empty() {
        all.push(extensions::policies(&spec.policies)?);
    }
    if let Some(url) = &spec.crl_url {
        all.push(extensions::crl_at(url)?);
    }
    Ok(all)
}
