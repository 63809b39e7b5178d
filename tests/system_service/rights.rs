//! Who may do what, and what the journal says of it.

use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::common::run::{Output, Run};
use crate::machine::{DAEMON, MEMBER, Machine, NOBODY, ROOT, User, WWW_DATA};
use crate::wire;

const RULES: &str = r#"
[token.web]
use = ["www-data", "%4242"]
manage = ["daemon"]
[token.web.key.private]
use = ["daemon", "nobody"]
[token.web.key.given]
use = ["root"]
manage = ["www-data"]
"#;

/// Nothing is said of `sys`: the group `devkey` uses it, root manages it, nobody else sees it.
///
/// Seen to fail with the supplementary groups left out of `Client::of`, and with `is_permitted` true
/// for all.
#[test]
fn by_default_root_manages_and_the_group_uses() {
    let machine = Machine::new("");
    machine.sign(MEMBER, "sys", "k").ok();
    // As the first group too.
    let first = machine
        .user(ROOT, "setpriv")
        .words("--regid 990 --clear-groups");
    let first = first.args(["--reuid", "65534"]).arg(machine.path("devkey"));
    first.words("key list --token sys").ok().says(&["sys"]);
    for other in [NOBODY, WWW_DATA, DAEMON] {
        let listed = machine.pkcs11(other, "sys").arg("-L").output();
        listed.says_not(&["token label"]);
        machine.sign(other, "sys", "k").fails();
        let listed = machine.devkey(other).words("token list").output();
        listed.says_not(&["sys"]);
    }
    let refused = machine
        .devkey(MEMBER)
        .words("key new --token sys x")
        .fails();
    refused.says(&["you may not generate there", "manage"]);
    machine
        .devkey(MEMBER)
        .words("key delete --yes --token sys k")
        .fails();
    machine.sign(MEMBER, "sys", "k").ok();
    machine.devkey(ROOT).words("key new --token sys x").ok();
}

/// Seen to fail with `own.or` in `Rules::allow` the other way round, and with
/// `CKR_USER_NOT_LOGGED_IN` for `NotPermitted` in rv.rs.
#[test]
fn rights_are_those_of_the_configuration() {
    let machine = Machine::new(RULES);
    machine.key("web", "private");
    machine.key("web", "given");
    let by_group = User(500, &[7, 4242]);
    machine.sign(WWW_DATA, "web", "k").ok();
    machine.sign(by_group, "web", "k").ok();
    machine.sign(DAEMON, "web", "private").ok();
    machine.sign(NOBODY, "web", "private").ok();
    for (who, key) in [
        (WWW_DATA, "private"),
        (by_group, "private"),
        (NOBODY, "k"),
        (DAEMON, "k"),
    ] {
        let refused = machine.sign(who, "web", key).fails();
        refused.says(&["CKR_KEY_FUNCTION_NOT_PERMITTED"]);
    }
    machine
        .pkcs11(User(501, &[]), "web")
        .arg("-L")
        .output()
        .says_not(&["token label"]);
    // Who manages: not who uses.
    let pair = |who| {
        let run = machine
            .pkcs11(who, "web")
            .args(["--keypairgen", "--key-type", "EC:prime256v1"]);
        run.args(["--label", "new"])
    };
    pair(WWW_DATA).fails().says(&["CKR_TOKEN_WRITE_PROTECTED"]);
    pair(DAEMON).ok();
    machine
        .devkey(WWW_DATA)
        .words("key delete --yes --token web k")
        .fails();
    machine
        .devkey(WWW_DATA)
        .words("key delete --yes --token web given")
        .ok();
    machine
        .devkey(DAEMON)
        .words("key delete --yes --token web new")
        .ok();
}

/// Rules name a key by its label, by the ID that `devkey key list` shows, or by its id in the store; and the
/// doctor says which of them name none.
///
/// Seen to fail with each of the three left out of `Deed::names`, with the IDs left out of `Deed::moves`, and
/// without `keys` in the doctor's service.rs.
#[test]
fn rules_name_keys_by_what_is_shown() {
    let mut machine = Machine::new("[token.web]\nuse = [\"www-data\"]\nmanage = [\"daemon\"]\n");
    for label in ["first", "second", "third"] {
        machine.key("web", label);
    }
    let shown = |label: &str| {
        let show = machine
            .devkey(ROOT)
            .words("key show --format json --token web");
        let shown: serde_json::Value =
            serde_json::from_slice(&show.arg(label).ok().stdout).unwrap();
        shown["id"].as_str().unwrap().to_owned()
    };
    let (id, stem) = (shown("second"), machine.id("web", "third"));
    let rule = |name: &str| format!("[token.web.key.{name:?}]\nuse = [\"nobody\"]\n");
    let rules = ["first", &id, &stem, "misspelt"].map(rule).concat();
    machine.configure(&rules);
    for label in ["first", "second", "third"] {
        machine.sign(NOBODY, "web", label).ok();
        let refused = machine.sign(WWW_DATA, "web", label).fails();
        refused.says(&["CKR_KEY_FUNCTION_NOT_PERMITTED"]);
    }
    machine.sign(WWW_DATA, "web", "k").ok();
    let doctor = machine.devkey(ROOT).words("doctor service").output();
    doctor.says(&[
        "rights to keys that are not there: \"misspelt\"",
        "key list",
    ]);
    let k = machine.id("web", "k");
    let moved = wire::as_user(DAEMON.0, || {
        let mut stream = wire::greet(&machine.socket());
        wire::ask(&mut stream, &wire::find("web")).unwrap();
        wire::ask(&mut stream, &wire::give_id(&k, &id)).unwrap()
    });
    assert_eq!(moved[0], 1);
    assert!(machine.log().contains("only root may rename"));
}

