//! What cannot be done is said, with what to do, and nothing is changed.

use std::fs;

use crate::common::{Backend, Device, Run};
use crate::machine::Machine;

/// Seen to fail with `undo.keep()` before `put`, and without `check_after`.
#[test]
fn nothing_is_changed_where_it_is_refused() {
    let machine = Machine::new(Backend::File);
    let refuses = |machine: &Machine, run: Run, said: &[&str]| {
        let before = machine.state();
        run.fails().says(said);
        assert_eq!(machine.state(), before);
    };
    let enable = || machine.enable();
    refuses(
        &machine,
        enable().args(["--kind", "ml-dsa-44"]),
        &["not supported", "--kind ec-p256"],
    );
    refuses(
        &machine,
        enable().args(["--kind", "ec-p256"]),
        &["ecdsa-sha2-nistp256 already", "--replace"],
    );
    refuses(
        &machine,
        machine.command("enable").args(["--token", "none"]),
        &["token none"],
    );
    let nobody = machine
        .inside("setpriv")
        .words("--reuid 65534 --regid 65534 --clear-groups");
    let nobody = nobody
        .arg(env!("CARGO_BIN_EXE_devkey"))
        .words("sshd enable");
    refuses(&machine, nobody, &["only root", "sudo devkey sshd enable"]);
    let stranger = machine.inside(env!("CARGO_BIN_EXE_devkey"));
    let stranger = stranger.words("sshd enable --user no-such-user");
    refuses(&machine, stranger, &["no-such-user", "systemd-sysusers"]);

    let drop_in = machine.path("ssh/sshd_config.d/50-devkey.conf");
    fs::write(&drop_in, "# mine\n").unwrap();
    refuses(
        &machine,
        enable(),
        &["devkey did not write", "move it away"],
    );
    fs::remove_file(&drop_in).unwrap();

    let config = machine.path("ssh/sshd_config");
    let lines = [
        (
            "HostKeyAgent /run/other",
            "another agent",
            "HostKeyAgent line",
        ),
        (
            "HostKeyAlgorithms ssh-ed25519",
            "HostKeyAlgorithms",
            "ecdsa-sha2-nistp384",
        ),
        ("NoSuchWord yes", "NoSuchWord", ""),
    ];
    for (line, what, remedy) in lines {
        machine.configure(line);
        refuses(&machine, enable(), &[what, remedy]);
    }
    machine.configure("");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("Include ", "#Include ")).unwrap();
    let include = "Include /etc/ssh/sshd_config.d/*.conf";
    refuses(&machine, enable(), &["does not read", include]);
    fs::remove_file(&config).unwrap();
    refuses(
        &machine,
        enable(),
        &["sshd_config", "apt install openssh-server"],
    );
}

/// The administrator's own list is not changed for him.
///
/// Seen to fail without `check_conflict` and `parse` in `Grant::give`.
#[test]
fn a_list_that_is_there_is_his() {
    let rules = format!("[token.{}.key.ssh-host]\nuse = [\"0\"]\n", Device::TOKEN);
    let machine = Machine::with(Backend::File, false, &rules);
    let before = machine.state();
    let refused = machine.enable().fails();
    refused.says(&["put `use = [\"992\"]` under [token.machine.key.ssh-host]"]);
    assert_eq!(machine.state(), before);
}

/// A token that only its user's processes can open.
#[test]
fn a_token_that_is_not_the_services_is_refused() {
    let machine = Machine::new(Backend::File);
    let other = machine.path("other");
    machine
        .device()
        .devkey()
        .arg("init")
        .arg("--dir")
        .arg(&other)
        .ok();
    let config = machine.path("other.toml");
    fs::write(&config, format!("[token.other]\ndirectory = {other:?}\n")).unwrap();
    let run = machine.command("enable").env("DEVKEY_CONFIG", &config);
    run.fails()
        .says(&["not the key service's", "devkey init --system"]);
}

/// sshd is found by its path alone.
#[test]
fn a_machine_without_sshd_is_told_so() {
    let machine = Machine::new(Backend::File);
    let script = "mount -t tmpfs tmpfs /usr/sbin && exec \"$@\"";
    let run = machine.inside("sh").args(["-c", script, "sh"]);
    let run = run.arg(env!("CARGO_BIN_EXE_devkey")).words("sshd status");
    run.fails()
        .says(&["/usr/sbin/sshd", "apt install openssh-server"]);
}
