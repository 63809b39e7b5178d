//! `devkey puf`: devices whose noise is a key.

mod certify;
pub(crate) mod probe;
#[cfg(feature = "simulate")]
mod simulate;
mod verify;

use crate::output::Outcome;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Probe(probe::Args),
    Verify(verify::Args),
    #[command(subcommand)]
    Certify(certify::Command),
    #[cfg(feature = "simulate")]
    Simulate(simulate::Args),
}

pub(crate) fn run(command: &Command) -> Outcome {
    match command {
        Command::Probe(args) => probe::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Certify(command) => certify::run(command),
        #[cfg(feature = "simulate")]
        Command::Simulate(args) => simulate::run(args),
    }
}
