//! Clients that mean harm, or are just broken.

use std::collections::VecDeque;
use std::env;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::common::run::Run;
use crate::machine::{DAEMON, Machine, NOBODY, ROOT, WWW_DATA};
use crate::wire::{self, HELLO, ask, connect, find, greet, message, read};

const RULES: &str = "[token.web]\nuse = [\"daemon\"]\n";
/// Most connections of a user, and most of all that have no token.
const MOST: usize = 128;
/// What the service gives a message, a greeting, and a client without a token.
const ARRIVAL: Duration = Duration::from_secs(10);

/// Seen to fail with a second greeting answered in `Session::answer`, and with the descriptors of
/// connections kept by `serve`.
#[test]
fn nonsense_ends_its_own_connection_alone() {
    let mut machine = Machine::new(RULES);
    let id = machine.id("web", "k");
    let good = [HELLO.to_vec(), find("web"), wire::sign(&id)];
    let before = machine.size();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for round in 0..1500_usize {
        // Each message of the conversation with something wrong with it, the ones before it right.
        let (at, mut stream) = (round % 3, connect(&machine.socket()));
        for right in &good[..at] {
            ask(&mut stream, right).unwrap();
        }
        let mut bad = good[at].clone();
        match next() % 4 {
            0 => bad.truncate(next() as usize % bad.len()),
            1 => bad.extend((0..=next() % 30).map(|_| next() as u8)),
            2 => bad[..4].copy_from_slice(&(next() as u32).to_le_bytes()),
            _ => {
                let place = next() as usize % bad.len();
                bad[place] ^= next() as u8 | 1;
            }
        }
        let _ = stream.write_all(&bad);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        while read(&mut stream).is_some() {}
    }
    // Out of order, too many, unknown.
    let orders = [
        vec![find("web")],
        vec![HELLO.to_vec(), HELLO.to_vec()],
        vec![HELLO.to_vec(), message(&[20])],
        vec![[HELLO, &find("web")].concat()],
        vec![HELLO.to_vec(), [find("web"), find("web")].concat()],
        vec![vec![2, 0, 0, 0, 0, 1], find("web")],
        vec![vec![0xff; 4]],
    ];
    for order in orders {
        let mut stream = connect(&machine.socket());
        let last = order.iter().map(|message| ask(&mut stream, message)).last();
        assert_eq!(last.flatten(), None, "{order:?} was answered");
    }
    assert!(machine.is_up());
    machine.sign(DAEMON, "web", "k").ok();
    settles(&machine, before);
}

/// Seen to fail with the descriptors of connections kept by `serve`.
#[test]
fn a_client_may_end_at_any_byte() {
    let machine = Machine::new(RULES);
    let before = machine.size();
    let good = [
        HELLO.to_vec(),
        find("web"),
        wire::sign(&machine.id("web", "k")),
    ];
    let whole: usize = good.iter().map(Vec::len).sum();
    for end in 0..=whole {
        // At the last byte the answer is not read.
        let (mut left, mut stream) = (end, connect(&machine.socket()));
        for right in &good {
            let now = left.min(right.len());
            stream.write_all(&right[..now]).unwrap();
            left -= now;
            if left == 0 {
                break;
            }
            read(&mut stream).unwrap();
        }
    }
    machine.sign(DAEMON, "web", "k").ok();
    settles(&machine, before);
}

