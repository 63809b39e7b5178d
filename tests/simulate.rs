//! The simulated PUF device: a mount whose node is a noisy chip, with its faults.
#![cfg(feature = "simulate")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what cannot go on has failed"
)]

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use devkey::simulate::{Chip, Conditions, Make, Node};
use tempfile::TempDir;

struct Device {
    dir: TempDir,
    _node: Node,
}

impl Device {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let chip = Chip::new(&Make {
            seed: 1,
            bytes: 1024,
            ones: 0.5,
            structure: 0.0,
        });
        let node = Node::mount(chip, Conditions::default(), 0, dir.path());
        let node = node.expect("/dev/fuse and the right to mount are wanted: run as root");
        Device { dir, _node: node }
    }

    fn puf(&self) -> PathBuf {
        self.dir.path().join("puf0")
    }

    fn control(&self, line: &str) -> std::io::Result<()> {
        fs::write(self.dir.path().join("control"), line)
    }

    fn differing(&self) -> u32 {
        let (a, b) = (fs::read(self.puf()).unwrap(), fs::read(self.puf()).unwrap());
        assert_eq!((a.len(), b.len()), (1024, 1024));
        a.iter().zip(&b).map(|(a, b)| (a ^ b).count_ones()).sum()
    }
}

/// Of 8192 cells 5 % are 410, with a deviation of 20. Seen to fail with `readings` not counted.
#[test]
fn each_opening_is_a_reading_under_the_conditions_of_the_moment() {
    let device = Device::new();
    assert!((310..510).contains(&device.differing()));
    device.control("noise 0.25\ntemperature -18\n").unwrap();
    assert!((1850..2300).contains(&device.differing()));
    assert!(device.control("noise lots").is_err());
    assert!(device.control("nonsense 1").is_err());
}

/// Seen to fail with each arm of `State::bytes` and `State::opened` taken out.
#[test]
fn faults_are_those_of_devices() {
    let device = Device::new();
    let kind = |fault: &str| {
        device.control(&format!("fault {fault}")).unwrap();
        let read = File::open(device.puf()).and_then(|mut file| {
            let mut reading = Vec::new();
            file.read_to_end(&mut reading).map(|_| reading)
        });
        device.control("fault none").unwrap();
        read
    };
    assert_eq!(kind("missing").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(kind("busy").unwrap_err().kind(), ErrorKind::ResourceBusy);
    assert_eq!(kind("io").unwrap_err().raw_os_error(), Some(5));
    assert_eq!(kind("unplugged").unwrap_err().raw_os_error(), Some(19));
    assert_eq!(kind("short").unwrap().len(), 512);
    assert_eq!(kind("stuck").unwrap(), [0xff; 1024]);
    device.control("fault latched").unwrap();
    assert_eq!(device.differing(), 0);
}

#[test]
fn a_silent_device_answers_nobody_until_it_is_well_again() {
    let device = Device::new();
    device.control("fault silent").unwrap();
    let puf = device.puf();
    let reader = std::thread::spawn(move || fs::read(puf).unwrap_err().raw_os_error());
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(!reader.is_finished());
    device.control("fault none").unwrap();
    assert_eq!(reader.join().unwrap(), Some(5));
}

#[test]
fn its_mode_can_be_changed() {
    let device = Device::new();
    fs::set_permissions(device.puf(), fs::Permissions::from_mode(0o444)).unwrap();
    let mode = fs::metadata(device.puf()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o444);
}
