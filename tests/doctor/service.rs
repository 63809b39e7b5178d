//! The area `service`: a key service of the system, as a user of its own. By root.

use std::fs;
use std::os::unix::net::UnixListener;

use crate::checks::Checks;
use crate::common::system::KEEPER;
use crate::common::{Backend, System};
use crate::machine::{Machine, NOBODY, mode};

fn doctor(system: &System, line: &str) -> Checks {
    Checks::of(system.device.devkey().arg("doctor").words(line))
}

fn doctor_as(system: &System, line: &str) -> Checks {
    let run =
        system
            .device
            .run("setpriv")
            .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
    Checks::of(
        run.arg(env!("CARGO_BIN_EXE_devkey"))
            .arg("doctor")
            .words(line),
    )
}

/// Seen to fail with `served` always empty, and with neither `wanted` nor `owned` looked at.
#[test]
fn a_service_that_runs_is_ok_and_one_that_has_stopped_is_not() {
    let mut system = System::new(Backend::File, false, "use = ['nobody']");
    let said = doctor(&system, "service tokens");
    said.ok("service.socket", &["run/socket"])
        .ok("service.answers", &["version 0.1.0"]);
    said.ok("service.rights", &["machine: you may use and manage it"]);
    said.ok("tokens.open", &["machine"])
        .none("tokens.macs", &[]);
    doctor_as(&system, "service").ok("service.rights", &["machine: you may use it"]);
    system.service = None;
    doctor(&system, "service").failed(
        "service.socket",
        &["not there", "used through it"],
        "systemctl enable --now devkeyd.socket",
    );
    let socket = system.socket();
    drop(UnixListener::bind(&socket).unwrap());
    doctor(&system, "service").failed(
        "service.answers",
        &["nobody listens"],
        "systemctl start devkeyd.socket",
    );
}

/// Who has no right is told where it is given, and that it is no failure. Seen to fail with
/// `allow_anything` always true.
#[test]
fn rights_are_those_of_who_asks() {
    let system = System::new(Backend::File, false, "use = []");
    let said = doctor_as(&system, "service tokens");
    said.none("service.rights", &["machine: nobody may do nothing"]);
    said.none("tokens.open", &["for others"]);
    // What is granted since the service began it does not know yet.
    let config = system.device.config();
    let text = fs::read_to_string(&config)
        .unwrap()
        .replace("use = []", "use = ['nobody']");
    fs::write(&config, text).unwrap();
    doctor_as(&system, "service").failed(
        "service.rights",
        &["you may use it by devkey.toml, but"],
        "systemctl restart devkeyd",
    );
}

/// One that takes the connection and says nothing, and one of somebody else. Seen to fail, by its deadline,
/// without `with_patience`, and with `greet` not asked.
#[test]
fn who_is_silent_or_a_stranger_is_no_service() {
    let machine = Machine::with_key();
    let run = machine.path("run");
    fs::create_dir(&run).unwrap();
    mode(&run, 0o755);
    let socket = run.join("socket");
    machine.configure(&format!("socket = {socket:?}\nuser = '{KEEPER}'\n"));
    let listener = UnixListener::bind(&socket).unwrap();
    machine
        .doctor("service")
        .failed("service.answers", &["did not answer within 10 s"], "");
    drop(listener);
    mode(&run, 0o777);
    machine
        .doctor("service")
        .failed("service.answers", &["others can write it"], "chmod go-w");
}

/// No service is no fault where nothing wants one. Seen to fail with `Finding::failed` for it.
#[test]
fn without_a_service_nothing_is_wrong() {
    let machine = Machine::with_key();
    machine
        .doctor("service")
        .none("service.socket", &["names none"]);
}

/// A member of the group in a session from before, and in one of after. /etc/group is the test's own. Seen to
/// fail with `AfterLogin` taken for `No`.
#[test]
fn a_session_from_before_the_group_is_named() {
    let machine = Machine::with_key();
    let say = |groups: &str| {
        let script = format!(
            "cp /etc/group group; sed -i /^devkey:/d group; echo devkey:x:4711:nobody >> group
             mount --bind group /etc/group
             setpriv --reuid {NOBODY} --regid {NOBODY} {groups} $DEVKEY doctor service"
        );
        machine.in_namespace_of_root(&script).ok().text()
    };
    let before = say("--clear-groups");
    assert!(before.contains("WARNING service.group"), "{before}");
    assert!(before.contains("log in again"), "{before}");
    assert!(
        say("--groups 4711").contains("ok      service.group"),
        "{before}"
    );
}
