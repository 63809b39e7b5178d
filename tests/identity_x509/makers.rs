//! Endorsement certificates as TPM makers issue them, here by swtpm's own CA: a root, an intermediate,
//! and a certificate for each endorsement key, valid until the end of 9999.

use std::fs;
use std::path::Path;
use std::slice;

use devkey::identity::x509::chain::{Purpose, verify};
use devkey::identity::x509::{describe, matches_key};
use devkey::key::{KeyKind, PublicKey};

use crate::lab::{Lab, now};
use crate::run::Run;

/// The keys of swtpm_setup's TPMs: their certificates' files, and their kinds.
const KEYS: [(&str, KeyKind); 2] = [
    ("ek-rsa2048.crt", KeyKind::Rsa2048),
    ("ek-secp384r1.crt", KeyKind::EcP384),
];

/// A maker: its CA's certificates and those of one TPM's endorsement keys, all DER.
struct Maker {
    root: Vec<u8>,
    issuer: Vec<u8>,
    keys: Vec<(Vec<u8>, KeyKind)>,
}

impl Maker {
    fn new(lab: &Lab, name: &str) -> Self {
        let dir = lab.file(name);
        manufacture(&dir);
        Maker {
            root: lab.der(&format!("{name}/ca/swtpm-localca-rootca-cert.pem")),
            issuer: lab.der(&format!("{name}/ca/issuercert.pem")),
            keys: KEYS
                .map(|(file, kind)| (fs::read(dir.join(file)).unwrap(), kind))
                .to_vec(),
        }
    }
}

/// Makes a TPM with endorsement certificates by a new CA.
fn manufacture(dir: &Path) {
    fs::create_dir_all(dir.join("state")).unwrap();
    fs::create_dir_all(dir.join("ca")).unwrap();
    let at = dir.display();
    let ca = format!(
        "statedir = {at}/ca\nsigningkey = {at}/ca/signkey.pem\nissuercert = {at}/ca/issuercert.pem\n\
         certserial = {at}/ca/certserial\n"
    );
    let setup = format!(
        "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {at}/localca.conf\n\
         create_certs_tool_options = {at}/options\nactive_pcr_banks = sha256\n"
    );
    for (name, text) in [
        ("localca.conf", ca),
        ("setup.conf", setup),
        ("options", String::new()),
    ] {
        fs::write(dir.join(name), text).unwrap();
    }
    let installed = Path::new("/usr/bin/swtpm_localca").exists();
    assert!(installed, "run: apt-get install swtpm-tools");
    Run::new("swtpm_setup")
        .words("--tpm2 --create-ek-cert")
        .args(["--tpmstate", &format!("{at}/state")])
        .args(["--config", &format!("{at}/setup.conf")])
        .args(["--write-ek-cert-files", &format!("{at}")])
        .ok();
}

/// Seen to fail with keyEncipherment alone in `fit`.
#[test]
fn endorsement_certificates_lead_to_their_makers_root() {
    let lab = Lab::new();
    let (maker, other) = (Maker::new(&lab, "maker"), Maker::new(&lab, "other"));
    let check = |leaf: &[u8], between: &[&Maker], root: &Maker, at, purpose| {
        let between: Vec<_> = between.iter().map(|maker| maker.issuer.clone()).collect();
        verify(leaf, &between, slice::from_ref(&root.root), at, purpose)
    };
    let endorsement = Purpose::EndorsementKey;
    for (leaf, kind) in &maker.keys {
        let found = check(leaf, &[&maker], &maker, now(), endorsement).unwrap();
        assert_eq!(
            found.path,
            [leaf, &maker.issuer, &maker.root].map(Clone::clone)
        );
        let public = PublicKey::from_spki(&found.spki).unwrap();
        assert_eq!(public.kind(), *kind);
        assert!(matches_key(leaf, &public).unwrap());
        assert_eq!((found.level, found.policies.len()), (None, 0));
        // Its makers' names do not tell the CAs apart: the keys do.
        check(leaf, &[&other, &maker], &maker, now(), endorsement).unwrap();
        for (between, root) in [
            (&[&maker][..], &other),
            (&[&other], &maker),
            (&[&other], &other),
            (&[], &maker),
        ] {
            assert!(check(leaf, between, root, now(), endorsement).is_err());
        }
        // 9999-12-31T23:59:59Z is its last second.
        assert_eq!(found.not_after, 253_402_300_799);
        assert!(check(leaf, &[&maker], &maker, 1_700_000_000, endorsement).is_err());
        for purpose in [Purpose::Client, Purpose::Server] {
            assert!(check(leaf, &[&maker], &maker, now(), purpose).is_err());
        }
        let told = describe(leaf).unwrap().to_string();
        assert!(told.contains("TCG-AT-TPMMODEL=swtpm"), "{told}");
    }
}

/// Seen to fail without `below.verify`: by the leaf's own bytes.
#[test]
fn a_changed_endorsement_certificate_is_refused() {
    let lab = Lab::new();
    let maker = Maker::new(&lab, "maker");
    let (between, roots) = ([maker.issuer.clone()], [maker.root.clone()]);
    for (leaf, _) in &maker.keys {
        for at in 0..leaf.len() {
            let mut changed = leaf.clone();
            changed[at] ^= 1;
            assert!(verify(&changed, &between, &roots, now(), Purpose::EndorsementKey).is_err());
        }
    }
}
