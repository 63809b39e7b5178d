//! `devkey renew`: new certificates in time, without hands.

mod command;
mod request;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use devkey::Error;
use devkey::config::{FoundToken, parse_span};
use devkey::identity::x509::Description;
use devkey::store::{KeyRecord, ObjectId};
use devkey::token::Token;

use self::command::Enrolment;
use self::request::Request;
use crate::cert::{
    Input, Item, PROGRAMS, Put, Replaced, Roots, ends_within, install, items, words,
};
use crate::failure::{Failure, Result};
use crate::key::find_key;
use crate::output::{Answer, Outcome};
use crate::pin::Access;
use crate::tokens::{OpenToken, Tokens, parse_name};

/// How long before its end a certificate is renewed, unless the configuration says otherwise.
const WITHIN: Duration = Duration::from_secs(30 * 86_400);
/// How long a command may take, unless the configuration says otherwise.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Renew the certificates that expire soon, without asking anybody
///
/// For each key whose certificate expires within the time, a request is made and a command run that
/// has the CA answer it. What it prints is checked as `devkey cert install` does, must end later than
/// what it replaces, and is installed. Whatever fails, the certificate that is there stays.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  devkey renew
  devkey renew --within 10d --command 'curl -f --data-binary @$DEVKEY_CSR https://ca.example/'
The command has the request on its standard input, as `devkey request` writes it, and prints what
`devkey cert install` takes. Its environment names files: DEVKEY_REQUEST that
request, DEVKEY_CSR its PKCS#10, DEVKEY_PUBLIC the public key, DEVKEY_CERTIFICATE and
DEVKEY_SSH_CERTIFICATE what is to be renewed; and DEVKEY_TOKEN, DEVKEY_LABEL and DEVKEY_KEY the key.
Unattended: [renew] in devkey.toml, and devkey-renew.timer.
Next: `devkey cert list`.")]
pub(crate) struct Args {
    /// Only this token's
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    token: Option<String>,
    /// Renew what has expired or will within that time: 30d, 12h [default: [renew] within, or 30d]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    within: Option<Duration>,
    #[command(flatten)]
    how: How,
}

/// As `Args`, for one key.
#[derive(Debug, clap::Args)]
pub(crate) struct OneArgs {
    /// The token [default: the only one, or "default"]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    token: Option<String>,
    /// The key's label or its ID
    #[arg(value_name = "LABEL-or-ID")]
    key: String,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
struct How {
    /// What reaches the CA, for /bin/sh -c [default: [renew] command]
    #[arg(long, value_name = "LINE")]
    command: Option<String>,
    /// What is run once something was renewed, for /bin/sh -c [default: [renew] after]
    #[arg(long, value_name = "LINE")]
    after: Option<String>,
    /// How long each of them may take [default: [renew] timeout, or 5m]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    timeout: Option<Duration>,
    /// Roots in PEM, to one of which new certificates must lead [default: [renew] ca]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Public keys of the CAs of OpenSSH certificates [default: [renew] ssh_ca]
    #[arg(long, value_name = "FILE")]
    ssh_ca: Option<PathBuf>,
    /// Where OpenSSH's certificates are [default: the token's directory]
    #[arg(long, value_name = "DIR")]
    ssh_dir: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
}

/// What is to be done, with the configuration's word where the command line is silent.
struct Plan<'a> {
    enrolment: Enrolment,
    after: Option<String>,
    roots: Roots,
    how: &'a How,
}

/// What is renewed by one request: an X.509 certificate of a key, one of OpenSSH, or both.
struct Due {
    key: Arc<KeyRecord>,
    x509: Option<Item>,
    ssh: Option<Item>,
    /// What an X.509 certificate of the key says, be it due or not: whose the key is.
    said: Option<Description>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let tokens = Tokens::load()?;
    let within = args.within.or(tokens.config.renew.within).unwrap_or(WITHIN);
    let (open, mut problems) = match args.token.as_deref() {
        Some(name) => (vec![tokens.find_open(Some(name))?], Vec::new()),
        None => tokens.open_all(),
    };
    let mut work: Vec<(OpenToken, Vec<Due>)> = Vec::new();
    for (found, token) in open {
        match due(&found, &*token, &args.how, |item| ends_within(item, within)) {
            Ok((due, bad)) => {
                problems.extend(bad);
                work.push(((found, token), due));
            }
            Err(e) => problems.push(e),
        }
    }
    work.retain(|(_, due)| !due.is_empty());
    if work.is_empty() {
        let nothing = format!("nothing expires within {}", words(within.as_secs()));
        return Ok(Answer::text(nothing).problems(problems));
    }
    let plan = Plan::new(&tokens, &args.how)?;
    Ok(plan.carry_out(&work, problems))
}

/// `devkey cert renew`
pub(crate) fn run_one(tokens: &Tokens, args: &OneArgs) -> Outcome {
    let (found, token) = tokens.find_open(args.token.as_deref())?;
    let listing = token.store().list()?;
    let key = find_key(&found, &listing, &args.key)?;
    let (mut all, _) = due(&found, &*token, &args.how, |_| true)?;
    all.retain(|due| due.key.id == key.id);
    if all.is_empty() {
        return Err(Failure::new(
            Error::NotFound(format!("a certificate of key {:?}", key.label)),
            "the first one: have a CA certify the key, then devkey cert install FILE",
        ));
    }
    let plan = Plan::new(tokens, &args.how)?;
    Ok(plan.carry_out(&[((found, token), all)], Vec::new()))
}

