//! `devkey token`: lists and shows tokens.

use std::path::{Path, PathBuf};

use devkey::config::FoundToken;
use devkey::key::Usage;
use devkey::provider::Capability;
use devkey::store::{Listing, TokenRecord};
use devkey::token::Token;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{self, Answer, Outcome};
use crate::tokens::{Tokens, parse_name};
use crate::uri;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the tokens
    ///
    /// Exit code 1 where a token cannot be read; the others are listed all the same.
    #[command(after_help = "Example:
  devkey token list --json
--json: an array of {name, label, model, serial, back_end, pin, directory, keys, certificates}.
Next: `devkey token show NAME`.")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a token: its record, what it can do, where its settings come from
    ///
    /// Exit code 1 where a file of the token cannot be read; the rest is shown all the same.
    #[command(after_help = "Example:
  devkey token show default
--json: an object with name, label, model, serial, back_end, pin, directory, keys, certificates,
uri, settings [{name, value, from}], capabilities [{kind, usage, schemes}], broken [text].
Next: `devkey key list --token NAME`.")]
    Show {
        /// The token's name [default: the only one, or "default"]
        #[arg(value_parser = parse_name)]
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(command: &Command) -> Outcome {
    let tokens = Tokens::load()?;
    match command {
        Command::List { json } => list(&tokens, *json),
        Command::Show { name, json } => show(&tokens, name.as_deref(), *json),
    }
}

/// A token as `--json` shows it in a list.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    label: String,
    model: String,
    serial: String,
    back_end: String,
    /// Whether its keys want a PIN.
    pin: bool,
    directory: PathBuf,
    keys: usize,
    certificates: usize,
}

/// A token as `--json` shows it alone.
#[derive(Debug, Serialize)]
struct Whole {
    #[serde(flatten)]
    row: Row,
    uri: String,
    settings: Vec<Origin>,
    capabilities: Vec<Capability>,
    broken: Vec<String>,
}

/// A setting and the file that it comes from.
#[derive(Debug, Serialize)]
struct Origin {
    name: String,
    value: String,
    from: String,
}

impl Row {
    fn new(found: &FoundToken, record: &TokenRecord, listing: &Listing) -> Self {
        Row {
            name: found.name.clone(),
            label: record.label.clone(),
            model: record.model.clone(),
            serial: record.serial.clone(),
            back_end: record.back_end.clone(),
            pin: record.pin,
            directory: found.dir.clone(),
            keys: listing.keys.len(),
            certificates: listing.certificates.len(),
        }
    }
}

/// What a person wants to know of a token, for `init` and `show`.
pub(crate) fn summary(record: &TokenRecord, dir: &Path) -> Vec<(&'static str, String)> {
    let facts = [
        ("label", record.label.clone()),
        ("serial", record.serial.clone()),
        ("model", record.model.clone()),
        ("back end", record.back_end.clone()),
        ("directory", dir.display().to_string()),
        ("uri", uri::token(record)),
    ];
    let login = record
        .pin
        .then(|| ("login", "by PIN; devkey pin status says more".to_owned()));
    let abilities = record.capabilities.iter().map(ability);
    let abilities = abilities.map(|ability| ("can do", ability));
    facts.into_iter().chain(login).chain(abilities).collect()
}

/// The uses of a key as words.
pub(crate) fn uses(usage: Usage) -> Vec<&'static str> {
    let all = [
        (usage.sign, "sign"),
        (usage.agree, "agree"),
        (usage.decrypt, "decrypt"),
    ];
    all.iter()
        .filter(|(has, _)| *has)
        .map(|(_, use_)| *use_)
        .collect()
}

fn ability(capability: &Capability) -> String {
    format!("{}: {}", capability.kind, uses(capability.usage).join(", "))
}

fn list(tokens: &Tokens, json: bool) -> Outcome {
    let (open, mut problems) = tokens.open_all();
    let mut rows = Vec::new();
    for (found, token) in &open {
        match token.store().list() {
            Ok(listing) => rows.push(Row::new(found, token.store().token(), &listing)),
            Err(e) => problems.push(e.into()),
        }
    }
    if json {
        return Ok(Answer::json(&rows)?.problems(problems));
    }
    let cells: Vec<[String; 6]> = rows.iter().map(cells).collect();
    let header = ["TOKEN", "LABEL", "MODEL", "SERIAL", "KEYS", "DIRECTORY"];
    let answer = Answer::text(output::table(header, &cells)).problems(problems);
    Ok(match rows.is_empty() {
        true => answer.hint("next: devkey init"),
        false => answer,
    })
}

fn cells(row: &Row) -> [String; 6] {
    [
        row.name.clone(),
        row.label.clone(),
        row.model.clone(),
        row.serial.clone(),
        row.keys.to_string(),
        row.directory.display().to_string(),
    ]
}

fn show(tokens: &Tokens, name: Option<&str>, json: bool) -> Outcome {
    let (found, token) = tokens.find_open(name)?;
    let (record, listing) = (token.store().token(), token.store().list()?);
    let whole = Whole {
        row: Row::new(&found, record, &listing),
        uri: uri::token(record),
        settings: settings(&found, &*token),
        capabilities: record.capabilities.clone(),
        broken: listing.broken.iter().map(ToString::to_string).collect(),
    };
    let text = match json {
        true => output::json(&whole)?,
        false => describe(&whole, record),
    };
    Ok(Answer::text(text).problems(broken(&listing)))
}

/// The broken files of a token, each with its reason.
pub(crate) fn broken(listing: &Listing) -> Vec<Failure> {
    listing.broken.iter().map(Failure::from).collect()
}

fn describe(whole: &Whole, record: &TokenRecord) -> String {
    let mut fields = vec![("name", whole.row.name.clone())];
    fields.extend(summary(record, &whole.row.directory));
    let setting = |s: &Origin| {
        (
            "setting",
            format!("{} = {:?} ({})", s.name, s.value, s.from),
        )
    };
    fields.extend(whole.settings.iter().map(setting));
    fields.push(("keys", whole.row.keys.to_string()));
    fields.push(("certificates", whole.row.certificates.to_string()));
    output::fields(&fields)
}

/// The settings in force: those of the configuration go before those of the record.
fn settings(found: &FoundToken, token: &dyn Token) -> Vec<Origin> {
    let configured = found.settings.iter().map(|setting| Origin {
        name: setting.name.clone(),
        value: setting.value.clone(),
        from: setting.origin.to_string(),
    });
    let overridden = |name: &str| found.settings.iter().any(|setting| setting.name == name);
    let recorded = token.store().token().settings.iter();
    let recorded = recorded.filter(|(name, _)| !overridden(name));
    let record = token.store().dir().join("token");
    configured
        .chain(recorded.map(|(name, value)| Origin {
            name: name.clone(),
            value: value.clone(),
            from: record.display().to_string(),
        }))
        .collect()
}
