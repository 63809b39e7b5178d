//! Certificates, made.

use der::{Decode, Sequence};
use serde::{Deserialize, Serialize};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::certificate::Version;
use x509_cert::ext::Extensions;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::Validity;

use super::alt_name::AltName;
use super::extensions;
use super::issuer::Issuer;
use super::name::Subject;
use super::serial::Serial;
use super::usage::ExtendedUsage;
use super::{encoding, signed, time};
use crate::error::{Error, Result};
use crate::identity::signer::Signer;
use crate::key::{PublicKey, Usage};

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

/// Issues a certificate: DER.
///
/// # Errors
/// [`Error::BadInput`] for a specification that contradicts itself or the CA's certificate,
/// [`Error::Unsupported`] for a usage that the key cannot have, and those of signing.
pub fn issue(ca: &dyn Signer, issuer: &Issuer, spec: &CertificateSpec) -> Result<Vec<u8>> {
    issuer.check(ca)?;
    issuer.covers(spec.not_before, spec.not_after)?;
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
