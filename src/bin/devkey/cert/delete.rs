//! `devkey cert delete`

use devkey::Error;
use devkey::store::{ObjectId, SshFiles};

use super::Which;
use super::item::{Body, Item, named};
use crate::failure::{Failure, Result};
use crate::output::{self, Answer, Outcome};
use crate::tokens::Tokens;

/// Delete the certificates of a key, or one, with its chain; the key stays
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  devkey cert delete --yes laptop
Next: have it revoked, where it has not expired.")]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(tokens: &Tokens, args: &Args) -> Outcome {
    let (found, token) = tokens.find_open(args.which.token.as_deref())?;
    let items = named(&found, &*token, &args.which)?;
    let what = what(&items);
    if !args.yes && !confirmed(&what)? {
        return Err(Error::input(format!("{what}: not deleted")).into());
    }
    let ids: Vec<ObjectId> = items.iter().filter_map(Item::object).collect();
    if !ids.is_empty() {
        token.replace_certificates(&ids, &[])?;
    }
    for item in items
        .iter()
        .filter(|item| matches!(item.body, Body::Ssh(_)))
    {
        let dir = item.file.parent().unwrap_or(&found.dir);
        match dir == found.dir {
            true => token.store().ssh_files().remove(&item.file_name())?,
            false => SshFiles::at(dir).remove(&item.file_name())?,
        }
    }
    Ok(Answer::text(format!("deleted {what}")))
}

fn what(items: &[Item]) -> String {
    let mut files: Vec<String> = items.iter().map(Item::file_name).collect();
    files.dedup();
    format!("the certificates in {}", files.join(", "))
}

fn confirmed(what: &str) -> Result<bool> {
    output::ask(&format!("Delete {what}?")).ok_or_else(|| {
        let error = Error::input("there is no terminal to ask on whether to delete them");
        Failure::new(error, "add --yes if they are to be deleted")
    })
}
