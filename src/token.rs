//! A token: a store, and the provider whose keys are in it.
//!
//! [`Token`] is what front ends use. It is implemented by [`LocalToken`], whose provider runs in
//! this process, and by the client of the key service, whose provider runs in another.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::{hkdf, hmac};
use once_cell::sync::OnceCell;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::key::{DecryptScheme, KeyKind, PublicKey, Scheme, Usage, ecdsa_input};
use crate::provider::{BackEnd, Capability, Key, KeyAuth, Place, Provider, Settings};
use crate::secret::Secret;
use crate::store::record::FORMAT;
use crate::store::{Certificate, KeyRecord, ObjectId, Store, TokenRecord};

/// A token as front ends see it.
///
/// What is public is read from the [`Store`] and asks no device; the methods here are what a
/// device or a right to write is needed for.
pub trait Token: fmt::Debug + Send + Sync {
    /// The public objects and the token's own record.
    fn store(&self) -> &Store;

    /// Signs; see [`Key::sign`](crate::provider::Key::sign).
    ///
    /// # Errors
    /// [`Error::NotPermitted`] where the key's usage does not include it, and those of the device.
    fn sign(&self, key: &KeyRecord, scheme: Scheme, input: &[u8]) -> Result<Vec<u8>>;

    /// ECDH; see [`Key::agree`](crate::provider::Key::agree).
    fn agree(&self, key: &KeyRecord, peer: &PublicKey) -> Result<Secret>;

    /// Decrypts; see [`Key::decrypt`](crate::provider::Key::decrypt).
    fn decrypt(&self, key: &KeyRecord, scheme: DecryptScheme, ciphertext: &[u8]) -> Result<Secret>;

    /// Makes a key pair and stores it.
    fn generate(&self, request: &KeyRequest) -> Result<KeyRecord>;

    /// Stores a certificate.
    fn add_certificate(&self, request: &CertificateRequest) -> Result<Certificate>;

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

/// Longest `CKA_LABEL` and `CKA_ID` in bytes: OpenSSH reads both into 255 bytes, and one that is
/// longer makes it drop every key of the token.
pub const MAX_NAME: usize = 255;

impl Names {
    /// # Errors
    /// [`Error::BadInput`] where a name is empty or longer than [`MAX_NAME`].
    pub fn check(&self) -> Result<()> {
        let lengths = [
            ("a label", self.label.as_ref().map(String::len)),
            ("an ID", self.cka_id.as_ref().map(Vec::len)),
        ];
        for (what, length) in lengths {
            if length.is_some_and(|length| length == 0 || length > MAX_NAME) {
                return Err(Error::input(format!("{what} has 1 to {MAX_NAME} bytes")));
            }
        }
        Ok(())
    }
}

/// What a new token is made of.
#[derive(Debug)]
pub struct TokenRequest<'a> {
    /// Where it shall live; must not exist.
    pub dir: &'a Path,
    /// Its label, at most 32 bytes.
    pub label: &'a str,
    /// Settings for the back end.
    pub settings: Settings,
}

/// A token whose provider runs in this process.
pub struct LocalToken {
    store: Store,
    provider: Arc<dyn Provider>,
    mac_key: OnceCell<Option<hmac::Key>>,
    /// Keys in use, each with the record that it was opened from.
    open: Mutex<HashMap<ObjectId, OpenKey>>,
}

type OpenKey = (Vec<u8>, Arc<dyn Key>);

impl LocalToken {
    /// Makes a token: prepares the device, tests what it can do and writes the token's record.
    pub fn create(back_end: &BackEnd, request: &TokenRequest<'_>) -> Result<Self> {
        if request.label.is_empty() || request.label.len() > 32 {
            return Err(Error::input("a token's label has 1 to 32 bytes"));
        }
        (back_end.check)(&request.settings)?;
        let store = Store::create(request.dir, |dir| {
            let place = Place {
                dir,
                settings: &request.settings,
                binding: None,
            };
            describe(back_end, &*(back_end.create)(&place)?, request)
        })?;
        let settings = request.settings.clone();
        LocalToken::open(back_end, store, &settings)
    }

    /// Opens a token. Touches no device.
    pub fn open(back_end: &BackEnd, store: Store, settings: &Settings) -> Result<Self> {
        let place = Place {
            dir: store.dir(),
            settings,
            binding: store.token().binding.as_deref(),
        };
        let provider = (back_end.open)(&place)?;
        Ok(LocalToken {
            store,
            provider,
            mac_key: OnceCell::new(),
            open: Mutex::default(),
        })
    }

