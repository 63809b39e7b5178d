//! The tools of administrators: OpenSC's pkcs11-tool, GnuTLS, p11-kit and NSS.
//!
//! Seen to fail with a module whose C_GetTokenInfo sets CKF_LOGIN_REQUIRED, whose C_OpenSession
//! refuses CKF_RW_SESSION, whose C_Sign changes one bit of every seventh signature.

#![cfg(test)]

mod common;

use std::fs;
use std::path::PathBuf;

use common::client::{client, verify_all};
use common::tls::{Ca, plain};
use common::{Device, KINDS, Key, Run, free_ports, module};

on_each_back_end!(
    pkcs11_tool_lists,
    pkcs11_tool_signs,
    pkcs11_tool_makes_and_deletes_keys,
    pkcs11_tool_stores_certificates,
    pkcs11_tool_passes_its_own_tests,
    p11tool_lists,
    gnutls_handshakes,
    p11_kit_lists_the_module,
    nss_lists_keys_and_certificates,
    a_key_made_elsewhere_is_seen,
);

with_pins_on_each_back_end!(gnutls_handshakes);

fn pkcs11_tool_lists(device: &Device) {
    let tool = || device.pkcs11_tool();
    let slots = tool().arg("--list-slots").ok();
    slots.says(&["token label        : machine", "token initialized"]);
    slots.says_not(&["login required", "uninitialized", "token flags        :\n"]);
    tool().arg("--show-info").ok().says(&["Cryptoki version"]);
    tool()
        .arg("--list-mechanisms")
        .ok()
        .says(&["ECDSA", "RSA-PKCS-PSS", "ECDSA-KEY-PAIR-GEN"]);
    tool()
        .arg("--list-objects")
        .ok()
        .says_not(&["Private Key Object"]);
    for kind in KINDS {
        device.key(kind, kind);
    }
    let objects = tool().arg("--list-objects").ok();
    objects.says(&[
        "label:      ec-p256",
        "label:      rsa-2048",
        "never extractable",
    ]);
    assert_eq!(
        objects.text().matches("Private Key Object").count(),
        2,
        "{objects}"
    );
    assert_eq!(
        objects.text().matches("Public Key Object").count(),
        2,
        "{objects}"
    );
}

/// Signed by the token, verified by OpenSSL; verified by the token; a changed digest is refused.
fn pkcs11_tool_signs(device: &Device) {
    let digest = device.path("digest");
    fs::write(&digest, [7; 32]).unwrap();
    for (kind, mechanism, options) in [
        ("ec-p256", "ECDSA", &["--signature-format", "openssl"][..]),
        (
            "rsa-2048",
            "RSA-PKCS-PSS",
            &["--hash-algorithm", "SHA256", "--mgf", "MGF1-SHA256"],
        ),
    ] {
        let key = device.key(kind, kind);
        let id = cka_id(device, kind);
        let signature = device.path(format!("{kind}.sig"));
        // It looks at the label for some commands only, and takes any key for the others.
        device
            .pkcs11_tool()
            .args(["--sign", "--id", &id, "--mechanism", mechanism])
            .args(options)
            .arg("--input-file")
            .arg(&digest)
            .arg("--output-file")
            .arg(&signature)
            .ok();
        verify(device, &key, &digest, &signature).ok();
        device
            .pkcs11_tool()
            .args(token_verify(&id, mechanism, options))
            .arg(&signature)
            .arg("--input-file")
            .arg(&digest)
            .ok()
            .says(&["Signature is valid"]);
        fs::write(device.path("other"), [8; 32]).unwrap();
        verify(device, &key, &device.path("other"), &signature).fails();
        device
            .pkcs11_tool()
            .args(token_verify(&id, mechanism, options))
            .arg(&signature)
            .arg("--input-file")
            .arg(device.path("other"))
            .output()
            .says(&["Invalid signature"]);
    }
}

