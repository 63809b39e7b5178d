//! Request, challenge, answer, issued: what crosses between a device and its CA, and what the CA makes of
//! it by its books. Keys are in this process, TPMs are swtpm with certificates of a maker's.
#![cfg(feature = "tpm")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

mod books;
mod damage;
mod lost_tpm;
mod refused;
mod tpm_rounds;

#[path = "../common/maker.rs"]
mod maker;
#[path = "../common/tpm.rs"]
mod tpm;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use aws_lc_rs::digest::{self, Digest as Hashed};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use devkey::identity::ca::{Ca, Config, NewCa, Own, Profile, Registered};
use devkey::identity::flow::{
    Answer, Challenge, Request, RequestSpec, Source, SshKind, SshRequest, fingerprint,
};
use devkey::identity::level::Level;
use devkey::identity::signer::Signer;
use devkey::identity::x509::{self, ExtendedUsage};
use devkey::key::{KeyKind, PublicKey, Scheme, Usage};
use devkey::{Error, Result};
use tempfile::TempDir;

/// Some second in 2026.
const NOW: u64 = 1_795_400_000;

/// A P-256 key in this process.
struct Soft(EcdsaKeyPair, PublicKey);

impl Soft {
    fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let public = PublicKey::from_sec1(KeyKind::EcP256, pair.public_key().as_ref()).unwrap();
        Soft(pair, public)
    }
}

impl Signer for Soft {
    fn public(&self) -> &PublicKey {
        &self.1
    }

    fn sign(&self, _: Scheme, input: &[u8]) -> Result<Vec<u8>> {
        let digest = Hashed::import_less_safe(input, &digest::SHA256).unwrap();
        Ok(self.0.sign_digest(&digest).unwrap().as_ref().to_vec())
    }
}

/// A CA with books of its own.
struct Authority {
    key: Soft,
    ca: Ca,
    _dir: TempDir,
}

impl Authority {
    /// One that issues `profiles`.
    fn with(profiles: &[(&str, Profile)], ek_roots: Vec<Vec<u8>>) -> Self {
        let (key, dir) = (Soft::new(), tempfile::tempdir().unwrap());
        let named = |(name, profile): &(&str, Profile)| ((*name).to_owned(), profile.clone());
        let new = NewCa {
            config: Config {
                version: 1,
                name: "Lab CA".into(),
                token: "ca".into(),
                key: fingerprint(key.public()),
                answer_within: 600,
                policies: BTreeMap::new(),
                profiles: profiles.iter().map(named).collect(),
            },
            own: Own::Root {
                subject: "CN=Lab CA".parse().unwrap(),
                not_before: NOW - 86400,
                not_after: NOW + 3650 * 86400,
            },
            ek_roots,
        };
        let ca = Ca::create(&dir.path().join("ca"), &key, &new).unwrap();
        Authority { key, ca, _dir: dir }
    }

    fn new() -> Self {
        Authority::with(&[("device", profile(Level::Software))], Vec::new())
    }

    fn challenge(&self, request: &Request) -> Challenge {
        let asked = self.ca.challenge(&self.key, request.clone(), None, NOW);
        asked.unwrap().challenge
    }

    fn dir(&self) -> &Path {
        self._dir.path()
    }
}

fn profile(level: Level) -> Profile {
    Profile {
        days: 30,
        level,
        x509: true,
        ssh: vec![SshKind::User],
        names: ["subject:CN=*", "dns:*.lab.example", "principal:anna"]
            .map(|text| text.parse().unwrap())
            .to_vec(),
        extended_usage: vec![ExtendedUsage::CLIENT],
        crl_url: None,
        ssh_extensions: vec!["permit-pty".into()],
    }
}

/// What a device asks for by default.
fn spec() -> RequestSpec {
    RequestSpec {
        names: x509::RequestSpec {
            subject: "CN=pump 7".parse().unwrap(),
            alt_names: vec!["dns:pump7.lab.example".parse().unwrap()],
            key_usage: Usage::SIGN,
        },
        ssh: Some(SshRequest {
            kind: SshKind::User,
            principals: vec!["anna".into()],
        }),
        source: Source {
            back_end: "file".into(),
            stand_in: false,
        },
        authority: None,
        evidence: None,
    }
}

fn request(device: &Soft) -> Request {
    Request::make(device, spec()).unwrap()
}

fn entry() -> Registered {
    Registered {
        lot: "1".into(),
        label: "pump".into(),
        at: NOW,
    }
}

/// Why something was refused.
#[track_caller]
fn reason<T: Debug>(done: Result<T>) -> String {
    match done {
        Err(Error::BadInput(reason)) => reason,
        other => panic!("not refused as bad input: {other:?}"),
    }
}

