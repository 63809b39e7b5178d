//! The endorsement hierarchy: its keys, what the maker left in NV memory, and attestation keys.

use tss_esapi::Context;
use tss_esapi::constants::CapabilityType;
use tss_esapi::constants::PropertyTag;
use tss_esapi::handles::{
    AuthHandle, KeyHandle, NvIndexHandle, NvIndexTpmHandle, ObjectHandle, TpmHandle,
};
use tss_esapi::interface_types::resource_handles::{Hierarchy, NvAuth};
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    Attest, Auth, CapabilityData, Data, Digest, EncryptedSecret, IdObject, Nonce, Public,
    Signature, SignatureScheme,
};

use super::{Live, UNKNOWN, What, auth, forget};
use crate::backends::tpm::errors::{Fault, HANDLE, Remedy};
use crate::backends::tpm::objects::{self, Parent};
use crate::error::{Error, Result};
use crate::secret::Secret;

/// Largest NV index that is read, in bytes: a certificate has up to 2 KiB.
const NV_MOST: u16 = 8 * 1024;
/// What every TPM gives of one in a command (PC Client Platform TPM Profile §3.6).
const NV_LEAST: u16 = 512;
/// TPM_RC_HIERARCHY: the hierarchy is switched off.
const HIERARCHY: u32 = 0x85;

impl Live {
    /// The handles of a kind that begin with `first`.
    pub(in super::super) fn handles(&mut self, first: u32, last: u32) -> Result<Vec<u32>, Fault> {
        let list = CapabilityType::Handles;
        let (data, _) = self.plain(|context| context.get_capability(list, first, 128))?;
        let CapabilityData::Handles(handles) = data else {
            return Err(Fault::Wrong);
        };
        let numbers = handles.into_inner().into_iter().map(u32::from);
        Ok(numbers
            .filter(|number| (first..=last).contains(number))
            .collect())
    }

