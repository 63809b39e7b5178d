//! What `make install` gives to systemd, by systemd's own programs; tests/vm boots them. Run as root, for
//! there are users in it.

#![cfg(test)]

mod common;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::system::KEEPER;
use common::{Backend, Device, Run, System};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The services, what `systemd-analyze security` may say of each at most, of 100, and where that is stated.
const EXPOSURE: [(&str, &str, &str); 3] = [
    ("devkeyd.service", "10", "docs/service.md"),
    ("devkey-sshd-agent.service", "5", "docs/sshd.md"),
    ("devkey-renew.service", "28", "docs/certificates.md"),
];

/// Seen to fail with `User` misspelt in a service.
#[test]
fn systemd_takes_the_units() {
    let root = Root::new();
    let said = root.verify(&root.units()).ok().all();
    assert_eq!(said, "");
}

/// And the documents say what systemd says.
///
/// Seen to fail without `SystemCallFilter`, and with another number in docs/service.md.
#[test]
fn the_services_are_shut_in() {
    let root = Root::new();
    for (unit, most, document) in EXPOSURE {
        let analyze = root.analyze("security").arg("--offline=true");
        let said = analyze
            .args(["--threshold", most])
            .arg(root.unit(unit))
            .ok()
            .text();
        let (_, level) = said.rsplit_once(&format!("{unit}: ")).unwrap();
        let level = level.split_whitespace().next().unwrap();
        let stated = format!("says {level} of 10");
        assert!(read(document).contains(&stated), "{document}: {stated}");
    }
}

/// The drop-ins of the documents, each on the unit that it is for.
///
/// Seen to fail with `LoadCredential` misspelt in docs/pins.md.
#[test]
fn systemd_takes_what_the_documents_add() {
    let root = Root::new();
    let stub = "[Service]\nExecStart=/bin/true\n";
    fs::write(root.unit("nginx.service"), stub).unwrap();
    let mut tried = 0;
    for document in ["docs/pins.md", "docs/sshd.md", "docs/puf-device.md"] {
        for example in read(document)
            .split("```ini\n# /etc/systemd/system/")
            .skip(1)
        {
            let (name, example) = example.split_once('\n').unwrap();
            let (example, _) = example.split_once("```").unwrap();
            let file = root.unit(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, example.replace("/usr/bin/devkey", "/bin/true")).unwrap();
            let unit = name.split(".d/").next().unwrap();
            let said = root.verify(&[root.unit(unit)]).ok().all();
            assert_eq!(said, "", "{document}: {name}");
            fs::remove_file(file).unwrap();
            tried += 1;
        }
    }
    assert!(tried >= 6, "{tried}");
}

/// A machine that starts for the first time enables what it finds, unless a preset says otherwise.
///
/// Seen to fail without packaging/systemd/devkey.preset.
#[test]
fn sshds_agent_is_not_enabled_by_being_there() {
    let root = Root::new();
    root.systemd("systemctl").arg("preset-all").ok();
    let enabled = |unit: &str| {
        root.systemd("systemctl")
            .args(["is-enabled", unit])
            .output()
            .text()
    };
    assert_eq!(enabled("devkeyd.socket").trim(), "enabled");
    assert_eq!(enabled("devkey-sshd-agent.socket").trim(), "disabled");
}

