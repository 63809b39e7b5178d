//! TLS 1.3 between hosts and users: openssl, nginx and curl, GnuTLS.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::tls::Engine;
use crate::common::{Device, Output, Run, Server, free_ports, module};
use crate::lab::{Authority, Lab, Peer};

/// What a peer believes.
pub(crate) struct Trust {
    pub(crate) root: PathBuf,
    pub(crate) crl: Option<PathBuf>,
}

/// The programs that are on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    OpenSsl,
    /// nginx, and curl.
    Web,
    GnuTls,
}

/// A server of a host that wants a certificate of whoever comes.
pub(crate) struct Door {
    program: Program,
    port: u16,
    server: Server,
    /// The host's name.
    host: String,
}

impl Program {
    pub(crate) const ALL: [Program; 3] = [Program::OpenSsl, Program::Web, Program::GnuTls];
}

/// Each of the nine pairs by each program; and on one pair each program with each.
///
/// Seen to fail with another CA's root in `trust`, and with a key of the user's that is not in his certificate.
#[test]
fn every_pair_meets_in_tls() {
    let lab = Lab::turn();
    let trust = Trust::of(&lab.authority);
    for (at, host) in lab.hosts.iter().enumerate() {
        for program in Program::ALL {
            let door = Door::open(host, program, &trust);
            for user in &lab.users {
                door.lets_in(user, program, &trust);
            }
            for other in Program::ALL
                .iter()
                .filter(|other| at == 0 && **other != program)
            {
                door.lets_in(&lab.users[1], *other, &trust);
            }
            // Without a certificate nobody comes in.
            let stranger = door.knock_bare(&lab.users[2].device, &trust);
            assert!(!came_in(&stranger), "{program:?}: {stranger}");
        }
    }
}

impl Trust {
    /// Whoever the CA certified and did not revoke.
    pub(crate) fn of(authority: &Authority) -> Self {
        Trust {
            root: authority.pem(),
            crl: Some(authority.crl()),
        }
    }
}

/// Whether a page came.
pub(crate) fn came_in(output: &Output) -> bool {
    let page = ["let in", "HTTP/1.0 200", "HTTP/1.1 200"];
    output.status.success() && page.iter().any(|page| output.text().contains(page))
}

impl Door {
    pub(crate) fn open(host: &Peer, program: Program, trust: &Trust) -> Self {
        let port = free_ports(1);
        let log = host.device.path(format!("{program:?}.log"));
        let server = match program {
            Program::OpenSsl => s_server(host, port, trust),
            Program::Web => nginx(host, port, trust),
            Program::GnuTls => gnutls_serv(host, port, trust),
        };
        Door {
            program,
            port,
            host: host.name.clone(),
            server: server.serve_on(port, &log),
        }
    }

    /// Waits until the host's program has said it.
    pub(crate) fn wait_for(&self, text: &str) {
        self.server.wait_for(text);
    }

    /// Both know each other.
    #[track_caller]
    fn lets_in(&self, user: &Peer, program: Program, trust: &Trust) {
        let output = self.knock(user, program, trust);
        let from = user.device.backend();
        let why = || {
            format!(
                "{from:?}: {output}\n{:?}: {}",
                self.program,
                self.server.log()
            )
        };
        assert!(came_in(&output), "{}", why());
        // Where the programs show it: who the user was to the host, and the host to the user.
        let (user, host) = (format!("CN={}", user.name), format!("CN = {}", self.host));
        assert!(
            self.program != Program::Web || output.text().contains(&user),
            "{}",
            why()
        );
        assert!(
            program != Program::OpenSsl || output.text().contains(&host),
            "{}",
            why()
        );
    }

    /// A user at the door: a page comes in the end, or the output or the log says why not.
    pub(crate) fn knock(&self, user: &Peer, program: Program, trust: &Trust) -> Output {
        let port = self.port.to_string();
        match program {
            Program::OpenSsl => s_client(user, &port, trust),
            Program::Web => curl(user, &port, trust),
            Program::GnuTls => gnutls_cli(user, &port, trust),
        }
        .output()
    }

    /// Somebody without a certificate.
    fn knock_bare(&self, device: &Device, trust: &Trust) -> Output {
        let to = format!("https://localhost:{}/", self.port);
        let curl = device.run("curl").words("-sSi --fail --noproxy * --cacert");
        curl.arg(&trust.root).arg(to).output()
    }
}

fn s_server(host: &Peer, port: u16, trust: &Trust) -> Run {
    let run = Engine::Flag
        .openssl(&host.device, "s_server")
        .args(["-accept", &format!("127.0.0.1:{port}")]);
    let run = run.words("-tls1_3 -WWW -Verify 1 -verify_return_error -CAfile");
    page(&host.device);
    with_crl(openssl_side(run.arg(&trust.root), host), trust)
}

