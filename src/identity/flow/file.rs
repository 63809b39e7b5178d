//! The envelope that the four files share.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::text::{Digest, base64};
use super::transcript::{Transcript, signed};
use crate::error::{Error, Result};
use crate::identity::signer::{Signer, sign_message, verify_message};
use crate::key::PublicKey;

/// Longest file in bytes.
pub const MAX: usize = 256 * 1024;

/// The one version that there is.
const VERSION: u32 = 1;

/// What stands in an envelope.
pub(super) trait Body: Serialize + DeserializeOwned {
    /// Its name in the file and in digests.
    const KIND: &'static str;

    /// Says all of it.
    fn say(&self, to: &mut Transcript);

    /// The key that signs it; known in files that were checked.
    fn signer(&self) -> Result<PublicKey>;
}

/// A body with a signature on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Signed<B> {
    devkey: String,
    version: u32,
    pub(super) body: B,
    #[serde(with = "base64")]
    signature: Vec<u8>,
}

/// As much as tells what a file is, whatever else is in it.
#[derive(Deserialize)]
struct Header {
    devkey: String,
    version: u32,
}

impl<B: Body> Signed<B> {
    /// Signs a body.
    pub(super) fn make(signer: &dyn Signer, body: B) -> Result<Self> {
        let message = signed(B::KIND, &digest(&body));
        let made = Signed {
            devkey: B::KIND.to_owned(),
            version: VERSION,
            signature: sign_message(signer, &message)?,
            body,
        };
        // What a device answered is not believed either, and what is too long would not be read.
        made.verify()?;
        made.encode()?;
        Ok(made)
    }

    /// Reads a file and verifies its signature.
    ///
    /// # Errors
    /// [`Error::BadInput`] with what is wrong.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let kind = B::KIND;
        if bytes.len() > MAX {
            return Err(Error::input(format!("a {kind} has at most {MAX} bytes")));
        }
        header::<B>(bytes)?;
        let file: Signed<B> = serde_json::from_slice(bytes)
            .map_err(|e| Error::input(format!("the {kind} is malformed: {e}")))?;
        file.verify()?;
        Ok(file)
    }

    /// Verifies the signature. Envelopes inside of others come here, too.
    pub(super) fn verify(&self) -> Result<()> {
        let kind = B::KIND;
        check_header::<B>(&self.devkey, self.version)?;
        let message = signed(kind, &self.digest());
        verify_message(&self.body.signer()?, &message, &self.signature).map_err(|_| {
            Error::input(format!(
                "the {kind}'s signature is wrong: it was changed after it was made"
            ))
        })
    }

    /// The file.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let kind = B::KIND;
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::Internal(format!("writing a {kind}: {e}")))?;
        bytes.push(b'\n');
        match bytes.len() <= MAX {
            true => Ok(bytes),
            false => Err(Error::input(format!("a {kind} has at most {MAX} bytes"))),
        }
    }

    /// What stands for all of the body.
    pub(super) fn digest(&self) -> Digest {
        digest(&self.body)
    }
}

fn digest<B: Body>(body: &B) -> Digest {
    let mut transcript = Transcript::new(B::KIND);
    body.say(&mut transcript);
    transcript.finish()
}

/// Whoever mixes files up, or has an older devkey, is told so.
fn header<B: Body>(bytes: &[u8]) -> Result<()> {
    let header: Header = serde_json::from_slice(bytes).map_err(|_| {
        Error::input(format!(
            "this is no file of devkey; a {} is wanted",
            B::KIND
        ))
    })?;
    check_header::<B>(&header.devkey, header.version)
}

fn check_header<B: Body>(kind: &str, version: u32) -> Result<()> {
    let wanted = B::KIND;
    match kind {
        _ if kind == wanted && version == VERSION => Ok(()),
        _ if kind == wanted && version > VERSION => Err(Error::input(format!(
            "the {wanted} was made by a newer devkey (version {version}, this one reads up to \
             {VERSION}); upgrade devkey"
        ))),
        "request" | "challenge" | "answer" | "issued" if kind != wanted => Err(Error::input(
            format!("this is the file called {kind:?}; the one called {wanted:?} is wanted"),
        )),
        _ => Err(Error::input(format!(
            "this is no file of devkey; a {wanted} is wanted"
        ))),
    }
}
