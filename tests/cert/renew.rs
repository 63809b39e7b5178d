//! `devkey renew`: what it renews, and what keeps the old certificate.

use std::fs;
use std::os::unix::fs::symlink;
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

/// A key with three certificates of a CA of devkey's, which come in two rounds, each by a profile of its own:
/// renewed as they came, with their names and by their profiles, and no certificate more than before.
///
/// Seen to fail without `said` of renew.rs, where the names are those of the key ID alone, and without `clear`,
/// where the second answer's X.509 certificate stays beside the first.
#[test]
fn both_ssh_certificates_of_a_key_are_renewed_as_they_were() {
    let world = World::new();
    let run = |script: &str| {
        let bin = world.path("bin").display().to_string();
        let run = world.sh(&format!("{ROUND}\n{script}"));
        run.env("PATH", format!("{bin}:/usr/bin:/bin")).ok()
    };
    fs::create_dir(world.path("bin")).unwrap();
    symlink(env!("CARGO_BIN_EXE_devkey"), world.path("bin/devkey")).unwrap();
    run("devkey key new --kind ec-p384 ca
         devkey ca init --dir lab-ca --key ca --name Lab --allow 'subject:CN=pump*,O=Lab' --days 10 \
             --allow 'dns:*.example' --allow principal:anna --allow principal:ben --allow 'principal:*.example'
         sed '1,/profiles.device/d; s/\\[\"user\", \"host\"\\]/[\"host\"]/' lab-ca/ca.toml >host
         sed -i 's/profiles.device/profiles.user/; s/\\[\"user\", \"host\"\\]/[\"user\"]/' lab-ca/ca.toml
         { echo '[profiles.host]'; cat host; } >>lab-ca/ca.toml
         round user --principal anna --principal ben
         round host --principal pump7.example");
    let said = || {
        let list = world.list();
        let of = |one: &serde_json::Value| {
            let subject = match one["kind"].as_str() {
                Some("x509") => one["subject"].clone(),
                // It has a serial.
                _ => serde_json::Value::Null,
            };
            [one["kind"].clone(), one["names"].clone(), subject]
        };
        list.iter().map(of).collect::<Vec<_>>()
    };
    let before = said();
    assert_eq!(before.len(), 3, "{before:?}");
    run("sed -i 's/days = 10/days = 20/' lab-ca/ca.toml");
    let command = "PATH=$PWD/bin:$PATH
        devkey ca challenge --dir lab-ca --profile \"$DEVKEY_SSH_KIND\" - |
            devkey answer - --ca lab-ca/ca.pem --request \"$DEVKEY_REQUEST\" | devkey ca issue --dir lab-ca -";
    let output = renew(&world, &["--command", command], "--ca lab-ca/ca.pem");
    assert!(output.status.success(), "{output}");
    assert_eq!(said(), before);
    let ends = |one: &serde_json::Value| one["expires_in"].as_i64().unwrap() > 19 * 86_400;
    assert!(world.list().iter().all(ends), "{:?}", world.list());
}

/// All of a round, for a user or a host.
const ROUND: &str = r#"round() {
    kind=$1
    shift
    devkey request web --subject CN=pump7,O=Lab --san dns:pump7.example --ca lab-ca/ca.pem --ssh $kind "$@" |
        devkey ca challenge --dir lab-ca --profile $kind - | devkey answer - |
        devkey ca issue --dir lab-ca - | devkey cert install --ca lab-ca/ca.pem -
}"#;

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
