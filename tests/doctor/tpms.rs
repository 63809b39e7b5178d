//! The area `tpm`, on swtpm.

use std::fs;
use std::time::{Duration, Instant};

use crate::machine::Machine;
use crate::tpm::{Action, Proxy, Swtpm};

/// TPM2_GetCapability.
const GET_CAPABILITY: u32 = 0x17a;

/// TPM2_StartAuthSession: no key, nothing bound, a nonce of 16 bytes, no salt, HMAC, no cipher, SHA-256.
const START_SESSION: [u8; 43] = [
    0x80, 1, 0, 0, 0, 43, 0, 0, 1, 0x76, 0x40, 0, 0, 7, 0x40, 0, 0, 7, 0, 16, 1, 2, 3, 4, 5, 6, 7,
    8, 9, 10, 11, 12, 13, 14, 15, 16, 0, 0, 0, 0, 0x10, 0, 0x0b,
];

/// A machine with a token in a TPM, and a key on it.
fn made(tcti: &str) -> Machine {
    let machine = Machine::new();
    machine.devkey("init --tpm --tcti").arg(tcti).ok();
    machine.devkey("key new laptop").ok();
    machine
}

/// Moves the token to another address of a TPM.
fn moved(machine: &Machine, tcti: &str) {
    machine.configure(&format!("[token.default]\ntcti = '{tcti}'\n"));
}

/// Seen to fail with `storage` always `None`.
#[test]
fn a_sound_tpm_is_ok() {
    let swtpm = Swtpm::start();
    swtpm.provision();
    let machine = made(&swtpm.tcti());
    let said = machine.doctor("tpm");
    said.ok("tpm.answers", &["swtpm at 127.0.0.1", "IBM", "firmware"]);
    said.ok("tpm.firmware", &[])
        .ok("tpm.lockout", &["no wrong password"]);
    said.ok("tpm.memory", &[])
        .ok("tpm.storage-key", &["is at 0x81000001"]);
    said.ok("tpm.algorithms", &["P-256"])
        .ok("tpm.token", &["default: made on this TPM"]);
    swtpm.assert_empty();
}

/// The owner's key is made, compared and flushed. Seen to fail with HANDLE an error in `storage`.
#[test]
fn a_tpm_without_a_storage_key_is_ok_too() {
    let swtpm = Swtpm::start();
    let machine = made(&swtpm.tcti());
    let said = machine.doctor("tpm");
    said.ok("tpm.storage-key", &["none at 0x81000001"])
        .ok("tpm.token", &["this TPM"]);
    swtpm.assert_empty();
    let other = [
        "-C",
        "o",
        "-G",
        "ecc",
        "-a",
        "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign",
        "-c",
        "k.ctx",
        "-Q",
    ];
    swtpm.tool("tpm2_createprimary", &other);
    swtpm.tool(
        "tpm2_evictcontrol",
        &["-C", "o", "-c", "k.ctx", "0x81000001", "-Q"],
    );
    swtpm.tool("tpm2_flushcontext", &["-t"]);
    machine
        .doctor("tpm")
        .warning("tpm.storage-key", &["no storage key"], "");
}

/// Seen to fail with `recognise` without the binding.
#[test]
fn another_tpm_and_a_cleared_one_are_named() {
    let mut swtpm = Swtpm::start();
    swtpm.provision();
    let machine = made(&swtpm.tcti());
    swtpm.replace();
    let other = machine.doctor("tpm");
    other.ok("tpm.answers", &[]);
    other.failed(
        "tpm.token",
        &["default", "different TPM"],
        "go back to that TPM",
    );
    swtpm.provision();
    machine
        .doctor("tpm")
        .failed("tpm.token", &["different TPM"], "go back to that TPM");
}

