//! What devkey makes, under OpenSSL's eyes.

use devkey::Error;
use devkey::identity::level::Level;
use devkey::identity::x509::chain::{Purpose, verify};
use devkey::identity::x509::{
    ANY_POLICY, Authority, CertificateSpec, Issuer, Reason, Request, RequestSpec, Revoked, Serial,
    crl, describe, expiry, is_revoked, issue, matches_key, self_signed,
};
use devkey::key::{KeyKind, Usage};

use crate::lab::{CLASSIC, Ca, DAY, Lab, ML_DSA, authority, device, names, now};

const NAMES: [&str; 6] = [
    "dns:pump7.example",
    "ip:192.0.2.7",
    "ip:2001:db8::7",
    "uri:https://pump7.example/status",
    "email:pump7@example.org",
    "hw:1.3.6.1.4.1.32473.1:00a7ff",
];

/// Seen to fail with r and s as they are for `ecdsa_to_der`, with SHA-256 for P-384 in `algorithm`, with
/// NULL parameters for ECDSA (by our own look at it), and without the alternative names.
#[test]
fn requests_are_read_by_openssl_and_by_ourselves() {
    let lab = Lab::new();
    for kind in CLASSIC.into_iter().chain(ML_DSA) {
        let key = lab.key(kind);
        let der = lab.request(&key, "CN=pump 7,O=Example\\, Inc.,C=DE", &NAMES);
        let read = Request::parse(&der).unwrap();
        assert_eq!(read.public, key.public);
        assert_eq!(read.subject.to_string(), "CN=pump 7,O=Example\\, Inc.,C=DE");
        assert_eq!(read.alt_names, names(&NAMES));
        assert_eq!(read.key_usage, Some(Usage::SIGN));
        assert_eq!(read.der, der);
        if kind.is_ml_dsa() {
            continue;
        }
        lab.write("request.der", &der);
        let shown = lab
            .openssl("req -verify -inform DER -in request.der -noout -text")
            .ok();
        shown.says(&[
            "verify OK",
            "C = DE, O = \"Example, Inc.\", CN = pump 7",
            "DNS:pump7.example, IP Address:192.0.2.7, IP Address:2001:DB8:0:0:0:0:0:7",
            "URI:https://pump7.example/status, email:pump7@example.org, othername:",
            "Digital Signature",
        ]);
    }
}

/// RFC 4108 §5: type and serial number in an otherName. Seen to fail with another OID for the type in
/// `hardware`, and without `only` in `Request::make`.
#[test]
fn the_hardware_serial_is_readable() {
    let lab = Lab::new();
    let key = lab.key(KeyKind::EcP256);
    let der = lab.request(&key, "", &["hw:1.3.6.1.4.1.32473.1:00a7ff"]);
    lab.write("request.der", &der);
    let names = lab
        .openssl("asn1parse -inform DER -in request.der")
        .ok()
        .text();
    let line = names
        .lines()
        .skip_while(|line| !line.contains("Subject Alternative Name"));
    // It is critical, for the subject is empty.
    let critical = line.clone().nth(1).unwrap();
    assert!(
        critical.contains("BOOLEAN") && critical.contains(":255"),
        "{names}"
    );
    let octets = line.clone().nth(2).unwrap();
    let at: usize = octets.split(':').next().unwrap().trim().parse().unwrap();
    let inner = lab
        .openssl(&format!(
            "asn1parse -inform DER -in request.der -strparse {at}"
        ))
        .ok();
    let expected = [
        ":1.3.6.1.5.5.7.8.4",
        "1.3.6.1.4.1.32473.1",
        "[HEX DUMP]:00A7FF",
    ];
    inner.says(&expected);
}