    /// The key that the MACs of the token's records are made with; tried again after a failure.
    fn mac_key(&self) -> Result<Option<&hmac::Key>> {
        let key = self.mac_key.get_or_try_init(|| {
            let sealed = self.store.token().secret.as_ref();
            let secret = sealed
                .map(|sealed| self.provider.unseal(sealed))
                .transpose()?;
            secret.map(|secret| mac_key(&secret)).transpose()
        })?;
        Ok(key.as_ref())
    }

    /// The key of a record, opened at its first use, after the record's MAC was checked.
    fn key(&self, record: &KeyRecord) -> Result<Arc<dyn Key>> {
        let known = |open: &HashMap<ObjectId, OpenKey>| {
            let (blob, key) = open.get(&record.id)?;
            (*blob == record.blob.bytes).then(|| key.clone())
        };
        if let Some(key) = known(&self.open.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(key);
        }
        // The caller's record may be older than the key's deletion, or from before it was written.
        let missing = || Error::NotFound(format!("key {}", record.id));
        let record = self.find(&record.id)?.ok_or_else(missing)?;
        if let Some(mac_key) = self.mac_key()? {
            record.check(mac_key)?;
        }
        let key = self.open_key(&record)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(record.id.clone(), (record.blob.bytes.clone(), key.clone()));
        Ok(key)
    }

    fn open_key(&self, record: &KeyRecord) -> Result<Arc<dyn Key>> {
        let (public, usage) = (&record.public, record.usage);
        let key = self
            .provider
            .open(&record.blob, public, usage, &KeyAuth::None)?;
        Ok(Arc::from(key))
    }

    fn forget(&self, id: &ObjectId) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(id);
    }

    fn find(&self, id: &ObjectId) -> Result<Option<Arc<KeyRecord>>> {
        Ok(self.store.list()?.key(id).cloned())
    }
}

impl Token for LocalToken {
    fn store(&self) -> &Store {
        &self.store
    }

    fn sign(&self, key: &KeyRecord, scheme: Scheme, input: &[u8]) -> Result<Vec<u8>> {
        permit(key.usage.sign, "sign")?;
        self.key(key)?.sign(scheme, input)
    }

    fn agree(&self, key: &KeyRecord, peer: &PublicKey) -> Result<Secret> {
        permit(key.usage.agree, "agree on keys")?;
        self.key(key)?.agree(peer)
    }

    fn decrypt(&self, key: &KeyRecord, scheme: DecryptScheme, ciphertext: &[u8]) -> Result<Secret> {
        permit(key.usage.decrypt, "decrypt")?;
        self.key(key)?.decrypt(scheme, ciphertext)
    }

    fn generate(&self, request: &KeyRequest) -> Result<KeyRecord> {
        request.names.check()?;
        let mac_key = self.mac_key()?;
        let made = self
            .provider
            .generate(request.kind, request.usage, &KeyAuth::None)?;
        let names = request.names.clone();
        let id = names.cka_id.unwrap_or_else(|| made.public.id());
        let label = names.label.unwrap_or_else(|| "key".to_owned());
        let record = KeyRecord::new(label, id, request.usage, made.public, made.blob)?;
        let stored = self.store.put_key(&record, mac_key, false);
        if stored.is_err() {
            // The key was never announced; what the device kept of it is of no use.
            let _ = self.provider.forget(&record.blob);
        }
        stored.map(|()| record)
    }

    fn add_certificate(&self, request: &CertificateRequest) -> Result<Certificate> {
        request.names.check()?;
        let mut certificate = Certificate::from_der(ObjectId::random()?, &request.der)?;
        let known = self.store.list()?;
        if let Some(twin) = known.certificates.iter().find(|c| c.der == certificate.der) {
            return Err(Error::Exists(format!("certificate {}", twin.id)));
        }
        certificate.label = request.names.label.clone();
        certificate.cka_id = request.names.cka_id.clone();
        self.store.put_certificate(&certificate, false)?;
        Ok(certificate)
    }

