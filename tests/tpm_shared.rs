//! Several tokens on one TPM in one process, as the key service has them: one connection, keys that
//! stay loaded for all, a line in which nobody waits for ever, and nothing left in the TPM whatever
//! ends first. On swtpm, counted by the proxy before it.
//!
//! Each test names what was changed to see it fail. They run one after the other: they count threads
//! and commands, and look at the clock.
#![cfg(feature = "tpm")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

#[path = "common/tpm.rs"]
mod tpm;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use devkey::backends::tpm::{self as back_end, SHARED};
use devkey::key::{KeyKind, Scheme, Usage};
use devkey::provider::{Settings, ask_for};
use devkey::secret::Secret;
use devkey::store::{KeyRecord, Role, Store};
use devkey::token::{KeyRequest, LocalToken, Login, Names, Pin, Pins, Token, TokenRequest};
use devkey::{Error, Result};
use tempfile::TempDir;

use tpm::{Action, Proxy, Swtpm};

/// Command codes, part 2 §6.5.2.
const LOAD: u32 = 0x157;
const SIGN: u32 = 0x15d;
const CREATE: u32 = 0x153;
const FLUSH: u32 = 0x165;
const START_AUTH_SESSION: u32 = 0x176;

const USER: &str = "1234";
const SO: &str = "the SO's own";

/// How often a test is tried that the clock may spoil: what is loaded goes after 20 ms.
const ATTEMPTS: usize = 50;

/// Keeps other tests of this process out.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A TPM, a proxy before it, and tokens on it with a key each: two without PINs and between them one
/// with.
struct Bench {
    home: TempDir,
    swtpm: Swtpm,
    proxy: Proxy,
}

impl Bench {
    fn new() -> Self {
        let swtpm = Swtpm::start();
        swtpm.provision();
        let bench = Bench {
            home: TempDir::new().unwrap(),
            proxy: Proxy::before(&swtpm),
            swtpm,
        };
        for (name, pin) in [("one", false), ("pin", true), ("two", false)] {
            bench.make(name, pin);
        }
        bench.swtpm.assert_empty();
        bench
    }

    fn make(&self, name: &str, with_pin: bool) {
        let (user, so) = (pin(USER), pin(SO));
        let request = TokenRequest {
            dir: &self.dir(name),
            label: name,
            settings: self.settings(&[]),
            pins: with_pin.then_some(Pins {
                user: Some(&user),
                so: Some(&so),
                tries: 5,
            }),
        };
        let token = LocalToken::create(&SHARED, &request).unwrap();
        if with_pin {
            user_logs_in(&token);
        }
        generate(&token, KeyKind::EcP256).unwrap();
    }

    fn settings(&self, extra: &[(&str, &str)]) -> Settings {
        let mut settings = BTreeMap::from([("tcti".to_owned(), self.proxy.tcti())]);
        for (name, value) in extra {
            settings.insert((*name).to_owned(), (*value).to_owned());
        }
        settings
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn open(&self, name: &str) -> LocalToken {
        self.open_with(name, &[])
    }

    fn open_with(&self, name: &str, extra: &[(&str, &str)]) -> LocalToken {
        let store = Store::open(&self.dir(name)).unwrap();
        LocalToken::open(&SHARED, store, &self.settings(extra)).unwrap()
    }

    /// All three, ready to sign.
    fn open_all(&self) -> [LocalToken; 3] {
        let all = ["one", "pin", "two"].map(|name| self.open(name));
        user_logs_in(&all[1]);
        all
    }
}

fn pin(text: &str) -> Pin {
    Pin::new(Secret::new(text.as_bytes().to_vec())).unwrap()
}

fn user_logs_in(token: &LocalToken) {
    token.login(Role::User, &pin(USER), false).unwrap();
}

fn generate(token: &LocalToken, kind: KeyKind) -> Result<KeyRecord> {
    token.generate(&KeyRequest {
        kind,
        usage: Usage::SIGN,
        names: Names::default(),
    })
}

/// Signs by the token's first key.
fn sign(token: &LocalToken) -> Result<()> {
    let key = token.store().list()?.keys[0].clone();
    let signature = token.sign(&key, Scheme::Ecdsa, &[7; 32])?;
    key.public.verify(Scheme::Ecdsa, &[7; 32], &signature)
}

/// Asserts that there are so many workers; one that has just ended may still be seen for a moment.
#[track_caller]
fn assert_workers(wanted: usize) {
    let began = Instant::now();
    while workers() != wanted {
        let waited = began.elapsed();
        assert!(waited < Duration::from_secs(10), "{} workers", workers());
        thread::sleep(Duration::from_millis(5));
    }
}

/// The workers of this process.
fn workers() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    tasks
        .filter_map(name)
        .filter(|name| name == "devkey-tpm\n")
        .count()
}