/// A byte each second is too slow after [`ARRIVAL`], and meanwhile others are served as ever; who
/// has no token and says nothing goes then too.
///
/// Seen to fail with `until` set anew at each byte in `Peer::receive`, and without `idle`.
#[test]
fn who_is_slow_keeps_nobody_waiting() {
    let machine = Machine::new(RULES);
    let (socket, id) = (machine.socket(), machine.id("web", "k"));
    let slow = |start: &'static [u8]| {
        let mut stream = connect(&socket);
        let begun = Instant::now();
        let _ = stream.write_all(start);
        loop {
            stream
                .set_read_timeout(Some(Duration::from_secs(1)))
                .unwrap();
            match std::io::Read::read(&mut stream, &mut [0; 64]) {
                Ok(0) => return begun.elapsed(),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {
                    return begun.elapsed();
                }
                _ => {}
            }
            assert!(begun.elapsed() < ARRIVAL * 2, "it is borne");
            // Of a message that never ends.
            let _ = stream.write_all(match start.len() {
                0 | 6 => &[],
                _ => &[0],
            });
        }
    };
    // Nothing at all; a greeting alone; half a greeting; a message of 1 MiB.
    let starts: [&'static [u8]; 4] = [&[], HELLO, &[200, 0, 0, 0, 0], &[0, 0, 16, 0, 2, 0, 1]];
    let given = thread::scope(|scope| {
        let slow = &slow;
        let all: Vec<_> = (0..80)
            .map(|number| scope.spawn(move || wire::as_user(NOBODY.0, || slow(starts[number % 4]))))
            .collect();
        let mut stream = greet(&socket);
        ask(&mut stream, &find("web")).unwrap();
        let mut times = Vec::new();
        for _ in 0..200 {
            let begun = Instant::now();
            assert_eq!(ask(&mut stream, &wire::sign(&id)).unwrap()[..2], [0, 2]);
            times.push(begun.elapsed());
            sleep(Duration::from_millis(20));
        }
        times.sort();
        println!(
            "signatures beside 80 slow clients: median {:?}, worst {:?}",
            times[100], times[199]
        );
        // One that waited for a slow one would wait for its deadline.
        assert!(times[199] < ARRIVAL / 2);
        // It has a token, and may think.
        sleep(ARRIVAL + Duration::from_secs(2));
        ask(&mut stream, &wire::sign(&id)).unwrap();
        all.into_iter()
            .map(|slow| slow.join().unwrap())
            .collect::<Vec<_>>()
    });
    let right = |time: &Duration| (ARRIVAL / 2..ARRIVAL + ARRIVAL / 2).contains(time);
    assert!(given.iter().all(right), "{given:?}");
}

/// Whoever has no token goes for others, and keeps nobody out who has one to find.
///
/// Seen to fail with `MAX_STRANGERS` not looked at, and with the newest sent away in `Counts::send_one_away`.
#[test]
fn a_flood_of_strangers_keeps_nobody_out() {
    let machine = Machine::new(RULES);
    let before = machine.size();
    let over = AtomicBool::new(false);
    let flood = |user: u32| {
        wire::as_user(user, || {
            let mut held = VecDeque::new();
            while !over.load(Ordering::Relaxed) {
                let mut stream = connect(&machine.socket());
                let _ = stream.write_all(HELLO);
                held.push_back(stream);
                if held.len() > 200 {
                    held.pop_front();
                }
            }
            held.len()
        })
    };
    thread::scope(|scope| {
        let users = [NOBODY.0, 60_001, 60_002, 60_003];
        let floods = users.map(|user| scope.spawn(move || flood(user)));
        sleep(Duration::from_millis(500));
        let signed: Vec<_> = (0..20)
            .map(|_| machine.sign(DAEMON, "web", "k").output())
            .collect();
        let threads = machine.size()[1];
        let made = machine
            .devkey(ROOT)
            .words("key new --token web late")
            .output();
        over.store(true, Ordering::Relaxed);
        let held: usize = floods.map(|flood| flood.join().unwrap()).iter().sum();
        assert!(held > 2 * MOST, "{held}");
        for output in signed.iter().chain([&made]) {
            assert!(output.status.success(), "{output}");
        }
        // Those that were sent away may not have ended yet.
        assert!(threads < before[1] + 2 * MOST, "{threads}");
    });
    settles(&machine, before);
}