    fn rename(&self, id: &ObjectId, names: &Names) -> Result<()> {
        names.check()?;
        let listing = self.store.list()?;
        if let Some(key) = listing.key(id) {
            let mac_key = self.mac_key()?;
            if let Some(mac_key) = mac_key {
                key.check(mac_key)?;
            }
            let mut key = KeyRecord::clone(key);
            key.label = names.label.clone().unwrap_or(key.label);
            key.cka_id = names.cka_id.clone().unwrap_or(key.cka_id);
            return self.store.put_key(&key, mac_key, true);
        }
        let certificate = listing.certificates.iter().find(|c| c.id == *id);
        let missing = || Error::NotFound(format!("object {id}"));
        let mut certificate = Certificate::clone(certificate.ok_or_else(missing)?);
        certificate.label = names.label.clone().or(certificate.label);
        certificate.cka_id = names.cka_id.clone().or(certificate.cka_id);
        self.store.put_certificate(&certificate, true)
    }

    fn delete(&self, id: &ObjectId) -> Result<()> {
        let key = self.find(id)?;
        self.store.remove(id)?;
        self.forget(id);
        match key {
            Some(key) => self.provider.forget(&key.blob),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for LocalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalToken")
            .field("dir", &self.store.dir())
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

/// The record of a token that is being made.
fn describe(
    back_end: &BackEnd,
    provider: &dyn Provider,
    request: &TokenRequest<'_>,
) -> Result<TokenRecord> {
    let info = provider.info()?;
    let secret = match provider.seal(&Secret::random(32)?) {
        Ok(sealed) => Some(sealed),
        Err(Error::Unsupported(_)) => None,
        Err(e) => return Err(e),
    };
    let made_up = || Ok::<_, Error>(base16ct::lower::encode_string(Secret::random(8)?.expose()));
    Ok(TokenRecord {
        version: FORMAT,
        label: request.label.to_owned(),
        serial: info.serial.map_or_else(made_up, Ok)?,
        model: info.model,
        back_end: back_end.name.to_owned(),
        binding: info.binding,
        settings: request.settings.clone(),
        capabilities: proven(provider)?,
        secret,
    })
}

/// Those capabilities that a test with a real key bears out.
///
/// One size of RSA speaks for all: making a key of each would take a hardware TPM minutes.
fn proven(provider: &dyn Provider) -> Result<Vec<Capability>> {
    let mut rsa = None;
    let mut proven = Vec::new();
    for mut capability in provider.capabilities()? {
        let works = match rsa.as_ref().filter(|_| capability.kind.is_rsa()) {
            Some(known) => Vec::clone(known),
            None => working_schemes(provider, &capability)?,
        };
        if capability.kind.is_rsa() {
            rsa = Some(works.clone());
        }
        capability.schemes.retain(|scheme| works.contains(scheme));
        if !capability.schemes.is_empty() {
            proven.push(capability);
        }
    }
    Ok(proven)
}

/// Makes a key, signs with each scheme and keeps the schemes whose signatures verify.
fn working_schemes(provider: &dyn Provider, capability: &Capability) -> Result<Vec<Scheme>> {
    let auth = KeyAuth::None;
    let made = provider.generate(capability.kind, Usage::SIGN, &auth)?;
    let key = provider.open(&made.blob, &made.public, Usage::SIGN, &auth)?;
    let works = |scheme: &Scheme| {
        let input = self_test_input(*scheme, capability.kind)?;
        let signature = key.sign(*scheme, &input)?;
        made.public.verify(*scheme, &input, &signature)
    };
    let passed = |scheme: &Scheme| match works(scheme) {
        Ok(()) => true,
        Err(e) => {
            log::warn!("{} with {scheme:?} is left out: {e}", capability.kind);
            false
        }
    };
    let schemes = capability.schemes.iter().copied().filter(passed).collect();
    provider.forget(&made.blob)?;
    Ok(schemes)
}

fn self_test_input(scheme: Scheme, kind: KeyKind) -> Result<Vec<u8>> {
    match scheme {
        Scheme::Ecdsa => ecdsa_input(kind, &[0x5a; 32]),
        Scheme::RsaPkcs1(hash) | Scheme::RsaPss(hash) => Ok(vec![0x5a; hash.size()]),
        Scheme::Ed25519 => Ok(b"devkey self-test".to_vec()),
    }
}

/// The key of the records' MACs: HKDF-SHA-256 (RFC 5869) of the token's secret.
fn mac_key(secret: &Secret) -> Result<hmac::Key> {
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"devkey token secret v1");
    let prk = salt.extract(secret.expose());
    Ok(hmac::Key::from(
        prk.expand(&[b"record mac"], hmac::HMAC_SHA256)?,
    ))
}

fn permit(allowed: bool, what: &str) -> Result<()> {
    match allowed {
        true => Ok(()),
        false => Err(Error::NotPermitted(what.to_owned())),
    }
}
