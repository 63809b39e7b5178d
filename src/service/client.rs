//! The client: a token whose provider runs in the key service.

use std::borrow::Cow;
use std::sync::Arc;

use super::link::{Link, Linked, Sought};
use super::protocol::{MAX_INPUT, PinRef, Reply, Request};
use super::{NewToken, TokenPlace, Wanted};
use crate::error::{Error, Result};
use crate::key::{DecryptScheme, PublicKey, Scheme};
use crate::provider::{Attest, Attested, Certified, Tries};
use crate::secret::Secret;
use crate::store::{Certificate, KeyRecord, ObjectId, Role, Store};
use crate::token::{CertificateRequest, KeyRequest, Login, Names, Pin, Token};

/// A token across the socket. What is public it reads itself; the service is its only writer.
#[derive(Debug)]
pub struct RemoteToken {
    store: Store,
    linked: Linked,
    link: Arc<Link>,
}

impl RemoteToken {
    /// A token whose public half is `store`. Asks nobody.
    pub fn new(store: Store, place: TokenPlace, link: Arc<Link>) -> Self {
        let linked = link.register(Sought::Place(place));
        RemoteToken {
            store,
            linked,
            link,
        }
    }

    /// A token that a service which listens knows by its name. Of its place only the settings that
    /// say how long it may take are heeded.
    pub fn named(store: Store, name: &str, place: &TokenPlace, link: Arc<Link>) -> Self {
        let linked = link.register(Sought::Name(name.to_owned(), place.settings.clone()));
        RemoteToken {
            store,
            linked,
            link,
        }
    }

    fn call<'r, T>(
        &self,
        ask: impl Fn(u32) -> Request<'r>,
        take: impl FnOnce(Reply) -> Option<T>,
    ) -> Result<T> {
        self.link.call(&self.linked, ask, take)
    }
}

/// Has the key service make a token.
pub fn create_remote(link: &Arc<Link>, new: &NewToken, so: &Pin) -> Result<()> {
    let linked = link.register(Sought::Place(new.place.clone()));
    let ask = |_| Request::Create {
        new: Cow::Borrowed(new),
        so: PinRef::Ours(so),
    };
    link.call(&linked, ask, done)
}

/// Has a key service that listens make a token of its own, with the PINs that are given.
///
/// # Errors
/// [`Error::Refused`] without the right to.
pub fn make_remote(
    link: &Arc<Link>,
    wanted: &Wanted,
    user: Option<&Pin>,
    so: Option<&Pin>,
) -> Result<()> {
    let linked = link.register(Sought::Name(wanted.name.clone(), wanted.settings.clone()));
    let ask = |_| Request::Make {
        wanted: Cow::Borrowed(wanted),
        user: user.map(PinRef::Ours),
        so: so.map(PinRef::Ours),
    };
    link.call(&linked, ask, done)
}

impl Token for RemoteToken {
    fn store(&self) -> &Store {
        &self.store
    }

    fn ready(&self) -> Result<()> {
        self.link.ready(&self.linked)
    }

    fn sign(&self, key: &KeyRecord, scheme: Scheme, input: &[u8]) -> Result<Vec<u8>> {
        short_enough(input)?;
        let id = &key.id;
        let ask = |token| Request::Sign {
            token,
            key: Cow::Borrowed(id),
            scheme,
            input,
        };
        let length = key.public.kind().signature_len();
        self.call(ask, |reply| match reply {
            Reply::Signature(signature) if signature.len() == length => Some(signature),
            _ => None,
        })
    }

    fn agree(&self, key: &KeyRecord, peer: &PublicKey) -> Result<Secret> {
        let id = &key.id;
        let ask = |token| Request::Agree {
            token,
            key: Cow::Borrowed(id),
            peer: Cow::Borrowed(peer),
        };
        let length = key.public.kind().bits() / 8;
        self.call(ask, |reply| match reply {
            Reply::Secret(secret) if secret.len() == length => Some(secret),
            _ => None,
        })
    }

    fn decrypt(&self, key: &KeyRecord, scheme: DecryptScheme, ciphertext: &[u8]) -> Result<Secret> {
        short_enough(ciphertext)?;
        let id = &key.id;
        let ask = |token| Request::Decrypt {
            token,
            key: Cow::Borrowed(id),
            scheme,
            ciphertext,
        };
        let most = key.public.kind().bits() / 8;
        self.call(ask, |reply| match reply {
            Reply::Secret(secret) if secret.len() <= most => Some(secret),
            _ => None,
        })
    }