fn s_client(user: &Peer, port: &str, trust: &Trust) -> Run {
    // s_client succeeds as soon as the server is known to it: whether it was let in, the page shows.
    let run = Engine::Flag.openssl(&user.device, "s_client");
    let run = run.args(["-connect", &format!("127.0.0.1:{port}")]);
    let run = run.words("-tls1_3 -ign_eof -verify_return_error -verify_hostname localhost -CAfile");
    let run = with_crl(openssl_side(run.arg(&trust.root), user), trust);
    run.input("GET /page HTTP/1.0\r\n\r\n")
}

fn openssl_side(run: Run, peer: &Peer) -> Run {
    let run = run.arg("-cert").arg(peer.chain());
    run.args(Engine::Flag.key("-key", "-keyform", &peer.key))
}

fn with_crl(run: Run, trust: &Trust) -> Run {
    match &trust.crl {
        None => run,
        Some(crl) => run.args(["-crl_check", "-CRL"]).arg(crl),
    }
}

/// What s_server shows to whom it let in.
fn page(device: &Device) {
    fs::write(device.path("page"), "let in\n").unwrap();
}

fn nginx(host: &Peer, port: u16, trust: &Trust) -> Run {
    let device = &host.device;
    let dir = device.path("nginx");
    fs::create_dir_all(&dir).unwrap();
    let crl = |crl: &PathBuf| format!("ssl_crl {};", crl.display());
    let config = NGINX
        .replace("PORT", &port.to_string())
        .replace("DIR", dir.to_str().unwrap())
        .replace("CHAIN", host.chain().to_str().unwrap())
        .replace("URI", &host.key.uri)
        .replace("ROOT", trust.root.to_str().unwrap())
        .replace("CRL", &trust.crl.as_ref().map(crl).unwrap_or_default());
    let path = dir.join("nginx.conf");
    fs::write(&path, config).unwrap();
    let run = Engine::Flag.env(device, device.run("nginx"));
    run.args([Path::new("-p"), &dir, Path::new("-c"), &path])
        .args(["-e", "stderr"])
}

/// One worker, of the account that started it: what another needs is in tests/web.rs.
const NGINX: &str = r#"daemon off;
master_process off;
pid DIR/pid;
error_log stderr info;
env DEVKEY_CONFIG;
ssl_engine pkcs11;
events { worker_connections 128; }
http {
    access_log off;
    client_body_temp_path DIR/body;
    proxy_temp_path DIR/proxy;
    fastcgi_temp_path DIR/fastcgi;
    uwsgi_temp_path DIR/uwsgi;
    scgi_temp_path DIR/scgi;
    server {
        listen 127.0.0.1:PORT ssl;
        ssl_protocols TLSv1.3;
        ssl_certificate CHAIN;
        ssl_certificate_key "engine:pkcs11:URI";
        ssl_client_certificate ROOT;
        ssl_verify_client on;
        CRL
        location / { return 200 "let in $ssl_client_s_dn\n"; }
    }
}
"#;

fn curl(user: &Peer, port: &str, trust: &Trust) -> Run {
    let device = &user.device;
    let run = Engine::Flag.env(device, device.run("curl"));
    let run = run.words("-sSi --fail --tlsv1.3 --noproxy * --engine pkcs11 --key-type ENG --key");
    let run = run.args([&user.key.uri, "--cert"]).arg(user.chain());
    let run = run.arg("--cacert").arg(&trust.root);
    let run = match &trust.crl {
        None => run,
        Some(crl) => run.arg("--crlfile").arg(crl),
    };
    run.arg(format!("https://localhost:{port}/page"))
}

fn gnutls_serv(host: &Peer, port: u16, trust: &Trust) -> Run {
    let run = gnutls_side("gnutls-serv", host, trust);
    let run = run.words("--http --require-client-cert --verify-client-cert --port");
    run.arg(port.to_string())
}

fn gnutls_cli(user: &Peer, port: &str, trust: &Trust) -> Run {
    let run = gnutls_side("gnutls-cli", user, trust);
    let run = run.args(["--port", port, "localhost"]);
    run.input("GET /page HTTP/1.0\r\n\r\n")
}

fn gnutls_side(program: &str, peer: &Peer, trust: &Trust) -> Run {
    // What it says of a peer is otherwise lost with it.
    let run = peer.device.run("stdbuf").args(["-oL", program]);
    let run = run.arg("--provider").arg(module());
    let run = run.args(["--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.3"]);
    let run = run.arg("--x509cafile").arg(&trust.root);
    let run = run.arg("--x509certfile").arg(peer.chain());
    let run = run.args(["--x509keyfile", &peer.key.uri]);
    match &trust.crl {
        None => run,
        Some(crl) => run.arg("--x509crlfile").arg(crl),
    }
}