/// Seen to fail without a line `m`, and with root as the owner of the store.
#[test]
fn users_and_directories_are_made() {
    let root = Root::new();
    root.systemd("systemd-sysusers").ok();
    let accounts = |file: &str| fs::read_to_string(root.path(&format!("etc/{file}"))).unwrap();
    let (users, groups) = (accounts("passwd"), accounts("group"));
    let line = |all: &str, name: &str| {
        let mut lines = all.lines();
        let found = lines.find(|line| line.starts_with(&format!("{name}:")));
        found
            .map(str::to_owned)
            .unwrap_or_else(|| panic!("no {name} in {all}"))
    };
    let devkeyd = line(&users, "devkeyd");
    assert!(devkeyd.ends_with("nologin"), "{devkeyd}");
    let agent = line(&users, "devkey-sshd");
    assert!(agent.ends_with("nologin"), "{agent}");
    for group in ["tss", "devkey-puf"] {
        let members = line(&groups, group);
        assert!(members.ends_with(":devkeyd"), "{members}");
    }
    // Who is in these may do things.
    for group in ["devkey", "devkeyd", "devkey-sshd"] {
        let members = line(&groups, group);
        assert!(members.ends_with(':'), "{members}");
    }
    root.systemd("systemd-tmpfiles").arg("--create").ok();
    let id = |line: &str| line.split(':').nth(2).unwrap().parse::<u32>().unwrap();
    let store = root.path("var/lib/devkey").metadata().unwrap();
    let group = id(&line(&groups, "devkeyd"));
    assert_eq!((store.uid(), store.gid()), (id(&devkeyd), group));
    assert_eq!(store.permissions().mode() & 0o7777, 0o755);
    let run = root.path("run/devkey").metadata().unwrap();
    assert_eq!((run.uid(), run.permissions().mode() & 0o7777), (0, 0o755));
}

/// Seen to fail with the service's path as it is in the source, and without `rm` of the units.
#[test]
fn they_are_installed_for_the_prefix_and_go_again() {
    let root = Root::new();
    for (unit, program) in [
        ("devkeyd.service", "libexec/devkey/devkeyd"),
        ("devkey-sshd-agent.service", "bin/devkey"),
    ] {
        let unit = fs::read_to_string(root.unit(unit)).unwrap();
        for key in ["ExecStart", "ExecPaths"] {
            let begin = format!("{key}={} ", root.prefix().join(program).display());
            assert!(unit.contains(&begin), "no {begin:?} in {unit}");
        }
        assert!(
            !unit.contains("=/usr/libexec") && !unit.contains("=/usr/bin"),
            "{unit}"
        );
    }
    root.make("uninstall").ok();
    let left = Run::new("find").arg(root.prefix()).words("-type f").ok();
    assert_eq!(left.text(), "");
}

/// Seen to fail with `use = "www-data"`, which is no list.
#[test]
fn the_examples_of_configurations_are_right() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("devkey.toml");
    for document in ["docs/service.md", "docs/devkey.toml.md"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
        let text = fs::read_to_string(path).unwrap();
        let examples: Vec<_> = text.split("```toml\n").skip(1).collect();
        assert!(!examples.is_empty(), "{document}");
        for example in examples {
            let (example, _) = example.split_once("```").unwrap();
            fs::write(&config, example).unwrap();
            let check = Run::new(env!("CARGO_BIN_EXE_devkey")).words("config check");
            let said = check.env("DEVKEY_CONFIG", &config).output();
            // Neither are the tokens there, nor all of the paths.
            let all = said.all();
            let mut errors = all.lines().filter(|line| line.contains("devkey.toml:"));
            let wrong = errors.find(|line| !line.contains("there is no token"));
            assert_eq!(wrong, None, "{document}: {example}");
        }
    }
}

/// The first client starts it; who comes while it is restarted waits, and is served.
///
/// systemd-socket-activate hands over a socket that it was itself handed; here the test is process 1.
/// Seen to fail with a service that binds a socket of its own where one was passed.
#[test]
fn the_first_client_starts_it_and_no_client_is_refused() {
    let mut system = System::new(Backend::Tpm, false, "");
    let device = &system.device;
    device.key("ec-p256", "key");
    let pid = Pid::from_raw(system.service().id() as i32).unwrap();
    end(pid, || system.service().runs());
    let socket = system.socket();
    assert!(!socket.exists());
    let listener = OwnedFd::from(UnixListener::bind(&socket).unwrap());
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    for _ in 0..3 {
        let mut service = Activated::new(&system, &listener);
        sign(&system.device);
        let status = fs::read_to_string(format!("/proc/{}/status", service.0.id())).unwrap();
        let user = format!("Uid:\t{KEEPER}\t{KEEPER}\t{KEEPER}\t{KEEPER}\n");
        assert!(
            status.contains(&user) && status.contains("Name:\tdevkeyd"),
            "{status}"
        );
        // By a unit of systemd it is killed after a time; it goes by itself.
        let pid = Pid::from_raw(service.0.id() as i32).unwrap();
        end(pid, || service.runs());
        assert!(socket.exists(), "the socket is not its own");
    }
    nothing_is_left_in_the_tpm(&system.device);
    // Nobody is there, and the client waits.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| sign(&system.device));
        sleep(Duration::from_millis(500));
        assert!(!waiting.is_finished());
        let _service = Activated::new(&system, &listener);
        waiting.join().unwrap();
    });
}

