//! The system's key service beside what it replaces. Part of `make bench`; as root, for devkeyd runs as
//! a user of its own.
//!
//! Every figure is a ratio to something measured in the same run, in turns with it. Of a round of
//! signatures the minimum counts, of the rounds the median. Nothing here passes or fails: a figure worse
//! than its limit is marked.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "what cannot go on has failed; a table is what it is for"
)]

#[path = "../tests/common/mod.rs"]
mod common;
mod peer;
#[path = "../tests/common/tpm.rs"]
mod tpm;

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use common::nginx::{curl, nginx};
use common::sshd::{Sshd, WELCOME};
use common::tls::{Ca, Engine};
use common::{Backend, Device, Output, Run, System, module};
use peer::{Peer, TPM2_PKCS11, median, opened, sign, signing, timed, tpm2_pkcs11};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tpm::Swtpm;

const ROUNDS: usize = 21;
/// Of logins: each takes a fifth of a second, of which this machine's noise is a good part.
const LOGINS: usize = 61;
/// Bytes of a request to sign with a P-256 key, and of its response.
const MESSAGES: [usize; 2] = [58, 71];
const CLIENTS: usize = 64;
/// For how long all clients sign, and how long after their start the service is first looked at: each of
/// its threads has done by then what it does.
const TIMES: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(5)];
const HANDSHAKES: usize = 40;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.as_slice() {
        [measure, module, what, count] if measure == "measure" => {
            println!("{}", measured(module, what, count.parse().unwrap()));
        }
        // Cargo says `--bench` itself.
        names => compare(|name| {
            names.iter().all(|one| one == "--bench") || names.contains(&name.to_owned())
        }),
    }
}

/// All figures, or those groups that are named: `cargo bench --bench service -- file`.
fn compare(wanted: impl Fn(&str) -> bool) {
    assert!(
        rustix::process::geteuid().is_root(),
        "devkeyd runs as a user of its own here: run this as root, or with sudo"
    );
    println!("| figure | devkey | peer | ratio | limit |");
    println!("|---|---|---|---|---|");
    let groups: [(&str, &dyn Fn()); 5] = [
        ("file", &signatures_of_files),
        ("tpm", &signatures_of_tpms),
        ("logins", &logins),
        ("clients", &|| {
            many_clients("file", Backend::File);
            many_clients("TPM", Backend::Tpm);
        }),
        ("handshakes", &handshakes),
    ];
    for (name, measure) in groups {
        if wanted(name) {
            measure();
        }
    }
}

/// One line of the table; the limit is one of `ratio`.
fn row(figure: &str, ours: &str, peer: &str, ratio: f64, limit: f64) {
    let mark = if ratio <= limit { "" } else { " **missed**" };
    println!("| {figure} | {ours} | {peer} | {ratio:.2} | {limit}{mark} |");
}

/// The medians of measurements that take turns.
fn in_turns<const N: usize>(rounds: usize, mut measure: [&mut dyn FnMut() -> f64; N]) -> [f64; N] {
    let mut figures = [const { Vec::new() }; N];
    for _ in 0..rounds {
        for (measure, figures) in measure.iter_mut().zip(&mut figures) {
            figures.push(measure());
        }
    }
    figures.map(median)
}

fn peer_of(device: &Device) -> Peer {
    Peer {
        name: "devkey",
        module: module().display().to_string(),
        environment: vec![("DEVKEY_CONFIG", device.config().display().to_string())],
    }
}

/// On one core alone, where each run gives the same; and wherever the kernel puts client and service, where
/// what it takes to wake a core decides.
fn signatures_of_files() {
    let all = sched_getaffinity(None).unwrap();
    let one = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap();
    let mut alone = CpuSet::new();
    alone.set(one);
    for (cores, where_) in [(&alone, "on one core"), (&all, "on any core")] {
        // Whoever is started from now on inherits it.
        sched_setaffinity(None, cores).unwrap();
        signatures_of_files_on(where_);
    }
}

