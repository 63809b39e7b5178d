//! What is installed is there, for devkey and for the programs that read the token.

use std::fs;

use devkey::backends::file;
use devkey::identity::flow::{Authority, Digest, Issued, IssuedSpec};
use devkey::identity::signer::{Signer, TokenSigner};
use devkey::identity::x509::{CertificateSpec, Issuer, Serial, describe, issue};
use devkey::key::Usage;
use devkey::provider::Settings;
use devkey::store::Store;
use devkey::token::LocalToken;

use crate::authority::World;
use crate::common::sshd::{Sshd, WELCOME};
use crate::common::{Device, module};

/// In any order, with the root, from a file and from standard input; one file holds the chain, and the
/// next one takes its place. Seen to fail with `path.pop()` in identity/install.rs left out.
#[test]
fn a_chain_is_put_in_order_and_in_one_place() {
    let world = World::new();
    world.certify("web", "first", 10);
    world
        .sh("cat root.pem between.pem first.pem > mixed.pem")
        .ok();
    world.install("mixed.pem").says(&[
        "CN=first",
        "with 1 above it, without its root",
        "nginx -s reload",
    ]);
    assert_eq!(world.subjects(), ["CN=first,O=Example", "CN=between"]);
    let file = world.cert("show web --format file").ok().text();
    let pem = world.cert("show web --format pem").ok().text();
    assert_eq!(pem.as_bytes(), world.read("first.pem"));
    world.certify("web", "second", 20);
    let again = world.cert("install --key web --ca root.pem -");
    again.input(world.read("second.pem")).ok();
    assert_eq!(world.subjects(), ["CN=second,O=Example", "CN=between"]);
    assert_eq!(world.cert("show web --format file").ok().text(), file);
    // openssl reads the file as it is.
    world
        .device
        .run("openssl")
        .args(["x509", "-noout", "-subject", "-in", file.trim()])
        .ok()
        .says(&["CN = second"]);
    world
        .sh("openssl x509 -in second.pem -outform DER -out second.der")
        .ok();
    world.install("second.der").says(&["with 0 above it"]);
    world.cert("delete --yes web").ok();
    assert!(world.list().is_empty());
    assert!(world.files().keys().all(|name| !name.ends_with(".crt")));
}

/// The key's own CKA_ID on its certificate, another on the CA's.
#[test]
fn pkcs11_programs_see_the_chain() {
    let world = World::new();
    world.certify("web", "first", 10);
    world.install("first.pem");
    let listed = world.device.pkcs11_tool().words("-O --type cert").ok();
    let id = world.list()[0]["key_id"].as_str().unwrap().to_owned();
    listed.says(&[
        "label:      web",
        &format!("ID:         {id}"),
        "CN=between",
    ]);
    assert_eq!(listed.text().matches(&id).count(), 1, "{listed}");
    // p11tool --export-chain looks among trusted certificates alone, and these are not.
    let p11tool = || world.device.run("p11tool").arg("--provider").arg(module());
    let token = format!("pkcs11:token={}", Device::TOKEN);
    let listed = p11tool().args(["--list-all-certs", &token]).ok().text();
    let urls = listed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("URL: "));
    let export = |url| p11tool().args(["--export", url]).ok().text();
    let chain: String = urls.map(export).collect();
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2, "{chain}");
    fs::write(world.path("chain.pem"), chain).unwrap();
    world
        .sh("openssl verify -CAfile root.pem -untrusted chain.pem chain.pem")
        .ok();
}

/// With `--beside` both stay. Seen to fail with `Replaced::All` for both.
#[test]
fn a_second_certificate_may_stand_beside_the_first() {
    let world = World::new();
    world.certify("web", "first", 10);
    world.certify("web", "second", 10);
    world.install("first.pem");
    world.cert("install --beside second.pem").ok();
    let mut subjects = world.subjects();
    subjects.sort_unstable();
    let both = [
        "CN=between",
        "CN=between",
        "CN=first,O=Example",
        "CN=second,O=Example",
    ];
    assert_eq!(subjects, both);
    world.install("first.pem");
    assert_eq!(world.subjects(), ["CN=first,O=Example", "CN=between"]);
}

/// Exit code 3 where there is anything, for both kinds. Seen to fail with `Answer::exit` left out.
#[test]
fn what_expires_is_told_to_monitoring() {
    let world = World::new();
    world.certify("web", "first", 10);
    world.install("first.pem");
    let rc = |line: &str| world.cert(line).output().status.code();
    assert_eq!(rc("list --expires-within 9d"), Some(0));
    assert_eq!(rc("list --expires-within 11d"), Some(3));
    world.certify_ssh("login", "-n me -V +1h");
    world.install("login-cert.pub");
    let soon = world.cert("list --expires-within 2h --json").output();
    assert_eq!(soon.status.code(), Some(3));
    let soon: serde_json::Value = serde_json::from_slice(&soon.stdout).unwrap();
    assert_eq!(soon.as_array().unwrap().len(), 1, "{soon}");
    assert_eq!(soon[0]["kind"], "ssh-user");
    assert!(
        (3500..=3600).contains(&soon[0]["expires_in"].as_i64().unwrap()),
        "{soon}"
    );
    // What cannot be read is exit code 1, whatever expires.
    let broken = world.device.store().join(Device::TOKEN).join("x-cert.pub");
    fs::write(broken, "nonsense\n").unwrap();
    assert_eq!(rc("list --expires-within 2h"), Some(1));
}

