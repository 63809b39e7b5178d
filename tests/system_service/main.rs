//! devkeyd as the system's key service, with the system's own places: on a machine of its own,
//! which is a mount namespace with another /etc, /run and /var/lib. Run as root.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "what cannot go on has failed"
)]

#[path = "../common/mod.rs"]
mod common;
mod hostile;
mod load;
mod machine;
mod restart;
mod rights;
mod secrets;
mod wire;
