//! A key whose token has a PIN: the agent has it as a credential of systemd's.

use std::fs;

use devkey::store::{Role, Store};

use crate::NEW;
use crate::common::system::KEEPER;
use crate::common::{Backend, Device};
use crate::machine::{Machine, secret};

/// Without hands, again after the key service was restarted, and with a TPM that counts.
///
/// Seen to fail with `ready` never set back, which is without `Open::find` in `Agent::sign`.
#[test]
fn the_agent_gives_the_pin_again() {
    for backend in [Backend::File, Backend::Tpm] {
        let mut machine = enabled(backend, Device::PIN);
        let known = machine.path("known-by-the-line");
        machine.welcomes(&known, &[], NEW);
        machine.system.stop();
        machine.system.start();
        machine.welcomes(&known, &[], NEW);
        machine.command("status").ok();
    }
}

/// Each login would cost a try otherwise.
///
/// Seen to fail with the token opened anew after a login that failed.
#[test]
fn a_wrong_pin_costs_one_try() {
    let machine = enabled(Backend::File, "999999");
    let known = machine.path("known-by-the-line");
    for _ in 0..4 {
        machine.loses(&known);
    }
    let store = machine.device().store().join(Device::TOKEN);
    let store = Store::kept(&store, Some(KEEPER)).unwrap();
    assert_eq!(store.tries_used(Role::User).unwrap(), 1);
    let log = machine.agent_log();
    assert!(log.contains("wrong user PIN"), "{log}");
    machine
        .command("status")
        .fails()
        .says(&["the agent does not sign"]);
}

fn enabled(backend: Backend, pin: &str) -> Machine {
    let mut machine = Machine::with(backend, true, "");
    machine.start_sshd();
    let file = machine.path("pin");
    let enabled = machine.enable().arg("--pin-file").arg(file).ok();
    machine.known_hosts(&enabled);
    machine.finish();
    let credentials = machine.path("credentials");
    fs::create_dir(&credentials).unwrap();
    secret(&credentials.join("devkey.pin"), pin);
    machine.start_agent(&[("CREDENTIALS_DIRECTORY", &credentials)]);
    machine
}
