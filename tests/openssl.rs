//! OpenSSL 3 with the engine of libp11, made the default or not: requests, certificates,
//! signatures and TLS on both sides.
//!
//! Seen to fail with a module whose C_Sign changes one bit of every seventh signature.

#![cfg(test)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::tls::{Ca, Engine, plain};
use common::{Device, KINDS, Key, Server, free_ports};

on_each_back_end!(
    signatures_verify,
    pss_signatures_verify,
    requests_and_certificates,
    mutual_tls_by_the_engine_flag,
    mutual_tls_by_openssl_cnf,
    mutual_tls_by_a_default_in_openssl_cnf,
);

with_pins_on_each_back_end!(
    signatures_verify,
    requests_and_certificates,
    mutual_tls_by_the_engine_flag,
    mutual_tls_by_openssl_cnf,
    a_pin_comes_from_a_file,
);

const HASHES: [&str; 3] = ["-sha256", "-sha384", "-sha512"];

/// `openssl dgst`: every hash, every way to the engine; a changed message does not verify.
fn signatures_verify(device: &Device) {
    let [message, changed] = messages(device);
    for key in KINDS.map(|kind| device.key(kind, kind)) {
        for engine in Engine::ALL {
            for hash in HASHES {
                let signature = sign(device, engine, &key, hash, &[], &message);
                verify(device, &key, hash, &[], &signature, &message).ok();
                verify(device, &key, hash, &[], &signature, &changed).fails();
            }
        }
    }
}

/// `pin-source` of the URI; a wrong PIN in it is one try and a clean failure, and the right one
/// takes it back.
fn a_pin_comes_from_a_file(device: &Device) {
    let [message, _] = messages(device);
    let mut key = device.key("ec-p256", "source");
    let (bare, _) = key.uri.split_once('?').unwrap();
    key.uri = format!("{bare}?pin-source=file:{}", device.path("given").display());
    for engine in Engine::ALL {
        device.secret("given", "wrong-pin");
        let output = device.path("no-signature");
        engine
            .openssl(device, "dgst")
            .args(["-sha256", "-out"])
            .arg(output)
            .args(engine.key("-sign", "-keyform", &key))
            .arg(&message)
            .fails();
        assert_eq!(device.tries_used(Device::TOKEN), 1, "{engine:?}");
        device.secret("given", Device::PIN);
        let signature = sign(device, engine, &key, "-sha256", &[], &message);
        verify(device, &key, "-sha256", &[], &signature, &message).ok();
        assert_eq!(device.tries_used(Device::TOKEN), 0, "{engine:?}");
    }
}

/// RSA-PSS with a salt as long as the hash, as TLS 1.3 wants it.
fn pss_signatures_verify(device: &Device) {
    let options = [
        "-sigopt",
        "rsa_padding_mode:pss",
        "-sigopt",
        "rsa_pss_saltlen:digest",
    ];
    let [message, changed] = messages(device);
    let key = device.key("rsa-2048", "pss");
    for engine in Engine::ALL {
        for hash in HASHES {
            let signature = sign(device, engine, &key, hash, &options, &message);
            verify(device, &key, hash, &options, &signature, &message).ok();
            verify(device, &key, hash, &options, &signature, &changed).fails();
            verify(device, &key, hash, &[], &signature, &message).fails();
        }
    }
}

/// A request signed by the device, and a certificate issued by a CA whose key the device holds.
fn requests_and_certificates(device: &Device) {
    for kind in KINDS {
        let key = device.key(kind, &format!("ca-{kind}"));
        for engine in Engine::ALL {
            let [request, ca, leaf] = ["csr", "ca.pem", "leaf.pem"].map(|name| device.path(name));
            engine
                .openssl(device, "req")
                .args(["-new", "-subj", "/CN=device", "-out"])
                .arg(&request)
                .args(engine.key("-key", "-keyform", &key))
                .ok();
            plain(device, "req")
                .args(["-verify", "-noout", "-in"])
                .arg(&request)
                .ok()
                .says(&["verify OK"]);
            engine
                .openssl(device, "req")
                .args(["-x509", "-subj", "/CN=device ca", "-days", "1", "-out"])
                .arg(&ca)
                .args(engine.key("-key", "-keyform", &key))
                .ok();
            engine
                .openssl(device, "x509")
                .args(["-req", "-days", "1", "-in"])
                .arg(&request)
                .arg("-CA")
                .arg(&ca)
                .args(engine.key("-CAkey", "-CAkeyform", &key))
                .arg("-out")
                .arg(&leaf)
                .ok();
            plain(device, "verify")
                .arg("-CAfile")
                .arg(&ca)
                .arg(&leaf)
                .ok();
            same_key(device, &leaf, &key);
        }
    }
}

