//! The CA's own certificate: it is a root, or below another CA.

use super::CLOCK_SKEW;
use crate::error::{Error, Result};
use crate::identity::signer::Signer;
use crate::identity::x509::chain::{self, Purpose};
use crate::identity::x509::{self, CertificateSpec, Issuer, Serial, Subject};
use crate::key::Usage;

/// Where a new CA has its certificate from.
#[derive(Debug, Clone)]
pub enum Own {
    /// It signs itself.
    Root {
        /// Its subject.
        subject: Subject,
        /// First second of its validity.
        not_before: u64,
        /// Last second of its validity.
        not_after: u64,
    },
    /// A CA above it has signed it.
    Below {
        /// Its certificate and all above it, the root among them, in any order: DER.
        certificates: Vec<Vec<u8>>,
        /// The second at which they are looked at.
        at: u64,
    },
}

impl Own {
    /// The certificate and those above it, the root last.
    pub(super) fn chain(&self, signer: &dyn Signer) -> Result<Vec<Vec<u8>>> {
        match self {
            Own::Root {
                subject,
                not_before,
                not_after,
            } => {
                let mut spec = spec(signer, subject.clone(), (*not_before, *not_after))?;
                spec.not_before = spec.not_before.saturating_sub(CLOCK_SKEW);
                spec.ca = Some(x509::Authority { path_len: Some(0) });
                Ok(vec![x509::self_signed(signer, &spec)?])
            }
            Own::Below { certificates, at } => below(signer, certificates, *at),
        }
    }
}

/// Puts the certificates in order. What they allow below the CA is tried with a certificate that nobody gets:
/// a root that allows no CA below its own would else be found by the first device's peers.
fn below(signer: &dyn Signer, all: &[Vec<u8>], at: u64) -> Result<Vec<Vec<u8>>> {
    let own = own(signer, all)?;
    let issuer = Issuer::from_certificate(own)?;
    if !issuer.signs_lists() {
        return Err(Error::input(
            "the CA's certificate has no cRLSign in keyUsage: nobody would take its lists of what is revoked",
        ));
    }
    let trial = spec(signer, "CN=trial".parse()?, (at, at))?;
    let trial = x509::issue(signer, &issuer, &trial)?;
    let is_root = |der: &Vec<u8>| x509::describe(der).is_ok_and(|said| said.subject == said.issuer);
    let (roots, between): (Vec<_>, Vec<_>) = all.iter().cloned().partition(is_root);
    if roots.is_empty() {
        return Err(Error::input(
            "the root is not among the certificates; add it to the file",
        ));
    }
    let mut path = chain::verify(&trial, &between, &roots, at, Purpose::Any)?.path;
    path.remove(0);
    match all.iter().find(|der| !path.contains(der)) {
        None => Ok(path),
        Some(stray) => Err(Error::input(format!(
            "the certificate of {} is not of the chain",
            x509::describe(stray)?.subject
        ))),
    }
}

fn own<'a>(signer: &dyn Signer, all: &'a [Vec<u8>]) -> Result<&'a [u8]> {
    let mut found = Vec::new();
    for der in all {
        if x509::matches_key(der, signer.public())? {
            found.push(der.as_slice());
        }
    }
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(Error::input("none of the certificates is for the CA's key")),
        _ => Err(Error::input(
            "several certificates for the CA's key; give one",
        )),
    }
}

fn spec(
    signer: &dyn Signer,
    subject: Subject,
    (not_before, not_after): (u64, u64),
) -> Result<CertificateSpec> {
    Ok(CertificateSpec {
        serial: Serial::random()?,
        public: signer.public().clone(),
        subject,
        alt_names: Vec::new(),
        not_before,
        not_after,
        key_usage: Usage::SIGN,
        extended_usage: Vec::new(),
        policies: Vec::new(),
        ca: None,
        crl_url: None,
    })
}
