//! `devkey sshd status`

use std::path::PathBuf;
use std::sync::Arc;

use devkey::Error;
use devkey::config::FoundToken;
use devkey::identity::ssh::key as ssh;
use devkey::key::PublicKey;
use devkey::service::Accounts;
use devkey::store::KeyRecord;
use serde::Serialize;

use super::agent::read_public;
use super::ask::{agent_signs, shown};
use super::daemon::{Daemon, Settings, public_of};
use super::drop_in::DropIn;
use super::enable::check_after;
use super::paths::Paths;
use super::rights::Grant;
use super::systemd::Systemd;
use crate::failure::{Failure, Result};
use crate::output::{self, Answer, Outcome};
use crate::tokens::Tokens;

/// Exit code where sshd has no key of a token.
const DISABLED: u8 = 3;

/// Say what sshd shows its clients, and what is wrong with it
///
/// Asks sshd for its configuration, the agent for a signature, and, as a client that turns away at once, the
/// sshd that runs for each of its host keys.
///
/// Exit code 0 where all is well, 1 where something is wrong, which is among what is printed, 3 where sshd has
/// no key of a token.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  devkey sshd status || echo 'look after sshd'
--json: an object with enabled, token, key, fingerprint, certificate, agent_signs, sshd_runs, host_keys
[{file, type, fingerprint, token, shown}] and problems [{what, remedy}].
Next: what it says after `try:`.")]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// As whom the agent runs
    #[arg(long, value_name = "USER", default_value = "devkey-sshd")]
    user: String,
}

/// What was found; its fields are those of `--json`.
#[derive(Debug, Default, Serialize)]
struct Status {
    enabled: bool,
    token: Option<String>,
    key: Option<String>,
    fingerprint: Option<String>,
    certificate: Option<PathBuf>,
    agent_signs: bool,
    /// Null where there is no telling: nobody was asked.
    sshd_runs: Option<bool>,
    host_keys: Vec<HostKey>,
    problems: Vec<Problem>,
}

/// A host key of sshd's configuration.
#[derive(Debug, Serialize)]
struct HostKey {
    file: PathBuf,
    #[serde(rename = "type")]
    key_type: Option<String>,
    fingerprint: Option<String>,
    /// Whether it is the token's.
    token: bool,
    /// Whether the sshd that runs shows it to a client that wants its type.
    shown: bool,
}

#[derive(Debug, Serialize)]
struct Problem {
    what: String,
    remedy: Option<String>,
}

pub(super) fn run(args: &Args) -> Outcome {
    super::only_root("status")?;
    let paths = Paths::default();
    let mut status = Status::default();
    let settings = Daemon::find()?.settings(&paths.config)?;
    status.enabled = DropIn::read(&paths).is_some();
    status.look_at_sshd(&paths, &settings);
    let mut failures = Vec::new();
    if status.enabled {
        let look = Look {
            args,
            paths: &paths,
            settings: &settings,
        };
        failures = look.at_everything(&mut status);
    }
    let problem = |failure: &Failure| Problem {
        what: failure.what.clone(),
        remedy: failure.remedy.clone(),
    };
    status.problems = failures.iter().map(problem).collect();
    let answer = match args.json {
        true => Answer::json(&status)?,
        false => Answer::text(status.describe()),
    };
    Ok(match status.enabled {
        true => answer.problems(failures),
        false => answer.exit(DISABLED).hint("next: devkey sshd enable"),
    })
}

/// What is looked at where a key of a token is sshd's.
struct Look<'a> {
    args: &'a Args,
    paths: &'a Paths,
    settings: &'a Settings,
}

