//! The token across a socket: private operations run in another process.
//!
//! The client never chooses a blob: it names a key of a token, and the service opens and checks
//! its own records.

mod client;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use client::{Launcher, Link, RemoteToken};

use crate::provider::Settings;

/// Where the token is that a private child is to open.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenPlace {
    /// The token's directory.
    pub dir: PathBuf,
    /// Settings for its back end.
    pub settings: Settings,
}
