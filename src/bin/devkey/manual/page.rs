//! A page of the manual.

use std::collections::BTreeSet;
use std::io;

use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::notes::Notes;
use super::places::{self, Place};

/// Exit codes of every command.
const EXIT: [(&str, &str); 3] = [
    ("0", "All is well."),
    (
        "1",
        "Something failed; standard error says what, and what to do about it.",
    ),
    ("2", "The command line is wrong."),
];

/// The name of a command's page: `devkey-key-new`.
pub(super) fn name(command: &Command) -> &str {
    let name = command.get_display_name();
    name.unwrap_or_else(|| command.get_name())
}

/// The page of a command below `root`, as roff(7).
pub(super) fn text(root: &Command, command: &Command, date: &str) -> io::Result<String> {
    let page = Page {
        root,
        command,
        notes: notes(command),
        about: long_about(command),
    };
    let source = format!("devkey {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone().subcommand_help_heading("COMMANDS"))
        .title(name(command).to_uppercase())
        .date(date)
        .source(source)
        .manual("devkey");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    page.head().to_writer(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    page.tail().to_writer(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    Ok(tidy(&text, &headings(command)))
}

struct Page<'a> {
    root: &'a Command,
    command: &'a Command,
    notes: Notes,
    /// What it does, in paragraphs.
    about: Vec<String>,
}

impl Page<'_> {
    fn head(&self) -> Roff {
        let mut roff = Roff::new();
        // Names of commands are not to be broken, nor lines to be filled with spaces.
        roff.control("nh", []).control("ad", ["l"]);
        roff.control("SH", ["NAME"]);
        let about = self.command.get_about().map(ToString::to_string);
        let about = about.unwrap_or_default().replace('`', "");
        roff.text([roman(format!(
            "{} - {}",
            name(self.command),
            uncapitalized(&about)
        ))]);
        roff.control("SH", ["SYNOPSIS"]);
        roff.text(synopsis(self.command));
        roff.control("SH", ["DESCRIPTION"]);
        let about = self.about.iter().filter(|text| !says_exit(text));
        paragraphs(&mut roff, about.chain(&self.notes.paragraphs));
        roff
    }

    fn tail(&self) -> Roff {
        let mut roff = Roff::new();
        self.output(&mut roff);
        self.exit(&mut roff);
        let whole = self.words();
        let is_root = name(self.command) == name(self.root);
        for (heading, all) in [("ENVIRONMENT", places::VARIABLES), ("FILES", places::FILES)] {
            roff.control("SH", [heading]);
            for (_, name, what) in places::of(all, &whole, is_root) {
                entry(&mut roff, name, what);
            }
        }
        self.examples(&mut roff);
        self.see_also(&mut roff, &places::of(places::PAGES, &whole, is_root));
        roff
    }

    fn output(&self, roff: &mut Roff) {
        if self.notes.output.is_empty() {
            return;
        }
        roff.control("SH", ["OUTPUT"]);
        for (option, output) in &self.notes.output {
            entry(roff, option, &capitalized(output));
        }
    }

    fn exit(&self, roff: &mut Roff) {
        roff.control("SH", ["EXIT STATUS"]);
        for (code, what) in EXIT {
            entry(roff, code, what);
        }
        let about = self.about.iter().filter(|text| says_exit(text));
        for text in about.chain(&self.notes.exit) {
            roff.control("PP", []).text([roman(text)]);
        }
    }

    /// Its own examples, or the first of each command below it.
    fn examples(&self, roff: &mut Roff) {
        let below = first_examples(self.command);
        if self.notes.examples.is_empty() && below.is_empty() {
            return;
        }
        roff.control("SH", ["EXAMPLES"]);
        for (number, examples) in self.notes.examples.iter().enumerate() {
            if number > 0 {
                roff.control("PP", []);
            }
            if let Some(when) = &examples.when {
                roff.text([roman(when)]).control("PP", []);
            }
            literal(roff, &examples.lines);
        }
        if self.notes.examples.is_empty() {
            literal(roff, &below);
        }
        if let Some(next) = &self.notes.next {
            let next = format!("Next: {next}");
            roff.control("PP", []).text([roman(next)]);
        }
    }

    fn see_also(&self, roff: &mut Roff, places: &[Place]) {
        let mut pages: BTreeSet<(&str, &str)> = places
            .iter()
            .map(|(_, page, section)| (*section, *page))
            .collect();
        pages.extend(self.mentioned().into_iter().map(|page| ("1", page)));
        pages.remove(&("1", name(self.command)));
        roff.control("SH", ["SEE ALSO"]);
        let last = pages.len().saturating_sub(1);
        for (number, (section, page)) in pages.into_iter().enumerate() {
            let comma = if number < last { "," } else { "" };
            roff.text([bold(page), roman(format!("({section}){comma}"))]);
        }
    }

    /// The pages above and below it, and those of commands that it names.
    fn mentioned(&self) -> BTreeSet<&str> {
        let mut pages = BTreeSet::new();
        let words: Vec<&str> = self
            .command
            .get_bin_name()
            .unwrap_or_default()
            .split(' ')
            .collect();
        pages.extend((1..=words.len()).filter_map(|most| {
            let above = words.get(1..most)?;
            Some(name(find(self.root, above.iter().copied())))
        }));
        pages.extend(self.command.get_subcommands().map(name));
        let whole = self.words();
        let named = whole.split("`devkey ").skip(1);
        pages.extend(named.map(|rest| {
            let end = rest.split('`').next().unwrap_or_default();
            name(find(self.root, end.split(' ')))
        }));
        pages
    }

    /// All that is said of the command.
    fn words(&self) -> String {
        let options = self.command.get_arguments().map(|arg| {
            let help = arg.get_long_help().or(arg.get_help());
            format!(
                "{arg} {}",
                help.map(ToString::to_string).unwrap_or_default()
            )
        });
        let help = after_help(self.command);
        let all = self.about.iter().cloned().chain(options).chain([help]);
        all.collect::<Vec<_>>().join("\n")
    }
}

/// The deepest command that the words name.
fn find<'c, 'w>(root: &'c Command, words: impl Iterator<Item = &'w str>) -> &'c Command {
    let mut command = root;
    for word in words {
        match command.find_subcommand(word) {
            Some(below) => command = below,
            None => break,
        }
    }
    command
}

