//! The counter of wrong PINs in the TPM's NV memory.

use tss_esapi::constants::CommandCode;
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, ObjectHandle};
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{Auth, Digest, DigestList, MaxNvBuffer, Nonce};

use super::{Hides, Live, Loadable, What, auth, forget};
use crate::backends::tpm::counter::{self, Counter};
use crate::backends::tpm::errors::{Fault, HANDLE, NV_DEFINED};
use crate::backends::tpm::link::Binding;
use crate::backends::tpm::objects::{self, ours};
use crate::backends::tpm::policy::Policy;
use crate::error::{Error, Result};
use crate::key::{KeyKind, Usage};
use crate::secret::Secret;

/// How often another handle is tried where one is taken.
const PLACES: usize = 8;

/// What a counter says (TPMS_NV_PIN_COUNTER_PARAMETERS).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct PinCount {
    /// Wrong auths since the last right one.
    pub(in super::super) count: u32,
    /// How many make it lock.
    pub(in super::super) limit: u32,
}

impl Live {
    /// Defines a counter with this auth, and sets it to 0 of `limit`.
    pub(in super::super) fn define(
        &mut self,
        binding: &Binding,
        owner: Option<&Secret>,
        auth_value: &Secret,
        limit: u32,
    ) -> Result<Counter, Fault> {
        let (writer, name) = self.throw_away(binding)?;
        let session = self.session(binding, Hides::Question)?;
        let policy = Policy::new().secret(&name);
        let (counter, index) = self.place(session, owner, auth_value, &policy)?;
        let written = self.write_once(binding, writer, &counter, index, limit);
        self.close(index);
        match written {
            Ok(()) => Ok(counter),
            Err(fault) => {
                self.undefine_quietly(binding, owner, &counter);
                Err(fault)
            }
        }
    }

    /// Takes a counter away; one that is gone, or another at its handle, is left alone.
    pub(in super::super) fn undefine(
        &mut self,
        binding: &Binding,
        owner: Option<&Secret>,
        counter: &Counter,
    ) -> Result<(), Fault> {
        let Some(index) = self.index(counter)? else {
            return Ok(());
        };
        let session = self.session(binding, Hides::Nothing)?;
        let gone = self.as_owner(owner, session, |context| {
            context.nv_undefine_space(Provision::Owner, index)
        });
        gone.map_err(|fault| {
            self.close(index);
            match fault.is_auth() {
                true => Error::unsupported(format!(
                    "deleting NV index {:#010x} in a TPM whose owner has a password that is not \
                     given, or is another one; give it by --set owner_auth_file=FILE",
                    counter.handle()
                ))
                .into(),
                false => fault,
            }
        })
    }

    /// The same, where something else has failed already.
    pub(in super::super) fn undefine_quietly(
        &mut self,
        binding: &Binding,
        owner: Option<&Secret>,
        counter: &Counter,
    ) {
        if let Err(fault) = self.undefine(binding, owner, counter) {
            let handle = counter.handle();
            log::warn!("NV index {handle:#x} stays in the TPM: {fault:?}");
        }
    }

    /// What the counter says; `None` where it is gone. No auth is asked for, so nothing can count.
    pub(in super::super) fn count(&mut self, counter: &Counter) -> Result<Option<PinCount>, Fault> {
        let Some(index) = self.index(counter)? else {
            return Ok(None);
        };
        let read = self.read(counter, index);
        self.close(index);
        read.map(Some)
    }

    /// TPM2_PolicySecret of the counter: here a wrong auth costs a try. `None` where it is gone.
    pub(in super::super) fn ask(
        &mut self,
        counter: &Counter,
        auth_value: &Secret,
        session: AuthSession,
        policy: PolicySession,
    ) -> Result<Option<()>, Fault> {
        let Some(index) = self.index(counter)? else {
            return Ok(None);
        };
        self.hide(session, Hides::Nothing)?;
        let asked = self.policy_secret(index.into(), auth_value, session, policy);
        self.close(index);
        asked.map(Some)
    }

    /// A key that is made only to be named in a policy, and forgotten with its random auth.
    fn throw_away(&mut self, binding: &Binding) -> Result<(Loadable, Vec<u8>), Fault> {
        let secret = Secret::random(32)?;
        let session = self.session(binding, Hides::Question)?;
        let template = objects::template(KeyKind::EcP256, Usage::SIGN)?;
        let wrapped = self.create(binding.parent, session, template, auth(&secret)?, None)?;
        let name = objects::name(&wrapped.public)?;
        let key = Loadable {
            name: name.clone(),
            wrapped,
            auth: Some(secret),
        };
        Ok((key, name))
    }

    /// TPM2_NV_DefineSpace at a free handle.
    fn place(
        &mut self,
        session: AuthSession,
        owner: Option<&Secret>,
        auth_value: &Secret,
        writer: &Policy,
    ) -> Result<(Counter, NvIndexHandle), Fault> {
        let mut tried = 0;
        loop {
            tried += 1;
            let counter = Counter::anywhere(writer.clone())?;
            let (public, value) = (counter.public()?, auth(auth_value)?);
            let defined = self.as_owner(owner, session, |context| {
                context.nv_define_space(Provision::Owner, Some(value), public)
            });
            match defined {
                Ok(index) => return Ok((counter, index)),
                Err(fault) if fault.code() == Some(NV_DEFINED) && tried < PLACES => {}
                Err(fault) => return Err(no_counter(fault, owner.is_some())),
            }
        }
    }