/// Wrong passwords, fewer than lock it and as many; and none of them is the doctor's. Seen to fail with
/// `locked` and with `failed` not looked at.
#[test]
fn wrong_passwords_are_counted_and_a_lockout_is_named() {
    let swtpm = Swtpm::start();
    swtpm.provision();
    let machine = made(&swtpm.tcti());
    fs::write(swtpm.file("secret"), "secret").unwrap();
    let seal = [
        "-C",
        "0x81000001",
        "-i",
        "secret",
        "-p",
        "right",
        "-u",
        "s.pub",
        "-r",
        "s.priv",
        "-Q",
    ];
    swtpm.tool("tpm2_create", &seal);
    let wrong = || {
        swtpm.tool(
            "tpm2_load",
            &[
                "-C",
                "0x81000001",
                "-u",
                "s.pub",
                "-r",
                "s.priv",
                "-c",
                "s.ctx",
                "-Q",
            ],
        );
        let tried = swtpm.try_tool("tpm2_unseal", &["-c", "s.ctx", "-p", "wrong"]);
        assert!(!tried.status.success());
        swtpm.tool("tpm2_flushcontext", &["-t"]);
    };
    wrong();
    for _ in 0..2 {
        machine.doctor("tpm").warning(
            "tpm.lockout",
            &["1 wrong password"],
            "one is forgotten every",
        );
    }
    wrong();
    wrong();
    for _ in 0..2 {
        let said = machine.doctor("tpm");
        said.failed(
            "tpm.lockout",
            &["locked: 3 wrong passwords of 3"],
            "tpm2_dictionarylockout --clear-lockout",
        );
        said.ok("tpm.token", &[]);
    }
    swtpm.tool("tpm2_dictionarylockout", &["--clear-lockout"]);
    machine
        .doctor("tpm")
        .ok("tpm.lockout", &["no wrong password of 3"]);
}

/// What the fix names does away with it. Seen to fail with nothing ever `left`.
#[test]
fn what_programs_left_in_its_memory_is_named() {
    let swtpm = Swtpm::start();
    swtpm.provision();
    let machine = made(&swtpm.tcti());
    swtpm.tool("tpm2_createprimary", &["-C", "o", "-c", "left.ctx", "-Q"]);
    // tpm2_startauthsession would save its session, and that takes no place.
    assert_eq!(swtpm.raw(&START_SESSION)[6..10], [0; 4]);
    let said = machine.doctor("tpm");
    said.warning(
        "tpm.memory",
        &["objects: 1, sessions: 1"],
        "tpm2_flushcontext -t",
    );
    swtpm.tool("tpm2_flushcontext", &["-t"]);
    swtpm.tool("tpm2_flushcontext", &["-l"]);
    machine.doctor("tpm").ok("tpm.memory", &[]);
}

/// A TPM with the firmware of others, before it a proxy that says so. RSA keys make ROCA worse. Seen to
/// fail with other numbers in the rows of ST and Intel in advisories.rs, and with `rsa` always false.
#[test]
fn weak_firmware_is_named() {
    let swtpm = Swtpm::start();
    swtpm.provision();
    let machine = made(&swtpm.tcti());
    let proxy = Proxy::before(&swtpm);
    moved(&machine, &proxy.tcti());
    let said = |edit: fn(&mut Vec<u8>)| {
        proxy.script(move |code| match code {
            GET_CAPABILITY => Action::Edit(edit),
            _ => Action::Pass,
        });
        machine.doctor("tpm")
    };
    let roca: fn(&mut Vec<u8>) = |reply| pretend(reply, b"IFX\0", 7 << 16 | 61);
    said(roca).warning("tpm.firmware", &["ROCA"], "make EC keys alone");
    said(|reply| pretend(reply, b"IFX\0", 7 << 16 | 62)).ok("tpm.firmware", &[]);
    said(|reply| pretend(reply, b"STM ", 73 << 16 | 4)).failed(
        "tpm.firmware",
        &["CVE-2019-16863"],
        "st.com",
    );
    said(|reply| pretend(reply, b"INTC", 11 << 16 | 6)).failed(
        "tpm.firmware",
        &["CVE-2019-11090"],
        "INTEL-SA-00241",
    );
    said(|reply| pretend(reply, b"NTC\0", 1 << 16 | 2)).ok("tpm.firmware", &[]);
    moved(&machine, &swtpm.tcti());
    machine
        .devkey("key new --kind rsa-2048 old")
        .seconds(120)
        .ok();
    moved(&machine, &proxy.tcti());
    said(roca).failed("tpm.firmware", &["ROCA"], "revoke the RSA ones");
}

