//! `devkey key`: makes, lists, shows and deletes keys.

mod show;

use std::sync::Arc;

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use devkey::Error;
use devkey::config::FoundToken;
use devkey::identity::ssh::key as ssh;
use devkey::key::{KeyKind, Usage};
use devkey::store::{KeyRecord, Listing};
use devkey::token::{KeyRequest, Names};

use crate::failure::{Failure, Result};
use crate::output::{self, Answer, Outcome};
use crate::pin::Access;
use crate::token::broken;
use crate::tokens::{Tokens, parse_name};
use show::{Format, View};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    New(NewArgs),
    /// List the keys
    ///
    /// Exit code 1 where a token or a file cannot be read; the rest is listed all the same.
    #[command(after_help = "Example:
  devkey key list --token default
--json: an array of what `devkey key show --format json` prints.
Next: `devkey key show LABEL`.")]
    List {
        /// Only this token's
        #[arg(long, value_name = "NAME", value_parser = parse_name)]
        token: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the public half of a key
    #[command(after_help = "Examples:
  devkey key show laptop --format ssh >> authorized_keys
  openssl req -new -engine pkcs11 -keyform engine -subj /CN=laptop \\
    -key \"$(devkey key show laptop --format uri)\"
--format json: an object with token, label, id, kind, usage [text], certificates [text], uri, ssh,
fingerprint, pem. ssh and fingerprint are null for kinds of key that OpenSSH does not have.
Next: `devkey agent refresh` shows it to ssh.")]
    Show {
        #[command(flatten)]
        which: Which,
        /// What to print [default: all of it, for people]
        #[arg(long)]
        format: Option<Format>,
    },
    /// Delete a key for good
    #[command(after_help = "Example:
  devkey key delete --yes laptop
Next: remove its line from every authorized_keys and have its certificates revoked.")]
    Delete {
        #[command(flatten)]
        which: Which,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Names a key.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// The token [default: the only one, or "default"]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    token: Option<String>,
    /// The key's label or its ID
    #[arg(value_name = "LABEL-or-ID")]
    key: String,
}

/// Make a key
///
/// Prints its OpenSSH line, ready for authorized_keys, or where OpenSSH has no such keys its PEM.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  devkey key new laptop
  devkey key new --token board --kind rsa-3072 --allow sign,decrypt --format pem web
--json: as `devkey key show --format json`.
Next: put the line into authorized_keys, then `devkey agent refresh`.")]
pub(crate) struct NewArgs {
    /// The token [default: the only one, or "default"]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    token: Option<String>,
    /// Kind of the key
    #[arg(long, default_value = KeyKind::EcP256.name(), value_parser = kinds())]
    kind: KeyKind,
    /// What it may be used for
    #[arg(long, value_delimiter = ',', default_value = "sign")]
    allow: Vec<Use>,
    /// Its ID (CKA_ID), hexadecimal [default: from the public key]
    #[arg(long, value_name = "HEX", value_parser = parse_id)]
    id: Option<Id>,
    /// What to print [default: ssh; pem for ML-DSA]
    #[arg(long)]
    format: Option<Format>,
    /// Print JSON: the same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    #[command(flatten)]
    access: Access,
    /// Its label, new on the token
    #[arg(value_parser = parse_label)]
    label: String,
}

/// A use of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Use {
    Sign,
    Agree,
    Decrypt,
}

/// A `CKA_ID`; a type of its own, for clap takes a `Vec` for several arguments.
#[derive(Debug, Clone)]
struct Id(Vec<u8>);

impl Command {
    /// Whether a device may be asked.
    pub(crate) fn touches_device(&self) -> bool {
        matches!(self, Command::New(_) | Command::Delete { .. })
    }
}

pub(crate) fn run(command: &Command) -> Outcome {
    let tokens = Tokens::load()?;
    match command {
        Command::New(args) => new(&tokens, args),
        Command::List { token, json } => list(&tokens, token.as_deref(), *json),
        Command::Show { which, format } => show(&tokens, which, *format),
        Command::Delete { which, yes } => delete(&tokens, which, *yes),
    }
}

fn new(tokens: &Tokens, args: &NewArgs) -> Outcome {
    let format = args.format.unwrap_or(Format::of(args.kind));
    format.check(args.kind)?;
    let (found, token) = tokens.find_open(args.token.as_deref())?;
    let cka_id = args.id.as_ref().map(|id| id.0.clone());
    let listing = token.store().list()?;
    check_new(&found, &listing, &args.label, cka_id.as_deref())?;
    let note = args.access.log_in(&*token, &found.name)?;
    let may = |wanted| args.allow.contains(&wanted);
    let key = token.generate(&KeyRequest {
        kind: args.kind,
        usage: Usage {
            sign: may(Use::Sign),
            agree: may(Use::Agree),
            decrypt: may(Use::Decrypt),
        },
        names: Names {
            label: Some(args.label.clone()),
            cka_id,
        },
    })?;
    let view = View::new(&found, token.store().token(), &key, &listing)?;
    let format = if args.json { Format::Json } else { format };
    let answer = match note {
        Some(note) => Answer::text(view.format(format)?).note(note),
        None => Answer::text(view.format(format)?),
    };
    if ssh::algorithm(args.kind).is_none() {
        return Ok(answer.hint("next: put the key where it is to be trusted"));
    }
    Ok(answer
        .hint("next: put the key where it is to be trusted, e.g. its OpenSSH line into")
        .hint("~/.ssh/authorized_keys, then show it to ssh: devkey agent refresh"))
}