/// Asserts that `what` sends exactly these commands, at one attempt at least.
fn commands(bench: &Bench, wanted: &[u32], what: impl Fn()) {
    let mut seen = Vec::new();
    for _ in 0..ATTEMPTS {
        what();
        seen = bench.proxy.take();
        if seen == wanted {
            return;
        }
    }
    panic!("{seen:x?}, not {wanted:x?}");
}

/// Whichever view asks, of whichever token, a second signature is one command.
///
/// Seen to fail with `Line::new` for `Line::shared` in `SHARED` (three workers), and with a view
/// that has a `Shared` of its own.
#[test]
fn a_second_signature_costs_one_command() {
    let _alone = alone();
    let bench = Bench::new();
    let [one, guarded, _two] = bench.open_all();
    let views = [guarded.view(), guarded.view()];
    views.iter().for_each(user_logs_in);
    for tokens in [[&one, &one.view()], [&views[0], &views[1]]] {
        commands(&bench, &[SIGN], || {
            sign(tokens[0]).unwrap();
            bench.proxy.take();
            sign(tokens[1]).unwrap();
        });
    }
    // Two tokens in turn: both stay loaded.
    commands(&bench, &[SIGN, SIGN], || {
        sign(&one).unwrap();
        sign(&views[0]).unwrap();
        bench.proxy.take();
        sign(&one).unwrap();
        sign(&views[1]).unwrap();
    });
    assert_workers(1);
}

/// A view that is not logged in gets nothing of what another one has loaded, and asks the TPM
/// nothing.
///
/// Seen to fail with `secret` of `LocalToken` taking whatever secret is present.
#[test]
fn a_view_without_login_gets_nothing() {
    let _alone = alone();
    let bench = Bench::new();
    let guarded = bench.open("pin");
    user_logs_in(&guarded);
    let other = guarded.view();
    commands(&bench, &[], || {
        sign(&guarded).unwrap();
        bench.proxy.take();
        let refused = sign(&other);
        assert!(matches!(refused, Err(Error::LoginRequired)), "{refused:?}");
    });
}

/// With the last login the key leaves the TPM, though the connection is busy; not with the last but
/// one.
///
/// Seen to fail with `TpmKey::drop` doing nothing, and with `*views == 0` in `OpenKeys::leave` turned
/// into `true`.
#[test]
fn the_last_logout_flushes() {
    let _alone = alone();
    let bench = Bench::new();
    let (one, guarded) = (bench.open("one"), bench.open("pin"));
    for dropped in [false, true] {
        commands(&bench, &[SIGN, FLUSH, SIGN], || {
            let (first, last) = (guarded.view(), guarded.view());
            user_logs_in(&first);
            user_logs_in(&last);
            sign(&one).unwrap();
            sign(&last).unwrap();
            bench.proxy.take();
            first.logout().unwrap();
            sign(&one).unwrap();
            match dropped {
                true => drop(last),
                false => last.logout().unwrap(),
            }
            sign(&one).unwrap();
        });
    }
}

/// Seen to fail with `Line::new` for `Line::shared` in `SHARED`.
#[test]
fn sixteen_threads_on_three_tokens() {
    let _alone = alone();
    let bench = Bench::new();
    let tokens = bench.open_all();
    bench.proxy.take();
    thread::scope(|scope| {
        for number in 0..16 {
            let view = tokens[number % 3].view();
            scope.spawn(move || {
                if number % 3 == 1 {
                    user_logs_in(&view);
                }
                for _ in 0..25 {
                    sign(&view).unwrap();
                }
                assert_workers(1);
            });
        }
    });
    let commands = bench.proxy.take();
    let signatures = commands.iter().filter(|code| **code == SIGN).count();
    assert_eq!(signatures, 16 * 25);
    bench.swtpm.assert_empty();
    drop(tokens);
    assert_workers(0);
}

