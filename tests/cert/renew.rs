//! `devkey renew`: what it renews, and what keeps the old certificate.

use std::fs;
use std::time::{Duration, Instant};

use crate::authority::World;
use crate::common::{Backend, Device, Output};

/// Each way for a command to fail, and a word of the reason; the certificate stays as it is, byte for
/// byte. Seen to fail with these left out: `answered_by`, `later_than`, the status.
#[test]
fn a_failed_renewal_leaves_everything() {
    let world = World::new();
    world.certify("web", "first", 10);
    world.install("first.pem");
    world.certify("other", "others", 20);
    world.certify("web", "shorter", 5);
    world.certify("web", "longer", 20);
    let (before, mut wrong) = (world.files(), Vec::new());
    for (command, more, reason) in [
        ("exit 7", "", "exit status: 7"),
        ("cat longer.pem; exit 1", "", "the command failed"),
        ("kill -9 $$", "", "signal: 9"),
        ("true", "", "there is nothing in it"),
        ("echo sorry", "", "what the command printed"),
        ("cat others.pem", "", "is for key \"other\""),
        ("cat \"$DEVKEY_CERTIFICATE\"", "", "does not end later"),
        ("cat shorter.pem", "", "does not end later"),
        ("cat longer.pem", "--ca stranger.pem", "is known"),
        ("yes", "", "more than 262143 bytes"),
        ("sleep 100", "--timeout 1s", "did not answer within 1 s"),
        (
            "cat longer.pem; sleep 100 &",
            "--timeout 1s",
            "did not answer within 1 s",
        ),
        ("nonsense-command", "", "exit status: 127"),
    ] {
        let started = Instant::now();
        let output = renew(&world, &["--command", command], more);
        let all = output.all();
        let keeps = all.contains("key \"web\" on token machine keeps its certificate");
        let said = keeps && all.contains(reason) && all.contains("  try: ");
        let in_time = started.elapsed() < Duration::from_secs(20);
        let same = world.files() == before;
        if output.status.code() != Some(1) || !said || !in_time || !same {
            wrong.push(format!(
                "{command}: {reason:?}, unchanged {same}: {output}\n"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.concat());
    renew(&world, &[], "").says(&["no command that reaches the CA", "[renew]"]);
    renew(&world, &["--command", "cat longer.pem"], "--ca root.pem").says(&["CN=longer"]);
    assert_eq!(world.subjects(), ["CN=longer,O=Example", "CN=between"]);
}

/// Both kinds of certificate of a key; the request is that of the old names, the command sees them, and
/// nothing of it stays behind. `after` runs when something was renewed, and then alone.
#[test]
fn all_kinds_are_renewed_by_their_names() {
    let world = World::new();
    world.certify("web", "first", 10);
    world.install("first.pem");
    world.certify_ssh("login", "-n me -V +1h");
    world.certify_ssh("server", "-h -n host.example -V +1h");
    world.install("login-cert.pub");
    world.install("server-cert.pub");
    fs::create_dir(world.path("scratch")).unwrap();
    let watching = "cat > seen; env | grep ^DEVKEY_ >> seen; sh ./enrol";
    let args = ["--command", watching, "--after", "echo done >> after"];
    let output = renew(&world, &args, "--ca root.pem --ssh-ca sshca.pub");
    assert!(output.status.success(), "{output}");
    assert_eq!(output.text().matches("installed").count(), 3, "{output}");
    let ends = |one: &serde_json::Value| one["expires_in"].as_i64().unwrap() > 39 * 86_400;
    assert!(world.list().iter().all(ends), "{:?}", world.list());
    let first = &world.list()[0];
    assert_eq!(
        first["names"],
        serde_json::json!(["dns:localhost", "ip:127.0.0.1"])
    );
    let seen = String::from_utf8(world.read("seen")).unwrap();
    for word in [
        "\"devkey\": \"request\"",
        "DEVKEY_LABEL=web",
        "DEVKEY_TOKEN=machine",
        "DEVKEY_CSR=/",
    ] {
        assert!(seen.contains(word), "{word:?} is not in {seen}");
    }
    assert_eq!(fs::read_dir(world.path("scratch")).unwrap().count(), 0);
    renew(&world, &args, "").says(&["nothing expires within 30 days"]);
    assert_eq!(world.read("after"), b"done\n");
    // One key, whenever; the longer one stays where the new one is not longer still.
    let shorter = "sed s/40/39/ enrol > now; sh ./now";
    let one = world.cert("renew web --command").arg(shorter).output();
    one.says(&["keeps its certificate", "does not end later"]);
}

/// What cannot be renewed keeps nothing else from it.
#[test]
fn one_failure_stops_no_other() {
    let world = World::new();
    for label in ["other", "web"] {
        world.certify(label, label, 10);
        world.install(&format!("{label}.pem"));
    }
    let command = "test $DEVKEY_LABEL = web && sh ./enrol";
    let output = renew(&world, &["--command", command], "");
    assert_eq!(output.status.code(), Some(1), "{output}");
    output.says(&[
        "installed",
        "for key \"web\"",
        "key \"other\" on token machine keeps",
    ]);
}

/// With PINs, from a file; and with the PIN's file missing, nothing is asked and nothing changed.
#[test]
fn a_token_with_pins_is_renewed_unattended() {
    let world = World::on(Device::with_pins(Backend::File));
    world.certify("web", "first", 10);
    world.install("first.pem");
    renew(&world, &["--command", "sh ./enrol"], "").says_not(&["installed"]);
    let output = renew(&world, &["--command", "sh ./enrol"], "--pin-file pin");
    assert!(output.status.success(), "{output}");
    output.says(&["installed"]);
}

fn renew(world: &World, args: &[&str], more: &str) -> Output {
    let scratch = world.path("scratch");
    let renew = world.device.devkey().arg("renew").args(args).words(more);
    match scratch.exists() {
        true => renew.env("TMPDIR", scratch).output(),
        false => renew.output(),
    }
}