fn sign(device: &Device) {
    let input = device.path("digest");
    fs::write(&input, [7; 32]).unwrap();
    let run = device
        .pkcs11_tool()
        .words("--sign --mechanism ECDSA --label key");
    run.arg("--input-file")
        .arg(input)
        .args(["--output-file", "/dev/null"])
        .ok();
}

/// Handles that a service leaves in a TPM without a resource manager are there for ever.
fn nothing_is_left_in_the_tpm(device: &Device) {
    for kind in [
        "handles-transient",
        "handles-loaded-session",
        "handles-saved-session",
    ] {
        let tool = device
            .run("tpm2_getcap")
            .args(["-T", device.tcti().unwrap()]);
        assert_eq!(tool.arg(kind).ok().text(), "", "{kind}");
    }
}

/// Ends a process by SIGTERM, and waits for its end.
fn end(pid: Pid, mut runs: impl FnMut() -> bool) {
    kill_process(pid, Signal::TERM).unwrap();
    let start = Instant::now();
    while runs() {
        assert!(start.elapsed() < Duration::from_secs(10), "it does not end");
        sleep(Duration::from_millis(10));
    }
}

/// devkeyd by systemd-socket-activate, which becomes it when the first client comes.
struct Activated(Child);

impl Activated {
    fn new(system: &System, listener: &OwnedFd) -> Self {
        let keeper = KEEPER.to_string();
        // The number of the socket, and whose it is, as sd_listen_fds(3) wants them.
        let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
        let log = fs::File::create(system.device.path("activated.log")).unwrap();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &keeper, "--regid", &keeper, "--clear-groups"])
            .args(["sh", "-c", script, "sh", "systemd-socket-activate"])
            .arg("--setenv")
            .arg(format!(
                "DEVKEY_CONFIG={}",
                system.device.config().display()
            ))
            .args([env!("CARGO_BIN_EXE_devkeyd"), "--listen"])
            .stdin(Stdio::from(listener.try_clone().unwrap()))
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0);
        Activated(command.spawn().unwrap())
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file of the repository.
fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// A directory that the units were installed into, with a devkeyd where they have it.
struct Root(TempDir);

impl Root {
    fn new() -> Self {
        let root = Root(TempDir::new().unwrap());
        root.make("install-units").ok();
        // Not copies: hundreds of megabytes, for systemd to see that there is a program.
        for (place, program) in [
            ("libexec/devkey/devkeyd", env!("CARGO_BIN_EXE_devkeyd")),
            ("bin/devkey", env!("CARGO_BIN_EXE_devkey")),
        ] {
            let place = root.prefix().join(place);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(program, place).unwrap();
        }
        fs::create_dir(root.path("etc")).unwrap();
        root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn prefix(&self) -> PathBuf {
        self.path("usr")
    }

    fn unit(&self, name: &str) -> PathBuf {
        self.prefix().join("lib/systemd/system").join(name)
    }

    fn units(&self) -> Vec<PathBuf> {
        let all = fs::read_dir(self.unit("")).unwrap();
        all.map(|entry| entry.unwrap().path()).collect()
    }

    fn verify(&self, units: &[PathBuf]) -> Run {
        self.analyze("verify").arg("--man=no").args(units)
    }

    fn make(&self, goal: &str) -> Run {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let prefix = format!("PREFIX={}", self.prefix().display());
        Run::new("make").dir(repository).args(["-s", goal, &prefix])
    }

    fn analyze(&self, verb: &str) -> Run {
        Run::new("systemd-analyze").arg(verb)
    }

    /// A program of systemd that works below another root.
    fn systemd(&self, program: &str) -> Run {
        Run::new(program).arg(format!("--root={}", self.0.path().display()))
    }
}