/// Expects a refusal with a reason.
#[track_caller]
fn refused<T: Debug>(done: Result<T>, why: &str) {
    let said = reason(done);
    assert!(said.contains(why), "{said}");
}

/// The digest of flow.rs, written anew by its documentation.
fn documented(kind: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut all = format!("devkey identity {kind} v1\0").into_bytes();
    for part in parts {
        all.extend_from_slice(part);
    }
    Hashed::as_ref(&digest::digest(&digest::SHA256, &all))
        .try_into()
        .unwrap()
}

/// One part of such a digest.
fn part(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// An answer without a TPM, by hand.
fn answer_of(key: &Soft, challenge: [u8; 32], request: [u8; 32], nonce: [u8; 32]) -> Vec<u8> {
    use base64ct::{Base64, Encoding};
    let spki = key.public().to_spki();
    let parts = [&spki[..], &challenge, &request, &nonce].map(part).concat();
    let digest = documented("answer", &[&parts, &[0; 4]]);
    let message = [b"devkey identity answer v1 signature\0", &digest[..]].concat();
    let signature = devkey::identity::signer::sign_message(key, &message).unwrap();
    let hex = |bytes: &[u8]| base16ct::lower::encode_string(bytes);
    serde_json::json!({
        "devkey": "answer", "version": 1,
        "body": {
            "public": Base64::encode_string(&spki), "challenge": hex(&challenge),
            "request": hex(&request), "nonce": hex(&nonce),
        },
        "signature": Base64::encode_string(&signature),
    })
    .to_string()
    .into_bytes()
}

/// A whole round with a key in this process.
#[test]
fn a_request_becomes_certificates() {
    let (authority, device) = (Authority::new(), Soft::new());
    let request = Request::parse(&request(&device).encode().unwrap()).unwrap();
    let challenge = authority.challenge(&request);
    let challenge = Challenge::parse(&challenge.encode().unwrap()).unwrap();
    challenge
        .check(Some(authority.ca.fingerprint()), NOW)
        .unwrap();
    let answer = Answer::make(&device, &challenge, None).unwrap();
    let answer = Answer::parse(&answer.encode().unwrap()).unwrap();
    let granted = authority
        .ca
        .issue(&authority.key, &answer, NOW + 5)
        .unwrap();
    let issued = granted.issued;
    issued.check(device.public(), NOW + 5).unwrap();
    assert_eq!(issued.level(), Some(Level::Software));
    assert_eq!(issued.request(), request.digest());
    assert!(issued.check(device.public(), NOW + 31 * 86400).is_err());
    assert!(issued.check(Soft::new().public(), NOW + 5).is_err());
    let said = x509::describe(issued.certificate().unwrap()).unwrap();
    assert_eq!(said.alt_names, ["dns:pump7.lab.example"]);
    assert_eq!(said.not_after, NOW + 5 + 30 * 86400);
    let ssh = issued.ssh().unwrap().contents();
    assert_eq!(
        (ssh.principals[0].as_str(), ssh.valid_before),
        ("anna", said.not_after + 1)
    );
    let entries = authority.ca.list(NOW + 6).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].serial, granted.serial);
}

/// The digest as flow.rs documents it is the one that is used.
#[test]
fn an_answer_by_the_documentation_is_taken() {
    let (authority, device) = (Authority::new(), Soft::new());
    let request = request(&device);
    let challenge = authority.challenge(&request);
    let by_hand = answer_of(
        &device,
        challenge.digest().0,
        request.digest().0,
        challenge.nonce().0,
    );
    let answer = Answer::parse(&by_hand).unwrap();
    authority.ca.issue(&authority.key, &answer, NOW).unwrap();
}

/// A CA with policies of its own states its levels by those.
#[test]
fn a_ca_has_its_own_policies_and_ssh_alone() {
    let (authority, device) = (Authority::new(), Soft::new());
    let path = authority.dir().join("ca/ca.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let issue = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let ca = Ca::open(&authority.dir().join("ca")).unwrap();
        let asked = ca
            .challenge(&authority.key, request(&device), None, NOW)
            .unwrap();
        let answer = Answer::make(&device, &asked.challenge, None).unwrap();
        ca.issue(&authority.key, &answer, NOW).unwrap().issued
    };
    let own = text.clone() + "\n[policies]\nsoftware = [\"1.3.6.1.4.1.32473.9\"]\n";
    let issued = issue(&own);
    let said = x509::describe(issued.certificate().unwrap()).unwrap();
    assert_eq!(said.policies, ["1.3.6.1.4.1.32473.9"]);
    assert_eq!((said.level, issued.level()), (None, Some(Level::Software)));
    let issued = issue(&text.replace("x509 = true", "x509 = false"));
    assert!(issued.certificate().is_none() && issued.ssh().is_some());
    assert_eq!(issued.chain().len(), 0);
    issued.check(device.public(), NOW).unwrap();
}
