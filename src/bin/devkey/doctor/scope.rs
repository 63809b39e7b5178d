//! What is to be looked at.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use devkey::config::{FoundToken, Service};
use devkey::provider::Settings;
use devkey::store::Listing;
use devkey::token::Token;

use super::finding::{Area, Finding};
use crate::agent;
use crate::failure::{Failure, Result};
use crate::tokens::Tokens;

/// How long a device or a service may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What all areas share.
#[derive(Debug)]
pub(super) struct Scope {
    /// The configuration; why it cannot be read, where it cannot.
    pub(super) tokens: std::result::Result<Tokens, (String, Option<String>)>,
    /// The only token that is wanted.
    token: Option<String>,
    /// The PKCS#11 module.
    pub(super) module: PathBuf,
    /// How soon the end of a certificate is near.
    pub(super) expires_within: Duration,
}

/// A token that can be opened, and what is in it.
pub(super) struct Opened {
    pub(super) found: FoundToken,
    pub(super) token: Arc<dyn Token>,
    pub(super) listing: Arc<Listing>,
}

impl Scope {
    /// # Errors
    /// Where the token that is named is not there.
    pub(super) fn new(
        token: Option<String>,
        module: Option<PathBuf>,
        expires_within: Duration,
    ) -> Result<Self> {
        let tokens = Tokens::load();
        if let (Ok(tokens), Some(name)) = (&tokens, &token) {
            tokens.find(Some(name))?;
        }
        Ok(Scope {
            tokens: tokens.map_err(|Failure { what, remedy }| (what, remedy)),
            token,
            module: module.unwrap_or_else(agent::default_module),
            expires_within,
        })
    }

    /// The tokens that are wanted, also those that this user has no right to.
    pub(super) fn found(&self) -> Vec<FoundToken> {
        let mut all = match &self.tokens {
            Ok(tokens) => tokens.config.tokens(),
            Err(_) => Vec::new(),
        };
        let wanted = |name: &str| self.token.as_ref().is_none_or(|only| only == name);
        all.retain(|token| wanted(&token.name));
        all
    }

    /// Those of them that can be opened; why the others cannot is said among the tokens.
    pub(super) fn opened(&self) -> Vec<Opened> {
        let Ok(tokens) = &self.tokens else {
            return Vec::new();
        };
        let open = |found: FoundToken| {
            let token = tokens.open(&found).ok()?;
            let listing = token.store().list().ok()?;
            Some(Opened {
                found,
                token,
                listing,
            })
        };
        self.found().into_iter().filter_map(open).collect()
    }

    /// That an area cannot be looked at without a configuration.
    pub(super) fn no_config(&self, area: Area, id: &'static str) -> Option<Finding> {
        let unread = "not looked at: the configuration cannot be read";
        self.tokens
            .is_err()
            .then(|| Finding::none(area, id, unread))
    }
}

impl Opened {
    /// Its back end.
    pub(super) fn back_end(&self) -> &str {
        &self.token.store().token().back_end
    }

    /// The settings in force.
    pub(super) fn settings(&self) -> Settings {
        let recorded = self.token.store().token().settings.clone();
        self.found.place(recorded).settings
    }

    /// Whether the key service uses the device, and not this user's own processes.
    pub(super) fn is_served(&self) -> bool {
        let socket = self.found.reach.socket.as_ref();
        self.found.service != Service::Never && socket.is_some_and(|socket| socket.exists())
    }
}
