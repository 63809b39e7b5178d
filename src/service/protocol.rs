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
//! | `Find` | `Opened` | a token, by the name that it has in the service's configuration |
//! | `Sign` | `Signature` | |
//! | `Agree`, `Decrypt` | `Secret` | |
//! | `Attest` | `Attested` | |
//! | `Certify` | `Certified` | |
//! | `Generate`, `AddCertificate` | `Stored` | the id; the client reads the object from the store |
//! | `ReplaceCertificates` | `Stored`, `Done` | the id of the first; `Done` where they were removed |
//! | `Rename`, `Delete` | `Done` | |
//! | `Login`, `Logout`, `SetPin`, `InitPin`, `Reset` | `Done` | a login holds for the connection |
//! | `Tries` | `Tries` | |
//! | `Create` | `Done` | makes a token with a PIN for the SO, at a place |
//! | `Make` | `Done` | makes a token of the service's, by its name |
//!
//! A response is a reply or an [`Error`](crate::Error), which crosses unchanged. Where the protocols of the two
//! sides differ, the service answers `Welcome` with its own version and closes; it is the client
//! that says so to its user. Numbers of tokens hold for one connection. Keys are named by
//! [`ObjectId`] alone: what is done with them the service reads in its own store.
//!
//! `Open` and `Create` are for a *private child*, which has just the rights of its client. A service
//! that *listens* refuses them: it has tokens and rules of its own, which `Find` and `Make` name, and
//! takes no place from a client. It refuses with [`Error::NotFound`](crate::Error::NotFound) a token that the client has no
//! right to, with [`Error::NotPermitted`](crate::Error::NotPermitted) the use of a key, and with
//! [`Error::Refused`](crate::Error::Refused) what takes the right to manage.
//!
//! # Deadlines
//!
//! Of the service: [`ARRIVAL`] for the rest of a message once its first byte is there, for the
//! greeting, and for a client to take an answer. A client waits 75 s for most answers, three times
//! that for a PIN, five times for a new key or token.
//!
//! # Secrets
//!
//! PINs cross in `Pin`, agreed and decrypted values in `Secret`. Both sides wipe the memory that a message was
//! built or read in as soon as they are done with it.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{NewToken, TokenPlace, Wanted};
use crate::error::Result;
use crate::key::{DecryptScheme, PublicKey, Scheme};
use crate::provider::{Attest, Attested, Certified, Tries};
use crate::secret::Secret;
use crate::store::{ObjectId, Role};
use crate::token::{CertificateRequest, KeyRequest, Names, Pin};

/// Version of the protocol.
pub const PROTOCOL: u32 = 2;
/// How long a service that listens waits for the rest of a message that has begun.
pub const ARRIVAL: Duration = Duration::from_secs(10);
/// Longest input to a signature in bytes: the message of an Ed25519 or ML-DSA signature.
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
    Attest {
        token: u32,
        what: Cow<'a, Attest>,
    },
    Certify {
        token: u32,
        key: Cow<'a, ObjectId>,
        qualifying_data: &'a [u8],
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
    Login {
        token: u32,
        role: Role,
        pin: PinRef<'a>,
        last_try: bool,
    },
    Logout {
        token: u32,
    },
    SetPin {
        token: u32,
        role: Role,
        old: PinRef<'a>,
        new: PinRef<'a>,
    },
    InitPin {
        token: u32,
        new: PinRef<'a>,
        to_be_changed: bool,
    },
    Tries {
        token: u32,
        role: Role,
    },
    Reset {
        token: u32,
        so: PinRef<'a>,
        label: &'a str,
    },
    Create {
        new: Cow<'a, NewToken>,
        so: PinRef<'a>,
    },
    Find {
        name: &'a str,
    },
    Make {
        wanted: Cow<'a, Wanted>,
        user: Option<PinRef<'a>>,
        so: Option<PinRef<'a>>,
    },
    ReplaceCertificates {
        token: u32,
        old: Cow<'a, [ObjectId]>,
        chain: Cow<'a, [Vec<u8>]>,
    },
}

/// A PIN that the client has and the service gets: no copy is made to send it.
#[derive(Debug)]
pub(super) enum PinRef<'a> {
    Ours(&'a Pin),
    Theirs(Pin),
}

impl PinRef<'_> {
    pub(super) fn get(&self) -> &Pin {
        match self {
            PinRef::Ours(pin) => pin,
            PinRef::Theirs(pin) => pin,
        }
    }
}

impl Serialize for PinRef<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.get().serialize(to)
    }
}

impl<'de> Deserialize<'de> for PinRef<'_> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Pin::deserialize(from).map(PinRef::Theirs)
    }
}

impl Request<'_> {
    /// Whether it is about a token that is open.
    pub(super) fn needs_token(&self) -> bool {
        !matches!(
            self,
            Request::Hello { .. } | Request::Create { .. } | Request::Make { .. }
        )
    }

    /// How many times longer than most requests it may take: a hardware TPM needs up to minutes
    /// to make an RSA key.
    pub(super) fn slowness(&self) -> u32 {
        match self {
            Request::Generate { .. } | Request::Reset { .. } => 5,
            Request::Create { .. } | Request::Make { .. } => 5,
            // It makes its endorsement keys anew, an RSA key among them.
            Request::Attest { .. } => 5,
            // Argon2id on a slow machine, and a TPM that makes an index.
            Request::Login { .. } | Request::SetPin { .. } | Request::InitPin { .. } => 3,
            _ => 1,
        }
    }

    /// Whether doing it twice is as good as once.
    pub(super) fn repeatable(&self) -> bool {
        match self {
            Request::Hello { .. } | Request::Open { .. } | Request::Find { .. } => true,
            Request::Sign { .. } | Request::Agree { .. } | Request::Decrypt { .. } => true,
            Request::Attest { .. } | Request::Certify { .. } => true,
            Request::Generate { .. } | Request::AddCertificate { .. } => false,
            Request::Rename { .. } | Request::Delete { .. } => false,
            Request::ReplaceCertificates { .. } => false,
            Request::Logout { .. } | Request::Tries { .. } => true,
            // Twice the same wrong PIN would be two tries.
            Request::Login { .. } | Request::SetPin { .. } => false,
            Request::InitPin { .. } | Request::Reset { .. } => false,
            Request::Create { .. } | Request::Make { .. } => false,
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
    Tries(Tries),
    Attested(Attested),
    Certified(Certified),
}

/// A reply, or why there is none.
pub(super) type Response = Result<Reply>;
