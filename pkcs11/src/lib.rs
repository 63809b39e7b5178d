//! devkey's PKCS#11 module: the Cryptoki interfaces 2.40, 3.0 and 3.2 over the library's tokens.
//!
//! It knows PKCS#11 and no device. Layers, each importing only lower ones:
//! `entry` → `login` → `module` → `slot`, `session` → `op` → `template`, `mech`, `object` → `attr`;
//! `raw` and `rv` are below all.

#![deny(unsafe_code)]

mod attr;
mod entry;
mod info;
mod logger;
mod login;
mod mech;
mod module;
mod object;
mod op;
#[allow(unsafe_code)]
mod raw;
mod rv;
mod session;
mod slot;
mod template;
