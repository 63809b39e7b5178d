//! A token: a store, and the provider whose keys are in it.
//!
//! [`Token`] is what front ends use. It is implemented by [`LocalToken`], whose provider runs in
//! this process, and by the client of the key service, whose provider runs in another.

mod chain;
mod create;
mod login;
mod pin;
mod secret;
mod shared;

use std::fmt;
use std::sync::Arc;

use once_cell::sync::OnceCell;
use serde::{Deserialize, Serialize};

pub use create::{Pins, TokenRequest};
pub use login::{Login, PinState};
pub use pin::{DEFAULT_TRIES, MAX_PIN, MIN_PIN, Pin};

pub use crate::store::record::MAX_NAME;

use crate::error::{Error, Result};
use crate::fork;
use crate::key::{DecryptScheme, KeyKind, PublicKey, Scheme, Usage};
use crate::provider::{
    Attest, Attested, BackEnd, Certified, Key, KeyAuth, Place, Sealing, Settings,
};
use crate::secret::Secret;
use crate::store::record::check_names;
use crate::store::{Certificate, KeyRecord, ObjectId, Role, Store};

use login::Logins;
use secret::TokenSecret;
use shared::{OpenKeys, Shared};

/// A token as front ends see it.
///
/// What is public is read from the [`Store`] and asks no device; the methods here are what a
/// device or a right to write is needed for.
pub trait Token: Login + fmt::Debug + Send + Sync {
    /// The public objects and the token's own record.
    fn store(&self) -> &Store;

    /// Whether an operation can be tried, as far as that costs nothing: a key service that listens
    /// and is not there is noticed before there is anything to sign.
    ///
    /// # Errors
    /// Those of the way to the service.
    fn ready(&self) -> Result<()> {
        Ok(())
    }

    /// Checks a key's record as its first use does; [`Error::Unsupported`] where only a service could.
    fn check(&self, key: &KeyRecord) -> Result<()> {
        let _ = key;
        Err(Error::unsupported(
            "checking a record without using its key",
        ))
    }

    /// Signs; see [`Key::sign`](crate::provider::Key::sign).
    ///
    /// # Errors
    /// [`Error::NotPermitted`] where the key's usage does not include it, and those of the device.
    fn sign(&self, key: &KeyRecord, scheme: Scheme, input: &[u8]) -> Result<Vec<u8>>;

    /// ECDH; see [`Key::agree`](crate::provider::Key::agree).
    fn agree(&self, key: &KeyRecord, peer: &PublicKey) -> Result<Secret>;

    /// Decrypts; see [`Key::decrypt`](crate::provider::Key::decrypt).
    fn decrypt(&self, key: &KeyRecord, scheme: DecryptScheme, ciphertext: &[u8]) -> Result<Secret>;

    /// What the device can show of itself; see [`Attest`].
    fn attest(&self, what: &Attest) -> Result<Attested>;

    /// What the device says of a key; see [`Key::certify`](crate::provider::Key::certify).
    fn certify(&self, key: &KeyRecord, qualifying_data: &[u8]) -> Result<Certified>;

    /// Makes a key pair and stores it.
    fn generate(&self, request: &KeyRequest) -> Result<KeyRecord>;

    /// Stores a certificate.
    fn add_certificate(&self, request: &CertificateRequest) -> Result<Certificate>;

    /// Puts a chain of certificates (DER, that of a key of the token first) in the place of `old`
    /// ones, in one step: whoever lists the certificates finds the old or the new. Without `old` the
    /// chain is added; with an empty one the old ones are removed, with the chains in their files.
    /// Gives the id of the first.
    ///
    /// # Errors
    /// [`Error::BadInput`] where the first certifies no key of the token, or a file also holds the
    /// certificate of another key.
    fn replace_certificates(&self, old: &[ObjectId], chain: &[Vec<u8>])
    -> Result<Option<ObjectId>>;

    /// Changes the label or the `CKA_ID` of an object.
    fn rename(&self, id: &ObjectId, names: &Names) -> Result<()>;

    /// Removes an object. A copy of its file that was made before is not erased.
    fn delete(&self, id: &ObjectId) -> Result<()>;
}

/// What kind of key to make, and its names.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyRequest {
    /// Kind of the key.
    pub kind: KeyKind,
    /// What it may be used for.
    pub usage: Usage,
    /// Its `CKA_LABEL` and `CKA_ID`; by default "key" and [`PublicKey::id`].
    pub names: Names,
}

/// A certificate to store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificateRequest {
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// Its `CKA_LABEL` and `CKA_ID`; by default those of its key.
    pub names: Names,
}

/// The names that a caller may give an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// `CKA_LABEL`, at most [`MAX_NAME`] bytes.
    pub label: Option<String>,
    /// `CKA_ID`, at most [`MAX_NAME`] bytes.
    pub cka_id: Option<Vec<u8>>,
}

