//! A machine: its files, its service, its users.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::common::run::{Run, Server};

/// The service's user and the group of who may use the system's tokens, on these machines alone.
pub(crate) const KEEPER: u32 = 991;
pub(crate) const DEVKEY: u32 = 990;
/// Users of every Debian, by name and number.
pub(crate) const WWW_DATA: User = User(33, &[]);
pub(crate) const DAEMON: User = User(1, &[]);
pub(crate) const NOBODY: User = User(65534, &[]);
/// A member of the group, which only the process says: /etc/group has no members.
pub(crate) const MEMBER: User = User(65534, &[9, DEVKEY]);
pub(crate) const ROOT: User = User(0, &[]);

const SETUP: &str = "
set -e
mount -t overlay overlay -o lowerdir=/etc,upperdir=$1/up,workdir=$1/work /etc
mount --bind $1/run /run
mount --bind $1/lib /var/lib
echo devkeyd:x:991: >>/etc/group
echo devkey:x:990: >>/etc/group
echo devkeyd:x:991:991::/:/bin/false >>/etc/passwd
mkdir -p /etc/devkey /run/devkey /var/lib/devkey
chown 991:991 /run/devkey /var/lib/devkey
cp $1/devkey.toml /etc/devkey/
echo ready
exec sleep infinity";

/// A user, and supplementary groups of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User(pub(crate) u32, pub(crate) &'static [u32]);

pub(crate) struct Machine {
    service: Option<Server>,
    space: Server,
    dir: TempDir,
}

impl Machine {
    /// With a service that runs, and tokens with a key `k`: `sys`, and those of which `rules` has a
    /// table.
    pub(crate) fn new(rules: &str) -> Self {
        let mut machine = Self::silent(rules);
        machine.start();
        let tables = rules
            .lines()
            .filter_map(|line| line.strip_prefix("[token."));
        let named = tables.filter_map(|rest| rest.strip_suffix(']'));
        for token in ["sys"]
            .into_iter()
            .chain(named.filter(|name| !name.contains('.')))
        {
            machine.init(token);
            machine.key(token, "k");
        }
        machine
    }

    /// Before the service is started for the first time.
    pub(crate) fn silent(rules: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let mode = |mode| fs::Permissions::from_mode(mode);
        fs::set_permissions(dir.path(), mode(0o755)).unwrap();
        for name in ["up", "work", "run", "lib"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let devkeyd = dir.path().join("devkeyd");
        // The clone may be in a home that is closed to others.
        for (from, name) in [
            (Path::new(env!("CARGO_BIN_EXE_devkeyd")), "devkeyd"),
            (Path::new(env!("CARGO_BIN_EXE_devkey")), "devkey"),
            (crate::common::module(), "module.so"),
        ] {
            let to = dir.path().join(name);
            fs::hard_link(from, &to)
                .or_else(|_| fs::copy(from, &to).map(drop))
                .unwrap();
        }
        fs::write(dir.path().join("digest"), [7; 32]).unwrap();
        fs::write(
            dir.path().join("devkey.toml"),
            format!("devkeyd = {devkeyd:?}\n{rules}"),
        )
        .unwrap();
        let space = Run::new("unshare")
            .words("--mount --propagation private sh -c")
            .args([SETUP, "sh"])
            .arg(dir.path())
            .serve(&dir.path().join("space.log"));
        space.wait_for("ready");
        Machine {
            service: None,
            space,
            dir,
        }
    }

    /// Starts the service as its user.
    pub(crate) fn start(&mut self) {
        self.start_within(4096);
    }

    /// The same, with so many descriptors at most.
    pub(crate) fn start_within(&mut self, descriptors: u32) {
        let limited = self.user(User(KEEPER, &[]), "prlimit");
        let run = limited.arg(format!("--nofile={descriptors}:{descriptors}"));
        let run = run.arg(self.path("devkeyd")).arg("--listen");
        let mut service = run.serve(&self.path("log"));
        let start = Instant::now();
        while UnixStream::connect(self.socket()).is_err() {
            assert!(service.runs(), "{}", service.log());
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{}",
                service.log()
            );
            sleep(Duration::from_millis(5));
        }
        self.service = Some(service);
    }

    /// More for its configuration, which the service then reads.
    pub(crate) fn configure(&mut self, more: &str) {
        let append = self
            .user(ROOT, "sh")
            .args(["-c", "cat >>/etc/devkey/devkey.toml"]);
        append.input(more).ok();
        self.end(Signal::TERM);
        self.start();
    }

