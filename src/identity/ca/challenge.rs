//! Asking a device.

use super::Ca;
use super::books::Asked;
use crate::error::{Error, Result};
use crate::identity::flow::{Challenge, ChallengeSpec, Credential, Digest, Request, fingerprint};
use crate::identity::level::Level;
use crate::identity::signer::Signer;
use crate::identity::tpm::{self, Evidence};
use crate::secret::Secret;

/// For how long after it has expired a question is remembered, in seconds: its late answer is told why it
/// is refused.
const REMEMBERED: u64 = 86400;

/// A question, and what came of the request so far.
#[derive(Debug)]
pub struct Challenged {
    /// For the device.
    pub challenge: Challenge,
    /// The level that its answer earns.
    pub level: Level,
    /// The profile by which it will be issued.
    pub profile: String,
    /// Why it is no higher level.
    pub reasons: Vec<String>,
}

impl Ca {
    /// Checks a request by a profile and asks its device a question. Nothing that this refuses would be
    /// issued.
    ///
    /// # Errors
    /// [`Error::BadInput`] with what is not allowed, and those of signing and writing.
    pub fn challenge(
        &self,
        signer: &dyn Signer,
        request: Request,
        profile: Option<&str>,
        now: u64,
    ) -> Result<Challenged> {
        self.check_signer(signer)?;
        if request
            .authority()
            .is_some_and(|meant| meant != self.fingerprint())
        {
            return Err(Error::input("the request is to another CA"));
        }
        self.check_not_stolen(fingerprint(request.public()), now)?;
        self.check_not_barred(&request)?;
        let (name, profile) = self.config.profile(profile)?;
        let judged = self.judge(&request, now)?;
        let explained = |e: Error| match judged.level < profile.level {
            true => Error::input(format!("{e}: {}", judged.reasons.join("; "))),
            false => e,
        };
        profile.check(&request, judged.level).map_err(explained)?;
        let (credentials, secrets) = credentials(&judged.tpm)?;
        let challenge = Challenge::make(
            signer,
            ChallengeSpec {
                authority: self.authority(),
                request,
                nonce: Digest::random()?,
                expires: now.saturating_add(self.config.answer_within),
                credentials,
            },
        )?;
        self.remember(&challenge, name, judged.level, secrets.as_ref(), now)?;
        Ok(Challenged {
            challenge,
            level: judged.level,
            profile: name.to_owned(),
            reasons: judged.reasons,
        })
    }

    fn remember(
        &self,
        challenge: &Challenge,
        profile: &str,
        level: Level,
        secret: Option<&Secret>,
        now: u64,
    ) -> Result<()> {
        let text = String::from_utf8(challenge.encode()?)
            .map_err(|_| Error::Internal("a challenge is text".to_owned()))?;
        let asked = Asked {
            profile: profile.to_owned(),
            level,
            expires: challenge.expires(),
            challenge: text,
        };
        let _lock = self.books.lock()?;
        self.books.forget_asked(now.saturating_sub(REMEMBERED))?;
        self.books.put_asked(challenge.nonce(), &asked, secret)
    }
}

/// A secret for each of a TPM's EKs, which only that TPM can open, and the secrets one after the other.
fn credentials(all: &[(Evidence, Vec<u8>)]) -> Result<(Vec<Credential>, Option<Secret>)> {
    if all.is_empty() {
        return Ok((Vec::new(), None));
    }
    let secrets = Secret::random(tpm::MAX_SECRET * all.len())?;
    // Each for the one function that encrypts it.
    let each = secrets.expose().chunks(tpm::MAX_SECRET);
    let credential = |((evidence, ak_name), secret): (&(Evidence, Vec<u8>), &[u8])| {
        let made = tpm::make_credential(&evidence.ek_public, ak_name, secret)?;
        Ok(Credential {
            ek_public: evidence.ek_public.clone(),
            id_object: made.id_object,
            encrypted_secret: made.encrypted_secret,
        })
    };
    let made: Result<Vec<Credential>> = all.iter().zip(each).map(credential).collect();
    Ok((made?, Some(secrets)))
}