/// Who comes first is served first, whatever the token.
///
/// Seen to fail with `pop_back` for `pop_front` in `Inner::next`.
#[test]
fn first_come_first_served() {
    let _alone = alone();
    let bench = Bench::new();
    let tokens = bench.open_all();
    tokens.iter().for_each(|token| sign(token).unwrap());
    bench.proxy.script(|code| match code {
        SIGN => Action::Delay(Duration::from_millis(250)),
        _ => Action::Pass,
    });
    let served = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for number in 0..12 {
            let (token, served) = (&tokens[number % 3], &served);
            scope.spawn(move || {
                sign(token).unwrap();
                served.lock().unwrap().push(number);
            });
            // Twelve stand in line before the fourth is served.
            thread::sleep(Duration::from_millis(60));
        }
    });
    assert_eq!(*served.lock().unwrap(), Vec::from_iter(0..12));
}

/// Users take turns: who comes last waits for one job of each other one, however many wait.
///
/// Seen to fail with the place alone for the key in `State::pop`.
#[test]
fn one_user_with_many_jobs_waits_longest() {
    let _alone = alone();
    let bench = Bench::new();
    let token = bench.open("one");
    sign(&token).unwrap();
    bench.proxy.script(|code| match code {
        SIGN => Action::Delay(Duration::from_millis(250)),
        _ => Action::Pass,
    });
    let served = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let (token, served) = (&token, &served);
        let signs = |user| {
            scope.spawn(move || {
                ask_for(user);
                sign(token).unwrap();
                served.lock().unwrap().push(user);
            });
        };
        (0..10).for_each(|_| signs(1));
        thread::sleep(Duration::from_millis(300));
        signs(2);
        signs(3);
    });
    let served = served.into_inner().unwrap();
    let place = |user| served.iter().position(|one| *one == user).unwrap();
    assert!(place(2) <= 4 && place(3) <= 4, "{served:?}");
}

/// Who makes an RSA key on one TPM keeps nobody waiting on another.
///
/// Seen to fail with the same name for every line in `Line::shared`.
#[test]
fn another_tpm_is_not_kept_waiting() {
    let _alone = alone();
    let (slow, fast) = (Bench::new(), Bench::new());
    let (maker, signer) = (slow.open("one"), fast.open("one"));
    slow.proxy.script(|code| match code {
        CREATE => Action::Delay(Duration::from_secs(4)),
        _ => Action::Pass,
    });
    thread::scope(|scope| {
        let making = scope.spawn(|| generate(&maker, KeyKind::Rsa2048).unwrap());
        thread::sleep(Duration::from_millis(100));
        for _ in 0..20 {
            sign(&signer).unwrap();
        }
        assert!(!making.is_finished());
    });
    assert_workers(2);
}

/// Who waits behind too many is told, and nothing is done for him.
///
/// Seen to fail with `state.waiting.remove(place)` in `Inner::overdue` taken out (more signatures
/// than were handed out), and with `recv` for `recv_timeout` in `Line::ask`.
#[test]
fn a_line_that_is_too_long_is_named() {
    let _alone = alone();
    let bench = Bench::new();
    let token = bench.open_with("one", &[("timeout", "1")]);
    sign(&token).unwrap();
    bench.proxy.take();
    bench.proxy.script(|code| match code {
        SIGN => Action::Delay(Duration::from_millis(300)),
        _ => Action::Pass,
    });
    let (signed, busy) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let began = Instant::now();
                match sign(&token) {
                    Ok(()) => signed.fetch_add(1, Ordering::Relaxed),
                    Err(Error::DeviceError { reason, .. }) => {
                        assert!(reason.starts_with("busy: "), "{reason}");
                        busy.fetch_add(1, Ordering::Relaxed)
                    }
                    Err(unexpected) => panic!("{unexpected}"),
                };
                let waited = began.elapsed();
                // The whole line takes 4.8 s.
                assert!(waited < Duration::from_millis(3500), "{waited:?}");
            });
        }
    });
    let (signed, busy) = (signed.into_inner(), busy.into_inner());
    assert!(
        (3..=6).contains(&signed) && signed + busy == 16,
        "{signed} {busy}"
    );
    bench.proxy.script(|_| Action::Pass);
    sign(&token).unwrap();
    let commands = bench.proxy.take();
    let asked = commands.iter().filter(|code| **code == SIGN).count();
    assert_eq!(asked, signed + 1);
    bench.swtpm.assert_empty();
}