/// A certificate of each kind of key by a CA of each kind, in a chain with an intermediate.
///
/// Seen to fail without the authority key identifier, without the subject key identifier of a CA, with
/// basicConstraints that is not critical (`-x509_strict`), without keyCertSign in `authority`, with
/// the subject for the issuer in `sign`.
#[test]
fn certificates_are_verified_by_openssl_and_by_ourselves() {
    let lab = Lab::new();
    for kind in CLASSIC.into_iter().chain(ML_DSA) {
        let root = lab.root(kind);
        let below = intermediate(&lab, &root, kind);
        let key = lab.key(kind);
        let spec = CertificateSpec {
            alt_names: names(&NAMES),
            ..device(&key.public, "CN=pump 7")
        };
        let leaf = lab.issue(&below, &spec);
        assert!(matches_key(&leaf, &key.public).unwrap());
        assert!(!matches_key(&leaf, &root.key.public).unwrap());
        assert_eq!(expiry(&leaf).unwrap(), spec.not_after);
        for purpose in [Purpose::Any, Purpose::Client, Purpose::Server] {
            let (between, roots) = ([below.der.clone()], [root.der.clone()]);
            let found = verify(&leaf, &between, &roots, now(), purpose).unwrap();
            assert_eq!(
                found.path,
                [leaf.clone(), below.der.clone(), root.der.clone()]
            );
            assert_eq!((found.spki, found.level), (key.public.to_spki(), None));
        }
        if kind.is_ml_dsa() {
            continue;
        }
        lab.pem("root.pem", &root.der);
        lab.pem("below.pem", &below.der);
        lab.pem("leaf.pem", &leaf);
        for purpose in ["sslserver", "sslclient"] {
            let line = format!("-CAfile root.pem -untrusted below.pem -purpose {purpose} leaf.pem");
            let verified = lab.verify(&line);
            assert!(verified.status.success(), "{verified}");
        }
        let others =
            lab.verify("-CAfile root.pem -untrusted below.pem -purpose smimesign leaf.pem");
        assert!(!others.status.success(), "{others}");
    }
}

fn intermediate(lab: &Lab, root: &Ca, kind: KeyKind) -> Ca {
    let key = lab.key(kind);
    let spec = CertificateSpec {
        ca: Some(Authority { path_len: Some(0) }),
        policies: vec![ANY_POLICY.to_owned()],
        not_after: now() + 10 * DAY,
        ..authority(&key.public, "CN=Lab line 1,O=Example")
    };
    let der = lab.issue(root, &spec);
    let issuer = Issuer::from_certificate(&der).unwrap();
    Ca { key, der, issuer }
}

/// `openssl verify -policy`, as a relying party requires a level. Seen to fail without ANY_POLICY in the
/// intermediate's certificate, and with another level's policies.
#[test]
fn a_relying_party_can_require_a_level() {
    let lab = Lab::new();
    let root = lab.root(KeyKind::EcP256);
    let below = intermediate(&lab, &root, KeyKind::EcP256);
    lab.pem("root.pem", &root.der);
    lab.pem("below.pem", &below.der);
    let key = lab.key(KeyKind::EcP256);
    for level in Level::ALL {
        let policies = level
            .policies()
            .iter()
            .map(|oid| (*oid).to_owned())
            .collect();
        let spec = CertificateSpec {
            policies,
            ..device(&key.public, "CN=pump 7")
        };
        let leaf = lab.issue(&below, &spec);
        lab.pem("leaf.pem", &leaf);
        for asked in Level::ALL {
            for policy in asked.policies() {
                let line = format!(
                    "-CAfile root.pem -untrusted below.pem -policy {policy} -explicit_policy leaf.pem"
                );
                let verified = lab.verify(&line);
                assert_eq!(
                    verified.status.success(),
                    asked == level,
                    "{asked} of {level}: {verified}"
                );
            }
        }
        let (between, roots) = ([below.der.clone()], [root.der.clone()]);
        let found = verify(&leaf, &between, &roots, now(), Purpose::Any).unwrap();
        assert_eq!(found.level, Some(level));
        assert_eq!(describe(&leaf).unwrap().level, Some(level));
    }
}

/// Seen to fail where the policies of an intermediate are not looked at in `verified`.
#[test]
fn a_ca_that_may_not_state_a_level_states_none() {
    let lab = Lab::new();
    let root = lab.root(KeyKind::EcP256);
    let policies: Vec<_> = Level::Tpm
        .policies()
        .iter()
        .map(|oid| (*oid).to_owned())
        .collect();
    for (of_ca, level) in [
        (vec![], None),
        (vec![policies[0].clone()], None),
        (
            Level::Software
                .policies()
                .iter()
                .map(|oid| (*oid).to_owned())
                .collect(),
            None,
        ),
        (policies.clone(), Some(Level::Tpm)),
    ] {
        let key = lab.key(KeyKind::EcP256);
        let spec = CertificateSpec {
            policies: of_ca,
            ..authority(&key.public, "CN=Below")
        };
        let der = lab.issue(
            &root,
            &CertificateSpec {
                not_after: now() + 9 * DAY,
                ..spec
            },
        );
        let below = Ca {
            key,
            issuer: Issuer::from_certificate(&der).unwrap(),
            der,
        };
        let spec = device(&lab.key(KeyKind::EcP256).public, "CN=pump 7");
        let leaf = lab.issue(
            &below,
            &CertificateSpec {
                policies: policies.clone(),
                ..spec
            },
        );
        let (between, roots) = ([below.der.clone()], [root.der.clone()]);
        let found = verify(&leaf, &between, &roots, now(), Purpose::Any).unwrap();
        assert_eq!(found.level, level);
    }
}

