//! The one joint: what a back end is.
//!
//! A back end turns a request into an opaque [`Blob`] plus a public key, and a blob back into a
//! usable key. It has no labels, no CKA_ID, no handles, no database and no prompts, so that it is
//! one file or folder and everything above it can be tested without a device.
//!
//! The conformance suite (`tests/conformance`) is the specification of these traits in code: each
//! back end passes it directly and through the service.

mod attest;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use attest::{
    Attest, Attested, Certified, Credential, EndorsementKey, Identity, MAX_CREDENTIAL,
    MAX_QUALIFYING,
};

use attest::NO_ATTESTATION;

use crate::error::{Error, Result};
use crate::key::{DecryptScheme, KeyKind, PublicKey, Scheme, Usage};
use crate::secret::Secret;

thread_local! {
    static USER: Cell<u32> = const { Cell::new(0) };
}

/// On whose behalf this thread asks devices from now on, by the user's number: where several wait for one device,
/// users take turns.
pub fn ask_for(user: u32) {
    USER.set(user);
}

/// On whose behalf this thread asks devices.
pub(crate) fn user() -> u32 {
    USER.get()
}

/// A source of keys: a TPM, a file, a chip.
///
/// Methods take `&self`; a back end that needs exclusive access to its device holds its own lock.
pub trait Provider: fmt::Debug + Send + Sync {
    /// Who the device is. May ask the device.
    fn info(&self) -> Result<ProviderInfo>;

    /// What the device can do. May ask the device; asked once, when a token is made.
    fn capabilities(&self) -> Result<Vec<Capability>>;

    /// Makes a key pair. Nothing of it outlives the call but the blob.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a kind or usage that is not among the capabilities.
    fn generate(&self, kind: KeyKind, usage: Usage, auth: &KeyAuth) -> Result<NewKey>;

    /// Makes the key of a blob usable. `public` and `usage` are what the record claims.
    ///
    /// A back end whose device is slow or shared asks it at the key's first use only, and says then
    /// what else it would say here.
    ///
    /// # Errors
    /// [`Error::BadBlob`] where the blob is not of this device or does not belong to `public` or
    /// `usage`; [`Error::OtherDevice`], [`Error::DeviceGone`].
    fn open(
        &self,
        blob: &Blob,
        public: &PublicKey,
        usage: Usage,
        auth: &KeyAuth,
    ) -> Result<Box<dyn Key>>;

    /// What the device can seal. A token without a PIN on one that does not seal freely goes
    /// without a secret.
    fn sealing(&self) -> Sealing {
        Sealing::Never
    }

    /// Seals a token's secret so that only this device gives it back, and with
    /// [`KeyAuth::Secret`] only to who has that auth.
    ///
    /// `tries` is how many wrong auths in a row lock it, where the device itself counts them.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where [`Provider::sealing`] does not include it.
    fn seal(&self, secret: &Secret, auth: &KeyAuth, tries: u32) -> Result<Blob> {
        let _ = (secret, auth, tries);
        Err(Error::unsupported("sealing"))
    }

    /// Gives back what [`Provider::seal`] sealed. Where the device counts, a wrong auth costs one
    /// try and nothing else does.
    ///
    /// # Errors
    /// [`Error::WrongPin`] and [`Error::PinLocked`] by a device that counts. By one that does not,
    /// [`Error::BadBlob`] for a wrong auth and a changed blob alike.
    fn unseal(&self, blob: &Blob, auth: &KeyAuth) -> Result<Secret> {
        let _ = (blob, auth);
        Err(Error::unsupported("sealing"))
    }

    /// How many tries the device leaves for a sealed secret; `None` where it does not count.
    /// Costs no try.
    fn tries(&self, blob: &Blob) -> Result<Option<Tries>> {
        let _ = blob;
        Ok(None)
    }

    /// What the device can show of itself to a CA; see [`Attest`]. Most can show nothing.
    fn attest(&self, what: &Attest) -> Result<Attested> {
        let _ = what;
        Err(Error::unsupported(NO_ATTESTATION))
    }

