//! What several tables say of one directory.

use std::path::PathBuf;
use std::sync::Arc;

use super::file::{NamedToken, heed_settings};
use super::stores::check_store;
use super::{FoundToken, Links, Reach, Service};
use crate::error::{Error, Result};
use crate::provider::{BackEnd, Settings};
use crate::service::{NewToken, Rules, Wanted, create_local, create_remote, make_remote};
use crate::store::Store;
use crate::token::{Pin, Token};

/// The back end of a token that is offered, where the configuration says none.
const BACK_END: &str = "file";

/// A place where a client of the module may make a token (`C_InitToken`).
#[derive(Debug, Clone)]
pub struct Offer {
    /// Where it would be, and its settings.
    pub token: FoundToken,
    /// Its back end.
    pub back_end: String,
}

/// What is said of a directory.
pub(super) struct Merged {
    pub(super) token: FoundToken,
    pub(super) enabled: bool,
    initialise: bool,
    back_end: Option<String>,
}

impl Merged {
    /// A token that no table is about.
    pub(super) fn found(name: String, dir: PathBuf, own: bool) -> Self {
        Merged {
            token: FoundToken {
                name,
                dir,
                settings: Vec::new(),
                own,
                alone: false,
                service: Service::Auto,
                reach: Reach::default(),
                rules: Rules::default(),
            },
            enabled: true,
            initialise: false,
            back_end: None,
        }
    }

    /// Whether there is no token yet, and one may be made.
    pub(super) fn is_offer(&self) -> bool {
        self.initialise && !Store::exists(&self.token.dir)
    }

    /// What a table says goes before what was said until then.
    pub(super) fn heed(&mut self, own: bool, table: &NamedToken) {
        let token = &mut self.token;
        heed_settings(&mut token.settings, &table.settings);
        token.name.clone_from(&table.name);
        token.own |= own;
        token.alone = table.alone.unwrap_or(token.alone);
        token.service = table.service.unwrap_or(token.service);
        token.rules.heed(&table.rules);
        self.enabled = table.enabled.unwrap_or(self.enabled);
        self.initialise = table.initialise.unwrap_or(self.initialise);
        self.back_end = table.back_end.clone().or(self.back_end.take());
    }
}

/// Adds what a table says to what was said of the same directory before.
pub(super) fn join(all: &mut Vec<Merged>, dir: PathBuf, own: bool, table: &NamedToken) {
    let known = all.iter_mut().find(|known| known.token.dir == dir);
    if let Some(known) = known {
        return known.heed(own, table);
    }
    let mut first = Merged::found(table.name.clone(), dir, own);
    first.heed(own, table);
    all.push(first);
}

impl From<Merged> for Offer {
    fn from(merged: Merged) -> Self {
        Offer {
            token: merged.token,
            back_end: merged.back_end.unwrap_or_else(|| BACK_END.to_owned()),
        }
    }
}

impl Offer {
    /// Makes the token, with a PIN for the SO and none for the user: in this process where its back
    /// end is registered here, else through the key service.
    ///
    /// # Errors
    /// [`Error::Exists`] where another process was faster; [`Error::Refused`] for a place where
    /// others could put a token.
    pub fn create(
        &self,
        back_ends: &[BackEnd],
        links: &Links,
        label: &str,
        so: &Pin,
    ) -> Result<Arc<dyn Token>> {
        let new = NewToken {
            place: self.token.place(Settings::new()),
            back_end: self.back_end.clone(),
            label: label.to_owned(),
        };
        let here = back_ends.iter().any(|known| known.name == new.back_end);
        match links.to(&self.token, here) {
            Some((link, Some(name))) => {
                let wanted = Wanted::of_client(name, &self.back_end, label, &new.place.settings);
                make_remote(&link, &wanted, None, Some(so))?;
            }
            to => {
                self.check_place()?;
                match to {
                    None => create_local(back_ends, &new, so)?,
                    Some((link, _)) => create_remote(&link, &new, so)?,
                }
            }
        }
        self.token.open(back_ends, links)
    }

    fn check_place(&self) -> Result<()> {
        let nowhere = || Error::input(format!("{} cannot be a token", self.token.dir.display()));
        let store = self.token.dir.parent().ok_or_else(nowhere)?;
        check_store(store, self.token.reach.keeper)
    }
}
