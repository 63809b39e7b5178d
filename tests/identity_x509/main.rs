//! X.509 against OpenSSL in both directions: what devkey makes is checked by `openssl`, what `openssl`
//! makes is checked by devkey.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

#[allow(dead_code, reason = "not every test needs all of it")]
#[path = "../common/run.rs"]
mod run;

mod foreign;
mod hostile;
mod lab;
mod made;
mod makers;