fn signatures_of_files_on(cores: &str) {
    let (system, own) = (
        System::new(Backend::File, false, ""),
        Device::new(Backend::File),
    );
    for device in [&system.device, &own] {
        device.key("ec-p256", "one");
    }
    let (service, in_process) = (peer_of(&system.device), peer_of(&own));
    let echo = echo(&own);
    let [ours, theirs, trip] = in_turns(
        ROUNDS,
        [
            &mut || service.measure("sign", 3000),
            &mut || in_process.measure("sign", 3000),
            &mut || echo.measure("ping", 3000),
        ],
    );
    let most = theirs + 1.5 * trip;
    row(
        &format!("file key, {cores}: C_Sign through the service"),
        &format!("{ours:.1} µs"),
        &format!("in-process {theirs:.1} µs + 1.5 round trips of {trip:.1} µs: {most:.1} µs"),
        ours / most,
        1.0,
    );
}

/// Something at a socket that answers each message with another one, and no more.
fn echo(device: &Device) -> Peer {
    let socket = device.path("echo");
    let listener = UnixListener::bind(&socket).unwrap();
    let answer = |mut client: UnixStream| -> io::Result<()> {
        let [mut request, response] = MESSAGES.map(|length| vec![0; length]);
        loop {
            client.read_exact(&mut request)?;
            client.write_all(&response)?;
        }
    };
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || answer(client));
        }
    });
    Peer {
        name: "echo",
        module: socket.display().to_string(),
        environment: Vec::new(),
    }
}

fn signatures_of_tpms() {
    let (system, own) = (
        System::new(Backend::Tpm, false, ""),
        Device::new(Backend::Tpm),
    );
    for device in [&system.device, &own] {
        device.key("ec-p256", "one");
    }
    let (service, child) = (peer_of(&system.device), peer_of(&own));
    let [ours, theirs] = in_turns(
        ROUNDS,
        [&mut || service.measure("sign", 300), &mut || {
            child.measure("sign", 300)
        }],
    );
    row(
        "TPM key: C_Sign through the service",
        &format!("{ours:.1} µs"),
        &format!("private child: {theirs:.1} µs"),
        ours / theirs,
        1.0,
    );
}

/// Logins by ssh: all to one sshd, each with a key of its own.
fn logins() {
    let system = System::new(Backend::Tpm, false, "");
    let own = Device::new(Backend::Tpm);
    let with_pin = Device::with_pins(Backend::Tpm);
    let swtpm = Swtpm::start();
    let theirs = tpm2_pkcs11(swtpm.dir(), &swtpm);
    let plain = own.path("plain");
    let make = own.run("ssh-keygen").words("-q -t ecdsa -b 256 -f");
    make.arg(&plain).args(["-N", ""]).ok();
    let mut lines = fs::read_to_string(plain.with_extension("pub")).unwrap();
    for device in [&system.device, &own, &with_pin] {
        lines += &(device.key("ec-p256", "one").ssh_line() + "\n");
    }
    let library = library();
    let list = told(own.run("ssh-keygen").arg("-D").arg(&library), &theirs);
    lines += &list.ok().text();
    let authorized = own.path("authorized_keys");
    fs::write(&authorized, lines).unwrap();
    let directive = format!("AuthorizedKeysFile {}", authorized.display());
    let sshd = Sshd::new(&own, &directive);
    for device in [&system.device, &with_pin] {
        fs::copy(own.path("known_hosts"), device.path("known_hosts")).unwrap();
    }
    let by = |run: Run| run.words("-o IdentityAgent=none");
    let card = |device: &Device| by(sshd.login(device)).arg("-I").arg(module());
    let [service, child, pins, peer, file] = in_turns(
        LOGINS,
        [
            &mut || login(card(&system.device)),
            &mut || login(card(&own)),
            &mut || {
                login(
                    by(sshd.login_answering(&with_pin, Device::PIN))
                        .arg("-I")
                        .arg(module()),
                )
            },
            &mut || {
                let run = by(sshd.login_answering(&own, peer::PIN));
                login(told(run.arg("-I").arg(&library), &theirs))
            },
            &mut || login(by(sshd.login(&own)).arg("-i").arg(&plain)),
        ],
    );
    let against = |figure: &str, ours: f64, name: &str, theirs: f64, limit| {
        let [left, right] = [ours, theirs].map(|time| format!("{:.1} ms", time * 1e3));
        row(
            figure,
            &left,
            &format!("{name}: {right}"),
            ours / theirs,
            limit,
        );
    };
    let (cold, warm) = ("ssh -I, TPM key, cold", "ssh -I, TPM key, service warm");
    against(cold, child, "tpm2-pkcs11", peer, 1.0);
    against(
        &format!("{cold}, with a PIN, stretched by Argon2id"),
        pins,
        "tpm2-pkcs11",
        peer,
        1.0,
    );
    against(warm, service, "plain key file", file, 1.1);
}

