//! The key service as a private child: its life, its manners, and what it does not put up with.
//!
//! Each test names the line that was changed to see it fail. Messages are spelt out in bytes, so
//! that the protocol cannot change unnoticed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

use std::fs;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use devkey::backends::file;
use devkey::config::{Config, Environment, Links};
use devkey::key::{KeyKind, Scheme, Usage};
use devkey::service::{
    Client, Granted, Launcher, Link, NewToken, Private, RemoteToken, TokenPlace, Tokens,
    open_local, serve,
};
use devkey::store::{KeyRecord, Store};
use devkey::token::{CertificateRequest, KeyRequest, LocalToken, Names, Pin, Token, TokenRequest};
use devkey::{Error, Result};
use rustix::net::sockopt::{set_socket_passcred, set_socket_timeout};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal};
use rustix::thread::{
    CapabilitySet, capabilities, remove_capability_from_bounding_set, set_capabilities,
};
use tempfile::TempDir;

#[path = "common/devkeyd.rs"]
mod devkeyd;

/// Hello{protocol: 2} and its answer's start: Ok(Welcome{protocol: 2, …}).
const HELLO: &[u8] = &[2, 0, 0, 0, 0, 2];
const WELCOME: &[u8] = &[5, 0, 0, 0, 0, 0, 2, 1, b'x'];
/// Ok(Opened(0)).
const OPENED: &[u8] = &[3, 0, 0, 0, 0, 1, 0];
/// What is needed of a deadline in tests.
const SOON: Duration = Duration::from_secs(1);
/// What a busy machine may take for anything.
const AT_LAST: Duration = Duration::from_secs(20);

/// Seen to fail with `*slot = Some(connection)` in `Link::attempt` keeping the connection elsewhere
/// (a child each time), and with `status()` in `launch` not waiting (a zombie).
#[test]
fn one_child_serves_a_process_and_leaves_no_zombie() {
    let bench = Bench::new();
    let link = bench.link(devkeyd::launch);
    assert_eq!(link.raw_fd(), None);
    let tokens = [(); 2].map(|()| bench.remote(&link));
    assert_eq!(bench.children(), [], "a child before the first operation");
    thread::scope(|scope| {
        for number in 0..8 {
            let (token, key) = (&tokens[number % 2], &bench.key);
            scope.spawn(move || (0..10).for_each(|_| sign(token, key).unwrap()));
        }
    });
    assert!(link.raw_fd().is_some());
    let children = bench.children();
    assert_eq!(children.len(), 1, "{children:?}");
    assert_ne!(children[0].state, 'Z');
    assert_ne!(children[0].parent, std::process::id());
    drop((link, tokens));
    bench.wait_for_no_child();
}

/// Seen to fail with the second `attempt` in `Link::call` taken out.
#[test]
fn a_killed_child_is_replaced() {
    let bench = Bench::new();
    let token = bench.remote(&bench.link(devkeyd::launch));
    sign(&token, &bench.key).unwrap();
    for _ in 0..3 {
        bench.kill_child();
        sign(&token, &bench.key).unwrap();
        assert_eq!(bench.children().len(), 1);
    }
    bench.kill_child();
    token.generate(&request(KeyKind::EcP256)).unwrap();
    assert_eq!(token.store().list().unwrap().keys.len(), 2);
}

/// A child that ends while it works: signing is done again, making a key is not, for it may have
/// been made.
///
/// Seen to fail with `true` for `Generate` in `Request::repeatable`, and with `false` for `Sign`.
#[test]
fn only_what_may_be_done_twice_is_done_twice() {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    fn ends_at_work(_: &Path, socket: OwnedFd) -> Result<()> {
        STARTED.fetch_add(1, Ordering::SeqCst);
        play(socket, |mut client| {
            answer_greeting(&mut client);
            read_message(&mut client);
        })
    }
    let bench = Bench::new();
    let token = bench.remote(&bench.link(ends_at_work));
    let signed = token.sign(&bench.key, Scheme::Ecdsa, &[1; 32]);
    assert!(
        matches!(signed, Err(Error::DeviceGone { .. })),
        "{signed:?}"
    );
    assert_eq!(STARTED.swap(0, Ordering::SeqCst), 2);
    let made = token.generate(&request(KeyKind::EcP256)).unwrap_err();
    assert!(made.to_string().contains("look whether"), "{made}");
    assert_eq!(STARTED.swap(0, Ordering::SeqCst), 1);
}

