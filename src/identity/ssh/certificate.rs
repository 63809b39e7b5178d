//! Certificates of users and hosts: OpenSSH's PROTOCOL.certkeys.

mod check;
mod contents;

use aws_lc_rs::rand;
pub use check::Expected;
pub use contents::{Contents, Kind, Options};

use super::{key, signature, wire};
use crate::error::{Error, Result};
use crate::identity::level::Level;
use crate::identity::signer::Signer;
use crate::key::PublicKey;

/// Longest certificate that is read or made, in bytes.
pub const MAX: usize = 64 * 1024;

/// The extension that states the [`Level`], by its name.
pub const LEVEL: &str = "assurance-level@devkey.example";

/// What an algorithm's name ends in where the key comes with its certificate.
const SUFFIX: &str = "-cert-v01@openssh.com";

/// Length of the nonce, in bytes: what ssh-keygen takes.
const NONCE: usize = 32;

/// A certificate whose signature is that of the CA key in it. Whether that CA is trusted, and now, is
/// for [`Certificate::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    contents: Contents,
    authority: PublicKey,
    blob: Vec<u8>,
}

/// Issues a certificate that states `level`.
///
/// # Errors
/// [`Error::BadInput`] for contents that a CA should never sign: see [`Contents`].
/// [`Error::Unsupported`] for a key that OpenSSH does not know.
pub fn issue(ca: &dyn Signer, contents: &Contents, level: Level) -> Result<Certificate> {
    contents.check()?;
    let mut contents = contents.clone();
    let stated = contents
        .extensions
        .insert(LEVEL.into(), level.name().into());
    if stated.is_some() {
        return Err(Error::input(format!("the CA alone states {LEVEL}")));
    }
    let mut nonce = [0; NONCE];
    rand::fill(&mut nonce)?;
    let mut blob = Vec::new();
    wire::put(&mut blob, &name(&contents.key)?)?;
    wire::put(&mut blob, nonce.as_slice())?;
    contents.put(&mut blob)?;
    wire::put(&mut blob, "")?;
    wire::put(&mut blob, &key::blob(ca.public())?)?;
    let signature = signature::sign(ca, &blob)?;
    wire::put(&mut blob, &signature)?;
    // Whatever a device answered: nothing leaves that would not be accepted.
    Certificate::from_blob(&blob)
}

impl Certificate {
    /// Reads a line as ssh-keygen writes it into `key-cert.pub`.
    ///
    /// # Errors
    /// As [`Certificate::from_blob`].
    pub fn from_line(line: &str) -> Result<Self> {
        let (named, base64, _) = wire::words(line)?;
        let certificate = Certificate::from_base64(base64)?;
        match named == name(&certificate.contents.key)? {
            true => Ok(certificate),
            false => Err(Error::input(format!("the certificate is not for {named}"))),
        }
    }

    /// Reads the Base64 of such a line.
    ///
    /// # Errors
    /// As [`Certificate::from_blob`].
    pub fn from_base64(base64: &str) -> Result<Self> {
        Certificate::from_blob(&wire::decode(base64, MAX)?)
    }

    /// Reads a certificate of at most [`MAX`] bytes and verifies its signature.
    ///
    /// # Errors
    /// [`Error::BadInput`] for what is no certificate of PROTOCOL.certkeys, or one for or by a key
    /// of a kind that devkey has not, or where the signature is wrong.
    pub fn from_blob(blob: &[u8]) -> Result<Self> {
        if blob.len() > MAX {
            return Err(Error::input(format!(
                "a certificate of more than {MAX} bytes"
            )));
        }
        wire::whole(blob, |from| {
            let named: String = wire::take(from)?;
            let algorithm = named
                .strip_suffix(SUFFIX)
                .ok_or_else(|| Error::input(format!("{named:?} is no certificate of OpenSSH")))?;
            let _nonce: Vec<u8> = wire::take(from)?;
            let contents = Contents::take(from, algorithm)?;
            let _reserved: Vec<u8> = wire::take(from)?;
            let authority = key::from_blob(&wire::take::<Vec<u8>>(from)?)?;
            let (signed, _) = blob.split_at(blob.len() - from.len());
            let signature: Vec<u8> = wire::take(from)?;
            signature::verify(&authority, signed, &signature).map_err(wrong)?;
            Ok(Certificate {
                contents,
                authority,
                blob: blob.to_vec(),
            })
        })
    }

    /// The line for `key-cert.pub`, without its end; control characters in the comment are escaped.
    pub fn line(&self, comment: &str) -> String {
        // The key was read from a certificate, so that it has a name.
        let name = name(&self.contents.key).unwrap_or_default();
        wire::line(&name, &self.blob, comment)
    }

    /// As PROTOCOL.certkeys encodes it.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// What it certifies.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The key of the CA that signed it.
    pub fn authority(&self) -> &PublicKey {
        &self.authority
    }

    /// The level that it states; `None` where it states none, or one that this devkey does not know.
    pub fn level(&self) -> Option<Level> {
        self.contents.extensions.get(LEVEL)?.parse().ok()
    }
}

fn wrong(error: Error) -> Error {
    match error {
        Error::Crypto => Error::input("the certificate was changed, or not signed by its CA"),
        error => error,
    }
}

/// The algorithm's name of a key with its certificate.
fn name(key: &PublicKey) -> Result<String> {
    Ok(key::known(key.kind())?.to_owned() + SUFFIX)
}
