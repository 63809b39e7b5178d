//! Hosts that fork: the child must start afresh, the parent must not notice.
//!
//! Seen to fail with a module whose C_GetInfo does not look at the process id, and, in
//! [`fork_while_threads_sign`], with one whose C_Initialize takes a lock that a thread of the
//! parent held: the child's alarm ends the wait.

#![cfg(test)]

mod common;

use common::Device;
use common::client::{client, verify_all};

on_each_back_end!(
    a_child_is_not_initialised,
    children_and_grandchildren_initialise_for_themselves,
    finalise_and_initialise_again,
    initialise_inside_an_atfork_handler,
    fork_while_threads_sign,
);

/// Every call of the child but C_GetFunctionList says CKR_CRYPTOKI_NOT_INITIALIZED; the parent's
/// session goes on.
fn a_child_is_not_initialised(device: &Device) {
    signs(device, "silent-child", 2);
}

fn children_and_grandchildren_initialise_for_themselves(device: &Device) {
    signs(device, "signing-child", 4);
}

/// C_Finalize, then C_Initialize, in the parent and in its child.
fn finalise_and_initialise_again(device: &Device) {
    signs(device, "again", 5);
}

/// As pkcs11-helper does.
fn initialise_inside_an_atfork_handler(device: &Device) {
    signs(device, "atfork", 3);
}

/// 200 forks while 8 threads sign: half of the children look, half initialise and sign.
fn fork_while_threads_sign(device: &Device) {
    let key = device.key("ec-p256", "storm");
    let output = client(device, "storm", &key.label).seconds(300).ok();
    let said = output.all();
    let count = said
        .lines()
        .find_map(|line| line.strip_prefix("signatures: "))
        .unwrap();
    let count = count.parse().unwrap();
    assert!(count > 110, "the threads hardly signed: {count}");
    verify_all(device, &key, &output, count);
}

fn signs(device: &Device, mode: &str, count: usize) {
    let key = device.key("ec-p256", mode);
    let output = client(device, mode, &key.label).ok();
    verify_all(device, &key, &output, count);
}
