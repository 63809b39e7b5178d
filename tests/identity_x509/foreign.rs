//! Chains that OpenSSL made: good ones, and each wrong in a single way.

use std::fmt::Write as _;

use devkey::Error;
use devkey::identity::x509::chain::{Purpose, Verified, verify};
use devkey::identity::x509::{Request, describe};
use devkey::key::PublicKey;

use crate::lab::{DAY, Lab};

const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign";
const LEAF: &str = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
                    extendedKeyUsage=clientAuth";
const IDS: &str = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid";

/// How openssl makes one certificate.
#[derive(Clone, Copy)]
struct Plan<'a> {
    /// An argument of `openssl genpkey`, or the name of a certificate whose key it takes.
    key: &'a str,
    subject: &'a str,
    extensions: &'a str,
    digest: &'a str,
    days: u64,
}

const P256: &str = "EC -pkeyopt ec_paramgen_curve:P-256";
const ROOT: Plan<'_> = Plan {
    key: P256,
    subject: "/CN=Root",
    extensions: CA,
    digest: "sha256",
    days: 30,
};
const BELOW: Plan<'_> = Plan {
    subject: "/CN=Below",
    ..ROOT
};
const DEVICE: Plan<'_> = Plan {
    subject: "/CN=pump 7",
    extensions: LEAF,
    ..ROOT
};

impl Lab {
    /// Makes the certificate `name`, signed by `issuer`; by itself where that is its own name.
    fn make(&self, name: &str, issuer: &str, plan: Plan<'_>) {
        if self.file(&format!("{}.key", plan.key)).exists() {
            self.write(
                &format!("{name}.key"),
                self.read(&format!("{}.key", plan.key)),
            );
        } else {
            self.openssl(&format!("genpkey -out {name}.key -algorithm {}", plan.key))
                .ok();
        }
        self.write("ext.cnf", plan.extensions);
        let request = format!("req -new -key {name}.key -out {name}.csr -subj");
        self.openssl(&request).arg(plan.subject).ok();
        let signer = match issuer == name {
            true => format!("-signkey {name}.key"),
            false => format!("-CA {issuer}.pem -CAkey {issuer}.key"),
        };
        let Plan { digest, days, .. } = plan;
        let extensions = if plan.extensions.is_empty() {
            ""
        } else {
            "-extfile ext.cnf"
        };
        let digest = if digest.is_empty() {
            String::new()
        } else {
            format!("-{digest}")
        };
        self.openssl(&format!(
            "x509 -req -in {name}.csr {signer} {digest} -days {days} {extensions} -out {name}.pem"
        ))
        .ok();
    }

    /// Our verdict on `leaf` with those intermediates and roots.
    fn judge(
        &self,
        leaf: &str,
        between: &[&str],
        roots: &[&str],
        at: u64,
        purpose: Purpose,
    ) -> Result<Verified, Error> {
        let read = |names: &[&str]| -> Vec<_> {
            names
                .iter()
                .map(|name| self.der(&format!("{name}.pem")))
                .collect()
        };
        verify(
            &self.der(&format!("{leaf}.pem")),
            &read(between),
            &read(roots),
            at,
            purpose,
        )
    }

    /// root ← below ← leaf, each as planned, and our verdict for a TLS client.
    fn three(
        &self,
        root: Plan<'_>,
        below: Plan<'_>,
        leaf: Plan<'_>,
        at: u64,
    ) -> Result<Verified, Error> {
        self.make("root", "root", root);
        self.make("below", "root", below);
        self.make("leaf", "below", leaf);
        self.judge("leaf", &["below"], &["root"], at, Purpose::Client)
    }
}

/// When the certificates that are made meanwhile are valid: they begin with their making.
fn soon() -> u64 {
    crate::lab::now() + 3600
}

/// Asserts that a chain is refused, and the reason.
fn refused(verdict: Result<Verified, Error>, reason: &str) {
    match verdict {
        Err(Error::BadInput(said)) => assert!(said.contains(reason), "{reason:?}: {said}"),
        other => panic!("wanted {reason:?}: {other:?}"),
    }
}

