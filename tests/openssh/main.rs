//! An OpenSSH newer than Debian 12's, whose agent keeps users' certificates for a module's keys.
//!
//! Needs what `sh tests/openssh/fetch` downloads, as `make test` does.

#![cfg(test)]

#[path = "../common/mod.rs"]
mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::sshd::{Agent, Sshd, WELCOME};
use common::{Backend, Device, KINDS, Key, Output, Run, module};

on_each_back_end!(a_refreshed_agent_logs_in_by_certificates);

/// Who logs in by which certificate: sshd accepts the principal of one at a time.
///
/// Seen to fail without `certificates` in `ssh_add` of agent.rs.
fn a_refreshed_agent_logs_in_by_certificates(device: &Device) {
    let agent = Agent::of(device, newer(device, "ssh-agent"));
    let keys = KINDS.map(|kind| device.key(kind, kind));
    let sshd = Sshd::new(device, &trusting(device));
    for key in &keys {
        certify(device, key, &["-V", "+1h"]);
    }
    let said = refresh(device, &agent, Version::Newer);
    said.says(&["loaded ", "with the certificates of users: 2"]);
    for key in &keys {
        knows(device, &agent, key, true);
        for version in [Version::Newer, Version::Machines] {
            lets_in_by(device, &sshd, &agent, version, &key.label);
        }
    }
    // What was renewed is another certificate.
    let before = installed(device, &keys[0]);
    certify(device, &keys[0], &["-V", "+2h"]);
    assert_ne!(before, installed(device, &keys[0]));
    knows(device, &agent, &keys[0], false);
    refresh(device, &agent, Version::Newer);
    knows(device, &agent, &keys[0], true);
}

/// A certificate that opens nothing is one more try of the few that sshd allows. Seen to fail without the
/// conditions of kind and times in `good` of agent.rs.
#[test]
fn only_what_opens_something_is_handed_over() {
    let device = Device::new(Backend::File);
    let agent = Agent::of(&device, newer(&device, "ssh-agent"));
    let make = |label: &str, how: &[&str]| {
        let key = device.key("ec-p256", label);
        certify(&device, &key, how);
        key
    };
    let good = make("good", &["-V", "+1h"]);
    let ever = make("ever", &[]);
    make("expired", &["-V", "-2h:-1h"]);
    make("early", &["-V", "+1h:+2h"]);
    make("server", &["-h", "-V", "+1h"]);
    let said = refresh(&device, &agent, Version::Newer);
    said.says(&["with the certificates of users: 2"]);
    let listed = listed(&device, &agent);
    assert_eq!(listed.matches("-cert-v01@").count(), 2, "{listed}");
    for key in [&good, &ever] {
        knows(&device, &agent, key, true);
    }
    // Those in a place of one's own, where the token's directory is not to be written.
    let own = device.path("own");
    fs::create_dir(&own).unwrap();
    let store = device.store().join(Device::TOKEN);
    fs::rename(store.join("ever-cert.pub"), own.join("ever-cert.pub")).unwrap();
    let said = refresh(&device, &agent, Version::Newer);
    said.says(&["with the certificates of users: 1"]);
    let run = device.devkey().args(["agent", "refresh", "--ssh-dir"]);
    let run = run.arg(&own).arg("--module").arg(module());
    let said = Version::Newer.of(run, &agent).ok();
    said.says(&["with the certificates of users: 2"]);
}

/// Debian 12's ssh-add and ssh-agent, and either with a newer one: the keys are there, and what is not is
/// said. Seen to fail without the second try in `add` of agent.rs, where the agent alone is old.
#[test]
fn an_older_part_has_the_keys_alone() {
    for (agent, ssh_add) in [
        (Version::Machines, Version::Machines),
        (Version::Machines, Version::Newer),
        (Version::Newer, Version::Machines),
    ] {
        let device = Device::new(Backend::File);
        let agent = match agent {
            Version::Newer => Agent::of(&device, newer(&device, "ssh-agent")),
            Version::Machines => Agent::new(&device),
        };
        let key = device.key("ec-p256", "web");
        refresh(&device, &agent, ssh_add).says_not(&["certificates"]);
        certify(&device, &key, &["-V", "+1h"]);
        let said = refresh(&device, &agent, ssh_add);
        said.says(&["loaded ", "keeps 0 of 1 certificates", "CertificateFile"]);
        let listed = listed(&device, &agent);
        assert!(listed.contains(&key.ssh_line()), "{listed}");
        assert!(!listed.contains("-cert-v01@"), "{listed}");
        agent.add(&device).arg("-T").arg(&key.ssh).ok();
    }
}

