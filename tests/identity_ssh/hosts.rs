//! Hosts whose keys are on tokens prove themselves by certificates: HostKeyAgent and HostCertificate.

use std::fs;

use devkey::identity::level::Level;
use devkey::identity::ssh::certificate::{Certificate, Contents, Kind};
use devkey::identity::ssh::key;
use devkey::identity::ssh::krl::Krl;
use devkey::key::KeyKind;

use crate::authority::{Authority, contents, now};
use crate::common::sshd::{Agent, Sshd, WELCOME, make_key};
use crate::common::{Backend, Device, KINDS, Key, Output, module};
use crate::door::{install, public};
use crate::on_each_back_end;

on_each_back_end!(a_host_proves_itself);

/// The client knows nothing of the host but its CA. Seen to fail with the numbers of users' and hosts' certificates
/// exchanged.
fn a_host_proves_itself(device: &Device) {
    let agent = Agent::new(device);
    for kind in KINDS {
        let host = device.key(kind, kind);
        agent.add(device).arg("-e").arg(module()).output();
        agent.add(device).arg("-s").arg(module()).ok();
        for ca in [KeyKind::EcP256, KeyKind::Rsa2048, KeyKind::Ed25519] {
            let ca = Authority::new(ca);
            let certificate = ca.issue(&named(&host, "127.0.0.1"), Level::Tpm);
            let output = visit(device, &agent, &host, &certificate, &ca, "");
            assert!(output.status.success(), "{output}");
            output.says(&[WELCOME, "Server host certificate: "]);
            output.says(&[&key::fingerprint(ca.public()).unwrap()]);
        }
    }
}

/// What ssh refuses, each by its own check. Seen to fail with a KRL that ssh cannot read.
#[test]
fn what_ssh_refuses() {
    let device = Device::new(Backend::File);
    let agent = Agent::new(&device);
    let host = device.key("ec-p256", "host");
    agent.add(&device).arg("-s").arg(module()).ok();
    let (ca, other) = (
        Authority::new(KeyKind::Ed25519),
        Authority::new(KeyKind::Ed25519),
    );
    let krl = Krl {
        authority: ca.public(),
        serials: &[13],
        keys: &[],
        version: 1,
        date: now(),
        comment: "",
    };
    let revoked = device.path("revoked.krl");
    fs::write(&revoked, krl.encode().unwrap()).unwrap();
    let option = format!("RevokedHostKeys={}", revoked.display());
    let refuses = |by: &Authority, change: &dyn Fn(&mut Contents), reason: &str| {
        let mut said = named(&host, "127.0.0.1");
        change(&mut said);
        let certificate = by.issue(&said, Level::Tpm);
        let output = visit(&device, &agent, &host, &certificate, &ca, &option);
        assert!(!output.status.success(), "{output}");
        output.says(&[reason, "Host key verification failed"]);
    };
    refuses(&other, &|_| (), "No matching CA found");
    refuses(
        &ca,
        &|said| said.valid_before = now() - 1,
        "Certificate invalid: expired",
    );
    refuses(&ca, &|said| said.serial = 13, "revoked by file");
    refuses(
        &ca,
        &|said| said.principals = vec!["elsewhere.example".into()],
        "name is not a listed principal",
    );
    let good = ca.issue(&named(&host, "127.0.0.1"), Level::Tpm);
    let output = visit(&device, &agent, &host, &good, &ca, &option);
    assert!(output.status.success(), "{output}");
}

fn named(host: &Key, name: &str) -> Contents {
    contents(Kind::Host, &public(host), name)
}

/// A client with a plain key of its own that trusts `ca` for every host, at a host with `certificate`.
fn visit(
    device: &Device,
    agent: &Agent,
    host: &Key,
    certificate: &Certificate,
    ca: &Authority,
    option: &str,
) -> Output {
    let user = device.path("user");
    make_key(device, &user);
    let directives = format!(
        "HostKey {}\nHostCertificate {}\nHostKeyAgent {}\nAuthorizedKeysFile {}.pub",
        host.ssh.display(),
        install(device, certificate).display(),
        agent.socket().display(),
        user.display(),
    );
    let sshd = Sshd::with_host_key(device, &directives, &host.ssh);
    let line = key::line(ca.public(), "").unwrap();
    fs::write(
        device.path("known_hosts"),
        format!("@cert-authority * {line}\n"),
    )
    .unwrap();
    let more = (!option.is_empty()).then_some(["-o", option]);
    sshd.login(device)
        .args(["-v", "-o", "IdentityAgent=none", "-i"])
        .arg(&user)
        .args(more.into_iter().flatten())
        .args(Sshd::destination())
        .output()
}