/// Seen to fail with the `poll` of `Peer::at_end` taken out.
#[test]
fn devkeyd_ends_with_the_process_that_started_it() {
    let bench = Bench::new();
    let mut socket = bench.start();
    // The shell is the process that is served; it ends once it was greeted, and we still have its descriptor.
    shell(
        &socket,
        r"printf '\002\000\000\000\000\001' >&0; head -c 7 >/dev/null",
    );
    to_the_end(&mut socket);
    bench.wait_for_no_child();
}

/// Seen to fail with the `Some(_)` arm in `Peer::read` taken out.
#[test]
fn another_process_is_not_served() {
    let bench = Bench::new();
    let mut socket = bench.start();
    socket.write_all(HELLO).unwrap();
    read_message(&mut socket);
    shell(&socket, r"printf '\004\000\000\000\010\000\001k' >&0");
    assert_eq!(to_the_end(&mut socket), [0; 0]);
    bench.wait_for_no_child();
}

/// The connection of a process whose child misused it is made anew.
///
/// Seen to fail as the test before.
#[test]
fn a_forked_child_does_its_parent_no_harm() {
    let bench = Bench::new();
    let link = bench.link(devkeyd::launch);
    let token = bench.remote(&link);
    sign(&token, &bench.key).unwrap();
    let us = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).unwrap();
    let fd = link.raw_fd().unwrap();
    let inherited = rustix::process::pidfd_getfd(us, fd, PidfdGetfdFlags::empty()).unwrap();
    let before = bench.children()[0].pid;
    shell(
        &UnixStream::from(inherited),
        r"printf '\004\000\000\000\010\000\001k' >&0",
    );
    sign(&token, &bench.key).unwrap();
    assert_ne!(bench.children()[0].pid, before);
}

/// A host that closes descriptors which are not its own, as daemons do, and uses the numbers again:
/// nothing is written to what is there now, and it is not closed.
///
/// Seen to fail without the `filter` in `Link::attempt` (it waits for an answer of the host's peer), and without
/// `Drop` of `Socket` (the host's socket closed).
#[test]
fn what_the_host_put_in_the_sockets_place_is_let_alone() {
    let bench = Bench::new();
    let link = bench.link(devkeyd::launch);
    let token = bench.remote(&link);
    sign(&token, &bench.key).unwrap();
    // SAFETY: closes what the link will find closed; no other test uses the number meanwhile.
    let close = |fd| unsafe { libc::close(fd) };
    let (hosts, mut peer) = UnixStream::pair().unwrap();
    let fd = link.raw_fd().unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { libc::dup2(hosts.as_raw_fd(), fd) }, fd);
    drop(hosts);
    for _ in 0..3 {
        sign(&token, &bench.key).unwrap();
    }
    assert_ne!(link.raw_fd(), Some(fd));
    // Taken away once more, and nothing put in its place.
    close(link.raw_fd().unwrap());
    drop((token, link));
    bench.wait_for_no_child();
    peer.set_nonblocking(true).unwrap();
    let read = peer.read(&mut [0; 64]).unwrap_err();
    assert_eq!(read.kind(), std::io::ErrorKind::WouldBlock, "{read}");
    close(fd);
}

/// Seen to fail with `true` for `protocol == PROTOCOL` in `Session::answer`, and with every version
/// welcome in `Link::connect`.
#[test]
fn other_versions_are_told_apart() {
    let bench = Bench::new();
    let mut socket = bench.start();
    socket.write_all(&[2, 0, 0, 0, 0, 99]).unwrap();
    let welcome = read_message(&mut socket);
    assert_eq!(welcome[..3], WELCOME[4..7]);
    assert_eq!(to_the_end(&mut socket), [0; 0]);

    fn newer(_: &Path, socket: OwnedFd) -> Result<()> {
        play(socket, |mut client| {
            read_message(&mut client);
            // One day's Welcome may be longer than ours, but starts the same.
            client
                .write_all(&[7, 0, 0, 0, 0, 0, 3, 3, b'9', b'.', b'9'])
                .unwrap();
        })
    }
    let token = bench.remote(&bench.link(newer));
    let error = sign(&token, &bench.key).unwrap_err().to_string();
    assert!(
        error.contains("version 9.9") && error.contains("upgrade"),
        "{error}"
    );
}

