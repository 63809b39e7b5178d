//! Messages of ssh-agent (draft-ietf-sshm-ssh-agent), as far as a host key wants them: which keys are
//! there, and a signature.
//!
//! Each message is its length (32 bits, big-endian), one byte that says what it is, and its fields.

use std::io::{Read, Write};

use super::{signature, wire};
use crate::error::{Error, Result};
use crate::identity::signer::Signer;
use crate::key::Hash;

/// Longest message, in bytes: OpenSSH's own limit.
pub const MAX: usize = 256 * 1024;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// Flags of a request for a signature by RSA: the hash. Without one it would be SHA-1.
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Which keys there are.
    Identities,
    /// A signature.
    Sign {
        /// The public key, as [`key::blob`](super::key::blob) has it.
        key: Vec<u8>,
        /// What is to be signed.
        data: Vec<u8>,
        /// By which hash, where the key is RSA; `None` for SHA-1.
        hash: Option<Hash>,
    },
    /// Anything else, by its number.
    Other(u8),
}

/// What an agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// It cannot, or will not.
    Failure,
    /// Its keys: blob and comment.
    Identities(Vec<(Vec<u8>, String)>),
    /// A signature: the algorithm's name, and what that says it is.
    Signature(Vec<u8>),
}

impl Request {
    /// The next request; `None` where the client has gone.
    ///
    /// # Errors
    /// [`Error::BadInput`] for what is no request, after which nothing else can be read.
    pub fn read(from: &mut impl Read) -> Result<Option<Self>> {
        message(from)?
            .map(|bytes| Request::parse(&bytes))
            .transpose()
    }

    /// Reads a request without its length.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let (kind, fields) = bytes.split_first().ok_or_else(empty)?;
        match *kind {
            REQUEST_IDENTITIES => Ok(Request::Identities),
            SIGN_REQUEST => wire::whole(fields, |from| {
                let (key, data) = (wire::take(from)?, wire::take(from)?);
                let flags: u32 = wire::take(from)?;
                let hash = hash(flags);
                Ok(Request::Sign { key, data, hash })
            }),
            other => Ok(Request::Other(other)),
        }
    }

    /// Sends the request.
    pub fn write(&self, to: &mut impl Write) -> Result<()> {
        let mut bytes = Vec::new();
        match self {
            Request::Identities => bytes.push(REQUEST_IDENTITIES),
            Request::Sign { key, data, hash } => {
                bytes.push(SIGN_REQUEST);
                wire::put(&mut bytes, key)?;
                wire::put(&mut bytes, data)?;
                wire::put(&mut bytes, &flags(*hash))?;
            }
            Request::Other(kind) => bytes.push(*kind),
        }
        send(to, &bytes)
    }
}

impl Response {
    /// The next response.
    ///
    /// # Errors
    /// [`Error::BadInput`] for what is none, and where the agent has gone.
    pub fn read(from: &mut impl Read) -> Result<Self> {
        let gone = || Error::input("the agent ended the connection without an answer");
        Response::parse(&message(from)?.ok_or_else(gone)?)
    }

    /// Reads a response without its length.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let (kind, fields) = bytes.split_first().ok_or_else(empty)?;
        match *kind {
            FAILURE => Ok(Response::Failure),
            IDENTITIES_ANSWER => wire::whole(fields, identities),
            SIGN_RESPONSE => wire::whole(fields, |from| Ok(Response::Signature(wire::take(from)?))),
            other => Err(Error::input(format!("an agent's answer of kind {other}"))),
        }
    }

    /// Sends the response.
    pub fn write(&self, to: &mut impl Write) -> Result<()> {
        let mut bytes = Vec::new();
        match self {
            Response::Failure => bytes.push(FAILURE),
            Response::Identities(keys) => {
                bytes.push(IDENTITIES_ANSWER);
                let count = u32::try_from(keys.len()).map_err(|_| Error::input("too many keys"))?;
                wire::put(&mut bytes, &count)?;
                for (blob, comment) in keys {
                    wire::put(&mut bytes, blob)?;
                    wire::put(&mut bytes, comment)?;
                }
            }
            Response::Signature(signature) => {
                bytes.push(SIGN_RESPONSE);
                wire::put(&mut bytes, signature)?;
            }
        }
        send(to, &bytes)
    }
}

