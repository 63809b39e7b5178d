//! Where a PIN comes from: a file, a descriptor, a systemd credential, the terminal.
//!
//! Never from an argument, which every user of the machine can read, and from the environment only
//! where a variable is named.

use std::env;
use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use devkey::Error;
use devkey::secret::Secret;
use devkey::token::{MAX_PIN, MIN_PIN, Pin};

use super::prompt::{self, Question};
use crate::failure::{Failure, Result};
use crate::tokens::is_secure;

/// The systemd credential that is looked for where nothing is named.
const CREDENTIAL: &str = "devkey.pin";

/// Sources of the user PIN.
#[derive(Debug, Default, Clone, clap::Args)]
#[group(multiple = false)]
pub(crate) struct UserPin {
    /// Read the user PIN from a file that nobody else can read
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    pin_file: Option<PathBuf>,
    /// Read it from this open file descriptor
    #[arg(long, value_name = "N", help_heading = HEADING)]
    pin_fd: Option<u32>,
    /// Read it from this systemd credential [default: devkey.pin, if the service has one]
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    pin_credential: Option<String>,
    /// Read it from this environment variable, which every process of the same user can see
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    pin_env: Option<String>,
}

/// Sources of the SO PIN.
#[derive(Debug, Default, Clone, clap::Args)]
#[group(multiple = false)]
pub(crate) struct SoPin {
    /// Read the SO PIN from a file that nobody else can read
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    so_pin_file: Option<PathBuf>,
    /// Read it from this open file descriptor
    #[arg(long, value_name = "N", help_heading = HEADING)]
    so_pin_fd: Option<u32>,
}

/// Sources of a new PIN.
#[derive(Debug, Default, Clone, clap::Args)]
#[group(multiple = false)]
pub(crate) struct NewPin {
    /// Read the new PIN from a file that nobody else can read
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    new_pin_file: Option<PathBuf>,
    /// Read it from this open file descriptor
    #[arg(long, value_name = "N", help_heading = HEADING)]
    new_pin_fd: Option<u32>,
}

/// Heading of these options in the help.
pub(super) const HEADING: &str = "PINs, which are asked for on the terminal unless";

/// One source.
#[derive(Debug)]
enum Source {
    File(PathBuf),
    Fd(u32),
    Credential(String),
    Variable(String),
}

impl UserPin {
    /// Whether a source was named.
    pub(crate) fn named(&self) -> bool {
        self.source().is_some()
    }

    /// The PIN, asked for where no source was named and no credential is there.
    pub(crate) fn read(&self, question: &Question) -> Result<Pin> {
        let source = self.source().or_else(default_credential);
        read(
            source,
            question,
            "name a source: --pin-file FILE or --pin-fd N",
        )
    }

    /// A new PIN; `None` where it is left empty on the terminal.
    pub(crate) fn read_new(&self, question: &Question) -> Result<Option<Pin>> {
        read_new(self.source(), question, "--pin-file FILE or --pin-fd N")
    }

    fn source(&self) -> Option<Source> {
        let credential = self.pin_credential.clone().map(Source::Credential);
        let variable = self.pin_env.clone().map(Source::Variable);
        let file = file_or_fd(self.pin_file.as_ref(), self.pin_fd);
        file.or(credential).or(variable)
    }
}

impl SoPin {
    /// Whether a source was named.
    pub(crate) fn named(&self) -> bool {
        self.source().is_some()
    }

    /// The PIN, asked for where no source was named.
    pub(crate) fn read(&self, question: &Question) -> Result<Pin> {
        let remedy = "name a source: --so-pin-file FILE or --so-pin-fd N";
        read(self.source(), question, remedy)
    }

    /// A new PIN; `None` where it is left empty on the terminal.
    pub(crate) fn read_new(&self, question: &Question) -> Result<Option<Pin>> {
        read_new(
            self.source(),
            question,
            "--so-pin-file FILE or --so-pin-fd N",
        )
    }

    fn source(&self) -> Option<Source> {
        file_or_fd(self.so_pin_file.as_ref(), self.so_pin_fd)
    }
}

impl NewPin {
    /// The PIN, asked for twice where no source was named.
    pub(crate) fn read(&self, question: &Question) -> Result<Pin> {
        let source = file_or_fd(self.new_pin_file.as_ref(), self.new_pin_fd);
        let pin = read_new(source, question, "--new-pin-file FILE or --new-pin-fd N")?;
        pin.ok_or_else(|| bad(Error::PinLength))
    }
}

fn file_or_fd(file: Option<&PathBuf>, fd: Option<u32>) -> Option<Source> {
    let file = file.cloned().map(Source::File);
    file.or(fd.map(Source::Fd))
}

/// What systemd gives a service needs no naming: LoadCredential=devkey.pin:… is name enough.
fn default_credential() -> Option<Source> {
    let there = credential(CREDENTIAL).is_ok_and(|path| path.exists());
    there.then(|| Source::Credential(CREDENTIAL.to_owned()))
}