/// tpm2-pkcs11's path: ssh looks for no library itself.
fn library() -> PathBuf {
    let dirs = fs::read_dir("/usr/lib").unwrap().flatten();
    let found = dirs
        .map(|dir| dir.path().join(TPM2_PKCS11))
        .find(|path| path.exists());
    found.unwrap_or_else(|| panic!("no {TPM2_PKCS11}; run: sh packaging/prerequisites bench"))
}

/// How long a login takes, in seconds.
fn login(run: Run) -> f64 {
    let run = run.args(Sshd::destination());
    let welcomed = || {
        run.ok().says(&[WELCOME]);
    };
    timed(welcomed).as_secs_f64()
}

fn told(run: Run, peer: &Peer) -> Run {
    let environment = peer.environment.iter();
    environment.fold(run, |run, (name, value)| run.env(name, value))
}

/// Processes that sign all at once: how often each does and fails, and what it costs the service.
fn many_clients(name: &str, backend: Backend) {
    let system = System::new(backend, false, "");
    system.device.key("ec-p256", "one");
    let peer = peer_of(&system.device);
    let [all, first] = TIMES;
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| hammer(&peer, all)).collect();
    for client in &mut clients {
        // It has signed once.
        client
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut [0])
            .unwrap();
    }
    let start = Instant::now();
    clients
        .iter_mut()
        .for_each(|client| drop(client.stdin.take()));
    sleep(first);
    let before = burden(system.pid());
    sleep(all - start.elapsed() - Duration::from_secs(1));
    let after = burden(system.pid());
    let done: Vec<_> = clients.into_iter().map(Child::wait_with_output).collect();
    let done: Vec<[u32; 2]> = done
        .into_iter()
        .map(|output| counts(&output.unwrap()))
        .collect();
    let signed = done.iter().map(|[signed, _]| *signed);
    let errors: u32 = done.iter().map(|[_, errors]| errors).sum();
    let [least, most] = [signed.clone().min().unwrap(), signed.clone().max().unwrap()];
    let figure = |what: &str| format!("{name} key, {CLIENTS} clients, {} s: {what}", all.as_secs());
    let (total, errors) = (signed.sum::<u32>(), f64::from(errors));
    row(
        &figure("errors"),
        &format!("{errors}"),
        &format!("of {total}"),
        errors,
        0.0,
    );
    let fair = f64::from(most) / f64::from(least);
    row(
        &figure("signatures of one"),
        &format!("{most} at most"),
        &format!("{least} at least"),
        fair,
        2.0,
    );
    for ((what, before, limit), after) in [
        ("KiB in memory", before[0], 1.05),
        ("descriptors", before[1], 1.0),
    ]
    .into_iter()
    .zip(after)
    {
        let told = format!("{before} after {} s", first.as_secs());
        row(
            &figure(what),
            &format!("{after} at the end"),
            &told,
            after / before,
            limit,
        );
    }
}

