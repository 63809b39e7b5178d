//! `devkey sshd disable`

use std::fs;

use super::daemon::Daemon;
use super::drop_in::DropIn;
use super::paths::Paths;
use super::systemd::Systemd;
use super::undo::Undo;
use crate::failure::{Failure, Result};
use crate::output::{Answer, Outcome};

/// Have sshd prove itself by the host keys of before alone
///
/// Takes the key out of sshd's configuration and stops the agent. The key stays on its token, and the agent's
/// right to it in its part of devkey.toml.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  devkey sshd disable
Next: `devkey key delete LABEL`, where the key is not to come back.")]
pub(crate) struct Args {}

pub(super) fn run(_: &Args) -> Outcome {
    super::only_root("disable")?;
    let paths = Paths::default();
    let systemd = Systemd::new();
    let daemon = Daemon::find()?;
    if DropIn::read(&paths).is_none() {
        systemd.disable_agent()?;
        return Ok(Answer::text(
            "sshd has no key of a token: nothing was changed",
        ));
    }
    if !DropIn::is_ours(&paths) {
        let what = format!("{} is not what devkey wrote", paths.drop_in.display());
        return Err(Failure::new(what, "take it away by hand"));
    }
    let mut undo = Undo::at_a_signal()?;
    let (runs, reload) = (systemd.runs(), &systemd);
    undo.by(move || match runs {
        true => reload.reload_sshd(),
        false => Ok(()),
    });
    undo.remove(&paths.drop_in)?;
    let after = daemon.settings(&paths.config)?;
    still_safe(after.host_keys.is_empty())?;
    systemd.reload_sshd()?;
    undo.keep()?;
    if !after.host_keys.contains(&paths.host_key) {
        // Nothing reads it any more.
        let _ = fs::remove_file(&paths.public);
    }
    systemd.disable_agent()?;
    let answer = Answer::text("sshd has its host keys of before, and no key of a token any more")
        .note("The key stays on its token, and the agent's right to it in devkey.toml.d. Clients that know it")
        .note("alone are warned now; their known_hosts has to lose its line.");
    let left = systemd.left();
    if left.is_empty() {
        return Ok(answer);
    }
    let answer = answer.note("No systemd was asked. What remains to be done:");
    Ok(left
        .iter()
        .fold(answer, |a, line| a.note(format!("  {line}"))))
}

fn still_safe(empty: bool) -> Result<()> {
    match empty {
        false => Ok(()),
        true => Err(Failure::new(
            "sshd would have no host key at all",
            "make one first: ssh-keygen -A",
        )),
    }
}
