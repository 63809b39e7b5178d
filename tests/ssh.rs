//! OpenSSH with keys of the device: ssh, ssh-agent, sshd's host key, a certification authority.
//!
//! Seen to fail with a module whose C_Sign changes one bit of every seventh signature; whose
//! C_OpenSession refuses CKF_RW_SESSION; whose C_GetTokenInfo sets CKF_LOGIN_REQUIRED.

#![cfg(test)]

mod common;

use std::fs;

use common::sshd::{Agent, Sshd, WELCOME, make_key};
use common::{Device, KINDS, Key, module};

on_each_back_end!(
    keygen_lists_the_keys,
    ssh_logs_in_through_the_module,
    agent_logs_in,
    a_refreshed_agent_knows_the_keys_as_they_are,
    agent_refuses_a_module_outside_its_list,
    the_host_key_lives_on_the_token,
    the_token_certifies_users,
);

/// ssh-keygen -D prints what `devkey key show --format ssh` prints, label included.
fn keygen_lists_the_keys(device: &Device) {
    let keys = KINDS.map(|kind| device.key(kind, &format!("ssh {kind}")));
    let listed = device.run("ssh-keygen").arg("-D").arg(module()).ok();
    for key in &keys {
        listed.says(&[&format!("{} {}", key.ssh_line(), key.label)]);
    }
    assert_eq!(listed.text().lines().count(), keys.len(), "{listed}");
}

/// `ssh -I`: each kind of key opens the door that it is authorised for, and no other does.
fn ssh_logs_in_through_the_module(device: &Device) {
    let keys = KINDS.map(|kind| device.key(kind, kind));
    let sshd = Sshd::new(device, &authorise(device));
    let login = || {
        sshd.login(device)
            .args(["-o", "IdentityAgent=none", "-I"])
            .arg(module())
    };
    for key in &keys {
        admit(device, &key.ssh_line());
        login().args(Sshd::destination()).ok().says(&[WELCOME]);
        accepted(device, &sshd, key);
    }
    make_key(device, &device.path("stranger"));
    admit(
        device,
        &fs::read_to_string(device.path("stranger.pub")).unwrap(),
    );
    login()
        .args(Sshd::destination())
        .fails()
        .says(&["Permission denied"]);
}

/// `ssh-add -s`, with nothing to answer its question for a PIN: sign, log in, remove, add again.
fn agent_logs_in(device: &Device) {
    let keys = KINDS.map(|kind| device.key(kind, kind));
    let agent = Agent::new(device);
    agent.add(device).arg("-s").arg(module()).ok();
    let sshd = Sshd::new(device, &authorise(device));
    for key in &keys {
        agent.add(device).arg("-L").ok().says(&[&key.ssh_line()]);
        // For RSA it asks for a signature with SHA-1, which no token gives.
        if !key.is_rsa() {
            agent.add(device).arg("-T").arg(&key.ssh).ok();
        }
        admit(device, &key.ssh_line());
        agent_login(device, &sshd, &agent)
            .args(Sshd::destination())
            .ok()
            .says(&[WELCOME]);
        accepted(device, &sshd, key);
    }
    agent.add(device).arg("-e").arg(module()).ok();
    agent.add(device).arg("-l").fails().says(&["no identities"]);
    agent_login(device, &sshd, &agent)
        .args(Sshd::destination())
        .fails();
    agent.add(device).arg("-s").arg(module()).ok();
    agent.add(device).arg("-T").arg(&keys[0].ssh).ok();
}

/// `devkey agent refresh` on an agent that does not know the module yet, and on one that does: keys
/// that were made appear and sign, keys that were deleted go.
///
/// Fails without `ssh_add("-e", …)` in agent.rs: the agent adds nothing of a module that it has.
fn a_refreshed_agent_knows_the_keys_as_they_are(device: &Device) {
    let agent = Agent::new(device);
    let refresh = || {
        let command = device.devkey().args(["agent", "refresh", "--module"]);
        let command = command.arg(module()).env("SSH_AUTH_SOCK", agent.socket());
        command.ok().says(&["loaded "]);
    };
    let lists = |there: &[&Key], missing: &[&Key]| {
        let listed = agent.add(device).arg("-L").ok();
        there.iter().for_each(|key| {
            listed.says(&[&key.ssh_line()]);
        });
        missing.iter().for_each(|key| {
            listed.says_not(&[&key.ssh_line()]);
        });
    };
    let first = device.key("ec-p256", "first");
    refresh();
    let second = device.key("ec-p256", "second");
    // An agent lists a module's keys once.
    lists(&[&first], &[&second]);
    refresh();
    lists(&[&first, &second], &[]);
    agent.add(device).arg("-T").arg(&second.ssh).ok();
    let delete = ["key", "delete", "--token", Device::TOKEN, "--yes", "first"];
    device.devkey().args(delete).ok();
    refresh();
    lists(&[&second], &[&first]);
}

