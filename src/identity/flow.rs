//! What crosses between a device and its CA: four files, each JSON of at most [`MAX`] bytes.
//!
//! | file | made by | says | signed by |
//! |---|---|---|---|
//! | [`Request`] | `devkey request` | which key, for whom, and what its back end can show | the device's key |
//! | [`Challenge`] | `devkey ca challenge` | the whole request, a nonce, until when; a TPM's credential | the CA's key |
//! | [`Answer`] | `devkey answer` | that the device's key, and its TPM, were there for this challenge | the device's key |
//! | [`Issued`] | `devkey ca issue` | the certificates | the CA's key |
//!
//! Each is `{"devkey": KIND, "version": 1, "body": {…}, "signature": Base64}`. Unknown and repeated
//! fields are refused, each field is bounded, and a file that was read has a right signature: what that
//! is worth, only who knows the signer's key can say. The signature is not over the JSON, which may be
//! indented anew on its way, but over a digest of what it means:
//!
//! ```text
//! digest(kind)    = SHA-256( "devkey identity KIND v1" 00 ‖ part ‖ part ‖ … )
//! part            = length in bytes, 4 bytes big-endian ‖ the bytes
//! a list of parts = their number, 4 bytes big-endian ‖ its parts; what may be absent is a list of 0 or 1
//! what is signed  = "devkey identity KIND v1 signature" 00 ‖ digest(kind), by the key's usual scheme
//! ```
//!
//! The parts are those of each type's documentation, in its order. No other thing that these keys sign
//! begins so: X.509 and CRLs begin with byte 30, SSH with a length below 2^24, TLS 1.3 with 64 blanks.
//! A challenge's digest includes the request's, an answer's the challenge's; with those of
//! [`qualifying_data`] and [`activation`], which only a TPM makes, nothing of one round can be used in
//! another, with another CA, another key or another request.

mod answer;
mod challenge;
mod file;
mod issued;
mod request;
mod text;
mod transcript;

pub use answer::{Answer, TpmAnswer, activation, qualifying_data};
pub use challenge::{Challenge, ChallengeSpec, Credential};
pub use file::MAX;
pub use issued::{Issued, IssuedSpec};
pub use request::{Request, RequestSpec, Source, SshKind, SshRequest};
pub use text::Digest;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::key::PublicKey;

/// Longest name of a CA, in bytes.
pub const MAX_NAME: usize = 128;

/// A CA, to a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// What people call it: 1 to [`MAX_NAME`] bytes without control characters.
    pub name: String,
    /// Its key, SubjectPublicKeyInfo.
    #[serde(with = "text::spki")]
    pub public: PublicKey,
}

impl Authority {
    /// # Errors
    /// [`Error::BadInput`] for a name that is none.
    pub fn check(&self) -> Result<()> {
        plain("the CA's name", &self.name, MAX_NAME)
    }

    /// What stands for its key: SHA-256 of the SubjectPublicKeyInfo.
    pub fn fingerprint(&self) -> Digest {
        fingerprint(&self.public)
    }
}

/// What stands for a key: SHA-256 of its SubjectPublicKeyInfo.
pub fn fingerprint(public: &PublicKey) -> Digest {
    Digest::of(&public.to_spki())
}

/// # Errors
/// [`Error::BadInput`] unless a text has 1 to `most` bytes, none of which drives a terminal.
pub(super) fn plain(what: &str, text: &str, most: usize) -> Result<()> {
    match (1..=most).contains(&text.len()) && !text.contains(char::is_control) {
        true => Ok(()),
        false => Err(Error::input(format!(
            "{what} has 1 to {most} bytes, without control characters"
        ))),
    }
}
