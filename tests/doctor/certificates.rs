//! The area `certificates`, with openssl and ssh-keygen as CAs and another time by faketime.

use std::fs;

use crate::checks::Checks;
use crate::machine::Machine;

/// A root, and certificates of the key "laptop" in `x509.pem` and `ssh-cert.pub`, for 60 days.
const ISSUE: &str = "
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -keyout root.key \
        -out root.pem -days 3650 -subj /CN=root -addext keyUsage=critical,keyCertSign
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -keyout tmp.key -out tmp.csr -subj /CN=laptop
    openssl x509 -req -in tmp.csr -days 60 -CA root.pem -CAkey root.key -force_pubkey laptop.pem -out x509.pem
    ssh-keygen -q -t ed25519 -N '' -f ca
    ssh-keygen -q -s ca -I laptop -n me -V +60d laptop.pub";

fn issued() -> Machine {
    let machine = Machine::with_key();
    for (format, file) in [("ssh", "laptop.pub"), ("pem", "laptop.pem")] {
        let shown = machine
            .devkey(&format!("key show laptop --format {format}"))
            .ok();
        fs::write(machine.path(file), shown.text()).unwrap();
    }
    machine.run("sh").args(["-e", "-c", ISSUE]).ok();
    machine.devkey("cert install x509.pem").ok();
    machine.devkey("cert install laptop-cert.pub").ok();
    machine
}

fn at(machine: &Machine, time: &str) -> Checks {
    let run = machine
        .run("faketime")
        .arg(time)
        .arg(env!("CARGO_BIN_EXE_devkey"));
    Checks::of(run.words("doctor certificates"))
}

/// Both kinds: now, near their end, after it and before their beginning. Seen to fail without the
/// arms of `valid` for what has ended and for what has not begun.
#[test]
fn certificates_are_valid_end_soon_have_ended_or_are_not_yet_valid() {
    let machine = issued();
    let kinds = ["laptop-cert.pub", ".crt"];
    let now = machine.doctor("certificates");
    now.ok("certificates.key", &["default"]);
    for kind in kinds {
        now.ok("certificates.valid", &["default", kind, "\"laptop\""]);
        at(&machine, "+40 days").warning(
            "certificates.valid",
            &[kind, "ends in "],
            "devkey cert renew --token default laptop",
        );
        at(&machine, "+70 days").failed(
            "certificates.valid",
            &[kind, "ended"],
            "devkey cert renew",
        );
        at(&machine, "-10 days").failed("certificates.valid", &[kind, "not valid before"], "clock");
    }
    let near = machine.doctor("certificates --expires-within 90d");
    near.warning("certificates.valid", &["ends in "], "devkey cert renew");
}

/// A file that somebody put there, and one that is none. Seen to fail with `keys` left out, and with
/// `broken` not said.
#[test]
fn certificates_of_other_keys_and_broken_ones_are_named() {
    let machine = issued();
    fs::copy(machine.path("root.pem"), machine.token().join("stray.crt")).unwrap();
    fs::write(
        machine.token().join("half-cert.pub"),
        "ecdsa-sha2-nistp256-cert-v01@openssh.com AAAA",
    )
    .unwrap();
    let said = machine.doctor("certificates");
    said.warning(
        "certificates.key",
        &["stray.crt", "no key of the token"],
        "devkey cert delete",
    );
    said.failed(
        "certificates.read",
        &["default", "half-cert.pub"],
        "remove the file",
    );
}
