//! `devkey ca init`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use devkey::Error;
use devkey::identity::ca::{Ca, Config, NewCa, Own, Pattern, Profile};
use devkey::identity::flow::{SshKind, fingerprint};
use devkey::identity::level::Level;
use devkey::identity::signer::TokenSigner;
use devkey::identity::x509::{ExtendedUsage, Subject};

use super::Books;
use crate::cert::now;
use crate::failure::{Failure, Result};
use crate::key::find_key;
use crate::output::{Answer, Outcome};
use crate::pin::Access;
use crate::tokens::{Tokens, parse_name};
use crate::transfer::certificates;

/// Make a CA of a key
///
/// Makes the CA's books, with a certificate that the key signs for itself, or that another CA has signed, and
/// one profile, "device". Its file ca.toml is to be edited: more profiles, other lifetimes, policies of your
/// own.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  devkey key new --kind ec-p384 ca && devkey ca init --dir lab-ca --key ca --name 'Lab CA' \\
    --allow 'subject:CN=*' --allow 'dns:*.lab.example' --allow principal:anna
  devkey ca init --dir fleet --token hsm --key ca --name Fleet --level tpm --ek-root makers.pem
Patterns: KIND:PATTERN, KIND being subject, dns, ip, uri, email, hw or principal. * stands for what has
no separator in it (the dot of DNS, the comma of subjects), ** for anything; ip: takes ranges.
Next: give lab-ca/ca.pem to the devices, then `devkey ca challenge`.")]
pub(crate) struct Args {
    #[command(flatten)]
    books: Books,
    /// The token that has the key [default: the only one, or "default"]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    token: Option<String>,
    /// The key's label or its ID
    #[arg(long, value_name = "LABEL-or-ID")]
    key: String,
    /// What devices call the CA
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Subject of its certificate, as in RFC 4514 [default: CN=NAME]
    #[arg(long, value_name = "NAME")]
    subject: Option<Subject>,
    /// How long its certificate is valid
    #[arg(long, value_name = "YEARS", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=100))]
    years: u32,
    /// For a CA below another: the certificate that this one has signed (devkey request --format ca-csr), and
    /// those above it, the root included
    #[arg(long, value_name = "FILE", conflicts_with_all = ["subject", "years"])]
    certificate: Option<PathBuf>,
    /// How long the certificates that it issues are valid
    #[arg(long, value_name = "DAYS", default_value = "365")]
    days: u32,
    /// The level that a device has to show
    #[arg(long, default_value = "software", value_parser = levels())]
    level: Level,
    /// Names that devices may have; may be given several times
    #[arg(long, value_name = "KIND:PATTERN")]
    allow: Vec<Pattern>,
    /// Where devices' peers will find the revocation list
    #[arg(long, value_name = "URL")]
    crl_url: Option<String>,
    /// Seconds that a device has for its answer
    #[arg(long, value_name = "SECONDS", default_value = "3600")]
    answer_within: u64,
    /// Certificates of makers of TPMs who are believed; may be given several times
    #[arg(long, value_name = "FILE")]
    ek_root: Vec<PathBuf>,
    #[command(flatten)]
    access: Access,
}

pub(super) fn run(args: &Args) -> Outcome {
    let dir = args.books.path()?;
    if dir.symlink_metadata().is_ok() {
        let error = Error::Exists(dir.display().to_string());
        return Err(Failure::new(error, "name another directory with --dir"));
    }
    let tokens = Tokens::load()?;
    let (found, token) = tokens.find_open(args.token.as_deref())?;
    let listing = token.store().list()?;
    let key = find_key(&found, &listing, &args.key)?;
    let mut ek_roots = Vec::new();
    for path in &args.ek_root {
        ek_roots.extend(certificates(path)?);
    }
    let new = NewCa {
        config: Config {
            version: 1,
            name: args.name.clone(),
            token: found.name.clone(),
            key: fingerprint(&key.public),
            answer_within: args.answer_within,
            policies: BTreeMap::new(),
            profiles: BTreeMap::from([("device".to_owned(), profile(args))]),
        },
        own: own(args, now())?,
        ek_roots,
    };
    let note = args.access.log_in(&*token, &found.name)?;
    let ca = Ca::create(
        &dir,
        &TokenSigner {
            token: &*token,
            key: &key,
        },
        &new,
    )
    .map_err(|e| explained(e, args))?;
    let text = format!(
        "made the CA {:?} in {}\nfingerprint: {}",
        args.name,
        dir.display(),
        ca.fingerprint()
    );
    let answer = Answer::text(text).noted(note);
    let answer = match args.allow.is_empty() {
        true => answer.note("It allows no names yet: add patterns to names in its ca.toml."),
        false => answer,
    };
    let not: Vec<&str> = ca.unstatable()?.into_iter().map(Level::name).collect();
    let answer = match not.is_empty() {
        true => answer,
        false => answer.note(format!(
            "A certificate of its chain does not allow the policies of these levels, so that peers which \
             ask for one refuse its X.509 certificates: {}. certificatePolicies 2.5.29.32.0 would allow all.",
            not.join(", ")
        )),
    };
    Ok(answer.hint("next: give its ca.pem to the devices, for devkey request --ca"))
}

fn own(args: &Args, now: u64) -> Result<Own> {
    Ok(match &args.certificate {
        Some(path) => Own::Below {
            certificates: certificates(path)?,
            at: now,
        },
        None => Own::Root {
            subject: subject(args)?,
            not_before: now,
            not_after: now + u64::from(args.years) * 365 * 86400,
        },
    })
}

fn explained(error: Error, args: &Args) -> Failure {
    match (&error, &args.certificate) {
        (Error::BadInput(_) | Error::Unsupported(_), Some(path)) => Failure::new(
            format!("{}: {error}", path.display()),
            "give the chain as the CA above issued it, with its root; nothing was made",
        ),
        _ => error.into(),
    }
}

fn profile(args: &Args) -> Profile {
    Profile {
        days: args.days,
        level: args.level,
        x509: true,
        ssh: vec![SshKind::User, SshKind::Host],
        names: args.allow.clone(),
        extended_usage: vec![ExtendedUsage::CLIENT, ExtendedUsage::SERVER],
        crl_url: args.crl_url.clone(),
        ssh_extensions: vec!["permit-pty".to_owned()],
    }
}

fn subject(args: &Args) -> Result<Subject> {
    match &args.subject {
        Some(subject) => Ok(subject.clone()),
        None => format!("CN={}", args.name).parse().map_err(|_| {
            let what = format!(
                "the name {:?} cannot stand in a subject as it is",
                args.name
            );
            Failure::new(what, "give the subject: --subject CN=...")
        }),
    }
}

fn levels() -> impl TypedValueParser<Value = Level> {
    PossibleValuesParser::new(Level::ALL.map(Level::name)).try_map(|name| name.parse::<Level>())
}