    fn attest(&self, what: &Attest) -> Result<Attested> {
        let ask = |token| Request::Attest {
            token,
            what: Cow::Borrowed(what),
        };
        self.call(ask, |reply| match (what, reply) {
            (Attest::Identity, Reply::Attested(shown @ Attested::Identity(_)))
            | (Attest::Activate { .. }, Reply::Attested(shown @ Attested::Secret(_))) => {
                Some(shown)
            }
            _ => None,
        })
    }

    fn certify(&self, key: &KeyRecord, qualifying_data: &[u8]) -> Result<Certified> {
        let id = &key.id;
        let ask = |token| Request::Certify {
            token,
            key: Cow::Borrowed(id),
            qualifying_data,
        };
        self.call(ask, |reply| match reply {
            Reply::Certified(certified) => Some(certified),
            _ => None,
        })
    }

    fn generate(&self, request: &KeyRequest) -> Result<KeyRecord> {
        let ask = |token| Request::Generate {
            token,
            request: Cow::Borrowed(request),
        };
        let id = self.call(ask, stored)?;
        let listing = self.store.list()?;
        let missing = || Error::NotFound(format!("the key that was just made, {id},"));
        Ok(KeyRecord::clone(listing.key(&id).ok_or_else(missing)?))
    }

    fn add_certificate(&self, request: &CertificateRequest) -> Result<Certificate> {
        short_enough(&request.der)?;
        let ask = |token| Request::AddCertificate {
            token,
            request: Cow::Borrowed(request),
        };
        let id = self.call(ask, stored)?;
        let listing = self.store.list()?;
        let certificate = listing.certificates.iter().find(|c| c.id == id);
        let missing = || Error::NotFound(format!("the certificate that was just stored, {id},"));
        Ok(Certificate::clone(certificate.ok_or_else(missing)?))
    }

    fn replace_certificates(
        &self,
        old: &[ObjectId],
        chain: &[Vec<u8>],
    ) -> Result<Option<ObjectId>> {
        short_enough(&chain.concat())?;
        let ask = |token| Request::ReplaceCertificates {
            token,
            old: Cow::Borrowed(old),
            chain: Cow::Borrowed(chain),
        };
        self.call(ask, |reply| match reply {
            Reply::Stored(id) => Some(Some(id)),
            Reply::Done => Some(None),
            _ => None,
        })
    }

    fn rename(&self, id: &ObjectId, names: &Names) -> Result<()> {
        let ask = |token| Request::Rename {
            token,
            object: Cow::Borrowed(id),
            names: Cow::Borrowed(names),
        };
        self.call(ask, done)
    }

    fn delete(&self, id: &ObjectId) -> Result<()> {
        let ask = |token| Request::Delete {
            token,
            object: Cow::Borrowed(id),
        };
        self.call(ask, done)
    }
}

impl Login for RemoteToken {
    fn login(&self, role: Role, pin: &Pin, last_try: bool) -> Result<()> {
        let ask = |token| Request::Login {
            token,
            role,
            pin: PinRef::Ours(pin),
            last_try,
        };
        self.call(ask, done)
    }

    fn logout(&self) -> Result<()> {
        self.call(|token| Request::Logout { token }, done)
    }

    fn set_pin(&self, role: Role, old: &Pin, new: &Pin) -> Result<()> {
        let ask = |token| Request::SetPin {
            token,
            role,
            old: PinRef::Ours(old),
            new: PinRef::Ours(new),
        };
        self.call(ask, done)
    }

    fn init_pin(&self, new: &Pin, to_be_changed: bool) -> Result<()> {
        let ask = |token| Request::InitPin {
            token,
            new: PinRef::Ours(new),
            to_be_changed,
        };
        self.call(ask, done)
    }

    fn tries(&self, role: Role) -> Result<Tries> {
        let ask = |token| Request::Tries { token, role };
        self.call(ask, |reply| match reply {
            Reply::Tries(tries) => Some(tries),
            _ => None,
        })
    }

    fn reset(&self, so: &Pin, label: &str) -> Result<()> {
        let ask = |token| Request::Reset {
            token,
            so: PinRef::Ours(so),
            label,
        };
        self.call(ask, done)
    }
}

fn stored(reply: Reply) -> Option<ObjectId> {
    match reply {
        Reply::Stored(id) => Some(id),
        _ => None,
    }
}

fn done(reply: Reply) -> Option<()> {
    matches!(reply, Reply::Done).then_some(())
}

fn short_enough(input: &[u8]) -> Result<()> {
    match input.len() {
        0..=MAX_INPUT => Ok(()),
        length => Err(Error::input(format!(
            "{length} bytes are more than the {MAX_INPUT} that cross to the key service"
        ))),
    }
}