impl Look<'_> {
    fn at_everything(&self, status: &mut Status) -> Vec<Failure> {
        let public = match read_public(&self.paths.public) {
            Ok((public, _)) => public,
            Err(failure) => return vec![failure],
        };
        status.fingerprint = ssh::fingerprint(&public).ok();
        status.certificate = self.settings.certificates.first().cloned();
        let signs = agent_signs(&self.paths.socket, &public);
        status.agent_signs = signs.is_ok();
        let systemd = Systemd::new();
        let checks = [
            self.at_token(&public, status),
            Self::at_units(&systemd),
            signs,
            Self::at_certificate(status),
            Self::at_shown(&systemd, status),
        ];
        checks.into_iter().filter_map(Result::err).collect()
    }

    /// The key is on a token of the key service, the agent may use it, and sshd is told so.
    fn at_token(&self, public: &PublicKey, status: &mut Status) -> Result<()> {
        let tokens = Tokens::load()?;
        let Some((found, key)) = find(&tokens, public) else {
            return Err(Failure::new(
                Error::NotFound("sshd's host key, on any token of this machine,".into()),
                "devkey sshd enable --key NEW, or devkey sshd disable",
            ));
        };
        status.token = Some(found.name.clone());
        status.key = Some(key.label.clone());
        check_after(self.paths, self.settings, &key)?;
        let grant = Grant {
            tokens: &tokens,
            found: &found,
            label: &key.label,
            id: Some(key.id.as_str()),
            user: &self.args.user,
        };
        let user = Accounts::read().user(&self.args.user);
        match user.is_some_and(|user| grant.is_given(user)) {
            true => Ok(()),
            false => Err(Failure::new(
                format!("user {} has no right to use the key", self.args.user),
                "devkey sshd enable",
            )),
        }
    }

    fn at_units(systemd: &Systemd) -> Result<()> {
        match systemd.agent_is_enabled() {
            true => Ok(()),
            false => Err(Failure::new(
                "the agent is not there after the next boot",
                format!("systemctl enable --now {}", super::systemd::SOCKET),
            )),
        }
    }

    /// sshd passes over a certificate that it cannot read.
    fn at_certificate(status: &Status) -> Result<()> {
        match &status.certificate {
            Some(file) if !file.exists() => Err(Failure::new(
                Error::NotFound(format!("the certificate {}", file.display())),
                "devkey sshd enable takes the one that the token has now",
            )),
            _ => Ok(()),
        }
    }

    fn at_shown(systemd: &Systemd, status: &Status) -> Result<()> {
        let hidden = |key: &&HostKey| key.token && !key.shown;
        match (status.sshd_runs, status.host_keys.iter().find(hidden)) {
            (Some(true), Some(_)) => Err(Failure::new(
                "the sshd that runs does not show the key",
                format!(
                    "{}; where that does not help, its log says why",
                    systemd.reload_line()
                ),
            )),
            (Some(false), _) => Err(Failure::new("sshd does not listen", "systemctl start ssh")),
            _ => Ok(()),
        }
    }
}

impl Status {
    /// The host keys of the configuration, and which of them sshd shows where it runs.
    fn look_at_sshd(&mut self, paths: &Paths, settings: &Settings) {
        for file in &settings.host_keys {
            let (key_type, line) = public_of(file).unzip();
            let public = line.and_then(|line| ssh::from_line(&line).ok());
            let fingerprint = public.and_then(|(public, _)| ssh::fingerprint(&public).ok());
            let shown = match (&key_type, settings.listens.first()) {
                (Some(key_type), Some(at)) => shown(at, key_type),
                _ => Ok(None),
            };
            if !settings.listens.is_empty() {
                self.sshd_runs = Some(shown.is_ok());
            }
            let shown = shown.ok().flatten();
            self.host_keys.push(HostKey {
                file: file.clone(),
                token: *file == paths.host_key,
                shown: shown.is_some() && shown == fingerprint,
                key_type,
                fingerprint,
            });
        }
    }

    fn describe(&self) -> String {
        let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let mut text = match self.enabled {
            false => "sshd has no key of a token\n".to_owned(),
            true => output::fields(&[
                ("token", or_none(&self.token)),
                ("key", or_none(&self.key)),
                ("fingerprint", or_none(&self.fingerprint)),
                (
                    "certificate",
                    or_none(&self.certificate.as_ref().map(|c| c.display().to_string())),
                ),
                ("agent signs", yes(self.agent_signs)),
            ]),
        };
        let row = |key: &HostKey| {
            let shown = match self.sshd_runs {
                Some(true) => yes(key.shown),
                _ => "-".to_owned(),
            };
            let file = key.file.display().to_string();
            [
                file,
                or_none(&key.key_type),
                shown,
                or_none(&key.fingerprint),
            ]
        };
        let rows: Vec<_> = self.host_keys.iter().map(row).collect();
        text += "\n";
        text + &output::table(["HOST KEY", "TYPE", "SHOWN", "FINGERPRINT"], &rows)
    }
}

/// The key with that public half, and its token.
fn find(tokens: &Tokens, public: &PublicKey) -> Option<(FoundToken, Arc<KeyRecord>)> {
    let (open, _) = tokens.open_all();
    open.into_iter().find_map(|(found, token)| {
        let listing = token.store().list().ok()?;
        let key = listing.keys.iter().find(|key| key.public == *public)?;
        Some((found, key.clone()))
    })
}
