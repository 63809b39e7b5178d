//! A machine with an sshd of its own: /etc/ssh, /run and nothing else are its, in a namespace of mounts that
//! each of its programs makes for itself. No systemd runs there, so that the tests do what remains.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use devkey::config::parts_dir;
use rustix::process::{Pid, Signal, kill_process};

use crate::common::sshd::{WELCOME, make_key};
use crate::common::{Backend, Device, Output, Run, Server, System, free_ports};

/// As whom the agent runs: a number that no account has.
pub(crate) const AGENT: u32 = 992;

/// A machine with a token of its key service.
pub(crate) struct Machine {
    sshd: Option<Server>,
    agent: Option<Server>,
    pub(crate) system: System,
    pub(crate) port: u16,
}

impl Machine {
    /// With Debian's configuration of sshd, and the host keys that Debian makes.
    pub(crate) fn new(backend: Backend) -> Self {
        Self::with(backend, false, "")
    }

    pub(crate) fn with(backend: Backend, pins: bool, rules: &str) -> Self {
        let system = System::new(backend, pins, rules);
        let machine = Machine {
            sshd: None,
            agent: None,
            system,
            port: free_ports(1),
        };
        for dir in [
            "ssh",
            "ssh/sshd_config.d",
            "slash-run",
            "slash-run/sshd",
            "slash-run/devkey-sshd",
        ] {
            fs::create_dir(machine.path(dir)).unwrap();
        }
        machine.configure("");
        for kind in ["rsa", "ecdsa", "ed25519"] {
            let file = machine.path(&format!("ssh/ssh_host_{kind}_key"));
            let make = Run::new("ssh-keygen").args(["-q", "-N", "", "-t", kind, "-f"]);
            make.arg(file).ok();
        }
        make_key(machine.device(), &machine.path("user"));
        machine
    }

    pub(crate) fn device(&self) -> &Device {
        &self.system.device
    }