impl Names {
    /// # Errors
    /// [`Error::BadInput`] where a name is empty or longer than [`MAX_NAME`].
    pub fn check(&self) -> Result<()> {
        check_names(self.label.as_deref(), self.cka_id.as_deref())
    }
}

/// A token whose provider runs in this process: one view of it, with a login of its own.
pub struct LocalToken {
    shared: Arc<Shared>,
    /// Who gave the PIN of a token that has PINs.
    logins: Logins,
}

impl LocalToken {
    /// Opens a token. Touches no device.
    pub fn open(back_end: &BackEnd, store: Store, settings: &Settings) -> Result<Self> {
        let place = Place {
            dir: store.dir(),
            settings,
            binding: store.token().binding.as_deref(),
        };
        let provider = (back_end.open)(&place)?;
        let shared = Shared {
            store,
            provider,
            secret: OnceCell::new(),
            keys: OpenKeys::default(),
        };
        Ok(LocalToken {
            shared: Arc::new(shared),
            logins: Logins::default(),
        })
    }

    /// Another view of the same token, for another client: nobody is logged in to it, and nobody
    /// sees what wrong PINs were given to the others.
    ///
    /// Views share the device and the keys that are open, so that it costs nothing more when
    /// another one signs. On a token with PINs they do so while they are logged in; with the last
    /// login the keys are closed. A reset through one view ends the logins of all.
    pub fn view(&self) -> LocalToken {
        LocalToken {
            shared: self.shared.clone(),
            logins: Logins::default(),
        }
    }

    /// What MACs and auths are made of; `None` on a token that has neither.
    ///
    /// # Errors
    /// [`Error::LoginRequired`] unless the user of a token with PINs is logged in, and the token was
    /// not reset since.
    fn secret(&self) -> Result<Option<Arc<TokenSecret>>> {
        if !self.store().token().pin {
            let secret = &self.shared.secret;
            return secret.get_or_try_init(|| self.unseal()).cloned();
        }
        let secret = self.logins.secret(Role::User)?;
        self.honoured(&secret)?;
        Ok(Some(secret))
    }

    fn honoured(&self, secret: &Arc<TokenSecret>) -> Result<()> {
        match self.shared.keys.honours(secret) {
            true => Ok(()),
            false => Err(Error::LoginRequired),
        }
    }

    /// The secret of a token without PINs; tried again after a failure.
    ///
    /// That a token has a secret is a fact of its back end: a record without it was cut.
    fn unseal(&self) -> Result<Option<Arc<TokenSecret>>> {
        match (&self.store().token().secret, self.shared.provider.sealing()) {
            (Some(sealed), _) => {
                let secret = self.shared.provider.unseal(sealed, &KeyAuth::None)?;
                Ok(Some(Arc::new(TokenSecret::new(secret, false)?)))
            }
            (None, Sealing::Never | Sealing::UnderAuth) => Ok(None),
            (None, Sealing::Freely) => Err(Error::BadRecord {
                path: self.store().dir().to_owned(),
                reason: "the token's secret is missing from its record".to_owned(),
            }),
        }
    }

    /// The key of a record, opened at its first use, after the record's MAC was checked.
    fn key(&self, record: &KeyRecord) -> Result<Arc<dyn Key>> {
        let secret = self.secret()?;
        if let Some(key) = self.shared.keys.get(secret.as_ref(), record) {
            return Ok(key);
        }
        // The caller's record may be older than the key's deletion, or from before it was written.
        let missing = || Error::NotFound(format!("key {}", record.id));
        let record = self.find(&record.id)?.ok_or_else(missing)?;
        if let Some(secret) = &secret {
            record.check(secret.mac_key())?;
        }
        let key = self.open_key(&record, &auth(&secret, &record.id)?)?;
        Ok(self.shared.keys.keep(secret.as_ref(), &record, key))
    }

    fn open_key(&self, record: &KeyRecord, auth: &KeyAuth) -> Result<Arc<dyn Key>> {
        let (public, usage) = (&record.public, record.usage);
        let key = self
            .shared
            .provider
            .open(&record.blob, public, usage, auth)?;
        Ok(Arc::from(key))
    }

    fn find(&self, id: &ObjectId) -> Result<Option<Arc<KeyRecord>>> {
        Ok(self.store().list()?.key(id).cloned())
    }
}

impl Token for LocalToken {
    fn store(&self) -> &Store {
        &self.shared.store
    }

    fn check(&self, key: &KeyRecord) -> Result<()> {
        let _inside = fork::enter();
        self.key(key).map(drop)
    }

    fn sign(&self, key: &KeyRecord, scheme: Scheme, input: &[u8]) -> Result<Vec<u8>> {
        let _inside = fork::enter();
        Error::permit(key.usage.sign, "sign")?;
        self.key(key)?.sign(scheme, input)
    }

