//! `devkey sshd enable`

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use devkey::Error;
use devkey::config::FoundToken;
use devkey::identity::ssh::certificate::Kind;
use devkey::key::KeyKind;
use devkey::store::KeyRecord;
use devkey::token::Token;

use super::agent::read_public;
use super::ask::{agent_signs, signatures};
use super::daemon::{Daemon, Settings, public_of};
use super::drop_in::DropIn;
use super::host_key::{LABEL, Wanted};
use super::known_hosts;
use super::paths::Paths;
use super::rights::Grant;
use super::systemd::{AGENT, Systemd};
use super::undo::Undo;
use crate::cert::items;
use crate::failure::{Failure, Result};
use crate::output::{Answer, Outcome};
use crate::pin::Access;
use crate::tokens::{OpenToken, Tokens, parse_name};

/// Have sshd prove itself by a key of a token too
///
/// Makes the key where it is not there, gives the agent the right to use it, and adds it to sshd's
/// configuration beside the host keys that sshd has, once sshd finds that right and the agent signs. Whatever
/// fails, all is as it was. Prints the key for known_hosts and for DNS.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  devkey sshd enable --token host
  devkey sshd enable --token host --key host --replace
What it prints is a file for known_hosts. docs/sshd.md has the order in which clients learn the key.
Next: `devkey sshd status`.")]
pub(crate) struct Args {
    /// The token, of the key service [default: the only one, or \"default\"]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    token: Option<String>,
    /// The key's label; a key that is not there is made [default: the one in use, or ssh-host]
    #[arg(long, value_name = "LABEL")]
    key: Option<String>,
    /// Kind of a key that is made [default: ec-p256, or ec-p384 where sshd has one of that type]
    #[arg(long, value_parser = kinds())]
    kind: Option<KeyKind>,
    /// Leave out the old host key of the same type, of which sshd shows but one
    #[arg(long)]
    replace: bool,
    /// As whom the agent runs
    #[arg(long, value_name = "USER", default_value = "devkey-sshd")]
    user: String,
    #[command(flatten)]
    access: Access,
}

pub(super) fn run(args: &Args) -> Outcome {
    super::only_root("enable")?;
    let paths = Paths::default();
    let systemd = Systemd::new();
    let daemon = Daemon::find()?;
    // A configuration that is wrong already is not to be blamed on us.
    let before = daemon.settings(&paths.config)?;
    check_before(&paths, &before)?;
    check_units(&systemd)?;
    let tokens = Tokens::load()?;
    let (found, token) = token(&tokens, args)?;
    let job = Job {
        args,
        paths: &paths,
        systemd: &systemd,
        daemon: &daemon,
        before: &before,
        tokens: &tokens,
        found: &found,
        token: &token,
    };
    let (key, notes) = job.carry_out()?;
    let names = known_hosts::names();
    let port = before.listens.first().map_or("22", |(_, port)| port);
    let text = known_hosts::text(&key.public, &key.label, &found.name, &names, port)?;
    let mut answer = notes.into_iter().fold(Answer::text(text), Answer::note);
    let left = systemd.left();
    if !left.is_empty() {
        answer = answer.note("No systemd was asked. What remains to be done:");
        answer = left
            .iter()
            .fold(answer, |a, line| a.note(format!("  {line}")));
    }
    Ok(answer.hint("next: devkey sshd status"))
}

/// The command and what it works with.
struct Job<'a> {
    args: &'a Args,
    paths: &'a Paths,
    systemd: &'a Systemd,
    daemon: &'a Daemon,
    before: &'a Settings,
    tokens: &'a Tokens,
    found: &'a FoundToken,
    token: &'a Arc<dyn Token>,
}

