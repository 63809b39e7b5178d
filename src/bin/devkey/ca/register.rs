//! `devkey ca register`.

use std::path::PathBuf;

use devkey::Error;
use devkey::identity::ca::{Ca, Registered};
use devkey::identity::flow::{self, Digest, fingerprint};
use devkey::identity::ssh;
use devkey::key::PublicKey;
use serde::Serialize;

use super::Books;
use crate::cert::now;
use crate::failure::{Failure, Result};
use crate::output::{self, Answer, Outcome};
use crate::transfer::read;

/// Register PUFs' public keys that came through a trusted channel
///
/// Only a key that is registered before its device asks gets level "puf": register it on the factory line,
/// where the device is in your hands. FILE is what `devkey request` wrote there, or a list of public keys,
/// as OpenSSH lines or PEM, for which whoever registers them vouches alone. A device that says that its PUF
/// is a simulator or a file, or that it has none, is refused, and gets no such level if it says so later.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  devkey ca register --dir fleet --lot 2026-47 line/*.request
  devkey key show --format ssh pump | devkey ca register --dir fleet --lot 2026-47 -
  devkey ca register --dir fleet --list
  devkey ca register --dir fleet --remove FINGERPRINT
--json: an array of {key, lot, label, at}.
Next: `devkey ca challenge`, once the device asks.")]
pub(crate) struct Args {
    #[command(flatten)]
    books: Books,
    /// What the keys came with
    #[arg(long, value_name = "NAME", required_unless_present_any = ["list", "remove"])]
    lot: Option<String>,
    /// What to call the device [default: the subject of its request, the comment of its line]
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// List what is registered
    #[arg(long, conflicts_with_all = ["lot", "label", "remove", "files"])]
    list: bool,
    /// Take back the registration of a key
    #[arg(long, value_name = "SHA256", conflicts_with_all = ["lot", "label", "files"])]
    remove: Option<Digest>,
    /// With --list: print JSON
    #[arg(long, requires = "list")]
    json: bool,
    /// Requests, or lists of public keys; - is standard input
    #[arg(value_name = "FILE", required_unless_present_any = ["list", "remove"])]
    files: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Row {
    key: Digest,
    lot: String,
    label: String,
    at: u64,
}

/// What a file names.
enum Named {
    Request(Box<flow::Request>),
    Key(PublicKey, String),
}

pub(super) fn run(args: &Args) -> Outcome {
    let ca = args.books.open()?;
    if let Some(key) = args.remove {
        ca.unregister(key).map_err(|e| match e {
            Error::NotFound(_) => Failure::new(
                Error::NotFound(format!("the registration of {key}")),
                "devkey ca register --list",
            ),
            other => other.into(),
        })?;
        return Ok(Answer::text(format!("{key} is registered no more")));
    }
    if args.list {
        return list(&ca, args.json);
    }
    let mut all = Vec::new();
    for path in &args.files {
        let bytes = read(path)?;
        let shown = path.display();
        let failed = |e: Error| Failure::from(Error::input(format!("{shown}: {e}")));
        all.extend(named(&bytes).map_err(failed)?);
    }
    let (mut new, mut known) = (0, 0);
    let mut problems = Vec::new();
    for one in &all {
        match register(&ca, args, one) {
            Ok(true) => new += 1,
            Ok(false) => known += 1,
            Err(failure) => problems.push(failure),
        }
    }
    let text = format!("registered {new} keys, {known} were registered before");
    Ok(Answer::text(text).problems(problems))
}

fn register(ca: &Ca, args: &Args, one: &Named) -> Result<bool> {
    let label = match one {
        Named::Request(request) => request.csr().subject.to_string(),
        Named::Key(public, comment) if comment.is_empty() => fingerprint(public).to_string(),
        Named::Key(_, comment) => comment.clone(),
    };
    let entry = Registered {
        lot: args.lot.clone().unwrap_or_default(),
        label: args.label.clone().unwrap_or(label),
        at: now(),
    };
    let done = match one {
        Named::Request(request) => ca.register_request(request, &entry),
        Named::Key(public, _) => ca.register(public, &entry),
    };
    Ok(done?)
}

/// A request is JSON; else it is PEM, or lines of OpenSSH.
fn named(bytes: &[u8]) -> devkey::Result<Vec<Named>> {
    if bytes.trim_ascii_start().first() == Some(&b'{') {
        let request = flow::Request::parse(bytes)?;
        return Ok(vec![Named::Request(Box::new(request))]);
    }
    let text =
        std::str::from_utf8(bytes).map_err(|_| Error::input("neither a request nor text"))?;
    let found = match text.contains("-----BEGIN") {
        true => blocks(text)?,
        false => lines(text)?,
    };
    match found.is_empty() {
        true => Err(Error::input("there is no public key in it")),
        false => Ok(found),
    }
}

fn blocks(text: &str) -> devkey::Result<Vec<Named>> {
    const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
    const END: &str = "-----END PUBLIC KEY-----";
    let bad = || Error::input("a block that is no PUBLIC KEY in PEM");
    let block = |block: &str| {
        let (body, _) = block.split_once(END).ok_or_else(bad)?;
        let whole = format!("{BEGIN}{body}{END}\n");
        let (_, der) = der::pem::decode_vec(whole.as_bytes()).map_err(|_| bad())?;
        Ok(Named::Key(PublicKey::from_spki(&der)?, String::new()))
    };
    text.split(BEGIN).skip(1).map(block).collect()
}

fn lines(text: &str) -> devkey::Result<Vec<Named>> {
    let lines = text.lines().map(str::trim).zip(1..);
    let lines = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    let line = |(line, number): (&str, u32)| {
        let (key, comment) =
            ssh::key::from_line(line).map_err(|e| Error::input(format!("line {number}: {e}")))?;
        Ok(Named::Key(key, comment))
    };
    lines.map(line).collect()
}

fn list(ca: &Ca, json: bool) -> Outcome {
    let all = ca.all_registered()?;
    let row = |(key, entry): (Digest, Registered)| Row {
        key,
        lot: entry.lot,
        label: entry.label,
        at: entry.at,
    };
    let rows: Vec<Row> = all.into_iter().map(row).collect();
    if json {
        return Answer::json(&rows);
    }
    let cells: Vec<[String; 3]> = rows
        .iter()
        .map(|row| [row.lot.clone(), row.label.clone(), row.key.to_string()])
        .collect();
    Ok(Answer::text(output::table(["LOT", "LABEL", "KEY"], &cells)))
}
