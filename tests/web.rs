//! TLS on the web: curl with a client certificate, nginx with workers of another account.
//!
//! Seen to fail with a module whose C_Initialize in a worker leaves an error in OpenSSL's queue
//! (each worker then loses its first connection), and with one that changes a bit of a signature.

#![cfg(test)]

mod common;

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use common::nginx::{curl, nginx};
use common::tls::{Ca, Engine};
use common::{Device, KINDS, Output, Run, Server};

on_each_back_end!(
    curl_shows_its_certificate,
    nginx_with_ssl_engine,
    nginx_with_openssl_cnf,
    nginx_with_a_default_in_openssl_cnf,
);

// The PIN stands in the configuration; each worker logs in for itself.
with_pins_on_each_back_end!(
    curl_shows_its_certificate,
    nginx_with_ssl_engine,
    nginx_with_openssl_cnf,
);

/// How many connections nginx has to serve at once.
const CONNECTIONS: usize = 40;

/// curl's two ways to a key of the token; without one the server refuses.
fn curl_shows_its_certificate(device: &Device) {
    let ca = Ca::new(device);
    let (key, cert) = ca.plain(device, "server");
    let server = format!(
        "ssl_certificate {};\nssl_certificate_key {};\nssl_verify_client on;",
        cert.display(),
        key.display()
    );
    let (port, _nginx) = nginx(device, &ca, "", &server, device.run("nginx"));
    for kind in KINDS {
        let key = device.key(kind, kind);
        let cert = ca.certify(device, &key);
        let subject = format!("SUCCESS CN={kind}");
        let get = |engine: Engine| {
            engine
                .env(device, curl(device, &ca, port))
                .arg("--cert")
                .arg(&cert)
        };
        let named = ["--engine", "pkcs11", "--key-type", "ENG", "--key", &key.uri];
        for engine in Engine::ALL {
            get(engine).args(named).ok().says(&[&subject]);
            get(engine)
                .args(["--tls-max", "1.2"])
                .args(named)
                .ok()
                .says(&[&subject]);
        }
        get(Engine::Flag)
            .args(["--key", &key.uri])
            .ok()
            .says(&[&subject]);
    }
    curl(device, &ca, port).fails().says(&["400"]);
}

fn nginx_with_ssl_engine(device: &Device) {
    nginx_serves(device, Engine::Flag, "ssl_engine pkcs11;\n");
}

fn nginx_with_openssl_cnf(device: &Device) {
    nginx_serves(device, Engine::Config, "");
}

fn nginx_with_a_default_in_openssl_cnf(device: &Device) {
    nginx_serves(device, Engine::ConfigDefault, "");
}

/// Two workers, as www-data where root started nginx, serve many handshakes at once with a key
/// that the master loaded; none fails, both workers sign, and again after a reload.
fn nginx_serves(device: &Device, engine: Engine, main: &str) {
    let ca = Ca::new(device);
    for kind in KINDS {
        let key = device.key(kind, kind);
        let cert = ca.certify(device, &key);
        let server = format!(
            "ssl_certificate {};\nssl_certificate_key \"engine:pkcs11:{}\";\nssl_verify_client off;",
            cert.display(),
            key.uri
        );
        if rustix::process::geteuid().is_root() {
            device.share_with("www-data");
        }
        let run = engine.env(device, device.run("nginx"));
        let (port, mut server) = nginx(device, &ca, main, &server, run);
        let before = handshakes(device, &ca, port, &server);
        assert_eq!(before.len(), 2, "workers that answered: {before:?}");
        Run::new("kill")
            .args(["-HUP", &server.id().to_string()])
            .ok();
        server.wait_for("gracefully shutting down");
        let after = handshakes(device, &ca, port, &server);
        assert!(
            after.difference(&before).count() >= 1,
            "no worker is new: {before:?} {after:?}"
        );
        assert!(server.runs());
    }
}

/// Connects [`CONNECTIONS`] times at once; gives the ids of the workers that answered.
fn handshakes(device: &Device, ca: &Ca, port: u16, server: &Server) -> BTreeSet<String> {
    let version = |number: usize| ["1.2", "1.3"][number % 2];
    let get = |number| {
        curl(device, ca, port)
            .args(["--tls-max", version(number)])
            .output()
    };
    let answers: Vec<Output> = thread::scope(|scope| {
        let all: Vec<_> = (0..CONNECTIONS)
            .map(|number| scope.spawn(move || get(number)))
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let failed: Vec<_> = answers
        .iter()
        .filter(|answer| !answer.status.success())
        .collect();
    if let Some(first) = failed.first() {
        thread::sleep(Duration::from_millis(500)); // nginx reports a worker's death a little later.
        panic!(
            "{} of {CONNECTIONS} failed: {first}\n{}",
            failed.len(),
            server.log()
        );
    }
    let worker = |answer: &Output| answer.text().split(' ').next().unwrap().to_owned();
    answers.iter().map(worker).collect()
}
