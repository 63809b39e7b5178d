//! Certificates: PEM files, ours or dropped in by an administrator.

use std::path::Path;

use base16ct::lower as hex;
use der::{Decode, Encode};
use serde::{Deserialize, Serialize};
use x509_cert::Certificate as X509;

use super::ObjectId;
use super::record::{self, bad, check_names};
use crate::error::{Error, Result};
use crate::key::PublicKey;

/// The first line of a certificate file that has lines of our own before the PEM.
const MARK: &str = "# devkey certificate\n";
const CERTIFICATE: &str = "CERTIFICATE";

/// An X.509 certificate (RFC 5280) on a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Names the certificate: its file, and which of the file's certificates it is.
    pub id: ObjectId,
    /// `CKA_LABEL`, where one was given; else the label of its key.
    pub label: Option<String>,
    /// `CKA_ID`, where one was given; else the ID of its key.
    pub cka_id: Option<Vec<u8>>,
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// Subject, DER.
    pub subject: Vec<u8>,
    /// Issuer, DER.
    pub issuer: Vec<u8>,
    /// Serial number, DER.
    pub serial: Vec<u8>,
    /// The certified key's SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
}

/// The lines of text that may stand before the PEM.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cka_id: Option<String>,
}

impl Certificate {
    /// Takes a certificate apart.
    ///
    /// # Errors
    /// [`Error::BadInput`] where `der` is not one X.509 certificate.
    pub fn from_der(id: ObjectId, der: &[u8]) -> Result<Self> {
        let read = |der| -> der::Result<Certificate> {
            let x509 = X509::from_der(der)?;
            let body = x509.tbs_certificate();
            Ok(Certificate {
                id,
                label: None,
                cka_id: None,
                der: der.to_vec(),
                subject: body.subject().to_der()?,
                issuer: body.issuer().to_der()?,
                serial: body.serial_number().to_der()?,
                spki: body.subject_public_key_info().to_der()?,
            })
        };
        read(der).map_err(|e| Error::input(format!("not an X.509 certificate: {e}")))
    }

    /// The certified key, where it is of a kind that devkey knows.
    pub fn public_key(&self) -> Option<PublicKey> {
        PublicKey::from_spki(&self.spki).ok()
    }

    /// All certificates of a file; other PEM blocks in it are passed over.
    pub(super) fn parse_file(text: &str, file: &str, path: &Path) -> Result<Vec<Certificate>> {
        let (text_head, blocks) = record::split(text, path)?;
        let head: Head = if text_head.starts_with(MARK) {
            record::read_head(text_head, path)?
        } else {
            Head::default()
        };
        let cka_id = head.cka_id.as_deref().map(hex::decode_vec).transpose();
        let cka_id = cka_id.map_err(|_| bad(path, "cka_id is not lower-case hexadecimal"))?;
        check_names(head.label.as_deref(), cka_id.as_deref())
            .map_err(|e| bad(path, &e.to_string()))?;
        let ders = blocks
            .iter()
            .filter(|block| block.blob.label == CERTIFICATE);
        let mut all = Vec::new();
        for (index, block) in ders.enumerate() {
            let id = ObjectId::certificate(file, index).ok_or_else(|| bad(path, "bad name"))?;
            let mut certificate = Certificate::from_der(id, &block.blob.bytes)
                .map_err(|e| bad(path, &e.to_string()))?;
            if index == 0 {
                certificate.label = head.label.clone();
                certificate.cka_id = cka_id.clone();
            }
            all.push(certificate);
        }
        if all.is_empty() {
            return Err(bad(path, "no CERTIFICATE block"));
        }
        Ok(all)
    }

    /// The contents of the certificate's file.
    pub(super) fn encode(&self) -> Result<String> {
        Certificate::encode_file(std::slice::from_ref(self))
    }

    /// The contents of a file of several: its names are those of the first.
    pub(super) fn encode_file(all: &[Certificate]) -> Result<String> {
        let first = all.first();
        let head = Head {
            version: record::FORMAT,
            label: first.and_then(|first| first.label.clone()),
            cka_id: first
                .and_then(|first| first.cka_id.as_deref())
                .map(hex::encode_string),
        };
        let lines = toml::to_string(&head).map_err(|e| Error::Internal(e.to_string()))?;
        let mut text = format!("{MARK}{lines}");
        for certificate in all {
            text += &record::encode_block(CERTIFICATE, &certificate.der)?;
        }
        Ok(text)
    }
}
