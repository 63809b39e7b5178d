//! `devkey completion`: scripts with which shells complete what is typed.

use clap::{Arg, Command, CommandFactory, ValueHint};
use clap_complete::Shell;

use crate::Cli;
use crate::output::Answer;

/// The script for a shell: bash, zsh or fish.
pub(crate) fn script(shell: &str) -> Answer {
    let shell = match shell {
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::Bash,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut visible(), "devkey", &mut script);
    Answer::text(String::from_utf8_lossy(&script))
}

/// The command line as its users are shown it: without what is hidden.
pub(crate) fn visible() -> Command {
    let whole = Cli::command();
    let shown = whole.get_subcommands().filter(|one| !one.is_hide_set());
    let mut root = Command::new("devkey")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommands(shown.cloned().map(hinted));
    if let Some(about) = whole.get_about() {
        root = root.about(about.clone());
    }
    if let Some(about) = whole.get_long_about() {
        root = root.long_about(about.clone());
    }
    if let Some(after) = whole.get_after_long_help().or(whole.get_after_help()) {
        root = root.after_help(after.clone());
    }
    root
}

/// Has the shell complete files, directories and commands, by the names of the values.
fn hinted(command: Command) -> Command {
    command.mut_args(hint).mut_subcommands(hinted)
}

fn hint(arg: Arg) -> Arg {
    let name = arg.get_value_names().and_then(<[_]>::first);
    let hint = match name.map(|name| name.as_str()) {
        Some("DIR") => ValueHint::DirPath,
        Some(name) if name.starts_with("FILE") => ValueHint::FilePath,
        Some("LINE") => ValueHint::CommandString,
        _ => return arg,
    };
    arg.value_hint(hint)
}
