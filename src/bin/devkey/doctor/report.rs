//! The findings, for people and for programs.

use std::fmt::Write;

use serde::Serialize;

use super::finding::{Area, Finding, State};
use crate::output::{Answer, Outcome, printable};

/// Exit code where something is wrong.
const WRONG: u8 = 1;

/// All findings, and how many there are of each state. Its fields are those of `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    version: &'static str,
    state: State,
    ok: usize,
    warnings: usize,
    failed: usize,
    not_applicable: usize,
    checks: Vec<Finding>,
}

impl Report {
    pub(super) fn new(checks: Vec<Finding>) -> Self {
        let count = |state| checks.iter().filter(|one| one.state == state).count();
        let worst = checks.iter().map(|one| one.state).max();
        Report {
            version: env!("CARGO_PKG_VERSION"),
            state: worst.unwrap_or(State::NotApplicable),
            ok: count(State::Ok),
            warnings: count(State::Warning),
            failed: count(State::Failed),
            not_applicable: count(State::NotApplicable),
            checks,
        }
    }

    pub(super) fn json(&self, strict: bool) -> Outcome {
        Ok(Answer::json(self)?.exit(self.code(strict)))
    }

    /// In groups; of what does not apply only what could be had by more rights, unless `all` is wanted.
    pub(super) fn text(&self, all: bool, strict: bool) -> Answer {
        let mut text = String::new();
        for area in Area::ALL {
            let shown = |one: &&Finding| {
                let applies = one.state != State::NotApplicable || one.fix.is_some();
                one.area == *area && (all || applies)
            };
            let lines: Vec<_> = self.checks.iter().filter(shown).collect();
            if !lines.is_empty() {
                let _ = writeln!(text, "{}", area.title());
                lines.iter().for_each(|one| text += &line(one));
            }
        }
        Answer::text(text + &self.sum()).exit(self.code(strict))
    }

    fn sum(&self) -> String {
        let warnings = match self.warnings {
            1 => "1 warning".to_owned(),
            n => format!("{n} warnings"),
        };
        format!(
            "{} failed, {warnings}, {} ok, {} not applicable",
            self.failed, self.ok, self.not_applicable
        )
    }

    fn code(&self, strict: bool) -> u8 {
        match self.state {
            State::Failed => WRONG,
            State::Warning if strict => WRONG,
            _ => 0,
        }
    }
}

/// A finding: what is well in one line, what is not with what to try.
fn line(one: &Finding) -> String {
    let subject = one.subject.as_ref().map(|subject| format!("{subject}: "));
    let said = format!("{}{}", subject.unwrap_or_default(), one.found);
    let word = one.state.word();
    let mut text = format!("  {word:8}{:22}{}\n", one.id, printable(&said));
    if let Some(fix) = &one.fix {
        let _ = writeln!(text, "          try: {}", printable(fix));
    }
    text
}