fn pkcs11_tool_makes_and_deletes_keys(device: &Device) {
    for (kind, label) in [("EC:prime256v1", "made-ec"), ("RSA:2048", "made-rsa")] {
        device
            .pkcs11_tool()
            .args([
                "--keypairgen",
                "--key-type",
                kind,
                "--label",
                label,
                "--id",
                "a1b2",
                "--usage-sign",
            ])
            .seconds(120)
            .ok()
            .says(&["Key pair generated"]);
        device
            .pkcs11_tool()
            .arg("--list-objects")
            .ok()
            .says(&[label, "a1b2"]);
        device
            .devkey()
            .args(["key", "show", label, "--format", "pem"])
            .ok()
            .says(&["BEGIN PUBLIC KEY"]);
        for class in ["privkey", "pubkey"] {
            device
                .pkcs11_tool()
                .args(["--delete-object", "--type", class, "--label", label])
                .output();
        }
        device
            .pkcs11_tool()
            .arg("--list-objects")
            .ok()
            .says_not(&[label]);
        device
            .devkey()
            .args(["key", "show", label, "--format", "pem"])
            .fails();
    }
}

/// Stored beside its key, read back unchanged, found by other tools, deleted without the key.
fn pkcs11_tool_stores_certificates(device: &Device) {
    let (key, cert, id) = certified(device, "ec-p256");
    let read = |class: &str| {
        device
            .pkcs11_tool()
            .args(["--read-object", "--type", class, "--label", &key.label])
    };
    let der = plain(device, "x509")
        .args(["-outform", "DER", "-in"])
        .arg(&cert)
        .ok()
        .stdout;
    assert_eq!(read("cert").ok().stdout, der);
    let objects = device
        .pkcs11_tool()
        .args(["--list-objects", "--type", "cert"])
        .ok();
    objects.says(&["Certificate Object", "CN=ec-p256", &id]);
    device
        .pkcs11_tool()
        .args(["--delete-object", "--type", "cert", "--label", &key.label])
        .ok();
    read("cert").fails();
    read("pubkey").ok();
}

/// Its own test suites; the one for EC makes a key of its own. The one for RSA signs what is no
/// DigestInfo of SHA-2, which no token does.
fn pkcs11_tool_passes_its_own_tests(device: &Device) {
    for kind in ["ec-p256", "ec-p384"] {
        device.key(kind, kind);
    }
    let all = device.pkcs11_tool().arg("--test").seconds(120).ok();
    all.says(&["No errors"]).says_not(&["ERR"]);
    let ec = [
        "--test-ec",
        // It insists on a login, which means nothing here.
        "--login",
        "--pin",
        "0000",
        "--session-rw",
        "--key-type",
        "EC:prime256v1",
        "--label",
        "test-ec",
        "--id",
        "c0de",
    ];
    let tested = device.pkcs11_tool().args(ec).seconds(120).fails();
    tested.says(&["Changing the CKA_ID", "Doing a signature"]);
    // With SHA-1, that is. By the ID that it gave the key, SHA-256 does.
    tested.says(&["C_SignInit failed: rv = CKR_MECHANISM_INVALID"]);
    let id = cka_id(device, "test-ec");
    assert_eq!(id.len(), 40, "the ID was not changed");
    device
        .pkcs11_tool()
        .args(["--sign", "--id", &id, "--mechanism", "ECDSA-SHA256"])
        .arg("--input-file")
        .arg(device.config())
        .arg("--output-file")
        .arg(device.path("test-ec.sig"))
        .ok();
}

fn p11tool_lists(device: &Device) {
    let (key, _, id) = certified(device, "ec-p256");
    p11tool(device)
        .arg("--list-token-urls")
        .ok()
        .says(&["token=machine"]);
    let url = "pkcs11:token=machine";
    let all = p11tool(device).args(["--list-all", url]).ok();
    all.says(&["Private key", "Public key", "X.509 Certificate", &key.label]);
    all.says_not(&["Flags: CKA_NEVER_EXTRACTABLE; CKA_PRIVATE; CKA_EXTRACTABLE"]);
    let id = percent(&id);
    all.says(&[&format!("id={id}")]);
    let object = format!("{url};object={};type=public", key.label);
    let exported = p11tool(device)
        .args(["--export-pubkey", &object])
        .ok()
        .text();
    let pem = fs::read_to_string(&key.pem).unwrap();
    assert!(exported.contains(pem.trim()), "{exported}\n{pem}");
    let private = object.replace("public", "private");
    p11tool(device)
        .args(["--test-sign", &private])
        .ok()
        .says(&["ok"])
        .says_not(&["fail", "rror"]);
}

