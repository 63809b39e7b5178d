//! `devkey agent`: makes a running ssh-agent see the keys as they are now.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Output, Stdio};

use devkey::Error;

use crate::failure::{Failure, Result};
use crate::output::{Answer, Outcome};
use crate::tokens::Tokens;

/// Path of the module, where the build names one.
const MODULE: Option<&str> = option_env!("DEVKEY_MODULE_PATH");
/// Where ssh-agent takes modules from unless its -P says otherwise: ssh-agent(1).
const ALLOWED: [&str; 2] = ["/usr/lib", "/usr/local/lib"];
/// Exit code of ssh-add where it reaches no agent: ssh-add(1).
const NO_AGENT: i32 = 2;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Load the keys into ssh-agent anew
    ///
    /// ssh-agent lists a module's keys once, when the module is added: run this after a key was
    /// made or deleted.
    #[command(after_help = "Example:
  devkey agent refresh && ssh-add -l
Next: `ssh HOST`.")]
    Refresh {
        /// The PKCS#11 module [default: the installed one]
        #[arg(long)]
        module: Option<PathBuf>,
    },
}

pub(crate) fn run(command: &Command) -> Outcome {
    let Command::Refresh { module } = command;
    let module = module.clone().unwrap_or_else(default_module);
    if env::var_os("SSH_AUTH_SOCK").is_none() {
        let what = "no ssh-agent: SSH_AUTH_SOCK is not set";
        return Err(Failure::new(what, "start one: eval \"$(ssh-agent)\""));
    }
    // The agent judges the real path, and forgets a module only under the name it was added by.
    let module = module.canonicalize().map_err(|e| {
        let error = Error::io(format!("module {}", module.display()), e);
        Failure::new(error, "install the devkey module, or name it with --module")
    })?;
    // It fails where the module was not loaded, which is fine.
    reached(&ssh_add("-e", &module)?)?;
    let added = match wants_pin()? {
        true => ssh_add_asking(&module)?,
        false => ssh_add("-s", &module)?,
    };
    match added.status.success() {
        true => Ok(
            Answer::text(format!("loaded {} into ssh-agent", module.display()))
                .hint("next: ssh-add -l"),
        ),
        false => Err(refused(&module, &added)),
    }
}

fn default_module() -> PathBuf {
    let triplet = match env::consts::ARCH {
        "arm" => "arm-linux-gnueabihf".to_owned(),
        "x86" => "i386-linux-gnu".to_owned(),
        arch => format!("{arch}-linux-gnu"),
    };
    let installed = || format!("/usr/lib/{triplet}/pkcs11/devkey-pkcs11.so");
    MODULE.map_or_else(installed, str::to_owned).into()
}

/// Whether one of the tokens has a PIN, for which ssh-add is to ask.
fn wants_pin() -> Result<bool> {
    let (open, _) = Tokens::load()?.open_all();
    Ok(open.iter().any(|(_, token)| token.store().token().pin))
}

/// Runs ssh-add with an empty answer to its question for a PIN.
///
/// ssh-add asks on the terminal wherever it finds one, unless an askpass program is forced on it;
/// true(1) is one that answers nothing.
fn ssh_add(option: &str, module: &Path) -> Result<Output> {
    let mut run = Process::new("ssh-add");
    run.env("SSH_ASKPASS", "/bin/true")
        .env("SSH_ASKPASS_REQUIRE", "force")
        .stdin(Stdio::null());
    ended(run.arg(option).arg(module))
}

/// Adds the module and lets ssh-add ask for the PIN: it offers what it is told to the agent alone.
fn ssh_add_asking(module: &Path) -> Result<Output> {
    let mut run = Process::new("ssh-add");
    ended(run.arg("-s").arg(module).stdin(Stdio::inherit()))
}

fn ended(run: &mut Process) -> Result<Output> {
    run.env("LC_ALL", "C").output().map_err(|e| {
        let error = Error::io("starting ssh-add", e);
        Failure::new(
            error,
            "install OpenSSH's client: apt install openssh-client",
        )
    })
}

fn reached(output: &Output) -> Result<()> {
    if output.status.code() != Some(NO_AGENT) {
        return Ok(());
    }
    let error = Error::DeviceGone {
        device: "ssh-agent".into(),
        reason: said(output),
    };
    Err(Failure::new(error, "start one: eval \"$(ssh-agent)\""))
}

fn refused(module: &Path, output: &Output) -> Failure {
    let error = Error::DeviceError {
        device: "ssh-agent".into(),
        reason: said(output),
    };
    let remedy = match ALLOWED.iter().any(|dir| module.starts_with(dir)) {
        true => {
            "devkey key list: an agent takes no module without keys; then see the agent's log, \
                 and that it is OpenSSH's own"
                .to_owned()
        }
        false => format!(
            "ssh-agent takes modules under {} only: install the module there, or start it with \
             ssh-agent -P {}",
            ALLOWED.join(" and "),
            module.display()
        ),
    };
    Failure::new(error, remedy)
}

/// The last line of what ssh-add said.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().last().unwrap_or("said nothing").to_owned()
}
