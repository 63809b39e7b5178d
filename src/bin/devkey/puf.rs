//! `devkey puf`: devices whose noise is a key.

mod certify;
#[cfg(feature = "simulate")]
mod simulate;

use crate::output::Outcome;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    #[command(subcommand)]
    Certify(certify::Command),
    #[cfg(feature = "simulate")]
    Simulate(simulate::Args),
}

pub(crate) fn run(command: &Command) -> Outcome {
    match command {
        Command::Certify(command) => certify::run(command),
        #[cfg(feature = "simulate")]
        Command::Simulate(args) => simulate::run(args),
    }
}