/// Who manages a key manages its certificates, and nobody else does, but root; the line names the key.
///
/// Seen to fail with `certified` empty, and with each of its two sources of certificates left out.
#[test]
fn certificates_are_managed_by_who_manages_their_key() {
    let machine = Machine::new(RULES);
    machine.key("web", "given");
    let openssl = |line: &str| Run::new("openssl").dir(&machine.path("")).words(line).ok();
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=CA -days 9");
    for key in ["k", "given"] {
        let show = machine
            .devkey(ROOT)
            .words("key show --format pem --token web");
        fs::write(machine.path("pub"), show.arg(key).ok().stdout).unwrap();
        for name in ["first", "second"] {
            openssl(&format!(
                "x509 -new -force_pubkey pub -subj /CN={name} -CA ca.pem -CAkey ca.key -days 5 -out {key}-{name}.pem"
            ));
        }
        openssl(&format!(
            "x509 -in {key}-second.pem -outform DER -out {key}.der"
        ));
    }
    let install = |who: User, key: &str, name: &str| {
        let install = machine.devkey(who).words("cert install --token web --ca");
        let install = install.arg(machine.path("ca.pem"));
        install
            .arg(machine.path(&format!("{key}-{name}.pem")))
            .output()
    };
    let write = |who: User, key: &str| {
        let write = machine
            .pkcs11(who, "web")
            .words("--type cert --label extra --write-object");
        write.arg(machine.path(&format!("{key}.der"))).output()
    };
    let delete = |who: User, key: &str| {
        machine
            .devkey(who)
            .words("cert delete --yes --token web")
            .arg(key)
            .output()
    };
    let refused = |output: Output| {
        assert!(!output.status.success(), "{output}");
        output.says(&["manage"]);
    };
    for (key, manager, other) in [("k", DAEMON, WWW_DATA), ("given", WWW_DATA, DAEMON)] {
        refused(install(other, key, "first"));
        let before = machine.log().len();
        assert!(install(manager, key, "first").status.success());
        let line = format!("do=replace-certificates key={key:?}");
        assert!(machine.log()[before..].contains(&line), "{}", machine.log());
        let written = write(other, key);
        written.says(&["CKR_TOKEN_WRITE_PROTECTED"]);
        refused(delete(other, key));
        assert!(write(manager, key).status.success());
        let deleted = delete(manager, key);
        assert!(deleted.status.success(), "{deleted}");
    }
}

/// What could not be looked up gets no right, least of all that of the other keys of its token.
///
/// Seen to fail with errors of `look_up` taken for no key.
#[test]
fn a_look_that_fails_gives_no_right() {
    let mut machine = Machine::new(RULES);
    machine.key("web", "private");
    machine.end(Signal::TERM);
    machine.start_within(48);
    machine.sign(DAEMON, "web", "private").ok();
    let id = machine.id("web", "private");
    wire::as_user(WWW_DATA.0, || {
        let mut stream = wire::greet(&machine.socket());
        wire::ask(&mut stream, &wire::find("web")).unwrap();
        let mut is_refused = || wire::ask(&mut stream, &wire::sign(&id)).unwrap()[0] == 1;
        assert!(is_refused());
        // No descriptor is left, and the directory wants to be opened anew.
        let taken: Vec<_> = (0..60).map(|_| wire::connect(&machine.socket())).collect();
        thread::sleep(Duration::from_millis(300));
        assert!(
            machine.log().contains("Too many open files"),
            "{}",
            machine.log()
        );
        assert!((0..10).all(|_| is_refused()));
        drop(taken);
        assert!(is_refused());
    });
    machine.sign(DAEMON, "web", "private").ok();
}

