//! The `devkey` command: tokens, keys, configuration and the agent, for people and scripts.
//!
//! A command returns an [`Answer`](output::Answer) or a [`Failure`](failure::Failure); only
//! `output` writes.

mod agent;
mod answer;
mod ca;
mod cert;
mod config;
mod failure;
mod init;
mod key;
mod output;
mod pin;
mod puf;
mod renew;
mod request;
mod ssh;
mod token;
mod tokens;
mod transfer;
mod uri;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use devkey::backends;
use devkey::provider::BackEnd;

use crate::output::{Answer, Outcome};

/// Every back end, all in this process: the command needs the key service only where one is named.
const BACK_ENDS: &[BackEnd] = &[
    backends::file::BACK_END,
    backends::puf::BACK_END,
    #[cfg(feature = "kernel")]
    backends::kernel::BACK_END,
    #[cfg(feature = "tpm")]
    backends::tpm::BACK_END,
];

/// A private key per device that nobody can read, copy or move.
#[derive(Debug, Parser)]
#[command(
    name = "devkey",
    version,
    max_term_width = 100,
    after_help = "Start here:
  devkey init                   make a token in your home directory
  devkey init --tpm             make one whose keys live in the machine's TPM
  devkey init --pin             make one whose keys are used by a PIN alone
  devkey key new laptop         make a key on it and print its OpenSSH line

Exit code: 0, 1 where something failed, 2 for a wrong command line; 3 where
`devkey cert list --expires-within` has something to list.
DEVKEY_LOG=debug says more on standard error. Settings: docs/devkey.toml.md, `devkey config`."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    /// Make, list, show and delete keys
    #[command(subcommand, after_help = "Next: `devkey key new --help`.")]
    Key(key::Command),
    Request(request::Args),
    Answer(answer::Args),
    /// Be a CA: challenge devices, issue certificates, revoke them
    #[command(subcommand, after_help = "Next: `devkey ca init --help`.")]
    Ca(ca::Command),
    /// Install, list, show and delete the certificates of keys
    #[command(subcommand, after_help = "Next: `devkey cert list`.")]
    Cert(cert::Command),
    Renew(renew::Args),
    /// Set, change and unlock PINs, and see how many tries are left
    #[command(subcommand, after_help = "Next: `devkey pin status`.")]
    Pin(pin::Command),
    /// List and show tokens
    #[command(subcommand, after_help = "Next: `devkey token list`.")]
    Token(token::Command),
    /// Measure, check and simulate PUF devices
    #[command(subcommand, after_help = "Next: `devkey puf probe --help`.")]
    Puf(puf::Command),
    Config(config::Args),
    /// Work with ssh-agent
    #[command(subcommand, after_help = "Next: `devkey agent refresh`.")]
    Agent(agent::Command),
    /// Answer sshd
    #[command(subcommand, after_help = "Next: `devkey ssh principals --help`.")]
    Ssh(ssh::Command),
    /// Print a completion script for a shell
    #[command(after_help = "Example:
  devkey completion bash > ~/.local/share/bash-completion/completions/devkey
Next: start a new shell.")]
    Completion {
        /// Shell to complete in
        #[arg(value_parser = ["bash", "zsh", "fish"])]
        shell: String,
    },
}

impl Command {
    fn run(self) -> Outcome {
        match self {
            Command::Init(args) => init::run(&args),
            Command::Key(command) => key::run(&command),
            Command::Request(args) => request::run(&args),
            Command::Answer(args) => answer::run(&args),
            Command::Ca(command) => ca::run(&command),
            Command::Cert(command) => cert::run(&command),
            Command::Renew(args) => renew::run(&args),
            Command::Pin(command) => pin::run(&command),
            Command::Token(command) => token::run(&command),
            Command::Puf(command) => puf::run(&command),
            Command::Config(args) => config::run(&args),
            Command::Agent(command) => agent::run(&command),
            Command::Ssh(command) => ssh::run(&command),
            Command::Completion { shell } => Ok(completion(&shell)),
        }
    }

    /// Whether a device may be asked, and its library speak.
    fn touches_device(&self) -> bool {
        match self {
            Command::Init(_) | Command::Pin(_) | Command::Renew(_) => true,
            Command::Request(_) | Command::Answer(_) | Command::Ca(_) => true,
            Command::Cert(command) => command.touches_device(),
            Command::Key(command) => command.touches_device(),
            _ => false,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log();
    if cli.command.touches_device() {
        quiet_libtss2();
    }
    output::finish(cli.command.run())
}

fn completion(shell: &str) -> Answer {
    let shell = match shell {
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::Bash,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "devkey", &mut script);
    Answer::text(String::from_utf8_lossy(&script))
}

/// Filter of what is said without DEVKEY_LOG: the commands name broken files themselves, and what
/// tss-esapi logs is either handled or comes back as an error; fuser names what a node need not do.
const QUIET: &str = "warn,devkey::store=off,tss_esapi=off,fuser=off";

/// Warnings go to standard error.
fn start_log() {
    let filter = env_logger::Env::new().filter_or("DEVKEY_LOG", QUIET);
    env_logger::Builder::from_env(filter)
        .format(|to, record| {
            let level = record.level().as_str().to_ascii_lowercase();
            writeln!(to, "devkey: {level}: {}", record.args())
        })
        .init();
}

/// Starts the command anew, once, with libtss2's own messages turned off: it prints every error
/// code that is handled here, and reads nothing but the environment that it was started with.
#[cfg(feature = "tpm")]
fn quiet_libtss2() {
    use std::os::unix::process::CommandExt;
    use std::{env, process};

    let wanted = |name| env::var_os(name).is_some();
    if wanted("TSS2_LOG") || wanted("DEVKEY_LOG") {
        return;
    }
    let Ok(program) = env::current_exe() else {
        return;
    };
    let mut args = env::args_os();
    let mut again = process::Command::new(program);
    again.arg0(args.next().unwrap_or_default());
    let error = again.args(args).env("TSS2_LOG", "all+none").exec();
    log::debug!("libtss2 stays noisy: {error}");
}

#[cfg(not(feature = "tpm"))]
fn quiet_libtss2() {}