/// ssh tells keys apart by their IDs, people by their labels.
fn check_new(found: &FoundToken, all: &Listing, label: &str, id: Option<&[u8]>) -> Result<()> {
    let name = &found.name;
    let exists = |what: String, key: &KeyRecord| {
        let see = format!(
            "devkey key show --token {name} {}",
            base16ct::lower::encode_string(&key.cka_id)
        );
        let remedy = format!("choose another, or see it: {see}");
        Err(Failure::new(Error::Exists(what), remedy))
    };
    if let Some(twin) = all.keys.iter().find(|key| key.label == label) {
        return exists(format!("key {label:?} on token {name}"), twin);
    }
    if let Some(twin) = all
        .keys
        .iter()
        .find(|key| Some(key.cka_id.as_slice()) == id)
    {
        return exists(format!("a key of that ID on token {name}"), twin);
    }
    Ok(())
}

fn list(tokens: &Tokens, name: Option<&str>, json: bool) -> Outcome {
    let (open, mut problems) = match name {
        Some(_) => (vec![tokens.find_open(name)?], Vec::new()),
        None => tokens.open_all(),
    };
    let mut views = Vec::new();
    for (found, token) in &open {
        let listing = match token.store().list() {
            Ok(listing) => listing,
            Err(e) => {
                problems.push(e.into());
                continue;
            }
        };
        for key in &listing.keys {
            views.push(View::new(found, token.store().token(), key, &listing)?);
        }
        problems.extend(broken(&listing));
    }
    let answer = match json {
        true => Answer::json(&views)?,
        false => Answer::text(table(&views)),
    };
    Ok(match (views.is_empty(), open.is_empty()) {
        (true, true) => answer.hint("next: devkey init"),
        (true, false) => answer.hint("next: devkey key new LABEL"),
        _ => answer,
    }
    .problems(problems))
}

fn table(views: &[View]) -> String {
    let rows: Vec<_> = views.iter().map(View::cells).collect();
    output::table(["TOKEN", "LABEL", "KIND", "ID", "CERTIFICATE"], &rows)
}

fn show(tokens: &Tokens, which: &Which, format: Option<Format>) -> Outcome {
    let (found, token) = tokens.find_open(which.token.as_deref())?;
    let listing = token.store().list()?;
    let key = find_key(&found, &listing, &which.key)?;
    let view = View::new(&found, token.store().token(), &key, &listing)?;
    Ok(Answer::text(match format {
        Some(format) => view.format(format)?,
        None => view.describe(),
    }))
}

fn delete(tokens: &Tokens, which: &Which, yes: bool) -> Outcome {
    let (found, token) = tokens.find_open(which.token.as_deref())?;
    let listing = token.store().list()?;
    let key = find_key(&found, &listing, &which.key)?;
    let what = format!("key {:?} on token {}", key.label, found.name);
    if !yes && !confirmed(&what)? {
        return Err(Failure::from(Error::input(format!(
            "{what} was not deleted"
        ))));
    }
    token.delete(&key.id)?;
    Ok(Answer::text(format!("deleted {what}"))
        .note("A copy of its file that was made before (a backup, a snapshot) is not erased:")
        .note("have its certificates revoked and its line removed from every authorized_keys."))
}

fn confirmed(what: &str) -> Result<bool> {
    output::ask(&format!("Delete {what} for good?")).ok_or_else(|| {
        let error = Error::input("there is no terminal to ask on whether to delete the key");
        Failure::new(error, "add --yes if it is to be deleted")
    })
}

/// The key that a label, a `CKA_ID` or a record's id names.
pub(crate) fn find_key(found: &FoundToken, all: &Listing, wanted: &str) -> Result<Arc<KeyRecord>> {
    let id = base16ct::mixed::decode_vec(wanted).ok();
    let named = |key: &&Arc<KeyRecord>| {
        key.label == wanted || Some(&key.cka_id) == id.as_ref() || key.id.as_str() == wanted
    };
    let matching: Vec<_> = all.keys.iter().filter(named).collect();
    let name = &found.name;
    match matching.as_slice() {
        [key] => Ok(Arc::clone(key)),
        [] => Err(Failure::new(
            Error::NotFound(format!("key {wanted:?} on token {name}")),
            match all.broken.is_empty() {
                true => format!("devkey key list --token {name}"),
                false => format!("devkey token show {name}: it has files that cannot be read"),
            },
        )),
        several => {
            let ids: Vec<&str> = several.iter().map(|key| key.id.as_str()).collect();
            let error = Error::input(format!("several keys are called {wanted:?}"));
            Err(Failure::new(
                error,
                format!("name one by its id: {}", ids.join(", ")),
            ))
        }
    }
}

/// Offers the kinds by name, so that the help and the completions have them.
fn kinds() -> impl TypedValueParser<Value = KeyKind> {
    let names = KeyKind::ALL.map(KeyKind::name);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<KeyKind>())
}

fn parse_id(text: &str) -> devkey::Result<Id> {
    let wrong = || Error::input("an ID is an even number of hexadecimal digits");
    let names = Names {
        cka_id: Some(base16ct::mixed::decode_vec(text).map_err(|_| wrong())?),
        ..Names::default()
    };
    names.check()?;
    Ok(Id(names.cka_id.unwrap_or_default()))
}

/// A label fits into one line of text, such as the comment of an OpenSSH line.
fn parse_label(label: &str) -> devkey::Result<String> {
    if label.contains(char::is_control) {
        return Err(Error::input("a label has no control characters"));
    }
    let names = Names {
        label: Some(label.to_owned()),
        ..Names::default()
    };
    names.check().map(|()| label.to_owned())
}
