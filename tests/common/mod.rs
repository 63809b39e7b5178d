//! What the tests with real clients share: a device with keys, programs under a deadline, servers
//! that end with their test.

#![allow(dead_code, unused_imports)] // Each test program uses its own part.

pub(crate) mod client;
pub(crate) mod device;
pub(crate) mod guide;
pub(crate) mod nginx;
pub(crate) mod run;
pub(crate) mod seed;
pub(crate) mod sshd;
pub(crate) mod system;
pub(crate) mod tls;

pub(crate) use device::{Backend, Device, Key, module};
pub(crate) use run::{Output, Run, Server, free_ports};
pub(crate) use system::System;

/// The kinds of key that every client of Debian 12 can use on every back end.
pub(crate) const KINDS: [&str; 2] = ["ec-p256", "rsa-2048"];

/// Makes of each named function of a [`Device`] three tests: on a file token, on a TPM token and on a
/// PUF token.
#[macro_export]
macro_rules! on_each_back_end {
    ($($name:ident),+ $(,)?) => {
        mod file {
            $(#[test]
            fn $name() {
                super::$name(&$crate::common::Device::new($crate::common::Backend::File));
            })+
        }
        mod tpm {
            $(#[test]
            fn $name() {
                super::$name(&$crate::common::Device::new($crate::common::Backend::Tpm));
            })+
        }
        #[cfg(feature = "simulate")]
        mod puf {
            $(#[test]
            fn $name() {
                super::$name(&$crate::common::Device::new($crate::common::Backend::Puf));
            })+
        }
    };
}

/// The same on tokens with PINs. Their keys' URIs hand the PIN over.
#[macro_export]
macro_rules! with_pins_on_each_back_end {
    ($($name:ident),+ $(,)?) => {
        mod file_with_pins {
            $(#[test]
            fn $name() {
                super::$name(&$crate::common::Device::with_pins($crate::common::Backend::File));
            })+
        }
        mod tpm_with_pins {
            $(#[test]
            fn $name() {
                super::$name(&$crate::common::Device::with_pins($crate::common::Backend::Tpm));
            })+
        }
        #[cfg(feature = "simulate")]
        mod puf_with_pins {
            $(#[test]
            fn $name() {
                super::$name(&$crate::common::Device::with_pins($crate::common::Backend::Puf));
            })+
        }
    };
}