/// gnutls-cli and gnutls-serv, each with a key of the token, in TLS 1.2 and 1.3.
fn gnutls_handshakes(device: &Device) {
    let ca = Ca::new(device);
    for kind in KINDS {
        let [server, client] = ["server", "client"].map(|side| {
            let key = device.key(kind, &format!("{side}-{kind}"));
            (ca.certify(device, &key), key)
        });
        let port = free_ports(1);
        let _serving = gnutls(device, "gnutls-serv", &ca, &server.0, &server.1)
            .args([
                "--http",
                "--require-client-cert",
                "--verify-client-cert",
                "--port",
                &port.to_string(),
            ])
            .serve_on(port, &device.path("gnutls-serv.log"));
        for version in [
            "NORMAL:-VERS-ALL:+VERS-TLS1.2",
            "NORMAL:-VERS-ALL:+VERS-TLS1.3",
        ] {
            gnutls(device, "gnutls-cli", &ca, &client.0, &client.1)
                .args([
                    "--priority",
                    version,
                    "--port",
                    &port.to_string(),
                    "localhost",
                ])
                .input("GET / HTTP/1.0\r\n\r\n")
                .ok()
                .says(&[
                    "Handshake was completed",
                    "HTTP/1.0 200",
                    "certificate is trusted",
                ]);
        }
    }
}

/// With the module's file among a user's own p11-kit modules.
fn p11_kit_lists_the_module(device: &Device) {
    device.key("ec-p256", "ssh");
    let modules = device.path("home/.config/pkcs11/modules");
    fs::create_dir_all(&modules).unwrap();
    // The clone may be in a home that is closed to this user.
    let copy = device.path("devkey-pkcs11.so");
    fs::copy(module(), &copy).unwrap();
    fs::write(
        modules.join("devkey.module"),
        format!("module: {}\n", copy.display()),
    )
    .unwrap();
    let run = |line: &str| as_user(device).words(line).ok();
    run("p11-kit list-modules").says(&["devkey: ", "token: machine"]);
    run("p11tool --list-all pkcs11:token=machine").says(&["object=ssh"]);
}

fn nss_lists_keys_and_certificates(device: &Device) {
    let (key, _, id) = certified(device, "ec-p256");
    let db = format!("sql:{}", device.path("nss").display());
    fs::create_dir(device.path("nss")).unwrap();
    let certutil = || device.run("certutil").args(["-d", &db]);
    certutil().args(["-N", "--empty-password"]).ok();
    let modutil = || device.run("modutil").args(["-dbdir", &db, "-force"]);
    modutil()
        .args(["-add", "devkey", "-libfile"])
        .arg(module())
        .ok();
    modutil()
        .arg("-list")
        .ok()
        .says(&["devkey", "token: machine"]);
    certutil()
        .args(["-L", "-h", "all"])
        .ok()
        .says(&[&format!("{}:{}", Device::TOKEN, key.label)]);
    certutil()
        .args(["-K", "-h", Device::TOKEN])
        .ok()
        .says(&["ec", &key.label]);
    let request = device.path("nss.csr");
    certutil()
        .args([
            "-R",
            "-h",
            Device::TOKEN,
            "-k",
            &id,
            "-s",
            "CN=nss",
            "-a",
            "-o",
        ])
        .arg(&request)
        .ok();
    plain(device, "req")
        .args(["-verify", "-noout", "-in"])
        .arg(&request)
        .ok()
        .says(&["verify OK"]);
}

