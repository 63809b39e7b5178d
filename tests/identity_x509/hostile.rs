//! Changed bytes: each single one of what crosses between device and CA.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Encode, Sequence};
use devkey::identity::signer::sign_message;
use devkey::identity::x509::chain::{Purpose, verify};
use devkey::identity::x509::{
    Issuer, MAX_LEN, Reason, Request, Revoked, Subject, crl, describe, expiry, is_revoked,
    matches_key,
};
use devkey::key::KeyKind;
use spki::AlgorithmIdentifierRef;

use crate::lab::{DAY, Lab, device, names, now};

const KINDS: [KeyKind; 4] = [
    KeyKind::EcP256,
    KeyKind::Rsa2048,
    KeyKind::Ed25519,
    KeyKind::MlDsa44,
];

/// Calls `accepts` with `der`, changed at each byte in several ways and cut at each, and fails where one
/// is accepted. That one signature is changed into another valid one takes more than a byte.
fn every_change(der: &[u8], what: &str, accepts: impl Fn(&[u8]) -> bool) {
    assert!(accepts(der), "{what} as it is");
    let refused = |changed: &[u8], how: &str, at: usize| {
        let verdict = catch_unwind(AssertUnwindSafe(|| accepts(changed)));
        assert!(!verdict.unwrap(), "{what}: {how} at {at} of {}", der.len());
    };
    for at in 0..der.len() {
        for change in [1, 0x80, 0xff] {
            let mut changed = der.to_vec();
            changed[at] ^= change;
            refused(&changed, "changed", at);
        }
        refused(&der[..at], "cut", at);
    }
    for more in [&[0][..], &[0x30, 0], der] {
        refused(&[der, more].concat(), "longer", der.len());
    }
}

/// Seen to fail without the signature's check in `Request::parse`, and with any parameters for RSA in
/// `verifier`, which in a request stand outside of the signature.
#[test]
fn a_changed_request_is_refused() {
    let lab = Lab::new();
    for kind in KINDS {
        let key = lab.key(kind);
        let all = [
            "dns:pump7.example",
            "ip:192.0.2.7",
            "hw:1.3.6.1.4.1.32473.1:00a7",
        ];
        let der = lab.request(&key, "CN=pump 7,C=DE", &all);
        every_change(&der, "a request", |der| Request::parse(der).is_ok());
    }
}

/// `SIGNED` with any body.
#[derive(Sequence)]
struct Signed<'a> {
    body: AnyRef<'a>,
    algorithm: AlgorithmIdentifierRef<'a>,
    signature: BitStringRef<'a>,
}

/// Whoever asks signs what it likes: each byte of a request is changed and the whole signed anew. What
/// is read of it can then be certified, and the certificate be read.
#[test]
fn what_a_hostile_device_signs_is_read_without_a_panic() {
    let lab = Lab::new();
    let root = lab.root(KeyKind::Ed25519);
    let key = lab.key(KeyKind::Ed25519);
    let all = [
        "dns:a.example",
        "ip:192.0.2.7",
        "uri:urn:a",
        "email:a@b",
        "hw:1.3.6.1.4.1.32473.1:00a7",
    ];
    let der = lab.request(&key, "CN=pump 7,C=DE,SERIALNUMBER=7", &all);
    let honest = Signed::from_der(&der).unwrap();
    let body = honest.body.to_der().unwrap();
    let mut accepted = 0;
    for at in 0..body.len() {
        for change in [1, 0x20, 0x80, 0xff] {
            let mut changed = body.clone();
            changed[at] ^= change;
            let Ok(any) = AnyRef::from_der(&changed) else {
                continue;
            };
            let signature = sign_message(&lab.signer(&key), &changed).unwrap();
            let bits = BitStringRef::from_bytes(&signature).unwrap();
            let whole = Signed {
                body: any,
                signature: bits,
                ..honest
            }
            .to_der()
            .unwrap();
            let Ok(request) = Request::parse(&whole) else {
                continue;
            };
            accepted += 1;
            let text = request.subject.to_string();
            assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
            let mut spec = device(&request.public, "");
            (spec.subject, spec.alt_names) = (request.subject, request.alt_names);
            let leaf = lab.issue(&root, &spec);
            assert_eq!(describe(&leaf).unwrap().subject, text);
        }
    }
    // Other letters in names, at least.
    assert!(accepted > 50, "{accepted}");
}

