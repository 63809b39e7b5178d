//! Real clients on a TPM token of the system: everything that they sign is signed by devkeyd, as another
//! user than theirs. Run as root, for there are users in it.

#![cfg(test)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::thread;

use common::nginx::{curl, nginx};
use common::sshd::{Agent, Sshd, WELCOME};
use common::tls::{Ca, Engine, plain};
use common::{Backend, Device, KINDS, Key, Output, Run, Server, System, free_ports, module};

/// As in the measurement where another module failed in 17 and 18 of 40, with two workers.
const HANDSHAKES: usize = 40;
/// www-data, of Debian's base-passwd.
const WEB: &str = "uid=33 ";

/// Mutual TLS with the key of a TPM and two workers as www-data, who may open neither the token's secret
/// nor a TPM: each handshake succeeds, one after the other and all at once, after a reload too.
///
/// Seen to fail without `use` in the rules: libp11's engine then waits without end.
#[test]
fn nginx_serves_forty_of_forty() {
    let system = web_system();
    let device = &system.device;
    let ca = Ca::new(device);
    let shown = ca.plain(device, "visitor");
    for kind in KINDS {
        let key = device.key(kind, kind);
        let before = signatures(&system, WEB, kind);
        let (port, server) = serve(device, &ca, &key);
        let get = |number: usize| visit(device, &ca, port, &shown, number).output();
        let one_by_one: Vec<_> = (0..HANDSHAKES).map(get).collect();
        all_served(&one_by_one, &server);
        let at_once = together(HANDSHAKES, get);
        assert_eq!(all_served(&at_once, &server).len(), 2, "workers at work");
        // Without a signature of its own in a resumed session there would be fewer.
        let signed = signatures(&system, WEB, kind) - before;
        assert_eq!(signed, 2 * HANDSHAKES, "{}", system.log());
        let reload = ["-HUP", &server.id().to_string()];
        Run::new("kill").args(reload).ok();
        server.wait_for("gracefully shutting down");
        all_served(&together(HANDSHAKES, get), &server);
    }
}

/// `-engine pkcs11`, which makes it OpenSSL's default, on a token with a PIN: its TPM sessions are salted,
/// which libtss2 in the same process could not do. They are in devkeyd.
#[test]
fn openssl_with_the_engine_as_its_default() {
    let system = System::new(Backend::Tpm, true, "");
    let device = &system.device;
    let ca = Ca::new(device);
    for kind in KINDS {
        let [server, client] = ["server", "client"].map(|side| {
            let key = device.key(kind, &format!("{side}-{kind}"));
            let cert = ca.certify(device, &key);
            (key, cert)
        });
        for engine in [Engine::Flag, Engine::ConfigDefault] {
            for version in ["-tls1_2", "-tls1_3"] {
                mutual_tls(device, engine, &ca, version, &server, &client);
            }
        }
        assert!(signatures(&system, "uid=0 ", &client.0.label) >= 4);
    }
}

/// nginx at work, and at the same time logins by ssh and by ssh-agent, curl with a key of its own,
/// `openssl dgst`, and new keys: one TPM, and nobody fails.
#[test]
fn all_clients_at_once() {
    let system = web_system();
    let device = &system.device;
    let ca = Ca::new(device);
    let shown = ca.plain(device, "visitor");
    let [web, user] = ["web", "user"].map(|label| device.key("ec-p256", label));
    let cert = ca.certify(device, &user);
    let (port, server) = serve(device, &ca, &web);
    let authorized = device.path("authorized_keys");
    fs::write(&authorized, user.ssh_line()).unwrap();
    let sshd = Sshd::new(
        device,
        &format!("AuthorizedKeysFile {}", authorized.display()),
    );
    let agent = Agent::new(device);
    agent.add(device).arg("-s").arg(module()).ok();
    let get = |number| {
        let one = visit(device, &ca, port, &shown, number).ok();
        assert_eq!(all_served(&[one], &server).len(), 1);
    };
    let ssh = |_| {
        let ssh = sshd.login(device).words("-o IdentityAgent=none -I");
        let ssh = ssh.arg(module()).args(Sshd::destination());
        ssh.ok().says(&[WELCOME]);
    };
    let by_agent = |_| {
        let socket = format!("IdentityAgent={}", agent.socket().display());
        let ssh = sshd.login(device).args(["-o", &socket]);
        ssh.args(Sshd::destination()).ok().says(&[WELCOME]);
    };
    let own = |_| {
        let own = (user.uri.as_str().into(), cert.clone());
        let get = curl(device, &ca, port).words("--engine pkcs11 --key-type ENG");
        let get = Engine::Flag.env(device, certified(get, &own));
        get.ok().says(&["SUCCESS CN=user"]);
    };
    let digest = |number| sign_and_verify(device, &user, number);
    let new = |number| drop(device.key("ec-p256", &format!("new-{number}")));
    let all: [&(dyn Fn(usize) + Sync); 6] = [&get, &ssh, &by_agent, &own, &digest, &new];
    together(all.len() * 4, |number| all[number % all.len()](number));
    let programs = ["nginx", "ssh", "ssh-pkcs11-help", "curl", "openssl"];
    for program in programs {
        let named = |line: &str| line.contains("do=sign") && line.contains(program);
        assert!(system.log().lines().any(named), "{program} has not signed");
    }
}