/// A silent TPM is given up for all who wait for it, and found again by all; the worker that hung
/// ends when it hears something.
///
/// Seen to fail with `give_up` leaving the worker where it is.
#[test]
fn a_silent_tpm_is_given_up_by_all() {
    let _alone = alone();
    let bench = Bench::new();
    // Longer than what the worker that hangs keeps loaded stays in a TPM without a resource manager.
    let tokens = ["one", "two"].map(|name| bench.open_with(name, &[("timeout", "3")]));
    tokens.iter().for_each(|token| sign(token).unwrap());
    bench.proxy.script(|code| match code {
        SIGN => Action::Silence,
        _ => Action::Pass,
    });
    let began = Instant::now();
    thread::scope(|scope| {
        for number in 0..8 {
            let token = &tokens[number % 2];
            scope.spawn(move || {
                let silent = sign(token);
                assert!(matches!(silent, Err(Error::Timeout { .. })), "{silent:?}");
            });
        }
    });
    let waited = began.elapsed();
    assert!(waited < Duration::from_millis(5500), "{waited:?}");
    bench.proxy.script(|_| Action::Pass);
    tokens.iter().for_each(|token| sign(token).unwrap());
    assert_eq!(workers(), 2);
    bench.swtpm.assert_empty();
    drop((tokens, bench));
    assert_workers(0);
}

/// A token of another TPM is told so, on the connection that others use, and they go on.
///
/// Seen to fail with the check in `Link::live` taken out.
#[test]
fn each_tokens_own_tpm_is_checked() {
    let _alone = alone();
    let (bench, other) = (Bench::new(), Bench::new());
    let token = bench.open("one");
    let store = Store::open(&other.dir("one")).unwrap();
    let stray = LocalToken::open(&SHARED, store, &bench.settings(&[])).unwrap();
    for _ in 0..3 {
        sign(&token).unwrap();
        let refused = sign(&stray);
        assert!(
            matches!(refused, Err(Error::OtherDevice { .. })),
            "{refused:?}"
        );
    }
    assert_workers(1);
    drop(token);
    let refused = sign(&stray);
    assert!(
        matches!(refused, Err(Error::OtherDevice { .. })),
        "{refused:?}"
    );
    bench.swtpm.assert_empty();
}

/// Whatever befalls the TPM under 16 threads: nothing but clear errors meanwhile, then every token
/// signs and nothing is left.
fn heals(mut befall: impl FnMut(&mut Bench)) {
    let mut bench = Bench::new();
    let tokens = bench.open_all();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..16 {
            let (token, over) = (&tokens[number % 3], &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    match sign(token) {
                        Ok(()) | Err(Error::DeviceGone { .. } | Error::DeviceError { .. }) => {}
                        Err(unexpected) => panic!("{unexpected:?}"),
                    }
                }
            });
        }
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(100));
            befall(&mut bench);
        }
        over.store(true, Ordering::Relaxed);
    });
    tokens.iter().for_each(|token| sign(token).unwrap());
    bench.swtpm.assert_empty();
    assert_workers(1);
}

/// That `Link::run` begins anew is tried by the tests of the same name in tests/tpm.rs.
#[test]
fn a_killed_tpm_is_found_again() {
    let _alone = alone();
    heals(|bench| {
        bench.swtpm.kill();
        thread::sleep(Duration::from_millis(50));
        bench.swtpm.run();
    });
}

/// No connection breaks, but what was loaded is gone: nobody notices.
///
/// Seen to fail, by hanging, with `Remedy::Rebuild` in `Link::run` given up at once.
#[test]
fn a_suspended_tpm_is_not_noticed() {
    let _alone = alone();
    let bench = Bench::new();
    let tokens = bench.open_all();
    for _ in 0..10 {
        tokens.iter().for_each(|token| sign(token).unwrap());
        bench.swtpm.suspend();
        tokens.iter().for_each(|token| sign(token).unwrap());
    }
    bench.swtpm.assert_empty();
    drop((tokens, bench));
    heals(|bench| bench.swtpm.suspend());
}

