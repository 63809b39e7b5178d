//! The agent's right: to use sshd's key, and nothing else, by a part of devkey.toml.

use std::fs;
use std::path::{Path, PathBuf};

use devkey::Error;
use devkey::config::{FoundToken, parse, parts_dir};
use devkey::service::{Accounts, Ids, Right, Who};

use super::systemd::Systemd;
use super::undo::Undo;
use crate::failure::{Failure, Result};
use crate::tokens::Tokens;

/// The system's configuration.
const CONFIG: &str = "/etc/devkey/devkey.toml";
/// What is written of it, in the directory of its parts: the file itself is the administrator's.
const PART: &str = "sshd.toml";

/// The right to a key that need not be there yet.
#[derive(Debug)]
pub(super) struct Grant<'a> {
    pub(super) tokens: &'a Tokens,
    pub(super) found: &'a FoundToken,
    /// The key's label.
    pub(super) label: &'a str,
    /// Its id, where it is there.
    pub(super) id: Option<&'a str>,
    /// As whom the agent runs.
    pub(super) user: &'a str,
}

/// The right as it was given.
#[derive(Debug)]
pub(super) struct Given {
    /// Whether the key service knows of it.
    pub(super) in_force: bool,
    /// Who has lost the use of the key by it, for the administrator.
    pub(super) loss: Option<String>,
}

impl Grant<'_> {
    /// Gives the right where it is not given yet, and has the key service know of it.
    pub(super) fn give<'u>(&self, undo: &mut Undo<'u>, systemd: &'u Systemd) -> Result<Given> {
        let Some(user) = Accounts::read().user(self.user) else {
            return Err(Failure::new(
                Error::NotFound(format!("user {}", self.user)),
                "make the users of devkey's units: systemd-sysusers",
            ));
        };
        if self.is_given(user) {
            return Ok(Given {
                in_force: true,
                loss: None,
            });
        }
        self.check_conflict()?;
        self.check_restart(systemd)?;
        let (dir, file) = (parts_dir(self.config()), self.part());
        let before = match fs::read_to_string(&file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.map_err(|e| Error::io(format!("reading {}", file.display()), e))?,
        };
        let after = format!("{before}{}", self.block(&before));
        parse(&after).map_err(|_| self.by_hand())?;
        for dir in dir.parent().into_iter().chain([&*dir]) {
            undo.make_dir(dir)?;
        }
        // Taken back in this order: the file, then what the service knows of it.
        undo.by(move || systemd.restart_devkeyd());
        undo.write(&file, &after)?;
        systemd.restart_devkeyd()?;
        Ok(Given {
            in_force: systemd.runs(),
            loss: self.loss(),
        })
    }

    /// A key's own list takes the place of its token's. Of a key that is made nobody had the use.
    fn loss(&self) -> Option<String> {
        self.id?;
        let list = self.found.rules.token.use_by.as_deref().unwrap_or_default();
        let before: Vec<String> = list.iter().map(Who::to_string).collect();
        if before.is_empty() {
            return None;
        }
        let (before, user, label) = (before.join(", "), self.user, self.label);
        Some(format!(
            "note: until now key {label} could be used by {before}, as token {} says; now {user} alone may (and root).\n\
             Whoever needs it still is to be put beside {user} in `use`, under {} in {}; then restart devkeyd.",
            self.found.name,
            self.table(),
            self.part().display()
        ))
    }

    /// Whether the configuration gives the agent the right.
    pub(super) fn is_given(&self, user: u32) -> bool {
        let agent = Ids {
            user,
            groups: Vec::new(),
        };
        let key = [self.label, self.id.unwrap_or_default()];
        let rules = &self.found.rules;
        rules.allow(Right::Use, &key, &agent, &Accounts::read())
    }

    /// A list that is there already is the administrator's to change.
    fn check_conflict(&self) -> Result<()> {
        let names = [Some(self.label), self.id];
        let mut listed = names.iter().flatten();
        match listed.any(|name| self.found.rules.keys.contains_key(*name)) {
            true => Err(self.by_hand()),
            false => Ok(()),
        }
    }

    /// A window of a PUF that was read once, and overwritten, is lost with the service that read it.
    fn check_restart(&self, systemd: &Systemd) -> Result<()> {
        let scrubs = |token: &FoundToken| {
            let set = token
                .settings
                .iter()
                .any(|one| one.name == "scrub" && one.value == "yes");
            let recorded = self.tokens.open(token).is_ok_and(|open| {
                let settings = &open.store().token().settings;
                settings.get("scrub").is_some_and(|value| value == "yes")
            });
            token.reach.socket.is_some() && (set || recorded)
        };
        match self
            .tokens
            .config
            .tokens()
            .iter()
            .find(|token| scrubs(token))
        {
            Some(token) if systemd.runs() => Err(Failure::new(
                format!(
                    "devkeyd has to be restarted, and token {} would not come back before the next \
                     boot (scrub = \"yes\")",
                    token.name
                ),
                format!(
                    "{}, restart the machine, and run the command again",
                    self.advice()
                ),
            )),
            _ => Ok(()),
        }
    }

    fn by_hand(&self) -> Failure {
        let file = self.config();
        Failure::new(
            format!(
                "{} gives {} no right to use the key",
                file.display(),
                self.user
            ),
            format!("{}, and run the command again", self.advice()),
        )
    }

    fn advice(&self) -> String {
        let (file, table) = (self.config(), self.table());
        format!(
            "put `use = [{:?}]` under {table} in {}, or in the part of it that has that table",
            self.user,
            file.display()
        )
    }

    fn block(&self, before: &str) -> String {
        let gap = match before.is_empty() || before.ends_with('\n') {
            true => "",
            false => "\n",
        };
        let (table, user) = (self.table(), self.user);
        format!(
            "{gap}\n# By `devkey sshd enable`: sshd's agent alone uses the key.\n{table}\nuse = [{user:?}]\n"
        )
    }

    fn table(&self) -> String {
        let name = quoted(&self.found.reach.name);
        format!("[token.{name}.key.{}]", quoted(self.label))
    }

    fn config(&self) -> &Path {
        let own = self.tokens.environment.config.as_deref();
        own.unwrap_or(Path::new(CONFIG))
    }

    fn part(&self) -> PathBuf {
        parts_dir(self.config()).join(PART)
    }
}

/// A key of TOML.
fn quoted(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match !name.is_empty() && name.chars().all(bare) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}
