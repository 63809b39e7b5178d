//! Starting the real devkeyd from tests.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use devkey::{Error, Result};

/// The program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_devkeyd");

/// A [`Launcher`](devkey::service::Launcher).
pub(crate) fn launch(program: &Path, socket: OwnedFd) -> Result<()> {
    let mut command = Command::new(program);
    command.arg("--private").stdin(socket).process_group(0);
    command.env_clear();
    command.envs([("OPENSSL_CONF", "/dev/null"), ("TSS2_LOG", "all+none")]);
    let started = command.status();
    match started {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Error::Internal(format!("{command:?}: {status}"))),
        Err(e) => Err(Error::io(format!("{command:?}"), e)),
    }
}

/// A service that listens, until it is dropped.
#[allow(dead_code, reason = "not every test program has one")]
pub(crate) struct Listening(Child);

#[allow(dead_code, reason = "not every test program has one")]
impl Listening {
    /// Starts one and waits until it serves.
    pub(crate) fn start(config: &Path, socket: &Path) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg("--listen").arg(socket).env_clear();
        command
            .env("DEVKEY_CONFIG", config)
            .env("TSS2_LOG", "all+none");
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while UnixStream::connect(socket).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "devkeyd ended");
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "devkeyd is silent"
            );
            sleep(Duration::from_millis(5));
        }
        Listening(child)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
