//! `devkey manual`: the pages of section 1, from the definitions of the command line.
//!
//! Hidden: it is for `make man` and for packages. Whatever subcommand there is has its page.

mod notes;
mod page;
mod places;

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Command;
use der::DateTime;
use devkey::Error;

use crate::completion::visible;
use crate::failure::{Failure, Result};
use crate::output::{Answer, Outcome};

/// The date of the pages, in seconds since 1970; without it they bear none.
const DATE: &str = "SOURCE_DATE_EPOCH";

/// Write the manual's pages of section 1 into DIR/man1
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  devkey manual target/man
Next: `man -l target/man/man1/devkey.1`.")]
pub(crate) struct Args {
    /// Directory of the manual; made where it does not exist
    dir: PathBuf,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let date = date()?;
    let mut root = visible();
    root.build();
    let dir = args.dir.join("man1");
    fs::create_dir_all(&dir).map_err(|e| Error::io(format!("making {}", dir.display()), e))?;
    let mut written = 0;
    for command in with_all_below(&root) {
        let path = dir.join(format!("{}.1", page::name(command)));
        let failed = |e| Error::io(format!("writing {}", path.display()), e);
        let text = page::text(&root, command, &date).map_err(failed)?;
        fs::write(&path, text).map_err(failed)?;
        written += 1;
    }
    Ok(Answer::text(format!(
        "wrote {written} pages into {}",
        dir.display()
    )))
}

fn with_all_below(command: &Command) -> Vec<&Command> {
    let below = command.get_subcommands().flat_map(with_all_below);
    std::iter::once(command).chain(below).collect()
}

/// A day as YYYY-MM-DD.
fn date() -> Result<String> {
    let Some(seconds) = env::var_os(DATE) else {
        return Ok(String::new());
    };
    let seconds = seconds.to_str().and_then(|text| text.parse().ok());
    let date = seconds.and_then(|s| DateTime::from_unix_duration(Duration::from_secs(s)).ok());
    let date = date.ok_or_else(|| {
        let what = format!("{DATE} is no number of seconds since 1970");
        Failure::new(what, "correct it, or unset it")
    })?;
    let text = date.to_string();
    Ok(text.split('T').next().unwrap_or_default().to_owned())
}
