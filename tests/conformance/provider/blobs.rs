//! Rules for blobs: what opens, and what must not.

use devkey::Error;
use devkey::provider::{Blob, KeyAuth, NewKey};
use devkey::secret::Secret;

use super::made::*;

/// Seen to fail with root alone in the place of root ‖ auth in material.rs. On a TPM, with no
/// auth given to the TPM in `Tpm::generate`.
pub(crate) fn auth_is_wanted(fresh: Fresh) {
    let made = Made::on(fresh());
    for capability in made.quick() {
        let usage = capability.usage;
        let Some(new) = made.guarded(&capability, &auth(1)) else {
            continue;
        };
        let scheme = capability.schemes[0];
        let input = input(capability.kind, scheme, b"hello");
        let signs = |auth| -> devkey::Result<Vec<u8>> {
            made.reopened()
                .open(&new.blob, &new.public, usage, &auth)?
                .sign(scheme, &input)
        };
        let signature = signs(auth(1)).unwrap();
        new.public.verify(scheme, &input, &signature).unwrap();
        assert!(signs(auth(2)).is_err(), "another auth is taken");
        assert!(signs(KeyAuth::None).is_err(), "no auth is taken");
        let free = made.key(capability.kind, usage);
        let opened = made
            .provider
            .open(&free.blob, &free.public, usage, &auth(1));
        let signed = opened.and_then(|key| key.sign(scheme, &input));
        assert!(signed.is_err(), "an auth is taken by a key without");
    }
}

/// Seen to fail with the secret appended to what `Material::wrap` gives. On a TPM, for the auth, with
/// `Pin::new(&Secret::new(vec![1; 32]))` in `Tpm::unseal`.
pub(crate) fn secrets_are_sealed(fresh: Fresh) {
    let made = Made::on(fresh());
    let secret = Secret::random(32).unwrap();
    for with in made.seals() {
        let sealed = made.sealed(&secret, &with);
        let shown = made.reopened().unseal(&sealed, &with).unwrap();
        assert_eq!(shown.expose(), secret.expose());
        assert!(
            !holds(&sealed.bytes, secret.expose()),
            "sealed in the clear"
        );
        let again = made.sealed(&secret, &with);
        assert_ne!(sealed.bytes, again.bytes);
        made.refuses_auth(&sealed, &auth(2), TRIES - 1);
        let other = match with {
            KeyAuth::None => auth(1),
            KeyAuth::Secret(_) => KeyAuth::None,
        };
        // One for none, or none for one: no try, also where a wrong one is.
        let refused = made.provider.unseal(&sealed, &other);
        assert!(matches!(refused, Err(Error::BadBlob)), "{refused:?}");
        made.provider.unseal(&sealed, &with).unwrap();
    }
}

/// Counted are wrong auths in a row, each once, by the device and not by who has it open. Seen to
/// fail, on a TPM, with `limit` + 1 in `Live::write_once`, and with `count` given back as 0 by
/// `Live::read`.
pub(crate) fn wrong_auths_are_counted(fresh: Fresh) {
    let made = Made::on(fresh());
    let secret = Secret::random(32).unwrap();
    for with in made.seals() {
        let sealed = made.sealed(&secret, &with);
        let tries = || made.reopened().tries(&sealed).unwrap();
        if !made.counts() {
            assert_eq!(tries(), None);
            continue;
        }
        let left = || tries().unwrap().left;
        assert_eq!(tries().unwrap().of, TRIES);
        for round in [TRIES - 1, TRIES] {
            assert_eq!(left(), TRIES);
            for wrong in 1..=round {
                made.refuses_auth(&sealed, &auth(2), TRIES - wrong);
                assert_eq!(left(), TRIES - wrong);
            }
            if round < TRIES {
                made.reopened().unseal(&sealed, &with).unwrap();
            }
        }
        for auth in [&with, &auth(2)] {
            let locked = made.reopened().unseal(&sealed, auth);
            assert!(matches!(locked, Err(Error::PinLocked)), "{locked:?}");
        }
        // Another seal of the same secret is another lock.
        let again = made.sealed(&secret, &with);
        made.provider.forget(&sealed).unwrap();
        let shown = made.provider.unseal(&again, &with).unwrap();
        assert_eq!(shown.expose(), secret.expose());
    }
}

/// Seen to fail with `unwrap` in material.rs passing the ciphertext where the tag is wrong. On a
/// TPM, for the try that it costs, with the object loaded after the counter was asked in `counted`.
pub(crate) fn a_changed_seal_is_refused(fresh: Fresh) {
    let made = Made::on(fresh());
    let secret = Secret::random(32).unwrap();
    for with in made.seals() {
        let sealed = made.sealed(&secret, &with);
        for changed in changes(&sealed) {
            assert!(made.provider.unseal(&changed, &with).is_err());
        }
        let mut last = sealed.clone();
        *last.bytes.last_mut().unwrap() ^= 1;
        for auth in [&with, &auth(2)] {
            let refused = made.provider.unseal(&last, auth);
            assert!(matches!(refused, Err(Error::BadBlob)), "{refused:?}");
        }
        let other = Made::on(fresh());
        refuses_blob(other.provider.unseal(&sealed, &with));
        let tries = made.provider.tries(&sealed).unwrap();
        assert!(tries.is_none_or(|tries| tries.left == TRIES));
        made.provider.unseal(&sealed, &with).unwrap();
    }
}

