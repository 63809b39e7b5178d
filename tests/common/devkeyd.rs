//! Starting the real devkeyd from tests.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

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