/// Seen to fail with `this_update` for both times, and without the entries.
#[test]
fn revocation_lists_are_read_by_openssl_and_by_ourselves() {
    let lab = Lab::new();
    for kind in CLASSIC.into_iter().chain(ML_DSA) {
        let root = lab.root(kind);
        let key = lab.key(KeyKind::EcP256);
        let good = lab.issue(&root, &device(&key.public, "CN=pump 7"));
        let spec = device(&key.public, "CN=pump 8");
        let bad = lab.issue(&root, &spec);
        let revoked = Revoked {
            serial: spec.serial,
            at: now() - 60,
            reason: Reason::KeyCompromise,
        };
        let times = (now() - 60, now() + DAY);
        let list = crl(&lab.signer(&root.key), &root.issuer, 300, times, &[revoked]).unwrap();
        let empty = crl(&lab.signer(&root.key), &root.issuer, 1, times, &[]).unwrap();
        assert!(is_revoked(&list, &bad, &root.der, now()).unwrap());
        assert!(!is_revoked(&list, &good, &root.der, now()).unwrap());
        assert!(!is_revoked(&empty, &bad, &root.der, now()).unwrap());
        assert!(is_revoked(&list, &bad, &root.der, now() + 2 * DAY).is_err());
        if kind.is_ml_dsa() {
            continue;
        }
        lab.pem("root.pem", &root.der);
        lab.pem("good.pem", &good);
        lab.pem("bad.pem", &bad);
        for (name, der) in [("list", list), ("empty", empty)] {
            lab.write("in.der", der);
            lab.openssl(&format!("crl -inform DER -in in.der -out {name}.pem"))
                .ok();
        }
        let shown = lab
            .openssl("crl -in list.pem -CAfile root.pem -noout -text")
            .ok();
        shown.says(&[
            "verify OK",
            "Key Compromise",
            "X509v3 CRL Number",
            "300",
            "Version 2",
        ]);
        for (leaf, list, fine) in [
            ("good", "list", true),
            ("bad", "list", false),
            ("bad", "empty", true),
        ] {
            let line = format!("-crl_check -CRLfile {list}.pem -CAfile root.pem {leaf}.pem");
            let verified = lab.verify(&line);
            assert_eq!(verified.status.success(), fine, "{leaf} {list}: {verified}");
        }
        lab.verify("-crl_check -CRLfile list.pem -CAfile root.pem bad.pem")
            .says(&["certificate revoked"]);
    }
}

/// Seen to fail without each of the checks of `consistent`, of `Issuer::check`, of the CA's validity in
/// `issue`, and of `self_signed`.
#[test]
fn what_contradicts_itself_is_not_signed() {
    let lab = Lab::new();
    let root = lab.root(KeyKind::EcP256);
    let key = lab.key(KeyKind::Ed25519);
    let fine = device(&key.public, "CN=pump 7");
    let refused = |spec: CertificateSpec| {
        let issued = issue(&lab.signer(&root.key), &root.issuer, &spec);
        assert!(
            matches!(issued, Err(Error::BadInput(_) | Error::Unsupported(_))),
            "{spec:?}"
        );
    };
    refused(CertificateSpec {
        subject: Default::default(),
        ..fine.clone()
    });
    refused(CertificateSpec {
        not_before: now() + 2 * DAY,
        ..fine.clone()
    });
    refused(CertificateSpec {
        not_before: now() - 2 * DAY,
        ..fine.clone()
    });
    refused(CertificateSpec {
        not_after: now() + 31 * DAY,
        ..fine.clone()
    });
    refused(CertificateSpec {
        key_usage: Usage {
            agree: true,
            ..Usage::SIGN
        },
        ..fine.clone()
    });
    refused(CertificateSpec {
        policies: vec!["level".into()],
        ..fine.clone()
    });
    refused(CertificateSpec {
        crl_url: Some("no uri".into()),
        ..fine.clone()
    });
    refused(CertificateSpec {
        ca: Some(Authority { path_len: None }),
        subject: Default::default(),
        alt_names: names(&["dns:ca.example"]),
        ..fine.clone()
    });
    let other = issue(&lab.signer(&key), &root.issuer, &fine);
    assert!(matches!(other, Err(Error::BadInput(_))));
    assert!(self_signed(&lab.signer(&key), &fine).is_err());
    assert!(self_signed(&lab.signer(&root.key), &authority(&key.public, "CN=x")).is_err());
    let leaf = lab.issue(&root, &fine);
    assert!(Issuer::from_certificate(&leaf).is_err());
    let list = |times| crl(&lab.signer(&root.key), &root.issuer, 1, times, &[]);
    assert!(list((now(), now())).is_err());
    assert!(crl(&lab.signer(&key), &root.issuer, 1, (1, 2), &[]).is_err());
    let nobody = RequestSpec {
        subject: Default::default(),
        alt_names: Vec::new(),
        key_usage: Usage::SIGN,
    };
    assert!(Request::make(&lab.signer(&key), &nobody).is_err());
}