/// Label, type, derivation and AAD each suffice. Seen to fail with all of them gone: neither label
/// nor type compared in header.rs, and `unwrap` in material.rs passing what does not authenticate.
pub(crate) fn blobs_of_keys_and_of_secrets_are_not_mixed_up(fresh: Fresh) {
    let made = Made::on(fresh());
    for with in made.seals() {
        let sealed = made.sealed(&Secret::random(32).unwrap(), &with);
        for capability in made.quick() {
            let new = made.key(capability.kind, capability.usage);
            refuses_blob(made.provider.unseal(&new.blob, &with));
            let relabelled = Blob {
                label: sealed.label.clone(),
                ..new.blob.clone()
            };
            refuses_blob(made.provider.unseal(&relabelled, &with));
            for label in [&sealed.label, &new.blob.label] {
                let blob = Blob {
                    label: label.clone(),
                    bytes: sealed.bytes.clone(),
                };
                let taken = NewKey {
                    blob,
                    public: new.public.clone(),
                };
                refuses_blob(made.used(&taken, capability.usage));
            }
        }
    }
}

/// Seen to fail without `verify_tag` in soft.rs, with a tag compared but for its last byte, and
/// without the comparisons of label and type in `Header::read`.
pub(crate) fn a_changed_blob_is_refused(fresh: Fresh) {
    let made = Made::on(fresh());
    for capability in made.quick() {
        let new = made.key(capability.kind, capability.usage);
        for blob in changes(&new.blob) {
            let taken = NewKey {
                blob,
                public: new.public.clone(),
            };
            let used = made.used(&taken, capability.usage);
            assert!(used.is_err(), "{}: {:?}", capability.kind, taken.blob);
        }
        let mut last = new.blob.clone();
        *last.bytes.last_mut().unwrap() ^= 1;
        let taken = NewKey {
            blob: last,
            public: new.public,
        };
        refuses_blob(made.used(&taken, capability.usage));
    }
}

/// Seen to fail without the context in `Material::aad`. A curve's blob has two guards, of which each
/// suffices: the public key in the tag, and aws-lc comparing it with the derived one.
pub(crate) fn a_blob_is_of_its_public_key_alone(fresh: Fresh) {
    let made = Made::on(fresh());
    let keys: Vec<_> = made
        .quick()
        .map(|has| (has.usage, made.key(has.kind, has.usage)))
        .collect();
    for capability in made.quick() {
        let new = made.key(capability.kind, capability.usage);
        for (usage, other) in &keys {
            let public = other.public.clone();
            for usage in [capability.usage, *usage] {
                let taken = NewKey {
                    blob: new.blob.clone(),
                    public: public.clone(),
                };
                refuses_blob(made.open(&taken, usage));
            }
        }
    }
}

/// Seen to fail without the usage in `header::key`.
pub(crate) fn a_blob_is_of_its_usage_alone(fresh: Fresh) {
    let made = Made::on(fresh());
    for capability in made.quick() {
        for made_for in usages().filter(|usage| capability.usage.covers(*usage)) {
            let new = made.key(capability.kind, made_for);
            for claimed in usages().filter(|usage| !made_for.covers(*usage)) {
                let opened = made.open(&new, claimed);
                let refused = matches!(opened, Err(Error::BadBlob | Error::Unsupported(_)));
                assert!(refused, "{made_for:?} as {claimed:?}: {opened:?}");
            }
        }
    }
}

/// Seen to fail with a root of zeros for every device.
pub(crate) fn a_blob_is_of_its_device_alone(fresh: Fresh) {
    let [one, other] = [(); 2].map(|()| Made::on(fresh()));
    for capability in one.quick() {
        let new = one.key(capability.kind, capability.usage);
        refuses_blob(other.used(&new, capability.usage));
    }
}

/// Seen to fail without the comparison in `FileRoot::read`.
pub(crate) fn another_device_is_noticed(fresh: Fresh) {
    let [one, other] = [(); 2].map(|()| Made::on(fresh()));
    let [binding, strange] = [&one, &other].map(|made| made.provider.info().unwrap().binding);
    let Some(strange) = strange else {
        return;
    };
    assert_ne!(binding.as_ref(), Some(&strange));
    let capability = one.quick().next().unwrap();
    let new = one.key(capability.kind, capability.usage);
    let moved = one.device.open(Some(&strange));
    let found = |result: Option<Error>| matches!(result, Some(Error::OtherDevice { .. }));
    assert!(found(used(&*moved, &new, capability.usage).err()));
    assert!(found(
        moved
            .generate(capability.kind, capability.usage, &KeyAuth::None)
            .err()
    ));
}
