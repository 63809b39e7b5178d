//! `devkey doctor`: each check where all is well and where it is not, on real devices and programs.
//!
//! Needs swtpm, tpm2-tools, openssl, OpenSSH, util-linux, faketime, p11-kit and libengine-pkcs11-openssl;
//! some tests need root, and the simulated chip `/dev/fuse`.

#![cfg(all(test, feature = "tpm"))]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/tpm.rs"]
mod tpm;

mod certificates;
mod checks;
mod chips;
mod machine;
mod module;
mod openssl;
mod report;
mod service;
mod tokens;
mod tpms;
