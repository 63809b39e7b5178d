//! `devkey cert install`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use devkey::Error;
use devkey::config::FoundToken;
use devkey::identity::install::{Chain, Conditions, chain};
use devkey::identity::ssh::certificate::{Certificate as SshCertificate, Expected, Kind};
use devkey::identity::x509::{describe, matches_key};
use devkey::store::{Certificate, KeyRecord, Listing, ObjectId, SSH_ENDING, SshFiles};
use devkey::token::Token;

use super::input::{Input, Roots};
use super::view::date;
use super::{PROGRAMS, now};
use crate::failure::{Failure, Result};
use crate::key::find_key;
use crate::output::{Answer, Outcome};
use crate::tokens::{Tokens, parse_name};

/// Install what a CA issued: a certificate with its chain, OpenSSH's certificates, or both
///
/// Takes what `devkey ca issue` wrote, PEM, DER and OpenSSH's lines. It replaces the key's certificate,
/// in one step, once it was checked: for which key it is, its times, its chain, and with --ca its root.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  devkey cert install laptop.pem
  devkey cert install --ca root.pem - < laptop.pem
  devkey cert install --ssh-dir ~/.ssh laptop-cert.pub
OpenSSH's certificates become LABEL-cert.pub, those of hosts LABEL-host-cert.pub, in the token's
directory beside the key.
Next: `devkey cert show LABEL`; then have the programs that use it read it anew.")]
pub(crate) struct Args {
    /// The token [default: the only one, or "default"]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    token: Option<String>,
    /// The key that it must be for, by label or ID [default: any of the token]
    #[arg(long, value_name = "LABEL-or-ID")]
    key: Option<String>,
    /// Roots in PEM, to one of which it must lead
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Public keys of the CAs, one of which must have signed OpenSSH's certificates
    #[arg(long, value_name = "FILE")]
    ssh_ca: Option<PathBuf>,
    /// Install also what has expired or is not valid yet
    #[arg(long)]
    any_time: bool,
    /// Keep the certificate that the key has, and add this one
    #[arg(long)]
    beside: bool,
    /// Where OpenSSH's certificates go [default: the token's directory]
    #[arg(long, value_name = "DIR")]
    ssh_dir: Option<PathBuf>,
    /// What the CA issued; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Which X.509 certificates go when a new one comes.
#[derive(Debug)]
pub(crate) enum Replaced {
    /// All of the same key.
    All,
    /// These.
    Only(Vec<ObjectId>),
}

/// How certificates are put in place.
#[derive(Debug)]
pub(crate) struct Put<'a> {
    pub(crate) found: &'a FoundToken,
    pub(crate) token: &'a dyn Token,
    /// The only key that will do.
    pub(crate) key: Option<&'a KeyRecord>,
    pub(crate) roots: &'a Roots,
    pub(crate) any_time: bool,
    pub(crate) replaced: Replaced,
    pub(crate) ssh_dir: Option<&'a Path>,
    /// Seconds since 1970 after which X.509 certificates, and OpenSSH's, must end.
    pub(crate) later_than: (u64, u64),
}

pub(super) fn run(tokens: &Tokens, args: &Args) -> Outcome {
    let (found, token) = tokens.find_open(args.token.as_deref())?;
    let input = Input::read(&args.file)?;
    let roots = Roots::read(args.ca.as_deref(), args.ssh_ca.as_deref())?;
    let listing = token.store().list()?;
    let key = match &args.key {
        Some(wanted) => Some(find_key(&found, &listing, wanted)?),
        None => None,
    };
    let done = install(
        &Put {
            found: &found,
            token: &*token,
            key: key.as_deref(),
            roots: &roots,
            any_time: args.any_time,
            replaced: match args.beside {
                true => Replaced::Only(Vec::new()),
                false => Replaced::All,
            },
            ssh_dir: args.ssh_dir.as_deref(),
            later_than: (0, 0),
        },
        &input,
    )?;
    Ok(Answer::text(done.join("\n")).note(PROGRAMS))
}

