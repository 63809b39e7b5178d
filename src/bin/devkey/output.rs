//! All that the command writes: tables, JSON, errors, questions.

use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use devkey::Error;
use serde::Serialize;

use crate::failure::{Failure, Result};

/// What a command comes to.
pub(crate) type Outcome = Result<Answer>;

/// What a command has to say.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// For standard output.
    text: Vec<u8>,
    /// For standard error.
    notes: Vec<String>,
    /// Next steps, for standard error where that is a terminal.
    hints: Vec<String>,
    /// What could not be done or read while the rest could: the exit code is then 1.
    problems: Vec<Failure>,
    /// The exit code where all is well.
    code: u8,
}

impl Answer {
    /// Text that ends in one newline.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        let mut text = text.into();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Answer::bytes(text.into_bytes())
    }

    /// What need not be text.
    pub(crate) fn bytes(text: Vec<u8>) -> Self {
        Answer {
            text,
            ..Answer::default()
        }
    }

    /// A document for programs, indented, its keys in the order of the type's fields.
    pub(crate) fn json(value: &impl Serialize) -> Outcome {
        Ok(Answer::text(json(value)?))
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// An exit code that says something of its own; where something failed it is 1.
    pub(crate) fn exit(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// A note, where there is one.
    pub(crate) fn noted(self, note: Option<String>) -> Self {
        match note {
            Some(note) => self.note(note),
            None => self,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(crate) fn problems(mut self, problems: impl IntoIterator<Item = Failure>) -> Self {
        self.problems.extend(problems);
        self
    }
}

/// Writes what a command came to and gives the exit code.
pub(crate) fn finish(outcome: Outcome) -> ExitCode {
    let answer = outcome.unwrap_or_else(|failure| Answer::default().problems([failure]));
    let written = write_text(&answer.text);
    let mut said = String::new();
    for failure in answer.problems.iter().chain(written.as_ref().err()) {
        said += &describe(failure);
    }
    for note in &answer.notes {
        let _ = writeln!(said, "{note}");
    }
    if io::stderr().is_terminal() {
        for hint in &answer.hints {
            let _ = writeln!(said, "{hint}");
        }
    }
    // Where standard error cannot be written there is nobody left to tell.
    let _ = io::stderr().write_all(said.as_bytes());
    match answer.problems.is_empty() && written.is_ok() {
        true => ExitCode::from(answer.code),
        false => ExitCode::FAILURE,
    }
}

/// A value as indented JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value).map_err(|e| Error::Internal(e.to_string()))?)
}

/// Columns, each as wide as its widest cell; the last one is not padded.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let header = header.map(str::to_owned);
    let lines: Vec<[String; N]> = std::iter::once(&header)
        .chain(rows)
        .map(|row| row.each_ref().map(|cell| printable(cell)))
        .collect();
    let mut widths = [0; N];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in &lines {
        let mut cells = String::new();
        for (width, cell) in widths.into_iter().zip(line) {
            let _ = write!(cells, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", cells.trim_end());
    }
    text
}

/// `name  value` lines; names are aligned.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max();
    let width = width.unwrap_or_default() + 2;
    let mut text = String::new();
    for (name, value) in fields {
        let _ = writeln!(text, "{name:width$}{}", printable(value));
    }
    text
}

/// Text without control characters: a label that another program made cannot drive the terminal.
pub(crate) fn printable(text: &str) -> String {
    let shown = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(shown).collect()
}

/// What goes on, on a terminal: one line that is written over and is gone in the end.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    all: usize,
    shown: bool,
}

impl Progress {
    pub(crate) fn new(what: &'static str, all: usize) -> Self {
        let shown = io::stderr().is_terminal();
        Progress { what, all, shown }
    }

    pub(crate) fn at(&self, now: usize) {
        if self.shown {
            let _ = write!(io::stderr(), "\r{} {now} of {}\x1b[K", self.what, self.all);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Asks a question; anything but yes is no. `None` where there is nobody to ask.
pub(crate) fn ask(question: &str) -> Option<bool> {
    if !io::stdin().is_terminal() {
        return None;
    }
    write!(io::stderr(), "{} [y/N] ", printable(question)).ok()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).ok()?;
    Some(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// `devkey: what is wrong`, and the remedy on a line of its own.
fn describe(failure: &Failure) -> String {
    let mut text = format!("devkey: {}\n", printable(&failure.what));
    if let Some(remedy) = &failure.remedy {
        let _ = writeln!(text, "  try: {}", printable(remedy));
    }
    text
}

/// A reader that went away (`| head`) has all that it wanted.
fn write_text(text: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("writing standard output", e).into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails where `printable` is left out of `table`.
    #[test]
    fn a_label_cannot_drive_the_terminal() {
        let text = table(["LABEL", "KIND"], &[["a\x1b[2J".into(), "x".into()]]);
        assert_eq!(text, "LABEL       KIND\na\\u{1b}[2J  x\n");
    }
}
