//! A machine that is not as Debian left it: host keys that are named, a key that others use, an sshd that
//! systemd holds the socket of, and somebody who ends the command.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Backend, Device, Server};
use crate::machine::{AGENT, Machine};

/// Who knows an old key gets in after each time, and each key is shown once.
///
/// Seen to fail with the drop-in's keys alone taken in `old`.
#[test]
fn host_keys_that_are_named_stay() {
    let mut machine = Machine::new(Backend::File);
    let named = "HostKey /etc/ssh/ssh_host_ed25519_key\nHostKey /etc/ssh/ssh_host_rsa_key";
    machine.configure(named);
    machine.start_sshd();
    let old = machine.path("known-of-old");
    let learns = ["StrictHostKeyChecking=accept-new", "UpdateHostKeys=no"];
    machine.visit(&old, &learns).says(&["ssh-ed25519 "]);
    machine.enable().ok();
    machine.finish();
    let before = machine.state();
    for _ in 0..2 {
        machine.enable().ok();
        assert_eq!(machine.state(), before);
        machine.reload();
        machine.welcomes(&old, &["UpdateHostKeys=no"], "ssh-ed25519");
    }
    each_is_named_once(&machine, &["ssh_host_ed25519_key", "ssh_host_rsa_key"]);
}

/// Those that were taken over, one of which is named by the administrator afterwards.
///
/// Seen to fail with the drop-in's keys compared with the rest at the first time alone.
#[test]
fn a_host_key_that_is_named_later_is_named_once() {
    let machine = Machine::new(Backend::File);
    let debians = [
        "ssh_host_ecdsa_key",
        "ssh_host_ed25519_key",
        "ssh_host_rsa_key",
    ];
    machine.enable().ok();
    each_is_named_once(&machine, &debians);
    machine.configure("HostKey /etc/ssh/ssh_host_rsa_key");
    machine.enable().ok();
    each_is_named_once(&machine, &debians);
    machine.enable().ok();
    each_is_named_once(&machine, &debians);
}

/// A client that is told of one key twice learns none.
fn each_is_named_once(machine: &Machine, old: &[&str]) {
    let told = machine.inside("/usr/sbin/sshd").arg("-T").ok().text();
    let mut keys: Vec<_> = told
        .lines()
        .filter_map(|l| l.strip_prefix("hostkey "))
        .collect();
    keys.sort_unstable();
    let all = [&["devkey_host_key"], old].concat();
    let all: Vec<_> = all.iter().map(|name| format!("/etc/ssh/{name}")).collect();
    assert_eq!(keys, all);
}

/// Seen to fail without the note.
#[test]
fn who_can_use_the_key_no_more_is_said() {
    let machine = Machine::with(Backend::File, false, "use = [\"1\", \"%2\"]");
    machine.device().key("ec-p384", "shared");
    let told = machine.enable().args(["--key", "shared"]).ok();
    told.says(&["key shared", "1, %2", "[token.machine.key.shared]"]);
    let told = machine.enable().args(["--key", "shared"]).ok();
    told.says_not(&["%2"]);
    // Of a key that is made nobody had the use.
    machine.command("disable").ok();
    machine
        .enable()
        .args(["--key", "new"])
        .ok()
        .says_not(&["%2"]);
}

/// With systemd's own answer, from a manager that has this machine's /run for itself.
///
/// Seen to fail with `reload` whatever systemd says.
#[test]
fn an_sshd_whose_socket_is_systemds_is_to_be_restarted() {
    let mut machine = Machine::new(Backend::File);
    machine.start_sshd();
    machine.enable().ok();
    machine.start_agent(&[]);
    let hidden = "the sshd that runs does not show the key";
    let told = machine.command("status").fails();
    told.says(&[hidden, "systemctl reload ssh"]);
    let _systemd = systemd(&machine);
    control(&machine, "start ssh.service");
    let told = machine.command("status").fails();
    told.says(&[hidden, "systemctl reload ssh"]);
    // Not while the service runs: systemd starts the socket of none that does.
    for line in ["stop ssh.service", "start ssh.socket", "start ssh.service"] {
        control(&machine, line);
    }
    let told = machine.command("status").fails();
    told.says(&[hidden, "systemctl restart ssh"]);
}

/// A manager of systemd's with units that are called as sshd's are.
fn systemd(machine: &Machine) -> Server {
    let units = machine.path("systemd/user");
    fs::create_dir_all(&units).unwrap();
    fs::create_dir_all(machine.path("slash-run/systemd/system")).unwrap();
    let service = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n";
    fs::write(units.join("ssh.service"), service).unwrap();
    let socket = "[Socket]\nListenStream=/run/socket-of-ssh\n";
    fs::write(units.join("ssh.socket"), socket).unwrap();
    let run = machine.inside("/lib/systemd/systemd").arg("--user");
    let run = run.env("XDG_RUNTIME_DIR", "/run");
    let run = run.env("XDG_CONFIG_HOME", machine.device().path(""));
    run.serve(&machine.path("systemd.log"))
}

/// Once it listens: at the socket that root's systemctl asks.
fn control(machine: &Machine, line: &str) {
    wait_for(&machine.path("slash-run/systemd/private"));
    machine.inside("systemctl").words(line).ok();
}

/// Ended in the midst, while the agent has it wait, all is as it was before.
///
/// Seen to fail without the registration of the signals.
#[test]
fn a_signal_has_it_taken_back() {
    let rules = format!(
        "[token.{}.key.ssh-host]\nuse = [\"{AGENT}\"]",
        Device::TOKEN
    );
    let mut machine = Machine::with(Backend::File, false, &rules);
    machine.start_agent(&[]);
    let before = machine.state();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        machine.signal_agent(Signal::STOP);
        let mut enable = machine.enable().serve(&machine.path("enable.log"));
        wait_for(&machine.path("ssh/devkey_host_key.pub"));
        kill_process(Pid::from_raw(enable.id() as i32).unwrap(), signal).unwrap();
        machine.signal_agent(Signal::CONT);
        wait_until(|| !enable.runs());
        let said = enable.log();
        assert!(said.contains("a signal ended"), "{said}");
        assert_eq!(machine.state(), before);
    }
    machine.enable().ok();
}

fn wait_for(file: &Path) {
    wait_until(|| file.exists());
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed().as_secs() < 60);
        std::thread::sleep(Duration::from_millis(10));
    }
}
