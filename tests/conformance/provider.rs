//! The specification of [`Provider`] and [`Key`] in code.
//!
//! Each rule names the line of the soft back end (`src/backends/soft`) that was changed to see it
//! fail, unless it says otherwise.

mod blobs;
mod keys;
mod made;
mod secrets;

pub(crate) use blobs::*;
pub(crate) use keys::*;
pub(crate) use secrets::*;

use devkey::Error;
use devkey::key::KeyKind;
use devkey::provider::{Capability, KeyAuth};
use devkey::secret::Secret;

use made::*;

/// Seen to fail with a model of 24 letters and with a binding that is another at each call, in
/// file.rs.
pub(crate) fn info_is_well_formed_and_stable(fresh: Fresh) {
    let device = fresh();
    let info = device.create().info().unwrap();
    assert!(info.model.is_ascii() && (1..=16).contains(&info.model.len()));
    if let Some(serial) = &info.serial {
        assert!(serial.is_ascii() && serial.len() == 16);
    }
    let later = device.open(info.binding.as_deref()).info().unwrap();
    assert_eq!(info, later);
}

/// Seen to fail with `agree: true` in `uses`.
pub(crate) fn capabilities_are_well_formed(fresh: Fresh) {
    let device = fresh();
    let capabilities = device.create().capabilities().unwrap();
    assert!(!capabilities.is_empty());
    for capability in &capabilities {
        let kind = capability.kind;
        let same = capabilities.iter().filter(|other| other.kind == kind);
        assert_eq!(same.count(), 1, "{kind} is there twice");
        let known = |scheme| kind.schemes().contains(scheme);
        assert!(capability.schemes.iter().all(known), "{kind}");
        assert_eq!(
            capability.usage.sign,
            !capability.schemes.is_empty(),
            "{kind}"
        );
        assert!(!capability.usage.agree || kind.is_ec(), "{kind}");
        assert!(!capability.usage.decrypt || kind.is_rsa(), "{kind}");
    }
}

/// Seen to fail without `uses.covers(usage)` in `KeyKind::check_usage`.
pub(crate) fn what_is_no_capability_is_unsupported(fresh: Fresh) {
    let made = Made::on(fresh());
    let capabilities = made.capabilities();
    let has = |kind, usage| {
        let of_kind = |has: &&Capability| has.kind == kind;
        capabilities
            .iter()
            .find(of_kind)
            .is_some_and(|has| has.usage.covers(usage))
    };
    for kind in KeyKind::ALL {
        for usage in usages().filter(|usage| !has(kind, *usage)) {
            let result = made.try_key(kind, usage);
            let refused = matches!(result, Err(Error::Unsupported(_)));
            assert!(refused, "{kind} for {usage:?}: {result:?}");
        }
    }
}

/// Seen to fail without the first check in `check_usage` in soft.rs.
pub(crate) fn a_key_for_nothing_is_refused(fresh: Fresh) {
    let made = Made::on(fresh());
    for capability in made.capabilities() {
        let result = made.try_key(capability.kind, NOTHING);
        let refused = matches!(result, Err(Error::Unsupported(_) | Error::BadInput(_)));
        assert!(refused, "{}: {result:?}", capability.kind);
    }
}

/// Seen to fail with a field of the root in `FileRoot`. That an opened key does not show its own is a
/// test in src/backends/soft.rs, where the key can be known.
pub(crate) fn nothing_private_is_printed(fresh: Fresh) {
    let made = Made::on(fresh());
    let secret = Secret::random(32).unwrap();
    let auth = KeyAuth::Secret(Secret::new(secret.expose().to_vec()));
    let mut printed = format!("{:?} {auth:?} {secret:?}", made.provider);
    for with in made.seals() {
        let sealed = made.sealed(&secret, &with);
        printed += &format!("{sealed:?} {:?}", made.provider.unseal(&sealed, &with));
    }
    for capability in made.quick() {
        let new = made
            .guarded(&capability, &auth)
            .unwrap_or_else(|| made.key(capability.kind, capability.usage));
        let opened = made
            .provider
            .open(&new.blob, &new.public, capability.usage, &auth);
        printed += &format!("{new:?} {opened:?}");
        let refused = made.open(&new, capability.usage).err();
        printed += &format!("{refused:?}");
    }
    // Only short ones can be a secret in the clear; the others hold blobs, which are public.
    let files = made
        .device
        .files()
        .into_iter()
        .filter(|file| file.len() <= 64);
    for private in files.chain([secret.expose().to_vec()]) {
        for window in private.windows(6) {
            let hex: String = window.iter().map(|byte| format!("{byte:02x}")).collect();
            let list = format!("{window:?}");
            let list = list.trim_matches(['[', ']']);
            let shown = printed.contains(&hex) || printed.contains(list);
            assert!(!shown, "private bytes are printed");
        }
    }
}
