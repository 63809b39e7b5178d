//! `devkey sshd` with sshd, ssh and a key service. Run as root, for there are users and mounts in it.

#![cfg(test)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

mod again;
mod certificate;
#[path = "../common/mod.rs"]
mod common;
mod machine;
mod pins;
mod refused;

use std::fs;
use std::path::Path;

use common::{Backend, Device};
use devkey::config::parts_dir;
use machine::Machine;

/// P-256 is taken by the key that Debian makes.
const NEW: &str = "ecdsa-sha2-nistp384";

mod file {
    #[test]
    fn sshd_proves_itself_by_the_tokens_key_too() {
        super::sshd_proves_itself_by_the_tokens_key_too(super::Backend::File);
    }
}

mod tpm {
    #[test]
    fn sshd_proves_itself_by_the_tokens_key_too() {
        super::sshd_proves_itself_by_the_tokens_key_too(super::Backend::Tpm);
    }
}

/// From nothing to `disable`: who has the printed line, and who knew an old key, get in all the while.
///
/// Seen to fail with `old` left out of the drop-in; with the kind fixed to P-256 in `kind_of_new`; with
/// `Grant::give` doing nothing.
fn sshd_proves_itself_by_the_tokens_key_too(backend: Backend) {
    let mut machine = Machine::new(backend);
    machine.start_sshd();
    let old = machine.path("known-of-old");
    let learns = ["StrictHostKeyChecking=accept-new", "UpdateHostKeys=no"];
    machine
        .visit(&old, &learns)
        .says(&["Server host key: ssh-ed25519 "]);
    machine
        .command("status")
        .output()
        .says(&["sshd has no key of a token"]);

    let enabled = machine.enable().ok();
    enabled.says(&[
        "systemctl try-restart devkeyd.service",
        "systemctl reload ssh",
        "IN SSHFP 3 2 ",
    ]);
    enabled.says(&["systemctl enable --now devkey-sshd-agent.socket"]);
    machine.finish();
    let new = machine.known_hosts(&enabled);
    machine.welcomes(&new, &[], NEW);
    machine.welcomes(&old, &["UpdateHostKeys=no"], "ssh-ed25519");
    machine.command("status").ok().says(&["agent signs  yes"]);
    clients_that_come_back_learn_it(&machine, &old);

    it_is_the_same_a_second_time(&machine);
    sshd_does_without_the_agent_for_a_while(&mut machine, &new, &old);
    machine.system.stop();
    machine.loses(&new);
    machine
        .command("status")
        .fails()
        .says(&["the agent does not sign"]);
    machine.system.start();
    machine.welcomes(&new, &[], NEW);

    disable(&mut machine, &new, &old);
}

/// By UpdateHostKeys, for which sshd signs with each of its keys.
///
/// Seen to fail with a host key named twice.
fn clients_that_come_back_learn_it(machine: &Machine, old: &Path) {
    let learning = machine.path("known-that-learns");
    fs::copy(old, &learning).unwrap();
    machine.welcomes(&learning, &["UpdateHostKeys=yes"], "ssh-ed25519");
    let known = fs::read_to_string(&learning).unwrap();
    let public = fs::read_to_string(machine.path("ssh/devkey_host_key.pub")).unwrap();
    let key = public.split(' ').nth(1).unwrap();
    assert!(known.contains(key), "{known}\n{public}");
}

/// Seen to fail without `is_given` in `Grant::give`.
fn it_is_the_same_a_second_time(machine: &Machine) {
    let before = machine.state();
    machine.enable().ok();
    assert_eq!(machine.state(), before);
}

/// Started anew it signs for the sshd that runs; away, those who know an old key get in.
fn sshd_does_without_the_agent_for_a_while(machine: &mut Machine, new: &Path, old: &Path) {
    machine.start_agent(&[]);
    machine.welcomes(new, &[], NEW);
    machine.stop_agent();
    machine.loses(new);
    machine.welcomes(old, &["UpdateHostKeys=no"], "ssh-ed25519");
    let told = machine.command("status").fails();
    told.says(&[
        "asking the agent",
        "systemctl start devkey-sshd-agent.socket",
    ]);
    machine.start_agent(&[]);
    machine.welcomes(new, &[], NEW);
}