impl Job<'_> {
    fn carry_out(&self) -> Result<(Arc<KeyRecord>, Vec<String>)> {
        let label = self.label();
        let old = self.old();
        let wanted = Wanted {
            label: &label,
            kind: self.args.kind,
            old: &old,
            replace: self.args.replace,
        };
        let choice = wanted.choose(self.found, &**self.token)?;
        let kind = choice.kind();
        let mut undo = Undo::at_a_signal()?;
        let grant = Grant {
            tokens: self.tokens,
            found: self.found,
            label: &label,
            id: choice.id(),
            user: &self.args.user,
        };
        // Before there is a key, so that nobody else ever has the right.
        let granted = grant.give(&mut undo, self.systemd)?;
        let note = choice.log_in(&self.args.access, &**self.token, &self.found.name)?;
        let key = choice.make(&label, &**self.token, &mut undo)?;
        let line = known_hosts::line(&key.public, &key.label)?;
        undo.write(&self.paths.public, &format!("{line}\n"))?;
        let stay = wanted.stay(kind);
        let drop_in = self.drop_in(&key, &stay)?;
        self.start_agent(&mut undo)?;
        // Without systemd it may be there or not: then the administrator starts it.
        if self.systemd.runs() || (granted.in_force && self.paths.socket.exists()) {
            agent_signs(&self.paths.socket, &key.public)?;
        }
        let after = self.put(&drop_in, &mut undo)?;
        check_after(self.paths, &after, &key)?;
        self.check_replaced(&stay, &after)?;
        self.systemd.reload_sshd()?;
        undo.keep()?;
        Ok((key, note.into_iter().chain(granted.loss).collect()))
    }

    /// The key that is named, or in use, or the usual one.
    fn label(&self) -> String {
        let in_use = || {
            let (public, _) = read_public(&self.paths.public).ok()?;
            let listing = self.token.store().list().ok()?;
            let key = listing.keys.iter().find(|key| key.public == public)?;
            Some(key.label.clone())
        };
        let named = self.args.key.clone().or_else(in_use);
        named.unwrap_or_else(|| LABEL.to_owned())
    }

    /// The host keys that sshd has beside the token's, by the drop-in or by the rest of its configuration.
    fn old(&self) -> Vec<PathBuf> {
        let mut old = DropIn::read(self.paths).unwrap_or_default().old;
        old.extend(self.before.host_keys.iter().cloned());
        let mut seen = HashSet::from([self.paths.host_key.clone()]);
        old.retain(|file| seen.insert(file.clone()));
        old
    }

    /// What is to be added, tried by sshd in a file that nothing reads.
    fn drop_in(&self, key: &KeyRecord, stay: &[PathBuf]) -> Result<DropIn> {
        let mut drop_in = DropIn {
            certificate: self.certificate(key)?,
            old: stay.to_vec(),
        };
        let tried = self.try_out(&drop_in)?;
        // Those that the configuration names by itself are there anyway, and twice would be one too many: a
        // client that is told of one key twice learns none (UpdateHostKeys). What was tried names each once, and
        // the drop-in that is in place once more.
        let ours = DropIn::read(self.paths).unwrap_or_default().old;
        let by_us = |file: &Path| 1 + count(&ours, file);
        drop_in
            .old
            .retain(|file| count(&tried.host_keys, file) <= by_us(file));
        Ok(drop_in)
    }

    /// A key that is to go must not be named elsewhere.
    fn check_replaced(&self, stay: &[PathBuf], after: &Settings) -> Result<()> {
        let mut named = after.host_keys.iter();
        let goes = named.find(|file| !stay.contains(file) && **file != self.paths.host_key);
        match goes {
            None => Ok(()),
            Some(file) => Err(Failure::new(
                format!("sshd's configuration names {} itself", file.display()),
                format!(
                    "take its HostKey line out of {}",
                    self.paths.config.display()
                ),
            )),
        }
    }

    fn try_out(&self, drop_in: &DropIn) -> Result<Settings> {
        let candidate = self.paths.public.with_file_name("devkey_candidate");
        let text = drop_in.text(self.paths);
        let text = format!("{text}Include {}\n", self.paths.config.display());
        let mut undo = Undo::default();
        undo.write(&candidate, &text)?;
        self.daemon.settings(&candidate)
    }

    /// The certificate of the key that ends last, where the token has one for hosts.
    fn certificate(&self, key: &KeyRecord) -> Result<Option<PathBuf>> {
        let (all, _) = items(self.found, &**self.token, None)?;
        let hosts = all.iter().filter_map(|item| {
            let said = item.ssh()?.contents();
            let is_its = said.kind == Kind::Host && said.key == key.public;
            is_its.then(|| (said.valid_before, item.file.clone()))
        });
        Ok(hosts.max().map(|(_, file)| file))
    }

    fn start_agent<'u>(&'u self, undo: &mut Undo<'u>) -> Result<()> {
        let has_pin = self.token.store().token().pin;
        if has_pin && self.systemd.runs() && !self.systemd.agent_has_credential("devkey.pin") {
            return Err(Failure::new(
                format!(
                    "token {} has a PIN, and nobody is there to type it",
                    self.found.name
                ),
                format!(
                    "give {AGENT} the credential devkey.pin, as docs/pins.md says, or take a token \
                     without PIN"
                ),
            ));
        }
        if !self.systemd.agent_is_enabled() {
            undo.by(|| self.systemd.disable_agent());
        }
        self.systemd.enable_agent()
    }

    /// Puts it in place; gives what sshd makes of it, which is not told yet.
    fn put<'u>(&'u self, drop_in: &DropIn, undo: &mut Undo<'u>) -> Result<Settings> {
        if let Some(dir) = self.paths.drop_in.parent() {
            undo.make_dir(dir)?;
        }
        let runs = self.systemd.runs();
        // Taken back in this order: the file, then what sshd has read of it.
        undo.by(move || match runs {
            true => self.systemd.reload_sshd(),
            false => Ok(()),
        });
        undo.write(&self.paths.drop_in, &drop_in.text(self.paths))?;
        self.daemon.settings(&self.paths.config)
    }
}

