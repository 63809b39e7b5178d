//! Certificates as they were found: X.509 in the store, OpenSSH's in files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use devkey::Error;
use devkey::config::FoundToken;
use devkey::identity::ssh::certificate::Certificate as SshCertificate;
use devkey::identity::x509::{Description, describe};
use devkey::key::PublicKey;
use devkey::store::{Certificate, KeyRecord, Listing, ObjectId, SshFiles};
use devkey::token::Token;

use super::Which;
use crate::failure::{Failure, Result};

/// A certificate.
#[derive(Debug)]
pub(crate) struct Item {
    /// The token's name.
    pub(crate) token: String,
    /// The key that it is for.
    pub(crate) key: Option<Arc<KeyRecord>>,
    /// The file that it is in.
    pub(crate) file: PathBuf,
    pub(crate) body: Body,
}

/// What kind it is of.
#[derive(Debug)]
pub(crate) enum Body {
    X509(Arc<Certificate>, Description),
    Ssh(SshCertificate),
}

impl Item {
    /// What names it on its token.
    pub(crate) fn name(&self) -> String {
        match &self.body {
            Body::X509(certificate, _) => certificate.id.to_string(),
            Body::Ssh(_) => self.file_name(),
        }
    }

    /// The certificate (DER) where it is X.509, and what it says.
    pub(crate) fn x509(&self) -> Option<(&[u8], &Description)> {
        match &self.body {
            Body::X509(certificate, said) => Some((&certificate.der, said)),
            Body::Ssh(_) => None,
        }
    }

    /// Its id in the store, where it is X.509.
    pub(crate) fn object(&self) -> Option<ObjectId> {
        match &self.body {
            Body::X509(certificate, _) => Some(certificate.id.clone()),
            Body::Ssh(_) => None,
        }
    }

    /// The certificate where it is OpenSSH's.
    pub(crate) fn ssh(&self) -> Option<&SshCertificate> {
        match &self.body {
            Body::X509(..) => None,
            Body::Ssh(certificate) => Some(certificate),
        }
    }

    pub(crate) fn file_name(&self) -> String {
        let name = self.file.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The first second of its validity, since 1970.
    pub(crate) fn start(&self) -> u64 {
        match &self.body {
            Body::X509(_, said) => said.not_before,
            Body::Ssh(certificate) => certificate.contents().valid_after,
        }
    }

    /// The first second at which it is not valid any more; `None` where it never ends.
    pub(crate) fn end(&self) -> Option<u64> {
        match &self.body {
            Body::X509(_, said) => Some(said.not_after.saturating_add(1)),
            Body::Ssh(certificate) => match certificate.contents().valid_before {
                u64::MAX => None,
                end => Some(end),
            },
        }
    }
}

/// All certificates of a token, and why some cannot be read. Other people's in `ssh_dir` are not ours.
pub(crate) fn items(
    found: &FoundToken,
    token: &dyn Token,
    ssh_dir: Option<&Path>,
) -> Result<(Vec<Item>, Vec<Failure>)> {
    let listing = token.store().list()?;
    let mut problems = crate::token::broken(&listing);
    let mut items = Vec::new();
    for certificate in &listing.certificates {
        match x509(found, certificate, &listing) {
            Ok(item) => items.push(item),
            Err(e) => problems.push(e),
        }
    }
    items.extend(ssh(
        found,
        &token.store().ssh_files(),
        &listing,
        &mut problems,
    )?);
    if let Some(dir) = ssh_dir {
        let theirs = ssh(found, &SshFiles::at(dir), &listing, &mut Vec::new())?;
        items.extend(theirs.into_iter().filter(|item| item.key.is_some()));
    }
    Ok((items, problems))
}

/// The certificates that a command line names: those of a key, those in a file, or one of the latter.
pub(crate) fn named(found: &FoundToken, token: &dyn Token, which: &Which) -> Result<Vec<Item>> {
    let (all, _) = items(found, token, which.ssh_dir.as_deref())?;
    let wanted = which.name.as_str();
    if all.iter().any(|item| item.name() == wanted) {
        return Ok(all
            .into_iter()
            .filter(|item| item.name() == wanted)
            .collect());
    }
    let listing = token.store().list()?;
    let key = crate::key::find_key(found, &listing, wanted)?;
    let of_it = of_key(all, &key.public);
    match of_it.is_empty() {
        false => Ok(of_it),
        true => Err(Failure::new(
            Error::NotFound(format!("a certificate of key {:?}", key.label)),
            "devkey cert install FILE",
        )),
    }
}

/// The certificates of a key, each followed by those in the same file.
fn of_key(all: Vec<Item>, key: &PublicKey) -> Vec<Item> {
    let is_its = |item: &Item| item.key.as_ref().is_some_and(|k| k.public == *key);
    let files: Vec<PathBuf> = all
        .iter()
        .filter(|item| is_its(item))
        .map(|item| item.file.clone())
        .collect();
    let in_its = |item: &Item| files.contains(&item.file);
    all.into_iter()
        .filter(|item| is_its(item) || (item.key.is_none() && in_its(item)))
        .collect()
}

fn x509(found: &FoundToken, certificate: &Arc<Certificate>, all: &Listing) -> Result<Item> {
    let id = certificate.id.as_str();
    let file = id.split_once('#').map_or(id, |(file, _)| file);
    Ok(Item {
        token: found.name.clone(),
        key: all.key_of(certificate).cloned(),
        file: found.dir.join(file),
        body: Body::X509(certificate.clone(), describe(&certificate.der)?),
    })
}

fn ssh(
    found: &FoundToken,
    files: &SshFiles<'_>,
    all: &Listing,
    problems: &mut Vec<Failure>,
) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for (file, text) in files.list()? {
        let read = text.and_then(|text| SshCertificate::from_line(text.trim()));
        match read {
            Ok(certificate) => items.push(Item {
                token: found.name.clone(),
                key: key_of(all, &certificate.contents().key),
                file,
                body: Body::Ssh(certificate),
            }),
            Err(e) => problems.push(Failure::new(
                format!("{}: {e}", file.display()),
                "install it anew, or remove the file",
            )),
        }
    }
    Ok(items)
}

fn key_of(all: &Listing, public: &PublicKey) -> Option<Arc<KeyRecord>> {
    all.keys.iter().find(|key| key.public == *public).cloned()
}
