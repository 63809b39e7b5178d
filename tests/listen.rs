//! `devkeyd --listen` for the processes of one user. Run as root, for other users are in it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

mod common;
#[path = "common/puf.rs"]
mod puf;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::run::{Run, Server};
use common::seed;
use devkey::Error;
use devkey::backends::file;
use devkey::key::{KeyKind, Scheme, Usage};
use devkey::secret::Secret;
use devkey::service::{Link, RemoteToken, TokenPlace};
use devkey::store::{Role, Store};
use devkey::token::{
    DEFAULT_TRIES, KeyRequest, LocalToken, Login, Names, Pin, Pins, Token, TokenRequest,
};
use puf::Chip;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{Uid, set_thread_res_uid};
use tempfile::TempDir;

const DEVKEYD: &str = env!("CARGO_BIN_EXE_devkeyd");
const NOBODY: u32 = 65534;
/// Hello{protocol: 2}.
const HELLO: &[u8] = &[2, 0, 0, 0, 0, 2];

/// The window is gone after the first use, and the key is there for whoever comes later: the command and
/// the module, until the service ends.
///
/// Seen to fail with `backends::puf::BACK_END` in devkeyd.
#[test]
fn a_scrubbed_window_serves_all_processes_of_the_service() {
    let machine = Machine::new();
    let at_boot = machine.chip.cells();
    let service = machine.listen();
    machine.key("one").ok();
    assert_ne!(machine.chip.cells(), at_boot, "nothing was overwritten");
    let devkey = machine.key("two").output();
    assert!(devkey.status.success(), "{}", devkey.all());
    machine.sign("one").ok();
    machine.sign("two").ok();
    drop(service);
    machine.sign("one").fails();
    // The next devkeyd finds noise, and says so.
    let _service = machine.listen();
    machine
        .key("three")
        .fails()
        .says(&["does not give the enrolled key back"]);
}

/// The state of things without a service that stays: a process has the key alone.
///
/// Seen to fail with `scrub` in scrub.rs doing nothing.
#[test]
fn without_it_the_second_process_has_no_key() {
    let machine = Machine::new();
    let config = fs::read_to_string(machine.path("devkey.toml")).unwrap();
    let start = config.find("socket").unwrap();
    let end = start + config[start..].find('\n').unwrap();
    let alone = [&config[..start], &config[end..]].concat();
    fs::write(machine.path("devkey.toml"), alone).unwrap();
    machine.key("one").ok();
    machine.key("two").fails();
    machine.sign("one").fails();
}

/// Seen to fail without the comparison of uids in `Listener::accept`.
#[test]
fn another_user_is_not_served() {
    let bench = Bench::new();
    let _service = bench.listen();
    assert!(welcomed(&bench.socket()), "its own user is not served");
    // Whatever the modes are.
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    mode(bench.dir.path(), 0o755);
    assert_eq!(
        bench.socket().metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    mode(&bench.socket(), 0o666);
    let socket = bench.socket();
    let served = std::thread::spawn(move || {
        // Of this thread alone; the socket's peer is the thread that connects.
        let nobody = Uid::from_raw(NOBODY);
        set_thread_res_uid(nobody, nobody, nobody).unwrap();
        welcomed(&socket)
    });
    assert!(!served.join().unwrap());
}

/// Seen to fail without the comparison of uids in meet.rs, and without `check_directory`.
#[test]
fn a_service_of_another_user_is_not_used() {
    let bench = Bench::new();
    fs::set_permissions(bench.dir.path(), Permissions::from_mode(0o755)).unwrap();
    chown(bench.dir.path(), Some(NOBODY), None).unwrap();
    let run = nobody(Run::new("setpriv")).arg(DEVKEYD).arg("--listen");
    let _service = serve(run, &bench.socket(), &bench.dir.path().join("log"));
    let refused = bench.remote().sign(&bench.key(), Scheme::Ecdsa, &[1; 32]);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("belongs to user 65534"), "{refused}");
    // In a place of our own it is no better.
    chown(bench.dir.path(), Some(0), None).unwrap();
    let refused = bench.remote().sign(&bench.key(), Scheme::Ecdsa, &[1; 32]);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("user 65534 listens there"), "{refused}");
}

/// Seen to fail with the opened tokens shared by all connections of devkeyd.
#[test]
fn a_login_is_one_connections() {
    let bench = Bench::new();
    let _service = bench.listen();
    let (one, other) = (bench.remote(), bench.remote());
    one.login(Role::User, &pin("123456"), false).unwrap();
    one.sign(&bench.key(), Scheme::Ecdsa, &[1; 32]).unwrap();
    let refused = other.sign(&bench.key(), Scheme::Ecdsa, &[1; 32]);
    assert!(matches!(refused, Err(Error::LoginRequired)), "{refused:?}");
}

/// Seen to fail without the second `attempt` in `Link::call`, and with `remove` doing nothing.
#[test]
fn a_service_that_ended_may_come_back() {
    let bench = Bench::new();
    let token = bench.remote();
    let tries = || token.tries(Role::User);
    let advice = format!("devkeyd --listen {}", bench.socket().display());
    let absent = tries().unwrap_err().to_string();
    assert!(absent.contains(&advice), "{absent}");
    let service = bench.listen();
    tries().unwrap();
    // One is enough.
    let second = Run::new(DEVKEYD).arg("--listen").arg(bench.socket());
    second.fails().says(&["a service that listens at"]);
    end(service, Signal::KILL);
    assert!(bench.socket().exists());
    let absent = tries().unwrap_err().to_string();
    assert!(absent.contains("nobody listens"), "{absent}");
    let service = bench.listen();
    tries().unwrap();
    end(service, Signal::TERM);
    assert!(!bench.socket().exists(), "the socket was left behind");
    let _service = bench.listen();
    tries().unwrap();
}

