//! The token across a socket: private operations run in another process.
//!
//! The client never chooses a blob: it names a key of a token, and the service opens and checks
//! its own records. [`protocol`] says what is spoken.

mod channel;
mod client;
mod frame;
mod link;
mod listener;
mod meet;
mod program;
pub mod protocol;
mod rights;
mod server;
pub(crate) mod untrusted;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use client::{RemoteToken, create_remote, make_remote};
pub use link::{Launcher, Link};
pub use listener::{Audience, Listener};
pub use rights::{Accounts, Grants, Ids, NO_KEY, Right, Rules, Who};
pub use server::{
    AUDIT, Client, Granted, Private, Tokens, create_local, known, open_local, open_store,
    open_views, serve,
};

use crate::error::Error;
use crate::provider::{BadSetting, Origin, Settings};
use crate::token::DEFAULT_TRIES;

/// Where the token is that a private child is to open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenPlace {
    /// The token's directory.
    pub dir: PathBuf,
    /// Settings for its back end.
    pub settings: Settings,
    /// Where those of the settings stand that the configuration makes; the others are in the
    /// token's record.
    pub origins: BTreeMap<String, Origin>,
}

/// A token that is to be made, with a PIN for the SO alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewToken {
    /// Where, and the settings for its back end.
    pub place: TokenPlace,
    /// Its back end.
    pub back_end: String,
    /// Its label.
    pub label: String,
}

/// A token that a service which listens is to make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// What the service shall call it.
    pub name: String,
    /// Its back end.
    pub back_end: String,
    /// Its label.
    pub label: String,
    /// Settings for its back end.
    pub settings: Settings,
    /// Wrong PINs in a row that lock either of its PINs, where it has PINs.
    pub tries: u32,
}

impl Wanted {
    /// One that a program asks for, which leaves the number of tries to us.
    pub fn of_client(name: &str, back_end: &str, label: &str, settings: &Settings) -> Self {
        Wanted {
            name: name.to_owned(),
            back_end: back_end.to_owned(),
            label: label.to_owned(),
            settings: settings.clone(),
            tries: DEFAULT_TRIES,
        }
    }
}

impl TokenPlace {
    /// Blames a bad setting on the line or the file where it stands.
    fn blame(&self, bad: BadSetting) -> Error {
        let origin = bad.name.as_ref().map(|name| self.origins.get(name));
        let reason = bad.error.to_string();
        match origin {
            None => bad.error,
            Some(Some(origin)) => Error::BadConfig {
                path: origin.path.clone(),
                line: origin.line,
                reason,
            },
            Some(None) => Error::BadRecord {
                path: self.dir.join("token"),
                reason,
            },
        }
    }
}
