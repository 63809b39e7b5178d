//! devkey: one private key per device that nobody can read, copy or move.
//!
//! The library knows keys and tokens, not PKCS#11. Its layers, each importing only lower ones, are
//! described in ARCHITECTURE.md and checked by a test.

#![forbid(unsafe_code)]

pub mod backends;
pub mod config;
pub mod error;
mod files;
pub mod key;
pub mod provider;
pub mod secret;
pub mod service;
pub mod store;
pub mod token;

pub use error::{Error, Result};