/// Seen to fail without `check_owner_and_mode` in listener.rs.
#[test]
fn the_socket_is_in_a_place_of_ones_own() {
    let bench = Bench::new();
    let listen = || Run::new(DEVKEYD).arg("--listen").arg(bench.socket());
    fs::write(bench.socket(), "mine").unwrap();
    listen().fails().says(&["else than a socket"]);
    fs::remove_file(bench.socket()).unwrap();
    fs::set_permissions(bench.dir.path(), Permissions::from_mode(0o1777)).unwrap();
    listen().fails().says(&["others can write it"]);
}

/// A machine with a window of the boot, and a token on it.
struct Machine {
    chip: Chip,
    dir: TempDir,
}

impl Machine {
    fn new() -> Self {
        let (chip, dir) = (Chip::new(), TempDir::new().unwrap());
        chip.state().latched = true;
        let machine = Machine { chip, dir };
        fs::create_dir(machine.path("store")).unwrap();
        let config = format!(
            "store = {:?}\ndevkeyd = {DEVKEYD:?}\nsocket = {:?}\n",
            machine.path("store"),
            machine.path("socket"),
        );
        fs::write(machine.path("devkey.toml"), config).unwrap();
        let mut settings = machine.chip.settings();
        settings.insert("hold".into(), "boot".into());
        settings.insert("scrub".into(), "yes".into());
        let set = |(name, value): (&String, &String)| ["--set".into(), format!("{name}={value}")];
        let settings: Vec<String> = settings.iter().flat_map(set).collect();
        let init = machine.devkey().words("init --back-end puf");
        init.args(&settings).arg("chip").ok();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn listen(&self) -> Server {
        let run = self.run(DEVKEYD).arg("--listen");
        serve(run, &self.path("socket"), &self.path("log"))
    }

    fn run(&self, program: &str) -> Run {
        let config = self.path("devkey.toml");
        Run::new(program)
            .env("DEVKEY_CONFIG", config)
            .dir(self.dir.path())
    }

    fn devkey(&self) -> Run {
        self.run(env!("CARGO_BIN_EXE_devkey"))
    }

    fn key(&self, name: &str) -> Run {
        let run = self.devkey().words("key new --token chip --kind ec-p256");
        run.arg(name)
    }

    fn sign(&self, key: &str) -> Run {
        fs::write(self.path("digest"), [7; 32]).unwrap();
        let run = self.run("pkcs11-tool").arg("--module");
        run.arg(common::module())
            .words("--token-label chip --sign --mechanism ECDSA --label")
            .arg(key)
            .words("--input-file digest --output-file signature")
    }
}

/// A file token with PINs, which the service is asked for.
struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let (user, so) = (pin("123456"), pin("87654321"));
        let request = TokenRequest {
            dir: &dir.path().join("token"),
            label: "token",
            settings: Default::default(),
            pins: Some(Pins {
                user: Some(&user),
                so: Some(&so),
                tries: DEFAULT_TRIES,
            }),
        };
        let token = LocalToken::create(&file::BACK_END, &request).unwrap();
        token.login(Role::User, &user, false).unwrap();
        let key = KeyRequest {
            kind: KeyKind::EcP256,
            usage: Usage::SIGN,
            names: Names::default(),
        };
        token.generate(&key).unwrap();
        let config = format!(
            "[token.token]\ndirectory = {:?}\n",
            dir.path().join("token")
        );
        fs::write(dir.path().join("devkey.toml"), config).unwrap();
        Bench { dir }
    }

    /// `devkeyd` with its configuration.
    fn devkeyd(&self, run: Run) -> Run {
        run.env("DEVKEY_CONFIG", self.dir.path().join("devkey.toml"))
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn listen(&self) -> Server {
        let run = self.devkeyd(Run::new(DEVKEYD)).arg("--listen");
        serve(run, &self.socket(), &self.dir.path().join("log"))
    }

    /// The token over a connection of its own.
    fn remote(&self) -> RemoteToken {
        let link = Arc::new(Link::to(self.socket(), None));
        let store = Store::open(&self.dir.path().join("token")).unwrap();
        RemoteToken::named(store, "token", &TokenPlace::default(), link)
    }

    fn key(&self) -> Arc<devkey::store::KeyRecord> {
        let store = Store::open(&self.dir.path().join("token")).unwrap();
        store.list().unwrap().keys[0].clone()
    }
}

fn pin(digits: &str) -> Pin {
    Pin::new(Secret::new(digits.into())).unwrap()
}

fn nobody(setpriv: Run) -> Run {
    setpriv.words("--reuid 65534 --regid 65534 --clear-groups")
}

/// Starts the service and waits until it serves.
fn serve(run: Run, socket: &Path, log: &Path) -> Server {
    let mut service = run.arg(socket).serve(log);
    let start = Instant::now();
    while UnixStream::connect(socket).is_err() {
        assert!(service.runs(), "{}", service.log());
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{}",
            service.log()
        );
        sleep(Duration::from_millis(10));
    }
    service
}

/// Ends the service by a signal and waits for its end.
fn end(mut service: Server, signal: Signal) {
    let pid = Pid::from_raw(service.id() as i32).unwrap();
    kill_process(pid, signal).unwrap();
    while service.runs() {
        sleep(Duration::from_millis(10));
    }
}

/// Whether a greeting is answered.
fn welcomed(socket: &Path) -> bool {
    let mut stream = UnixStream::connect(socket).unwrap();
    // It may have been closed already.
    let _ = stream.write_all(HELLO);
    matches!(stream.read(&mut [0; 64]), Ok(1..))
}
