//! Sealed secrets and the TPM-wide count of wrong auths.

use tss_esapi::constants::{CapabilityType, PropertyTag, StartupType};
use tss_esapi::handles::ObjectHandle;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{CapabilityData, SensitiveData};

use super::{Hides, Live, Loadable, What, auth};
use crate::backends::tpm::errors::Fault;
use crate::backends::tpm::link::Binding;
use crate::backends::tpm::objects::{self, ours};
use crate::backends::tpm::policy::Policy;
use crate::backends::tpm::tss2::Wrapped;
use crate::error::Result;
use crate::secret::Secret;

/// TPM2_PT_LOCKOUT_COUNTER, the first of the properties below.
const LOCKOUT: u32 = 0x20e;

/// What the TPM says of dictionary attacks (part 1 §19.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Lockout {
    /// Wrong auths that count now.
    pub(in super::super) failed: u32,
    /// How many of them lock it.
    pub(in super::super) limit: u32,
    /// Seconds after which one of them no longer counts; 0 where nothing is counted at all.
    pub(in super::super) interval: u32,
}

impl Live {
    /// TPM2_Create of a sealed secret: under `policy`, or under its auth alone.
    pub(in super::super) fn seal(
        &mut self,
        binding: &Binding,
        policy: Option<&Policy>,
        auth_value: &Secret,
        secret: &Secret,
    ) -> Result<Wrapped, Fault> {
        let session = self.session(binding, Hides::Question)?;
        let template = objects::sealed(policy)?;
        let data = ours(SensitiveData::try_from(secret.expose()))?;
        let value = auth(auth_value)?;
        self.create(binding.parent, session, template, value, Some(data))
    }

    /// Loads a sealed secret for one time; flush it with the rest of what is passing through.
    pub(in super::super) fn load_sealed(
        &mut self,
        sealed: &Loadable,
    ) -> Result<ObjectHandle, Fault> {
        let handle = self.load(What::Passing, sealed)?.into();
        if let Some(secret) = &sealed.auth {
            self.context.tr_set_auth(handle, auth(secret)?)?;
        }
        Ok(handle)
    }

    /// TPM2_Unseal, in a session that hides the answer.
    pub(in super::super) fn unseal(
        &mut self,
        sealed: ObjectHandle,
        session: AuthSession,
    ) -> Result<Secret, Fault> {
        let data = self.authorised_by(session, |context| context.unseal(sealed))?;
        Ok(Secret::new(data.value().to_vec()))
    }

    /// TPM2_PolicyAuthValue.
    pub(in super::super) fn policy_auth_value(
        &mut self,
        policy: PolicySession,
    ) -> Result<(), Fault> {
        self.plain(|context| context.policy_auth_value(policy))
    }

    /// The TPM-wide count of wrong auths.
    pub(in super::super) fn lockout(&mut self) -> Result<Lockout, Fault> {
        let (data, _) = self
            .plain(|context| context.get_capability(CapabilityType::TpmProperties, LOCKOUT, 3))?;
        let CapabilityData::TpmProperties(list) = data else {
            return Err(Fault::Wrong);
        };
        let value = |tag| list.find(tag).map(|one| one.value()).ok_or(Fault::Wrong);
        Ok(Lockout {
            failed: value(PropertyTag::LockoutCounter)?,
            limit: value(PropertyTag::MaxAuthFail)?,
            interval: value(PropertyTag::LockoutInterval)?,
        })
    }

    /// TPM2_Shutdown(CLEAR): so that a power cut from here on is an orderly one.
    ///
    /// A TPM takes a power cut after any use of an auth that it protects against guessing, right or
    /// wrong, for an attempt to make it forget a wrong one, and counts one (part 1 §19.8). That
    /// use is over here, and counted where it was wrong.
    pub(in super::super) fn orderly(&mut self) {
        if let Err(fault) = self.plain(|context| context.shutdown(StartupType::Clear)) {
            log::debug!("a power cut will cost a try: {fault:?}");
        }
    }
}
