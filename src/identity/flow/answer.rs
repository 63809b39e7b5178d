//! What a device answers.

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

use super::challenge::Challenge;
use super::file::{Body, Signed};
use super::request::MAX_PUBLIC;
use super::text::{Digest, base64, spki};
use super::transcript::Transcript;
use crate::error::{Error, Result};
use crate::identity::signer::Signer;
use crate::key::PublicKey;
use crate::provider::Certified;
use crate::secret::Secret;

/// Longest TPMS_ATTEST and TPMT_SIGNATURE in bytes: of RSA-4096 and SHA-512.
const MAX_ATTEST: usize = 1024;

/// What a TPM adds to an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmAnswer {
    /// [`activation`] by the secrets of the credentials.
    pub activation: Digest,
    /// The AK's statement on the key, with [`qualifying_data`] in it.
    pub certified: Certified,
}

/// What shows that the device was there for a challenge: signed by the device's key.
///
/// Parts: the device's key (SubjectPublicKeyInfo), the challenge's digest, the request's digest, the
/// nonce, and what the TPM adds where there is one, as the activation, TPMS_ATTEST, TPMT_SIGNATURE and
/// the key's TPMT_PUBLIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    file: Signed<AnswerBody>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnswerBody {
    #[serde(with = "spki")]
    public: PublicKey,
    challenge: Digest,
    request: Digest,
    nonce: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tpm: Option<Tpm>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tpm {
    activation: Digest,
    #[serde(with = "base64")]
    attest: Vec<u8>,
    #[serde(with = "base64")]
    signature: Vec<u8>,
    #[serde(with = "base64")]
    key_public: Vec<u8>,
}

impl Body for AnswerBody {
    const KIND: &'static str = "answer";

    fn say(&self, to: &mut Transcript) {
        to.part(&self.public.to_spki());
        for digest in [self.challenge, self.request, self.nonce] {
            to.part(&digest.0);
        }
        to.count(self.tpm.iter().len());
        if let Some(tpm) = &self.tpm {
            to.part(&tpm.activation.0);
            to.part(&tpm.attest);
            to.part(&tpm.signature);
            to.part(&tpm.key_public);
        }
    }

    fn signer(&self) -> Result<PublicKey> {
        Ok(self.public.clone())
    }
}

impl Answer {
    /// Makes one and signs it. The caller has asked [`Challenge::check`].
    ///
    /// # Errors
    /// [`Error::BadInput`] where the challenge is about another key, and those of signing.
    pub fn make(
        signer: &dyn Signer,
        challenge: &Challenge,
        tpm: Option<TpmAnswer>,
    ) -> Result<Self> {
        if signer.public() != challenge.request().public() {
            return Err(Error::input("the challenge is about another key"));
        }
        let body = AnswerBody {
            public: signer.public().clone(),
            challenge: challenge.digest(),
            request: challenge.request().digest(),
            nonce: challenge.nonce(),
            tpm: tpm.map(|tpm| Tpm {
                activation: tpm.activation,
                attest: tpm.certified.attest,
                signature: tpm.certified.signature,
                key_public: tpm.certified.key_public,
            }),
        };
        Answer::checked(Signed::make(signer, body)?)
    }

    /// Reads a file of at most [`MAX`](super::MAX) bytes.
    ///
    /// # Errors
    /// [`Error::BadInput`] with what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Answer::checked(Signed::parse(bytes)?)
    }

    /// The file.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.file.encode()
    }

    /// The nonce of the challenge that it answers.
    pub fn nonce(&self) -> Digest {
        self.file.body.nonce
    }

    /// What the TPM adds.
    pub fn tpm(&self) -> Option<TpmAnswer> {
        let tpm = self.file.body.tpm.as_ref()?;
        Some(TpmAnswer {
            activation: tpm.activation,
            certified: Certified {
                attest: tpm.attest.clone(),
                signature: tpm.signature.clone(),
                key_public: tpm.key_public.clone(),
            },
        })
    }

    /// Whether it answers this challenge, by the key that the challenge is about. What the TPM adds is
    /// not looked at.
    ///
    /// # Errors
    /// [`Error::BadInput`] says what is wrong.
    pub fn check(&self, challenge: &Challenge) -> Result<()> {
        let body = &self.file.body;
        let request = challenge.request();
        for (right, reason) in [
            (
                body.public == *request.public(),
                "is of another device: its key is another",
            ),
            (body.nonce == challenge.nonce(), "is to another challenge"),
            (body.request == request.digest(), "is about another request"),
            (
                body.challenge == challenge.digest(),
                "is to a challenge that was changed",
            ),
        ] {
            if !right {
                return Err(Error::input(format!("the answer {reason}")));
            }
        }
        Ok(())
    }

    fn checked(file: Signed<AnswerBody>) -> Result<Self> {
        if let Some(tpm) = &file.body.tpm
            && (tpm.attest.len() > MAX_ATTEST
                || tpm.signature.len() > MAX_ATTEST
                || tpm.key_public.len() > MAX_PUBLIC)
        {
            return Err(Error::input("the answer says more than a TPM does"));
        }
        Ok(Answer { file })
    }
}

/// What the AK signs beside the key's Name: the digest of kind `certify`, whose parts are the
/// challenge's digest and the request's.
pub fn qualifying_data(challenge: &Challenge) -> Digest {
    bound("certify", challenge)
}

/// What shows that all credentials were opened: HMAC-SHA256 over the digest of kind `activate`, whose parts
/// are the challenge's digest and the request's. The key is their secrets, one after the other.
pub fn activation(secrets: &Secret, challenge: &Challenge) -> Digest {
    // As a key; it stays wiped with its owner.
    let key = hmac::Key::new(hmac::HMAC_SHA256, secrets.expose());
    let tag = hmac::sign(&key, &bound("activate", challenge).0);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    Digest(bytes)
}

fn bound(kind: &str, challenge: &Challenge) -> Digest {
    let mut transcript = Transcript::new(kind);
    transcript.part(&challenge.digest().0);
    transcript.part(&challenge.request().digest().0);
    transcript.finish()
}