fn first_examples(command: &Command) -> Vec<String> {
    let of_one = |below: &Command| match notes(below).first_example() {
        Some(lines) => lines.into_iter().map(str::to_owned).collect(),
        None => first_examples(below),
    };
    command.get_subcommands().flat_map(of_one).collect()
}

fn notes(command: &Command) -> Notes {
    Notes::of(&after_help(command))
}

fn after_help(command: &Command) -> String {
    let help = command.get_after_long_help().or(command.get_after_help());
    help.map(ToString::to_string).unwrap_or_default()
}

fn long_about(command: &Command) -> Vec<String> {
    let about = command.get_long_about().or(command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    about.split("\n\n").map(sentence).collect()
}

/// A paragraph with its full stop.
fn sentence(text: &str) -> String {
    let text = text.trim();
    match text.ends_with(['.', ':', '!', '?']) {
        true => text.to_owned(),
        false => format!("{text}."),
    }
}

fn says_exit(text: &str) -> bool {
    text.starts_with("Exit code")
}

/// `Make a key` is what the list of pages calls `make a key`; `PUF` stays.
fn uncapitalized(text: &str) -> String {
    let mut letters = text.chars();
    let (first, rest) = (letters.next(), letters.as_str());
    let word = rest.starts_with(|second: char| second.is_lowercase() || second == ' ');
    match (first, word) {
        (Some(first), true) => format!("{}{rest}", first.to_lowercase()),
        _ => text.to_owned(),
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

/// Its name, its options and its arguments, each with its value.
fn synopsis(command: &Command) -> Vec<Inline> {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let mut line = vec![bold(name)];
    let shown = |arg: &&Arg| !arg.is_hide_set() && arg.get_id() != "help";
    let (words, options): (Vec<&Arg>, Vec<&Arg>) = command
        .get_arguments()
        .filter(shown)
        .partition(|arg| arg.is_positional());
    for arg in options.into_iter().chain(words) {
        let (open, close) = if arg.is_required_set() {
            ("", "")
        } else {
            ("[", "]")
        };
        line.push(roman(format!(" {open}")));
        line.extend(usage(arg));
        line.push(roman(close));
    }
    if command.has_subcommands() {
        let (open, close) = match command.is_subcommand_required_set() {
            true => ("", ""),
            false => ("[", "]"),
        };
        line.extend([roman(format!(" {open}")), italic("COMMAND"), roman(close)]);
    }
    line
}

/// An argument with its value, on one line.
fn usage(arg: &Arg) -> Vec<Inline> {
    let takes = arg.get_action().takes_values();
    let value = arg.get_value_names().unwrap_or_default();
    let value = value.iter().map(ToString::to_string).collect::<Vec<_>>();
    let value = italic(value.join("\u{a0}"));
    let many = arg
        .get_num_args()
        .is_some_and(|range| range.max_values() > 1);
    let may_be_missing = arg
        .get_num_args()
        .is_some_and(|range| range.min_values() == 0);
    let more = if many { "\u{a0}..." } else { "" };
    match (arg.get_long(), takes) {
        (None, _) => vec![value, roman(more)],
        (Some(long), false) => vec![bold(format!("--{long}"))],
        (Some(long), true) if may_be_missing => {
            vec![bold(format!("--{long}")), roman("[="), value, roman("]")]
        }
        (Some(long), true) => vec![
            bold(format!("--{long}")),
            roman("\u{a0}"),
            value,
            roman(more),
        ],
    }
}

fn paragraphs<'t>(roff: &mut Roff, texts: impl Iterator<Item = &'t String>) {
    for (number, text) in texts.enumerate() {
        if number > 0 {
            roff.control("PP", []);
        }
        roff.text([roman(text)]);
    }
}

fn entry(roff: &mut Roff, name: &str, what: &str) {
    roff.control("TP", []);
    roff.text([bold(name)]).text([roman(what)]);
}

fn literal(roff: &mut Roff, lines: &[String]) {
    roff.control("EX", []);
    for line in lines {
        roff.text([roman(line)]);
    }
    roff.control("EE", []);
}

/// The headings that clap has over groups of options.
fn headings(command: &Command) -> BTreeSet<String> {
    let arguments = command.get_arguments();
    let headings = arguments.filter_map(|arg| arg.get_help_heading());
    headings.map(str::to_owned).collect()
}

/// What clap_mangen and roff leave to do: one preamble, subheadings for groups of options, no empty lines,
/// bold for what stands between backquotes, and characters that roff would take for accents.
fn tidy(text: &str, headings: &BTreeSet<String>) -> String {
    let preamble = Roff::new().render();
    let mut page = preamble.clone();
    let mut literal = false;
    let mut previous = "";
    let text = text.replace(&preamble, "");
    for line in text.lines() {
        literal = (literal || line == ".EX") && line != ".EE";
        let heading = headings
            .iter()
            .find(|one| line == format!(".SH \"{}\"", one.to_uppercase()));
        let tidied = match heading {
            Some(heading) => format!(".SS \"{heading}:\""),
            None if ["", ".br"].contains(&line) && [".br", ".sp"].contains(&previous) => continue,
            // A list of values, without empty lines between them.
            None if line == ".RS 14" => format!("{line}\n.PD 0"),
            None if line == ".RE" => format!(".PD\n{line}"),
            None if line.is_empty() => ".sp".to_owned(),
            None if line.starts_with('.') => line.to_owned(),
            None if literal => plain(line),
            None => plain(&emphasised(line)),
        };
        page += &tidied;
        page.push('\n');
        previous = line;
    }
    page
}

fn plain(line: &str) -> String {
    line.replace('~', "\\(ti")
        .replace('\u{a0}', "\\~")
        .replace('^', "\\(ha")
        .replace('`', "\\(ga")
}

fn emphasised(line: &str) -> String {
    let parts: Vec<&str> = line.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return line.to_owned();
    }
    let fonts = ["\\fR", "\\fB"].into_iter().cycle();
    let mut text = String::new();
    for (number, (part, font)) in parts.into_iter().zip(fonts).enumerate() {
        if number > 0 {
            text += font;
        }
        text += part;
    }
    text
}