fn read(source: Option<Source>, question: &Question, remedy: &str) -> Result<Pin> {
    let bytes = match source {
        Some(source) => source.read()?,
        None => prompt::ask(question, remedy)?,
    };
    Pin::new(bytes).map_err(bad)
}

fn read_new(source: Option<Source>, question: &Question, remedy: &str) -> Result<Option<Pin>> {
    let Some(source) = source else {
        return ask_new(question, &format!("name a source: {remedy}"));
    };
    Pin::new(source.read()?).map(Some).map_err(bad)
}

/// Asks twice, for nobody sees what he types.
fn ask_new(question: &Question, remedy: &str) -> Result<Option<Pin>> {
    let bytes = prompt::ask(question, remedy)?;
    match bytes.len() {
        0 => return Ok(None),
        MIN_PIN..=MAX_PIN => {}
        _ => return Err(bad(Error::PinLength)),
    }
    let again = prompt::ask(&question.again(), remedy)?;
    // Both are what one person typed.
    match again.expose() == bytes.expose() {
        true => Pin::new(bytes).map(Some).map_err(bad),
        false => Err(Failure::new(
            "the two are not the same; nothing was changed",
            "run the command again",
        )),
    }
}

/// What cannot be a PIN reached no device and cost no try.
fn bad(error: Error) -> Failure {
    let remedy = match error {
        Error::PinLength => {
            "give one of that length, without spaces or lines around it; no try was counted"
        }
        _ => "give it as UTF-8 text of one line; no try was counted",
    };
    Failure::new(error, remedy)
}

impl Source {
    fn read(&self) -> Result<Secret> {
        match self {
            Source::File(path) => read_file(path, Mode::Private),
            Source::Fd(fd) => read_fd(*fd),
            Source::Credential(name) => read_file(&credential(name)?, Mode::Any),
            Source::Variable(name) => variable(name),
        }
    }
}

/// Whether a file's mode is looked at.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// Nobody but its owner may read it.
    Private,
    /// Credentials are in a directory that systemd makes for the service alone, and their mode
    /// shows an access control list as the group's right.
    Any,
}

fn read_file(path: &Path, mode: Mode) -> Result<Secret> {
    let shown = path.display();
    let failed = |e: std::io::Error| match e.kind() {
        ErrorKind::IsADirectory => Failure::new(
            format!("{shown} is a directory"),
            "name the file that holds the PIN",
        ),
        _ => Error::io(format!("reading the PIN in {shown}"), e).into(),
    };
    let file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if mode == Mode::Private && about.is_file() && about.mode() & 0o077 != 0 {
        return Err(Failure::new(
            format!("{shown}: others can read the PIN in it"),
            format!("chmod go-rwx {shown}; and change the PIN if others did"),
        ));
    }
    contents(file).map_err(failed)
}

/// Opened anew by its name in /proc: to take it over as a number is not safe.
fn read_fd(fd: u32) -> Result<Secret> {
    let path = PathBuf::from(format!("/proc/self/fd/{fd}"));
    let failed = |e: std::io::Error| {
        let error = Error::io(format!("reading the PIN from descriptor {fd}"), e);
        Failure::new(
            error,
            format!("open it for reading, as a file or a pipe: {fd}<FILE"),
        )
    };
    let file = File::open(path).map_err(failed)?;
    if file.is_terminal() {
        return Err(Failure::new(
            format!("descriptor {fd} is a terminal, which would show the PIN"),
            "leave the option out, to be asked without echo",
        ));
    }
    contents(file).map_err(failed)
}

/// All of a file, as far as it can be a PIN, without one newline at its end.
fn contents(mut file: File) -> std::io::Result<Secret> {
    // A newline, and one byte more to see that it is too long.
    let mut bytes = Secret::new(vec![0; MAX_PIN + 2]);
    let mut length = 0;
    while let Some(room) = bytes
        .expose_mut()
        .get_mut(length..)
        .filter(|r| !r.is_empty())
    {
        match file.read(room) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(length);
    if bytes.expose().last() == Some(&b'\n') {
        bytes.truncate(length - 1);
    }
    Ok(bytes)
}

/// The file of a systemd credential, systemd.exec(5).
fn credential(name: &str) -> Result<PathBuf> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        let error = Error::input(format!("{name:?} cannot name a credential"));
        return Err(Failure::new(
            error,
            "give the name that LoadCredential= has before its colon",
        ));
    }
    let dir = env::var_os("CREDENTIALS_DIRECTORY").filter(|_| !is_secure());
    let dir = dir.map(PathBuf::from).filter(|dir| dir.is_absolute());
    let none = || {
        Failure::new(
            "no credentials: CREDENTIALS_DIRECTORY is not set",
            format!("run it by systemd with LoadCredential={name}:FILE"),
        )
    };
    Ok(dir.ok_or_else(none)?.join(name))
}

fn variable(name: &str) -> Result<Secret> {
    let unset = || Failure::new(format!("{name} is not set"), "set it, or use --pin-file");
    let value = env::var_os(name).ok_or_else(unset)?;
    Ok(Secret::new(value.into_encoded_bytes()))
}
