//! The `devkey` command: tokens, keys, configuration and the agent, for people and scripts.
//!
//! A command returns an [`Answer`](output::Answer) or a [`Failure`](failure::Failure); only
//! `output` writes.

mod agent;
mod answer;
mod ca;
mod cert;
mod completion;
mod config;
mod doctor;
mod failure;
mod init;
mod key;
mod manual;
mod output;
mod pin;
mod puf;
mod renew;
mod request;
mod ssh;
mod sshd;
mod token;
mod tokens;
mod transfer;
mod uri;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use devkey::backends;
use devkey::provider::BackEnd;

use crate::output::Outcome;

/// Every back end, all in this process: the command needs the key service only where one is named.
const BACK_ENDS: &[BackEnd] = &[
    backends::file::BACK_END,
    backends::puf::BACK_END,
    #[cfg(feature = "kernel")]
    backends::kernel::BACK_END,
    #[cfg(feature = "tpm")]
    backends::tpm::BACK_END,
];

/// A private key per device that nobody can read, copy or move
///
/// Keys live on tokens. What keeps a token's keys is its back end: a TPM 2.0, a PUF, a key of the
/// Linux kernel, or a file. Programs reach them through the PKCS#11 module, devkey-pkcs11(7), and on a
/// machine with several users through the key service, devkeyd(8).
#[derive(Debug, Parser)]
#[command(
    name = "devkey",
    version,
    max_term_width = 100,
    after_help = "Start here:
  devkey init                   # make a token in your home directory
  devkey init --tpm             # make one whose keys live in the machine's TPM
  devkey init --pin             # make one whose keys are used by a PIN alone
  devkey key new laptop         # make a key on it and print its OpenSSH line

Exit code: 0, 1 where something failed, 2 for a wrong command line; 3 where
`devkey cert list --expires-within` has something to list, and `devkey sshd
status` no key of a token.

DEVKEY_LOG=debug says more on standard error. Settings: devkey.toml(5), `devkey config`."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    /// Make, list, show and delete keys
    ///
    /// A key is made on its token and never leaves it; what is shown is its public half. A key is
    /// named by its label or its ID.
    #[command(subcommand, after_help = "Next: `devkey key new --help`.")]
    Key(key::Command),
    Request(request::Args),
    Answer(answer::Args),
    /// Be a CA: challenge devices, issue certificates, revoke them
    ///
    /// For a lab, a factory line, a fleet of hundreds. A device asks (`devkey request`), the CA
    /// challenges it, the device answers (`devkey answer`), the CA issues. Each step reads a file and
    /// writes one. The CA's books are files in a directory, which --dir or the variable DEVKEY_CA names.
    #[command(subcommand, after_help = "Next: `devkey ca init --help`.")]
    Ca(ca::Command),
    /// Install, list, show and delete the certificates of keys
    ///
    /// A certificate is on the token of its key: an X.509 certificate with its chain, where PKCS#11
    /// programs find it, and OpenSSH's as files beside it.
    #[command(subcommand, after_help = "Next: `devkey cert list`.")]
    Cert(cert::Command),
    Renew(renew::Args),
    /// Set, change and unlock PINs, and see how many tries are left
    ///
    /// The user's PIN uses keys; the SO, the security officer, gives the user another one where that is
    /// locked or forgotten. Whether a token has PINs is settled when it is made: `devkey init --pin`.
    #[command(subcommand, after_help = "Next: `devkey pin status`.")]
    Pin(pin::Command),
    /// List and show tokens
    ///
    /// A token is a directory with keys and what they need, called as the directory is. `devkey init`
    /// makes one.
    #[command(subcommand, after_help = "Next: `devkey token list`.")]
    Token(token::Command),
    /// Measure, check and simulate PUF devices
    ///
    /// A PUF token keeps no key: its keys are made anew from the noise of a chip whenever they are used.
    /// How reliable that is, and how many secret bits a chip has, is measured before a token is made.
    #[command(subcommand, after_help = "Next: `devkey puf probe --help`.")]
    Puf(puf::Command),
    Config(config::Args),
    Doctor(doctor::Args),
    /// Work with ssh-agent
    ///
    /// An agent has the keys of a PKCS#11 module as they were when the module was added; see
    /// devkey-pkcs11(7).
    #[command(subcommand, after_help = "Next: `devkey agent refresh`.")]
    Agent(agent::Command),
    /// Answer sshd
    ///
    /// OpenSSH's certificates say in an extension of devkey's CA where a key lives; sshd asks devkey
    /// what to make of it.
    #[command(subcommand, after_help = "Next: `devkey ssh principals --help`.")]
    Ssh(ssh::Command),
    /// Have sshd prove itself by a key of a token
    #[command(subcommand, after_help = "Next: `devkey sshd enable --help`.")]
    Sshd(sshd::Command),
    /// Print a completion script for a shell
    ///
    /// Packages and `make install` put them where the shells look for them.
    #[command(after_help = "Example:
  devkey completion bash > ~/.local/share/bash-completion/completions/devkey
Next: start a new shell.")]
    Completion {
        /// Shell to complete in
        #[arg(value_parser = ["bash", "zsh", "fish"])]
        shell: String,
    },
    #[command(hide = true)]
    Manual(manual::Args),
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
            Command::Doctor(args) => doctor::run(&args),
            Command::Agent(command) => agent::run(&command),
            Command::Ssh(command) => ssh::run(&command),
            Command::Sshd(command) => sshd::run(&command),
            Command::Completion { shell } => Ok(completion::script(&shell)),
            Command::Manual(args) => manual::run(&args),
        }
    }

    /// Whether a device may be asked, and its library speak.
    fn touches_device(&self) -> bool {
        match self {
            Command::Init(_) | Command::Pin(_) | Command::Renew(_) | Command::Doctor(_) => true,
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
