//! Who issues.

use x509_cert::name::Name;

use super::certificate::Certificate;
use super::extensions;
use crate::error::{Error, Result};
use crate::identity::signer::Signer;
use crate::key::PublicKey;

/// Who signs: what of a CA's certificate goes into those that it issues.
#[derive(Debug, Clone)]
pub struct Issuer {
    public: PublicKey,
    pub(super) subject: Name,
    pub(super) key_id: Vec<u8>,
    validity: (u64, u64),
    signs_lists: bool,
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
            signs_lists: certificate
                .known
                .key_usage
                .is_none_or(|bits| bits.crl_sign()),
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

    /// Whether its own certificate lets it sign lists of what is revoked (cRLSign, RFC 5280 §4.2.1.3).
    pub fn signs_lists(&self) -> bool {
        self.signs_lists
    }

    /// The first second in which its own certificate is valid, since 1970: what it issues begins no earlier.
    pub fn not_before(&self) -> u64 {
        self.validity.0
    }

    /// The last second in which its own certificate is valid, since 1970: what it issues ends no later.
    pub fn not_after(&self) -> u64 {
        self.validity.1
    }

    /// # Errors
    /// [`Error::BadInput`] where it would outlive this CA's own certificate, or begin before it.
    pub(super) fn covers(&self, not_before: u64, not_after: u64) -> Result<()> {
        match not_before >= self.validity.0 && not_after <= self.validity.1 {
            true => Ok(()),
            false => Err(Error::input(
                "the certificate would be valid when the CA's is not",
            )),
        }
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
