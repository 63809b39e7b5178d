//! systemd, where it runs; where not, what is left to be done by hand.

use std::cell::RefCell;
use std::path::Path;

use devkey::Error;

use super::daemon::{run, said};
use crate::failure::{Failure, Result};

/// sd_booted(3).
const BOOTED: &str = "/run/systemd/system";
/// Debian's name of sshd's unit, and everybody else's.
const SSHD: [&str; 2] = ["ssh.service", "sshd.service"];
/// The unit of the key service.
const DEVKEYD: &str = "devkeyd.service";
/// The socket by which the agent is started.
pub(super) const SOCKET: &str = "devkey-sshd-agent.socket";
/// The agent.
pub(super) const AGENT: &str = "devkey-sshd-agent.service";

/// systemd, or a list for the administrator.
#[derive(Debug)]
pub(super) struct Systemd {
    runs: bool,
    left: RefCell<Vec<String>>,
}

impl Systemd {
    pub(super) fn new() -> Self {
        Systemd {
            runs: Path::new(BOOTED).is_dir(),
            left: RefCell::default(),
        }
    }

    pub(super) fn runs(&self) -> bool {
        self.runs
    }

    /// The commands that were not run.
    pub(super) fn left(&self) -> Vec<String> {
        self.left.take()
    }

    /// Has the key service read its configuration anew. Its clients notice nothing but a wait.
    pub(super) fn restart_devkeyd(&self) -> Result<()> {
        self.control(&["try-restart", DEVKEYD])
    }

    /// Has the agent be there, now and after the next boot.
    pub(super) fn enable_agent(&self) -> Result<()> {
        self.control(&["enable", "--now", "--quiet", SOCKET])
    }

    pub(super) fn disable_agent(&self) -> Result<()> {
        self.control(&["disable", "--now", "--quiet", SOCKET, AGENT])
    }

    /// Has sshd read its configuration. Sessions go on.
    pub(super) fn reload_sshd(&self) -> Result<()> {
        if !self.runs {
            return self.control(&["reload", "ssh"]);
        }
        match self.sshd() {
            Some(unit) => self.control(&[self.verb(unit), unit]),
            // It reads it when it starts.
            None => Ok(()),
        }
    }

    /// What has the sshd that runs read its configuration, for the administrator to type.
    pub(super) fn reload_line(&self) -> String {
        let unit = self.sshd().unwrap_or("ssh.service");
        format!(
            "systemctl {} {}",
            self.verb(unit),
            unit.trim_end_matches(".service")
        )
    }

    /// The unit of the sshd that runs.
    fn sshd(&self) -> Option<&'static str> {
        SSHD.into_iter().find(|unit| self.is("is-active", unit))
    }

    /// An sshd that was given its socket by systemd, as Debian 13 may do, has none after SIGHUP, and ends. A
    /// new one takes the socket over, and clients wait meanwhile.
    fn verb(&self, unit: &str) -> &'static str {
        match self.is("is-active", &unit.replace(".service", ".socket")) {
            true => "restart",
            false => "reload",
        }
    }

    /// Whether the units of the agent are installed.
    pub(super) fn knows_agent(&self) -> bool {
        !self.runs || self.is("cat", SOCKET)
    }

    pub(super) fn agent_is_enabled(&self) -> bool {
        !self.runs || self.is("is-enabled", SOCKET)
    }

    /// Whether a unit gives the agent a credential of that name.
    pub(super) fn agent_has_credential(&self, name: &str) -> bool {
        let shown = run(Path::new("systemctl"), ["cat", AGENT]);
        let text = shown.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let gives = |line: &str| {
            let value = line
                .split_once("Credential")
                .and_then(|(_, rest)| rest.split_once('='));
            value.is_some_and(|(_, value)| value.split(':').next() == Some(name))
        };
        text.is_ok_and(|text| text.lines().any(gives))
    }

    fn is(&self, verb: &str, unit: &str) -> bool {
        let done = run(Path::new("systemctl"), [verb, unit]);
        self.runs && done.is_ok_and(|output| output.status.success())
    }

    fn control(&self, args: &[&str]) -> Result<()> {
        let line = format!("systemctl {}", args.join(" ")).replace(" --quiet", "");
        if !self.runs {
            self.left.borrow_mut().push(line);
            return Ok(());
        }
        let output = run(Path::new("systemctl"), args)?;
        match output.status.success() {
            true => Ok(()),
            false => {
                let what = format!("{line}: {}", said(&output).collect::<Vec<_>>().join("; "));
                let last = args.last().copied().unwrap_or_default();
                let remedy = format!("journalctl -u {last} says more");
                Err(Failure::new(Error::input(what), remedy))
            }
        }
    }
}
