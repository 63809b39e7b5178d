//! What a CA asks of a TPM before it believes that a key lives there, without a TPM of its own.
//!
//! 1. The device names its endorsement key (EK), for which the TPM's maker has given a certificate,
//!    and an attestation key (AK), a restricted signing key: [`Evidence::check`]. That the
//!    certificate is of a maker whom the CA trusts is for [`chain`](super) to say.
//! 2. [`make_credential`] encrypts a secret so that only a TPM which holds both gives it back:
//!    whoever returns it has shown that the AK's public area, attributes and all, is one of an object
//!    in that TPM.
//! 3. The AK, which signs nothing from outside the TPM that looks like an attestation, certifies the
//!    device's key: [`verify_certify`].
//!
//! None of the steps is worth anything without the other two. Structures are those of TPM 2.0
//! Library part 2, read strictly: what is left over, too long or of another algorithm is refused,
//! and each check that fails says which.

mod credential;
mod kdf;
mod reader;
mod structures;
mod verify;

use der::Decode;
use serde::{Deserialize, Serialize};
use x509_cert::Certificate;
use x509_cert::ext::pkix::KeyUsage;

pub use credential::{MAX_SECRET, make_credential};
pub use verify::{check_ak, verify_certify};

use crate::error::{Error, Result};
use crate::key::PublicKey;
use structures::Public;

/// Longest certificate of an EK in bytes, and longest intermediate. Real ones have up to 2 KiB.
pub const MAX_CERTIFICATE: usize = 8 * 1024;
/// Most intermediates beside it.
pub const MAX_INTERMEDIATES: usize = 8;

/// Which TPM a device says that it has, and by which key that TPM will attest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The EK's certificate, DER.
    pub ek_certificate: Vec<u8>,
    /// What the TPM has of the chain above it, DER each.
    pub intermediates: Vec<Vec<u8>>,
    /// The EK: TPMT_PUBLIC.
    pub ek_public: Vec<u8>,
    /// The AK: TPMT_PUBLIC.
    pub ak_public: Vec<u8>,
}

/// What [`Evidence::check`] has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The EK's public key, which is the certificate's.
    pub ek: PublicKey,
    /// The AK's public key.
    pub ak: PublicKey,
    /// The AK's Name (part 1 §16), for [`make_credential`].
    pub ak_name: Vec<u8>,
}

impl Evidence {
    /// Checks all that can be seen without a trust anchor: that the EK is a storage key that cannot
    /// leave its TPM and is the key of its certificate, which does not let it sign, and the AK as
    /// [`check_ak`] does. The chain of the certificate is not looked at.
    ///
    /// # Errors
    /// [`Error::BadInput`] with the check that failed.
    pub fn check(&self) -> Result<Checked> {
        self.bounded()?;
        let ek = Public::parse(&self.ek_public).map_err(|e| about("the endorsement key", e))?;
        verify::is_ek(&ek)?;
        certified(&self.ek_certificate, &ek.key)?;
        let ak = verify::ak(&self.ak_public)?;
        Ok(Checked {
            ek: ek.key,
            ak_name: ak.name,
            ak: ak.key,
        })
    }

    fn bounded(&self) -> Result<()> {
        let mut certificates = self.intermediates.iter().chain([&self.ek_certificate]);
        match self.intermediates.len() <= MAX_INTERMEDIATES
            && certificates.all(|der| der.len() <= MAX_CERTIFICATE)
        {
            true => Ok(()),
            false => Err(Error::input(format!(
                "an endorsement certificate has at most {MAX_CERTIFICATE} bytes and \
                 {MAX_INTERMEDIATES} intermediates"
            ))),
        }
    }
}

/// The public key and the Name of an object, from its TPMT_PUBLIC.
pub fn object(public: &[u8]) -> Result<(PublicKey, Vec<u8>)> {
    Public::parse(public).map(|public| (public.key, public.name))
}

/// Whether a certificate is of this EK and does not let it sign: one that may sign is not restricted
/// to what a TPM decrypts for itself, and could open a credential for an AK made of thin air (TCG EK
/// Credential Profile §3.2.14, key usage).
fn certified(der: &[u8], ek: &PublicKey) -> Result<()> {
    const WHAT: &str = "the endorsement certificate";
    let key = PublicKey::from_certificate(der).map_err(|e| about(WHAT, e))?;
    if key != *ek {
        return Err(Error::input(format!(
            "{WHAT} is of another endorsement key"
        )));
    }
    let bad = |e| Error::input(format!("{WHAT}: {e}"));
    let body = Certificate::from_der(der).map_err(bad)?;
    let usage = body.tbs_certificate().get_extension::<KeyUsage>();
    match usage.map_err(bad)? {
        Some((_, usage)) if usage.digital_signature() => Err(Error::input(format!(
            "{WHAT} is of a key that may sign: an endorsement key that is not restricted proves \
             nothing"
        ))),
        _ => Ok(()),
    }
}

/// Puts what an error is about in front of it.
fn about(what: &str, error: Error) -> Error {
    match error {
        Error::BadInput(reason) => Error::input(format!("{what}: {reason}")),
        other => other,
    }
}
