//! Sessions: what is secret crosses the bus encrypted, and every auth proves itself by an HMAC
//! (part 1 §19 and §21).

use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{KeyHandle, SessionHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::SymmetricDefinition;

use super::{HANDLE, Live, VALUE, forget};
use crate::backends::tpm::errors::Fault;
use crate::backends::tpm::link::Binding;

/// Which first parameter a session encrypts, by AES-128-CFB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Hides {
    /// None: there is no secret in it.
    Nothing,
    /// The command's.
    Question,
    /// The answer's.
    Answer,
}

impl Live {
    /// Does `work` with [`Live::session`] and ends that.
    pub(in super::super) fn secured<T>(
        &mut self,
        binding: &Binding,
        hides: Hides,
        work: impl FnOnce(&mut Live, AuthSession) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let session = self.session(binding, hides)?;
        let result = work(self, session);
        // The answer is good whether or not the session could be ended; `flush` tries again. Where
        // tss-esapi panics, the context's drop flushes it.
        if let Err(fault) = self.end_sessions() {
            log::debug!("a session stays for now: {fault:?}");
        }
        result
    }

    /// The HMAC session, started where there is none, under a salt that only the token's storage
    /// key can open: neither a low auth nor what is on the bus gives the session's key away.
    ///
    /// Ask for it before a key is loaded: the storage key may need a place of its own until then.
    pub(in super::super) fn session(
        &mut self,
        binding: &Binding,
        hides: Hides,
    ) -> Result<AuthSession, Fault> {
        let session = match &self.session {
            Some((session, salted)) if *salted == binding.name => *session,
            _ => {
                self.end_session()?;
                let salted = Some(self.salt_key(binding)?);
                let new = self.start(salted, SessionType::Hmac)?;
                self.session = Some((new, binding.name.clone()));
                new
            }
        };
        self.hide(session, hides)?;
        Ok(session)
    }

    /// A new policy session, salted as above or, for what neither is secret nor knows an auth, not.
    /// It ends with the others.
    pub(in super::super) fn policy(
        &mut self,
        salted: Option<&Binding>,
        hides: Hides,
    ) -> Result<(PolicySession, AuthSession), Fault> {
        let key = salted.map(|binding| self.salt_key(binding)).transpose()?;
        self.end_policy()?;
        let session = self.start(key, SessionType::Policy)?;
        self.policy = Some(session);
        self.hide(session, hides)?;
        Ok((session.try_into()?, session))
    }

    /// Changes what a session encrypts.
    pub(in super::super) fn hide(
        &mut self,
        session: AuthSession,
        hides: Hides,
    ) -> Result<(), Fault> {
        let (attributes, mask) = SessionAttributesBuilder::new()
            .with_continue_session(true)
            .with_decrypt(hides == Hides::Question)
            .with_encrypt(hides == Hides::Answer)
            .build();
        Ok(self
            .context
            .tr_sess_set_attributes(session, attributes, mask)?)
    }

    /// Flushes the sessions that there are.
    pub(in super::super) fn end_sessions(&mut self) -> Result<(), Fault> {
        self.end_policy()?;
        self.end_session()
    }

    /// Flushes the policy session, where there is one.
    pub(in super::super) fn end_policy(&mut self) -> Result<(), Fault> {
        if let Some(session) = self.policy {
            self.end(session)?;
            self.policy = None;
        }
        Ok(())
    }

    /// Makes ESYS forget the sessions without a command to the TPM; their handles.
    pub(super) fn forget_sessions(&mut self) -> Vec<u32> {
        let session = self.session.take().map(|(session, _)| session);
        let mut handles = Vec::new();
        for session in session.into_iter().chain(self.policy.take()) {
            let object = SessionHandle::from(session).into();
            // The Name of a session is its handle (part 1 §16).
            let name = self.context.tr_get_name(object);
            let number = name.ok().and_then(|name| name.value().try_into().ok());
            handles.extend(number.map(u32::from_be_bytes));
            forget(&mut self.context, object);
        }
        handles
    }

    fn end_session(&mut self) -> Result<(), Fault> {
        if let Some((session, _)) = &self.session {
            self.end(*session)?;
            self.session = None;
        }
        Ok(())
    }

    fn end(&mut self, session: AuthSession) -> Result<(), Fault> {
        let handle = SessionHandle::from(session).into();
        match self.context.flush_context(handle).map_err(Fault::from) {
            Err(fault) if fault.is(HANDLE) || fault.is(VALUE) => {
                forget(&mut self.context, handle);
                Ok(())
            }
            ended => ended,
        }
    }

    /// The token's storage key, also where it was made anew just now. ESYS has computed this Name
    /// from the public key that it encrypts to.
    fn salt_key(&mut self, binding: &Binding) -> Result<KeyHandle, Fault> {
        let parent = self.parent(binding.parent)?;
        match self.context.tr_get_name(parent.into())?.value() == binding.name {
            true => Ok(parent),
            false => Err(Fault::Wrong),
        }
    }

    fn start(&mut self, salt: Option<KeyHandle>, kind: SessionType) -> Result<AuthSession, Fault> {
        self.begins();
        self.starting = true;
        let started = self.context.start_auth_session(
            salt,
            None,
            None,
            kind,
            SymmetricDefinition::AES_128_CFB,
            HashingAlgorithm::Sha256,
        );
        let started = started.map_err(Fault::from);
        self.starting = started.as_ref().is_err_and(|fault| !fault.heard());
        started?.ok_or(Fault::Wrong)
    }
}
