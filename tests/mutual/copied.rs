//! A token's directory copied to a machine with another TPM, or another PUF.

use std::fs;

use crate::common::{Backend, Device, Run};
use crate::lab::{Lab, Peer};
use crate::ssh::Gate;
use crate::tls::{Door, Program, Trust, came_in};

/// The thief has everything but the chip: certificates and public keys can be read, nothing can be
/// proven.
///
/// Seen to fail with a thief who reaches the owner's chip.
#[test]
fn a_copied_token_proves_nothing() {
    let lab = Lab::turn();
    let trust = Trust::of(&lab.authority);
    for (user, why) in lab
        .users
        .iter()
        .zip(["not the device that this token was made on", "another chip"])
    {
        let thief = thief(user);
        let sign = thief.device.devkey().args(["request", "id"]);
        sign.fails().says(&[why]);
        for program in Program::ALL {
            let door = Door::open(&lab.hosts[2], program, &trust);
            let output = door.knock(&thief, program, &trust);
            assert!(!came_in(&output), "{program:?}: {output}");
            // The owner's own still is.
            let owner = door.knock(user, program, &trust);
            assert!(came_in(&owner), "{program:?}: {owner}");
        }
        let gate = Gate::open(&lab.hosts[2], &lab.authority, None);
        let output = gate.knock(&thief, &lab.authority, None);
        output.says(&["sign", "Permission denied (publickey)"]);
    }
}

/// A machine of the same kind, with another chip and a copy of the user's token.
fn thief(user: &Peer) -> Peer {
    let device = Device::new(user.device.backend());
    let [own, copy] = [&device, &user.device].map(|device| device.store().join(Device::TOKEN));
    fs::remove_dir_all(&own).unwrap();
    Run::new("cp").arg("-a").args([&copy, &own]).ok();
    device.configure(&format!("[token.{}]\n{}", Device::TOKEN, chip(&device)));
    Peer {
        key: user.key.clone(),
        name: user.name.clone(),
        device,
        serials: Vec::new(),
    }
}

/// The chip that it has, which goes before the one that the token names.
fn chip(device: &Device) -> String {
    match device.backend() {
        Backend::Tpm => format!("tcti = '{}'\n", device.tcti().unwrap()),
        Backend::Puf => format!("device = {:?}\n", device.chip()),
        Backend::File => unreachable!("a file can be copied, and then there are two"),
    }
}
