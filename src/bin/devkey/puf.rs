//! `devkey puf`: devices whose noise is a key.

mod certify;
mod enroll;
mod probe;
#[cfg(feature = "simulate")]
mod simulate;
mod verify;

use crate::output::Outcome;

pub(crate) use probe::{limit as noise_limit, measure, settings};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Probe(probe::Args),
    Enroll(enroll::Args),
    Refresh(enroll::RefreshArgs),
    Verify(verify::Args),
    #[command(subcommand)]
    Certify(certify::Command),
    #[cfg(feature = "simulate")]
    Simulate(simulate::Args),
}

pub(crate) fn run(command: &Command) -> Outcome {
    match command {
        Command::Probe(args) => probe::run(args),
        Command::Enroll(args) => enroll::run(args),
        Command::Refresh(args) => enroll::refresh(args),
        Command::Verify(args) => verify::run(args),
        Command::Certify(command) => certify::run(command),
        #[cfg(feature = "simulate")]
        Command::Simulate(args) => simulate::run(args),
    }
}
