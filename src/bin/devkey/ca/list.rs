//! `devkey ca list` and `devkey ca show`.

use devkey::Error;
use devkey::identity::ca::{Ca, Entry, State};
use devkey::identity::x509::{self, Serial};
use serde_json::Value;

use super::Books;
use crate::cert::now;
use crate::failure::Failure;
use crate::output::{self, Answer, Outcome};
use crate::transfer::Out;

/// List what was issued
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  devkey ca list --dir lab-ca --json
DEVICE is the beginning of the fingerprint of its TPM's endorsement key.
--json: an array of {serial, state, level, subject, alt_names, principals, key, device, profile,
at, not_after, ssh_serial, revoked_at, reason}; state is good, expired, revoked or unfinished,
device an array, times are seconds since 1970.
Next: `devkey ca show SERIAL`.")]
pub(crate) struct Args {
    #[command(flatten)]
    books: Books,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Show the CA, or write what was issued once more
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  devkey ca show --dir lab-ca
  devkey ca show --dir lab-ca 5a0f... -o pump7.issued
--json: of a serial, as an entry of `devkey ca list --json`; of the CA, an object with name, fingerprint,
subject, token, key, not_after, profiles [text].
Next: `devkey cert install` on the device.")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    books: Books,
    /// Print JSON about it
    #[arg(long, conflicts_with = "out")]
    json: bool,
    #[command(flatten)]
    out: Out,
    /// A serial of `devkey ca list`
    serial: Option<Serial>,
}

pub(super) fn run(args: &Args) -> Outcome {
    let ca = args.books.open()?;
    let all = ca.list(now())?;
    if args.json {
        return Answer::json(&all);
    }
    let rows: Vec<[String; 6]> = all.iter().map(cells).collect();
    let header = ["SERIAL", "STATE", "LEVEL", "DEVICE", "UNTIL", "SUBJECT"];
    Ok(Answer::text(output::table(header, &rows)))
}

pub(super) fn show(args: &ShowArgs) -> Outcome {
    let ca = args.books.open()?;
    let Some(serial) = &args.serial else {
        return about(&ca, args.json);
    };
    let entry = ca
        .entry(serial, now())
        .map_err(|e| Failure::new(e, "devkey ca list"))?;
    if args.json {
        return Answer::json(&entry);
    }
    if entry.state == State::Unfinished {
        let error = Error::input(format!("nothing was issued for serial {serial}"));
        return Err(Failure::new(
            error,
            "give the device's answer to devkey ca issue again",
        ));
    }
    args.out.put(ca.issued_file(serial)?)
}

fn about(ca: &Ca, json: bool) -> Outcome {
    let own = ca.chain().first().map(Vec::as_slice).unwrap_or_default();
    let own = x509::describe(own)?;
    let config = ca.config();
    let profiles: Vec<&str> = config.profiles.keys().map(String::as_str).collect();
    if json {
        let value: Value = serde_json::json!({
            "name": config.name,
            "fingerprint": ca.fingerprint().to_string(),
            "subject": own.subject,
            "token": config.token,
            "key": own.key,
            "not_after": own.not_after,
            "profiles": profiles,
        });
        return Answer::json(&value);
    }
    Ok(Answer::text(output::fields(&[
        ("name", config.name.clone()),
        ("fingerprint", ca.fingerprint().to_string()),
        ("subject", own.subject),
        ("token", config.token.clone()),
        ("key", own.key),
        ("until", until(own.not_after)),
        ("profiles", profiles.join(", ")),
    ])))
}

fn cells(entry: &Entry) -> [String; 6] {
    let state = match entry.state {
        State::Unfinished => "unfinished",
        State::Good => "good",
        State::Expired => "expired",
        State::Revoked => "revoked",
    };
    let device = entry.device.first().map(ToString::to_string);
    let device = device.map(|ek| format!("{ek:.16}"));
    [
        entry.serial.to_string(),
        state.to_owned(),
        entry.level.to_string(),
        device.unwrap_or_else(|| "-".to_owned()),
        until(entry.not_after),
        entry.subject.clone(),
    ]
}

/// A second since 1970 as a date.
fn until(seconds: u64) -> String {
    let since = std::time::Duration::from_secs(seconds);
    let date = der::DateTime::from_unix_duration(since);
    date.map_or_else(|_| seconds.to_string(), |date| date.to_string())
}
