//! What the CA wants to be answered.

use serde::{Deserialize, Serialize};

use super::file::{Body, Signed};
use super::request::{MAX_EKS, MAX_PUBLIC, Request, RequestBody};
use super::text::{Digest, base64};
use super::transcript::Transcript;
use super::{Authority, fingerprint};
use crate::error::{Error, Result};
use crate::identity::signer::Signer;
use crate::key::PublicKey;
use crate::provider;

/// What a CA wants to be answered.
#[derive(Debug, Clone)]
pub struct ChallengeSpec {
    /// Who asks.
    pub authority: Authority,
    /// What it was asked for.
    pub request: Request,
    /// 32 random bytes, never used before.
    pub nonce: Digest,
    /// Last second in which an answer is taken, since 1970.
    pub expires: u64,
    /// Secrets for the request's TPM, one for each of its EKs.
    pub credentials: Vec<Credential>,
}

/// A secret that only one TPM can read, and only beside its attestation key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// The endorsement key that it was encrypted for: TPMT_PUBLIC, as the request has it.
    #[serde(with = "base64")]
    pub ek_public: Vec<u8>,
    /// See [`provider::Credential::id_object`].
    #[serde(with = "base64")]
    pub id_object: Vec<u8>,
    /// See [`provider::Credential::encrypted_secret`].
    #[serde(with = "base64")]
    pub encrypted_secret: Vec<u8>,
}

/// A CA's question about one request, which is inside of it, signed by the CA's key.
///
/// Parts: the CA's name and key (SubjectPublicKeyInfo), the request's digest, the nonce, the time (8
/// bytes, big-endian), and the list of credentials, each as the EK's TPMT_PUBLIC, the ID object and the
/// encrypted secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    file: Signed<ChallengeBody>,
    request: Request,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChallengeBody {
    authority: Authority,
    request: Signed<RequestBody>,
    nonce: Digest,
    expires: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    credentials: Vec<Credential>,
}

impl Body for ChallengeBody {
    const KIND: &'static str = "challenge";

    fn say(&self, to: &mut Transcript) {
        to.part(self.authority.name.as_bytes());
        to.part(&self.authority.public.to_spki());
        to.part(&self.request.digest().0);
        to.part(&self.nonce.0);
        to.part(&self.expires.to_be_bytes());
        to.count(self.credentials.len());
        for credential in &self.credentials {
            to.part(&credential.ek_public);
            to.part(&credential.id_object);
            to.part(&credential.encrypted_secret);
        }
    }

    fn signer(&self) -> Result<PublicKey> {
        self.authority.check()?;
        Ok(self.authority.public.clone())
    }
}

impl Challenge {
    /// Makes one and signs it.
    ///
    /// # Errors
    /// Those of signing.
    pub fn make(ca: &dyn Signer, spec: ChallengeSpec) -> Result<Self> {
        let body = ChallengeBody {
            authority: spec.authority,
            request: spec.request.file,
            nonce: spec.nonce,
            expires: spec.expires,
            credentials: spec.credentials,
        };
        Challenge::checked(Signed::make(ca, body)?)
    }

    /// Reads a file of at most [`MAX`](super::MAX) bytes; the request in it is checked, too.
    ///
    /// # Errors
    /// [`Error::BadInput`] with what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Challenge::checked(Signed::parse(bytes)?)
    }

    /// The file.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.file.encode()
    }

    /// What stands for all of it, the request included.
    pub fn digest(&self) -> Digest {
        self.file.digest()
    }

    /// Who asks. Whether that is the CA that the device means, [`Challenge::check`] says.
    pub fn authority(&self) -> &Authority {
        &self.file.body.authority
    }

    /// The request that it is about.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// What makes it unlike any other.
    pub fn nonce(&self) -> Digest {
        self.file.body.nonce
    }

    /// Last second in which an answer is taken, since 1970.
    pub fn expires(&self) -> u64 {
        self.file.body.expires
    }

    /// The credentials, each with the EK that it is for.
    pub fn credentials(&self) -> impl ExactSizeIterator<Item = (&[u8], provider::Credential)> {
        self.file.body.credentials.iter().map(|one| {
            let for_provider = provider::Credential {
                id_object: one.id_object.clone(),
                encrypted_secret: one.encrypted_secret.clone(),
            };
            (one.ek_public.as_slice(), for_provider)
        })
    }

    /// Whether the device may answer it: that it is of the CA which the device means (`authority`, or
    /// where that is none the one that the request names), and not expired `at` that second since 1970.
    ///
    /// # Errors
    /// [`Error::BadInput`] says what is wrong.
    pub fn check(&self, authority: Option<Digest>, at: u64) -> Result<()> {
        let Some(meant) = authority.or(self.request.authority()) else {
            return Err(Error::input(
                "neither the request nor the caller says which CA is meant",
            ));
        };
        let asks = fingerprint(&self.authority().public);
        if asks != meant {
            return Err(Error::input(format!(
                "the challenge is of another CA: its key is {asks}, and {meant} is meant"
            )));
        }
        match at > self.expires() {
            true => Err(Error::input("the challenge has expired")),
            false => Ok(()),
        }
    }

    fn checked(file: Signed<ChallengeBody>) -> Result<Self> {
        let body = &file.body;
        let request = Request::checked(body.request.clone())?;
        if let Some(meant) = request.authority()
            && meant != fingerprint(&body.authority.public)
        {
            return Err(Error::input(
                "the challenge is about a request to another CA",
            ));
        }
        let fits = |credential: &Credential| {
            let most = provider::MAX_CREDENTIAL;
            credential.ek_public.len() <= MAX_PUBLIC
                && credential.id_object.len() <= most
                && credential.encrypted_secret.len() <= most
        };
        if body.credentials.len() > MAX_EKS || !body.credentials.iter().all(fits) {
            return Err(Error::input(
                "the challenge has more of credentials than a TPM takes",
            ));
        }
        Ok(Challenge { request, file })
    }
}
