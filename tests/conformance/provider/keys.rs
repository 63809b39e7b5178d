//! Rules for signing keys.

use std::thread;

use devkey::Error;
use devkey::key::{DecryptScheme, Hash, KeyKind, MAX_DIGEST, Scheme};
use devkey::provider::{Capability, KeyAuth};

use super::made::*;
use crate::peer;

/// Seen to fail with `ECDSA_P256_SHA256_ASN1_SIGNING` in ec.rs.
pub(crate) fn keys_sign_and_signatures_verify(fresh: Fresh) {
    let made = Made::on(fresh());
    for (capability, new) in made.all() {
        assert_eq!(new.public.kind(), capability.kind);
        // By a provider that did not make the key.
        let provider = made.reopened();
        let key = open(&*provider, &new, capability.usage).unwrap();
        for scheme in capability.schemes {
            let input = input(capability.kind, scheme, b"hello");
            let signature = key.sign(scheme, &input).unwrap();
            assert_eq!(signature.len(), capability.kind.signature_len());
            new.public.verify(scheme, &input, &signature).unwrap();
            let other = self::input(capability.kind, scheme, b"hullo");
            new.public.verify(scheme, &other, &signature).unwrap_err();
        }
    }
}

/// Seen to fail with `RSA_PKCS1_SHA256` in the place of `RSA_PSS_SHA256` in rsa.rs, and with the OIDs
/// of ML-DSA-44 and -65 exchanged in key/public.rs.
pub(crate) fn signatures_verify_by_a_peer(fresh: Fresh) {
    let made = Made::on(fresh());
    for (capability, new) in made.all() {
        let key = made.open(&new, capability.usage).unwrap();
        for scheme in capability.schemes {
            let input = input(capability.kind, scheme, b"hello");
            let mut signature = key.sign(scheme, &input).unwrap();
            assert!(peer::verifies(&new.public, scheme, &input, &signature));
            signature[20] ^= 1;
            assert!(!peer::verifies(&new.public, scheme, &input, &signature));
        }
    }
}

/// Seen to fail with a salt that was left at zero (`rand::fill` in header.rs).
pub(crate) fn keys_differ(fresh: Fresh) {
    let made = Made::on(fresh());
    for capability in made.capabilities() {
        let [one, other] = [(); 2].map(|()| made.key(capability.kind, capability.usage));
        assert_ne!(one.public, other.public, "{}", capability.kind);
        assert_ne!(one.blob, other.blob, "{}", capability.kind);
    }
}

/// Seen to fail with `ecdsa_input` in `EcKey::sign`, which would fit any length.
pub(crate) fn inputs_of_another_length_are_refused(fresh: Fresh) {
    let made = Made::on(fresh());
    for (capability, new) in made.all() {
        let key = made.open(&new, capability.usage).unwrap();
        let schemes = capability.schemes.into_iter();
        // These sign messages of any length.
        let whole = [Scheme::Ed25519, Scheme::MlDsa];
        for scheme in schemes.filter(|scheme| !whole.contains(scheme)) {
            let right = input(capability.kind, scheme, b"hello").len();
            for len in (0..=MAX_DIGEST + 1).filter(|len| *len != right) {
                let refused = key.sign(scheme, &vec![1; len]);
                let bad = matches!(refused, Err(Error::BadInput(_)));
                assert!(bad, "{scheme:?} over {len} bytes: {refused:?}");
            }
        }
    }
}

/// Seen to fail without the check of the scheme in `EcKey::sign`.
pub(crate) fn other_schemes_are_refused(fresh: Fresh) {
    let made = Made::on(fresh());
    for (capability, new) in made.all() {
        let key = made.open(&new, capability.usage).unwrap();
        let all = KeyKind::ALL.iter().flat_map(|kind| kind.schemes());
        for scheme in all.filter(|scheme| !capability.schemes.contains(scheme)) {
            for len in [32, 48, 64] {
                let refused = key.sign(*scheme, &vec![1; len]);
                assert!(
                    matches!(refused, Err(Error::BadInput(_) | Error::Unsupported(_))),
                    "{scheme:?} by {}: {refused:?}",
                    capability.kind
                );
            }
        }
    }
}

/// Seen to fail with `signer: Some(pair)` in ec.rs, and with each `usage.….then` in ec.rs and rsa.rs
/// made `true.then`.
pub(crate) fn a_key_is_used_for_its_uses_alone(fresh: Fresh) {
    let made = Made::on(fresh());
    for capability in made.capabilities() {
        for usage in usages().filter(|usage| capability.usage.covers(*usage)) {
            // The larger ones take long to make and run the same code.
            if matches!(capability.kind, KeyKind::Rsa3072 | KeyKind::Rsa4096) {
                continue;
            }
            let new = made.key(capability.kind, usage);
            let key = made.open(&new, usage).unwrap();
            for scheme in &capability.schemes {
                let input = input(capability.kind, *scheme, b"hello");
                only_if(usage.sign, key.sign(*scheme, &input));
            }
            if capability.usage.agree {
                only_if(usage.agree, key.agree(&new.public));
            }
            if capability.usage.decrypt {
                let ciphertext = peer::encrypt(&new.public, Hash::Sha256, b"hello");
                let scheme = DecryptScheme::RsaOaep(Hash::Sha256);
                only_if(usage.decrypt, key.decrypt(scheme, &ciphertext));
            }
            if !capability.usage.agree {
                refuses_ability(key.agree(&new.public));
            }
            if !capability.usage.decrypt {
                refuses_ability(key.decrypt(DecryptScheme::RsaOaep(Hash::Sha256), &[0; 256]));
            }
        }
    }
}

/// Seen to fail with a digest that goes through a static in `EcKey::sign`.
pub(crate) fn a_key_signs_in_threads(fresh: Fresh) {
    let made = Made::on(fresh());
    for capability in made.quick() {
        let new = made.key(capability.kind, capability.usage);
        let key = made.open(&new, capability.usage).unwrap();
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (key, public, scheme) = (&*key, &new.public, capability.schemes[0]);
                scope.spawn(move || signs(key, public, scheme, thread));
            }
        });
    }
}

/// Seen to fail with a digest that goes through a static in `EcKey::sign`.
pub(crate) fn keys_sign_in_threads(fresh: Fresh) {
    let made = Made::on(fresh());
    for capability in made.quick() {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (provider, capability) = (&*made.provider, capability.clone());
                scope.spawn(move || {
                    let Capability {
                        kind,
                        usage,
                        schemes,
                    } = capability;
                    let new = provider.generate(kind, usage, &KeyAuth::None).unwrap();
                    let key = open(provider, &new, usage).unwrap();
                    signs(&*key, &new.public, schemes[0], thread);
                });
            }
        });
    }
}