/// The key stays, and nobody else may use it then.
fn disable(machine: &mut Machine, new: &Path, old: &Path) {
    machine
        .command("disable")
        .ok()
        .says(&["The key stays on its token"]);
    machine.reload();
    machine.welcomes(old, &[], "ssh-ed25519");
    machine.loses(new).says(&["Host key verification failed"]);
    assert!(!machine.path("ssh/devkey_host_key.pub").exists());
    let list = machine.device().devkey().words("key list").ok();
    list.says(&["ssh-host"]);
    let config = machine.device().config();
    let part = fs::read_to_string(parts_dir(&config).join("sshd.toml")).unwrap();
    assert!(part.contains("use = [\"992\"]"), "{part}");
    assert!(!fs::read_to_string(config).unwrap().contains("992"));
    let status = machine.command("status").output();
    assert_eq!(status.status.code(), Some(3), "{status}");
    machine
        .command("disable")
        .ok()
        .says(&["nothing was changed"]);
}

/// Of two keys on the token the agent shows and uses one. Ed25519, which OpenSSH 9.2 takes from no PKCS#11
/// module, and RSA by both of its hashes.
///
/// Seen to fail with `stay` keeping the twin.
#[test]
fn it_may_be_any_key_that_openssh_knows() {
    let mut machine = Machine::new(Backend::File);
    machine.start_sshd();
    for (kind, key_type, shown) in [
        ("ed25519", "ssh-ed25519", &["ssh-ed25519"][..]),
        ("rsa-2048", "ssh-rsa", &["rsa-sha2-512", "rsa-sha2-256"]),
        ("ec-p256", "ecdsa-sha2-nistp256", &["ecdsa-sha2-nistp256"]),
    ] {
        let key = machine.device().key(kind, kind);
        let taken = machine.enable().args(["--key", kind]).fails();
        taken.says(&[
            &format!("sshd has a key of type {key_type} already"),
            "--replace",
        ]);
        let enabled = machine.enable().args(["--key", kind, "--replace"]).ok();
        machine.finish();
        let new = machine.known_hosts(&enabled);
        assert!(enabled.text().contains(&key.ssh_line()));
        for algorithm in shown {
            let only = format!("HostKeyAlgorithms={algorithm}");
            machine.welcomes(&new, &[&only], key_type);
        }
        machine.command("status").ok();
        machine.command("disable").ok();
        machine.reload();
    }
}

/// By OpenSSH's own client of an agent.
///
/// Seen to fail with an agent that signs with whatever key of the token is named.
#[test]
fn the_agent_has_one_key_for_root_alone() {
    let mut machine = Machine::new(Backend::File);
    let other = machine.device().key("ec-p256", "other");
    machine.enable().ok();
    machine.finish();
    let add = |machine: &Machine| {
        let run = machine.inside("ssh-add");
        run.env("SSH_AUTH_SOCK", "/run/devkey-sshd/agent")
    };
    let listed = add(&machine).arg("-L").ok();
    assert_eq!(listed.text().lines().count(), 1, "{listed}");
    let public = machine.path("ssh/devkey_host_key.pub");
    add(&machine).arg("-T").arg(&public).ok();
    add(&machine).arg("-T").arg(&other.ssh).fails();
    assert!(
        machine.agent_log().contains("not found"),
        "{}",
        machine.agent_log()
    );
    let nobody = machine
        .inside("setpriv")
        .words("--reuid 65534 --regid 65534 --clear-groups ssh-add -L");
    let nobody = nobody
        .env("SSH_AUTH_SOCK", "/run/devkey-sshd/agent")
        .fails();
    nobody.says(&["Permission denied"]);
    // Nor may the agent's user sign with any other key of the token.
    let user = machine::AGENT.to_string();
    let digest = machine.path("digest");
    fs::write(&digest, [7; 48]).unwrap();
    let sign = |label: &str| {
        let tool = machine
            .device()
            .run("setpriv")
            .args(["--reuid", &user, "--regid", &user]);
        let tool = tool
            .words("--clear-groups pkcs11-tool --module")
            .arg(common::module());
        // It heeds labels nowhere but in lists.
        let shown = machine.device().devkey().words("key show --format json");
        let shown = shown.arg(label).ok().text();
        let id = shown.split("\"id\": \"").nth(1).unwrap();
        let id = id.split('"').next().unwrap();
        let tool = tool.args(["--token-label", Device::TOKEN, "--id", id]);
        tool.words("--sign --mechanism ECDSA --output-file /dev/null --input-file")
            .arg(&digest)
            .output()
    };
    sign("other").says(&["CKR_KEY_FUNCTION_NOT_PERMITTED"]);
    let own = sign("ssh-host");
    assert!(own.status.success(), "{own}");
}