    /// The contents of an NV index that the empty auth reads; `None` where it does not.
    pub(in super::super) fn nv_contents(&mut self, number: u32) -> Result<Option<Vec<u8>>, Fault> {
        let handle = TpmHandle::NvIndex(NvIndexTpmHandle::new(number)?);
        let index = match self.plain(|context| context.tr_from_tpm_public(handle)) {
            Ok(index) => index,
            Err(fault) if fault.is(HANDLE) => return Ok(None),
            Err(fault) => return Err(fault),
        };
        let read = self.nv_read(index.into());
        forget(&mut self.context, index);
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(fault) if fault.answered() || fault.remedy() == Remedy::Nothing => {
                log::info!("NV index {number:#010x} cannot be read: {fault:?}");
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }

    /// A persistent key and its public area.
    pub(in super::super) fn persistent_key(
        &mut self,
        number: u32,
    ) -> Result<(KeyHandle, Public), Fault> {
        let handle = self.parent(Parent::Persistent(number))?;
        let (public, ..) = self.plain(|context| context.read_public(handle))?;
        Ok((handle, public))
    }

    /// Makes a primary key of the endorsement hierarchy, to be flushed with the rest.
    pub(in super::super) fn endorsement_primary(
        &mut self,
        password: Option<&Secret>,
        session: AuthSession,
        template: Public,
    ) -> Result<(KeyHandle, Public), Fault> {
        self.loading = Some(UNKNOWN);
        let made = self.as_endorser(password, session, |context| {
            context.create_primary(Hierarchy::Endorsement, template, None, None, None, None)
        })?;
        let name = objects::name(&made.out_public).unwrap_or_default();
        if !self.made.contains(&name) {
            self.made.push(name.clone());
        }
        self.keep(What::Passing, name, made.key_handle);
        Ok((made.key_handle, made.out_public))
    }

    /// TPM2_PolicySecret of the endorsement hierarchy.
    pub(in super::super) fn policy_endorsement(
        &mut self,
        password: Option<&Secret>,
        session: AuthSession,
        policy: PolicySession,
    ) -> Result<(), Fault> {
        let none = Nonce::default;
        self.as_endorser(password, session, |context| {
            let (entity, reference) = (AuthHandle::Endorsement, none());
            context.policy_secret(policy, entity, none(), Digest::default(), reference, None)
        })
        .map(drop)
    }

    /// TPM2_ActivateCredential. Each key has its session; one of them hides the answer.
    pub(in super::super) fn activate(
        &mut self,
        [ak, ek]: [KeyHandle; 2],
        [ak_session, ek_session]: [AuthSession; 2],
        credential: (IdObject, EncryptedSecret),
    ) -> Result<Secret, Fault> {
        let (object, secret) = credential;
        let sessions = (Some(ak_session), Some(ek_session), None);
        let opened = self.context.execute_with_sessions(sessions, |context| {
            context.activate_credential(ak, ek, object, secret)
        });
        match opened.map_err(Fault::from) {
            Ok(digest) => Ok(Secret::new(digest.value().to_vec())),
            Err(fault) if self.blames_input(&fault, ak) => Err(Fault::Final(Error::input(
                "the challenge does not open in this TPM: it was made for another endorsement key \
                 or attestation key, or was changed on the way",
            ))),
            Err(fault) => Err(fault),
        }
    }

    /// TPM2_Certify. `session` authorises the key.
    pub(in super::super) fn certify(
        &mut self,
        [key, ak]: [KeyHandle; 2],
        session: AuthSession,
        data: Data,
    ) -> Result<(Attest, Signature), Fault> {
        let sessions = (Some(session), Some(AuthSession::Password), None);
        Ok(self.context.execute_with_sessions(sessions, |context| {
            context.certify(key.into(), ak, data, SignatureScheme::Null)
        })?)
    }

    /// Flushes all objects, and no session: what follows wants their room.
    pub(in super::super) fn clear(&mut self) -> Result<(), Fault> {
        self.flush_some(|_| true)
    }

    /// A command that the endorsement hierarchy authorises. Its password is known to ESYS for no
    /// longer than that.
    fn as_endorser<T>(
        &mut self,
        password: Option<&Secret>,
        session: AuthSession,
        command: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
    ) -> Result<T, Fault> {
        let value = password.map(auth).transpose()?.unwrap_or_default();
        // A password session never carries a password.
        let session = match password {
            Some(_) => session,
            None => AuthSession::Password,
        };
        let hierarchy = ObjectHandle::Endorsement;
        self.context.tr_set_auth(hierarchy, value)?;
        let done = self.authorised_by(session, command);
        self.context.tr_set_auth(hierarchy, Auth::default())?;
        done.map_err(|fault| closed(fault, password.is_some()))
    }

    fn nv_read(&mut self, index: NvIndexHandle) -> Result<Vec<u8>, Fault> {
        let (public, _) = self.plain(|context| context.nv_read_public(index))?;
        let size = u16::try_from(public.data_size()).unwrap_or(u16::MAX);
        if size > NV_MOST {
            return Err(Fault::Wrong);
        }
        let step = self.plain(|context| context.get_tpm_property(PropertyTag::NvBufferMax))?;
        let step = step.and_then(|most| u16::try_from(most).ok());
        let step = step.unwrap_or(NV_LEAST).clamp(NV_LEAST, 2 * NV_LEAST);
        let mut contents = Vec::new();
        for offset in (0..size).step_by(usize::from(step)) {
            let part = step.min(size - offset);
            let owner = NvAuth::NvIndex(index);
            let read = self.authorised(|context| context.nv_read(owner, index, part, offset))?;
            contents.extend_from_slice(read.value());
        }
        Ok(contents)
    }
}

/// Why the endorsement hierarchy does nothing, and what to do.
fn closed(fault: Fault, password_known: bool) -> Fault {
    let error = if fault.is(HIERARCHY) {
        Error::unsupported(
            "attestation by a TPM whose endorsement hierarchy is switched off; switch it on in the \
             firmware's setup",
        )
    } else if !fault.is_auth() {
        return fault;
    } else if password_known {
        Error::input(
            "endorsement_auth_file: the TPM's endorsement hierarchy has another password than is \
             in this file",
        )
    } else {
        Error::unsupported(
            "attestation by a TPM whose endorsement hierarchy has a password that is not given; \
             give it by --set endorsement_auth_file=FILE",
        )
    };
    Fault::Final(error)
}
