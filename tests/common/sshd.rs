//! A throw-away sshd on the loopback address, and the ssh that logs in to it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::device::Device;
use super::run::{Run, Server, free_ports};

/// sshd with directives of the test's own.
pub(crate) struct Sshd {
    server: Server,
    port: u16,
}

/// ssh-agent with its socket.
pub(crate) struct Agent {
    server: Server,
    socket: PathBuf,
}

impl Sshd {
    /// Starts sshd with a host key from a file.
    pub(crate) fn new(device: &Device, directives: &str) -> Self {
        let host = device.path("host");
        make_key(device, &host);
        let directives = format!("HostKey {}\n{directives}", host.display());
        Self::with_host_key(device, &directives, &host.with_extension("pub"))
    }

    /// Starts sshd; `directives` name a host key whose public half is in the file `public`.
    pub(crate) fn with_host_key(device: &Device, directives: &str, public: &Path) -> Self {
        let port = free_ports(1);
        let config = device.path("sshd_config");
        fs::write(
            &config,
            format!("{}{directives}\n", FIXED.replace("PORT", &port.to_string())),
        )
        .unwrap();
        let known = format!("[127.0.0.1]:{port} {}", fs::read_to_string(public).unwrap());
        fs::write(device.path("known_hosts"), known).unwrap();
        let server = sshd(device)
            .arg("-f")
            .arg(&config)
            .serve_on(port, &device.path("sshd.log"));
        Sshd { server, port }
    }

    /// A login that runs `echo` on the other side; the test adds how to authenticate.
    pub(crate) fn login(&self, device: &Device) -> Run {
        self.login_as(device, "BatchMode=yes")
    }

    /// A login that answers every question with `answer`, which gives a PIN to a module.
    pub(crate) fn login_answering(&self, device: &Device, answer: &str) -> Run {
        self.login_as(device, "BatchMode=no")
            .env("SSH_ASKPASS", askpass(device, answer))
            .env("SSH_ASKPASS_REQUIRE", "force")
    }

    fn login_as(&self, device: &Device, batch: &str) -> Run {
        let known = format!(
            "UserKnownHostsFile={}",
            device.path("known_hosts").display()
        );
        device
            .run("ssh")
            .args(["-F", "none", "-p", &self.port.to_string(), "-o", &known])
            .args(["-o", batch])
            .args(OPTIONS.split_whitespace().flat_map(|option| ["-o", option]))
    }

    /// Destination and command: the end of a [`Sshd::login`].
    pub(crate) fn destination() -> [String; 3] {
        let user = Run::new("id").arg("-un").ok().text();
        [
            format!("{}@127.0.0.1", user.trim()),
            "echo".into(),
            WELCOME.into(),
        ]
    }

    /// What sshd has said.
    pub(crate) fn log(&self) -> String {
        self.server.log()
    }

    /// Waits until sshd has said `text`.
    pub(crate) fn wait_for(&self, text: &str) {
        self.server.wait_for(text);
    }
}

/// What a successful login prints.
pub(crate) const WELCOME: &str = "welcome-by-key";

impl Agent {
    /// An agent that takes the module.
    pub(crate) fn new(device: &Device) -> Self {
        Self::allowing(device, super::module().to_str().unwrap())
    }

    /// An agent that takes the providers that match `pattern`.
    pub(crate) fn allowing(device: &Device, pattern: &str) -> Self {
        Self::start(device, device.run("ssh-agent"), pattern)
    }

    /// Another program than this machine's ssh-agent.
    pub(crate) fn of(device: &Device, program: Run) -> Self {
        Self::start(device, program, super::module().to_str().unwrap())
    }

    fn start(device: &Device, program: Run, pattern: &str) -> Self {
        let socket = device.path("agent");
        let server = program
            .args(["-D", "-P", pattern, "-a"])
            .arg(&socket)
            .serve(&device.path("agent.log"));
        server.wait_for("SSH_AUTH_SOCK");
        Agent { server, socket }
    }

    /// `ssh-add`, answering every question with nothing.
    pub(crate) fn add(&self, device: &Device) -> Run {
        device
            .run("ssh-add")
            .env("SSH_AUTH_SOCK", &self.socket)
            .env("SSH_ASKPASS", "/bin/true")
            .env("SSH_ASKPASS_REQUIRE", "force")
    }

    /// `ssh-add`, answering every question with `answer`.
    pub(crate) fn add_answering(&self, device: &Device, answer: &str) -> Run {
        self.add(device).env("SSH_ASKPASS", askpass(device, answer))
    }

    /// The agent's socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

/// A program that prints `answer`.
fn askpass(device: &Device, answer: &str) -> PathBuf {
    let path = device.path(format!("askpass-{answer}"));
    fs::write(&path, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Makes a plain key in a file, in place of one that was there.
pub(crate) fn make_key(device: &Device, path: &Path) {
    let _ = fs::remove_file(path);
    device
        .run("ssh-keygen")
        .words("-q -t ed25519 -f")
        .arg(path)
        .args(["-N", ""])
        .ok();
}

const OPTIONS: &str = "StrictHostKeyChecking=yes GlobalKnownHostsFile=/dev/null \
    PreferredAuthentications=publickey ConnectTimeout=30";

const FIXED: &str = "Port PORT
ListenAddress 127.0.0.1
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
LogLevel VERBOSE
";

/// sshd run by root insists on /run/sshd: where it is missing it gets a /run of its own, or, in a
/// container that allows no mounts, the directory is made as Debian makes it at every boot.
fn sshd(device: &Device) -> Run {
    let program = "/usr/sbin/sshd";
    let missing = rustix::process::geteuid().is_root() && !Path::new("/run/sshd").is_dir();
    if missing && may_mount() {
        let script = format!(
            "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec {program} -D -e \"$@\""
        );
        return device
            .run("unshare")
            .args(["--mount", "sh", "-c", &script, "sshd"]);
    }
    if missing {
        fs::create_dir_all("/run/sshd").unwrap();
    }
    device.run(program).args(["-D", "-e"])
}

fn may_mount() -> bool {
    Run::new("unshare")
        .args(["--mount", "true"])
        .output()
        .status
        .success()
}
