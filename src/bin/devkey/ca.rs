//! `devkey ca`: a CA for a lab, a factory line, a fleet of hundreds.

mod init;
mod issue;
mod list;
mod register;
mod revoke;

use std::env;
use std::path::PathBuf;
use std::sync::Arc;

use devkey::Error;
use devkey::identity::ca::Ca;
use devkey::identity::flow::fingerprint;
use devkey::store::KeyRecord;

use crate::failure::{Failure, Result};
use crate::output::Outcome;
use crate::pin::Access;
use crate::tokens::{OpenToken, Tokens};

/// The variable that names a CA's directory.
const VARIABLE: &str = "DEVKEY_CA";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Init(init::Args),
    Challenge(issue::ChallengeArgs),
    Issue(issue::IssueArgs),
    Register(register::Args),
    List(list::Args),
    Show(list::ShowArgs),
    Revoke(revoke::Args),
    Crl(revoke::CrlArgs),
    Krl(revoke::KrlArgs),
}

/// Names a CA's books.
#[derive(Debug, clap::Args)]
pub(crate) struct Books {
    /// The CA's directory [default: what the variable DEVKEY_CA names]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Books {
    /// The directory.
    fn path(&self) -> Result<PathBuf> {
        let named = self.dir.clone();
        let path = named.or_else(|| env::var_os(VARIABLE).map(PathBuf::from));
        path.ok_or_else(|| {
            let remedy = "name it: --dir DIR; a new one is made by devkey ca init";
            Failure::new("which CA is meant?", remedy)
        })
    }

    fn open(&self) -> Result<Ca> {
        Ca::open(&self.path()?).map_err(|e| match e {
            Error::NotFound(what) => {
                let error = Error::NotFound(format!("the CA {what}"));
                Failure::new(
                    error,
                    "name its directory with --dir, or make one: devkey ca init",
                )
            }
            Error::BadConfig { .. } => {
                Failure::new(e, "correct it; `devkey ca show` reads it again")
            }
            other => other.into(),
        })
    }
}

pub(crate) fn run(command: &Command) -> Outcome {
    match command {
        Command::Init(args) => init::run(args),
        Command::Challenge(args) => issue::challenge(args),
        Command::Issue(args) => issue::issue(args),
        Command::Register(args) => register::run(args),
        Command::List(args) => list::run(args),
        Command::Show(args) => list::show(args),
        Command::Revoke(args) => revoke::run(args),
        Command::Crl(args) => revoke::crl(args),
        Command::Krl(args) => revoke::krl(args),
    }
}

/// The token that has the CA's key, logged in, the key, and what its user is to know.
fn signer(ca: &Ca, access: &Access) -> Result<(OpenToken, Arc<KeyRecord>, Option<String>)> {
    let tokens = Tokens::load()?;
    let name = &ca.config().token;
    let open = tokens.find_open(Some(name))?;
    let listing = open.1.store().list()?;
    let key = listing
        .keys
        .iter()
        .find(|key| fingerprint(&key.public) == ca.config().key);
    let key = key.ok_or_else(|| {
        let error = Error::NotFound(format!("the CA's key on token {name}"));
        Failure::new(error, "put the token back that `devkey ca init` was given")
    })?;
    let note = access.log_in(&*open.1, &open.0.name)?;
    Ok((open, Arc::clone(key), note))
}
