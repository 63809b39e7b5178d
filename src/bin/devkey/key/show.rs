//! A key's public half, in every form.

use clap::ValueEnum;
use der::pem::{LineEnding, encode_string};
use devkey::Error;
use devkey::config::FoundToken;
use devkey::identity::ssh::key as ssh;
use devkey::key::KeyKind;
use devkey::store::{Certificate, KeyRecord, Listing, TokenRecord};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::{output, token, uri};

/// What to print of a key.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    /// SubjectPublicKeyInfo as PEM, for OpenSSL
    Pem,
    /// The OpenSSH line
    Ssh,
    /// PKCS#11 URI of the private key (RFC 7512)
    Uri,
    /// All of it, for programs
    Json,
}

impl Format {
    /// What is printed of a new key of this kind unless another format is asked for.
    pub(super) fn of(kind: KeyKind) -> Self {
        match ssh::algorithm(kind).is_some() {
            true => Format::Ssh,
            false => Format::Pem,
        }
    }

    /// # Errors
    /// [`Error::Unsupported`] for the OpenSSH line of a key that OpenSSH does not know.
    pub(super) fn check(self, kind: KeyKind) -> Result<()> {
        match self {
            Format::Ssh if ssh::algorithm(kind).is_none() => Err(no_line(kind.name())),
            _ => Ok(()),
        }
    }
}

/// All that is public of a key; its fields are those of `--json`.
#[derive(Debug, Serialize)]
pub(super) struct View {
    token: String,
    label: String,
    id: String,
    kind: &'static str,
    usage: Vec<&'static str>,
    certificates: Vec<String>,
    uri: String,
    ssh: Option<String>,
    fingerprint: Option<String>,
    pem: String,
}

impl View {
    pub(super) fn new(
        found: &FoundToken,
        record: &TokenRecord,
        key: &KeyRecord,
        all: &Listing,
    ) -> Result<Self> {
        let pem = encode_string("PUBLIC KEY", LineEnding::LF, &key.public.to_spki());
        let certifies = |c: &&Certificate| c.public_key().as_ref() == Some(&key.public);
        let certificates = all.certificates.iter().map(AsRef::as_ref);
        Ok(View {
            token: found.name.clone(),
            label: key.label.clone(),
            id: base16ct::lower::encode_string(&key.cka_id),
            kind: key.public.kind().name(),
            usage: token::uses(key.usage),
            certificates: certificates
                .filter(certifies)
                .map(|c| c.id.to_string())
                .collect(),
            uri: uri::key(record, key),
            ssh: ssh::line(&key.public, &key.label).ok(),
            fingerprint: ssh::fingerprint(&key.public).ok(),
            pem: pem.map_err(|e| Error::Internal(e.to_string()))?,
        })
    }

    pub(super) fn format(&self, format: Format) -> Result<String> {
        Ok(match format {
            Format::Pem => self.pem.clone(),
            Format::Ssh => self.ssh.clone().ok_or_else(|| no_line(self.kind))?,
            Format::Uri => self.uri.clone(),
            Format::Json => output::json(self)?,
        })
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        let fields = [
            ("token", self.token.clone()),
            ("label", self.label.clone()),
            ("id", self.id.clone()),
            ("kind", self.kind.to_owned()),
            ("usage", self.usage.join(", ")),
            ("certificate", self.certificate()),
            ("fingerprint", or_none(&self.fingerprint)),
            ("uri", self.uri.clone()),
            ("ssh", or_none(&self.ssh)),
        ];
        output::fields(&fields)
    }

    /// Token, label, kind, ID and certificate.
    pub(super) fn cells(&self) -> [String; 5] {
        [
            self.token.clone(),
            self.label.clone(),
            self.kind.to_owned(),
            self.id.clone(),
            self.certificate(),
        ]
    }

    fn certificate(&self) -> String {
        match self.certificates.is_empty() {
            true => "-".to_owned(),
            false => self.certificates.join(", "),
        }
    }
}

fn or_none(text: &Option<String>) -> String {
    text.clone().unwrap_or_else(|| "-".to_owned())
}

fn no_line(kind: &str) -> Failure {
    let error = Error::unsupported(format!(
        "OpenSSH has no {kind} keys, and so no line for one"
    ));
    Failure::new(error, "print it in another form, e.g. --format pem")
}
