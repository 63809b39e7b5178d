//! Which key of the token is sshd's.

use std::path::PathBuf;
use std::sync::Arc;

use devkey::Error;
use devkey::config::FoundToken;
use devkey::identity::ssh::key as ssh;
use devkey::key::{Hash, KeyKind, Scheme, Usage};
use devkey::store::KeyRecord;
use devkey::token::{KeyRequest, Names, Token};

use super::daemon::public_of;
use super::undo::Undo;
use crate::failure::{Failure, Result};
use crate::pin::Access;

/// What it is called, unless it is named.
pub(super) const LABEL: &str = "ssh-host";

/// What is made, the first that sshd has no key of yet. ECDSA is what every TPM and every OpenSSH has.
const KINDS: [KeyKind; 2] = [KeyKind::EcP256, KeyKind::EcP384];

/// The key as it is asked for.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) label: &'a str,
    pub(super) kind: Option<KeyKind>,
    /// The host keys that sshd has already.
    pub(super) old: &'a [PathBuf],
    /// Whether one of the same type goes.
    pub(super) replace: bool,
}

/// The key as it is to be: one that is there, or one to be made.
#[derive(Debug)]
pub(super) enum Choice {
    There(Arc<KeyRecord>),
    New(KeyKind),
}

impl Wanted<'_> {
    pub(super) fn choose(&self, found: &FoundToken, token: &dyn Token) -> Result<Choice> {
        let listing = token.store().list()?;
        let there = listing.keys.iter().find(|key| key.label == self.label);
        let choice = match there {
            Some(key) => Choice::There(key.clone()),
            None => Choice::New(self.kind_of_new(found, token)?),
        };
        let kind = choice.kind();
        if ssh::algorithm(kind).is_none() {
            return Err(Failure::new(
                Error::unsupported(format!("{kind} keys in SSH")),
                "take another kind: --kind ec-p256",
            ));
        }
        self.check_there(&choice)?;
        signs(found, token, kind)?;
        self.check_type(kind)?;
        Ok(choice)
    }

    fn check_there(&self, choice: &Choice) -> Result<()> {
        let Choice::There(key) = choice else {
            return Ok(());
        };
        if !key.usage.sign {
            return Err(Failure::new(
                Error::NotPermitted("sign".into()),
                "name another with --key; one that is not there is made",
            ));
        }
        match self.kind {
            Some(kind) if kind != key.public.kind() => Err(Failure::new(
                Error::Exists(format!(
                    "key {:?}, of kind {},",
                    self.label,
                    key.public.kind()
                )),
                "leave --kind out, or name another key with --key",
            )),
            _ => Ok(()),
        }
    }

    fn kind_of_new(&self, found: &FoundToken, token: &dyn Token) -> Result<KeyKind> {
        if let Some(kind) = self.kind {
            return Ok(kind);
        }
        let fits =
            |kind: &KeyKind| signs(found, token, *kind).is_ok() && self.twin(*kind).is_none();
        let fitting = KINDS.into_iter().find(fits);
        Ok(fitting.unwrap_or(KeyKind::EcP256))
    }

    /// sshd shows a client the first key of a type: with two of one type, those who know the other would be
    /// warned of a changed host key.
    fn check_type(&self, kind: KeyKind) -> Result<()> {
        let Some(twin) = self.twin(kind).filter(|_| !self.replace) else {
            return Ok(());
        };
        let name = ssh::algorithm(kind).unwrap_or_default();
        Err(Failure::new(
            format!(
                "sshd has a key of type {name} already, and shows but one: {}",
                twin.display()
            ),
            "take another kind (--kind ec-p384), or --replace, which leaves the old one of that type out: \
             then who knows that one alone is warned of a changed host key",
        ))
    }

    /// The old key of the same type.
    fn twin(&self, kind: KeyKind) -> Option<&PathBuf> {
        let mut old = self.old.iter();
        old.find(|file| is_of(file, kind))
    }

    /// The old keys that stay.
    pub(super) fn stay(&self, kind: KeyKind) -> Vec<PathBuf> {
        let old = self.old.iter().filter(|file| !is_of(file, kind));
        old.cloned().collect()
    }
}

impl Choice {
    pub(super) fn kind(&self) -> KeyKind {
        match self {
            Choice::There(key) => key.public.kind(),
            Choice::New(kind) => *kind,
        }
    }

    pub(super) fn id(&self) -> Option<&str> {
        match self {
            Choice::There(key) => Some(key.id.as_str()),
            Choice::New(_) => None,
        }
    }

    /// The key, made where it is to be.
    pub(super) fn make<'u>(
        self,
        label: &str,
        token: &'u dyn Token,
        undo: &mut Undo<'u>,
    ) -> Result<Arc<KeyRecord>> {
        let kind = match self {
            Choice::There(key) => return Ok(key),
            Choice::New(kind) => kind,
        };
        let key = Arc::new(token.generate(&KeyRequest {
            kind,
            usage: Usage {
                sign: true,
                ..Usage::default()
            },
            names: Names {
                label: Some(label.to_owned()),
                cka_id: None,
            },
        })?);
        let id = key.id.clone();
        undo.by(move || Ok(token.delete(&id)?));
        Ok(key)
    }

    /// Logs in where a key is to be made.
    pub(super) fn log_in(
        &self,
        access: &Access,
        token: &dyn Token,
        name: &str,
    ) -> Result<Option<String>> {
        match self {
            Choice::New(_) => access.log_in(token, name),
            Choice::There(_) => Ok(None),
        }
    }
}

fn is_of(file: &std::path::Path, kind: KeyKind) -> bool {
    public_of(file).is_some_and(|(name, _)| Some(name.as_str()) == ssh::algorithm(kind))
}

/// Whether the token signs all that sshd would have it sign.
fn signs(found: &FoundToken, token: &dyn Token, kind: KeyKind) -> Result<()> {
    let record = token.store().token();
    let known = record.capabilities.iter().find(|can| can.kind == kind);
    let wanted: &[Scheme] = match kind.is_rsa() {
        true => &[
            Scheme::RsaPkcs1(Hash::Sha256),
            Scheme::RsaPkcs1(Hash::Sha512),
        ],
        false => &[],
    };
    let can = known.is_some_and(|can| {
        can.usage.sign && wanted.iter().all(|scheme| can.schemes.contains(scheme))
    });
    match can {
        true => Ok(()),
        false => Err(Failure::new(
            Error::unsupported(format!("{kind} keys for sshd on token {}", found.name)),
            "`devkey token show` lists what the token can do",
        )),
    }
}
