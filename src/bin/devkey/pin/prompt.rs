//! Asking for a PIN on the terminal, without showing it.
//!
//! Asks on /dev/tty, so that standard input and output stay the caller's. Ctrl-C is read as a
//! character while the echo is off: no signal can end the process before the terminal is as it was.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};

use devkey::Error;
use devkey::secret::Secret;
use rustix::process::{Signal, kill_current_process_group};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

use crate::failure::{Failure, Result};

/// Longest line that the kernel gives (N_TTY_BUF_SIZE), in bytes.
const LINE: usize = 4096;

/// What to ask for.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// What is wanted: "user PIN of token board".
    pub(super) what: String,
    /// What there is to know before answering; may be empty.
    pub(super) hint: String,
}

impl Question {
    /// The same again, to be sure of what nobody sees.
    pub(super) fn again(&self) -> Self {
        Question {
            what: format!("{}, once more", self.what),
            hint: String::new(),
        }
    }

    fn text(&self) -> String {
        let (first, rest) = self.what.split_at_checked(1).unwrap_or_default();
        let first = first.to_ascii_uppercase();
        match self.hint.as_str() {
            "" => format!("{first}{rest}: "),
            hint => format!("{first}{rest} ({hint}): "),
        }
    }
}

/// Asks; the answer comes without its newline. `remedy` is for who has no terminal.
pub(super) fn ask(question: &Question, remedy: &str) -> Result<Secret> {
    let terminal = open().map_err(|_| {
        let error = format!("there is no terminal to ask for the {} on", question.what);
        Failure::new(error, remedy)
    })?;
    let quiet = Quiet::new(&terminal)?;
    let mut line = Secret::new(vec![0; LINE]);
    let mut both = &terminal;
    both.write_all(question.text().as_bytes())
        .map_err(unusable)?;
    let length = both.read(line.expose_mut()).map_err(unusable)?;
    line.truncate(length);
    let last = line.expose().last().copied();
    if last != Some(b'\n') {
        return Err(ended(quiet, last));
    }
    line.truncate(length - 1);
    match line.expose().iter().any(u8::is_ascii_control) {
        true => Err(Failure::new(
            "a control character was typed",
            "type the PIN again; where it holds one, use --pin-file",
        )),
        false => Ok(line),
    }
}

/// The line ended without Enter: by what interrupts a program, or by Ctrl-D.
fn ended(quiet: Quiet<'_>, last: Option<u8>) -> Failure {
    let interrupted = last.is_some_and(|last| quiet.interrupts().contains(&last));
    let mut terminal = quiet.terminal;
    drop(quiet);
    let _ = terminal.write_all(b"\n");
    if interrupted {
        // What the terminal would have done.
        let _ = kill_current_process_group(Signal::INT);
    }
    Failure::new("no PIN was typed", "run the command again")
}

/// Says something on the terminal, where there is one.
pub(super) fn say(text: &str) {
    if let Ok(mut terminal) = open() {
        let _ = writeln!(terminal, "{text}");
    }
}

/// Whether there is a terminal to ask on.
pub(super) fn possible() -> bool {
    open().is_ok()
}

fn open() -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/tty")
}

fn unusable(e: impl Into<std::io::Error>) -> Failure {
    Error::io("asking on /dev/tty", e.into()).into()
}

/// A terminal that shows nothing of what is typed but the end of the line, until it is dropped.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn new(terminal: &'a File) -> Result<Self> {
        let before = tcgetattr(terminal).map_err(unusable)?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ISIG;
        quiet.local_modes |= LocalModes::ECHONL | LocalModes::ICANON | LocalModes::IEXTEN;
        // As ends of a line they are read at once.
        quiet.special_codes[SpecialCodeIndex::VEOL] = before.special_codes[SpecialCodeIndex::VINTR];
        quiet.special_codes[SpecialCodeIndex::VEOL2] =
            before.special_codes[SpecialCodeIndex::VQUIT];
        // What was typed before the question was not meant as an answer to it.
        tcsetattr(terminal, OptionalActions::Flush, &quiet).map_err(unusable)?;
        Ok(Quiet { terminal, before })
    }

    /// The characters that interrupt.
    fn interrupts(&self) -> [u8; 2] {
        [SpecialCodeIndex::VINTR, SpecialCodeIndex::VQUIT]
            .map(|index| self.before.special_codes[index])
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}