/// Checks all of an input and then puts it in place: what was there is touched only when everything
/// was found good. Says what was done.
pub(crate) fn install(put: &Put<'_>, input: &Input) -> Result<Vec<String>> {
    let listing = put.token.store().list()?;
    let x509 = match input.x509.is_empty() {
        true => None,
        false => Some(put.check_x509(&listing, &input.x509).map_err(unchanged)?),
    };
    let mut ssh = Vec::new();
    for certificate in &input.ssh {
        let key = put.check_ssh(&listing, certificate).map_err(unchanged)?;
        let name = file_name(&key, certificate.contents().kind);
        put.check_free(&name, certificate)?;
        ssh.push((name, key, certificate));
    }
    check_distinct(&ssh)?;
    let mut done = Vec::new();
    if let Some((key, chain)) = x509 {
        done.push(put.put_x509(&listing, &key, &chain)?);
    }
    for (name, key, certificate) in ssh {
        done.push(put.put_ssh(&name, &key, certificate)?);
    }
    Ok(done)
}

impl Put<'_> {
    fn check_x509(
        &self,
        listing: &Listing,
        all: &[Vec<u8>],
    ) -> devkey::Result<(Arc<KeyRecord>, Chain)> {
        // A CA's key may be on the same token: what it issues is for another one.
        let device = |der: &&Vec<u8>| describe(der).is_ok_and(|said| !said.ca);
        let devices: Vec<_> = all.iter().filter(device).collect();
        let leaves = match devices.is_empty() {
            true => all.iter().collect(),
            false => devices,
        };
        let is_for = |der: &&Vec<u8>, key: &KeyRecord| matches_key(der, &key.public);
        let key = self.key_for(listing, |key| {
            leaves.iter().any(|der| is_for(der, key).unwrap_or(false))
        })?;
        let conditions = Conditions {
            now: now(),
            any_time: self.any_time,
            roots: &self.roots.x509,
        };
        let chain = chain(all, &key.public, &conditions)?;
        for der in chain.certificates.iter().take(1) {
            if describe(der)?.not_after <= self.later_than.0 {
                return Err(older("certificate"));
            }
        }
        Ok((key, chain))
    }

    fn check_ssh(
        &self,
        listing: &Listing,
        certificate: &SshCertificate,
    ) -> devkey::Result<Arc<KeyRecord>> {
        let said = certificate.contents();
        let key = self.key_for(listing, |key| key.public == said.key)?;
        let own = std::slice::from_ref(certificate.authority());
        certificate.check(&Expected {
            kind: said.kind,
            authorities: self.roots.ssh.as_deref().unwrap_or(own),
            at: match self.any_time {
                true => said.valid_after,
                false => now(),
            },
        })?;
        match said.valid_before <= self.later_than.1 {
            true => Err(older("OpenSSH certificate")),
            false => Ok(key),
        }
    }

    /// The key of the token that fits, which must be the one that was named.
    fn key_for(
        &self,
        listing: &Listing,
        fits: impl Fn(&KeyRecord) -> bool,
    ) -> devkey::Result<Arc<KeyRecord>> {
        let name = &self.found.name;
        let fitting = listing.keys.iter().find(|key| fits(key));
        match (fitting, self.key) {
            (Some(key), None) => Ok(key.clone()),
            (Some(key), Some(wanted)) if key.id == wanted.id => Ok(key.clone()),
            (Some(other), Some(wanted)) => Err(Error::input(format!(
                "the certificate is for key {:?}, not for {:?}",
                other.label, wanted.label
            ))),
            (None, _) => Err(Error::input(format!(
                "the certificate is for no key of token {name}"
            ))),
        }
    }

    fn put_x509(&self, listing: &Listing, key: &KeyRecord, chain: &Chain) -> Result<String> {
        let all = listing.certificates.iter();
        let of_key = |c: &&Arc<Certificate>| c.public_key().as_ref() == Some(&key.public);
        let old: Vec<ObjectId> = match &self.replaced {
            Replaced::Only(old) => old.clone(),
            Replaced::All => all.filter(of_key).map(|c| c.id.clone()).collect(),
        };
        let stored = self.token.replace_certificates(&old, &chain.certificates)?;
        let leaf = chain.certificates.first().map(|der| describe(der));
        let missing = || Error::Internal("a chain without a certificate".to_owned());
        let leaf = leaf.ok_or_else(missing)??;
        let others = chain.certificates.len() - 1;
        let root = match chain.root {
            Some(_) => ", without its root",
            None => "",
        };
        let file = stored.map_or_else(String::new, |id| id.to_string());
        Ok(format!(
            "installed {file} for key {:?} on token {}: {}, valid until {}, with {others} above it{root}",
            key.label,
            self.found.name,
            leaf.subject,
            date(leaf.not_after),
        ))
    }

    /// Refuses to write over another key's certificate, or one of another kind.
    fn check_free(&self, name: &str, new: &SshCertificate) -> Result<()> {
        let files = self.ssh_files();
        let path = files.dir().join(name);
        let there = files.list()?.into_iter().find(|(file, _)| *file == path);
        let Some(Ok(old)) = there.map(|(_, text)| text) else {
            return Ok(());
        };
        let (old, new) = (SshCertificate::from_line(old.trim()), new.contents());
        match old.is_ok_and(|old| old.contents().key == new.key && old.contents().kind == new.kind)
        {
            true => Ok(()),
            false => Err(Failure::new(
                format!("{} is another certificate's", path.display()),
                "move it away, or name another directory with --ssh-dir",
            )),
        }
    }

    fn ssh_files(&self) -> SshFiles<'_> {
        match self.ssh_dir {
            Some(dir) => SshFiles::at(dir),
            None => self.token.store().ssh_files(),
        }
    }

    fn put_ssh(&self, name: &str, key: &KeyRecord, certificate: &SshCertificate) -> Result<String> {
        let line = certificate.line(&key.label) + "\n";
        let files = self.ssh_files();
        files.put(name, &line).map_err(|e| match e {
            Error::Refused { .. } => Failure::new(
                e,
                "name a directory of your own with --ssh-dir, e.g. ~/.ssh",
            ),
            other => other.into(),
        })?;
        let until = match certificate.contents().valid_before {
            u64::MAX => "for ever".to_owned(),
            end => format!("until {}", date(end.saturating_sub(1))),
        };
        let path = files.dir().join(name);
        Ok(format!(
            "installed {} for key {:?} on token {}: {}, valid {until}",
            path.display(),
            key.label,
            self.found.name,
            certificate.contents().key_id,
        ))
    }
}

