//! The areas `config` and `tokens`.

use std::fs;
use std::os::unix::fs::symlink;

use crate::machine::{Machine, NOBODY, contents, mode};

/// Seen to fail with `Finding::ok` for a machine without tokens in tokens.rs, and with `stores`
/// left out of config.rs.
#[test]
fn a_new_machine_wants_a_token() {
    let machine = Machine::new();
    let said = machine.doctor("config tokens");
    said.ok("config.read", &["devkey.toml"]);
    said.none("config.stores", &["no store yet"]);
    said.warning("tokens.open", &["no token yet"], "devkey init");
}

/// All of it as it should be; and nothing was changed by the look. Seen to fail with a file written by
/// `tokens::one`.
#[test]
fn a_sound_token_is_ok_and_stays_as_it_is() {
    let machine = Machine::with_key();
    let before = contents(&machine.path(""));
    let said = machine.doctor("config tokens certificates");
    said.ok("config.read", &["devkey.toml"]);
    said.ok("config.stores", &["store"]);
    said.ok("config.tokens", &[]);
    said.ok("tokens.open", &["default: back end file, keys: 1"]);
    said.ok("tokens.files", &[]).ok("tokens.leftovers", &[]);
    said.ok("tokens.records", &[])
        .ok("tokens.macs", &[])
        .ok("tokens.disk", &["MiB free"]);
    said.none("tokens.user-pin", &["no PINs"]);
    said.none("certificates.valid", &["none"]);
    assert_eq!(contents(&machine.path("")), before);
}

/// Seen to fail with `config.read` always ok.
#[test]
fn a_broken_configuration_is_named_with_its_line() {
    let machine = Machine::with_key();
    for (text, line, what) in [
        ("stoer = '/x'\n", ":2:", "unknown key"),
        ("[token.default\n", ":2:", ""),
        ("[token.default]\nenabled = 'yes'\n", ":3:", "true or false"),
    ] {
        machine.configure(text);
        let said = machine.doctor("");
        said.failed("config.read", &[line, what], "devkey config check");
        for id in ["tokens.open", "certificates.read", "service.socket"] {
            said.none(id, &["cannot be read"]);
        }
    }
    machine.configure("[token.gone]\ndirectory = '/nowhere'\n");
    machine.doctor("config").failed(
        "config.tokens",
        &[":2:", "no token gone"],
        "devkey config check",
    );
    machine.configure("[token.default]\ntimeout = '3'\n");
    machine
        .doctor("tokens")
        .failed("tokens.open", &[":3:", "no setting"], "");
    mode(&machine.path("devkey.toml"), 0o666);
    machine
        .doctor("config")
        .failed("config.read", &["others can write it"], "chmod go-w");
}

/// Each with its remedy. Seen to fail with the arms of `judge` in store/look.rs for links and for FIFOs
/// answering Ok, and without `open_root`.
#[test]
fn files_that_others_could_change_or_read_are_named() {
    let machine = Machine::with_key();
    let (token, key) = (machine.token(), machine.key_file());
    let files = |texts: &[&str], fix: &str| {
        machine.doctor("tokens").failed("tokens.files", texts, fix);
    };
    mode(&key, 0o662);
    files(&["others can write it"], "chmod go-w");
    mode(&key, 0o600);
    mode(&token.join("root"), 0o604);
    files(&["root: others can read it"], "chmod o-rwx");
    mode(&token.join("root"), 0o600);
    symlink("/etc/passwd", token.join("planted.key")).unwrap();
    files(
        &["planted.key", "symbolic link"],
        "put the file itself there",
    );
    fs::remove_file(token.join("planted.key")).unwrap();
    machine.run("mkfifo").arg(token.join("fifo")).ok();
    files(&["neither a file nor a directory"], "remove it");
    fs::remove_file(token.join("fifo")).unwrap();
    mode(&token, 0o777);
    machine
        .doctor("tokens")
        .failed("tokens.open", &["others can write it"], "chmod go-w");
    mode(&token, 0o700);
    mode(&machine.store(), 0o777);
    machine
        .doctor("config")
        .failed("config.stores", &["others can write it"], "chmod go-w");
    mode(&machine.store(), 0o700);
    machine
        .doctor("config tokens")
        .ok("tokens.files", &[])
        .ok("config.stores", &[]);
}

/// Seen to fail with `drafts` left out, and with the age not looked at.
#[test]
fn what_interrupted_writes_left_is_named() {
    let machine = Machine::with_key();
    let left = machine.token().join(".tmp-0123456789abcdef");
    fs::write(&left, "half a ke").unwrap();
    machine.doctor("tokens").ok("tokens.leftovers", &[]);
    machine
        .run("touch")
        .args(["-d", "1 hour ago"])
        .arg(&left)
        .ok();
    machine
        .doctor("tokens")
        .warning("tokens.leftovers", &["default", ".tmp-0123"], "rm ");
    machine.devkey("key new other").ok();
    machine.doctor("tokens").ok("tokens.leftovers", &[]);
    let draft = machine.store().join(".tmp-fedcba9876543210");
    fs::create_dir(&draft).unwrap();
    machine
        .run("touch")
        .args(["-d", "1 hour ago"])
        .arg(&draft)
        .ok();
    let said = machine.doctor("tokens");
    said.warning("tokens.leftovers", &["never finished", "fedcba"], "rm -r ");
}