/// Who has the right has it so many times, is told so, and others have theirs.
///
/// Seen to fail with `MAX_OF_USER` as large as `MAX_CONNECTIONS`.
#[test]
fn a_flood_is_of_one_user() {
    let machine = Machine::new("[token.web]\nuse = [\"daemon\", \"www-data\"]\n");
    let before = machine.size();
    let found = wire::as_user(DAEMON.0, || {
        let find = |_| {
            let mut stream = greet(&machine.socket());
            (ask(&mut stream, &find("web")).unwrap()[0], stream)
        };
        (0..MOST + 50).map(find).collect::<Vec<_>>()
    });
    let served = found.iter().filter(|(answer, _)| *answer == 0).count();
    assert_eq!(served, MOST);
    machine.sign(WWW_DATA, "web", "k").ok();
    drop(found);
    settles(&machine, before);
    machine.sign(DAEMON, "web", "k").ok();
}

/// Who has no right cannot fill the journal.
///
/// Seen to fail with `MOST` of quiet.rs a thousand.
#[test]
fn refusals_do_not_fill_the_journal() {
    let machine = Machine::new(RULES);
    let before = machine.log().len();
    wire::as_user(NOBODY.0, || {
        let mut stream = greet(&machine.socket());
        for _ in 0..500 {
            ask(&mut stream, &find("web")).unwrap();
        }
        for _ in 0..100 {
            ask(&mut connect(&machine.socket()), &message(&[99]));
        }
    });
    let log = machine.log();
    let lines = log[before..].lines().count();
    assert!((10..=25).contains(&lines), "{lines}");
}

/// Two requests in one read end it, before the deadline for answers does. Seen to fail with the
/// descriptors of connections kept by `serve`.
#[test]
fn answers_that_nobody_takes_end_the_connection() {
    let machine = Machine::new(RULES);
    let before = machine.size();
    let mut stream = greet(&machine.socket());
    stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let (begun, request) = (Instant::now(), find("nothing"));
    while begun.elapsed() < ARRIVAL * 3 && stream.write_all(&request).is_ok() {
        sleep(Duration::from_micros(200));
    }
    drop(stream);
    machine.sign(DAEMON, "web", "k").ok();
    settles(&machine, before);
}

/// A descriptor that was passed on, or inherited, is not a client.
///
/// Seen to fail with the senders of later messages not compared in `Peer::read`.
#[test]
fn another_process_is_not_the_client() {
    let machine = Machine::new(RULES);
    let say = |stream: &UnixStream, script: &str| {
        let socket = OwnedFd::from(stream.try_clone().unwrap());
        let mut shell = Command::new("sh");
        assert!(
            shell
                .args(["-c", script])
                .stdin(socket)
                .status()
                .unwrap()
                .success()
        );
    };
    // From the start; after the greeting; in the middle of a message.
    let mut stream = connect(&machine.socket());
    say(&stream, r"printf '\002\000\000\000\000\002' >&0");
    assert_eq!(read(&mut stream), None);
    let mut stream = greet(&machine.socket());
    say(&stream, r"printf '\005\000\000\000\022\003web' >&0");
    assert_eq!(read(&mut stream), None);
    let mut stream = greet(&machine.socket());
    stream.write_all(&find("web")[..4]).unwrap();
    say(&stream, r"printf '\022\003web' >&0");
    assert_eq!(read(&mut stream), None);
}

/// A process that gives its rights up connects anew, without them.
///
/// Seen to fail with `first.pid == sender.pid` in `Peer::read`, and with the numbers of processes alone compared
/// in `Peer::meet`.
#[test]
fn who_gave_rights_up_has_them_no_more() {
    let machine = Machine::new(RULES);
    let mut stream = greet(&machine.socket());
    ask(&mut stream, &find("web")).unwrap();
    let id = machine.id("web", "k");
    ask(&mut stream, &wire::sign(&id)).unwrap();
    let mut same = stream.try_clone().unwrap();
    let answer = wire::as_user(NOBODY.0, move || ask(&mut same, &wire::sign(&id)));
    assert_eq!(answer, None);
    // Before the greeting as well: nobody speaks as who connected.
    let mut stream = connect(&machine.socket());
    let answer = wire::as_user(NOBODY.0, move || ask(&mut stream, HELLO));
    assert_eq!(answer, None);
}

