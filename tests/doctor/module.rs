//! The area `module`, with p11-kit, OpenSSH and an agent.

use std::fs;

use crate::checks::Checks;
use crate::common::{Run, Server, module};
use crate::machine::Machine;

/// The doctor with the module of this build.
fn doctor(machine: &Machine) -> Run {
    machine.devkey("doctor module --module").arg(module())
}

/// An agent that takes modules from anywhere, until it is dropped.
fn agent(machine: &Machine) -> Server {
    let socket = machine.path("agent");
    let run = machine
        .run("ssh-agent")
        .args(["-D", "-P", "*", "-a"])
        .arg(&socket);
    let server = run.serve(&machine.path("agent.log"));
    while !socket.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    server
}

/// Seen to fail with `takes` always true, and with `UNLOADED` empty.
#[test]
fn the_module_is_found_and_loaded() {
    let machine = Machine::with_key();
    let said = Checks::of(doctor(&machine));
    let path = module().to_str().unwrap();
    said.ok("module.file", &[path]);
    said.ok("module.loads", &["keys for ssh: 1"]);
    said.warning("module.agent-list", &["takes no module"], "ssh-agent -P");
    said.ok("module.openssh", &["OpenSSH"])
        .none("module.ssh-agent", &["no ssh-agent"]);
    let gone = machine.doctor("module --module /nowhere/devkey-pkcs11.so");
    gone.failed("module.file", &["/nowhere"], "make install");
    let broken = machine.path("broken.so");
    let doctor = || machine.doctor(&format!("module --module {}", broken.display()));
    fs::write(&broken, "no ELF").unwrap();
    doctor().failed(
        "module.loads",
        &["cannot be loaded", "not a PKCS11 library"],
        "ldd",
    );
    // A library that it needs is not there.
    let source = "int absent(void); int C_GetFunctionList(void) { return absent(); }";
    fs::write(machine.path("broken.c"), source).unwrap();
    let cc = machine
        .run("cc")
        .words("-shared -fPIC -Wl,-z,now -o broken.so broken.c");
    cc.ok();
    doctor().failed(
        "module.loads",
        &["cannot be loaded", "undefined symbol: absent"],
        "ldd",
    );
}

/// A copy in /usr/libexec, which is among `/usr/lib*/*`, and which is this process's own. Its p11-kit file is
/// missing, is there, and names another. Seen to fail with every path in
/// `named` taken for this one, and with no file found.
#[test]
fn p11_kit_and_the_agent_look_in_their_places() {
    let machine = Machine::with_key();
    let script = format!(
        "mount -t tmpfs tmpfs /usr/libexec
         so=/usr/libexec/devkey-pkcs11.so
         cp {module} $so
         mount -t tmpfs tmpfs /usr/share/p11-kit/modules
         say() {{ $DEVKEY doctor module --module $so --all | grep -A1 -E 'p11-kit|agent-list'; echo; }}
         say
         echo \"module: $so\" > /usr/share/p11-kit/modules/devkey.module
         say
         echo 'module: /nowhere/devkey-pkcs11.so' > /usr/share/p11-kit/modules/devkey.module
         say",
        module = module().display()
    );
    let output = machine.in_namespace(&script).ok().text();
    let parts: Vec<&str> = output.split("\n\n").collect();
    assert!(parts[0].contains("ok      module.agent-list"), "{output}");
    assert!(parts[0].contains("WARNING module.p11-kit"), "{output}");
    assert!(
        parts[0].contains("sudo tee /etc/pkcs11/modules/devkey.module"),
        "{output}"
    );
    assert!(parts[1].contains("ok      module.p11-kit"), "{output}");
    assert!(parts[2].contains("FAILED  module.p11-kit"), "{output}");
}

/// None, one without the key, one with it, and one that is gone. Seen to fail with the number of known
/// keys not looked at, and with ssh-add's exit code 2 taken for 1.
#[test]
fn the_agent_has_the_keys_or_is_refreshed() {
    let machine = Machine::with_key();
    let server = agent(&machine);
    let socket = machine.path("agent");
    let with_agent = || doctor(&machine).env("SSH_AUTH_SOCK", &socket);
    Checks::of(with_agent()).warning("module.ssh-agent", &["0 of 1 keys"], "devkey agent refresh");
    let refresh = machine.devkey("agent refresh --module").arg(module());
    refresh.env("SSH_AUTH_SOCK", &socket).ok();
    Checks::of(with_agent()).ok("module.ssh-agent", &["has the keys: 1"]);
    machine.devkey("key new other").ok();
    Checks::of(with_agent()).warning("module.ssh-agent", &["1 of 2 keys"], "devkey agent refresh");
    drop(server);
    Checks::of(with_agent()).failed("module.ssh-agent", &["SSH_AUTH_SOCK is set"], "ssh-agent");
}

/// The version that is here takes them or not; another is played by a script. Seen to fail with
/// `ED25519_FROM` (9, 0).
#[test]
fn ed25519_keys_want_a_new_openssh() {
    let machine = Machine::with_key();
    machine.devkey("key new --kind ed25519 curve").ok();
    fs::create_dir(machine.path("bin")).unwrap();
    let said = |version: &str| {
        let ssh = machine.path("bin/ssh");
        fs::write(
            &ssh,
            format!("#!/bin/sh\necho 'OpenSSH_{version} Debian-1, OpenSSL 3.5' >&2\n"),
        )
        .unwrap();
        crate::machine::mode(&ssh, 0o755);
        let path = format!("{}:/usr/bin:/bin", machine.path("bin").display());
        Checks::of(doctor(&machine).env("PATH", path))
    };
    said("9.2p1").warning("module.openssh", &["9.2", "no Ed25519"], "EC P-256");
    said("10.0p2").warning("module.openssh", &["10.0", "no Ed25519"], "10.1");
    said("10.1p1").ok("module.openssh", &["10.1"]);
}
