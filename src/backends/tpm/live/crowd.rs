//! Objects that killed processes left in a TPM without a resource manager.

use tss_esapi::constants::CapabilityType;
use tss_esapi::handles::{ObjectHandle, TpmHandle};
use tss_esapi::structures::{CapabilityData, Public};

use super::{Live, SESSION_FIRST, TRANSIENT_FIRST, forget};
use crate::backends::tpm::errors::Crowded;
use crate::backends::tpm::link::Binding;
use crate::backends::tpm::objects;
use crate::backends::tpm::policy::Policy;
use crate::key::Usage;

/// A transient object or session of whomever.
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
    /// Reads only transient objects: a persistent one wants room of its own. Where sessions are
    /// asked for, those that are loaded, whoever's they are.
    pub(in super::super) fn residents(
        &mut self,
        binding: &Binding,
        crowded: Crowded,
    ) -> Vec<Resident> {
        let mut found = Vec::new();
        if crowded == Crowded::Sessions {
            self.visit(SESSION_FIRST, |_, handle, _| {
                let name = Vec::new();
                found.push(Resident { handle, name });
                false
            });
            return found;
        }
        self.visit(TRANSIENT_FIRST, |live, handle, object| {
            if let Some(name) = live.family_name(object, binding) {
                found.push(Resident { handle, name });
            }
            false
        });
        found
    }

    /// Flushes those that are still the same.
    pub(in super::super) fn evict(&mut self, binding: &Binding, abandoned: &[Resident]) {
        self.visit(SESSION_FIRST, |_, handle, _| {
            let name = Vec::new();
            abandoned.contains(&Resident { handle, name })
        });
        self.visit(TRANSIENT_FIRST, |live, handle, object| {
            live.family_name(object, binding)
                .is_some_and(|name| abandoned.contains(&Resident { handle, name }))
        });
    }

    /// Flushes objects of these Names, left behind where a connection broke.
    pub(in super::super) fn sweep(&mut self, names: &[Vec<u8>]) {
        self.visit(TRANSIENT_FIRST, |live, _, object| {
            let name = live.context.tr_get_name(object);
            name.is_ok_and(|name| names.iter().any(|one| one == name.value()))
        });
    }

    /// Shows everything from `first` on to `goes`, and flushes it where that says so.
    fn visit(
        &mut self,
        first: u32,
        mut goes: impl FnMut(&mut Live, TpmHandle, ObjectHandle) -> bool,
    ) {
        let list = CapabilityType::Handles;
        let Ok((CapabilityData::Handles(handles), _)) =
            self.context.get_capability(list, first, 16)
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

/// Keys, and secrets that a login did not get to flush.
fn could_be_opened(public: &Public) -> bool {
    if let Public::KeyedHash { auth_policy, .. } = public {
        let policy = Policy(auth_policy.value().to_vec());
        return [None, Some(&policy)]
            .into_iter()
            .any(|policy| objects::is_sealed(public, policy));
    }
    let key = objects::public_key(public);
    key.is_ok_and(|key| objects::is_key(public, &key, Usage::NOTHING))
}
