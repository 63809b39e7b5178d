//! The conformance suite: what every back end must do, whatever its device.
//!
//! A back end joins by one line in `back_ends!`. Each rule is then a test of its own, named after
//! the back end and the rule, on fresh devices.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

mod device;
mod login;
mod peer;
mod provider;
mod token;

#[path = "../common/devkeyd.rs"]
mod devkeyd;
#[path = "../common/puf.rs"]
mod puf_simulator;
#[path = "../common/seed.rs"]
mod seed;
#[path = "../common/tpm.rs"]
mod tpm_simulator;

use device::Device;

/// One module of tests per back end; the closure makes a fresh device, another one at each call.
macro_rules! back_ends {
    ($($(#[$attribute:meta])* $name:ident: $device:expr),* $(,)?) => {
        $(
            $(#[$attribute])*
            mod $name {
                use super::*;

                rules! { $device;
                    info_is_well_formed_and_stable
                    capabilities_are_well_formed
                    keys_sign_and_signatures_verify
                    signatures_verify_by_a_peer
                    keys_differ
                    inputs_of_another_length_are_refused
                    other_schemes_are_refused
                    what_is_no_capability_is_unsupported
                    a_key_for_nothing_is_refused
                    a_key_is_used_for_its_uses_alone
                    two_keys_agree
                    openssl_agrees
                    only_points_of_the_own_curve_agree
                    what_openssl_encrypts_is_decrypted
                    what_is_no_ciphertext_is_refused
                    auth_is_wanted
                    secrets_are_sealed
                    wrong_auths_are_counted
                    a_changed_seal_is_refused
                    blobs_of_keys_and_of_secrets_are_not_mixed_up
                    a_changed_blob_is_refused
                    a_blob_is_of_its_public_key_alone
                    a_blob_is_of_its_usage_alone
                    a_blob_is_of_its_device_alone
                    another_device_is_noticed
                    a_key_signs_in_threads
                    keys_sign_in_threads
                    nothing_private_is_printed
                }

                mod local {
                    use super::*;
                    token_rules! { $device; token::local }
                }

                mod remote {
                    use super::*;
                    token_rules! { $device; token::remote }
                }

                mod listening {
                    use super::*;
                    token_rules! { $device; token::listening }
                }
            }
        )*
    };
}

/// The rules of tokens over a back end, in this process and across the socket of a real devkeyd: a
/// private child, and one that listens.
macro_rules! token_rules {
    ($rules:ident; $device:expr; $open:path; $($rule:ident)*) => {
        $(
            #[test]
            fn $rule() {
                let device: fn() -> Device = $device;
                $rules::$rule(device, $open);
            }
        )*
    };
    ($device:expr; $open:path) => {
        token_rules! { token; $device; $open;
            every_capability_works
            two_keys_agree
            what_openssl_encrypts_is_decrypted
            names_are_kept
            bad_names_are_refused
            certificates_are_kept
            chains_are_replaced
            what_is_deleted_is_gone
            a_key_is_used_for_its_uses_alone
            an_edited_record_is_refused
            a_token_is_not_without_its_secret
            a_record_of_another_token_is_refused
            what_is_not_there_is_not_found
            bad_input_is_refused
            keys_sign_in_threads
            changes_by_another_are_seen
            a_read_only_store_signs
        }
        token_rules! { login; $device; $open;
            login_is_wanted
            login_opens_and_logout_closes
            wrong_pins_are_counted
            a_locked_pin_is_unlocked_by_the_so
            a_changed_pin_opens_the_same_keys
            the_so_sets_the_first_pin
            a_reset_leaves_the_so_alone
            a_token_without_pins_has_no_login
        }
    };
}

macro_rules! rules {
    ($device:expr; $($rule:ident)*) => {
        $(
            #[test]
            fn $rule() {
                let device: fn() -> Device = $device;
                provider::$rule(device);
            }
        )*
    };
}

back_ends! {
    file: || Device::new(&devkey::backends::file::BACK_END, Default::default(), ()),
    puf: || {
        let chip = puf_simulator::Chip::new();
        Device::new(&devkey::backends::puf::BACK_END, chip.settings(), chip)
    },
    #[cfg(feature = "tpm")]
    tpm: || {
        let swtpm = tpm_simulator::Swtpm::start();
        let settings = [("tcti".to_owned(), swtpm.tcti())].into();
        Device::new(&devkey::backends::tpm::BACK_END, settings, swtpm)
    },
}