/// Seen to fail with `broken` not said, and with `check` of LocalToken `Ok(())`.
#[test]
fn records_that_were_changed_are_named() {
    let machine = Machine::with_key();
    let key = machine.key_file();
    let record = fs::read_to_string(&key).unwrap();
    fs::write(&key, "not a record").unwrap();
    machine
        .doctor("tokens")
        .failed("tokens.records", &[key.to_str().unwrap()], "restore");
    fs::write(&key, record.replace("\"laptop\"", "\"desktop\"")).unwrap();
    let said = machine.doctor("tokens");
    said.ok("tokens.records", &[]);
    said.failed(
        "tokens.macs",
        &["key \"desktop\"", "was changed"],
        "restore",
    );
    fs::write(&key, &record).unwrap();
    machine.doctor("tokens").ok("tokens.macs", &[]);
    let newer = record.replacen("version = 1", "version = 99", 1);
    assert_ne!(newer, record);
    fs::write(&key, newer).unwrap();
    machine
        .doctor("tokens")
        .failed("tokens.records", &["newer devkey"], "upgrade");
}

/// Seen to fail with the read-only flag and with the room not looked at.
#[test]
fn a_full_and_a_read_only_disk_are_named() {
    let machine = Machine::with_key();
    for (way, state, says) in [
        (
            "cat /dev/zero > store/fill 2>&1 || true",
            "failed",
            "the disk is full",
        ),
        ("mount -o remount,ro store", "warning", "read-only"),
    ] {
        let script = format!(
            "cp -a store kept; mount -t tmpfs -o size=1m,mode=700 tmpfs store; cp -a kept/. store; rm -r kept
             {way}; $DEVKEY doctor tokens --json || true"
        );
        let output = machine.in_namespace(&script).ok();
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = said["checks"].as_array().unwrap();
        let disk = checks
            .iter()
            .find(|check| check["id"] == "tokens.disk")
            .unwrap();
        assert_eq!(disk["state"], state, "{disk}");
        assert!(disk["found"].as_str().unwrap().contains(says), "{disk}");
    }
}

/// Tries are read where that costs none: they are as many after the look as before. Seen to fail with
/// `to_be_changed` and with `0` not looked at in `pin`.
#[test]
fn pins_are_as_the_store_has_them() {
    let machine = Machine::new();
    for (file, pin) in [
        ("pin", "243601"),
        ("so", "so-907133"),
        ("wrong", "000000"),
        ("new", "112233"),
    ] {
        fs::write(machine.path(file), pin).unwrap();
        mode(&machine.path(file), 0o600);
    }
    machine
        .devkey("init --pin --pin-file pin --so-pin-file so --tries 3")
        .ok();
    let fresh = machine.doctor("tokens");
    fresh
        .ok("tokens.user-pin", &["3 of 3"])
        .ok("tokens.so-pin", &["3 of 3"]);
    fresh.none("tokens.macs", &[]);
    for left in ["2 of 3", "1 of 3"] {
        machine.devkey("key new --pin-file wrong laptop").fails();
        for _ in 0..2 {
            let state = if left == "2 of 3" { "ok" } else { "warning" };
            machine
                .doctor("tokens")
                .is("tokens.user-pin", state, &[left], "");
        }
    }
    machine.devkey("key new --pin-file wrong laptop").fails();
    machine
        .doctor("tokens")
        .failed("tokens.user-pin", &["locked after 3"], "devkey pin unlock");
    machine
        .devkey("pin unlock --must-change --so-pin-file so --new-pin-file new")
        .ok();
    machine
        .doctor("tokens")
        .warning("tokens.user-pin", &["change"], "devkey pin change");
    machine.devkey("init --so-pin-file so waiting").ok();
    let said = machine.doctor("tokens --token waiting");
    said.warning(
        "tokens.user-pin",
        &["waiting", "not set"],
        "devkey pin set --token waiting",
    );
}

/// Who may not look is told so, and it is no failure. Seen to fail with `error` for `refused`.
#[test]
fn what_may_not_be_looked_at_is_said() {
    let machine = Machine::with_key();
    let said = machine.doctor_as(NOBODY, "", "config tokens");
    for id in ["tokens.files", "tokens.open"] {
        said.is(
            id,
            "not-applicable",
            &["not looked at", "no permission"],
            "sudo devkey doctor",
        );
    }
    machine
        .doctor("tokens")
        .ok("tokens.files", &[])
        .ok("tokens.open", &[]);
}
