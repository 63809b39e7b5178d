//! Files of certificates: PEM, with text or blocks of other kinds between, or one certificate in DER.

use std::path::Path;

use super::x509::{self, MAX_LEN};
use crate::error::{Error, Result};
use crate::store::record;

/// The most that a file may hold.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// Bytes.
    pub bytes: usize,
    /// Certificates that differ.
    pub certificates: usize,
}

impl Most {
    /// A certificate and those above it: what fits into a file of a token.
    pub const CHAIN: Most = Most {
        bytes: 256 * 1024 - 1,
        certificates: 16,
    };
    /// Whom somebody trusts.
    pub const ANCHORS: Most = Most {
        bytes: 1 << 20,
        certificates: 512,
    };
}

/// The certificates of a file, DER, each once.
///
/// # Errors
/// [`Error::BadInput`] where there is none, one is malformed, or there is too much;
/// [`Error::Unsupported`] for PKCS#7.
pub fn certificates(file: &[u8], most: Most) -> Result<Vec<Vec<u8>>> {
    if file.len() > most.bytes {
        return Err(Error::input(format!("more than {} bytes", most.bytes)));
    }
    let all = match std::str::from_utf8(file) {
        Ok(text) if text.contains("-----BEGIN ") => from_pem(text)?,
        Ok(text) if text.trim().is_empty() => return Err(Error::input("there is nothing in it")),
        _ => vec![file.to_vec()],
    };
    let mut different: Vec<Vec<u8>> = Vec::new();
    for der in all {
        x509::describe(&der)?;
        if !different.contains(&der) {
            different.push(der);
        }
    }
    match different.len() <= most.certificates {
        true => Ok(different),
        false => Err(Error::input(format!(
            "{} certificates; at most {} are taken",
            different.len(),
            most.certificates
        ))),
    }
}

fn from_pem(text: &str) -> Result<Vec<Vec<u8>>> {
    let (_, blocks) = record::split(text, Path::new("")).map_err(|e| match e {
        Error::BadRecord { reason, .. } => Error::input(reason),
        other => other,
    })?;
    let labels: Vec<String> = blocks.iter().map(|b| b.blob.label.clone()).collect();
    let certificates: Vec<_> = blocks
        .into_iter()
        .map(|block| block.blob)
        .filter(|blob| ["CERTIFICATE", "X509 CERTIFICATE"].contains(&blob.label.as_str()))
        .map(|blob| blob.bytes)
        .collect();
    if certificates.is_empty() {
        return Err(match labels.iter().any(|label| label == "PKCS7") {
            true => Error::unsupported("PKCS#7; convert it with `openssl pkcs7 -print_certs`"),
            false => Error::input(format!("no CERTIFICATE in it, but {}", labels.join(", "))),
        });
    }
    if certificates.iter().any(|der| der.len() > MAX_LEN) {
        return Err(Error::input("a certificate is too long"));
    }
    Ok(certificates)
}