/// A process that signs once, says so, and when its input ends signs for as long as it is told.
fn hammer(peer: &Peer, time: Duration) -> Child {
    let mut command = peer.process("hammer", time.as_secs() as u32);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().unwrap()
}

/// Signatures and errors of such a process.
fn counts(output: &std::process::Output) -> [u32; 2] {
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text
        .split_whitespace()
        .map(|number| number.parse().unwrap());
    [(); 2].map(|()| numbers.next().unwrap())
}

/// What a process has: resident memory in KiB, and open descriptors.
fn burden(pid: u32) -> [f64; 2] {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.unwrap().split_whitespace().next().unwrap();
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    [resident.parse().unwrap(), descriptors as f64]
}

/// Mutual TLS by nginx, with two workers that are www-data.
fn handshakes() {
    let system = System::new(Backend::Tpm, false, "use = ['www-data']");
    let device = &system.device;
    let ca = Ca::new(device);
    let key = device.key("ec-p256", "web");
    let (shown, visitor) = ca.plain(device, "visitor");
    let server = format!(
        "ssl_certificate {};\nssl_certificate_key \"engine:pkcs11:{}\";\n\
         ssl_verify_client on;\nssl_session_tickets off;",
        ca.certify(device, &key).display(),
        key.uri
    );
    let run = Engine::Flag.env(device, device.run("nginx"));
    let (port, _server) = nginx(device, &ca, "ssl_engine pkcs11;\n", &server, run);
    let get = || {
        let get = curl(device, &ca, port).arg("--key").arg(&shown);
        served(&get.arg("--cert").arg(&visitor).output())
    };
    let one_by_one = (0..HANDSHAKES).filter(|_| get()).count();
    let at_once = thread::scope(|scope| {
        let all: Vec<_> = (0..HANDSHAKES).map(|_| scope.spawn(get)).collect();
        all.into_iter()
            .map(|one| one.join().unwrap())
            .filter(|served| *served)
            .count()
    });
    for (how, served, theirs) in [("one by one", one_by_one, 17), ("at once", at_once, 18)] {
        let failed = (HANDSHAKES - served) as f64;
        let figure = format!("nginx, two workers, TPM key, handshakes {how}: failures");
        let known = format!("tpm2-pkcs11 1.9.0, measured before: {theirs}");
        let ours = format!("{failed} of {HANDSHAKES}");
        row(&figure, &ours, &known, failed / f64::from(theirs), 0.0);
    }
}

fn served(visit: &Output) -> bool {
    visit.status.success() && visit.text().contains("SUCCESS CN=visitor")
}

/// One measurement: microseconds per operation, the minimum of `count`; or what [`counts`] reads.
fn measured(target: &str, what: &str, count: u32) -> String {
    let times = match what {
        "hammer" => return hammering(target, Duration::from_secs(count.into())),
        "ping" => pinging(target, count),
        _ => signing(target, count).unwrap(),
    };
    let best = times.into_iter().min().unwrap();
    format!("{}", best.as_secs_f64() * 1e6)
}

fn hammering(module: &str, time: Duration) -> String {
    let (session, key) = opened(module).unwrap();
    sign(&session, key, 0).unwrap();
    println!();
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
    let (start, mut done) = (Instant::now(), [0, 0]);
    while start.elapsed() < time {
        let failed = sign(&session, key, done[0]).is_err();
        done[usize::from(failed)] += 1;
    }
    done.map(|count: u32| count.to_string()).join(" ")
}

fn pinging(socket: &str, count: u32) -> Vec<Duration> {
    let mut socket = UnixStream::connect(socket).unwrap();
    let [request, mut response] = MESSAGES.map(|length| vec![0; length]);
    let mut ping = || {
        socket.write_all(&request).unwrap();
        socket.read_exact(&mut response).unwrap();
    };
    (0..count).map(|_| timed(&mut ping)).collect()
}
