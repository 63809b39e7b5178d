//! Objects that killed processes left in a TPM without a resource manager.

use tss_esapi::constants::CapabilityType;
use tss_esapi::handles::{ObjectHandle, TpmHandle};
use tss_esapi::structures::{CapabilityData, Public};

use super::{Live, TRANSIENT_FIRST, UNKNOWN, forget};
use crate::backends::tpm::errors::Fault;
use crate::backends::tpm::health::Left;
use crate::backends::tpm::link::Binding;
use crate::backends::tpm::objects;
use crate::key::Usage;

/// First handle of loaded sessions (part 2 §7.4).
const SESSION_FIRST: u32 = 0x0200_0000;

/// What a broken connection left in a TPM without a resource manager.
#[derive(Debug, Default)]
pub(in super::super) struct Orphans {
    /// Names of objects, [`UNKNOWN`] among them.
    pub(super) names: Vec<Vec<u8>>,
    /// Handles of sessions.
    pub(super) sessions: Vec<u32>,
    /// How many sessions were begun whose handles were never heard.
    pub(super) lost_sessions: usize,
}

impl Orphans {
    /// Whether there is nothing that could be looked for.
    pub(in super::super) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.sessions.is_empty()
    }

    /// Adds what another connection left.
    pub(in super::super) fn extend(&mut self, more: Orphans) {
        self.names.extend(more.names);
        self.sessions.extend(more.sessions);
        self.lost_sessions += more.lost_sessions;
    }

    /// What was lost while it was made has since been made again, and has the same Name.
    pub(in super::super) fn recognise(&mut self, made: &[Vec<u8>]) {
        if self.names.contains(&UNKNOWN) {
            self.names.extend_from_slice(made);
        }
    }

    /// What could be looked for was.
    pub(in super::super) fn swept(&mut self) {
        self.names.retain(|name| *name == UNKNOWN);
        self.sessions.clear();
    }

    /// Nothing more is looked for.
    pub(in super::super) fn give_up(&mut self) {
        self.names.clear();
        self.sessions.clear();
    }

    /// How many sessions may be there of which nothing is known, for the last time.
    pub(in super::super) fn take_lost(&mut self) -> usize {
        std::mem::take(&mut self.lost_sessions)
    }

    /// Whether there are such sessions.
    pub(in super::super) fn has_lost(&self) -> bool {
        self.lost_sessions > 0
    }
}

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
        let _ = self.visit(|live, handle, object| {
            if let Some(name) = live.family_name(object, binding) {
                found.push(Resident { handle, name });
            }
            false
        });
        found
    }

    /// Flushes those that are still the same.
    pub(in super::super) fn evict(&mut self, binding: &Binding, abandoned: &[Resident]) {
        let _ = self.visit(|live, handle, object| {
            live.family_name(object, binding)
                .is_some_and(|name| abandoned.contains(&Resident { handle, name }))
        });
    }

    /// Flushes what a broken connection left behind.
    ///
    /// If the TPM was started anew since, a session of that handle may be another program's; that
    /// one finds it gone and begins anew, as after any restart.
    ///
    /// # Errors
    /// Where the TPM was not heard: there may still be something.
    pub(in super::super) fn sweep(&mut self, orphans: &Orphans) -> Result<(), Fault> {
        self.visit(|live, _, object| {
            let name = live.context.tr_get_name(object);
            name.is_ok_and(|name| orphans.names.iter().any(|one| one == name.value()))
        })?;
        if orphans.sessions.is_empty() {
            return Ok(());
        }
        let there = self.sessions()?;
        let mut left = orphans.sessions.iter().filter(|one| there.contains(one));
        left.try_for_each(|session| self.flush_session(*session))
    }

    /// How much is in the TPM's memory, whosever.
    pub(in super::super) fn left(&mut self) -> Result<Left, Fault> {
        Ok(Left {
            objects: self.handles_from(TRANSIENT_FIRST)?.len(),
            sessions: self.sessions()?.len(),
        })
    }

    /// Sessions in the TPM's memory, whosever.
    pub(in super::super) fn sessions(&mut self) -> Result<Vec<u32>, Fault> {
        let handles = self.handles_from(SESSION_FIRST)?;
        Ok(handles.into_iter().map(u32::from).collect())
    }

    /// Flushes a session, whosever.
    pub(in super::super) fn flush_session(&mut self, handle: u32) -> Result<(), Fault> {
        let handle = TpmHandle::try_from(handle)?;
        match self.context.tr_from_tpm_public(handle) {
            Ok(session) => self.flush_or_forget(session),
            Err(fault) => unless_heard(fault.into()),
        }
    }

    /// Shows every transient object to `goes`, and flushes it where that says so.
    fn visit(
        &mut self,
        mut goes: impl FnMut(&mut Live, TpmHandle, ObjectHandle) -> bool,
    ) -> Result<(), Fault> {
        for handle in self.handles_from(TRANSIENT_FIRST)? {
            match self.context.tr_from_tpm_public(handle) {
                Ok(object) if goes(self, handle, object) => self.flush_or_forget(object)?,
                Ok(object) => forget(&mut self.context, object),
                Err(fault) => unless_heard(fault.into())?,
            }
        }
        Ok(())
    }

    /// The handles in use, from this one on.
    fn handles_from(&mut self, first: u32) -> Result<Vec<TpmHandle>, Fault> {
        match self.plain(|context| context.get_capability(CapabilityType::Handles, first, 16))? {
            (CapabilityData::Handles(handles), _) => Ok(handles.into_inner()),
            _ => Ok(Vec::new()),
        }
    }

    fn flush_or_forget(&mut self, object: ObjectHandle) -> Result<(), Fault> {
        let Err(fault) = self.context.flush_context(object) else {
            return Ok(());
        };
        forget(&mut self.context, object);
        unless_heard(fault.into())
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

/// What the TPM says of a thing is that it is gone.
fn unless_heard(fault: Fault) -> Result<(), Fault> {
    match fault.heard() {
        true => Ok(()),
        false => Err(fault),
    }
}

/// Keys alone: to flush a sealed secret in the midst of another's login might cost him a try.
fn could_be_opened(public: &Public) -> bool {
    let key = objects::public_key(public);
    key.is_ok_and(|key| objects::is_key(public, &key, Usage::NOTHING))
}