/// Seen to fail with `request.decode()` unwrapped in `serve`; the lines that find each kind of
/// nonsense have tests of their own in `frame.rs`.
#[test]
fn nonsense_ends_the_connection() {
    let bench = Bench::new();
    let mut nonsense: Vec<Vec<u8>> = vec![
        vec![0xff; 4],
        vec![0; 4],
        vec![3, 0, 0],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        // No greeting first; two greetings; one message too many; an unknown kind.
        vec![3, 0, 0, 0, 8, 0, 0],
        [HELLO, HELLO].concat(),
        [HELLO, &[0]].concat(),
        vec![2, 0, 0, 0, 200, 1],
    ];
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..2000 {
        let mut bytes = Vec::new();
        for _ in 0..round % 40 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            bytes.push(random as u8);
        }
        // Every other one with a right length, so that its contents are looked at.
        if round % 2 == 0 {
            bytes.splice(..0, (bytes.len() as u32).to_le_bytes());
        }
        nonsense.push(bytes);
    }
    for bytes in &nonsense {
        for greeting in [&[][..], HELLO] {
            let (ours, theirs) = pair();
            let served = thread::spawn(|| serve(theirs, &Private(&[])));
            (&ours).write_all(greeting).unwrap();
            if !greeting.is_empty() {
                read_message(&mut &ours);
            }
            // It may have closed already.
            let _ = (&ours).write_all(bytes);
            ours.shutdown(std::net::Shutdown::Write).unwrap();
            let _ = to_the_end(&mut &ours);
            let served = served.join();
            assert!(served.is_ok(), "a panic after {bytes:02x?}");
        }
    }
    for bytes in nonsense.iter().take(8) {
        let mut socket = bench.start();
        socket.write_all(bytes).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        to_the_end(&mut socket);
        bench.wait_for_no_child();
    }
}

/// Seen to fail with the look at `CTRUNC` in `Peer::read` taken out.
#[test]
fn descriptors_are_not_taken() {
    let (ours, theirs) = pair();
    let served = thread::spawn(|| serve(theirs, &Private(&[])));
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [ours.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(
        &ours,
        &[IoSlice::new(HELLO)],
        &mut control,
        SendFlags::empty(),
    )
    .unwrap();
    assert_eq!(to_the_end(&mut &ours), [0; 0]);
    assert!(matches!(served.join().unwrap(), Err(Error::BadInput(_))));
}

/// Seen to fail with `Ok(_)` for `Ok(true)` in `Peer::new`.
#[test]
fn a_socket_without_credentials_is_refused() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (&ours).write_all(HELLO).unwrap();
    let served = serve(theirs.into(), &Private(&[]));
    let refused = served.unwrap_err().to_string();
    assert!(refused.contains("SO_PASSCRED"), "{refused}");
}

/// Seen to fail with `catch_unwind` taken out of `Session::perform_or_end`.
#[test]
fn a_defect_is_answered_and_ends_the_connection() {
    struct Defective;

    impl Tokens for Defective {
        fn open(&self, _: &TokenPlace) -> Result<Granted> {
            panic!("on purpose")
        }

        fn create(&self, _: &NewToken, _: &Pin) -> Result<()> {
            panic!("on purpose")
        }

        fn find(&self, _: &str, _: &Client) -> Result<Granted> {
            panic!("on purpose")
        }
    }

    fn defective(_: &Path, socket: OwnedFd) -> Result<()> {
        thread::spawn(|| serve(socket, &Defective));
        Ok(())
    }
    let bench = Bench::new();
    let link = bench.link(defective);
    let token = bench.remote(&link);
    for _ in 0..2 {
        let signed = sign(&token, &bench.key);
        assert!(matches!(signed, Err(Error::Internal(_))), "{signed:?}");
    }
}

