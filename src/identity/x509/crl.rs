//! Certificate revocation lists (RFC 5280 §5).

use der::Decode;
use der::asn1::Uint;
use serde::{Deserialize, Serialize};
use x509_cert::certificate::Version;
use x509_cert::crl::{RevokedCert, TbsCertList};
use x509_cert::ext::pkix::{CrlNumber, CrlReason};

use super::certificate::Certificate;
use super::extensions::{authority_key, extension};
use super::issuer::Issuer;
use super::name::same;
use super::serial::Serial;
use super::signed::{self, Signed};
use super::{encoding, time};
use crate::error::{Error, Result};
use crate::identity::signer::Signer;

/// Longest list that is looked at, in bytes: hundreds of thousands of certificates.
const MAX_CRL: usize = 16 << 20;

/// Why a certificate is no longer good (RFC 5280 §5.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Nothing is said.
    Unspecified,
    /// Another may have the private key: lost, stolen, copied.
    KeyCompromise,
    /// What the certificate says is no longer so.
    AffiliationChanged,
    /// Another certificate took its place.
    Superseded,
    /// The device is out of service.
    CessationOfOperation,
    /// The level or the right was withdrawn.
    PrivilegeWithdrawn,
}

/// A certificate that is no longer good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Which.
    pub serial: Serial,
    /// Since when, in seconds since 1970.
    pub at: u64,
    /// Why.
    pub reason: Reason,
}

/// Makes a list: DER. `number` is greater than that of each earlier one; times are in seconds since
/// 1970.
///
/// # Errors
/// [`Error::BadInput`] where the next one would be due before this one, or the key is not the issuer's;
/// and those of signing.
pub fn crl(
    ca: &dyn Signer,
    issuer: &Issuer,
    number: u64,
    (this_update, next_update): (u64, u64),
    revoked: &[Revoked],
) -> Result<Vec<u8>> {
    issuer.check(ca)?;
    if next_update <= this_update {
        return Err(Error::input("the next list is due after this one"));
    }
    let entries = revoked.iter().map(entry).collect::<Result<Vec<_>>>()?;
    let body = TbsCertList {
        version: Version::V2,
        signature: signed::algorithm(ca.public().kind()),
        issuer: issuer.subject.clone(),
        this_update: time(this_update)?,
        next_update: Some(time(next_update)?),
        // RFC 5280 §5.1.2.6: absent where there is none.
        revoked_certificates: (!entries.is_empty()).then_some(entries),
        crl_extensions: Some(vec![
            authority_key(&issuer.key_id)?,
            extension(
                false,
                &CrlNumber(Uint::new(&number.to_be_bytes()).map_err(encoding)?),
            )?,
        ]),
    };
    signed::sign(ca, &body)
}

/// Whether a list (DER) of the certificate's issuer names the certificate.
///
/// # Errors
/// [`Error::BadInput`] where one is not what it should be, the list is another issuer's or not current
/// `at` that second since 1970; [`Error::Crypto`] where the issuer's key did not sign it.
pub fn is_revoked(list: &[u8], certificate: &[u8], issuer: &[u8], at: u64) -> Result<bool> {
    let (certificate, issuer) = (Certificate::read(certificate)?, Certificate::read(issuer)?);
    let signed = Signed::read(list, MAX_CRL, "a revocation list")?;
    let body: TbsCertList = TbsCertList::from_der(&signed.body()?)
        .map_err(|e| Error::input(format!("not a revocation list: {e}")))?;
    signed.verify(&issuer.spki)?;
    if !same(&body.issuer, &certificate.issuer) || !same(&body.issuer, &issuer.subject) {
        return Err(Error::input("the revocation list is another issuer's"));
    }
    if issuer.known.key_usage.is_some_and(|bits| !bits.crl_sign()) {
        return Err(Error::input("the issuer's key is not for revocation lists"));
    }
    if signed.algorithm() != (&body.signature).into() || !understood(&body) {
        return Err(Error::input(
            "the revocation list is of a kind that is unknown",
        ));
    }
    let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
    let next = body.next_update.map_or(0, seconds);
    if !(seconds(body.this_update)..=next).contains(&at) {
        return Err(Error::input("the revocation list is not current"));
    }
    let entries = body.revoked_certificates.unwrap_or_default();
    Ok(entries
        .iter()
        .any(|entry| Serial::read(&entry.serial_number) == certificate.serial))
}

fn entry(revoked: &Revoked) -> Result<RevokedCert> {
    // RFC 5280 §5.3.1: unspecified is said by saying nothing.
    let code = match revoked.reason {
        Reason::Unspecified => None,
        Reason::KeyCompromise => Some(CrlReason::KeyCompromise),
        Reason::AffiliationChanged => Some(CrlReason::AffiliationChanged),
        Reason::Superseded => Some(CrlReason::Superseded),
        Reason::CessationOfOperation => Some(CrlReason::CessationOfOperation),
        Reason::PrivilegeWithdrawn => Some(CrlReason::PrivilegeWithdrawn),
    };
    let reason = code.map(|code| extension(false, &code)).transpose()?;
    Ok(RevokedCert {
        serial_number: revoked.serial.number()?,
        revocation_date: time(revoked.at)?,
        crl_entry_extensions: reason.map(|reason| vec![reason]),
    })
}

/// A critical extension would say that the list is a part only, or another's too.
fn understood(body: &TbsCertList) -> bool {
    let entries = body.revoked_certificates.iter().flatten();
    let of_entries = entries.filter_map(|entry| entry.crl_entry_extensions.as_ref());
    let mut all = of_entries.chain(&body.crl_extensions).flatten();
    body.version == Version::V2 && all.all(|extension| !extension.critical)
}
