//! sshd itself, as it answers for its configuration.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use devkey::Error;

use crate::failure::{Failure, Result};

/// Where it is: not everybody's PATH has it, and it insists on being started by its whole path.
const PROGRAMS: [&str; 2] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"];
/// What it says where the directory is missing that its own unit, or init script, makes at every start.
const NO_DIRECTORY: &str = "Missing privilege separation directory: ";

/// sshd.
#[derive(Debug)]
pub(super) struct Daemon(PathBuf);

/// What sshd makes of a configuration, as far as host keys go.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) host_keys: Vec<PathBuf>,
    pub(super) certificates: Vec<PathBuf>,
    /// The agent's socket.
    pub(super) agent: Option<PathBuf>,
    pub(super) algorithms: Vec<String>,
    /// Where it listens: address and port.
    pub(super) listens: Vec<(String, String)>,
}

impl Daemon {
    pub(super) fn find() -> Result<Self> {
        let mut programs = PROGRAMS.iter().map(PathBuf::from);
        let found = programs.find(|program| program.exists());
        found.map(Daemon).ok_or_else(|| {
            Failure::new(
                Error::NotFound(format!("sshd ({})", PROGRAMS.join(", "))),
                "install OpenSSH's server: apt install openssh-server",
            )
        })
    }

    /// What sshd makes of the configuration in `file`.
    ///
    /// # Errors
    /// What sshd says is wrong with it.
    pub(super) fn settings(&self, file: &Path) -> Result<Settings> {
        if !file.exists() {
            return Err(Failure::new(
                Error::NotFound(format!("sshd's configuration {}", file.display())),
                "install OpenSSH's server: apt install openssh-server",
            ));
        }
        let mut output = self.test(file)?;
        let missing = said(&output)
            .find_map(|line| line.strip_prefix(NO_DIRECTORY))
            .map(PathBuf::from);
        if let Some(dir) = missing {
            let mut builder = fs::DirBuilder::new();
            let made = builder.recursive(true).mode(0o755).create(&dir);
            made.map_err(|e| Error::io(format!("making {}", dir.display()), e))?;
            output = self.test(file)?;
        }
        match output.status.success() {
            true => Ok(Settings::parse(&String::from_utf8_lossy(&output.stdout))),
            false => Err(Failure {
                what: format!("sshd: {}", said(&output).collect::<Vec<_>>().join("; ")),
                remedy: None,
            }),
        }
    }

    /// -T is -t, and prints the result besides.
    fn test(&self, file: &Path) -> Result<Output> {
        run(&self.0, [OsStr::new("-T"), OsStr::new("-f"), file.as_ref()])
    }
}

impl Settings {
    fn parse(text: &str) -> Self {
        let mut settings = Settings::default();
        for line in text.lines() {
            let Some((name, value)) = line.split_once(' ') else {
                continue;
            };
            match name {
                "hostkey" => settings.host_keys.push(value.into()),
                "hostcertificate" => settings.certificates.push(value.into()),
                "hostkeyagent" if value != "none" => settings.agent = Some(value.into()),
                "hostkeyalgorithms" => {
                    settings.algorithms = value.split(',').map(str::to_owned).collect();
                }
                "listenaddress" => settings.listens.extend(address(value)),
                _ => {}
            }
        }
        settings
    }
}

/// The key whose public half is in `FILE.pub`, or in the file itself: its type, and the line.
pub(super) fn public_of(file: &Path) -> Option<(String, String)> {
    let public = match file.extension() {
        Some(end) if end == "pub" => file.to_owned(),
        _ => PathBuf::from(format!("{}.pub", file.display())),
    };
    let line = fs::read_to_string(public).ok()?;
    let kind = line.split_whitespace().next()?.to_owned();
    Some((kind, line.trim().to_owned()))
}

/// Runs a program with an environment of no language, to its end: what ends this command at the terminal
/// must not end what takes its steps back.
pub(super) fn run(
    program: &Path,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> Result<Output> {
    let output = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(std::process::Stdio::null())
        .process_group(0)
        .output();
    Ok(output.map_err(|e| Error::io(format!("starting {}", program.display()), e))?)
}

/// What a program said on standard error, without the returns that OpenSSH's lines end in.
pub(super) fn said(output: &Output) -> impl Iterator<Item = &str> {
    let text = std::str::from_utf8(&output.stderr).unwrap_or_default();
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// `address:port`, with any address as that of this machine.
fn address(text: &str) -> Option<(String, String)> {
    let (address, port) = text.rsplit_once(':')?;
    let address = match address.trim_matches(['[', ']']) {
        "0.0.0.0" => "127.0.0.1",
        "::" => "::1",
        other => other,
    };
    Some((address.to_owned(), port.to_owned()))
}
