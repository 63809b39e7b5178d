//! What is asked and permitted, done.

use std::sync::Arc;

use super::super::protocol::{PinRef, Reply, Request, Response};
use super::Session;
use crate::error::{Error, Result};
use crate::store::{KeyRecord, ObjectId};
use crate::token::Token;

impl Session<'_> {
    /// Does what is permitted. `key` is the one that it is about, where that was looked up.
    pub(super) fn execute(&self, request: &Request<'_>, key: Option<&Arc<KeyRecord>>) -> Response {
        match request {
            Request::Sign {
                token,
                key: id,
                scheme,
                input,
            } => {
                let (token, key) = self.key(*token, id, key)?;
                token.sign(&key, *scheme, input).map(Reply::Signature)
            }
            Request::Agree {
                token,
                key: id,
                peer,
            } => {
                let (token, key) = self.key(*token, id, key)?;
                token.agree(&key, peer).map(Reply::Secret)
            }
            Request::Decrypt {
                token,
                key: id,
                scheme,
                ciphertext,
            } => {
                let (token, key) = self.key(*token, id, key)?;
                token.decrypt(&key, *scheme, ciphertext).map(Reply::Secret)
            }
            Request::Generate { token, request } => {
                Ok(Reply::Stored(self.token(*token)?.generate(request)?.id))
            }
            Request::AddCertificate { token, request } => Ok(Reply::Stored(
                self.token(*token)?.add_certificate(request)?.id,
            )),
            Request::ReplaceCertificates { token, old, chain } => {
                let stored = self.token(*token)?.replace_certificates(old, chain)?;
                Ok(stored.map_or(Reply::Done, Reply::Stored))
            }
            Request::Rename {
                token,
                object,
                names,
            } => {
                self.token(*token)?.rename(object, names)?;
                Ok(Reply::Done)
            }
            Request::Delete { token, object } => {
                self.token(*token)?.delete(object)?;
                Ok(Reply::Done)
            }
            Request::Certify {
                token,
                key: id,
                qualifying_data,
            } => {
                let (token, key) = self.key(*token, id, key)?;
                let certified = token.certify(&key, qualifying_data);
                certified.map(Reply::Certified)
            }
            request => self.execute_with_pin(request),
        }
    }

    fn execute_with_pin(&self, request: &Request<'_>) -> Response {
        match request {
            Request::Login {
                token,
                role,
                pin,
                last_try,
            } => self.token(*token)?.login(*role, pin.get(), *last_try)?,
            Request::Logout { token } => self.token(*token)?.logout()?,
            Request::SetPin {
                token,
                role,
                old,
                new,
            } => self.token(*token)?.set_pin(*role, old.get(), new.get())?,
            Request::InitPin {
                token,
                new,
                to_be_changed,
            } => self.token(*token)?.init_pin(new.get(), *to_be_changed)?,
            Request::Reset { token, so, label } => self.token(*token)?.reset(so.get(), label)?,
            Request::Tries { token, role } => {
                return self.token(*token)?.tries(*role).map(Reply::Tries);
            }
            Request::Create { new, so } => self.tokens.create(new, so.get())?,
            Request::Make { wanted, user, so } => {
                let [user, so] = [user, so].map(|pin| pin.as_ref().map(PinRef::get));
                self.tokens.make(wanted, user, so, self.client()?)?;
            }
            Request::Attest { token, what } => {
                return self.token(*token)?.attest(what).map(Reply::Attested);
            }
            _ => return Err(Error::Internal("no request to execute".to_owned())),
        }
        Ok(Reply::Done)
    }

    fn token(&self, number: u32) -> Result<&dyn Token> {
        Ok(&*self.granted(number)?.token)
    }

    fn key(
        &self,
        token: u32,
        id: &ObjectId,
        key: Option<&Arc<KeyRecord>>,
    ) -> Result<(&dyn Token, Arc<KeyRecord>)> {
        let missing = || Error::NotFound(format!("key {id}"));
        // The one that the right was looked at for, and no other one.
        let key = key.cloned().ok_or_else(missing)?;
        Ok((self.token(token)?, key))
    }
}