/// The name of a certificate's file: by its key's label where that can be one. A key may have one of
/// each kind.
fn file_name(key: &KeyRecord, kind: Kind) -> String {
    let fits = |c: char| c.is_alphanumeric() || "-_.@+ ".contains(c);
    let label = &key.label;
    let stem = match label.len() <= 100 && !label.starts_with('.') && label.chars().all(fits) {
        true => label,
        false => key.id.as_str(),
    };
    match kind {
        Kind::User => format!("{stem}{SSH_ENDING}"),
        Kind::Host => format!("{stem}-host{SSH_ENDING}"),
    }
}

/// One file holds one certificate.
fn check_distinct(all: &[(String, Arc<KeyRecord>, &SshCertificate)]) -> Result<()> {
    let twice = |(name, ..): &(String, Arc<KeyRecord>, &SshCertificate)| {
        all.iter().filter(|(other, ..)| other == name).count() > 1
    };
    match all.iter().find(|one| twice(one)) {
        Some((name, ..)) => Err(Failure::new(
            format!("two OpenSSH certificates would both be {name}"),
            "give one for each key and kind",
        )),
        None => Ok(()),
    }
}

fn older(what: &str) -> Error {
    Error::input(format!(
        "the new {what} does not end later than the one that it is to replace"
    ))
}

fn unchanged(error: Error) -> Failure {
    Failure::new(
        error,
        "nothing was changed; have the CA look at the request",
    )
}