/// The number of a client that ended, given to another process, which has the descriptor.
///
/// Seen to fail with the client's process left out of what `Peer::at_end` waits for.
#[test]
fn a_number_that_is_given_again_is_not_the_client() {
    const ROLE: &str = "DEVKEY_TEST_ROLE";
    const TEST: &str = "hostile::a_number_that_is_given_again_is_not_the_client";
    let again = || env::current_exe().unwrap();
    match env::var(ROLE).as_deref() {
        Err(_) => {
            // A name space of process ids, where the next one can be chosen.
            let run = Run::new("unshare").words("--pid --fork --mount-proc --kill-child");
            let run = run.arg(again()).args(["--exact", TEST, "--nocapture"]);
            run.env(ROLE, "namespace").ok();
        }
        Ok("client") => {
            let dir = env::var("DEVKEY_TEST_DIR").unwrap();
            let _stream = greet(&Path::new(&dir).join("socket"));
            fs::write(Path::new(&dir).join("greeted"), "").unwrap();
            sleep(Duration::from_secs(60));
        }
        Ok(_) => {
            let dir = tempfile::TempDir::new().unwrap();
            fs::write(dir.path().join("devkey.toml"), "").unwrap();
            let mut service = Command::new(env!("CARGO_BIN_EXE_devkeyd"));
            service
                .arg("--listen")
                .arg(dir.path().join("socket"))
                .stdin(Stdio::null());
            service.env("DEVKEY_CONFIG", dir.path().join("devkey.toml"));
            let mut service = service.spawn().unwrap();
            wait_for(&dir.path().join("socket"));
            let mut client = Command::new(again());
            client.args(["--exact", TEST]).env(ROLE, "client");
            let mut client = client.env("DEVKEY_TEST_DIR", dir.path()).spawn().unwrap();
            wait_for(&dir.path().join("greeted"));
            let pid = client.id();
            let mut stream = its_socket(pid);
            client.kill().unwrap();
            client.wait().unwrap();
            let mut taken = false;
            for _ in 0..50 {
                fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
                let mut shell = Command::new("sh");
                shell.args([
                    "-c",
                    r"printf '\005\000\000\000\022\003web' >&0; exec sleep 9",
                ]);
                let socket = OwnedFd::from(stream.try_clone().unwrap());
                let mut shell = shell.stdin(socket).process_group(0).spawn().unwrap();
                taken = shell.id() == pid;
                if taken {
                    assert_eq!(read(&mut stream), None);
                }
                shell.kill().unwrap();
                shell.wait().unwrap();
                if taken {
                    break;
                }
            }
            service.kill().unwrap();
            service.wait().unwrap();
            assert!(taken, "the number was not given again");
        }
    }
}

/// A copy of the one socket that a process has.
fn its_socket(pid: u32) -> UnixStream {
    let process = pidfd_open(Pid::from_raw(pid as i32).unwrap(), PidfdFlags::empty()).unwrap();
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut sockets = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let to = fs::read_link(entry.path()).ok()?;
        let is_socket = to.to_str()?.starts_with("socket:");
        is_socket.then(|| entry.file_name().to_str()?.parse::<i32>().ok())?
    });
    let fd = sockets.next().unwrap();
    let stream = UnixStream::from(pidfd_getfd(process, fd, PidfdGetfdFlags::empty()).unwrap());
    stream.set_read_timeout(Some(ARRIVAL)).unwrap();
    stream
}

fn wait_for(path: &Path) {
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < ARRIVAL * 2, "no {}", path.display());
        sleep(Duration::from_millis(5));
    }
}

/// The service has no more descriptors and threads than before, in the end; before, the connection of a client
/// that has just ended may still be there.
fn settles(machine: &Machine, before: [usize; 3]) {
    let begun = Instant::now();
    loop {
        let now = machine.size();
        if now[0] <= before[0] && now[1] <= before[1] {
            println!("memory: {} KiB, then {} KiB", before[2], now[2]);
            return;
        }
        assert!(begun.elapsed() < ARRIVAL * 2, "{before:?}, then {now:?}");
        sleep(Duration::from_millis(50));
    }
}