/// Every algorithm that makers' CAs sign by. Seen to fail without P-521 and without SHA-512 in `ecdsa`.
#[test]
fn good_chains_of_each_algorithm_are_accepted() {
    let lab = Lab::new();
    let ec = |curve| format!("EC -pkeyopt ec_paramgen_curve:{curve}");
    let rsa = |bits| format!("RSA -pkeyopt rsa_keygen_bits:{bits}");
    for (key, digests) in [
        (ec("P-256"), &["sha256", "sha384", "sha512"][..]),
        (ec("P-384"), &["sha256", "sha384", "sha512"]),
        (ec("P-521"), &["sha256", "sha384", "sha512"]),
        (rsa(2048), &["sha256", "sha384", "sha512"]),
        (rsa(4096), &["sha256"]),
        ("ED25519".to_owned(), &[""]),
    ] {
        lab.make(
            "root",
            "root",
            Plan {
                key: &key,
                digest: digests[0],
                ..ROOT
            },
        );
        for digest in digests {
            lab.make("leaf", "root", Plan { digest, ..DEVICE });
            let found = lab
                .judge("leaf", &[], &["root"], soon(), Purpose::Client)
                .unwrap();
            let public = PublicKey::from_spki(&found.spki).unwrap();
            assert_eq!(public.to_spki(), found.spki);
            assert_eq!((found.subject.as_str(), found.path.len()), ("CN=pump 7", 2));
        }
    }
}

/// Seen to fail without the look at the issuer in `link`, without that at the leaf in `verify`, and with
/// not_before for both bounds.
#[test]
fn each_certificate_of_a_path_is_valid_then() {
    let lab = Lab::new();
    let ends = |root, below, leaf| {
        let plan = |plan, days| Plan { days, ..plan };
        let at = soon() + 10 * DAY;
        lab.three(plan(ROOT, root), plan(BELOW, below), plan(DEVICE, leaf), at)
    };
    ends(30, 30, 30).unwrap();
    refused(ends(5, 30, 30), "CN=Root (serial");
    refused(ends(30, 5, 30), "CN=Below (serial");
    refused(ends(30, 30, 5), "CN=pump 7 (serial");
    refused(ends(30, 30, 5), "has expired");
    let early = lab.judge("leaf", &["below"], &["root"], soon() - DAY, Purpose::Client);
    refused(early, "not valid yet");
}

/// Seen to fail without `may_issue`, and with `basic` alone in `is_authority`.
#[test]
fn only_a_ca_issues() {
    let lab = Lab::new();
    let below = |extensions| {
        let below = Plan {
            extensions,
            ..BELOW
        };
        lab.three(ROOT, below, DEVICE, soon())
    };
    below(CA).unwrap();
    below("basicConstraints=critical,CA:TRUE").unwrap();
    for none in [
        "",
        "basicConstraints=critical,CA:FALSE",
        "keyUsage=critical,keyCertSign",
        "subjectKeyIdentifier=hash",
        "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,digitalSignature,cRLSign",
    ] {
        refused(below(none), "not the certificate of a CA");
    }
    // Neither does a root that is none.
    let root = Plan {
        extensions: "basicConstraints=critical,CA:FALSE",
        ..ROOT
    };
    refused(
        lab.three(root, BELOW, DEVICE, soon()),
        "not the certificate of a CA",
    );
}

/// Seen to fail with `>=` for `>`, and with 0 for `between`.
#[test]
fn the_length_of_a_path_is_bounded() {
    let lab = Lab::new();
    let limited = |most: u8| CA.replace("TRUE", &format!("TRUE,pathlen:{most}"));
    for (of_root, of_first, fine) in [(2, 1, true), (2, 0, false), (1, 1, false), (0, 1, false)] {
        lab.make(
            "root",
            "root",
            Plan {
                extensions: &limited(of_root),
                ..ROOT
            },
        );
        lab.make(
            "first",
            "root",
            Plan {
                extensions: &limited(of_first),
                ..BELOW
            },
        );
        let second = Plan {
            extensions: &limited(0),
            subject: "/CN=Second",
            ..ROOT
        };
        lab.make("second", "first", second);
        lab.make("leaf", "second", DEVICE);
        let verdict = lab.judge(
            "leaf",
            &["second", "first"],
            &["root"],
            soon(),
            Purpose::Client,
        );
        match fine {
            true => assert_eq!(verdict.unwrap().path.len(), 4),
            false => refused(verdict, "more CAs below it than it allows"),
        }
    }
}

