//! `devkey puf enroll` and `refresh`: tokens on a PUF device, by way of `devkey init`.

use std::path::PathBuf;

use devkey::Error;

use crate::failure::Failure;
use crate::init::{self, PUF, parse_setting};
use crate::output::Outcome;
use crate::pin::InitPins;
use crate::tokens::{Tokens, parse_name};

/// Make a token of a device: `devkey init --puf`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  devkey puf enroll /dev/puf0 board
Next: `devkey key new LABEL`.")]
pub(crate) struct Args {
    /// The device's node
    #[arg(default_value = "/dev/puf0")]
    device: PathBuf,
    /// The token's name [default: "default"]
    #[arg(value_parser = parse_name)]
    name: Option<String>,
    /// A setting of the PUF back end; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
    #[command(flatten)]
    pins: InitPins,
}

/// Make a new token of the device of an old one, with other keys
///
/// The new token has the same error-correction data, which so tells nothing new, under other labels:
/// none of its keys is one of the old token's. A second enrolment from scratch is refused, since two
/// can disclose the keys of both. The old token stays until it is deleted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  devkey puf refresh board board2
Next: `devkey key new --token board2 LABEL`; once its keys are trusted everywhere, delete the old
token's directory.")]
pub(crate) struct RefreshArgs {
    /// The old token's name
    #[arg(value_parser = parse_name)]
    token: String,
    /// The new token's name
    #[arg(value_parser = parse_name)]
    name: String,
    #[command(flatten)]
    pins: InitPins,
}

pub(crate) fn run(args: &Args) -> Outcome {
    init::run(&init::Args::on_puf(
        args.device.clone(),
        args.set.clone(),
        args.pins.clone(),
        args.name.clone(),
    ))
}

pub(crate) fn refresh(args: &RefreshArgs) -> Outcome {
    let tokens = Tokens::load()?;
    let (found, token) = tokens.find_open(Some(&args.token))?;
    let record = token.store().token();
    if record.back_end != PUF {
        let error = Error::input(format!("token {} is no PUF token", found.name));
        return Err(Failure::new(error, "`devkey token list` says which are"));
    }
    let mut settings = found.place(record.settings.clone()).settings;
    settings.insert("renew".to_owned(), found.dir.display().to_string());
    let device = settings.remove("device");
    init::run(&init::Args::on_puf(
        device.unwrap_or_else(|| "/dev/puf0".to_owned()).into(),
        settings.into_iter().collect(),
        args.pins.clone(),
        Some(args.name.clone()),
    ))
}