    /// A file; the machine has `ssh` as /etc/ssh.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.device().path(name)
    }

    /// Debian's configuration, with lines before it.
    pub(crate) fn configure(&self, first: &str) {
        let debian = fs::read_to_string("/usr/share/openssh/sshd_config").unwrap();
        let own = format!(
            "{first}\nPort {}\nListenAddress 127.0.0.1\nPidFile none\nStrictModes no\nUsePAM no\n\
             AuthorizedKeysFile {}\nLogLevel VERBOSE\n",
            self.port,
            self.path("user.pub").display()
        );
        fs::write(self.path("ssh/sshd_config"), format!("{own}{debian}")).unwrap();
    }

    /// A program that sees this machine's /etc/ssh and /run.
    pub(crate) fn inside(&self, program: impl AsRef<Path>) -> Run {
        let (ssh, run) = (self.path("ssh"), self.path("slash-run"));
        let script = format!(
            "mount --bind '{}' /etc/ssh && mount --bind '{}' /run && exec \"$@\"",
            ssh.display(),
            run.display()
        );
        let run = self.device().run("unshare");
        run.args(["--mount", "sh", "-c", &script, "sh"])
            .arg(program.as_ref())
    }

    /// `devkey sshd` by root.
    pub(crate) fn command(&self, verb: &str) -> Run {
        let run = self
            .inside(env!("CARGO_BIN_EXE_devkey"))
            .args(["sshd", verb]);
        match verb {
            "disable" => run,
            _ => run.args(["--user", &AGENT.to_string()]),
        }
    }

    pub(crate) fn enable(&self) -> Run {
        self.command("enable").args(["--token", Device::TOKEN])
    }

    /// What remains to be done after `enable` where no systemd runs: the service reads its configuration, the
    /// agent is started, sshd reads its own.
    pub(crate) fn finish(&mut self) {
        self.system.stop();
        self.system.start();
        self.start_agent(&[]);
        self.reload();
    }

    /// By the line of its unit, at a socket that is passed.
    pub(crate) fn start_agent(&mut self, environment: &[(&str, &Path)]) {
        self.agent = None;
        let socket = self.path("slash-run/devkey-sshd/agent");
        let _ = fs::remove_file(&socket);
        let unit = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/packaging/systemd/devkey-sshd-agent.service"
        );
        let unit = fs::read_to_string(unit).unwrap();
        let line = unit
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="))
            .unwrap();
        let line = line.replace("/usr/bin/devkey", env!("CARGO_BIN_EXE_devkey"));
        let user = AGENT.to_string();
        let mut run = self
            .inside("sh")
            .args([
                "-c",
                "umask 077; exec \"$@\"",
                "sh",
                "systemd-socket-activate",
            ])
            .arg("--listen=/run/devkey-sshd/agent")
            .arg(format!(
                "--setenv=DEVKEY_CONFIG={}",
                self.device().config().display()
            ));
        for (name, value) in environment {
            run = run.arg(format!("--setenv={name}={}", value.display()));
        }
        run = run.args(["setpriv", "--reuid", &user, "--regid", &user]);
        run = run.words("--clear-groups --no-new-privs").words(&line);
        let server = run.serve(&self.path("agent.log"));
        server.wait_for("Listening on");
        self.agent = Some(server);
    }

    /// Has the agent pause, or go on; who connects meanwhile waits.
    pub(crate) fn signal_agent(&self, signal: Signal) {
        let agent = self.agent.as_ref().unwrap();
        kill_process(Pid::from_raw(agent.id() as i32).unwrap(), signal).unwrap();
    }

    pub(crate) fn stop_agent(&mut self) {
        self.agent = None;
    }

    pub(crate) fn agent_log(&self) -> String {
        self.agent.as_ref().unwrap().log()
    }

    pub(crate) fn start_sshd(&mut self) {
        let run = self.inside("/usr/sbin/sshd").args(["-D", "-e"]);
        self.sshd = Some(run.serve_on(self.port, &self.path("sshd.log")));
    }

    /// What ssh.service does to have it read its configuration; it starts itself anew.
    pub(crate) fn reload(&mut self) {
        let Some(sshd) = &self.sshd else {
            return;
        };
        let heard = sshd.log().matches("Server listening").count();
        let pid = Pid::from_raw(sshd.id() as i32).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
        let start = std::time::Instant::now();
        while sshd.log().matches("Server listening").count() == heard {
            assert!(start.elapsed().as_secs() < 20, "{}", sshd.log());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// A client that knows what is in the file `known`, and changes it as `update` says.
    pub(crate) fn visit(&self, known: &Path, options: &[&str]) -> Output {
        let name = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        let alias = format!("HostKeyAlias=[{name}]:{}", self.port);
        let known = format!("UserKnownHostsFile={}", known.display());
        let mut run = self.device().run("ssh").args(["-v", "-F", "none", "-p"]);
        run = run
            .arg(self.port.to_string())
            .args(["-o", &known, "-o", &alias]);
        let fixed =
            "BatchMode=yes GlobalKnownHostsFile=/dev/null IdentityAgent=none ConnectTimeout=30";
        for option in fixed.split(' ').chain(options.iter().copied()) {
            run = run.args(["-o", option]);
        }
        run = run.arg("-i").arg(self.path("user"));
        run.args(["root@127.0.0.1", "echo", WELCOME]).output()
    }

    /// It gets in, shown a host key, or certificate, of this type.
    pub(crate) fn welcomes(&self, known: &Path, options: &[&str], key_type: &str) {
        let strict = [&["StrictHostKeyChecking=yes"], options].concat();
        let output = self.visit(known, &strict);
        assert!(output.status.success(), "{output}");
        let what = match key_type.contains("-cert-") {
            true => "certificate",
            false => "key",
        };
        output.says(&[WELCOME, &format!("Server host {what}: {key_type} ")]);
    }

    /// It turns away, or is let down.
    pub(crate) fn loses(&self, known: &Path) -> Output {
        let output = self.visit(known, &["StrictHostKeyChecking=yes"]);
        assert!(!output.status.success(), "{output}");
        output
    }

    /// What `enable` printed, as a client's file.
    pub(crate) fn known_hosts(&self, enabled: &Output) -> PathBuf {
        let file = self.path("known-by-the-line");
        fs::write(&file, enabled.text()).unwrap();
        file
    }

    /// All that `enable` may change, with what is in it.
    pub(crate) fn state(&self) -> String {
        let mut state = fs::read_to_string(self.device().config()).unwrap();
        let parts = parts_dir(&self.device().config());
        state += &format!("parts: {}\n", parts.exists());
        let mut files: Vec<_> = [self.path("ssh"), self.path("ssh/sshd_config.d"), parts]
            .iter()
            .flat_map(|dir| fs::read_dir(dir).into_iter().flatten())
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        for file in files {
            let text = fs::read_to_string(&file).unwrap_or_default();
            state += &format!("{}: {text}\n", file.display());
        }
        state
            + &self
                .device()
                .devkey()
                .words("key list --json")
                .output()
                .text()
    }
}

/// A file that nobody else can read.
pub(crate) fn secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
}