    /// Its mount namespace.
    pub(crate) fn space(&self) -> String {
        format!("/proc/{}/ns/mnt", self.space.id())
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.service.as_ref().unwrap().id() as i32).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Stops the service: all of its threads, which takes a moment after the signal.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.pid().as_raw_nonzero());
        let runs = |task: PathBuf| {
            // The state follows the name, which is in parentheses (proc(5)).
            // One that ends just now does not run.
            let stat = fs::read_to_string(task.join("stat"));
            stat.is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.starts_with(" T"))
        };
        let any = || {
            let mut tasks = fs::read_dir(&tasks).unwrap();
            tasks.any(|task| runs(task.unwrap().path()))
        };
        let start = Instant::now();
        while any() {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "it does not stop"
            );
            sleep(Duration::from_millis(1));
        }
    }

    /// Ends the service by a signal.
    pub(crate) fn end(&mut self, signal: Signal) {
        self.signal(signal);
        let mut service = self.service.take().unwrap();
        let start = Instant::now();
        while service.runs() {
            assert!(start.elapsed() < Duration::from_secs(20), "it does not end");
            sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn is_up(&mut self) -> bool {
        self.service.as_mut().unwrap().runs()
    }

    /// The service's socket, as it is seen from outside of the machine.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/devkey/socket")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the service has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// The lines of what was done with a token since the log was `before` long.
    pub(crate) fn deeds(&self, before: usize) -> Vec<String> {
        let log = self.log();
        let lines = log[before..]
            .lines()
            .filter(|line| line.contains(" audit] "));
        lines.map(str::to_owned).collect()
    }

    /// A program as a user of the machine.
    pub(crate) fn user(&self, user: User, program: impl AsRef<std::ffi::OsStr>) -> Run {
        let User(id, groups) = user;
        let groups: Vec<_> = groups.iter().map(u32::to_string).collect();
        let run = Run::new("nsenter")
            .arg(format!("--mount={}", self.space()))
            .args([
                "setpriv",
                "--reuid",
                &id.to_string(),
                "--regid",
                &id.to_string(),
            ]);
        let run = match groups.is_empty() {
            true => run.arg("--clear-groups"),
            false => run.args(["--groups", &groups.join(",")]),
        };
        run.arg(program)
    }

    pub(crate) fn devkey(&self, user: User) -> Run {
        self.user(user, self.path("devkey"))
    }

    pub(crate) fn init(&self, token: &str) {
        self.devkey(ROOT)
            .words("init --system --back-end file")
            .arg(token)
            .ok();
    }

    pub(crate) fn key(&self, token: &str, label: &str) {
        let new = self.devkey(ROOT).words("key new --kind ec-p256 --token");
        new.args([token, label]).ok();
    }

    /// The id of a key.
    pub(crate) fn id(&self, token: &str, label: &str) -> String {
        let (path, _) = self.record(token, label);
        path.file_stem().unwrap().to_str().unwrap().to_owned()
    }

    fn record(&self, token: &str, label: &str) -> (PathBuf, String) {
        let files = fs::read_dir(self.path("lib/devkey").join(token)).unwrap();
        let paths = files.map(|entry| entry.unwrap().path());
        let keys = paths.filter(|path| path.extension().is_some_and(|e| e == "key"));
        let mut records = keys.map(|path| (path.clone(), fs::read_to_string(path).unwrap()));
        let label = format!("label = {label:?}\n");
        records.find(|(_, text)| text.contains(&label)).unwrap()
    }

    pub(crate) fn pkcs11(&self, user: User, token: &str) -> Run {
        self.user(user, "pkcs11-tool")
            .arg("--module")
            .arg(self.path("module.so"))
            .args(["--token-label", token])
    }

    /// Signs by the module; the tool finds keys by their CKA_ID alone.
    pub(crate) fn sign(&self, user: User, token: &str, key: &str) -> Run {
        let (_, record) = self.record(token, key);
        let id = record
            .lines()
            .find_map(|line| line.strip_prefix("cka_id = "));
        self.pkcs11(user, token)
            .args(["--sign", "--mechanism", "ECDSA", "--id"])
            .args([id.unwrap().trim_matches('"'), "--input-file"])
            .arg(self.path("digest"))
            .args(["--output-file", "/dev/null"])
    }

    /// Numbers of the service's descriptors and threads, and its memory in KiB. The directory of a token
    /// that is in use may be open or not, and twice while it is opened anew.
    pub(crate) fn size(&self) -> [usize; 3] {
        let of =
            |name: &str| PathBuf::from(format!("/proc/{}/{name}", self.pid().as_raw_nonzero()));
        let entries = |name| fs::read_dir(of(name)).unwrap();
        let links = entries("fd").filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        let is_store = |link: &PathBuf| link.to_string_lossy().contains("lib/devkey/");
        let (stores, other): (Vec<_>, Vec<_>) = links.partition(is_store);
        let tokens = fs::read_dir(self.path("lib/devkey")).unwrap().count();
        assert!(stores.len() <= 2 * tokens, "{stores:?}");
        let status = fs::read_to_string(of("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = line.unwrap().split_whitespace().next().unwrap();
        [
            other.len(),
            entries("task").count(),
            memory.parse().unwrap(),
        ]
    }
}