    /// Erases what the device itself keeps of a key or of a sealed secret. Most keep nothing.
    fn forget(&self, blob: &Blob) -> Result<()> {
        let _ = blob;
        Ok(())
    }
}

/// A key ready for use. Dropping it releases the device's handle.
pub trait Key: fmt::Debug + Send + Sync {
    /// Signs a digest, or for [`Scheme::Ed25519`] and [`Scheme::MlDsa`] a message.
    ///
    /// `input` has exactly the length that the scheme wants: the hash's for RSA, the curve's for
    /// ECDSA ([`ecdsa_input`](crate::key::ecdsa_input)). The result has exactly
    /// [`KeyKind::signature_len`] bytes.
    fn sign(&self, scheme: Scheme, input: &[u8]) -> Result<Vec<u8>>;

    /// ECDH (SP 800-56A §5.7.1.2): the x coordinate of the shared point, as long as the field.
    ///
    /// # Errors
    /// [`Error::BadInput`] where `peer` is not a point of the key's own curve.
    fn agree(&self, peer: &PublicKey) -> Result<Secret> {
        let _ = peer;
        Err(Error::unsupported("key agreement"))
    }

    /// Decrypts.
    ///
    /// # Errors
    /// [`Error::Crypto`] for every ciphertext that does not decrypt, whatever the reason.
    fn decrypt(&self, scheme: DecryptScheme, ciphertext: &[u8]) -> Result<Secret> {
        let _ = (scheme, ciphertext);
        Err(Error::unsupported("decryption"))
    }

    /// Has the device's attestation key certify that it holds this key. `qualifying_data`, of 1 to
    /// [`MAX_QUALIFYING`] bytes, stands in what it signs.
    ///
    /// # Errors
    /// [`Error::Unsupported`] by a device that has no such key.
    fn certify(&self, qualifying_data: &[u8]) -> Result<Certified> {
        let _ = qualifying_data;
        Err(Error::unsupported(NO_ATTESTATION))
    }
}

/// What a device can seal; see [`Provider::seal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealing {
    /// Nothing.
    Never,
    /// Secrets with an auth, and counts wrong ones itself.
    UnderAuth,
    /// Secrets with and without an auth; it does not count wrong ones.
    Freely,
}

/// How many tries a PIN has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tries {
    /// Tries left; 0 when locked.
    pub left: u32,
    /// Tries left after a right PIN.
    pub of: u32,
    /// Whether the device counts them; else the token's store does.
    pub by_device: bool,
    /// Seconds after which the device gives a try back by itself; `None` where it never does.
    pub recovery: Option<u64>,
    /// Whether everything else on the device that has a PIN shares these tries.
    pub shared: bool,
}

/// What a provider says of its device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderInfo {
    /// What the device is, for people: at most 16 bytes of ASCII (`CK_TOKEN_INFO.model`).
    pub model: String,
    /// Unique to the hardware and stable for ever where there is hardware: 16 ASCII characters
    /// (`CK_TOKEN_INFO.serialNumber`). `None` where the token's creation makes one.
    pub serial: Option<String>,
    /// What the token records of the device and hands back in [`Place::binding`], so that another
    /// device is noticed. Not secret.
    pub binding: Option<String>,
}

/// One thing that a device can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capability {
    /// Keys of this kind can be made,
    pub kind: KeyKind,
    /// for these uses,
    pub usage: Usage,
    /// and sign by these schemes.
    pub schemes: Vec<Scheme>,
}

impl Capability {
    /// All schemes of a kind, for the given uses.
    pub fn new(kind: KeyKind, usage: Usage) -> Self {
        Capability {
            kind,
            usage,
            schemes: kind.schemes().to_vec(),
        }
    }
}

/// What a back end made of a key: opaque to everything above it.
///
/// Holds nothing private in the clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// The type label of its PEM block (RFC 7468), which names the format.
    pub label: String,
    /// The contents of the PEM block.
    pub bytes: Vec<u8>,
}