/// The keys of a token with certificates that are to be renewed; and what cannot be read.
fn due(
    found: &FoundToken,
    token: &dyn Token,
    how: &How,
    wanted: impl Fn(&Item) -> bool,
) -> Result<(Vec<Due>, Vec<Failure>)> {
    let (all, problems) = items(found, token, how.ssh_dir.as_deref())?;
    let said = |item: &Item| Some((item.key.clone()?.id.clone(), item.x509()?.1.clone()));
    let described: Vec<(ObjectId, Description)> = all.iter().filter_map(said).collect();
    let mut due: Vec<Due> = Vec::new();
    for item in all {
        if let Some(key) = item.key.clone().filter(|_| wanted(&item)) {
            add(&mut due, key, item);
        }
    }
    for one in &mut due {
        let own = one.x509.as_ref().and_then(Item::x509);
        let of_key = described.iter().find(|(id, _)| *id == one.key.id);
        let said = own.map(|(_, said)| said).or(of_key.map(|(_, said)| said));
        one.said = said.cloned();
    }
    Ok((due, problems))
}

/// Adds a certificate to the request of its key that has none of its kind yet.
fn add(all: &mut Vec<Due>, key: Arc<KeyRecord>, item: Item) {
    let is_ssh = item.ssh().is_some();
    let taken = |due: &Due| match is_ssh {
        true => due.ssh.is_some(),
        false => due.x509.is_some(),
    };
    let known = all
        .iter()
        .position(|due| due.key.id == key.id && !taken(due));
    let mut due = known.map_or_else(|| Due::of(key), |at| all.remove(at));
    match is_ssh {
        true => due.ssh = Some(item),
        false => due.x509 = Some(item),
    }
    all.push(due);
}

impl Due {
    fn of(key: Arc<KeyRecord>) -> Self {
        Due {
            key,
            x509: None,
            ssh: None,
            said: None,
        }
    }
}

impl<'a> Plan<'a> {
    fn new(tokens: &Tokens, how: &'a How) -> Result<Self> {
        let configured = &tokens.config.renew;
        let missing = || {
            Failure::new(
                "no command that reaches the CA",
                "say it with --command, or as `command` under [renew] in devkey.toml",
            )
        };
        let command = how.command.clone().or(configured.command.clone());
        let or = |ours: &Option<PathBuf>, theirs: &Option<PathBuf>| ours.clone().or(theirs.clone());
        let (ca, ssh_ca) = (
            or(&how.ca, &configured.ca),
            or(&how.ssh_ca, &configured.ssh_ca),
        );
        Ok(Plan {
            enrolment: Enrolment {
                command: command.ok_or_else(missing)?,
                timeout: how.timeout.or(configured.timeout).unwrap_or(TIMEOUT),
            },
            after: how.after.clone().or(configured.after.clone()),
            roots: Roots::read(ca.as_deref(), ssh_ca.as_deref())?,
            how,
        })
    }

    /// Renews one after the other: what fails keeps none of the others from it.
    fn carry_out(&self, work: &[(OpenToken, Vec<Due>)], mut problems: Vec<Failure>) -> Answer {
        let (mut done, mut notes) = (Vec::new(), Vec::new());
        for ((found, token), all) in work {
            match self.how.access.log_in(&**token, &found.name) {
                Ok(note) => notes.extend(note),
                Err(e) => {
                    problems.push(e);
                    continue;
                }
            }
            for due in all {
                match self.renew(found, &**token, due) {
                    Ok(lines) => done.extend(lines),
                    Err(e) => problems.push(kept(&due.key, found, e)),
                }
            }
        }
        if !done.is_empty() {
            match &self.after {
                Some(after) => problems.extend(self.enrolment.follow_up(after).err()),
                None => notes.push(PROGRAMS.to_owned()),
            }
        }
        let answer = Answer::text(done.join("\n")).problems(problems);
        notes.into_iter().fold(answer, Answer::note)
    }

    fn renew(&self, found: &FoundToken, token: &dyn Token, due: &Due) -> Result<Vec<String>> {
        let request = Request::make(found, token, due)?;
        let answer = self.enrolment.answer(&request)?;
        let mut input = Input::parse(&answer)
            .map_err(|e| Failure::new(format!("what the command printed: {e}"), COMMAND))?;
        request.answered_by(&input)?;
        if due.x509.is_none() {
            // A CA may certify the names as well; the key has such a certificate, or is to have none.
            input.x509.clear();
        }
        install(
            &Put {
                found,
                token,
                key: Some(&due.key),
                roots: &self.roots,
                any_time: false,
                replaced: Replaced::Only(due.x509.iter().filter_map(Item::object).collect()),
                ssh_dir: self.how.ssh_dir.as_deref(),
                later_than: request.later_than(),
            },
            &input,
        )
    }
}

/// What to do about a command that does not do its part.
const COMMAND: &str = "run the command by hand, on the request that `devkey cert renew` gives it";

fn kept(key: &KeyRecord, found: &FoundToken, failure: Failure) -> Failure {
    let (label, token) = (&key.label, &found.name);
    Failure {
        what: format!(
            "key {label:?} on token {token} keeps its certificate, which was not renewed: {}",
            failure.what
        ),
        remedy: failure.remedy,
    }
}
