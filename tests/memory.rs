//! Roots and keys never enter an application that uses them through the key service: the memory of
//! ssh, nginx and curl is searched while they sign and afterwards. In the in-process mode they are found
//! there. Run as root, which may read the memory of others.
#![cfg(test)]
#![cfg(feature = "simulate")]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use common::nginx::{curl, nginx};
use common::sshd::Sshd;
use common::system::KEEPER;
use common::tls::{Ca, Engine};
use common::{Backend, Device, Key, Run, Server, System, module};
use devkey::fuzzy::{self, Helper};
use devkey::secret::Secret;
use devkey::store::Store;
use p256::elliptic_curve::sec1::ToSec1Point;
use rustix::process::{Pid, Signal, kill_process};

/// Searches of a worker's memory in the middle of its work, where nothing is to be found.
const SEARCHES: usize = 40;
/// How long a search that must find something goes on.
const PATIENCE: Duration = Duration::from_secs(60);

/// Seen to fail on a device as of [`shared`].
#[test]
fn nothing_of_a_file_token_is_in_its_clients() {
    let system = System::new(Backend::File, false, "use = ['www-data']");
    let found = in_all_clients(&system);
    // Opened keys stay in the service. The root does not.
    let scalar = ["scalar, big-endian", "scalar, little-endian"];
    assert!(scalar.iter().any(|name| found.contains(name)), "{found:?}");
    assert!(!found.contains("root"), "{found:?}");
}

/// Seen to fail on a device as of [`shared`].
#[test]
fn nothing_of_a_puf_token_is_in_its_clients() {
    let system = System::new(Backend::Puf, false, "use = ['www-data']");
    let found = in_all_clients(&system);
    assert!(found.is_empty(), "kept in devkeyd: {found:?}");
}

/// A key that is open in a process is in its memory.
#[test]
fn a_key_in_process_is_found_in_each_client() {
    let device = shared(Backend::File);
    let key = device.key("ec-p256", "key");
    let secrets = secrets(&device, &key);
    let any = |found: &Found| !found.is_empty();
    for (client, found) in [
        ("ssh", in_ssh(&device, &key, &secrets)),
        ("nginx", in_nginx(&device, &key, &secrets, Some(&any))),
        ("curl", in_curl(&device, &key, &secrets, device.run("env"))),
    ] {
        assert!(
            found.contains("scalar, little-endian"),
            "{client}: {found:?}"
        );
    }
}

/// And so is the root, for the moment of its use: here, when its file is being closed.
#[test]
fn a_files_root_in_process_is_found_while_it_is_read() {
    let device = shared(Backend::File);
    let key = device.key("ec-p256", "key");
    let secrets = secrets(&device, &key);
    let slow = slowly(&device);
    let found = in_curl(&device, &key, &secrets, slow);
    assert!(found.contains("root"), "{found:?}");
}

/// A PUF's root lasts for a fraction of a signature, the key made of it for the rest: here, while the
/// signature waits for random bytes.
#[test]
fn a_pufs_key_in_process_is_found_while_it_signs() {
    let device = shared(Backend::Puf);
    let key = device.key("ec-p256", "key");
    let secrets = secrets(&device, &key);
    let slow = strace(&device).words("-e trace=getrandom -e inject=getrandom:delay_enter=400000");
    let found = in_curl(&device, &key, &secrets, slow);
    assert!(found.contains("scalar, little-endian"), "{found:?}");
}

/// What was found.
type Found = BTreeSet<&'static str>;

