//! The area `puf`, on a simulated chip.
#![cfg(feature = "simulate")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::checks::Checks;
use crate::common::{Backend, Device};
use crate::machine::contents;

fn doctor(device: &Device) -> Checks {
    Checks::of(device.devkey().words("doctor puf"))
}

/// From a chip as it was enrolled to one that is worn out. Seen to fail with `NEAR` 2, without the arm for
/// noise above the limit, and with failures not counted.
#[test]
fn noise_is_measured_beside_what_the_enrolment_bears() {
    let device = Device::new(Backend::Puf);
    let said = doctor(&device);
    said.ok("puf.node", &["machine", "closed to others"]);
    said.ok("puf.helper", &["both copies"]);
    said.ok("puf.noise", &["machine: noise", "dk-1024 bears"]);
    device.control("noise 0.29");
    doctor(&device).warning(
        "puf.noise",
        &["little is left"],
        "make a token on another window",
    );
    device.control("noise 0.38");
    doctor(&device).failed("puf.noise", &["machine"], "devkey ");
    device.control("noise 0.45");
    doctor(&device).failed(
        "puf.noise",
        &["5 of 5 readings"],
        "devkey puf verify --token machine",
    );
    device.control("noise 0.05");
    doctor(&device).ok("puf.noise", &[]);
}

/// Seen to fail with what `look` says passed over in `of_token`, and with failures not counted.
#[test]
fn faults_of_a_device_are_named() {
    let device = Device::new(Backend::Puf);
    device.configure("[token.machine]\ntimeout = '2'\n");
    for (fault, id, says) in [
        ("missing", "puf.node", "not there"),
        ("io", "puf.noise", "EIO"),
        ("stuck", "puf.noise", "5 of 5 readings"),
    ] {
        device.control(&format!("fault {fault}"));
        doctor(&device).failed(id, &[says], "");
        device.control("fault none");
    }
    {
        let doctor;
        let _silence = device.silence();
        let run = device.devkey().words("doctor puf");
        doctor = run.serve(&device.path("doctor.log"));
        doctor.wait_for("did not answer within 2 s");
    }
    let node = device.chip();
    fs::set_permissions(&node, fs::Permissions::from_mode(0o644)).unwrap();
    doctor(&device).failed("puf.node", &["others can read"], "chmod o-rw");
}

/// The use of a key would write it anew; the doctor says so, and writes nothing. Seen to fail with
/// `copies::read` for `inspect`.
#[test]
fn a_broken_copy_of_helper_data_is_named_and_left_alone() {
    let device = Device::new(Backend::Puf);
    let copy = device.store().join("machine/helper.copy");
    fs::write(&copy, "nothing of the kind").unwrap();
    let before = contents(&device.store());
    let said = doctor(&device);
    said.warning("puf.helper", &["helper.copy"], "the next use of a key");
    said.ok("puf.noise", &[]);
    assert_eq!(contents(&device.store()), before);
    fs::remove_file(device.store().join("machine/helper")).unwrap();
    doctor(&device).failed("puf.noise", &["helper", "backup"], "");
}

/// A window that is read once is not read by this. Seen to fail with `once` not looked at.
#[test]
fn a_window_that_is_read_once_is_left_alone() {
    let device = Device::new(Backend::Puf);
    device.configure("[token.machine]\nhold = 'boot'\nscrub = 'yes'\n");
    doctor(&device).none("puf.noise", &["read once, at boot"]);
}

/// A configuration on a file system that does not answer. Seen to fail, by its deadline, with `Scope::new`
/// called outside the thread.
#[test]
fn a_file_system_that_hangs_is_given_up() {
    let device = Device::new(Backend::Puf);
    let doctor;
    let _silence = device.silence();
    let run = device.devkey().env("DEVKEY_CONFIG", device.chip());
    doctor = run.words("doctor --json").serve(&device.path("doctor.log"));
    doctor.wait_for("\"config.deadline\"");
}