/// The line breaks at every tenth command, before it or in the answer.
///
/// Seen to fail before sessions of broken connections were swept and reclaimed.
#[test]
fn a_broken_line_is_found_again() {
    let _alone = alone();
    let mut nth = 0;
    heals(|bench| {
        bench.proxy.script(move |_| {
            nth += 1;
            match nth % 10 {
                3 => Action::LoseCommand,
                8 => Action::CutReply(7),
                _ => Action::Pass,
            }
        });
        thread::sleep(Duration::from_millis(150));
        bench.proxy.script(|_| Action::Pass);
    });
}

/// A session whose command was lost, or whose beginning was, is found again, though it has no Name.
///
/// Seen to fail with the handles that `Live::forget_sessions` gives left out, and with the call of
/// `Link::reclaim`.
#[test]
fn lost_sessions_are_found_again() {
    let _alone = alone();
    let bench = Bench::new();
    let guarded = bench.open("pin");
    user_logs_in(&guarded);
    for lost in [SIGN, START_AUTH_SESSION] {
        // More than a TPM has room for.
        for _ in 0..5 {
            sign(&guarded).unwrap();
            let mut once = false;
            bench.proxy.script(move |code| match code == lost && !once {
                true => {
                    once = true;
                    Action::CutReply(7)
                }
                false => Action::Pass,
            });
            // What is loaded goes, and with it the session.
            thread::sleep(Duration::from_millis(if lost == SIGN { 0 } else { 60 }));
            sign(&guarded).unwrap();
            if lost == SIGN {
                bench.swtpm.assert_empty();
            }
        }
    }
    bench.proxy.script(|_| Action::Pass);
    sign(&guarded).unwrap();
}

/// The last view of a token goes while another thread is in the midst of an operation of it, and a
/// key with an auth is loaded: nothing is left, and the worker ends.
///
/// Seen to fail with `Line::drop` not waiting for the worker.
#[test]
fn what_is_dropped_in_the_midst_leaves_nothing() {
    let _alone = alone();
    let bench = Bench::new();
    bench.proxy.script(|code| match code {
        SIGN | LOAD => Action::Delay(Duration::from_millis(100)),
        _ => Action::Pass,
    });
    let [one, guarded, two] = bench.open_all();
    let signing = [one, guarded, two].map(|token| {
        let view = token.view();
        thread::spawn(move || {
            sign(&view).ok();
            // Its login, key and connection end with it.
            if view.store().token().pin {
                user_logs_in(&view);
                sign(&view).unwrap();
            }
        })
    });
    signing
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(bench.proxy.take().last(), Some(&FLUSH));
    assert_workers(0);
    bench.swtpm.assert_empty();
}

/// The end of the service, amid operations: those that wait are told, nothing is left when `close`
/// returns, and nobody asks the TPM again.
///
/// Seen to fail, by hanging, with `close_shared` doing nothing.
#[test]
fn a_service_that_ends_leaves_nothing() {
    let _alone = alone();
    let bench = Bench::new();
    let tokens = bench.open_all();
    tokens.iter().for_each(|token| sign(token).unwrap());
    bench.proxy.script(|code| match code {
        SIGN => Action::Delay(Duration::from_millis(100)),
        _ => Action::Pass,
    });
    thread::scope(|scope| {
        for number in 0..16 {
            let token = &tokens[number % 3];
            scope.spawn(move || {
                let ended = loop {
                    if let Err(ended) = sign(token) {
                        break ended;
                    }
                };
                assert!(matches!(ended, Error::DeviceGone { .. }), "{ended:?}");
            });
        }
        thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        back_end::close();
        // The farewell of one worker, at most.
        assert!(began.elapsed() < Duration::from_secs(4));
        assert_workers(0);
        assert_eq!(bench.proxy.take().last(), Some(&FLUSH));
    });
    assert!(bench.proxy.take().is_empty());
    bench.swtpm.assert_empty();
}
