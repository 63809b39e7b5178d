//! Two devices authenticate each other, by TLS 1.3 and by SSH, with certificates of one `devkey ca`, on
//! every ordered pair of TPM, PUF and file; and whoever must be refused is, by the check that is named.
//!
//! Needs openssl with libp11's engine, nginx, curl, GnuTLS, OpenSSH, swtpm with swtpm-tools, faketime;
//! the PUF also `/dev/fuse` and root.

#![cfg(test)]
#![cfg(all(feature = "tpm", feature = "simulate"))]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/maker.rs"]
mod maker;
#[path = "../common/tpm.rs"]
mod tpm;

mod copied;
mod lab;
mod refused;
mod ssh;
mod tls;
