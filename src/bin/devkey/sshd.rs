//! `devkey sshd`: a key of a token as a host key of sshd.

mod agent;
mod ask;
mod daemon;
mod disable;
mod drop_in;
mod enable;
mod host_key;
mod known_hosts;
mod paths;
mod rights;
mod status;
mod systemd;
mod undo;

use rustix::process::geteuid;

use crate::failure::{Failure, Result};
use crate::output::Outcome;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Enable(Box<enable::Args>),
    Disable(disable::Args),
    Status(status::Args),
    Agent(agent::Args),
}

/// # Errors
/// Where it is not root who asks: sshd's configuration and its keys are root's.
fn only_root(command: &str) -> Result<()> {
    match geteuid().is_root() {
        true => Ok(()),
        false => Err(Failure::new(
            "only root may look into sshd's configuration and change it",
            format!("sudo devkey sshd {command}"),
        )),
    }
}

pub(crate) fn run(command: &Command) -> Outcome {
    match command {
        Command::Enable(args) => enable::run(args),
        Command::Disable(args) => disable::run(args),
        Command::Status(args) => status::run(args),
        Command::Agent(args) => agent::run(args),
    }
}