/// What is asked of a service that is about to end is not answered with an error of its device: the next service is
/// asked. Seen to fail with either call of `rest` in `serve` taken out.
#[test]
fn who_asks_while_a_service_ends_is_served_by_the_next() {
    /// How often `rest` still returns.
    static LEFT: AtomicU32 = AtomicU32::new(0);
    static STARTED: AtomicU32 = AtomicU32::new(0);

    struct Ending;

    fn gone<T>() -> Result<T> {
        Err(Error::DeviceGone {
            device: "a TPM".to_owned(),
            reason: "the program that speaks to it is ending".to_owned(),
        })
    }

    impl Tokens for Ending {
        fn rest(&self) {
            let left = LEFT.load(Ordering::Relaxed);
            // As good as the end of the process: the connection is closed.
            assert_ne!(left, 0, "the end, on purpose");
            LEFT.store(left - 1, Ordering::Relaxed);
        }

        fn open(&self, _: &TokenPlace) -> Result<Granted> {
            gone()
        }

        fn create(&self, _: &NewToken, _: &Pin) -> Result<()> {
            gone()
        }

        fn find(&self, _: &str, _: &Client) -> Result<Granted> {
            gone()
        }
    }

    fn ending(program: &Path, socket: OwnedFd) -> Result<()> {
        if STARTED.fetch_add(1, Ordering::Relaxed) > 0 {
            return devkeyd::launch(program, socket);
        }
        thread::spawn(|| serve(socket, &Ending));
        Ok(())
    }

    let bench = Bench::new();
    // The greeting, and then before the token is opened, and after that.
    for returns in [1, 2] {
        LEFT.store(returns, Ordering::Relaxed);
        STARTED.store(0, Ordering::Relaxed);
        let link = Link::new(bench.dir.path().join(&bench.name), ending);
        let token = bench.remote(&Arc::new(link.with_patience(AT_LAST)));
        sign(&token, &bench.key).unwrap();
        assert_eq!(STARTED.load(Ordering::Relaxed), 2);
    }
}

