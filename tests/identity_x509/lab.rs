//! A file token with keys, a directory, and `openssl` in it.

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use devkey::backends::file;
use devkey::identity::signer::TokenSigner;
use devkey::identity::x509::{
    AltName, Authority, CertificateSpec, ExtendedUsage, Issuer, Request, RequestSpec, Serial,
    Subject, issue, self_signed,
};
use devkey::key::{KeyKind, PublicKey, Usage};
use devkey::store::KeyRecord;
use devkey::token::{KeyRequest, LocalToken, Names, Token, TokenRequest};
use tempfile::TempDir;

use crate::run::{Output, Run};

pub(crate) const DAY: u64 = 24 * 60 * 60;

/// The kinds that Debian 12's OpenSSL 3.0 knows. RSA-4096 differs from RSA-3072 in nothing here.
pub(crate) const CLASSIC: [KeyKind; 5] = [
    KeyKind::EcP256,
    KeyKind::EcP384,
    KeyKind::Rsa2048,
    KeyKind::Rsa3072,
    KeyKind::Ed25519,
];

pub(crate) const ML_DSA: [KeyKind; 3] = [KeyKind::MlDsa44, KeyKind::MlDsa65, KeyKind::MlDsa87];

pub(crate) struct Lab {
    pub(crate) dir: TempDir,
    pub(crate) token: LocalToken,
}

/// A CA of devkey's: its key and its certificate.
pub(crate) struct Ca {
    pub(crate) key: KeyRecord,
    pub(crate) der: Vec<u8>,
    pub(crate) issuer: Issuer,
}

pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

impl Lab {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let request = TokenRequest {
            dir: &dir.path().join("token"),
            label: "lab",
            settings: Default::default(),
            pins: None,
        };
        let token = LocalToken::create(&file::BACK_END, &request).unwrap();
        Lab { dir, token }
    }

    pub(crate) fn key(&self, kind: KeyKind) -> KeyRecord {
        let request = KeyRequest {
            kind,
            usage: Usage::SIGN,
            names: Names::default(),
        };
        self.token.generate(&request).unwrap()
    }

    pub(crate) fn signer<'a>(&'a self, key: &'a KeyRecord) -> TokenSigner<'a> {
        TokenSigner {
            token: &self.token,
            key,
        }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.file(name), contents).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.file(name)).unwrap()
    }

    /// `openssl` in the directory.
    pub(crate) fn openssl(&self, line: &str) -> Run {
        Run::new("openssl").words(line).dir(self.dir.path())
    }

    /// A certificate or request (DER), written as PEM to a file for `openssl verify`.
    pub(crate) fn pem(&self, name: &str, der: &[u8]) {
        self.write("in.der", der);
        self.openssl(&format!("x509 -inform DER -in in.der -out {name}"))
            .ok();
    }

    /// The DER of a PEM certificate that openssl wrote.
    pub(crate) fn der(&self, name: &str) -> Vec<u8> {
        self.openssl(&format!("x509 -in {name} -outform DER"))
            .ok()
            .stdout
    }

    pub(crate) fn verify(&self, line: &str) -> Output {
        self.openssl(&format!("verify -x509_strict {line}"))
            .output()
    }

    pub(crate) fn request(&self, key: &KeyRecord, subject: &str, alt_names: &[&str]) -> Vec<u8> {
        let spec = RequestSpec {
            subject: subject.parse().unwrap(),
            alt_names: names(alt_names),
            key_usage: Usage::SIGN,
        };
        Request::make(&self.signer(key), &spec).unwrap()
    }

    pub(crate) fn root(&self, kind: KeyKind) -> Ca {
        let key = self.key(kind);
        let spec = authority(&key.public, "CN=Lab root,O=Example");
        let der = self_signed(&self.signer(&key), &spec).unwrap();
        let issuer = Issuer::from_certificate(&der).unwrap();
        Ca { key, der, issuer }
    }

    pub(crate) fn issue(&self, ca: &Ca, spec: &CertificateSpec) -> Vec<u8> {
        issue(&self.signer(&ca.key), &ca.issuer, spec).unwrap()
    }
}

pub(crate) fn names(all: &[&str]) -> Vec<AltName> {
    all.iter().map(|name| name.parse().unwrap()).collect()
}

/// What a CA's certificate says in these tests.
pub(crate) fn authority(public: &PublicKey, subject: &str) -> CertificateSpec {
    CertificateSpec {
        not_after: now() + 30 * DAY,
        extended_usage: Vec::new(),
        ca: Some(Authority { path_len: None }),
        ..device(public, subject)
    }
}

/// What a device's certificate says in these tests.
pub(crate) fn device(public: &PublicKey, subject: &str) -> CertificateSpec {
    CertificateSpec {
        serial: Serial::random().unwrap(),
        public: public.clone(),
        subject: subject.parse::<Subject>().unwrap(),
        alt_names: Vec::new(),
        not_before: now() - DAY,
        not_after: now() + DAY,
        key_usage: Usage::SIGN,
        extended_usage: vec![ExtendedUsage::SERVER, ExtendedUsage::CLIENT],
        policies: Vec::new(),
        ca: None,
        crl_url: None,
    }
}