    fn agree(&self, key: &KeyRecord, peer: &PublicKey) -> Result<Secret> {
        let _inside = fork::enter();
        Error::permit(key.usage.agree, "agree on keys")?;
        self.key(key)?.agree(peer)
    }

    fn decrypt(&self, key: &KeyRecord, scheme: DecryptScheme, ciphertext: &[u8]) -> Result<Secret> {
        let _inside = fork::enter();
        Error::permit(key.usage.decrypt, "decrypt")?;
        self.key(key)?.decrypt(scheme, ciphertext)
    }

    fn attest(&self, what: &Attest) -> Result<Attested> {
        let _inside = fork::enter();
        self.shared.provider.attest(what)
    }

    fn certify(&self, key: &KeyRecord, qualifying_data: &[u8]) -> Result<Certified> {
        let _inside = fork::enter();
        self.key(key)?.certify(qualifying_data)
    }

    fn generate(&self, request: &KeyRequest) -> Result<KeyRecord> {
        let _inside = fork::enter();
        request.names.check()?;
        let secret = self.secret()?;
        let id = ObjectId::random()?;
        let auth = auth(&secret, &id)?;
        let made = self
            .shared
            .provider
            .generate(request.kind, request.usage, &auth)?;
        let names = request.names.clone();
        let cka_id = names.cka_id.unwrap_or_else(|| made.public.id());
        let label = names.label.unwrap_or_else(|| "key".to_owned());
        let record = KeyRecord::new(id, label, cka_id, request.usage, made.public, made.blob);
        let mac_key = secret.as_ref().map(|secret| secret.mac_key());
        let stored = self.store().writer().and_then(|writer| {
            // Before another view's reset the device may have been long at it.
            let guarding = secret.as_ref().filter(|secret| secret.guards_keys());
            guarding.map_or(Ok(()), |secret| self.honoured(secret))?;
            writer.put_key(&record, mac_key, false)
        });
        if stored.is_err() {
            // The key was never announced; what the device kept of it is of no use.
            let _ = self.shared.provider.forget(&record.blob);
        }
        stored.map(|()| record)
    }

    fn add_certificate(&self, request: &CertificateRequest) -> Result<Certificate> {
        let _inside = fork::enter();
        request.names.check()?;
        let mut certificate = Certificate::from_der(ObjectId::random_certificate()?, &request.der)?;
        let writer = self.store().writer()?;
        let known = self.store().list()?;
        if let Some(twin) = known.certificates.iter().find(|c| c.der == certificate.der) {
            return Err(Error::Exists(format!("certificate {}", twin.id)));
        }
        certificate.label = request.names.label.clone();
        certificate.cka_id = request.names.cka_id.clone();
        writer.put_certificate(&certificate, false)?;
        Ok(certificate)
    }

    fn replace_certificates(
        &self,
        old: &[ObjectId],
        chain: &[Vec<u8>],
    ) -> Result<Option<ObjectId>> {
        let _inside = fork::enter();
        let writer = self.store().writer()?;
        chain::replace(&writer, &*self.store().list()?, old, chain)
    }

    fn rename(&self, id: &ObjectId, names: &Names) -> Result<()> {
        let _inside = fork::enter();
        names.check()?;
        let writer = self.store().writer()?;
        let listing = self.store().list()?;
        if let Some(key) = listing.key(id) {
            let secret = self.secret()?;
            let mac_key = secret.as_ref().map(|secret| secret.mac_key());
            if let Some(mac_key) = mac_key {
                key.check(mac_key)?;
            }
            let mut key = KeyRecord::clone(key);
            key.label = names.label.clone().unwrap_or(key.label);
            key.cka_id = names.cka_id.clone().unwrap_or(key.cka_id);
            return writer.put_key(&key, mac_key, true);
        }
        let certificate = listing.certificates.iter().find(|c| c.id == *id);
        let missing = || Error::NotFound(format!("object {id}"));
        let mut certificate = Certificate::clone(certificate.ok_or_else(missing)?);
        certificate.label = names.label.clone().or(certificate.label);
        certificate.cka_id = names.cka_id.clone().or(certificate.cka_id);
        writer.put_certificate(&certificate, true)
    }

    fn delete(&self, id: &ObjectId) -> Result<()> {
        let _inside = fork::enter();
        let key = self.find(id)?;
        self.store().writer()?.remove(id)?;
        self.shared.keys.forget(id);
        match key {
            Some(key) => self.shared.provider.forget(&key.blob),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for LocalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalToken")
            .field("dir", &self.store().dir())
            .field("provider", &self.shared.provider)
            .finish_non_exhaustive()
    }
}

/// What authorises a key beside the device.
fn auth(secret: &Option<Arc<TokenSecret>>, key: &ObjectId) -> Result<KeyAuth> {
    match secret {
        Some(secret) => secret.auth(key),
        None => Ok(KeyAuth::None),
    }
}
