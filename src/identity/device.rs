//! The device's side: what a token shows of itself, and what it answers.

use crate::error::{Error, Result};
use crate::identity::flow::{Answer, Challenge, Digest, TpmAnswer, activation, qualifying_data};
use crate::identity::signer::TokenSigner;
use crate::provider::{Attest, Attested, Identity};
use crate::secret::Secret;
use crate::store::KeyRecord;
use crate::token::Token;

/// What the token's device can show of itself; `None` where it is of a kind that can show nothing.
///
/// # Errors
/// Those of the device.
pub fn evidence(token: &dyn Token) -> Result<Option<Identity>> {
    match token.attest(&Attest::Identity) {
        Ok(Attested::Identity(identity)) => Ok(Some(identity)),
        Ok(Attested::Secret(_)) => Err(unasked()),
        Err(Error::Unsupported(_)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Answers a challenge with the key that it is about. `authority` is the CA that the device means, where
/// its request does not say it.
///
/// # Errors
/// [`Error::BadInput`] where the challenge is not to be answered, and those of the device.
pub fn answer(
    token: &dyn Token,
    key: &KeyRecord,
    challenge: &Challenge,
    authority: Option<Digest>,
    now: u64,
) -> Result<Answer> {
    challenge.check(authority, now)?;
    let tpm = match challenge.credentials().len() {
        0 => None,
        _ if challenge.request().public() != &key.public => {
            return Err(Error::input("the challenge is about another key"));
        }
        _ => Some(TpmAnswer {
            activation: activation(&opened(token, challenge)?, challenge),
            certified: token.certify(key, &qualifying_data(challenge).0)?,
        }),
    };
    Answer::make(&TokenSigner { token, key }, challenge, tpm)
}

/// The secrets of the credentials, one after the other.
fn opened(token: &dyn Token, challenge: &Challenge) -> Result<Secret> {
    let mut all = Secret::new(Vec::new());
    for (ek_public, credential) in challenge.credentials() {
        let ek_public = ek_public.to_vec();
        let what = Attest::Activate {
            ek_public,
            credential,
        };
        let Attested::Secret(secret) = token.attest(&what)? else {
            return Err(unasked());
        };
        // Into another secret.
        all = Secret::new([all.expose(), secret.expose()].concat());
    }
    Ok(all)
}

fn unasked() -> Error {
    Error::Internal("the device shows what it was not asked for".to_owned())
}