/// OpenSSH's certificates lie beside the key, one of each kind, and ssh logs in by the one that
/// CertificateFile names. Seen to fail with one name for both kinds in `file_name`.
#[test]
fn ssh_logs_in_by_its_certificate() {
    let world = World::new();
    let account = world.device.run("id").arg("-un").ok().text();
    world.certify_ssh("login", &format!("-n {}", account.trim()));
    world.certify_ssh("server", "-h -n server.example -V +1d");
    world
        .install("login-cert.pub")
        .says(&["web-cert.pub", "login"]);
    let host = world
        .cert("install --ssh-ca sshca.pub server-cert.pub")
        .ok();
    host.says(&["web-host-cert.pub"]);
    let files = world.cert("show web --format ssh-file").ok().text();
    let files: Vec<&str> = files.lines().collect();
    assert_eq!(files.len(), 2, "{files:?}");
    let trusted = format!("TrustedUserCAKeys {}", world.path("sshca.pub").display());
    let sshd = Sshd::new(&world.device, &trusted);
    let login = |more: &str| {
        let login = sshd.login(&world.device).args(["-o", "IdentityAgent=none"]);
        login
            .args(["-o", more, "-I"])
            .arg(module())
            .args(Sshd::destination())
    };
    login(&format!("CertificateFile={}", files[0]))
        .ok()
        .says(&[WELCOME]);
    sshd.wait_for("ID login");
    login("CertificateFile=none").fails();
    // Elsewhere, by name; and gone again.
    fs::create_dir(world.path("dot-ssh")).unwrap();
    world.cert("install --ssh-dir dot-ssh login-cert.pub").ok();
    assert!(world.path("dot-ssh/web-cert.pub").exists());
    world.cert("delete --yes --ssh-dir dot-ssh web").ok();
    assert!(world.list().is_empty());
    assert!(!world.path("dot-ssh/web-cert.pub").exists());
}

/// What a CA of devkey's issues, JSON; for a renewal it must answer the very request. Seen to fail with
/// the comparison of digests left out of `answered_by`.
#[test]
fn an_issued_file_is_installed() {
    let world = World::new();
    fs::write(world.path("issued"), issued(&world, "issued")).unwrap();
    world
        .install("issued")
        .says(&["CN=issued", "with 1 above it, without its root"]);
    assert_eq!(world.subjects(), ["CN=issued", "CN=token-ca"]);
    let run = world.cert("renew web --command").arg("cat issued").fails();
    run.says(&["the answer to another request"]);
    let text = String::from_utf8(world.read("issued")).unwrap();
    fs::write(
        world.path("changed"),
        text.replacen("Example CA", "Another CA", 1),
    )
    .unwrap();
    let changed = world.cert("install changed").fails();
    changed.says(&["it was changed after it was made"]);
}

/// A CA whose key is "other", and what it issues for "web".
fn issued(world: &World, name: &str) -> Vec<u8> {
    let dir = world.device.store().join(Device::TOKEN);
    let store = Store::open(&dir).unwrap();
    let token = LocalToken::open(&file::BACK_END, store, &Settings::new()).unwrap();
    let listing = Store::open(&dir).unwrap().list().unwrap();
    let key = |label: &str| listing.keys.iter().find(|key| key.label == label).unwrap();
    let ca = TokenSigner {
        token: &token,
        key: key("other"),
    };
    // The CA's own certificate, by openssl's root.
    let root = world.path("token-ca.der");
    let script =
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -keyout t.key \
                  -subj /CN=token-ca -out t.csr
                  openssl x509 -req -in t.csr -CA root.pem -CAkey root.key -extfile ca.ext \
                  -force_pubkey other.pub.pem -days 50 -outform DER -out token-ca.der
                  openssl x509 -in root.pem -outform DER -out root.der";
    world.sh(script).ok();
    let root = fs::read(root).unwrap();
    let now = describe(&root).unwrap().not_before;
    let spec = CertificateSpec {
        serial: Serial::random().unwrap(),
        public: key("web").public.clone(),
        subject: format!("CN={name}").parse().unwrap(),
        alt_names: Vec::new(),
        not_before: now,
        not_after: now + 86_400,
        key_usage: Usage::SIGN,
        extended_usage: Vec::new(),
        policies: Vec::new(),
        ca: None,
        crl_url: None,
    };
    let certificate = issue(&ca, &Issuer::from_certificate(&root).unwrap(), &spec).unwrap();
    let spec = IssuedSpec {
        authority: Authority {
            name: "Example CA".to_owned(),
            public: ca.public().clone(),
        },
        request: Digest::of(b"some request"),
        certificate: Some(certificate),
        chain: vec![root, world.read("root.der")],
        ssh: None,
    };
    Issued::make(&ca, spec).unwrap().encode().unwrap()
}