/// Seen to fail without `below.verify`.
#[test]
fn a_changed_certificate_is_refused() {
    let lab = Lab::new();
    for kind in KINDS {
        let root = lab.root(kind);
        let key = lab.key(KeyKind::EcP256);
        let mut spec = device(&key.public, "CN=pump 7");
        spec.alt_names = names(&["dns:pump7.example", "uri:https://pump7.example/"]);
        spec.policies = vec!["2.23.133.11.1.1".to_owned()];
        let leaf = lab.issue(&root, &spec);
        let roots = [root.der.clone()];
        every_change(&leaf, "a certificate", |der| {
            let _ = (describe(der), expiry(der), matches_key(der, &key.public));
            let _ = describe(der).map(|told| told.to_string());
            verify(der, &[], &roots, now(), Purpose::Client).is_ok()
        });
    }
}

/// A changed root is another one, which nobody signed by; it is read without a panic.
#[test]
fn a_changed_issuer_is_no_issuer() {
    let lab = Lab::new();
    let root = lab.root(KeyKind::EcP256);
    let spec = device(&lab.key(KeyKind::EcP256).public, "CN=pump 7");
    let leaf = lab.issue(&root, &spec);
    for at in 0..root.der.len() {
        for change in [1, 0x80, 0xff] {
            let mut changed = root.der.clone();
            changed[at] ^= change;
            let _ = Issuer::from_certificate(&changed);
            let _ = verify(
                &leaf,
                &[changed.clone()],
                &[changed.clone()],
                now(),
                Purpose::Client,
            );
            let between = verify(
                &leaf,
                &[changed],
                slice::from_ref(&root.der),
                now(),
                Purpose::Client,
            );
            // An unreadable intermediate may be refused as such; the path is the true one or none.
            if let Ok(found) = between {
                assert_eq!(found.path, [leaf.clone(), root.der.clone()]);
            }
        }
    }
}

/// Seen to fail without the signature's check in `is_revoked`.
#[test]
fn a_changed_revocation_list_is_refused() {
    let lab = Lab::new();
    for kind in KINDS {
        let root = lab.root(kind);
        let spec = device(&lab.key(KeyKind::EcP256).public, "CN=pump 7");
        let leaf = lab.issue(&root, &spec);
        let revoked = Revoked {
            serial: spec.serial,
            at: now() - 60,
            reason: Reason::Superseded,
        };
        let times = (now() - 60, now() + DAY);
        let list = crl(&lab.signer(&root.key), &root.issuer, 7, times, &[revoked]).unwrap();
        every_change(&list, "a list", |der| {
            is_revoked(der, &leaf, &root.der, now()).is_ok()
        });
    }
}

/// Seen to fail without the bound in `Signed::read`.
#[test]
fn what_is_too_long_is_not_looked_at() {
    let long = vec![0x30; MAX_LEN + 1];
    for error in [
        Request::parse(&long).unwrap_err(),
        describe(&long).unwrap_err(),
        expiry(&long).unwrap_err(),
        Issuer::from_certificate(&long).unwrap_err(),
        verify(&long, &[], &[], 0, Purpose::Any).unwrap_err(),
    ] {
        assert!(error.to_string().contains("at most 65536 bytes"), "{error}");
    }
    // A length that promises more than there is.
    for der in [
        &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff][..],
        &[0x30, 0x80, 0, 0],
        &[0x1f; 64],
        &[],
    ] {
        assert!(Request::parse(der).is_err());
        assert!(describe(der).is_err());
    }
}