fn mutual_tls_by_the_engine_flag(device: &Device) {
    mutual_tls(device, Engine::Flag);
}

fn mutual_tls_by_openssl_cnf(device: &Device) {
    mutual_tls(device, Engine::Config);
}

fn mutual_tls_by_a_default_in_openssl_cnf(device: &Device) {
    mutual_tls(device, Engine::ConfigDefault);
}

/// Server and client each prove a key of the device, in TLS 1.2 and 1.3, and with PKCS #1 v1.5
/// where the peer knows nothing else; a client without a certificate is turned away.
fn mutual_tls(device: &Device, engine: Engine) {
    let ca = Ca::new(device);
    for kind in KINDS {
        let [server, client] = ["server", "client"].map(|side| {
            let key = device.key(kind, &format!("{side}-{kind}"));
            let cert = ca.certify(device, &key);
            (key, cert)
        });
        let old = "RSA+SHA256:ECDSA+SHA256";
        for options in [
            &["-tls1_3"][..],
            &["-tls1_2"],
            &["-tls1_2", "-sigalgs", old],
        ] {
            let port = free_ports(1);
            let mut side = options.to_vec();
            side.extend(["-client_sigalgs", old].iter().take(if options.len() > 1 {
                2
            } else {
                0
            }));
            let serving = serve(device, engine, &ca, &server, port, &side);
            let get = || {
                engine
                    .openssl(device, "s_client")
                    .args(["-connect", &format!("127.0.0.1:{port}"), "-ign_eof"])
                    .args(["-verify_return_error", "-CAfile"])
                    .arg(&ca.cert)
                    .args(options)
                    .input("GET / HTTP/1.0\r\n\r\n")
            };
            get()
                .arg("-cert")
                .arg(&client.1)
                .args(engine.key("-key", "-keyform", &client.0))
                .ok()
                .says(&[
                    "HTTP/1.0 200 ok",
                    "Verify return code: 0 (ok)",
                    &format!("Subject: CN=client-{kind}"),
                ]);
            get().output().says_not(&["HTTP/1.0 200 ok"]);
            drop(serving);
        }
    }
}

fn serve(
    device: &Device,
    engine: Engine,
    ca: &Ca,
    (key, cert): &(Key, PathBuf),
    port: u16,
    options: &[&str],
) -> Server {
    engine
        .openssl(device, "s_server")
        .args([
            "-accept",
            &format!("127.0.0.1:{port}"),
            "-www",
            "-Verify",
            "1",
        ])
        .args(["-verify_return_error", "-CAfile"])
        .arg(&ca.cert)
        .arg("-cert")
        .arg(cert)
        .args(engine.key("-key", "-keyform", key))
        .args(options)
        .serve_on(port, &device.path("s_server.log"))
}

fn messages(device: &Device) -> [PathBuf; 2] {
    ["a message\n", "another message\n"].map(|text| {
        let path = device.path(format!("message-{}", text.len()));
        fs::write(&path, text).unwrap();
        path
    })
}

fn sign(
    device: &Device,
    engine: Engine,
    key: &Key,
    hash: &str,
    options: &[&str],
    message: &Path,
) -> PathBuf {
    let signature = device.path("signature");
    engine
        .openssl(device, "dgst")
        .args([hash, "-out"])
        .arg(&signature)
        .args(engine.key("-sign", "-keyform", key))
        .args(options)
        .arg(message)
        .ok();
    signature
}

fn verify(
    device: &Device,
    key: &Key,
    hash: &str,
    options: &[&str],
    signature: &Path,
    message: &Path,
) -> common::Run {
    plain(device, "dgst")
        .args([hash, "-verify"])
        .arg(&key.pem)
        .arg("-signature")
        .arg(signature)
        .args(options)
        .arg(message)
}

/// The certificate carries the public key that the token shows.
fn same_key(device: &Device, cert: &Path, key: &Key) {
    let in_cert = plain(device, "x509")
        .args(["-noout", "-pubkey", "-in"])
        .arg(cert)
        .ok()
        .text();
    assert_eq!(in_cert.trim(), fs::read_to_string(&key.pem).unwrap().trim());
}