/// The right to manage is none to use, not by another label either.
///
/// Seen to fail without `moves_rights` in `Session::permit`.
#[test]
fn labels_that_rules_name_are_not_moved() {
    let machine = Machine::new(RULES);
    machine.key("web", "private");
    // Whether it was done.
    let rename = |who: User, from: &str, to: &str| {
        let id = machine.id("web", from);
        wire::as_user(who.0, || {
            let mut stream = wire::greet(&machine.socket());
            wire::ask(&mut stream, &wire::find("web")).unwrap();
            wire::ask(&mut stream, &wire::rename(&id, to)).unwrap() == [0, 5]
        })
    };
    assert!(!rename(DAEMON, "k", "private"));
    assert!(!rename(DAEMON, "private", "other"));
    assert!(machine.log().contains("only root may rename"));
    machine.sign(DAEMON, "web", "k").fails();
    assert!(rename(DAEMON, "k", "l"));
    assert!(rename(ROOT, "private", "public"));
}

/// Each deed is one line that says who, what, with which key and how it went; and never what.
///
/// Seen to fail with `self.log` called twice in `Session::perform`, and not at all for refusals.
#[test]
fn each_deed_leaves_one_line() {
    let machine = Machine::new(RULES);
    let before = machine.log().len();
    machine.sign(WWW_DATA, "web", "k").ok();
    let [line] = <[String; 1]>::try_from(machine.deeds(before)).unwrap();
    for field in [
        "token=\"web\" do=sign key=\"k\" id=\"",
        "by=\"Ecdsa\"",
        "uid=33 pid=",
        "result=ok",
    ] {
        assert!(line.contains(field), "{line}");
    }
    assert!(line.contains("exe=\"(pkcs11-tool)\""), "{line}");
    assert!(
        !line.contains("07070707") && !line.contains("7, 7"),
        "{line}"
    );
    let before = machine.log().len();
    let id = machine.id("web", "k");
    wire::as_user(DAEMON.0, || {
        let mut stream = wire::greet(&machine.socket());
        wire::ask(&mut stream, &wire::find("web")).unwrap();
        wire::ask(&mut stream, &wire::sign(&id)).unwrap();
    });
    let [line] = <[String; 1]>::try_from(machine.deeds(before)).unwrap();
    let refused = line.contains("result=\"the key may not be used to sign by you");
    assert!(line.contains("uid=1 ") && refused, "{line}");
    let before = machine.log().len();
    machine
        .devkey(DAEMON)
        .words("key new --token web fresh")
        .ok();
    let [line] = <[String; 1]>::try_from(machine.deeds(before)).unwrap();
    assert!(line.contains("do=generate key=\"fresh\""), "{line}");
}

/// The line of a deed is kept for the next one alike, and for no other.
///
/// Seen to fail with `if same == deed` taken out of `Session::log`.
#[test]
fn each_of_many_deeds_leaves_its_own_line() {
    let machine = Machine::new(RULES);
    machine.devkey(ROOT).words("key new --token web l").ok();
    let before = machine.log().len();
    let [one, other] = ["k", "l"].map(|label| machine.id("web", label));
    wire::as_user(WWW_DATA.0, || {
        let mut stream = wire::greet(&machine.socket());
        wire::ask(&mut stream, &wire::find("web")).unwrap();
        for id in [&one, &one, &other, &one] {
            wire::ask(&mut stream, &wire::sign(id)).unwrap();
        }
    });
    let lines = machine.deeds(before);
    let ids: Vec<_> = lines
        .iter()
        .filter_map(|line| line.split('"').nth(5))
        .collect();
    assert_eq!(ids, [&one, &one, &other, &one], "{lines:?}");
}

/// Nothing that a client chooses makes another line, or one without end.
///
/// Seen to fail with `{label}` for `{:?}` in deed.rs, and with `cut` giving the whole.
#[test]
fn the_log_is_not_forged() {
    let machine = Machine::new(RULES);
    let forged = "x\n[INFO  audit] token=\"sys\" do=sign uid=0 \"";
    let before = machine.log().len();
    let pair = machine
        .pkcs11(DAEMON, "web")
        .args(["--keypairgen", "--key-type", "EC:prime256v1"]);
    pair.args(["--label", forged]).ok();
    // A program that is called so.
    let named = machine.path("a\"\nb] uid=0 \"");
    fs::hard_link(machine.path("devkey"), &named).unwrap();
    let named = machine.user(DAEMON, named);
    named.words("key new --token web other").ok();
    let mut stream = wire::greet(&machine.socket());
    // Make{wanted: name, …} with a name of 1 MiB.
    let long = [
        &[19, 0x80, 0x80, 0x40],
        "n".repeat(1 << 20).as_bytes(),
        &[0, 0, 0, 0, 0, 0],
    ]
    .concat();
    wire::ask(&mut stream, &wire::message(&long)).unwrap();
    let lines = machine.deeds(before);
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(machine.log()[before..].lines().count() == 3);
    assert!(
        lines.iter().all(|line| line.len() < 2000),
        "a line without end"
    );
    let sys = lines
        .iter()
        .filter(|line| line.contains("audit] token=\"sys\""));
    assert_eq!(sys.count(), 0, "{lines:?}");
}
