//! A service that stops, ends, is upgraded, is not there.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};
use std::{env, fs};

use devkey::Error;
use devkey::key::{KeyKind, Usage};
use devkey::token::{KeyRequest, Names, Token};
use rustix::process::Signal;

use crate::load::{remote, sign};
use crate::machine::{DAEMON, KEEPER, Machine, NOBODY, ROOT};

const RULES: &str = "[token.web]\nuse = [\"daemon\"]\n";

/// systemd keeps the socket while the service is upgraded under clients that sign all the time.
///
/// Seen to fail without the second `attempt` in `Link::call`.
#[test]
fn no_signature_fails_while_the_service_is_upgraded() {
    let mut machine = Machine::new(RULES);
    machine.end(Signal::TERM);
    let listener = UnixListener::bind(machine.socket()).unwrap();
    chown(machine.socket(), Some(KEEPER), Some(KEEPER)).unwrap();
    fs::set_permissions(machine.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let start = || passed(&machine, &listener);
    let (over, counts) = (AtomicBool::new(false), [const { AtomicU32::new(0) }; 4]);
    let counted = || counts.each_ref().map(|count| count.load(Ordering::Relaxed));
    // Also where something fails, lest the others go on for ever.
    let stop = || over.store(true, Ordering::Relaxed);
    let mut service = start();
    thread::scope(|scope| {
        for count in &counts {
            scope.spawn(|| {
                let token = remote(&machine, "web", Duration::from_secs(20));
                while !over.load(Ordering::Relaxed) {
                    sign(&token).inspect_err(|_| stop()).unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // The module, in one process; the tool asks for all of them in turn.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let signed = machine.sign(DAEMON, "web", "k").output();
                if !signed.status.success() {
                    stop();
                    panic!("{signed}");
                }
            }
        });
        for round in 0..8 {
            sleep(Duration::from_millis(300));
            let before = counted();
            let signal = ["-TERM", "-KILL"][round % 2];
            let kill = Command::new("kill")
                .args([signal, &service.id().to_string()])
                .status();
            assert!(kill.unwrap().success());
            service.wait().unwrap();
            // It takes a moment.
            sleep(Duration::from_millis(100));
            service = start();
            let begun = Instant::now();
            // Each of them: one that meets two ends in one signature rightly fails.
            let all_sign = || counted().iter().zip(before).all(|(now, then)| *now > then);
            while !all_sign() && !over.load(Ordering::Relaxed) {
                if begun.elapsed() > Duration::from_secs(20) {
                    stop();
                    panic!("nobody signs any more");
                }
                sleep(Duration::from_millis(1));
            }
        }
        stop();
    });
    let sum: u32 = counted().iter().sum();
    println!("{sum} signatures across 8 services");
    service.kill().unwrap();
    service.wait().unwrap();
}

/// As systemd starts it: with a socket that listens.
fn passed(machine: &Machine, listener: &UnixListener) -> Child {
    let socket = OwnedFd::from(listener.try_clone().unwrap());
    let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" --listen";
    let mut command = Command::new("nsenter");
    command.arg(format!("--mount={}", machine.space()));
    command.args([
        "setpriv",
        "--reuid",
        "991",
        "--regid",
        "991",
        "--clear-groups",
    ]);
    command
        .args(["sh", "-c", script])
        .arg(machine.path("devkeyd"));
    command
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap());
    let log = fs::File::create(machine.path("log")).unwrap();
    // One that a failed test leaves behind has nobody wait for it.
    let command = command.stdin(socket).stdout(Stdio::null()).stderr(log);
    command.spawn().unwrap()
}

/// A mistake in devkey.toml is one line, and clients wait until it is corrected.
///
/// Seen to fail with `wait` left out of `start` in listen.rs, and with a line at each look.
#[test]
fn a_configuration_that_cannot_be_read_is_waited_for() {
    let mut machine = Machine::new(RULES);
    machine.end(Signal::TERM);
    let listener = UnixListener::bind(machine.socket()).unwrap();
    chown(machine.socket(), Some(KEEPER), Some(KEEPER)).unwrap();
    fs::set_permissions(machine.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let edit = |script: &str| {
        let run = machine.user(ROOT, "sh").args(["-c", script]);
        run.dir(Path::new("/")).ok();
    };
    edit("cd /etc/devkey; cp devkey.toml right; echo nonsense >>devkey.toml");
    let mut service = passed(&machine, &listener);
    sleep(Duration::from_secs(3));
    assert!(service.try_wait().unwrap().is_none(), "{}", machine.log());
    assert_eq!(
        machine.log().matches("devkey.toml").count(),
        1,
        "{}",
        machine.log()
    );
    thread::scope(|scope| {
        let signs =
            scope.spawn(|| sign(&remote(&machine, "web", Duration::from_secs(20))).unwrap());
        sleep(Duration::from_millis(300));
        edit("cp /etc/devkey/right /etc/devkey/devkey.toml");
        signs.join().unwrap();
    });
    service.kill().unwrap();
    service.wait().unwrap();
    // It ends when it is told to, whatever it waits for.
    edit("echo nonsense >>/etc/devkey/devkey.toml");
    let mut service = passed(&machine, &listener);
    sleep(Duration::from_secs(1));
    let pid = rustix::process::Pid::from_child(&service);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert!(service.wait().unwrap().success());
}

/// Seen to fail with `repeatable` true for `Generate`.
#[test]
fn a_key_is_not_made_twice() {
    let mut machine = Machine::new(RULES);
    let token = remote(&machine, "web", Duration::from_secs(20));
    sign(&token).unwrap();
    let made = thread::scope(|scope| {
        let made = scope.spawn(|| {
            token.generate(&KeyRequest {
                kind: KeyKind::Rsa4096,
                usage: Usage::SIGN,
                names: Names::default(),
            })
        });
        // Time enough to ask, and not to make one.
        sleep(Duration::from_millis(200));
        machine.end(Signal::KILL);
        machine.start();
        made.join().unwrap()
    });
    match made {
        Err(e @ Error::DeviceGone { .. }) => {
            assert!(
                e.to_string().contains("look whether the change was made"),
                "{e}"
            );
            assert!(token.store().list().unwrap().keys.len() <= 2);
        }
        // It was very fast.
        other => assert_eq!(token.store().list().unwrap().keys.len(), 2, "{other:?}"),
    }
    sign(&token).unwrap();
}

/// `a_service_that_is_late_is_given_up` in tests/service.rs says what it was seen to fail with.
#[test]
fn a_service_that_is_stopped_is_given_up_in_time() {
    let machine = Machine::new(RULES);
    let patience = Duration::from_secs(2);
    let (known, fresh) = [(); 2].map(|()| remote(&machine, "web", patience)).into();
    sign(&known).unwrap();
    machine.stop();
    for token in [&known, &fresh, &known] {
        let begun = Instant::now();
        let refused = sign(token);
        assert!(matches!(refused, Err(Error::Timeout { .. })), "{refused:?}");
        let took = begun.elapsed();
        assert!(took >= patience && took < patience * 2, "{took:?}");
    }
    machine.signal(Signal::CONT);
    sign(&known).unwrap();
    sign(&fresh).unwrap();
}

/// What is public is there without the service; who is about to sign is told before there is data.
///
/// Seen to fail without `ready` in `Session::sign_init` of the module.
#[test]
fn without_the_service_there_is_a_list_and_a_clear_error() {
    let mut machine = Machine::new(RULES);
    machine.end(Signal::KILL);
    let listed = machine
        .pkcs11(DAEMON, "web")
        .args(["-O", "--type", "pubkey"]);
    listed.ok().says(&["label:      k"]);
    let refused = machine.sign(DAEMON, "web", "k").fails();
    refused.says(&["C_SignInit failed: rv = CKR_DEVICE_ERROR"]);
    let error = sign(&remote(&machine, "web", Duration::from_secs(2))).unwrap_err();
    for advice in ["nobody listens there", "systemctl start devkeyd.socket"] {
        assert!(error.to_string().contains(advice), "{error}");
    }
    machine.start();
    machine.sign(DAEMON, "web", "k").ok();
}

/// A service that was ended takes its socket along. Its tokens stay its own: who may use them is told what is
/// wrong before there is data, who may not sees none.
///
/// Seen to fail with `is_kept` left out of `Links::to`, and of `is_permitted`.
#[test]
fn tokens_of_a_service_that_was_ended_are_its_own() {
    let mut machine = Machine::new(RULES);
    machine.end(Signal::TERM);
    assert!(!machine.socket().exists());
    let refused = machine.sign(DAEMON, "web", "k").fails();
    refused.says(&["C_SignInit failed: rv = CKR_DEVICE_ERROR"]);
    let refused = machine
        .devkey(DAEMON)
        .words("key new --token web x")
        .fails();
    refused.says(&["there is no socket", "systemctl start devkeyd.socket"]);
    let listed = machine.pkcs11(NOBODY, "web").arg("-L").output();
    listed.says_not(&["token label"]);
    let refused = machine.sign(ROOT, "web", "k").fails();
    refused.says(&["C_SignInit failed: rv = CKR_DEVICE_ERROR"]);
    machine.start();
    machine.sign(DAEMON, "web", "k").ok();
}

/// Seen to fail with each of the two checks in meet.rs taken out.
#[test]
fn a_socket_that_another_may_have_put_there_is_not_used() {
    let machine = Machine::new(RULES);
    let signs = || sign(&remote(&machine, "web", Duration::from_secs(2)));
    signs().unwrap();
    let dir = machine.path("run/devkey");
    let mode = |mode| fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
    let refused = |why: &str| {
        let refused = signs().unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    };
    for open in [0o777, 0o1777, 0o775] {
        mode(open);
        refused("write it");
    }
    mode(0o755);
    chown(&dir, Some(NOBODY.0), None).unwrap();
    refused("belongs to user 65534");
    chown(&dir, Some(KEEPER), None).unwrap();
    signs().unwrap();
    // A link from a good directory to another's socket.
    let theirs = machine.path("theirs");
    fs::create_dir(&theirs).unwrap();
    chown(&theirs, Some(NOBODY.0), None).unwrap();
    let (socket, config) = (theirs.join("socket"), theirs.join("devkey.toml"));
    fs::write(&config, "").unwrap();
    let run = machine
        .user(NOBODY, "env")
        .arg(format!("DEVKEY_CONFIG={}", config.display()));
    let run = run
        .arg(machine.path("devkeyd"))
        .arg("--listen")
        .arg(&socket);
    let _service = run.serve(&machine.path("theirs.log"));
    let begun = Instant::now();
    while !socket.exists() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        sleep(Duration::from_millis(5));
    }
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    fs::remove_file(machine.socket()).unwrap();
    symlink(&socket, machine.socket()).unwrap();
    refused("user 65534 listens there");
}
