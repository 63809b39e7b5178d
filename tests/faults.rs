//! A process that is killed, and a disk that fails, at every step of a change to a file token.
//!
//! Each system call that changes something is hit once, by strace(1): afterwards there is the old
//! state or the new one, old keys sign, and the next change needs nobody's help.
//!
//! Seen to fail without `clear_temporaries` in `Dir::lock`, without the unlinking of a file that could
//! not be synced in `Dir::write`, and without `retry_on_intr` in `Dir::sync`.

#![cfg(test)]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::run::Run;
use common::{Backend, Device, module};

/// The calls that change files, as file tokens make them.
const CALLS: &str =
    "write,rename,renameat,renameat2,fsync,unlink,unlinkat,mkdir,fchmod,fchmodat,flock";
const FAULTS: [&str; 4] = ["signal=KILL", "error=ENOSPC", "error=EIO", "error=EINTR"];

#[test]
fn a_key_is_made_or_not() {
    let sweep = Sweep::devkey(|run| run.args(["key", "new", "fresh"]));
    sweep.run(|fault, succeeded, labels| {
        assert!(labels.contains("old"), "{fault}: {labels}");
        let made = labels.contains("fresh");
        assert!(!succeeded || made, "{fault}: said to be made");
        // Killed, nobody was told anything. Where the disk fails at the last line of output, the key
        // is there; at any other call it is not.
        let silent = fault.contains("KILL") || fault.contains("write");
        assert!(succeeded || !made || silent, "{fault}: said not to be made");
    });
}

/// By C_SetAttributeValue.
#[test]
fn a_key_gets_another_id_or_not() {
    let sweep = Sweep::of("pkcs11-tool", |run| {
        let run = run.arg("--module").arg(module());
        run.args(["--token-label", Device::TOKEN])
            .words("--set-id 0123456789abcdef --type privkey --label old")
    });
    sweep.run(|fault, succeeded, listed| {
        assert!(listed.contains("old"), "{fault}: {listed}");
        let changed = listed.contains("0123456789abcdef");
        assert!(!succeeded || changed, "{fault}: said to be changed");
    });
}

#[test]
fn a_key_is_deleted_or_not() {
    let sweep = Sweep::devkey(|run| run.args(["key", "delete", "--yes", "old"]));
    sweep.run(|fault, succeeded, labels| {
        assert!(labels.contains("another"), "{fault}: {labels}");
        assert!(
            !succeeded || !labels.contains("old"),
            "{fault}: said to be deleted"
        );
    });
}

/// What a killed one leaves has a name that nobody sees.
#[test]
fn a_token_is_made_or_not() {
    let sweep = Sweep::devkey(|run| run.args(["init", "second"]));
    sweep.run(|fault, succeeded, _| {
        let made = sweep.device.store().join("second/token").exists();
        assert!(!succeeded || made, "{fault}: said to be made");
        if !made {
            sweep.device.devkey().args(["init", "second"]).ok();
        }
        sweep
            .device
            .devkey()
            .words("key new --token second first")
            .ok();
    });
}

/// A token with the keys "old" and "another", and what is done to it again and again.
struct Sweep {
    device: Device,
    program: &'static str,
    arguments: fn(Run) -> Run,
}

impl Sweep {
    fn of(program: &'static str, arguments: fn(Run) -> Run) -> Self {
        let device = Device::new(Backend::File);
        for label in ["old", "another"] {
            device.devkey().args(["key", "new", label]).ok();
        }
        device.run("cp").words("-a store saved").ok();
        Sweep {
            device,
            program,
            arguments,
        }
    }

    fn devkey(arguments: fn(Run) -> Run) -> Self {
        Sweep::of(env!("CARGO_BIN_EXE_devkey"), arguments)
    }

    /// Asks `check` after each fault: which it was, whether the command succeeded, what is listed.
    fn run(&self, check: impl Fn(&str, bool, &str)) {
        let calls = self.calls();
        assert!(calls.values().sum::<usize>() >= 5, "{calls:?}");
        for (call, count) in &calls {
            for (fault, when) in FAULTS
                .iter()
                .flat_map(|fault| (1..=*count).map(move |n| (fault, n)))
            {
                let name = format!("{call}:{fault}:when={when}");
                self.restore();
                let hit = self.strace(&["-e", &format!("inject={name}")]).output();
                // Interrupted by a signal, these are called again.
                let again = name.starts_with("fsync") || name.starts_with("flock");
                assert!(
                    !again || !name.contains("EINTR") || hit.status.success(),
                    "{name}: {hit}"
                );
                let labels = self.labels(&name);
                check(&name, hit.status.success(), &labels);
                self.goes_on(&name);
            }
        }
    }

    /// How often each call is made where nothing fails.
    fn calls(&self) -> BTreeMap<String, usize> {
        self.restore();
        self.strace(&[]).ok();
        let trace = fs::read_to_string(self.device.path("trace")).unwrap();
        let mut calls = BTreeMap::new();
        // "1234  fsync(5) = 0"
        let words = trace
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1));
        for call in words.filter_map(|word| word.split_once('(')) {
            *calls.entry(call.0.to_owned()).or_insert(0) += 1;
        }
        calls
    }

    fn strace(&self, more: &[&str]) -> Run {
        let strace = self
            .device
            .run("strace")
            .words("-f -o trace -e")
            .arg(format!("trace={CALLS}"));
        (self.arguments)(strace.args(more).arg(self.program))
    }

    fn restore(&self) {
        fs::remove_dir_all(self.device.store()).unwrap();
        self.device.run("cp").words("-a saved store").ok();
    }

    /// The keys that are listed, without a word about any that could not be read.
    fn labels(&self, fault: &str) -> String {
        let listed = self
            .device
            .devkey()
            .args(["key", "list", "--token", Device::TOKEN])
            .ok();
        assert!(listed.stderr.is_empty(), "{fault}: {listed}");
        listed.text()
    }

    /// The next change works, and clears what was left.
    fn goes_on(&self, fault: &str) {
        self.device.key("ec-p256", "next");
        let signed = self.device.pkcs11_tool();
        let signed = signed.words(
            "--sign --mechanism ECDSA --label another --input-file digest --output-file signature",
        );
        fs::write(self.device.path("digest"), [7; 32]).unwrap();
        signed.ok();
        for entry in fs::read_dir(self.device.store().join(Device::TOKEN)).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(
                !name.to_string_lossy().starts_with(".tmp"),
                "{fault} left {name:?}"
            );
        }
    }
}
