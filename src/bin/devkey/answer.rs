//! `devkey answer`: answers a CA's challenge.

use std::path::PathBuf;
use std::sync::Arc;

use devkey::Error;
use devkey::identity::device;
use devkey::identity::flow::{Challenge, Request, fingerprint};
use devkey::key::PublicKey;
use devkey::store::KeyRecord;

use crate::cert::now;
use crate::failure::{Failure, Result};
use crate::output::{Outcome, printable};
use crate::pin::Access;
use crate::tokens::{OpenToken, Tokens, parse_name};
use crate::transfer::{Out, authority, read};

/// Answer a CA's challenge
///
/// Signs it with the key that it is about; a TPM opens the CA's secret and certifies the key besides.
/// What is asked about is printed. The CA must be the one that the request names, or that --ca names.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  devkey answer pump7.challenge -o pump7.answer
  ssh ca devkey ca challenge - < pump7.request | devkey answer - --ca ca.pem > pump7.answer
Next: bring it to the CA, `devkey ca issue`, and install what comes back: `devkey cert install`.")]
pub(crate) struct Args {
    /// The token [default: whichever has the key]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    token: Option<String>,
    /// The CA that is meant: its certificate, or its fingerprint [default: what the request names]
    #[arg(long, value_name = "FILE-or-SHA256")]
    ca: Option<String>,
    /// Answer only if it is about this very request
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    #[command(flatten)]
    out: Out,
    #[command(flatten)]
    access: Access,
    /// The challenge; - is standard input
    #[arg(value_name = "FILE")]
    challenge: PathBuf,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let challenge = Challenge::parse(&read(&args.challenge)?)?;
    if let Some(path) = &args.request {
        let own = Request::parse(&read(path)?)?;
        if own.digest() != challenge.request().digest() {
            let error = Error::input("the challenge is about another request than that");
            return Err(Failure::new(
                error,
                "give the CA that request, and answer what it asks then",
            ));
        }
    }
    let authority = args.ca.as_deref().map(authority).transpose()?;
    let explained = |e: Error| match authority.or(challenge.request().authority()) {
        None => Failure::new(e, "name the CA: --ca FILE"),
        Some(_) => Failure::new(e, "ask the CA that is meant for a new challenge"),
    };
    challenge.check(authority, now()).map_err(explained)?;
    let tokens = Tokens::load()?;
    let ((found, token), key) =
        holder(&tokens, args.token.as_deref(), challenge.request().public())?;
    let note = args.access.log_in(&*token, &found.name)?;
    let answer = device::answer(&*token, &key, &challenge, authority, now())?;
    let written = args.out.put(answer.encode()?)?.noted(note);
    Ok(said(&challenge)
        .into_iter()
        .fold(written, |answer, line| answer.note(line))
        .hint("next: bring it to the CA, devkey ca issue; then devkey cert install"))
}

/// The token that has the key, and the key.
pub(crate) fn holder(
    tokens: &Tokens,
    token: Option<&str>,
    public: &PublicKey,
) -> Result<(OpenToken, Arc<KeyRecord>)> {
    let open = match token {
        Some(_) => vec![tokens.find_open(token)?],
        None => tokens.open_all().0,
    };
    for one in open {
        let listing = one.1.store().list()?;
        if let Some(key) = listing.keys.iter().find(|key| key.public == *public) {
            return Ok((one, Arc::clone(key)));
        }
    }
    let what = format!("the key that this is about ({})", fingerprint(public));
    Err(Failure::new(
        Error::NotFound(what),
        "run it on the device that made the request; devkey key list",
    ))
}

/// What is asked about, for who answers.
fn said(challenge: &Challenge) -> Vec<String> {
    let ca = &challenge.authority().name;
    let names = names(challenge.request());
    vec![printable(&format!("answered {ca:?} about {names}"))]
}

/// All names that a request asks for.
pub(crate) fn names(request: &Request) -> String {
    let csr = request.csr();
    let mut names: Vec<String> = vec![csr.subject.to_string()];
    names.extend(csr.alt_names.iter().map(ToString::to_string));
    let ssh = request.ssh().into_iter();
    names.extend(ssh.flat_map(|ssh| {
        let kind = ssh.kind.name();
        let all = ssh.principals.iter();
        all.map(move |name| format!("{kind} principal:{name}"))
    }));
    names.join(", ")
}