/// Seen to fail without `below.verify`.
#[test]
fn another_key_under_the_same_name_is_no_issuer() {
    let lab = Lab::new();
    // Without key identifiers, which openssl writes by itself.
    let bare =
        |base: &str| format!("{base}\nsubjectKeyIdentifier=none\nauthorityKeyIdentifier=none");
    let (ca, leaf) = (bare(CA), bare(LEAF));
    let below = Plan {
        extensions: &ca,
        ..BELOW
    };
    let root = Plan {
        extensions: &ca,
        ..ROOT
    };
    lab.three(
        root,
        below,
        Plan {
            extensions: &leaf,
            ..DEVICE
        },
        soon(),
    )
    .unwrap();
    lab.make("false", "root", below);
    let verdict = lab.judge("leaf", &["false"], &["root"], soon(), Purpose::Client);
    refused(verdict, "its issuer's key did not sign it");
    // Beside the right one it does no harm, in either order.
    for between in [["false", "below"], ["below", "false"]] {
        lab.judge("leaf", &between, &["root"], soon(), Purpose::Client)
            .unwrap();
    }
    lab.make("other", "other", root);
    let verdict = lab.judge("leaf", &["below"], &["other"], soon(), Purpose::Client);
    refused(verdict, "its issuer's key did not sign it");
    lab.judge(
        "leaf",
        &["below"],
        &["other", "root"],
        soon(),
        Purpose::Client,
    )
    .unwrap();
}

/// Seen to fail without the look for the candidate in the path.
#[test]
fn a_path_ends_at_a_root_that_is_trusted() {
    let lab = Lab::new();
    lab.three(ROOT, BELOW, DEVICE, soon()).unwrap();
    lab.make(
        "stranger",
        "stranger",
        Plan {
            subject: "/CN=Stranger",
            ..ROOT
        },
    );
    for (between, roots) in [
        (&["below", "root"][..], &["stranger"][..]),
        (&["below", "root"], &[]),
        (&[], &["root"]),
        (&["leaf"], &["root"]),
    ] {
        let verdict = lab.judge("leaf", between, roots, soon(), Purpose::Client);
        refused(verdict, "is known");
    }
    // An intermediate that is trusted ends it too; a root is no device of its own.
    lab.judge("leaf", &[], &["below"], soon(), Purpose::Client)
        .unwrap();
    assert!(
        lab.judge("root", &[], &["root"], soon(), Purpose::Any)
            .is_err()
    );
    assert!(
        lab.judge("leaf", &[], &["leaf"], soon(), Purpose::Any)
            .is_err()
    );
}

/// Seen to fail without `no_unknown` in `fit`, without it in `understood`, and without the look at
/// nameConstraints.
#[test]
fn what_is_not_understood_is_refused() {
    let lab = Lab::new();
    let with = |base: &str, more: &str| format!("{base}\n{more}");
    let critical = "1.2.3.4=critical,ASN1:NULL";
    let verdict = |below: &str, leaf: &str| {
        let below = Plan {
            extensions: below,
            ..BELOW
        };
        lab.three(
            ROOT,
            below,
            Plan {
                extensions: leaf,
                ..DEVICE
            },
            soon(),
        )
    };
    verdict(
        &with(CA, "1.2.3.4=ASN1:NULL"),
        &with(LEAF, "1.2.3.4=ASN1:NULL"),
    )
    .unwrap();
    refused(
        verdict(CA, &with(LEAF, critical)),
        "critical extension 1.2.3.4",
    );
    refused(
        verdict(&with(CA, critical), LEAF),
        "critical extension 1.2.3.4",
    );
    // What bounds a path in ways that are not obeyed here.
    for bound in [
        "nameConstraints=critical,permitted;DNS:example.org",
        "nameConstraints=permitted;DNS:example.org",
        "policyConstraints=critical,requireExplicitPolicy:0",
        "inhibitAnyPolicy=critical,0",
    ] {
        refused(verdict(&with(CA, bound), LEAF), "not supported");
    }
}