/// The PIN is asked for once, and the agent has the certificate with the key.
#[test]
fn a_token_with_a_pin_hands_them_over_too() {
    let device = Device::with_pins(Backend::File);
    let agent = Agent::of(&device, newer(&device, "ssh-agent"));
    let key = device.key("ec-p256", "login");
    certify(&device, &key, &["-V", "+1h"]);
    let askpass = device.path("askpass");
    let script = format!("#!/bin/sh\necho asked >>asked\necho {}\n", Device::PIN);
    fs::write(&askpass, script).unwrap();
    Run::new("chmod").arg("755").arg(&askpass).ok();
    let run = device
        .devkey()
        .args(["agent", "refresh", "--module"])
        .arg(module());
    let run = run
        .env("SSH_ASKPASS", &askpass)
        .env("SSH_ASKPASS_REQUIRE", "force");
    let said = Version::Newer.of(run, &agent).ok();
    said.says(&["with the certificates of users: 1"]);
    knows(&device, &agent, &key, true);
    assert_eq!(fs::read_to_string(device.path("asked")).unwrap(), "asked\n");
}

/// Which OpenSSH a program is of.
#[derive(Clone, Copy)]
enum Version {
    /// This machine's.
    Machines,
    /// The one that was downloaded.
    Newer,
}

impl Version {
    /// `run`, by whose PATH this version's ssh-add is found, with an agent.
    fn of(self, run: Run, agent: &Agent) -> Run {
        let run = run.env("SSH_AUTH_SOCK", agent.socket());
        match self {
            Version::Machines => run,
            Version::Newer => run.env("PATH", format!("{}:/usr/bin", tree("usr/bin").display())),
        }
    }
}

/// What was downloaded.
fn tree(path: &str) -> PathBuf {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/openssh/tree");
    let path = tree.join(path);
    assert!(
        path.exists(),
        "{} is missing: sh tests/openssh/fetch",
        path.display()
    );
    path
}

/// A program of the newer version; its agent starts a helper of its own, too.
fn newer(device: &Device, program: &str) -> Run {
    let helper = tree("usr/lib/openssh/ssh-pkcs11-helper");
    let run = device.run(tree("usr/bin").join(program));
    run.env("SSH_PKCS11_HELPER", helper)
}

fn refresh(device: &Device, agent: &Agent, ssh_add: Version) -> Output {
    let run = device.devkey().args(["agent", "refresh", "--module"]);
    ssh_add.of(run.arg(module()), agent).ok()
}

/// Certifies a key of the device, and puts that beside it. The principal is the key's label.
fn certify(device: &Device, key: &Key, how: &[&str]) {
    if !device.path("sshca").exists() {
        let make = device.run("ssh-keygen").words("-q -t ed25519 -f sshca -N");
        make.arg("").ok();
    }
    let label = key.label.as_str();
    let sign = device.run("ssh-keygen").words("-q -s sshca -I");
    sign.args([label, "-n", label]).args(how).arg(&key.ssh).ok();
    let install = device.devkey().args(["cert", "install", "--any-time"]);
    install.arg(device.path(format!("{label}-cert.pub"))).ok();
}

/// The certificate that lies beside a key.
fn installed(device: &Device, key: &Key) -> String {
    let path = device.store().join(Device::TOKEN);
    let line = fs::read_to_string(path.join(format!("{}-cert.pub", key.label))).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

fn listed(device: &Device, agent: &Agent) -> String {
    agent.add(device).arg("-L").ok().text()
}

/// Whether the agent has the certificate of a key, beside the key itself.
#[track_caller]
fn knows(device: &Device, agent: &Agent, key: &Key, certified: bool) {
    let listed = listed(device, agent);
    assert!(listed.contains(&key.ssh_line()), "{listed}");
    assert_eq!(
        listed.contains(&installed(device, key)),
        certified,
        "{listed}"
    );
}

/// An sshd that knows no keys, but the CA; the agent offers more than the six that are usual.
fn trusting(device: &Device) -> String {
    format!(
        "AuthorizedKeysFile none\nTrustedUserCAKeys {}\nAuthorizedPrincipalsFile {}\nMaxAuthTries 20",
        device.path("sshca.pub").display(),
        device.path("principals").display(),
    )
}

fn lets_in_by(device: &Device, sshd: &Sshd, agent: &Agent, ssh: Version, principal: &str) {
    fs::write(device.path("principals"), format!("{principal}\n")).unwrap();
    let identity = format!("IdentityAgent={}", agent.socket().display());
    let login = ssh.of(sshd.login(device), agent).args(["-o", &identity]);
    let output = login.args(Sshd::destination()).output();
    assert!(output.status.success(), "{output}{}", sshd.log());
    output.says(&[WELCOME]);
    sshd.wait_for(&format!("ID {principal} (serial 0) CA "));
}
