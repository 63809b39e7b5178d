//! `devkey cert` and `devkey renew`, with openssl and ssh-keygen as the CAs and real programs as readers.
//!
//! Needs openssl, OpenSSH, GnuTLS's p11tool, opensc, nginx, curl, strace, util-linux and systemd.

#![cfg(test)]

#[path = "../common/mod.rs"]
mod common;

mod authority;
mod faults;
mod guide;
mod install;
mod refuse;
mod renew;
mod serve;
mod transcript;
mod units;
