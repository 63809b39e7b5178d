//! PINs: of one client's process alone, and nowhere when they were used.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use rustix::process::Pid;

use crate::machine::{Machine, ROOT, User, WWW_DATA};
use crate::wire;

/// Long ones: what is freed loses its first bytes to the allocator.
const PIN: &str = "pin-of-thirty-two-bytes-51904628";
const SO_PIN: &str = "so--of-thirty-two-bytes-80934627";
const RULES: &str = "[token.pinned]\nuse = [\"www-data\"]\n";

/// A machine with a token that has PINs, and a key.
fn machine() -> Machine {
    let mut machine = Machine::silent(RULES);
    machine.start();
    for (name, pin) in [("pin", PIN), ("so", SO_PIN)] {
        fs::write(machine.path(name), pin).unwrap();
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(machine.path(name), mode).unwrap();
    }
    let init = machine
        .devkey(ROOT)
        .words("init --system --back-end file --pin --pin-file");
    let init = init.arg(machine.path("pin")).arg("--so-pin-file");
    init.arg(machine.path("so")).arg("pinned").ok();
    let new = machine
        .devkey(ROOT)
        .words("key new --kind ec-p256 --token pinned k --pin-file");
    new.arg(machine.path("pin")).ok();
    machine
}

/// a_login_is_one_connections in tests/listen.rs says what it was seen to fail with.
#[test]
fn a_login_is_of_one_process() {
    let machine = machine();
    let sign = |pin: Option<&str>| {
        let run = machine.sign(WWW_DATA, "pinned", "k");
        run.args(pin.map(|_| "--login"))
            .args(pin.map(|pin| format!("--pin={pin}")))
    };
    sign(Some(PIN)).ok();
    sign(None).fails();
    sign(Some("a-pin-0000000000"))
        .fails()
        .says(&["CKR_PIN_INCORRECT"]);
    machine
        .sign(User(77, &[]), "pinned", "k")
        .args(["--login", "--pin", PIN])
        .fails();
    sign(Some(PIN)).ok();
}

/// No page of the service holds a PIN when it was used, right or wrong, to log in, to change it or to
/// make the token; and no line of the log.
///
/// Seen to fail with `Frame` not wiped.
#[test]
fn pins_are_wiped() {
    let machine = machine();
    let wrong = "no--of-thirty-two-bytes-22941133";
    // Both connections stay, and nothing is said on them that could overwrite what was.
    let log_in = |pin: &str| {
        wire::as_user(WWW_DATA.0, || {
            let mut stream = wire::greet(&machine.socket());
            wire::ask(&mut stream, &wire::find("pinned")).unwrap();
            let login = [&[11, 0, 0, 32], pin.as_bytes(), &[0]].concat();
            let answer = wire::ask(&mut stream, &wire::message(&login)).unwrap();
            (stream, answer == [0, 5])
        })
    };
    let (_one, refused) = log_in(wrong);
    let (_other, taken) = log_in(PIN);
    assert!(taken && !refused);
    let service = machine.pid();
    // What is there is found.
    assert!(holds(service, b"/var/lib/devkey/pinned"));
    for pin in [PIN, SO_PIN, wrong] {
        assert!(
            !holds(service, pin.as_bytes()),
            "{pin} is in the service's memory"
        );
        assert!(!machine.log().contains(pin));
    }
}

/// Whether a process's memory holds these bytes.
fn holds(process: Pid, wanted: &[u8]) -> bool {
    let process = Path::new("/proc").join(process.as_raw_nonzero().to_string());
    let memory = File::open(process.join("mem")).unwrap();
    let maps = fs::read_to_string(process.join("maps")).unwrap();
    let finder = wanted[0];
    maps.lines().any(|line| {
        let mut words = line.split_whitespace();
        let (range, mode) = (words.next().unwrap(), words.next().unwrap());
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|hex| u64::from_str_radix(hex, 16).unwrap());
        if !mode.starts_with("rw") {
            return false;
        }
        let mut bytes = vec![0; (end - start) as usize];
        // The kernel's own pages and those that were never touched cannot be read.
        if memory.read_exact_at(&mut bytes, start).is_err() {
            return false;
        }
        let mut at = 0;
        while let Some(next) = bytes[at..].iter().position(|byte| *byte == finder) {
            at += next;
            if bytes[at..].starts_with(wanted) {
                return true;
            }
            at += 1;
        }
        false
    })
}
