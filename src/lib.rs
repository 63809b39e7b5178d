//! devkey: one private key per device that nobody can read, copy or move.
//!
//! The library knows keys and tokens, not PKCS#11. Its layers, each importing only lower ones, are
//! described in ARCHITECTURE.md and checked by a test.

#![forbid(unsafe_code)]

pub mod backends;
pub mod config;
pub mod error;
mod files;
pub mod fork;
pub mod fuzzy;
pub mod identity;
pub mod key;
pub mod provider;
pub mod secret;
pub mod service;
#[cfg(feature = "simulate")]
pub mod simulate;
pub mod store;
pub mod token;
#[doc(hidden)]
pub mod untrusted;

pub use error::{Error, Result};

/// `CK_TOKEN_INFO.manufacturerID` of every token, which PKCS#11 URIs name as well.
pub const MANUFACTURER: &str = "devkey";