/// Seen to fail with `program::check` taken out of `Link::connect`.
#[test]
fn a_program_that_is_not_there_is_named() {
    let bench = Bench::new();
    let (program, launch) = (PathBuf::from("/nowhere/devkeyd"), devkeyd::launch);
    let token = bench.remote(&Arc::new(Link::new(program, launch)));
    let error = sign(&token, &bench.key).unwrap_err();
    assert!(matches!(error, Error::DeviceGone { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.starts_with("/nowhere/devkeyd: ") && text.contains("devkeyd = "),
        "{text}"
    );
    // What is public needs no devkeyd.
    assert_eq!(token.store().list().unwrap().keys.len(), 1);
}

/// Seen to fail with `wait_until` taken out of `Wire::receive` (the slow one), and with
/// `set_socket_timeout` taken out of `Wire::wait` (the silent one).
#[test]
fn a_service_that_is_late_is_given_up() {
    fn silent(_: &Path, socket: OwnedFd) -> Result<()> {
        play(socket, |mut client| {
            answer_greeting(&mut client);
            to_the_end(&mut client);
        })
    }
    fn slow(_: &Path, socket: OwnedFd) -> Result<()> {
        play(socket, |mut client| {
            answer_greeting(&mut client);
            read_message(&mut client);
            // A long answer, a byte at a time.
            for byte in [0, 1, 0, 0].into_iter().chain([0; 256]) {
                thread::sleep(SOON / 4);
                if client.write_all(&[byte]).is_err() {
                    return;
                }
            }
        })
    }
    let bench = Bench::new();
    for launch in [silent, slow] {
        let link = bench.link(launch);
        let token = bench.remote(&link);
        let start = Instant::now();
        let signed = sign(&token, &bench.key);
        assert!(matches!(signed, Err(Error::Timeout { .. })), "{signed:?}");
        assert!(start.elapsed() >= SOON && start.elapsed() < SOON * 3);
        assert_eq!(link.raw_fd(), None, "the connection is still there");
    }
}

/// Seen to fail with the length in `RemoteToken::sign` not compared, and with `*slot = None` taken
/// out of `Link::call`.
#[test]
fn nonsense_from_the_service_is_an_error() {
    macro_rules! answering {
        ($bytes:expr) => {{
            fn launch(_: &Path, socket: OwnedFd) -> Result<()> {
                play(socket, |mut client| {
                    answer_greeting(&mut client);
                    read_message(&mut client);
                    let _ = client.write_all($bytes);
                    to_the_end(&mut client);
                })
            }
            launch as Launcher
        }};
    }
    let bench = Bench::new();
    for launch in [
        answering!(&[0xff; 64]),
        answering!(&[0, 0, 0, 0]),
        answering!(&[1, 0, 0, 0, 9]),
        // Ok(Done); Ok(Signature) of three bytes, and one that is said to have 4 GiB.
        answering!(&[2, 0, 0, 0, 0, 5]),
        answering!(&[6, 0, 0, 0, 0, 2, 3, 1, 2, 3]),
        answering!(&[7, 0, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        // An answer and a byte.
        answering!(&[2, 0, 0, 0, 0, 5, 0]),
    ] {
        let link = bench.link(launch);
        let token = bench.remote(&link);
        let signed = sign(&token, &bench.key);
        assert!(
            matches!(signed, Err(Error::DeviceError { .. })),
            "{signed:?}"
        );
        assert_eq!(link.raw_fd(), None, "the connection is still there");
    }
}

/// Seen to fail with half of `MAX_INPUT` in `short_enough`, and with ten times as much.
#[test]
fn long_messages_are_signed_and_longer_ones_refused() {
    let bench = Bench::new();
    let token = bench.remote(&bench.link(devkeyd::launch));
    let key = token.generate(&request(KeyKind::Ed25519)).unwrap();
    let message = vec![7; (1 << 20) + 1];
    let (fits, pid) = (&message[1..], bench.children()[0].pid);
    let signature = token.sign(&key, Scheme::Ed25519, fits).unwrap();
    key.public
        .verify(Scheme::Ed25519, fits, &signature)
        .unwrap();
    let refused = token.sign(&key, Scheme::Ed25519, &message);
    assert!(matches!(refused, Err(Error::BadInput(_))), "{refused:?}");
    let (der, names) = (message, Names::default());
    let refused = token.add_certificate(&CertificateRequest { der, names });
    assert!(matches!(refused, Err(Error::BadInput(_))), "{refused:?}");
    sign(&token, &bench.key).unwrap();
    assert_eq!(bench.children()[0].pid, pid, "the connection was lost");
}

/// Seen to fail with `replace_standard_input`, `setrlimit`, `umask` and `set_current_dir` taken out
/// of devkeyd, each by itself.
#[test]
fn devkeyd_keeps_its_house() {
    let bench = Bench::new();
    let token = bench.remote(&bench.link(devkeyd::launch));
    sign(&token, &bench.key).unwrap();
    let process = PathBuf::from(format!("/proc/{}", bench.children()[0].pid));
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(5), Some("0"), "{core}");
    let status = fs::read_to_string(process.join("status")).unwrap();
    assert!(status.contains("Umask:\t0077"), "{status}");
    if !rustix::process::geteuid().is_root() {
        // The kernel forbids even the look.
        assert!(fs::read_dir(process.join("fd")).is_err());
        return;
    }
    let open = descriptors(&process);
    assert_eq!(open[0], (0, "/dev/null".to_owned(), false));
    // This launcher closes nothing, so what the test's own parent left open is there too.
    let inherited = descriptors(Path::new("/proc/self"));
    let mut own: Vec<_> = open
        .iter()
        .filter(|descriptor| descriptor.0 > 2 && !inherited.contains(descriptor))
        .collect();
    own.sort_unstable_by_key(|descriptor| &descriptor.1);
    let kinds = own.iter().map(|(_, to, closed)| (&to[..6], *closed));
    assert!(kinds.eq([("anon_i", true), ("socket", true)]), "{own:?}");
    assert_eq!(fs::read_link(process.join("cwd")).unwrap(), Path::new("/"));
}

/// Its memory is no matter for another process of the same user.
///
/// Seen to fail with `set_dumpable_behavior` taken out of `harden`.
#[test]
fn devkeyd_cannot_be_looked_into() {
    let look = || {
        // Root may look into everything, by this right.
        let _ = remove_capability_from_bounding_set(CapabilitySet::SYS_PTRACE);
        let mut own = capabilities(None).unwrap();
        own.effective.remove(CapabilitySet::SYS_PTRACE);
        own.permitted.remove(CapabilitySet::SYS_PTRACE);
        set_capabilities(None, own).unwrap();
        let bench = Bench::new();
        let mut socket = bench.start();
        socket.write_all(HELLO).unwrap();
        read_message(&mut socket);
        let process = format!("/proc/{}", bench.children()[0].pid);
        fs::File::open(format!("{process}/mem")).map(drop)
    };
    let refused = thread::scope(|scope| scope.spawn(look).join().unwrap());
    let refused = refused.unwrap_err().kind();
    assert_eq!(refused, std::io::ErrorKind::PermissionDenied);
}

/// Seen to fail with the test of `stream` in `standard_input` taken out.
#[test]
fn devkeyd_says_what_it_wants() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(devkeyd::PROGRAM);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    for arguments in [&["--private"][..], &[], &["--public"], &["--private", "x"]] {
        let said = run(arguments);
        assert_eq!(said.status.code(), Some(2), "{arguments:?}");
        assert!(said.stderr.starts_with(b"devkeyd: "), "{said:?}");
    }
    let version = String::from_utf8(run(&["--version"]).stdout).unwrap();
    assert_eq!(
        version,
        concat!("devkeyd ", env!("CARGO_PKG_VERSION"), "\n")
    );
    assert!(run(&["--help"]).stdout.starts_with(b"devkeyd - "));
}

/// Seen to fail with the test of `is_absolute` in `open_local` taken out.
#[test]
fn what_devkeyd_cannot_open_is_said() {
    let bench = Bench::new();
    let nothing = open_local(&[], &place(bench.token_dir()));
    assert!(matches!(nothing, Err(Error::Unsupported(_))), "{nothing:?}");
    let relative = open_local(&[file::BACK_END], &place(PathBuf::from("token")));
    assert!(matches!(relative, Err(Error::BadInput(_))), "{relative:?}");
    let link = bench.link(devkeyd::launch);
    let none = place(bench.dir.path().join("none"));
    let store = Store::open(&bench.token_dir()).unwrap();
    let gone = RemoteToken::new(store, none, link.clone());
    let signed = sign(&gone, &bench.key);
    assert!(matches!(signed, Err(Error::NotFound(_))), "{signed:?}");
    sign(&bench.remote(&link), &bench.key).unwrap();
    assert_eq!(bench.children().len(), 1);
}

/// A bad setting is blamed on its line of the configuration, by the service too.
///
/// Seen to fail with `check_settings` in `open_store` replaced by `back_end.check`, and with
/// `origins` left empty in `FoundToken::place`.
#[test]
fn a_bad_setting_is_blamed_on_its_line_across_the_socket() {
    let bench = Bench::new();
    let config = bench.dir.path().join("devkey.toml");
    let text = format!("[token.x]\ndirectory = {:?}\n\n", bench.token_dir());
    fs::write(&config, format!("{text}tymeout = \"5\"\n")).unwrap();
    let environment = Environment {
        config: Some(config.clone()),
        ..Environment::default()
    };
    let found = Config::load(&environment).unwrap().tokens().remove(0);
    let links = Links::private(bench.dir.path().join(&bench.name), devkeyd::launch);
    let remote = found.open(&[], &links).unwrap();
    let local = found.open(&[file::BACK_END], &links).map(drop);
    let wanted = format!("{}:4: back end file has no setting", config.display());
    for refused in [sign(&*remote, &bench.key), local] {
        assert!(matches!(refused, Err(Error::BadConfig { .. })));
        let refused = refused.unwrap_err().to_string();
        assert!(refused.starts_with(&wanted), "{refused}");
    }
}

/// A file token with a key, and a devkeyd of its own, known by its name.
struct Bench {
    dir: TempDir,
    name: String,
    key: KeyRecord,
}

#[derive(Debug, PartialEq)]
struct Process {
    pid: i32,
    parent: u32,
    state: char,
}

impl Bench {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let token = dir.path().join("token");
        let request_token = TokenRequest {
            dir: &token,
            label: "test",
            settings: Default::default(),
            pins: None,
        };
        let local = LocalToken::create(&file::BACK_END, &request_token).unwrap();
        let key = local.generate(&request(KeyKind::EcP256)).unwrap();
        // The kernel keeps 15 bytes of it.
        let name = format!("dk{}-{number}", std::process::id());
        fs::hard_link(devkeyd::PROGRAM, dir.path().join(&name)).unwrap();
        Bench { dir, name, key }
    }

    fn token_dir(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    fn link(&self, launch: Launcher) -> Arc<Link> {
        let link = Link::new(self.dir.path().join(&self.name), launch);
        // The real one is not to be hurried.
        let fake = launch as usize != devkeyd::launch as Launcher as usize;
        Arc::new(link.with_patience(if fake { SOON } else { AT_LAST }))
    }

    fn remote(&self, link: &Arc<Link>) -> RemoteToken {
        let store = Store::open(&self.token_dir()).unwrap();
        RemoteToken::new(store, place(self.token_dir()), link.clone())
    }

    /// Starts devkeyd, to talk to it in bytes.
    fn start(&self) -> UnixStream {
        let (ours, theirs) = pair();
        devkeyd::launch(&self.dir.path().join(&self.name), theirs).unwrap();
        ours
    }

    /// Every process that runs this bench's program, or did and was not waited for by us. Orphans
    /// are waited for by process 1, in its own time.
    fn children(&self) -> Vec<Process> {
        let all = fs::read_dir("/proc").unwrap();
        let stat = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("stat")).ok();
        let stats = all.filter_map(|entry| stat(entry.ok()?));
        let ours = stats.filter_map(|stat| self.parse(&stat));
        ours.filter(|child| child.state != 'Z' || child.parent == std::process::id())
            .collect()
    }

    fn parse(&self, stat: &str) -> Option<Process> {
        let (pid, rest) = stat.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        (name == self.name).then(|| Process {
            pid: pid.parse().unwrap(),
            state: fields.next().unwrap().chars().next().unwrap(),
            parent: fields.next().unwrap().parse().unwrap(),
        })
    }

    fn kill_child(&self) {
        let pid = Pid::from_raw(self.children()[0].pid).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        self.wait_for_no_child();
    }

    fn wait_for_no_child(&self) {
        let start = Instant::now();
        while !self.children().is_empty() {
            assert!(
                start.elapsed() < AT_LAST,
                "{:?} does not end",
                self.children()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A process's descriptors: number, what it is, and whether it is close-on-exec.
fn descriptors(process: &Path) -> Vec<(u32, String, bool)> {
    let entries = fs::read_dir(process.join("fd")).unwrap();
    let describe = |entry: fs::DirEntry| {
        // Those of this very look, or of another test, may be gone.
        let to = fs::read_link(entry.path()).ok()?.to_str()?.to_owned();
        let number = entry.file_name().to_str()?.parse().ok()?;
        let info = fs::read_to_string(process.join(format!("fdinfo/{number}"))).ok()?;
        let flags = info
            .lines()
            .find_map(|line| line.strip_prefix("flags:\t"))?;
        let flags = u32::from_str_radix(flags, 8).ok()?;
        Some((number, to, flags & 0o2_000_000 != 0))
    };
    let mut all: Vec<_> = entries
        .filter_map(|entry| describe(entry.unwrap()))
        .collect();
    all.sort_unstable();
    all
}

fn place(dir: PathBuf) -> TokenPlace {
    TokenPlace {
        dir,
        ..TokenPlace::default()
    }
}

fn request(kind: KeyKind) -> KeyRequest {
    KeyRequest {
        kind,
        usage: Usage::SIGN,
        names: Names::default(),
    }
}

fn sign(token: &dyn Token, key: &KeyRecord) -> Result<()> {
    let signature = token.sign(key, Scheme::Ecdsa, &[0x17; 32])?;
    key.public.verify(Scheme::Ecdsa, &[0x17; 32], &signature)
}

/// A connection to be, as `Link` makes it. What is not answered at last fails the test.
fn pair() -> (UnixStream, OwnedFd) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    set_socket_passcred(&theirs, true).unwrap();
    let direction = rustix::net::sockopt::Timeout::Recv;
    set_socket_timeout(&ours, direction, Some(AT_LAST)).unwrap();
    (ours, theirs.into())
}

/// Plays devkeyd in a thread.
fn play(socket: OwnedFd, part: impl FnOnce(UnixStream) + Send + 'static) -> Result<()> {
    thread::spawn(move || part(UnixStream::from(socket)));
    Ok(())
}

fn answer_greeting(client: &mut UnixStream) {
    assert_eq!(read_message(client), HELLO[4..]);
    client.write_all(WELCOME).unwrap();
    read_message(client);
    client.write_all(OPENED).unwrap();
}

fn read_message(from: &mut impl Read) -> Vec<u8> {
    let mut length = [0; 4];
    from.read_exact(&mut length).unwrap();
    let mut message = vec![0; u32::from_le_bytes(length) as usize];
    from.read_exact(&mut message).unwrap();
    message
}

/// All that still comes until the other end is closed.
fn to_the_end(from: &mut impl Read) -> Vec<u8> {
    let mut rest = Vec::new();
    match from.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset),
    }
    rest
}

/// Runs a script in another process, with the socket as its standard input.
fn shell(socket: &UnixStream, script: &str) {
    let socket = OwnedFd::from(socket.try_clone().unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).stdin(socket);
    assert!(shell.status().unwrap().success());
}