/// Seen to fail with aws-lc's legacy algorithm for SHA-1 in `rsa`, and without MIN_RSA (aws-lc refuses
/// such a key too, but does not say why). A root is trusted for its key: how it
/// signed itself does not matter.
#[test]
fn weak_signatures_are_refused() {
    let lab = Lab::new();
    let short = "RSA -pkeyopt rsa_keygen_bits:1024";
    let rsa = "RSA -pkeyopt rsa_keygen_bits:2048";
    let root = Plan {
        digest: "sha1",
        key: rsa,
        ..ROOT
    };
    lab.three(root, Plan { key: rsa, ..BELOW }, DEVICE, soon())
        .unwrap();
    let old = Plan {
        digest: "sha1",
        ..DEVICE
    };
    refused(
        lab.three(ROOT, Plan { key: rsa, ..BELOW }, old, soon()),
        "1.2.840.113549.1.1.5",
    );
    refused(lab.three(ROOT, BELOW, old, soon()), "1.2.840.10045.4.1");
    refused(
        lab.three(
            ROOT,
            Plan {
                key: short,
                ..BELOW
            },
            DEVICE,
            soon(),
        ),
        "RSA key below 2048 bits",
    );
    let k1 = "EC -pkeyopt ec_paramgen_curve:secp256k1";
    refused(
        lab.three(ROOT, Plan { key: k1, ..BELOW }, DEVICE, soon()),
        "not supported",
    );
}

/// Seen to fail without `allows` for the leaf, without it for the CA, without `right`, and without the
/// look at `ca` in `fit`.
#[test]
fn a_certificate_is_good_for_its_purposes() {
    let lab = Lab::new();
    lab.three(ROOT, BELOW, DEVICE, soon()).unwrap();
    let verdict = |purpose| lab.judge("leaf", &["below"], &["root"], soon(), purpose);
    verdict(Purpose::Any).unwrap();
    refused(verdict(Purpose::Server), "not for the purpose serverAuth");
    refused(
        verdict(Purpose::EndorsementKey),
        "not for the purpose endorsementKey",
    );
    for (extensions, fine) in [
        ("keyUsage=critical,digitalSignature", true),
        ("extendedKeyUsage=anyExtendedKeyUsage", true),
        ("keyUsage=critical,keyEncipherment", false),
        ("basicConstraints=critical,CA:TRUE", false),
        (CA, false),
    ] {
        lab.make(
            "leaf",
            "below",
            Plan {
                extensions,
                ..DEVICE
            },
        );
        for purpose in [Purpose::Client, Purpose::Server] {
            let verdict = lab.judge("leaf", &["below"], &["root"], soon(), purpose);
            assert_eq!(verdict.is_ok(), fine, "{extensions}: {verdict:?}");
        }
    }
    let extensions = format!("{CA}\nextendedKeyUsage=serverAuth");
    let verdict = lab.three(
        ROOT,
        Plan {
            extensions: &extensions,
            ..BELOW
        },
        DEVICE,
        soon(),
    );
    refused(verdict, "CN=Below");
}

/// TCG EK Credential Profile §3.2: no subject, the TPM's maker and model in a critical alternative name,
/// and attributes of its own. Seen to fail without `tolerated`, without keyAgreement, and with a CA's
/// purposes taken as for TLS.
#[test]
fn endorsement_certificates_are_tolerated_as_their_profile_has_them() {
    let lab = Lab::new();
    let attributes = "\n2.5.29.9=critical,ASN1:SEQUENCE:none\n[tpm]\n0.2.23.133.2.1=id:53544D20\n\
                      0.2.23.133.2.2=ST33\n0.2.23.133.2.3=id:00010101\n[none]\n";
    let of = |usage: &str, purpose: &str| {
        format!(
            "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,{usage}\n{purpose}\n\
             subjectAltName=critical,dirName:tpm{attributes}"
        )
    };
    let below = Plan {
        extensions: &format!("{CA}\nextendedKeyUsage=clientAuth"),
        ..BELOW
    };
    let purpose = "extendedKeyUsage=2.23.133.8.1";
    for (usage, purpose, fine) in [
        ("keyEncipherment", purpose, true),
        ("keyAgreement", purpose, true),
        ("keyAgreement", "", true),
        ("digitalSignature", purpose, false),
        ("keyAgreement", "extendedKeyUsage=2.23.133.8.3", false),
    ] {
        let extensions = of(usage, purpose);
        let leaf = Plan {
            extensions: &extensions,
            subject: "/",
            ..DEVICE
        };
        let _ = lab.three(ROOT, below, leaf, soon());
        let verdict = lab.judge(
            "leaf",
            &["below"],
            &["root"],
            soon(),
            Purpose::EndorsementKey,
        );
        assert_eq!(verdict.is_ok(), fine, "{usage}, {purpose}: {verdict:?}");
        let told = describe(&lab.der("leaf.pem")).unwrap().to_string();
        assert!(told.contains("TCG-AT-TPMMODEL=ST33"), "{told}");
    }
    refused(
        lab.judge("leaf", &["below"], &["root"], soon(), Purpose::Any),
        "critical extension 2.5.29.9",
    );
}

