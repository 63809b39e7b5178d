//! What the help of a command says after its options, in parts.
//!
//! A part begins at a line that is not indented, after one that is, or with a label. `Examples:` and what
//! else ends in a colon has indented lines below it: commands, with `# remarks`.

/// The parts of a help text.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Notes {
    pub(super) examples: Vec<Examples>,
    /// `--json: …`: an option, and what its output is like.
    pub(super) output: Vec<(String, String)>,
    pub(super) exit: Vec<String>,
    /// What is said besides.
    pub(super) paragraphs: Vec<String>,
    pub(super) next: Option<String>,
}

/// Commands to type.
#[derive(Debug, PartialEq)]
pub(super) struct Examples {
    /// When that is, where the label says it.
    pub(super) when: Option<String>,
    pub(super) lines: Vec<String>,
}

impl Notes {
    pub(super) fn of(help: &str) -> Self {
        let mut notes = Notes::default();
        for part in parts(help) {
            notes.add(&part);
        }
        notes
    }

    /// The first command with the lines that continue it.
    pub(super) fn first_example(&self) -> Option<Vec<&str>> {
        let lines = &self.examples.first()?.lines;
        let end = lines.iter().position(|line| !line.ends_with('\\'))?;
        Some(lines.iter().take(end + 1).map(String::as_str).collect())
    }

    fn add(&mut self, part: &[&str]) {
        let (head, rest) = part.split_first().unwrap_or((&"", &[]));
        if let (Some(label), true) = (head.strip_suffix(':'), indented(rest)) {
            let lines = rest.iter().map(|line| unindented(line)).collect();
            let when = when(label);
            return self.examples.push(Examples { when, lines });
        }
        let text = part.iter().map(|line| line.trim()).collect::<Vec<_>>();
        let text = text.join(" ");
        match text.split_once(": ") {
            Some(("Next", next)) => self.next = Some(next.to_owned()),
            Some((option, output)) if option.starts_with("--") => {
                self.output.push((option.to_owned(), output.to_owned()));
            }
            _ if text.starts_with("Exit code") => self.exit.push(text),
            _ => self.paragraphs.push(text),
        }
    }
}

fn parts(help: &str) -> Vec<Vec<&str>> {
    let mut parts: Vec<Vec<&str>> = Vec::new();
    let mut previous = "";
    for line in help.lines() {
        let labelled = ["Next:", "--", "Exit code", "Example"];
        let begins = !line.starts_with(' ')
            && (previous.starts_with(' ')
                || previous.is_empty()
                || labelled.iter().any(|label| line.starts_with(label)));
        match parts.last_mut() {
            _ if line.is_empty() => {}
            Some(part) if !begins => part.push(line),
            _ => parts.push(vec![line]),
        }
        previous = line;
    }
    parts
}

fn indented(lines: &[&str]) -> bool {
    !lines.is_empty() && lines.iter().all(|line| line.starts_with("  "))
}

fn unindented(line: &str) -> String {
    line.strip_prefix("  ").unwrap_or(line).to_owned()
}

/// `Example, as root` is one for root.
fn when(label: &str) -> Option<String> {
    let (_, when) = label.split_once(", ")?;
    let mut letters = when.chars();
    let first = letters.next()?.to_uppercase();
    Some(format!("{first}{}:", letters.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_help_text_has_parts() {
        let notes = Notes::of(
            "Example, as root:\n  one \\\n    --more\n  two      # remark\nWords,\nand more.\n\
             --json: an array\nof things.\nExit code 1 at times.\nNext: `two`, or\nthree.",
        );
        let lines = ["one \\", "  --more", "two      # remark"];
        let examples = &notes.examples[0];
        assert_eq!(examples.when.as_deref(), Some("As root:"));
        assert_eq!(examples.lines, lines);
        assert_eq!(notes.first_example(), Some(lines[..2].to_vec()));
        assert_eq!(notes.paragraphs, ["Words, and more."]);
        let output = ("--json".to_owned(), "an array of things.".to_owned());
        assert_eq!(notes.output, [output]);
        assert_eq!(notes.exit, ["Exit code 1 at times."]);
        assert_eq!(notes.next.as_deref(), Some("`two`, or three."));
    }
}