/// A process that runs already finds, and uses, a key that another makes.
fn a_key_made_elsewhere_is_seen(device: &Device) {
    let log = device.path("watch.log");
    let watching = client(device, "watch", "late").serve(&log);
    watching.wait_for("watching");
    let key = device.key("ec-p256", "late");
    watching.wait_for("signed");
    let output = Run::new("cat").arg(&log).ok();
    verify_all(device, &key, &output, 1);
    device
        .pkcs11_tool()
        .arg("--list-objects")
        .ok()
        .says(&["late"]);
}

/// CKA_ID of the private key of that label, in hexadecimal, as `pkcs11-tool` lists it.
fn cka_id(device: &Device, label: &str) -> String {
    let listed = device
        .pkcs11_tool()
        .args(["--list-objects", "--type", "privkey"])
        .ok()
        .text();
    let field = |line: &str, name| Some(line.trim().strip_prefix(name)?.trim().to_owned());
    let mut lines = listed.lines();
    lines
        .find(|line| field(line, "label:").as_deref() == Some(label))
        .unwrap();
    lines.find_map(|line| field(line, "ID:")).unwrap()
}

/// A key with its certificate on the token, and CKA_ID in hexadecimal.
fn certified(device: &Device, kind: &str) -> (Key, PathBuf, String) {
    let key = device.key(kind, kind);
    let cert = Ca::new(device).certify(device, &key);
    let id = cka_id(device, kind);
    let der = device.path("cert.der");
    plain(device, "x509")
        .args(["-outform", "DER", "-in"])
        .arg(&cert)
        .arg("-out")
        .arg(&der)
        .ok();
    device
        .pkcs11_tool()
        .args(["--write-object"])
        .arg(&der)
        .args(["--type", "cert", "--label", &key.label, "--id", &id])
        .ok();
    (key, cert, id)
}

fn p11tool(device: &Device) -> Run {
    device
        .run("p11tool")
        .arg("--provider")
        .arg(module())
        .arg("--batch")
}

fn gnutls(device: &Device, program: &str, ca: &Ca, cert: &PathBuf, key: &Key) -> Run {
    device
        .run(program)
        .arg("--provider")
        .arg(module())
        .arg("--x509cafile")
        .arg(&ca.cert)
        .arg("--x509certfile")
        .arg(cert)
        .args(["--x509keyfile", &key.uri])
}

fn token_verify(id: &str, mechanism: &str, options: &[&str]) -> Vec<String> {
    let words = ["--verify", "--id", id, "--mechanism", mechanism];
    words
        .iter()
        .chain(options)
        .chain(&["--signature-file"])
        .map(|word| (*word).to_owned())
        .collect()
}

/// OpenSSL's verdict on a signature over a digest.
fn verify(device: &Device, key: &Key, digest: &PathBuf, signature: &PathBuf) -> Run {
    let run = plain(device, "pkeyutl")
        .args(["-verify", "-pubin", "-inkey"])
        .arg(&key.pem);
    let pss = [
        "digest:sha256",
        "rsa_padding_mode:pss",
        "rsa_pss_saltlen:digest",
    ];
    let options = if key.is_rsa() { &pss[..] } else { &[] };
    run.args(options.iter().flat_map(|option| ["-pkeyopt", option]))
        .arg("-sigfile")
        .arg(signature)
        .arg("-in")
        .arg(digest)
}

/// A program run by an ordinary user, who may read the token: p11-kit reads no module files in
/// root's home.
fn as_user(device: &Device) -> Run {
    if !rustix::process::geteuid().is_root() {
        return device.run("env");
    }
    device.share_with("nogroup");
    device
        .run("setpriv")
        .words("--reuid=nobody --regid=nogroup --clear-groups")
}

/// Hexadecimal as RFC 7512 writes it.
fn percent(hex: &str) -> String {
    let pairs = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap());
    pairs
        .map(|pair| format!("%{}", pair.to_uppercase()))
        .collect()
}