/// The signature that a request asks for.
///
/// # Errors
/// [`Error::Unsupported`] for one by RSA and SHA-1; otherwise those of the token.
pub fn sign(signer: &dyn Signer, data: &[u8], hash: Option<Hash>) -> Result<Vec<u8>> {
    match (signer.public().kind().is_rsa(), hash) {
        (true, None) => Err(Error::unsupported("signatures by RSA and SHA-1")),
        (true, Some(hash)) => signature::sign_rsa(signer, data, hash),
        (false, _) => signature::sign(signer, data),
    }
}

/// Verifies a signature that an agent gave.
///
/// # Errors
/// [`Error::Crypto`] for a wrong one.
pub fn verify(public: &crate::key::PublicKey, data: &[u8], signature: &[u8]) -> Result<()> {
    signature::verify(public, data, signature)
}

fn identities(from: &mut &[u8]) -> Result<Response> {
    let count: u32 = wire::take(from)?;
    let mut keys = Vec::new();
    for _ in 0..count {
        let (blob, comment) = (wire::take::<Vec<u8>>(from)?, wire::take::<Vec<u8>>(from)?);
        keys.push((blob, String::from_utf8_lossy(&comment).into_owned()));
    }
    Ok(Response::Identities(keys))
}

fn hash(flags: u32) -> Option<Hash> {
    // As OpenSSH's agent judges where both are set.
    match (flags & RSA_SHA2_256, flags & RSA_SHA2_512) {
        (0, 0) => None,
        (0, _) => Some(Hash::Sha512),
        _ => Some(Hash::Sha256),
    }
}

fn flags(hash: Option<Hash>) -> u32 {
    match hash {
        Some(Hash::Sha256) => RSA_SHA2_256,
        Some(Hash::Sha512) => RSA_SHA2_512,
        _ => 0,
    }
}

/// The next message; `None` at the end before one.
fn message(from: &mut impl Read) -> Result<Option<Vec<u8>>> {
    let failed = |e| Error::io("reading from the agent's socket", e);
    let mut length = [0; 4];
    let mut got = 0;
    while let Some(room) = length.get_mut(got..).filter(|room| !room.is_empty()) {
        match from.read(room) {
            Ok(0) if got == 0 => return Ok(None),
            Ok(0) => return Err(Error::input("a message that was cut short")),
            Ok(read) => got += read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX {
        return Err(Error::input(format!("a message of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

fn send(to: &mut impl Write, bytes: &[u8]) -> Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| Error::input("too long a message"))?;
    let mut whole = length.to_be_bytes().to_vec();
    whole.extend_from_slice(bytes);
    to.write_all(&whole)
        .map_err(|e| Error::io("writing to the agent's socket", e))
}

fn empty() -> Error {
    Error::input("an empty message")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail with the flags' numbers exchanged in `flags`.
    #[test]
    fn what_is_written_is_read() {
        let (key, data) = (vec![1, 2], vec![3; 40]);
        let sign = |hash| Request::Sign {
            key: key.clone(),
            data: data.clone(),
            hash,
        };
        let hashes = [None, Some(Hash::Sha256), Some(Hash::Sha512)].map(sign);
        for request in [Request::Identities, Request::Other(27)]
            .into_iter()
            .chain(hashes)
        {
            let mut bytes = Vec::new();
            request.write(&mut bytes).unwrap();
            let mut from = bytes.as_slice();
            assert_eq!(Request::read(&mut from).unwrap(), Some(request));
            assert_eq!(Request::read(&mut from).unwrap(), None);
        }
        let keys = vec![(vec![7; 9], "a key".to_owned())];
        for response in [
            Response::Failure,
            Response::Identities(keys),
            Response::Signature(vec![5; 70]),
        ] {
            let mut bytes = Vec::new();
            response.write(&mut bytes).unwrap();
            assert_eq!(Response::read(&mut bytes.as_slice()).unwrap(), response);
        }
    }

    /// Seen to fail with `got == 0` left out, and with one byte more than `MAX` let in.
    #[test]
    fn no_message_is_longer_than_openssh_lets_it_be() {
        let of = |length: usize| {
            let mut bytes = (length as u32).to_be_bytes().to_vec();
            bytes.resize(4 + length, 27);
            Request::read(&mut bytes.as_slice())
        };
        assert_eq!(of(MAX).unwrap(), Some(Request::Other(27)));
        assert!(of(MAX + 1).is_err());
        for bad in [&[0, 0][..], &[0, 0, 0, 0], &[0, 0, 0, 2, 13]] {
            assert!(Request::read(&mut &*bad).is_err(), "{bad:?}");
        }
    }
}