/// Hostile intermediates cost a bounded amount of work. Seen to fail, with no end in sight, without
/// MAX_CHECKS.
#[test]
fn loops_and_crowds_of_cas_end() {
    let lab = Lab::new();
    lab.make("root", "root", ROOT);
    // Under each of two names 15 certificates of one key, each issued by the other's.
    lab.make(
        "a",
        "a",
        Plan {
            subject: "/CN=A",
            ..ROOT
        },
    );
    lab.make(
        "b",
        "a",
        Plan {
            subject: "/CN=B",
            ..ROOT
        },
    );
    let mut crowd = Vec::new();
    for at in 0..15 {
        lab.make(
            &format!("a{at}"),
            "b",
            Plan {
                subject: "/CN=A",
                key: "a",
                ..ROOT
            },
        );
        lab.make(
            &format!("b{at}"),
            "a",
            Plan {
                subject: "/CN=B",
                key: "b",
                ..ROOT
            },
        );
        crowd.extend([format!("a{at}"), format!("b{at}")]);
    }
    lab.make("leaf", "a", DEVICE);
    let crowd: Vec<_> = crowd.iter().map(String::as_str).collect();
    let began = std::time::Instant::now();
    let verdict = lab.judge("leaf", &crowd, &["root"], soon(), Purpose::Client);
    refused(verdict, "too long");
    assert!(began.elapsed().as_secs() < 20);
    let many: Vec<_> = crowd.iter().chain(&crowd).copied().collect();
    refused(
        lab.judge("leaf", &many, &["root"], soon(), Purpose::Client),
        "more than 32",
    );
}

/// RFC 5280 §7.1. Seen to fail with `one == other` alone in `same`.
#[test]
fn names_are_compared_as_text() {
    let lab = Lab::new();
    lab.make("root", "root", ROOT);
    lab.make(
        "below",
        "root",
        Plan {
            subject: "/O=Maker GmbH/CN=Below 1",
            ..BELOW
        },
    );
    lab.make("leaf", "below", DEVICE);
    let mut config = "[req]\ndistinguished_name=dn\nprompt=no\nstring_mask=default\n".to_owned();
    write!(config, "[dn]\nO=MAKER  gmbh\nCN=below 1\n").unwrap();
    lab.write("printable.cnf", config);
    lab.write("ext.cnf", CA);
    lab.openssl("req -new -config printable.cnf -key below.key -out again.csr")
        .ok();
    lab.openssl(
        "x509 -req -in again.csr -CA root.pem -CAkey root.key -extfile ext.cnf -out again.pem",
    )
    .ok();
    lab.openssl("asn1parse -in again.pem")
        .ok()
        .says(&["PRINTABLESTRING   :MAKER  gmbh"]);
    lab.judge("leaf", &["again"], &["root"], soon(), Purpose::Client)
        .unwrap();
    lab.make(
        "other",
        "root",
        Plan {
            subject: "/O=Maker GmbH/CN=Below 2",
            key: "below",
            ..BELOW
        },
    );
    refused(
        lab.judge("leaf", &["other"], &["root"], soon(), Purpose::Client),
        "is known",
    );
}

