//! What the key service and its clients say to each other.
//!
//! # Transport
//!
//! A connected Unix stream socket. Each message is its length in bytes as a little-endian `u32`,
//! then that many bytes of [postcard](https://postcard.jamesmunns.com). Lengths are bounded:
//! [`MAX_REQUEST`] towards the service, [`MAX_RESPONSE`] from it. The client asks, the service
//! answers, and nothing else is sent until it has; whatever comes beside that ends the connection,
//! as does anything that is no message: too long, cut short, of an unknown kind, or with bytes
//! left over. A client that waited too long for an answer closes the connection.
//!
//! The process id that the kernel attaches to each message (`SCM_CREDENTIALS`, unix(7)) must be
//! that of the first one: a forked child has its parent's descriptor but not its parent's
//! connection. Whoever makes the socket sets `SO_PASSCRED` on the service's end before anything is
//! sent; the service refuses a socket without it, for what was sent before it was set bears no
//! process id.
//!
//! # Conversation
//!
//! | request | reply | |
//! |---|---|---|
//! | `Hello` | `Welcome` | first, once; these two never change |
//! | `Open` | `Opened` | a token, by its place; the same place gives the same number |
//! | `Sign` | `Signature` | |
//! | `Agree`, `Decrypt` | `Secret` | |
//! | `Generate`, `AddCertificate` | `Stored` | the id; the client reads the object from the store |
//! | `Rename`, `Delete` | `Done` | |
//!
//! A response is a reply or an [`Error`](crate::Error), which crosses unchanged. Where the protocols of the two
//! sides differ, the service answers `Welcome` with its own version and closes; it is the client
//! that says so to its user. Numbers of tokens hold for one connection. Keys are named by
//! [`ObjectId`] alone: what is done with them the service reads in its own store.
//!
//! `Open` is for the *private child*, which has just the rights of its client. A service that has
//! more must not take places from its clients; it will have a request of its own.
//!
//! # Secrets
//!
//! Agreed and decrypted values cross in `Secret`. Both sides wipe the memory that a message was
//! built or read in as soon as they are done with it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::TokenPlace;
use crate::error::Result;
use crate::key::{DecryptScheme, PublicKey, Scheme};
use crate::secret::Secret;
use crate::store::ObjectId;
use crate::token::{CertificateRequest, KeyRequest, Names};

/// Version of the protocol.
pub const PROTOCOL: u32 = 1;
/// Longest input to a signature in bytes: the message of an Ed25519 signature.
pub const MAX_INPUT: usize = 1 << 20;
/// Longest request in bytes, without its length: the longest input, and 4 KiB for the rest.
pub const MAX_REQUEST: usize = MAX_INPUT + 4096;
/// Longest response in bytes, without its length.
pub const MAX_RESPONSE: usize = 64 * 1024;

/// What a client asks.
#[derive(Serialize, Deserialize)]
pub(super) enum Request<'a> {
    Hello {
        protocol: u32,
    },
    Open {
        place: Cow<'a, TokenPlace>,
    },
    Sign {
        token: u32,
        key: Cow<'a, ObjectId>,
        scheme: Scheme,
        input: &'a [u8],
    },
    Agree {
        token: u32,
        key: Cow<'a, ObjectId>,
        peer: Cow<'a, PublicKey>,
    },
    Decrypt {
        token: u32,
        key: Cow<'a, ObjectId>,
        scheme: DecryptScheme,
        ciphertext: &'a [u8],
    },
    Generate {
        token: u32,
        request: Cow<'a, KeyRequest>,
    },
    AddCertificate {
        token: u32,
        request: Cow<'a, CertificateRequest>,
    },
    Rename {
        token: u32,
        object: Cow<'a, ObjectId>,
        names: Cow<'a, Names>,
    },
    Delete {
        token: u32,
        object: Cow<'a, ObjectId>,
    },
}

impl Request<'_> {
    /// How many times longer than most requests it may take: a hardware TPM needs up to minutes
    /// to make an RSA key.
    pub(super) fn slowness(&self) -> u32 {
        match self {
            Request::Generate { .. } => 5,
            _ => 1,
        }
    }

    /// Whether doing it twice is as good as once.
    pub(super) fn repeatable(&self) -> bool {
        match self {
            Request::Hello { .. } | Request::Open { .. } => true,
            Request::Sign { .. } | Request::Agree { .. } | Request::Decrypt { .. } => true,
            Request::Generate { .. } | Request::AddCertificate { .. } => false,
            Request::Rename { .. } | Request::Delete { .. } => false,
        }
    }
}

/// What the service answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Welcome {
        protocol: u32,
        /// Version of the program, for people.
        version: String,
    },
    Opened(u32),
    Signature(Vec<u8>),
    Secret(Secret),
    Stored(ObjectId),
    Done,
}

/// A reply, or why there is none.
pub(super) type Response = Result<Reply>;
