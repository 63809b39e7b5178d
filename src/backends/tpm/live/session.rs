//! Answers that are secret: encrypted on their way out of the TPM (part 1 §19 and §21).

use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::SessionHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::SymmetricDefinition;

use super::{HANDLE, Live, VALUE, forget};
use crate::backends::tpm::errors::Fault;
use crate::backends::tpm::link::Binding;

impl Live {
    /// Does `work` with an HMAC session whose first answer parameter is encrypted by AES-128-CFB,
    /// under a salt that only the token's storage key can open. Neither the empty password nor
    /// what is on the bus gives the session's key away.
    ///
    /// Call it before the key is loaded: the storage key may need a place of its own until then.
    pub(in super::super) fn encrypted<T>(
        &mut self,
        binding: &Binding,
        work: impl FnOnce(&mut Live, AuthSession) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let session = self.start_session(binding)?;
        let result = work(self, session);
        // The answer is good whether or not the session could be ended; `flush` tries again. Where
        // tss-esapi panics, the context's drop flushes it.
        if let Err(fault) = self.end_session() {
            log::debug!("a session stays for now: {fault:?}");
        }
        result
    }

    /// Flushes the session, where there is one.
    pub(super) fn end_session(&mut self) -> Result<(), Fault> {
        let Some(session) = self.session else {
            return Ok(());
        };
        let handle = SessionHandle::from(session).into();
        if let Err(fault) = self.context.flush_context(handle).map_err(Fault::from) {
            if !(fault.is(HANDLE) || fault.is(VALUE)) {
                return Err(fault);
            }
            forget(&mut self.context, handle);
        }
        self.session = None;
        Ok(())
    }

    /// Makes ESYS forget the session without a command to the TPM.
    pub(super) fn forget_session(&mut self) {
        if let Some(session) = self.session.take() {
            forget(&mut self.context, SessionHandle::from(session).into());
        }
    }

    fn start_session(&mut self, binding: &Binding) -> Result<AuthSession, Fault> {
        self.end_session()?;
        let parent = self.parent(binding.parent)?;
        // The salt is for the token's storage key alone, also where it was made anew just now.
        // ESYS has computed this Name from the public key that it encrypts to.
        if self.context.tr_get_name(parent.into())?.value() != binding.name {
            return Err(Fault::Wrong);
        }
        let session = self
            .context
            .start_auth_session(
                Some(parent),
                None,
                None,
                SessionType::Hmac,
                SymmetricDefinition::AES_128_CFB,
                HashingAlgorithm::Sha256,
            )?
            .ok_or(Fault::Wrong)?;
        self.session = Some(session);
        let (attributes, mask) = SessionAttributesBuilder::new()
            .with_continue_session(true)
            .with_encrypt(true)
            .build();
        self.context
            .tr_sess_set_attributes(session, attributes, mask)?;
        Ok(session)
    }
}
