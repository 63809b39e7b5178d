//! `devkey init`: makes a token.

use std::path::{Path, PathBuf, absolute};

use devkey::Error;
use devkey::config::DEFAULT_TOKEN;
use devkey::provider::{BackEnd, Settings};
use devkey::token::{LocalToken, Token, TokenRequest};
use rustix::process::geteuid;

use crate::failure::{Failure, Result};
use crate::output::{self, Answer, Outcome};
use crate::tokens::{Tokens, parse_name};
use crate::{BACK_ENDS, token};

const FILE: &str = "file";
const TPM: &str = "tpm";

/// Make a token: a place for keys
///
/// A file token keeps its keys under a secret file in your home directory. A TPM token keeps them
/// so that only this machine's TPM can use them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  devkey init                     a file token called \"default\"
  devkey init --tpm board         a token called \"board\" in the machine's TPM
Next: make a key on it with `devkey key new LABEL`.")]
pub(crate) struct Args {
    /// Keep the keys in the machine's TPM 2.0
    #[arg(long)]
    tpm: bool,
    /// How the TPM is reached [default: device:/dev/tpmrm0]
    #[arg(long, requires = "tpm")]
    tcti: Option<String>,
    /// The token's label, shown by ssh and browsers [default: NAME, "devkey" for "default"]
    #[arg(long)]
    label: Option<String>,
    /// Directory to make it in, which must not exist [default: by devkey.toml, or in your home]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The token's name
    #[arg(default_value = DEFAULT_TOKEN, value_parser = parse_name)]
    name: String,
}

impl Args {
    fn label(&self) -> &str {
        match self.label.as_deref() {
            Some(label) => label,
            None if self.name == DEFAULT_TOKEN => "devkey",
            None => &self.name,
        }
    }

    fn settings(&self) -> Settings {
        let tcti = self.tcti.iter();
        tcti.map(|tcti| ("tcti".to_owned(), tcti.clone())).collect()
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let tokens = Tokens::load()?;
    let dir = place(args, &tokens)?;
    let request = TokenRequest {
        dir: &dir,
        label: args.label(),
        settings: args.settings(),
    };
    let made = LocalToken::create(back_end(args.tpm)?, &request).map_err(explain)?;
    let record = made.store().token();
    let mut text = format!("made token {}\n", args.name);
    text += &output::fields(&token::summary(record, &dir));
    if tokens.find(Some(&args.name)).is_err() {
        text += &format!(
            "\nto have it found, put this into devkey.toml:\n  [token.{}]\n  directory = {:?}\n",
            args.name, dir
        );
    }
    text += &format!("\nnext: devkey key new --token {} LABEL\n", args.name);
    Ok(Answer::text(text))
}

fn back_end(tpm: bool) -> Result<&'static BackEnd> {
    let name = if tpm { TPM } else { FILE };
    let known = BACK_ENDS.iter().find(|known| known.name == name);
    known.ok_or_else(|| {
        let error = Error::unsupported(format!("this build of devkey has no {name} back end"));
        Failure::new(error, "use a file token: devkey init")
    })
}

/// The directory to be made. A name that the configuration gives to a directory is free until
/// there is one.
fn place(args: &Args, tokens: &Tokens) -> Result<PathBuf> {
    let all = tokens.config.tokens();
    let mut twins = all.iter().filter(|token| token.name == args.name);
    if let Some(twin) = twins.find(|twin| twin.dir.symlink_metadata().is_ok()) {
        return Err(exists(&args.name, &twin.dir));
    }
    if let Some(dir) = &args.dir {
        let dir = absolute(dir).map_err(|e| Error::io(format!("finding {}", dir.display()), e))?;
        return Ok(dir);
    }
    let environment = &tokens.environment;
    if environment.data_home.is_none() && environment.config.is_none() && !geteuid().is_root() {
        let error = Error::input("no place for a token: HOME is not set");
        return Err(Failure::new(error, "set HOME, or name a place with --dir"));
    }
    Ok(tokens.config.place_for(&args.name)?)
}

fn exists(name: &str, dir: &Path) -> Failure {
    let error = Error::Exists(format!("token {name} ({})", dir.display()));
    let remedy = format!("see it with `devkey token show {name}`, or choose another name");
    Failure::new(error, remedy)
}

/// Adds what to do.
fn explain(error: Error) -> Failure {
    match error {
        Error::Exists(what) => Failure::new(
            Error::Exists(what),
            "choose another name, or name a place with --dir",
        ),
        Error::Io { context, source } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            Failure::new(
                Error::io(context, source),
                "run as the owner of that directory, or name another place with --dir",
            )
        }
        other => other.into(),
    }
}
