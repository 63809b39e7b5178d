//! Objects: what a token's files and a session's own keys look like through PKCS#11.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use der::Decode;
use der::asn1::{ObjectIdentifier, PrintableStringRef, Utf8StringRef};
use devkey::key::PublicKey;
use devkey::secret::Secret;
use devkey::store::{Certificate, KeyRecord, Listing, ObjectId};
use x509_cert::name::RdnSequence;

use crate::raw::Ulong;
use crate::rv::{Result, Rv};

/// id-at-commonName, RFC 5280 appendix A.1.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The last handle that was given out, to an object or a session. Never reset, so that a handle
/// from before C_Finalize or a fork names nothing.
static LAST_HANDLE: AtomicUsize = AtomicUsize::new(0);

/// A handle that was never used in this process. Never 0.
pub(crate) fn new_handle() -> Ulong {
    (LAST_HANDLE.fetch_add(1, Ordering::Relaxed) + 1) as Ulong
}

/// What kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    /// `CKO_PRIVATE_KEY`
    Private,
    /// `CKO_PUBLIC_KEY`
    Public,
    /// `CKO_CERTIFICATE`
    Certificate,
    /// `CKO_SECRET_KEY`
    Secret,
}

/// An object.
#[derive(Debug)]
pub(crate) struct Object {
    /// `CKA_LABEL`
    pub(crate) label: String,
    /// `CKA_ID`
    pub(crate) id: Vec<u8>,
    /// What it is.
    pub(crate) body: Body,
}

/// What an object is.
#[derive(Debug)]
pub(crate) enum Body {
    /// The private half of a pair on the token.
    Private(Arc<KeyRecord>),
    /// The public half of a pair on the token.
    Public(Arc<KeyRecord>),
    /// A certificate on the token.
    Certificate(Arc<Certificate>),
    /// Somebody's public key, for the time of a session.
    Foreign(PublicKey),
    /// A derived secret, for the time of a session.
    Secret(SecretKey),
}

/// A derived secret and who may read it.
#[derive(Debug)]
pub(crate) struct SecretKey {
    /// `CKA_VALUE`
    pub(crate) value: Secret,
    /// `CKA_SENSITIVE`
    pub(crate) sensitive: bool,
    /// `CKA_EXTRACTABLE`
    pub(crate) extractable: bool,
    /// `CKA_PRIVATE`: gone with the login.
    pub(crate) private: bool,
}

impl Object {
    /// Both halves of a key pair.
    fn pair(record: &Arc<KeyRecord>) -> [Object; 2] {
        [Body::Private(record.clone()), Body::Public(record.clone())].map(|body| Object {
            label: record.label.clone(),
            id: record.cka_id.clone(),
            body,
        })
    }

    /// A certificate, by its own names or its key's; without a key by what it says itself.
    fn certificate(certificate: &Arc<Certificate>, key: Option<&Arc<KeyRecord>>) -> Object {
        let label = certificate.label.clone();
        let id = certificate.cka_id.clone();
        Object {
            label: label
                .or_else(|| Some(key?.label.clone()))
                .or_else(|| common_name(&certificate.subject))
                .unwrap_or_else(|| certificate.id.to_string()),
            id: id
                .or_else(|| Some(key?.cka_id.clone()))
                .unwrap_or_else(|| PublicKey::id_of(&certificate.spki)),
            body: Body::Certificate(certificate.clone()),
        }
    }

    /// Its class.
    pub(crate) fn class(&self) -> Class {
        match &self.body {
            Body::Private(_) => Class::Private,
            Body::Public(_) | Body::Foreign(_) => Class::Public,
            Body::Certificate(_) => Class::Certificate,
            Body::Secret(_) => Class::Secret,
        }
    }

    /// `CKA_PRIVATE`
    pub(crate) fn is_private(&self) -> bool {
        match &self.body {
            Body::Private(_) => true,
            Body::Secret(secret) => secret.private,
            Body::Public(_) | Body::Certificate(_) | Body::Foreign(_) => false,
        }
    }

    /// Its name in the store; `None` for an object of a session.
    pub(crate) fn stored(&self) -> Option<&ObjectId> {
        match &self.body {
            Body::Private(record) | Body::Public(record) => Some(&record.id),
            Body::Certificate(certificate) => Some(&certificate.id),
            Body::Foreign(_) | Body::Secret(_) => None,
        }
    }

    /// The pair that it is a half of.
    pub(crate) fn record(&self) -> Option<&Arc<KeyRecord>> {
        match &self.body {
            Body::Private(record) | Body::Public(record) => Some(record),
            _ => None,
        }
    }

    /// The record of a private key.
    pub(crate) fn private(&self) -> Result<&Arc<KeyRecord>> {
        match &self.body {
            Body::Private(record) => Ok(record),
            _ => Err(Rv::KEY_TYPE_INCONSISTENT),
        }
    }

    /// The public key that a key object is or belongs to.
    pub(crate) fn public(&self) -> Option<&PublicKey> {
        match &self.body {
            Body::Private(record) | Body::Public(record) => Some(&record.public),
            Body::Foreign(key) => Some(key),
            Body::Certificate(_) | Body::Secret(_) => None,
        }
    }
}

/// The objects of a slot by their handles, which stay the same for the life of an object.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    shown: Arc<Listing>,
    /// Whether private ones are among them.
    private: bool,
    stored: HashMap<Ulong, Arc<Object>>,
    handles: HashMap<(Class, ObjectId), Ulong>,
    /// Sessions that are open: only they get objects.
    sessions: HashSet<Ulong>,
    /// Objects of sessions, each with its session.
    passing: HashMap<Ulong, (Ulong, Arc<Object>)>,
}

