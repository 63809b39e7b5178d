//! `devkey cert`: the certificates beside the keys.

mod delete;
mod input;
mod install;
mod item;
mod show;
mod view;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use devkey::config::parse_span;

pub(crate) use input::{Input, MAX_INPUT, Roots};
pub(crate) use install::{Put, Replaced, install};
pub(crate) use item::{Item, items};
pub(crate) use show::pem;
pub(crate) use view::{View, date, ends_within, words};

use crate::output::Outcome;
use crate::renew;
use crate::tokens::{Tokens, parse_name};

/// What follows an installation.
pub(crate) const PROGRAMS: &str = "Programs that run have the old one still: nginx -s reload; for \
     ssh-agent, devkey agent refresh; others: docs/certificates.md.";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the certificates, those of OpenSSH too
    ///
    /// Exit code 1 where a token or a file cannot be read; the rest is listed all the same. With
    /// --expires-within the exit code is 3 where there is anything to list.
    #[command(after_help = "Examples:
  devkey cert list
  devkey cert list --expires-within 30d --json
--json: an array of what `devkey cert show --format json` prints.
Next: `devkey cert show LABEL`, or `devkey renew`.")]
    List {
        /// Only this token's
        #[arg(long, value_name = "NAME", value_parser = parse_name)]
        token: Option<String>,
        /// Only what has expired, or will within that time: 30d, 12h, 45m, 90s
        #[arg(long, value_name = "SPAN", value_parser = parse_span)]
        expires_within: Option<Duration>,
        /// Look for OpenSSH's certificates in this directory too
        #[arg(long, value_name = "DIR")]
        ssh_dir: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    Show(show::Args),
    Install(install::Args),
    Delete(delete::Args),
    /// Renew the certificates of a key now, whenever they expire
    ///
    /// As `devkey renew`, for one key.
    #[command(after_help = "Example:
  devkey cert renew laptop --command '/usr/local/bin/enrol'
Next: `devkey cert show laptop`.")]
    Renew(renew::OneArgs),
}

/// Names a certificate.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// The token [default: the only one, or "default"]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub(crate) token: Option<String>,
    /// The label or the ID of a key, or a certificate as `devkey cert list` names it
    #[arg(value_name = "LABEL-or-ID")]
    pub(crate) name: String,
    /// Look for OpenSSH's certificates in this directory, not in the token's
    #[arg(long, value_name = "DIR")]
    pub(crate) ssh_dir: Option<PathBuf>,
}

impl Command {
    /// Whether a device may be asked.
    pub(crate) fn touches_device(&self) -> bool {
        matches!(self, Command::Renew(_))
    }
}

pub(crate) fn run(command: &Command) -> Outcome {
    let tokens = Tokens::load()?;
    match command {
        Command::List {
            token,
            expires_within,
            ssh_dir,
            json,
        } => {
            let list = view::List {
                token: token.as_deref(),
                within: *expires_within,
                ssh_dir: ssh_dir.as_deref(),
                json: *json,
            };
            list.run(&tokens)
        }
        Command::Show(args) => show::run(&tokens, args),
        Command::Install(args) => install::run(&tokens, args),
        Command::Delete(args) => delete::run(&tokens, args),
        Command::Renew(args) => renew::run_one(&tokens, args),
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
