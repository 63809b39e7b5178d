//! Objects that killed processes left in a TPM without a resource manager.

use tss_esapi::constants::CapabilityType;
use tss_esapi::handles::{ObjectHandle, TpmHandle};
use tss_esapi::structures::{CapabilityData, Public};

use super::{Live, TRANSIENT_FIRST, forget};
use crate::backends::tpm::link::Binding;
use crate::backends::tpm::objects;
use crate::key::Usage;

/// A transient object of whomever.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Resident {
    handle: TpmHandle,
    name: Vec<u8>,
}

impl Live {
    /// The transient objects that devkey may have loaded for this token, here or in another
    /// process: the owner's storage primary, where the token's keys are its children, and
    /// children of the storage key that this back end could open ([`objects::is_key`]).
    ///
    /// Reads only transient objects: a persistent one wants room of its own.
    pub(in super::super) fn residents(&mut self, binding: &Binding) -> Vec<Resident> {
        let mut found = Vec::new();
        self.visit(|live, handle, object| {
            if let Some(name) = live.family_name(object, binding) {
                found.push(Resident { handle, name });
            }
            false
        });
        found
    }

    /// Flushes those that are still the same.
    pub(in super::super) fn evict(&mut self, binding: &Binding, abandoned: &[Resident]) {
        self.visit(|live, handle, object| {
            live.family_name(object, binding)
                .is_some_and(|name| abandoned.contains(&Resident { handle, name }))
        });
    }

    /// Flushes objects of these Names, left behind where a connection broke.
    pub(in super::super) fn sweep(&mut self, names: &[Vec<u8>]) {
        self.visit(|live, _, object| {
            let name = live.context.tr_get_name(object);
            name.is_ok_and(|name| names.iter().any(|one| one == name.value()))
        });
    }

    /// Shows every transient object to `goes`, and flushes it where that says so.
    fn visit(&mut self, mut goes: impl FnMut(&mut Live, TpmHandle, ObjectHandle) -> bool) {
        let list = CapabilityType::Handles;
        let Ok((CapabilityData::Handles(handles), _)) =
            self.context.get_capability(list, TRANSIENT_FIRST, 16)
        else {
            return;
        };
        for handle in handles.into_inner() {
            let Ok(object) = self.context.tr_from_tpm_public(handle) else {
                continue;
            };
            if !goes(self, handle, object) || self.context.flush_context(object).is_err() {
                forget(&mut self.context, object);
            }
        }
    }

    /// The Name of an object that may be one of this token's.
    fn family_name(&mut self, object: ObjectHandle, binding: &Binding) -> Option<Vec<u8>> {
        let (public, name, qualified) = self.context.read_public(object.into()).ok()?;
        let name = name.value().to_vec();
        let child = || objects::qualified_child(&binding.name, &public);
        let ours =
            name == binding.name || (could_be_opened(&public) && child()? == qualified.value());
        ours.then_some(name)
    }
}

/// Keys alone: to flush a sealed secret in the midst of another's login might cost him a try.
fn could_be_opened(public: &Public) -> bool {
    let key = objects::public_key(public);
    key.is_ok_and(|key| objects::is_key(public, &key, Usage::NOTHING))
}