/// Key identifiers, where there are, choose between CAs of one name without trying each.
#[test]
fn key_identifiers_must_fit() {
    let lab = Lab::new();
    let ca = format!("{CA}\n{IDS}");
    let leaf = format!("{LEAF}\n{IDS}");
    let below = Plan {
        extensions: &ca,
        ..BELOW
    };
    lab.three(
        Plan {
            extensions: &ca,
            ..ROOT
        },
        below,
        Plan {
            extensions: &leaf,
            ..DEVICE
        },
        soon(),
    )
    .unwrap();
    lab.make("false", "root", below);
    refused(
        lab.judge("leaf", &["false"], &["root"], soon(), Purpose::Client),
        "is known",
    );
}

/// Requests of others. Seen to fail without each check of `grantable`, and without `named` in `parse`.
#[test]
fn requests_by_openssl_are_read_and_judged() {
    let lab = Lab::new();
    let request = |key: &str, subject: &str, extensions: &str| {
        lab.openssl(&format!("genpkey -algorithm {key} -out r.key"))
            .ok();
        lab.write(
            "r.cnf",
            format!("[req]\ndistinguished_name=dn\n[dn]\n[ext]\n{extensions}\n"),
        );
        let line = "req -new -utf8 -config r.cnf -key r.key -outform DER -out r.der";
        let more = if extensions.is_empty() {
            ""
        } else {
            " -reqexts ext"
        };
        lab.openssl(&format!("{line}{more} -subj"))
            .arg(subject)
            .ok();
        Request::parse(&lab.read("r.der"))
    };
    let rsa = "RSA -pkeyopt rsa_keygen_bits:2048";
    let good = request(
        rsa,
        "/O=Example/CN=Zoë",
        "subjectAltName=DNS:pump7.example\nkeyUsage=digitalSignature",
    );
    let good = good.unwrap();
    assert_eq!(good.subject.to_string(), "CN=Zoë,O=Example");
    assert_eq!(good.alt_names.len(), 1);
    let plain = request("ED25519", "/CN=x", "").unwrap();
    assert_eq!((plain.key_usage, plain.alt_names.len()), (None, 0));
    for (key, subject, extensions, reason) in [
        (
            P256,
            "/CN=x",
            "basicConstraints=CA:TRUE",
            "a CA's certificate",
        ),
        (P256, "/CN=x", "keyUsage=keyCertSign", "only a CA's key"),
        (P256, "/CN=x", "1.2.3.4=critical,ASN1:NULL", "1.2.3.4"),
        (P256, "/CN=x", "subjectAltName=RID:1.2.3", "does not know"),
        (
            P256,
            "/CN=x",
            "subjectAltName=DNS:a_b.example",
            "no name of its kind",
        ),
        (
            P256,
            "/CN=x",
            "subjectAltName=DNS:a..example",
            "no name of its kind",
        ),
        (
            P256,
            "/CN=x",
            "subjectAltName=URI:nothing",
            "no name of its kind",
        ),
        (
            P256,
            "/CN=x",
            "subjectAltName=email:@example",
            "no name of its kind",
        ),
        (P256, "/", "", "needs a subject"),
        (P256, "/CN=a\u{7}b", "", "not plain text"),
        (
            "RSA -pkeyopt rsa_keygen_bits:1024",
            "/CN=x",
            "",
            "2048, 3072 or 4096",
        ),
        (
            "EC -pkeyopt ec_paramgen_curve:P-521",
            "/CN=x",
            "",
            "the curve is none of",
        ),
        (
            "EC -pkeyopt ec_paramgen_curve:secp256k1",
            "/CN=x",
            "",
            "the curve is none of",
        ),
    ] {
        match request(key, subject, extensions) {
            Err(e) => assert!(
                e.to_string().contains(reason),
                "{subject} {extensions}: {e}"
            ),
            Ok(read) => panic!("{subject} {extensions}: {read:?}"),
        }
    }
    lab.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out r.key")
        .ok();
    lab.openssl("req -new -sha1 -key r.key -outform DER -out r.der -subj /CN=x")
        .ok();
    let weak = Request::parse(&lab.read("r.der"));
    assert!(matches!(weak, Err(Error::Unsupported(_))), "{weak:?}");
}