/// A key pair that has just been made.
#[derive(Debug)]
pub struct NewKey {
    /// The private half, wrapped.
    pub blob: Blob,
    /// The public half.
    pub public: PublicKey,
}

/// What authorises the use of a key beside the device itself.
#[derive(Debug, Default)]
pub enum KeyAuth {
    /// Nothing: the key of a PIN-less token.
    #[default]
    None,
    /// 32 bytes derived from the secret of a token with a PIN.
    Secret(Secret),
}

impl KeyAuth {
    /// A copy, wiped as the original is.
    pub(crate) fn duplicate(&self) -> Self {
        match self {
            KeyAuth::None => KeyAuth::None,
            KeyAuth::Secret(secret) => KeyAuth::Secret(Secret::new(secret.expose().to_vec())),
        }
    }
}

/// Where a token lives and how its device is reached: all that a back end is opened with.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The token's directory. The back end may keep files of its own here.
    pub dir: &'a Path,
    /// The settings that [`BackEnd::settings`] names.
    pub settings: &'a Settings,
    /// [`ProviderInfo::binding`] as recorded when the token was made.
    pub binding: Option<&'a str>,
}

/// A back end's settings by name, from the token's record and the configuration.
pub type Settings = BTreeMap<String, String>;

/// Where a setting stands in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

/// Why settings are refused, and which one of them where it is one.
#[derive(Debug)]
pub struct BadSetting {
    /// The setting's name.
    pub name: Option<String>,
    /// What is wrong with it.
    pub error: Error,
}

/// A back end as it is registered by a front end: plain data.
#[derive(Debug, Clone, Copy)]
pub struct BackEnd {
    /// Its name in records and configuration.
    pub name: &'static str,
    /// What it is, in a line.
    pub summary: &'static str,
    /// Whether its keys are in hardware.
    pub hardware: bool,
    /// The settings that it knows: name and meaning. One called `timeout` is the time in seconds
    /// that the device is given; clients of the key service wait longer than that.
    pub settings: &'static [(&'static str, &'static str)],
    /// Checks settings without touching a device.
    pub check: fn(&Settings) -> Result<()>,
    /// Whether a token with these settings wants the key service even from programs that have its
    /// back end themselves.
    pub service: fn(&Settings) -> bool,
    /// Prepares a device and directory for a new token.
    pub create: fn(&Place<'_>) -> Result<Arc<dyn Provider>>,
    /// Opens the provider of an existing token. Touches no device: that waits for the first use.
    pub open: fn(&Place<'_>) -> Result<Arc<dyn Provider>>,
}

impl BackEnd {
    /// Checks settings, names and values, without touching a device.
    pub fn check_settings(&self, settings: &Settings) -> Result<(), BadSetting> {
        let known = |name: &str| self.settings.iter().any(|(known, _)| *known == name);
        if let Some(name) = settings.keys().find(|name| !known(name)) {
            return Err(BadSetting {
                name: Some(name.clone()),
                error: self.unknown(name),
            });
        }
        (self.check)(settings).map_err(|error| {
            // The one that by itself is just as wrong.
            let alone = |(name, value): &(&String, &String)| {
                let alone = Settings::from([(String::clone(name), String::clone(value))]);
                (self.check)(&alone).is_err_and(|e| e.to_string() == error.to_string())
            };
            let name = settings.iter().find(alone).map(|(name, _)| name.clone());
            BadSetting { name, error }
        })
    }

    fn unknown(&self, name: &str) -> Error {
        let known: Vec<&str> = self.settings.iter().map(|(name, _)| *name).collect();
        let known = match known.is_empty() {
            true => "it has none".to_owned(),
            false => format!("it has: {}", known.join(", ")),
        };
        let own = self.name;
        Error::input(format!("back end {own} has no setting {name:?}; {known}"))
    }
}

impl fmt::Display for Origin {
    /// As editors take it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

impl From<BadSetting> for Error {
    fn from(bad: BadSetting) -> Self {
        bad.error
    }
}