/// A secret, and its name.
type Secrets = [(&'static str, Vec<u8>); 3];

/// A device whose workers of nginx use its token in their own processes.
fn shared(backend: Backend) -> Device {
    let device = Device::new(backend);
    device.share_with("www-data");
    device
}

/// Uses a key by ssh, nginx and curl, which must hold nothing of it; gives what the service holds then.
fn in_all_clients(system: &System) -> Found {
    let device = &system.device;
    let key = device.key("ec-p256", "key");
    let secrets = secrets(device, &key);
    for (client, found) in [
        ("ssh", in_ssh(device, &key, &secrets)),
        ("nginx", in_nginx(device, &key, &secrets, None)),
        ("curl", in_curl(device, &key, &secrets, device.run("env"))),
        ("strace", in_curl(device, &key, &secrets, slowly(device))),
    ] {
        assert!(found.is_empty(), "in {client}: {found:?}");
    }
    // They did use it, through the service.
    let log = system.log();
    for program in ["(ssh)", "(nginx)", "(curl)"] {
        let signed = |line: &str| line.contains("do=sign") && line.contains(program);
        assert!(log.lines().any(signed), "{program} has not signed: {log}");
    }
    let service = system.pid();
    search(service, &secrets)
}

/// ssh with the key: while it logs in, and while its session is open.
fn in_ssh(device: &Device, key: &Key, secrets: &Secrets) -> Found {
    // sshd asks for the key before ssh signs and again after that: ssh waits with the module loaded.
    let answer = device.path("answer");
    let line = key.ssh_line();
    fs::write(&answer, format!("sleep 1\necho '{line}'\n")).unwrap();
    let sshd = Sshd::new(
        device,
        &format!(
            "AuthorizedKeysFile none\nAuthorizedKeysCommandUser root\n\
             AuthorizedKeysCommand /bin/sh {}\n",
            answer.display()
        ),
    );
    let [user, ..] = Sshd::destination();
    let ssh = sshd.login(device).words("-o IdentityAgent=none -I");
    let ssh = ssh.arg(module()).arg(user).words("sleep 30");
    let mut ssh = ssh.serve(&device.path("ssh.log"));
    let (mut found, start) = (Found::new(), Instant::now());
    while !sshd.log().contains("Accepted publickey") {
        assert!(ssh.runs() && start.elapsed() < PATIENCE, "{}", sshd.log());
        found.extend(search(ssh.id(), secrets));
    }
    sleep(Duration::from_millis(500));
    found.extend(search(ssh.id(), secrets));
    assert!(ssh.runs(), "{}", ssh.log());
    found
}

/// nginx's workers: stopped in the midst of their handshakes, [`SEARCHES`] times or until it is `enough`,
/// and idle after them.
fn in_nginx(
    device: &Device,
    key: &Key,
    secrets: &Secrets,
    enough: Option<&dyn Fn(&Found) -> bool>,
) -> Found {
    let ca = Ca::new(device);
    let cert = ca.certify(device, key);
    let conf = format!(
        "ssl_certificate {};\nssl_certificate_key \"engine:pkcs11:{}\";\nssl_verify_client off;",
        cert.display(),
        key.uri
    );
    let run = Engine::Config.env(device, device.run("nginx"));
    let (port, server) = nginx(device, &ca, "", &conf, run);
    let (mut workers, start) = (children(server.id()), Instant::now());
    // It listens before it starts them.
    while workers.len() < 2 {
        assert!(start.elapsed() < PATIENCE, "{}", server.log());
        workers = children(server.id());
    }
    assert_eq!(workers.len(), 2, "{}", server.log());
    let over = AtomicBool::new(false);
    let mut found = Found::new();
    thread::scope(|scope| {
        let load = || {
            while !over.load(Ordering::Relaxed) {
                curl(device, &ca, port).ok();
            }
        };
        scope.spawn(load);
        scope.spawn(load);
        // Told to end also where this panics.
        let _end = End(&over);
        let start = Instant::now();
        for round in 0.. {
            let over = match enough {
                Some(enough) => enough(&found) || start.elapsed() > PATIENCE,
                None => round == SEARCHES,
            };
            if over {
                break;
            }
            for worker in &workers {
                let _stopped = Stopped::new(*worker);
                found.extend(search(*worker, secrets));
            }
            sleep(Duration::from_millis(3));
        }
    });
    for process in workers.iter().chain([&server.id()]) {
        found.extend(search(*process, secrets));
    }
    found
}

/// curl with a client certificate, from its start into a download that is slow; started by `starter`.
fn in_curl(device: &Device, key: &Key, secrets: &Secrets, starter: Run) -> Found {
    let ca = Ca::new(device);
    let (server_key, server_cert) = ca.plain(device, "server");
    let cert = ca.certify(device, key);
    let conf = format!(
        "ssl_certificate {};\nssl_certificate_key {};\nssl_verify_client on;\nlimit_rate 10;",
        server_cert.display(),
        server_key.display()
    );
    let (port, server) = nginx(device, &ca, "", &conf, device.run("nginx"));
    let get = starter
        .words("curl --silent --show-error --noproxy * --engine pkcs11 --key-type ENG --cacert")
        .arg(&ca.cert)
        .args([
            "--cert",
            cert.to_str().unwrap(),
            "--key",
            &key.uri,
            "--no-buffer",
        ])
        .arg(format!("https://localhost:{port}/"));
    let mut get = Engine::Config
        .env(device, get)
        .serve(&device.path("curl.log"));
    let (mut found, start) = (Found::new(), Instant::now());
    // nginx's answer begins with the number of a worker.
    while get.log().is_empty() {
        assert!(get.runs() && start.elapsed() < PATIENCE, "{}", server.log());
        found.extend(search(program(&get), secrets));
    }
    found.extend(search(program(&get), secrets));
    assert!(get.runs(), "it has ended: {}", get.log());
    found
}

/// What runs a program so that it waits when it closes the token's root.
fn slowly(device: &Device) -> Run {
    let root = device.store().join(Device::TOKEN).join("root");
    let waiting = strace(device).arg("-P").arg(root);
    waiting.words("-e trace=close -e inject=close:delay_enter=1000000")
}

/// strace with its words in a file.
fn strace(device: &Device) -> Run {
    let words = device.path("trace");
    device.run("strace").args(["-f", "-o"]).arg(words)
}

/// The process of a program that strace may have started.
fn program(server: &Server) -> u32 {
    children(server.id())
        .first()
        .copied()
        .unwrap_or(server.id())
}

fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    list.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// Which secrets are in the memory that a process can write. One that becomes another program between
/// the look at its maps and that at its memory is looked at again.
fn search(pid: u32, secrets: &Secrets) -> Found {
    let start = Instant::now();
    loop {
        match search_once(pid, secrets) {
            Some(found) => return found,
            None => assert!(start.elapsed() < PATIENCE, "nothing of {pid} was read"),
        }
    }
}

/// `None` where there was something, and nothing of it could be read.
fn search_once(pid: u32, secrets: &Secrets) -> Option<Found> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"));
    let memory = File::open(format!("/proc/{pid}/mem"));
    // One that strace has started for a moment.
    let (Ok(maps), Ok(memory)) = (maps, memory) else {
        return Some(Found::new());
    };
    let (mut found, mut searched) = (Found::new(), 0);
    for line in maps.lines() {
        let Some(bytes) = writable(line, &memory) else {
            continue;
        };
        searched += bytes.len();
        for (name, secret) in secrets {
            if contains(&bytes, secret) {
                found.insert(*name);
            }
        }
    }
    (searched > 0 || maps.is_empty()).then_some(found)
}

/// What is mapped there, if it can be written and read (proc(5), `/proc/pid/maps`).
fn writable(line: &str, memory: &File) -> Option<Vec<u8>> {
    let mut words = line.split_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    if !words.next()?.starts_with("rw") {
        return None;
    }
    let [from, to] = [from, to].map(|number| u64::from_str_radix(number, 16).unwrap());
    let mut bytes = vec![0; (to - from) as usize];
    memory.read_exact_at(&mut bytes, from).ok()?;
    Some(bytes)
}

fn contains(bytes: &[u8], secret: &[u8]) -> bool {
    let first = secret[0];
    let mut places = bytes.iter().enumerate().filter(|(_, byte)| **byte == first);
    places.any(|(at, _)| bytes[at..].starts_with(secret))
}

/// The token's root, and the scalar of a key of EC P-256 both ways round.
fn secrets(device: &Device, key: &Key) -> Secrets {
    let dir = device.store().join(Device::TOKEN);
    let root = match device.chip().exists() {
        true => puf_root(&dir, &device.chip()),
        false => fs::read(dir.join("root")).unwrap(),
    };
    let scalar = scalar(&root, &dir, &key.label);
    let mut reversed = scalar.clone();
    reversed.reverse();
    [
        ("root", root),
        ("scalar, big-endian", scalar),
        ("scalar, little-endian", reversed),
    ]
}

/// What the chip gives back; a reading may be a bad one.
fn puf_root(dir: &Path, chip: &Path) -> Vec<u8> {
    let helper = Helper::parse(&fs::read(dir.join("helper")).unwrap()).unwrap();
    let response = helper.profile().response_len();
    let mut tries = (0..5).map(|_| {
        let mut reading = fs::read(chip).unwrap();
        reading.truncate(response);
        fuzzy::reconstruct(&helper, &Secret::new(reading)).ok()
    });
    let reconstructed = tries.find_map(|tried| tried).unwrap();
    reconstructed.root.expose().to_vec()
}

/// The private key, made anew as backends/soft makes it: HKDF over the root, salted by the blob.
fn scalar(root: &[u8], dir: &Path, label: &str) -> Vec<u8> {
    let store = Store::kept(dir, Some(KEEPER)).unwrap();
    let listing = store.list().unwrap();
    let record = listing.keys.iter().find(|key| key.label == label).unwrap();
    let (of, rest) = record.blob.bytes.split_at(4);
    let prk = Salt::new(HKDF_SHA256, &rest[..32]).extract(root);
    let mut scalar = vec![0; 32];
    let info: [&[u8]; 5] = [b"devkey soft 1\0", b"ec scalar", &[0], of, &[0]];
    prk.expand(&info, Len).unwrap().fill(&mut scalar).unwrap();
    let private = p256::SecretKey::from_slice(&scalar).unwrap();
    let point = private.public_key().to_sec1_point(false);
    assert_eq!(record.public.point().unwrap(), point.as_bytes());
    scalar
}

/// 32 bytes.
struct Len;

impl KeyType for Len {
    fn len(&self) -> usize {
        32
    }
}

/// A process that is stopped for as long as this lives.
struct Stopped(Pid);

impl Stopped {
    fn new(pid: u32) -> Self {
        let pid = Pid::from_raw(pid as i32).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Ends the load.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
