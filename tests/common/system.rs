//! A device whose token is the system's: devkeyd owns it, as a user of its own, and whoever the rules
//! name uses it. By root alone, for there are several users in it.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::device::{Backend, Device};
use super::run::{Run, Server};

/// As whom devkeyd runs: a number that no account has.
pub(crate) const KEEPER: u32 = 991;

/// A device and its key service.
pub(crate) struct System {
    // Declared first: the service ends before the TPM does.
    pub(crate) service: Option<Server>,
    /// The device; its `machine` is the system's.
    pub(crate) device: Device,
}

impl System {
    /// A device, with PINs or without, whose token's table in devkey.toml has the lines `rules`.
    pub(crate) fn new(backend: Backend, pins: bool, rules: &str) -> Self {
        let device = match pins {
            true => Device::with_pins(backend),
            false => Device::new(backend),
        };
        // That one was the user's own.
        fs::remove_dir_all(device.store().join(Device::TOKEN)).unwrap();
        device.configure(&format!(
            "user = '{KEEPER}'\nsocket = {:?}\n[token.{}]\n{rules}\n",
            device.path("run/socket"),
            Device::TOKEN
        ));
        for path in [device.store(), device.path("run")] {
            chown(path, Some(KEEPER), Some(KEEPER)).unwrap();
        }
        if device.chip().exists() {
            let group = KEEPER.to_string();
            Run::new("chgrp").arg(group).arg(device.chip()).ok();
        }
        let mut system = System {
            service: None,
            device,
        };
        system.start();
        system.init(pins);
        system
    }

    fn init(&self, pins: bool) {
        let device = &self.device;
        let mut init = device.devkey().words("init --system");
        if let Some(tcti) = device.tcti() {
            init = init.args(["--tpm", "--tcti", tcti]);
        }
        if device.chip().exists() {
            init = init.arg("--puf").arg(device.chip());
            init = init.words("--set allow_file=yes");
        }
        if pins {
            init = init.arg("--pin").arg("--pin-file").arg(device.path("pin"));
            init = init.arg("--so-pin-file").arg(device.path("so-pin"));
        }
        init.arg(Device::TOKEN).seconds(120).ok();
    }

    /// devkeyd as its own user, with nothing but that user's rights.
    pub(crate) fn devkeyd(&self) -> Run {
        let keeper = KEEPER.to_string();
        let run = self.device.run("setpriv");
        run.args(["--reuid", &keeper, "--regid", &keeper])
            .words("--clear-groups --no-new-privs")
            .arg(env!("CARGO_BIN_EXE_devkeyd"))
            .arg("--listen")
    }

    /// Starts the service, which is not running.
    pub(crate) fn start(&mut self) {
        let (mut service, socket) = (self.devkeyd().serve(&self.log_file()), self.socket());
        let start = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(service.runs(), "{}", service.log());
            let waited = start.elapsed();
            assert!(waited < Duration::from_secs(20), "{}", service.log());
            sleep(Duration::from_millis(10));
        }
        self.service = Some(service);
    }

    /// Ends the service.
    pub(crate) fn stop(&mut self) {
        self.service = None;
    }

    /// The running service.
    pub(crate) fn service(&mut self) -> &mut Server {
        self.service.as_mut().unwrap()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.service.as_ref().unwrap().id()
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.device.path("run/socket")
    }

    /// What it has said since it was started.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap()
    }

    fn log_file(&self) -> PathBuf {
        self.device.path("devkeyd.log")
    }
}
