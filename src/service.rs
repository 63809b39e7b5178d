//! The token across a socket: private operations run in another process.
//!
//! The client never chooses a blob: it names a key of a token, and the service opens and checks
//! its own records. [`protocol`] says what is spoken.

mod channel;
mod client;
mod frame;
mod link;
mod program;
pub mod protocol;
mod server;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use client::RemoteToken;
pub use link::{Launcher, Link};
pub use server::{Opener, open_local, serve};

use crate::provider::Settings;

/// Where the token is that a private child is to open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenPlace {
    /// The token's directory.
    pub dir: PathBuf,
    /// Settings for its back end.
    pub settings: Settings,
}
