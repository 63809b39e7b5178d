//! Certificates, taken apart.

use der::{Decode, Encode};
use x509_cert::TbsCertificate;
use x509_cert::certificate::Version;
use x509_cert::name::Name;
use x509_cert::time::Time;

use super::known::Known;
use super::serial::Serial;
use super::signed::Signed;
use super::{MAX_LEN, encoding};
use crate::error::{Error, Result};
use crate::key::PublicKey;

/// Whether a certificate (DER) is for this key.
///
/// # Errors
/// [`Error::BadInput`] where it is not a certificate.
pub fn matches_key(der: &[u8], public: &PublicKey) -> Result<bool> {
    let certified = PublicKey::from_spki(&Certificate::read(der)?.spki);
    Ok(certified.is_ok_and(|certified| certified == *public))
}

/// The last second in which a certificate (DER) is valid, since 1970.
///
/// # Errors
/// [`Error::BadInput`] where it is not a certificate.
pub fn expiry(der: &[u8]) -> Result<u64> {
    Ok(Certificate::read(der)?.not_after)
}

/// A certificate. Its signature was not looked at.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    pub(super) der: Vec<u8>,
    pub(super) version: Version,
    pub(super) serial: Serial,
    pub(super) subject: Name,
    pub(super) issuer: Name,
    /// Seconds since 1970.
    pub(super) not_before: u64,
    /// Seconds since 1970.
    pub(super) not_after: u64,
    /// The certified key, DER.
    pub(super) spki: Vec<u8>,
    pub(super) known: Known,
}

impl Certificate {
    pub(super) fn read(der: &[u8]) -> Result<Self> {
        let signed = Signed::read(der, MAX_LEN, "an X.509 certificate")?;
        let body = TbsCertificate::from_der(&signed.body()?)
            .map_err(|e| Error::input(format!("not an X.509 certificate: {e}")))?;
        // RFC 5280 §4.1.1.2: what stands outside of the signature must repeat what is under it.
        if signed.algorithm() != body.signature().into() {
            return Err(Error::input(
                "the certificate names two signature algorithms",
            ));
        }
        let seconds = |time: Time| time.to_unix_duration().as_secs();
        Ok(Certificate {
            der: der.to_vec(),
            version: body.version(),
            serial: Serial::read(body.serial_number()),
            subject: body.subject().clone(),
            issuer: body.issuer().clone(),
            not_before: seconds(body.validity().not_before),
            not_after: seconds(body.validity().not_after),
            spki: body.subject_public_key_info().to_der().map_err(encoding)?,
            known: Known::read(body.extensions().map_or(&[], |all| all.as_slice()))?,
        })
    }

    /// Whether this key signed it.
    pub(super) fn verify(&self, spki: &[u8]) -> Result<()> {
        Signed::read(&self.der, MAX_LEN, "an X.509 certificate")?.verify(spki)
    }
}