/// Another maker, another first half of the firmware's version, in an answer with properties.
fn pretend(reply: &mut [u8], maker: &[u8; 4], firmware: u32) {
    for (tag, value) in [(0x105_u32, *maker), (0x10b, firmware.to_be_bytes())] {
        let tag = tag.to_be_bytes();
        // After the head, moreData, the capability and the number of properties.
        let pairs = reply.get_mut(19..).unwrap_or_default().chunks_exact_mut(8);
        for pair in pairs.filter(|pair| pair[..4] == tag) {
            pair[4..].copy_from_slice(&value);
        }
    }
}

/// A silent one is a finding, in time, and hides nothing of the rest. Seen to fail, by its deadline, with
/// the token's own timeout for `patience` in `examine`.
#[test]
fn a_silent_tpm_is_given_up() {
    let swtpm = Swtpm::start();
    swtpm.provision();
    let machine = made(&swtpm.tcti());
    let proxy = Proxy::before(&swtpm);
    machine.configure(&format!(
        "[token.default]\ntcti = '{}'\ntimeout = '600'\n",
        proxy.tcti()
    ));
    proxy.script(|_| Action::Silence);
    let started = Instant::now();
    let said = machine.doctor("tokens tpm");
    assert!(started.elapsed() < Duration::from_secs(50));
    said.failed("tpm.answers", &["did not answer within"], "");
    said.ok("tokens.open", &[]).ok("tokens.records", &[]);
}

#[test]
fn a_tpm_that_is_not_there_is_named() {
    let mut swtpm = Swtpm::start();
    let machine = made(&swtpm.tcti());
    swtpm.kill();
    machine.doctor("tpm").failed(
        "tpm.answers",
        &["Connection refused"],
        "is swtpm running there?",
    );
}

/// No TPM; one without a resource manager; one of another age; one that this user may not open. The nodes
/// are /dev/null's, in a /dev of the test's own. Seen to fail with no `BARE` there for `device`, and
/// with `permitted` always ok.
#[test]
fn nodes_are_judged_before_they_are_opened() {
    let machine = Machine::new();
    let say = |prepare: &str, run: &str| {
        let script = format!(
            "mount -t tmpfs tmpfs /dev; mknod -m 666 /dev/null c 1 3; {prepare}; {run} doctor tpm --json || true"
        );
        let output = machine.in_namespace_of_root(&script).ok();
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        said["checks"].to_string()
    };
    let none = say("true", "$DEVKEY");
    assert!(
        none.contains("no TPM here, and no token wants one"),
        "{none}"
    );
    let bare = say("mknod /dev/tpm0 c 1 3", "$DEVKEY");
    assert!(
        bare.contains("no resource manager") && bare.contains("Linux 4.12"),
        "{bare}"
    );
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups $DEVKEY";
    let closed = say(
        "mknod -m 660 /dev/tpmrm0 c 1 3; chgrp daemon /dev/tpmrm0",
        nobody,
    );
    assert!(
        closed.contains("no permission; it is of group daemon"),
        "{closed}"
    );
    assert!(closed.contains("usermod -aG daemon nobody"), "{closed}");
    let roots = say("mknod -m 600 /dev/tpmrm0 c 1 3", nobody);
    assert!(roots.contains("apt install tpm-udev"), "{roots}");
}
