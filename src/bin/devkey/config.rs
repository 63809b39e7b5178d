//! `devkey config`: where the configuration is, and whether it is right.

use devkey::Error;
use devkey::config::{FoundToken, parts_dir};

use crate::BACK_ENDS;
use crate::failure::Failure;
use crate::output::{self, Answer, Outcome};
use crate::token::broken;
use crate::tokens::Tokens;

/// Show or check the configuration
///
/// Without a subcommand: the files and stores that are in force.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  devkey config check
Next: correct what it names; settings are described in devkey.toml(5).")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Read the configuration and open every token, without touching a device
    ///
    /// Exit code 1 where anything is wrong. Errors of the configuration name file and line.
    #[command(after_help = "Example:
  DEVKEY_CONFIG=./devkey.toml devkey config check
Next: `devkey token list`.")]
    Check,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let tokens = Tokens::load()?;
    match args.command {
        None => Ok(Answer::text(output::fields(&paths(&tokens)))),
        Some(Command::Check) => Ok(check(&tokens)),
    }
}

fn paths(tokens: &Tokens) -> Vec<(&'static str, String)> {
    let config = &tokens.config;
    let mut fields = Vec::new();
    for file in tokens.environment.config_files() {
        let there = match config.files.contains(&file) {
            true => "",
            false => " (not there)",
        };
        fields.push(("configuration", format!("{}{there}", file.display())));
        let dir = parts_dir(&file);
        let parts = config
            .files
            .iter()
            .filter(|part| part.parent() == Some(&dir));
        fields.extend(parts.map(|part| ("configuration", part.display().to_string())));
    }
    for store in &config.stores {
        let there = if store.exists() { "" } else { " (not there)" };
        fields.push(("store", format!("{}{there}", store.display())));
    }
    for socket in config.sockets() {
        let there = if socket.exists() { "" } else { " (not there)" };
        fields.push(("key service", format!("{}{there}", socket.display())));
    }
    fields.push(("private service", config.devkeyd.display().to_string()));
    fields
}

fn check(tokens: &Tokens) -> Answer {
    let config = &tokens.config;
    let mut problems: Vec<Failure> = config.unplaced().into_iter().map(Failure::from).collect();
    problems.extend(config.unusable().into_iter().map(Failure::from));
    let found = config.tokens();
    let mut lines = paths(tokens);
    for token in &found {
        let wrong = check_token(tokens, token);
        let state = if wrong.is_empty() { "ok" } else { "wrong" };
        lines.push(("token", format!("{}: {state}", token.name)));
        problems.extend(wrong);
    }
    Answer::text(output::fields(&lines)).problems(problems)
}

/// What is wrong with one token.
fn check_token(tokens: &Tokens, found: &FoundToken) -> Vec<Failure> {
    let opened = tokens.open(found).and_then(|token| {
        let listing = token.store().list()?;
        Ok((token, listing))
    });
    let (token, listing) = match opened {
        Ok(opened) => opened,
        Err(e) => return vec![e.into()],
    };
    let mut problems = broken(&listing);
    let name = &token.store().token().back_end;
    if !BACK_ENDS.iter().any(|known| known.name == *name) {
        let reason = format!("token {}: no back end {name:?} in this devkey", found.name);
        problems.push(Error::input(reason).into());
    }
    problems
}
