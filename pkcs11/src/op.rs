//! Operations in progress: hashing and everything of several parts happens here, above the token.

use std::sync::Arc;

use aws_lc_rs::digest::Context;
use devkey::Error;
use devkey::key::{DecryptScheme, Hash, PublicKey, Scheme};
use devkey::secret::Secret;
use devkey::store::KeyRecord;
use devkey::token::Token;

use crate::mech::Plan;
use crate::raw::{Answer, Room};
use crate::rv::{Result, Rv};

/// Which operations C_SessionCancel ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cancelled {
    pub(crate) search: bool,
    pub(crate) sign: bool,
    pub(crate) verify: bool,
    pub(crate) decrypt: bool,
}

impl Cancelled {
    /// All.
    pub(crate) const ALL: Cancelled = Cancelled {
        search: true,
        sign: true,
        verify: true,
        decrypt: true,
    };
}

/// The message of a signature, as far as it has come.
struct Message {
    plan: Plan,
    body: Body,
}

enum Body {
    /// Nothing has come.
    Empty,
    /// Hashed piece by piece.
    Hashed(Context),
    /// Kept as it is.
    Kept(Vec<u8>),
}

impl Message {
    fn new(plan: Plan) -> Self {
        Message {
            plan,
            body: Body::Empty,
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self.body, Body::Empty)
    }

    fn update(&mut self, data: &[u8]) -> Result<()> {
        if self.is_empty() {
            self.body = match self.plan.prehash {
                Some(hash) => Body::Hashed(Context::new(hash.algorithm())),
                None => Body::Kept(Vec::new()),
            };
        }
        match &mut self.body {
            Body::Empty => {}
            Body::Hashed(context) => context.update(data),
            Body::Kept(kept) if data.len() > self.plan.max_input() - kept.len() => {
                return Err(Rv::DATA_LEN_RANGE);
            }
            Body::Kept(kept) => kept.extend_from_slice(data),
        }
        Ok(())
    }

    /// The scheme and its input for a message in one piece.
    fn whole(&self, data: &[u8]) -> Result<(Scheme, Vec<u8>)> {
        match (&self.body, self.plan.prehash) {
            (Body::Empty, Some(hash)) => self.plan.finish(&Hash::digest(hash, data)),
            (Body::Empty, None) if data.len() > self.plan.max_input() => Err(Rv::DATA_LEN_RANGE),
            (Body::Empty, None) => self.plan.finish(data),
            // Begun with C_SignUpdate, to be ended with C_SignFinal.
            _ => Err(Rv::OPERATION_ACTIVE),
        }
    }

    /// The scheme and its input for a message in pieces, which may have been none.
    fn finish(mut self) -> Result<(Scheme, Vec<u8>)> {
        self.update(&[])?;
        match self.body {
            Body::Hashed(context) => self.plan.finish(context.finish().as_ref()),
            Body::Kept(kept) => self.plan.finish(&kept),
            Body::Empty => Err(Rv::GENERAL_ERROR),
        }
    }
}

/// A signature that is being made.
pub(crate) struct Signing {
    key: Arc<KeyRecord>,
    message: Message,
}

impl Signing {
    /// Begins a signature.
    pub(crate) fn new(key: Arc<KeyRecord>, plan: Plan) -> Self {
        Signing {
            key,
            message: Message::new(plan),
        }
    }

    /// Length of the signature in bytes; asks no device.
    pub(crate) fn len(&self) -> usize {
        self.message.plan.signature_len()
    }

    /// Takes a piece of the message.
    pub(crate) fn update(&mut self, data: &[u8]) -> Result<()> {
        self.message.update(data)
    }

    /// Signs a message in one piece.
    pub(crate) fn sign(self, token: &dyn Token, data: &[u8]) -> Result<Vec<u8>> {
        let (scheme, input) = self.message.whole(data)?;
        token.sign(&self.key, scheme, &input).map_err(Rv::of_key)
    }

    /// Signs a message that came in pieces.
    pub(crate) fn finish(self, token: &dyn Token) -> Result<Vec<u8>> {
        let (scheme, input) = self.message.finish()?;
        token.sign(&self.key, scheme, &input).map_err(Rv::of_key)
    }
}

/// A signature that is being verified; asks no device.
pub(crate) struct Verifying {
    key: PublicKey,
    message: Message,
}

impl Verifying {
    /// Begins a verification.
    pub(crate) fn new(key: PublicKey, plan: Plan) -> Self {
        Verifying {
            key,
            message: Message::new(plan),
        }
    }

    /// Takes a piece of the message.
    pub(crate) fn update(&mut self, data: &[u8]) -> Result<()> {
        self.message.update(data)
    }

    /// Verifies a message in one piece.
    pub(crate) fn verify(self, data: &[u8], signature: &[u8]) -> Result<()> {
        let wanted = self.message.whole(data)?;
        check(&self.key, wanted, signature)
    }

    /// Verifies a message that came in pieces.
    pub(crate) fn finish(self, signature: &[u8]) -> Result<()> {
        check(&self.key, self.message.finish()?, signature)
    }
}

/// A decryption that is to be made.
pub(crate) struct Decrypting {
    key: Arc<KeyRecord>,
    scheme: DecryptScheme,
    /// What was decrypted for a caller whose buffer was too short, and from what.
    done: Option<(Vec<u8>, Secret)>,
}

impl Decrypting {
    /// Begins a decryption.
    pub(crate) fn new(key: Arc<KeyRecord>, scheme: DecryptScheme) -> Self {
        Decrypting {
            key,
            scheme,
            done: None,
        }
    }

    /// Most bytes that a plaintext can have (RFC 8017 §7.1.1); asks no device.
    fn max_len(&self) -> usize {
        let DecryptScheme::RsaOaep(hash) = self.scheme;
        (self.key.public.kind().bits() / 8).saturating_sub(2 * hash.size() + 2)
    }

    /// Decrypts. The device is asked once, also where the buffer turns out to be too short.
    pub(crate) fn decrypt(
        &mut self,
        token: &dyn Token,
        data: &[u8],
        room: Room,
    ) -> Result<Answer<u8>> {
        if room == Room::NONE {
            return Ok(Answer::Length(self.max_len()));
        }
        if self.done.as_ref().is_none_or(|(from, _)| from != data) {
            if data.len() != self.key.public.kind().bits() / 8 {
                return Err(Rv::ENCRYPTED_DATA_LEN_RANGE);
            }
            let plain = match token.decrypt(&self.key, self.scheme, data) {
                Err(Error::Crypto) => return Err(Rv::ENCRYPTED_DATA_INVALID),
                plain => plain.map_err(Rv::of_key)?,
            };
            self.done = Some((data.to_vec(), plain));
        }
        let (_, plain) = self.done.as_ref().ok_or(Rv::GENERAL_ERROR)?;
        // The plaintext is what the caller asked for.
        Ok(room.answer(plain.expose()))
    }
}

fn check(key: &PublicKey, (scheme, input): (Scheme, Vec<u8>), signature: &[u8]) -> Result<()> {
    if signature.len() != key.kind().signature_len() {
        return Err(Rv::SIGNATURE_LEN_RANGE);
    }
    match key.verify(scheme, &input, signature) {
        Err(Error::Crypto) => Err(Rv::SIGNATURE_INVALID),
        // ECDSA with a digest that is longer than the curve: the library fits it.
        result => Ok(result?),
    }
}
