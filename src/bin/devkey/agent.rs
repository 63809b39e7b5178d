//! `devkey agent`: makes a running ssh-agent see the keys as they are now.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Output, Stdio};

use devkey::Error;
use devkey::identity::ssh::certificate::Kind;

use crate::cert::{Item, items, now};
use crate::failure::{Failure, Result};
use crate::output::{Answer, Outcome};
use crate::tokens::Tokens;

/// Path of the module, where the build names one.
const MODULE: Option<&str> = option_env!("DEVKEY_MODULE_PATH");
/// Where ssh-agent takes modules from unless its -P says otherwise, ssh-agent(1): `/usr/lib*/*` and
/// `/usr/local/lib*/*`, in which `*` is anything, slashes too.
const ALLOWED: [&str; 2] = ["/usr/lib", "/usr/local/lib"];
/// Exit code of ssh-add where it reaches no agent: ssh-add(1).
const NO_AGENT: i32 = 2;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Load the keys into ssh-agent anew
    ///
    /// ssh-agent lists a module's keys once, when the module is added: run this after a key or a
    /// certificate was made, renewed or deleted. Users' certificates are handed over with the keys; an
    /// agent of OpenSSH 9.6 or later offers them.
    #[command(after_help = "Example:
  devkey agent refresh && ssh-add -l
Next: `ssh HOST`.")]
    Refresh {
        /// The PKCS#11 module [default: the installed one]
        #[arg(long)]
        module: Option<PathBuf>,
        /// Look for OpenSSH's certificates in this directory too
        #[arg(long, value_name = "DIR")]
        ssh_dir: Option<PathBuf>,
    },
}

/// What the tokens have for the agent.
#[derive(Default)]
struct Offer {
    /// Whether one of them has a PIN, for which ssh-add is to ask.
    wants_pin: bool,
    /// Users' certificates that are good now. A host's opens no door, and is only one more try.
    certificates: Vec<Item>,
    /// What cannot be read.
    problems: Vec<Failure>,
}

pub(crate) fn run(command: &Command) -> Outcome {
    let Command::Refresh { module, ssh_dir } = command;
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
    let offer = offer(ssh_dir.as_deref())?;
    // It fails where the module was not loaded, which is fine.
    reached(&ssh_add("-e", &module, &[])?)?;
    let added = add(&module, &offer)?;
    if !added.status.success() {
        return Err(refused(&module, &added));
    }
    let text = format!("loaded {} into ssh-agent", module.display());
    let answer = Answer::text(text).noted(kept(&offer.certificates)?);
    Ok(answer.problems(offer.problems).hint("next: ssh-add -l"))
}

pub(crate) fn default_module() -> PathBuf {
    let triplet = match env::consts::ARCH {
        "arm" => "arm-linux-gnueabihf".to_owned(),
        "x86" => "i386-linux-gnu".to_owned(),
        arch => format!("{arch}-linux-gnu"),
    };
    let installed = || format!("/usr/lib/{triplet}/pkcs11/devkey-pkcs11.so");
    MODULE.map_or_else(installed, str::to_owned).into()
}

/// Whether ssh-agent takes a module by its real path, as it is by default.
pub(crate) fn takes(module: &Path) -> bool {
    let path = module.to_string_lossy();
    let mut rests = ALLOWED.iter().filter_map(|dir| path.strip_prefix(dir));
    rests.any(|rest| rest.contains('/'))
}

fn offer(ssh_dir: Option<&Path>) -> Result<Offer> {
    let mut offer = Offer::default();
    let now = now();
    let good = |item: &Item| {
        let user = |kind, from| kind == Kind::User && from <= now;
        let said = item.ssh().map(|certificate| certificate.contents());
        item.key.is_some()
            && said.is_some_and(|said| user(said.kind, said.valid_after))
            && item.end().is_none_or(|end| end > now)
    };
    for (found, token) in Tokens::load()?.open_all().0 {
        offer.wants_pin |= token.store().token().pin;
        match items(&found, &*token, ssh_dir) {
            Ok((all, problems)) => {
                offer.certificates.extend(all.into_iter().filter(good));
                offer.problems.extend(problems);
            }
            Err(e) => offer.problems.push(e),
        }
    }
    Ok(offer)
}

/// Adds the module with the certificates.
///
/// ssh-add before 9.6 knows of no certificates there and passes them over in silence. A newer one tells
/// an older agent of them, which then refuses the module, and takes it without. Where a PIN was asked for
/// that may be another refusal, and nobody is to enter it twice.
fn add(module: &Path, offer: &Offer) -> Result<Output> {
    let files: Vec<&Path> = offer
        .certificates
        .iter()
        .map(|c| c.file.as_path())
        .collect();
    if offer.wants_pin {
        return ssh_add_asking(module, &files);
    }
    let added = ssh_add("-s", module, &files)?;
    match added.status.success() || files.is_empty() {
        true => Ok(added),
        false => ssh_add("-s", module, &[]),
    }
}

/// What the agent keeps of the certificates: it is asked, for versions say too little.
fn kept(certificates: &[Item]) -> Result<Option<String>> {
    if certificates.is_empty() {
        return Ok(None);
    }
    let listed = ended(Process::new("ssh-add").arg("-L").stdin(Stdio::null()))?;
    let listed = String::from_utf8_lossy(&listed.stdout);
    let has = |item: &&Item| {
        let line = item.ssh().map(|certificate| certificate.line(""));
        line.is_some_and(|line| listed.contains(line.trim_end()))
    };
    let (all, kept) = (certificates.len(), certificates.iter().filter(has).count());
    Ok(Some(match kept == all {
        true => format!("with the certificates of users: {kept}"),
        false => format!(
            "ssh-agent keeps {kept} of {all} certificates of users; before OpenSSH 9.6 it keeps none \
             for a module's keys. Name them in ssh_config: CertificateFile, devkey cert list."
        ),
    }))
}

/// Runs ssh-add with an empty answer to its question for a PIN.
///
/// ssh-add asks on the terminal wherever it finds one, unless an askpass program is forced on it;
/// true(1) is one that answers nothing.
fn ssh_add(option: &str, module: &Path, certificates: &[&Path]) -> Result<Output> {
    let mut run = Process::new("ssh-add");
    run.env("SSH_ASKPASS", "/bin/true")
        .env("SSH_ASKPASS_REQUIRE", "force")
        .stdin(Stdio::null());
    ended(run.arg(option).arg(module).args(certificates))
}

/// Adds the module and lets ssh-add ask for the PIN: it offers what it is told to the agent alone.
fn ssh_add_asking(module: &Path, certificates: &[&Path]) -> Result<Output> {
    let mut run = Process::new("ssh-add");
    run.arg("-s").arg(module).args(certificates);
    ended(run.stdin(Stdio::inherit()))
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
    let remedy = match takes(module) {
        true => {
            "devkey key list: an agent takes no module without keys; then see the agent's log, \
                 and that it is OpenSSH's own and no older than ssh-add"
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