impl Objects {
    /// Shows what the store holds now, private objects too where somebody is logged in.
    pub(crate) fn refresh(&mut self, listing: Arc<Listing>, private: bool) {
        if Arc::ptr_eq(&listing, &self.shown) && self.private == private {
            return;
        }
        let pairs = listing.keys.iter().flat_map(Object::pair);
        let certificates = listing
            .certificates
            .iter()
            .map(|c| Object::certificate(c, listing.key_of(c)));
        let mut handles = HashMap::new();
        let mut stored = HashMap::new();
        let all = pairs.chain(certificates);
        for object in all.filter(|object| private || !object.is_private()) {
            let Some(id) = object.stored() else { continue };
            let name = (object.class(), id.clone());
            let handle = self.handles.get(&name).copied();
            let handle = handle.unwrap_or_else(new_handle);
            handles.insert(name, handle);
            stored.insert(handle, Arc::new(object));
        }
        (self.stored, self.handles, self.shown) = (stored, handles, listing);
        self.private = private;
    }

    /// Ends the handles of private objects, and for good: later ones get others. Those of sessions
    /// are destroyed (PKCS#11 3.0 §5.6.9).
    pub(crate) fn hide_private(&mut self) {
        self.private = false;
        self.stored.retain(|_, object| !object.is_private());
        self.handles
            .retain(|(class, _), _| *class != Class::Private);
        self.passing.retain(|_, (_, object)| !object.is_private());
    }

    /// Lets a session have objects.
    pub(crate) fn begin_session(&mut self, session: Ulong) {
        self.sessions.insert(session);
    }

    /// Adds an object of a session.
    ///
    /// # Errors
    /// `CKR_SESSION_CLOSED` where another thread closed it while the object was being made.
    pub(crate) fn add(&mut self, session: Ulong, object: Object) -> Result<Ulong> {
        if !self.sessions.contains(&session) {
            return Err(Rv::SESSION_CLOSED);
        }
        let handle = new_handle();
        self.passing.insert(handle, (session, Arc::new(object)));
        Ok(handle)
    }

    /// Removes an object of a session.
    pub(crate) fn remove(&mut self, handle: Ulong) {
        self.passing.remove(&handle);
    }

    /// Removes all objects of a session, which gets no others.
    pub(crate) fn end_session(&mut self, session: Ulong) {
        self.sessions.remove(&session);
        self.passing.retain(|_, (owner, _)| *owner != session);
    }

    /// The object of a handle.
    pub(crate) fn get(&self, handle: Ulong) -> Result<Arc<Object>> {
        let passing = self.passing.get(&handle).map(|(_, object)| object);
        let found = self.stored.get(&handle).or(passing);
        found.cloned().ok_or(Rv::OBJECT_HANDLE_INVALID)
    }

    /// The handle of a half of a stored pair, or of a certificate.
    pub(crate) fn handle(&self, class: Class, id: &ObjectId) -> Result<Ulong> {
        let handle = self.handles.get(&(class, id.clone()));
        handle.copied().ok_or(Rv::OBJECT_HANDLE_INVALID)
    }

    /// All handles and objects, the oldest first.
    pub(crate) fn all(&self) -> Vec<(Ulong, Arc<Object>)> {
        let stored = self.stored.iter().map(|(handle, object)| (*handle, object));
        let passing = self.passing.iter();
        let passing = passing.map(|(handle, (_, object))| (*handle, object));
        let mut all: Vec<_> = stored
            .chain(passing)
            .map(|(handle, object)| (handle, object.clone()))
            .collect();
        all.sort_unstable_by_key(|(handle, _)| *handle);
        all
    }
}

/// The common name in a DER Name.
fn common_name(subject: &[u8]) -> Option<String> {
    let name = RdnSequence::from_der(subject).ok()?;
    let mut parts = name.iter().flat_map(|rdn| rdn.iter());
    let value = &parts.find(|part| part.oid == COMMON_NAME)?.value;
    let text = value
        .decode_as::<Utf8StringRef<'_>>()
        .map(|text| text.as_str().to_owned())
        .or_else(|_| {
            let text = value.decode_as::<PrintableStringRef<'_>>();
            text.map(|text| text.as_str().to_owned())
        });
    let text = text.ok()?;
    (1..=devkey::token::MAX_NAME)
        .contains(&text.len())
        .then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign() -> Object {
        Object {
            label: "peer".into(),
            id: Vec::new(),
            body: Body::Foreign(PublicKey::from_ed25519(&[9; 32]).unwrap()),
        }
    }

    /// Fails where `add` does not look at `sessions`, or `end_session` leaves them as they are.
    #[test]
    fn objects_end_with_their_session_and_none_comes_after() {
        let mut objects = Objects::default();
        objects.begin_session(1);
        objects.begin_session(2);
        let ending = objects.add(1, foreign()).unwrap();
        let staying = objects.add(2, foreign()).unwrap();
        objects.end_session(1);
        assert_eq!(objects.get(ending).unwrap_err(), Rv::OBJECT_HANDLE_INVALID);
        assert_eq!(objects.add(1, foreign()), Err(Rv::SESSION_CLOSED));
        let left: Vec<Ulong> = objects.all().iter().map(|(handle, _)| *handle).collect();
        assert_eq!(left, [staying]);
    }
}