/// Seen to fail with `bytes.len()` alone in `Serial::new`.
#[test]
fn serial_numbers_are_positive_and_bounded() {
    let lab = Lab::new();
    let root = lab.root(KeyKind::EcP256);
    for (bytes, fine) in [
        (vec![0], false),
        (vec![0, 0, 7], true),
        (vec![0x80], true),
        (vec![0x7f; 20], true),
        (vec![0x80; 20], false),
        (vec![1; 21], false),
        (vec![], false),
    ] {
        let serial = Serial::new(&bytes);
        assert_eq!(serial.is_ok(), fine, "{bytes:?}");
        let Ok(serial) = serial else { continue };
        assert_eq!(serial.to_string().parse::<Serial>().unwrap(), serial);
        let spec = CertificateSpec {
            serial: serial.clone(),
            ..device(&root.key.public, "CN=x")
        };
        let der = lab.issue(&root, &spec);
        assert_eq!(describe(&der).unwrap().serial, serial);
        lab.write("in.der", der);
        let shown = lab
            .openssl("x509 -inform DER -in in.der -noout -serial")
            .ok()
            .text();
        assert_eq!(
            shown.trim(),
            format!("serial={}", serial.to_string().to_uppercase())
        );
    }
    assert_ne!(Serial::random().unwrap(), Serial::random().unwrap());
}

/// UTCTime ends with 2049 (RFC 5280 §4.1.2.5.1, §5.1.2.4). Seen to fail, by the list, with
/// GeneralizedTime throughout in `time`; in certificates `x509-cert` sees to it.
#[test]
fn times_are_written_as_the_profile_says() {
    let lab = Lab::new();
    let key = lab.key(KeyKind::EcP256);
    // 2049-12-31T23:59:59Z and the next second.
    let times = (2_524_607_999, 2_524_608_000);
    let spec = CertificateSpec {
        not_before: times.0,
        not_after: times.1,
        ..authority(&key.public, "CN=Late")
    };
    let der = self_signed(&lab.signer(&key), &spec).unwrap();
    let issuer = Issuer::from_certificate(&der).unwrap();
    let list = crl(&lab.signer(&key), &issuer, 1, times, &[]).unwrap();
    for der in [der, list] {
        lab.write("in.der", der);
        let shown = lab.openssl("asn1parse -inform DER -in in.der").ok();
        shown.says(&[":491231235959Z", ":20500101000000Z"]);
    }
    let far = CertificateSpec {
        not_after: 253_402_300_800,
        ..spec
    };
    assert!(self_signed(&lab.signer(&key), &far).is_err());
}

#[test]
fn a_description_says_what_stands_there() {
    let lab = Lab::new();
    let root = lab.root(KeyKind::EcP384);
    let key = lab.key(KeyKind::Ed25519);
    let spec = CertificateSpec {
        alt_names: names(&NAMES),
        policies: vec![Level::Puf.policies()[0].to_owned()],
        crl_url: Some("http://ca.example/lab.crl".to_owned()),
        not_before: 1_700_000_000,
        ..device(&key.public, "CN=pump 7,O=Example")
    };
    let root_spec = CertificateSpec {
        not_before: 0,
        ..authority(&root.key.public, "CN=Lab root")
    };
    let der = self_signed(&lab.signer(&root.key), &root_spec).unwrap();
    let root = Ca {
        issuer: Issuer::from_certificate(&der).unwrap(),
        key: root.key,
        der,
    };
    let leaf = lab.issue(&root, &spec);
    let told = describe(&leaf).unwrap();
    let wanted = [
        "subject      CN=pump 7,O=Example",
        &format!("names        {}", NAMES.join(", ")),
        "issuer       CN=Lab root",
        &format!("serial       {}", spec.serial),
        "valid from   2023-11-14T22:13:20Z",
        "key          ed25519",
        "for          serverAuth, clientAuth",
        "level        puf",
        "revocation   http://ca.example/lab.crl",
    ];
    for line in wanted {
        assert!(
            told.to_string().lines().any(|said| said == line),
            "no {line:?}: {told}"
        );
    }
    lab.write("in.der", &leaf);
    let print = lab
        .openssl("x509 -inform DER -in in.der -noout -fingerprint -sha256")
        .ok()
        .text();
    let print = print.trim().replace(':', "").to_lowercase();
    assert!(print.ends_with(&told.fingerprint), "{print}");
    assert!(describe(&root.der).unwrap().ca);
}