fn count(all: &[PathBuf], file: &Path) -> usize {
    all.iter().filter(|one| *one == file).count()
}

/// The token, which has to be the key service's: sshd's agent is another user.
fn token(tokens: &Tokens, args: &Args) -> Result<OpenToken> {
    let found = tokens.find(args.token.as_deref())?;
    if found.reach.socket.is_none() {
        return Err(Failure::new(
            format!(
                "token {} is not the key service's, and sshd's agent could not use it",
                found.name
            ),
            "devkey init --system NAME, then devkey sshd enable --token NAME",
        ));
    }
    let token = tokens.open(&found)?;
    token.ready()?;
    Ok((found, token))
}

fn check_before(paths: &Paths, before: &Settings) -> Result<()> {
    if !DropIn::is_ours(paths) {
        return Err(Failure::new(
            Error::Exists(format!(
                "{}, which devkey did not write,",
                paths.drop_in.display()
            )),
            "move it away",
        ));
    }
    match &before.agent {
        Some(agent) if *agent != paths.socket => Err(Failure::new(
            format!(
                "sshd has another agent for its host keys already: {}",
                agent.display()
            ),
            "take the HostKeyAgent line out of sshd's configuration",
        )),
        _ => Ok(()),
    }
}

fn check_units(systemd: &Systemd) -> Result<()> {
    match systemd.knows_agent() {
        true => Ok(()),
        false => Err(Failure::new(
            Error::NotFound(format!("unit {AGENT}")),
            "install devkey's units (make install), then systemctl daemon-reload",
        )),
    }
}

/// Whether sshd, as it would start now, heeds what was put in place.
pub(super) fn check_after(paths: &Paths, after: &Settings, key: &KeyRecord) -> Result<()> {
    let (drop_in, config) = (paths.drop_in.display(), paths.config.display());
    if !after.host_keys.contains(&paths.host_key) {
        let dir = paths.drop_in.parent().unwrap_or(Path::new("/")).display();
        return Err(Failure::new(
            format!("{config} does not read {drop_in}"),
            format!("put this line at its top: Include {dir}/*.conf"),
        ));
    }
    if after.agent.as_deref() != Some(&paths.socket) {
        let other = after
            .agent
            .as_deref()
            .unwrap_or(Path::new("none"))
            .display();
        return Err(Failure::new(
            format!("sshd heeds another HostKeyAgent before that of {drop_in}: {other}"),
            "take that line out of sshd's configuration",
        ));
    }
    let (name, _) = public_of(&paths.public).unwrap_or_default();
    let mut wanted = signatures(&name).split(',');
    match wanted.any(|one| after.algorithms.iter().any(|known| known == one)) {
        true => Ok(()),
        false => Err(Failure::new(
            format!(
                "HostKeyAlgorithms of sshd's configuration has nothing for {} keys",
                key.public.kind()
            ),
            format!("add {name} to it, or take a kind that it has"),
        )),
    }
}

fn kinds() -> impl TypedValueParser<Value = KeyKind> {
    let names = KeyKind::ALL.map(KeyKind::name);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<KeyKind>())
}