/// A system whose token www-data may use.
fn web_system() -> System {
    System::new(Backend::Tpm, false, "use = ['www-data']")
}

/// nginx, which asks for certificates, as the workers' user.
fn serve(device: &Device, ca: &Ca, key: &Key) -> (u16, Server) {
    let cert = ca.certify(device, key);
    let server = format!(
        "ssl_certificate {};\nssl_certificate_key \"engine:pkcs11:{}\";\n\
         ssl_verify_client on;\nssl_session_tickets off;",
        cert.display(),
        key.uri
    );
    let run = Engine::Flag.env(device, device.run("nginx"));
    nginx(device, ca, "ssl_engine pkcs11;\n", &server, run)
}

/// A visit with a certificate whose key is in a file.
fn visit(
    device: &Device,
    ca: &Ca,
    port: u16,
    (key, cert): &(PathBuf, PathBuf),
    number: usize,
) -> Run {
    let version = ["1.2", "1.3"][number % 2];
    let get = curl(device, ca, port).args(["--tls-max", version]);
    certified(get, &(key.clone(), cert.clone()))
}

fn certified(get: Run, (key, cert): &(PathBuf, PathBuf)) -> Run {
    get.arg("--key").arg(key).arg("--cert").arg(cert)
}

/// Does something so often, all at once.
fn together<T: Send>(count: usize, what: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let what = &what;
    thread::scope(|scope| {
        let all: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || what(number)))
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

/// Each visitor was served and known; gives the workers that did it.
fn all_served(visits: &[Output], server: &Server) -> BTreeSet<String> {
    let served =
        |visit: &&Output| visit.status.success() && visit.text().contains("SUCCESS CN=visitor");
    let count = visits.iter().filter(served).count();
    let failed = visits.iter().find(|visit| !served(visit));
    let failed = failed.map(Output::to_string).unwrap_or_default();
    assert_eq!(count, visits.len(), "{failed}\n{}", server.log());
    let worker = |visit: &Output| visit.text().split(' ').next().unwrap().to_owned();
    visits.iter().map(worker).collect()
}

/// How often somebody has signed with a key, by the service's log.
fn signatures(system: &System, who: &str, label: &str) -> usize {
    let key = format!("key={label:?}");
    let ours = |line: &&str| {
        let all = ["do=sign", "result=ok", who, &key];
        all.iter().all(|part| line.contains(part))
    };
    system.log().lines().filter(ours).count()
}

fn mutual_tls(
    device: &Device,
    engine: Engine,
    ca: &Ca,
    version: &str,
    (server, server_cert): &(Key, PathBuf),
    (client, client_cert): &(Key, PathBuf),
) {
    let port = free_ports(1);
    let address = format!("127.0.0.1:{port}");
    let _serving = engine
        .openssl(device, "s_server")
        .args(["-accept", &address, version])
        .words("-www -Verify 1 -verify_return_error -CAfile")
        .arg(&ca.cert)
        .arg("-cert")
        .arg(server_cert)
        .args(engine.key("-key", "-keyform", server))
        .serve_on(port, &device.path("s_server.log"));
    engine
        .openssl(device, "s_client")
        .args(["-connect", &address, version, "-ign_eof"])
        .args(["-verify_return_error", "-CAfile"])
        .arg(&ca.cert)
        .arg("-cert")
        .arg(client_cert)
        .args(engine.key("-key", "-keyform", client))
        .input("GET / HTTP/1.0\r\n\r\n")
        .ok()
        .says(&[
            "HTTP/1.0 200 ok",
            "Verify return code: 0 (ok)",
            &format!("Subject: CN={}", client.label),
        ]);
}

fn sign_and_verify(device: &Device, key: &Key, number: usize) {
    let [message, signature] =
        ["message", "signature"].map(|name| device.path(format!("{name}-{number}")));
    fs::write(&message, format!("message {number}")).unwrap();
    let sign = Engine::Flag.openssl(device, "dgst").words("-sha256 -out");
    let sign = sign
        .arg(&signature)
        .args(Engine::Flag.key("-sign", "-keyform", key));
    sign.arg(&message).ok();
    let verify = plain(device, "dgst").words("-sha256 -verify").arg(&key.pem);
    verify.arg("-signature").arg(&signature).arg(&message).ok();
}