/// The agent's list decides by the real path; this is what users meet with a module in their home.
fn agent_refuses_a_module_outside_its_list(device: &Device) {
    device.key("ec-p256", "ssh");
    let agent = Agent::allowing(device, "/nowhere/*");
    agent
        .add(device)
        .arg("-s")
        .arg(module())
        .fails()
        .says(&["agent refused operation"]);
}

/// sshd signs with a key of the token through `HostKeyAgent`; a client that knows another host
/// key turns away.
fn the_host_key_lives_on_the_token(device: &Device) {
    let user = device.path("user");
    make_key(device, &user);
    admit(
        device,
        &fs::read_to_string(user.with_extension("pub")).unwrap(),
    );
    let agent = Agent::new(device);
    for kind in KINDS {
        let host = device.key(kind, &format!("host-{kind}"));
        agent.add(device).arg("-e").arg(module()).output();
        agent.add(device).arg("-s").arg(module()).ok();
        let directives = format!(
            "HostKey {}\nHostKeyAgent {}\n{}",
            host.ssh.display(),
            agent.socket().display(),
            authorise(device)
        );
        let sshd = Sshd::with_host_key(device, &directives, &host.ssh);
        let login = || {
            sshd.login(device)
                .args(["-o", "IdentityAgent=none", "-i"])
                .arg(&user)
                .args(Sshd::destination())
        };
        login().ok().says(&[WELCOME]);
        let known = fs::read_to_string(device.path("known_hosts")).unwrap();
        let port = known.split_whitespace().next().unwrap();
        let other = fs::read_to_string(user.with_extension("pub")).unwrap();
        fs::write(device.path("known_hosts"), format!("{port} {other}")).unwrap();
        login().fails().says(&["Host key verification failed"]);
    }
}

/// `ssh-keygen -D -s`: a user logs in with a certificate that a key of the token signed, as the
/// principal that it names and as nobody else.
fn the_token_certifies_users(device: &Device) {
    for kind in KINDS {
        let ca = device.key(kind, &format!("ca-{kind}"));
        let sshd = Sshd::new(device, &authorise_ca(device, &ca));
        certified(device, &ca, &sshd, true);
        certified(device, &ca, &sshd, false);
    }
}

fn certified(device: &Device, ca: &Key, sshd: &Sshd, as_myself: bool) {
    let user = device.path(format!("{}-{as_myself}", ca.label));
    let destination = Sshd::destination();
    let name = destination[0].split('@').next().unwrap();
    let principal = if as_myself { name } else { "somebody-else" };
    make_key(device, &user);
    device
        .run("ssh-keygen")
        .arg("-s")
        .arg(&ca.ssh)
        .arg("-D")
        .arg(module())
        .args(["-I", "a test", "-V", "-5m:+5m", "-n", principal])
        .arg(user.with_extension("pub"))
        .ok();
    let login = sshd
        .login(device)
        .args(["-o", "IdentityAgent=none", "-i"])
        .arg(&user);
    let login = login.args(&destination);
    if as_myself {
        login.ok().says(&[WELCOME]);
        sshd.wait_for(&format!("CA {}", fingerprint(device, ca).join(" ")));
    } else {
        login.fails().says(&["Permission denied"]);
    }
}

fn agent_login(device: &Device, sshd: &Sshd, agent: &Agent) -> common::Run {
    let identity = format!("IdentityAgent={}", agent.socket().display());
    sshd.login(device).args(["-o", &identity])
}

/// The directive that reads the keys which [`admit`] writes.
fn authorise(device: &Device) -> String {
    format!(
        "AuthorizedKeysFile {}",
        device.path("authorized_keys").display()
    )
}

fn authorise_ca(device: &Device, ca: &Key) -> String {
    let file = device.path(format!("{}.trusted", ca.label));
    fs::write(&file, ca.ssh_line()).unwrap();
    format!(
        "AuthorizedKeysFile none\nTrustedUserCAKeys {}",
        file.display()
    )
}

fn admit(device: &Device, line: &str) {
    fs::write(device.path("authorized_keys"), format!("{}\n", line.trim())).unwrap();
}

/// sshd says which key it accepted, by the fingerprint.
fn accepted(device: &Device, sshd: &Sshd, key: &Key) {
    let [_, hash] = fingerprint(device, key);
    sshd.wait_for(&format!(
        "ssh2: {} {hash}",
        if key.is_rsa() { "RSA" } else { "ECDSA" }
    ));
}

/// Algorithm and fingerprint, as sshd writes them.
fn fingerprint(device: &Device, key: &Key) -> [String; 2] {
    let text = device
        .run("ssh-keygen")
        .arg("-lf")
        .arg(&key.ssh)
        .ok()
        .text();
    let hash = text.split_whitespace().nth(1).unwrap().to_owned();
    [if key.is_rsa() { "RSA" } else { "ECDSA" }.to_owned(), hash]
}
