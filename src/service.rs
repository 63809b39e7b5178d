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
mod server;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use client::{RemoteToken, create_remote};
pub use link::{Launcher, Link};
pub use listener::Listener;
pub use server::{Creator, Opener, create_local, open_local, open_store, serve};

use crate::error::Error;
use crate::provider::{BadSetting, Origin, Settings};

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
