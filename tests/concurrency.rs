//! Several processes with several threads each, on one token at once.
//!
//! Seen to fail with SoftHSM 2.6, which loses tokens where several processes list them, and with a
//! module whose C_Sign changes one bit of every seventh signature.

#![cfg(test)]

mod common;

use std::thread;

use common::client::{client, verify_all};
use common::{Device, module};

on_each_back_end!(
    two_processes_of_eight_threads_sign,
    eight_processes_list_at_once,
    keys_are_made_at_once,
);

const PROCESSES: usize = 2;
const THREADS: usize = 8;
const EACH: usize = 25;

/// No call fails and every signature verifies.
fn two_processes_of_eight_threads_sign(device: &Device) {
    let key = device.key("ec-p256", "busy");
    let run = || {
        client(device, "threads", &key.label)
            .args([THREADS.to_string(), EACH.to_string()])
            .seconds(120)
            .ok()
    };
    let outputs = at_once(PROCESSES, |_| run());
    for output in &outputs {
        verify_all(device, &key, output, THREADS * EACH);
    }
}

/// Each finds the token and its key.
fn eight_processes_list_at_once(device: &Device) {
    device.key("ec-p256", "the only one");
    for output in at_once(8, |_| device.pkcs11_tool().arg("--list-objects").ok()) {
        output.says(&["Private Key Object", "the only one"]);
    }
}

/// Four processes make a key each; none is lost and each signs.
fn keys_are_made_at_once(device: &Device) {
    let keys = at_once(4, |number| device.key("ec-p256", &format!("made-{number}")));
    let listed = device.run("ssh-keygen").arg("-D").arg(module()).ok();
    for key in &keys {
        listed.says(&[&key.ssh_line()]);
        let output = client(device, "threads", &key.label).words("1 1").ok();
        verify_all(device, key, &output, 1);
    }
}

fn at_once<T: Send>(count: usize, run: impl Fn(usize) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let run = &run;
        let all: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || run(number)))
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    })
}