    /// Satisfies the writer's policy for this one time.
    fn write_once(
        &mut self,
        binding: &Binding,
        writer: Loadable,
        counter: &Counter,
        index: NvIndexHandle,
        limit: u32,
    ) -> Result<(), Fault> {
        // Salted, so that the HMAC of TPM2_NV_Write keeps the limit from being changed on the bus.
        let (policy, authorised) = self.policy(Some(binding), Hides::Nothing)?;
        let session = self.session(binding, Hides::Nothing)?;
        let key = self.load(What::Passing, &writer)?;
        if let Some(secret) = &writer.auth {
            self.policy_secret(key.into(), secret, session, policy)?;
        }
        self.policy_or(counter, policy)?;
        let zero_of = u64::from(limit).to_be_bytes();
        let data = ours(MaxNvBuffer::try_from(zero_of.as_slice()))?;
        self.authorised_by(authorised, |context| {
            context.nv_write(NvAuth::NvIndex(index), index, data, 0)
        })
    }

    fn read(&mut self, counter: &Counter, index: NvIndexHandle) -> Result<PinCount, Fault> {
        let (policy, authorised) = self.policy(None, Hides::Nothing)?;
        self.plain(|context| context.policy_command_code(policy, CommandCode::NvRead))?;
        self.policy_or(counter, policy)?;
        let data = self.authorised_by(authorised, |context| {
            context.nv_read(NvAuth::NvIndex(index), index, counter::SIZE, 0)
        });
        self.end_policy()?;
        let bytes = <[u8; 8]>::try_from(data?.value()).map_err(|_| Fault::Wrong)?;
        let both = u64::from_be_bytes(bytes);
        Ok(PinCount {
            count: (both >> 32) as u32,
            limit: both as u32,
        })
    }

    fn policy_or(&mut self, counter: &Counter, policy: PolicySession) -> Result<(), Fault> {
        let mut list = DigestList::new();
        for branch in counter.branches() {
            ours(list.add(ours(Digest::try_from(branch.0))?))?;
        }
        self.plain(|context| context.policy_or(policy, list))
    }

    fn policy_secret(
        &mut self,
        entity: ObjectHandle,
        secret: &Secret,
        session: AuthSession,
        policy: PolicySession,
    ) -> Result<(), Fault> {
        self.context.tr_set_auth(entity, auth(secret)?)?;
        self.authorised_by(session, |context| {
            let none = Nonce::default;
            context.policy_secret(
                policy,
                entity.into(),
                none(),
                Digest::default(),
                none(),
                None,
            )
        })
        .map(drop)
    }

    /// The index, by its Name: `None` where there is none, or not this one.
    fn index(&mut self, counter: &Counter) -> Result<Option<NvIndexHandle>, Fault> {
        let handle = NvIndexTpmHandle::new(counter.handle())?;
        let object = match self.context.tr_from_tpm_public(handle.into()) {
            Ok(object) => object,
            Err(error) => {
                let fault = Fault::from(error);
                return match fault.is(HANDLE) {
                    true => Ok(None),
                    false => Err(fault),
                };
            }
        };
        // ESYS has computed this Name from what TPM2_NV_ReadPublic answered.
        let name = self.context.tr_get_name(object);
        if name.is_ok_and(|name| name.value() == counter.name()) {
            return Ok(Some(object.into()));
        }
        forget(&mut self.context, object);
        Ok(None)
    }

    fn close(&mut self, index: NvIndexHandle) {
        forget(&mut self.context, index.into());
    }

    /// A command that the owner authorises. His password is known to ESYS for no longer than that:
    /// other commands of his go by the empty one.
    fn as_owner<T>(
        &mut self,
        owner: Option<&Secret>,
        session: AuthSession,
        command: impl FnOnce(&mut tss_esapi::Context) -> tss_esapi::Result<T>,
    ) -> Result<T, Fault> {
        let password = owner.map(auth).transpose()?.unwrap_or_default();
        self.context.tr_set_auth(ObjectHandle::Owner, password)?;
        let done = self.authorised_by(session, command);
        self.context
            .tr_set_auth(ObjectHandle::Owner, Auth::default())?;
        done
    }
}

/// Why there is no counter in this TPM, and what to do instead.
fn no_counter(fault: Fault, owner_known: bool) -> Fault {
    const INSTEAD: &str =
        "--set pin_guard=da goes without, but then wrong PINs count for the whole TPM";
    let code = fault.code();
    let error = if fault.is_auth() {
        match owner_known {
            true => Error::input(
                "owner_auth_file: the TPM's owner has another password than is in this file",
            ),
            false => Error::unsupported(format!(
                "a counter of wrong PINs in a TPM whose owner has a password that is not given; \
                 give it by --set owner_auth_file=FILE, or {INSTEAD}"
            )),
        }
    } else if code == Some(NV_SPACE) {
        Error::Full(format!(
            "the TPM's NV memory has no place for a counter of wrong PINs; tpm2_nvundefine frees \
             one that nobody needs (tpm2_getcap handles-nv-index lists them), or {INSTEAD}"
        ))
    } else if code == Some(NO_COMMAND) || (fault.blames_input()) {
        Error::unsupported(format!("a counter of wrong PINs in this TPM; {INSTEAD}"))
    } else {
        return fault;
    };
    Fault::Final(error)
}

/// TPM_RC_NV_SPACE: no room.
const NV_SPACE: u32 = 0x14b;
/// TPM_RC_COMMAND_CODE: the TPM has no such command.
const NO_COMMAND: u32 = 0x143;
