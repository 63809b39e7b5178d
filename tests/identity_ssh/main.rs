//! SSH certificates and KRLs of devkey, and OpenSSH's programs.

#![cfg(test)]

mod authority;
mod command;
#[path = "../common/mod.rs"]
mod common;
mod door;
mod formats;
mod hosts;
mod pairs;
mod users;
