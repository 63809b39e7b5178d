//! `devkey ca challenge` and `devkey ca issue`.

use std::path::PathBuf;

use devkey::Error;
use devkey::identity::flow::{self, fingerprint};
use devkey::identity::signer::TokenSigner;

use super::{Books, signer};
use crate::answer::names;
use crate::cert::now;
use crate::failure::Failure;
use crate::output::{Outcome, printable};
use crate::pin::Access;
use crate::transfer::{Out, read};

/// Check a request and ask its device a question
///
/// What is refused here would not be issued. The challenge is good for one answer, for a time that
/// ca.toml says.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  devkey ca challenge --dir lab-ca pump7.request -o pump7.challenge
  devkey ca challenge --dir lab-ca --profile servers - < pump7.request > pump7.challenge
Next: bring it to the device, `devkey answer`.")]
pub(crate) struct ChallengeArgs {
    #[command(flatten)]
    books: Books,
    /// The profile of ca.toml [default: the only one, or "device"]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    #[command(flatten)]
    out: Out,
    #[command(flatten)]
    access: Access,
    /// The request; - is standard input
    #[arg(value_name = "FILE")]
    request: PathBuf,
}

/// Check an answer and issue certificates
///
/// Everything is checked anew. The certificates are in the CA's books before they are written: what was
/// lost on its way, `devkey ca show SERIAL` writes again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  devkey ca issue --dir lab-ca pump7.answer -o pump7.issued
Next: bring it to the device, `devkey cert install`.")]
pub(crate) struct IssueArgs {
    #[command(flatten)]
    books: Books,
    #[command(flatten)]
    out: Out,
    #[command(flatten)]
    access: Access,
    /// The answer; - is standard input
    #[arg(value_name = "FILE")]
    answer: PathBuf,
}

pub(super) fn challenge(args: &ChallengeArgs) -> Outcome {
    let ca = args.books.open()?;
    let request = flow::Request::parse(&read(&args.request)?)?;
    // A profile that is not there is said before a PIN is asked for.
    ca.config().profile(args.profile.as_deref())?;
    let ((_, token), key, note) = signer(&ca, &args.access)?;
    let signer = TokenSigner {
        token: &*token,
        key: &key,
    };
    let about = format!("{}, key {}", names(&request), fingerprint(request.public()));
    let asked = ca
        .challenge(&signer, request, args.profile.as_deref(), now())
        .map_err(|e| {
            explained(
                e,
                "have the device ask for what profile and level allow, or edit ca.toml",
            )
        })?;
    let answer = args.out.put(asked.challenge.encode()?)?.noted(note);
    let answer = answer.note(printable(&format!("asked about {about}")));
    let answer = answer.note(format!("profile {}, level {}", asked.profile, asked.level));
    let reasons = asked.reasons.into_iter();
    let answer = reasons.fold(answer, |answer, reason| answer.note(format!("  {reason}")));
    Ok(answer.hint("next: bring it to the device, devkey answer"))
}

pub(super) fn issue(args: &IssueArgs) -> Outcome {
    let ca = args.books.open()?;
    let answer = flow::Answer::parse(&read(&args.answer)?)?;
    let ((_, token), key, note) = signer(&ca, &args.access)?;
    let signer = TokenSigner {
        token: &*token,
        key: &key,
    };
    let granted = ca
        .issue(&signer, &answer, now())
        .map_err(|e| explained(e, "challenge the device anew: devkey ca challenge"))?;
    let (serial, level) = (&granted.serial, granted.level);
    // The answer is spent: what was issued comes from the books from now on.
    let again = |failure: Failure| {
        let remedy = format!("serial {serial} was issued; devkey ca show {serial} writes it again");
        Failure::new(failure.what, remedy)
    };
    let written = args.out.put(granted.issued.encode()?).map_err(again)?;
    Ok(written
        .noted(note)
        .note(format!("issued serial {serial}, level {level}"))
        .hint("next: bring it to the device, devkey cert install"))
}

/// What is refused for its contents has a remedy.
fn explained(error: Error, remedy: &str) -> Failure {
    match error {
        Error::BadInput(_) => Failure::new(error, remedy),
        other => other.into(),
    }
}
