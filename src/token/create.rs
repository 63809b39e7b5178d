//! Making a token, and the test of what its device can do.

use std::path::Path;

use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P384};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};

use super::LocalToken;
use super::login::seal_pin;
use super::pin::Pin;
use super::secret::TokenSecret;
use crate::error::{Error, Result};
use crate::key::{DecryptScheme, Hash, KeyKind, PublicKey, Scheme, Usage, ecdsa_input};
use crate::provider::{BackEnd, Capability, Key, KeyAuth, Place, Provider, Sealing, Settings};
use crate::secret::Secret;
use crate::store::record::FORMAT;
use crate::store::{PinRecord, Role, Store, TokenRecord, Writer};

/// What a new token is made of.
#[derive(Debug)]
pub struct TokenRequest<'a> {
    /// Where it shall live; must not exist.
    pub dir: &'a Path,
    /// Its label, at most 32 bytes.
    pub label: &'a str,
    /// Settings for the back end.
    pub settings: Settings,
    /// Its PINs; `None` for one whose keys want no login.
    pub pins: Option<Pins<'a>>,
}

/// The PINs of a new token.
#[derive(Debug)]
pub struct Pins<'a> {
    /// The user's; without it, nobody uses a key until the SO has set one.
    pub user: Option<&'a Pin>,
    /// The SO's; without it, a user's PIN that is locked or forgotten stays so.
    pub so: Option<&'a Pin>,
    /// Wrong PINs in a row that lock either; [`DEFAULT_TRIES`](super::DEFAULT_TRIES) is a good
    /// choice.
    pub tries: u32,
}

impl LocalToken {
    /// Makes a token: prepares the device, tests what it can do and writes the token's record.
    pub fn create(back_end: &BackEnd, request: &TokenRequest<'_>) -> Result<Self> {
        LocalToken::create_as(back_end, request, false)
    }

    /// As [`LocalToken::create`]; of an `open` one all users may read what is public.
    pub fn create_as(back_end: &BackEnd, request: &TokenRequest<'_>, open: bool) -> Result<Self> {
        check_label(request.label)?;
        request.pins.as_ref().map_or(Ok(()), Pins::check)?;
        back_end.check_settings(&request.settings)?;
        let store = Store::create_as(request.dir, open, |dir| {
            let place = Place {
                dir,
                settings: &request.settings,
                binding: None,
            };
            let provider = (back_end.create)(&place)?;
            let record = describe(back_end, &*provider, request)?;
            if let Some(pins) = &request.pins {
                pins.write(dir, &*provider, &record.serial)?;
            }
            Ok(record)
        })?;
        LocalToken::open(back_end, store, &request.settings)
    }
}

impl Pins<'_> {
    fn check(&self) -> Result<()> {
        if self.user.is_none() && self.so.is_none() {
            return Err(Error::input("a token with a login needs a PIN"));
        }
        match self.tries {
            3..=100 => Ok(()),
            _ => Err(Error::input("a PIN has 3 to 100 tries")),
        }
    }

    /// Seals a new secret under each PIN. What a device keeps of one goes if the other fails.
    fn write(&self, dir: &Path, provider: &dyn Provider, serial: &str) -> Result<()> {
        let secret = TokenSecret::fresh()?;
        let mut sealed: Vec<PinRecord> = Vec::new();
        let mut write = |role, pin: Option<&Pin>| {
            let Some(pin) = pin else {
                return Ok(());
            };
            let record = seal_pin(provider, role, pin, self.tries, serial, &secret)?;
            sealed.push(record.clone());
            Writer::at(dir)?.put_pin(&record, secret.mac_key())
        };
        let written = write(Role::User, self.user).and_then(|()| write(Role::So, self.so));
        if written.is_err() {
            for record in &sealed {
                let _ = provider.forget(&record.sealed);
            }
        }
        written
    }
}

/// The record of a token that is being made.
fn describe(
    back_end: &BackEnd,
    provider: &dyn Provider,
    request: &TokenRequest<'_>,
) -> Result<TokenRecord> {
    let info = provider.info()?;
    let secret = match provider.sealing() {
        _ if request.pins.is_some() => None,
        Sealing::Freely => Some(provider.seal(&Secret::random(32)?, &KeyAuth::None, 0)?),
        Sealing::Never | Sealing::UnderAuth => None,
    };
    let made_up = || Ok::<_, Error>(base16ct::lower::encode_string(Secret::random(8)?.expose()));
    Ok(TokenRecord {
        version: FORMAT,
        label: request.label.to_owned(),
        serial: info.serial.map_or_else(made_up, Ok)?,
        model: info.model,
        back_end: back_end.name.to_owned(),
        hardware: back_end.hardware,
        binding: info.binding,
        settings: request.settings.clone(),
        pin: request.pins.is_some(),
        capabilities: proven(provider, request.pins.is_some())?,
        secret,
    })
}

/// Those capabilities that a test with a real key bears out.
///
/// One size of RSA speaks for all: making a key of each would take a hardware TPM minutes.
fn proven(provider: &dyn Provider, guarded: bool) -> Result<Vec<Capability>> {
    let auth = match guarded {
        true => KeyAuth::Secret(Secret::random(32)?),
        false => KeyAuth::None,
    };
    let mut rsa: Option<Capability> = None;
    let mut proven = Vec::new();
    for capability in provider.capabilities()? {
        let mut works = match rsa.as_ref().filter(|_| capability.kind.is_rsa()) {
            Some(known) => known.clone(),
            None => tried(provider, &capability, &auth)?,
        };
        if capability.kind.is_rsa() {
            rsa = Some(works.clone());
        }
        works.kind = capability.kind;
        works
            .schemes
            .retain(|scheme| capability.schemes.contains(scheme));
        works.usage = works.usage.and(capability.usage);
        if works.usage != Usage::NOTHING {
            proven.push(works);
        }
    }
    Ok(proven)
}

/// Makes a key for all uses, tries each, and keeps what works.
fn tried(provider: &dyn Provider, claimed: &Capability, auth: &KeyAuth) -> Result<Capability> {
    let made = provider.generate(claimed.kind, claimed.usage, auth)?;
    let key = provider.open(&made.blob, &made.public, claimed.usage, auth)?;
    let passed = |what: &str, result: Result<()>| match result {
        Ok(()) => true,
        Err(e) => {
            log::warn!("{}: {what} is left out: {e}", claimed.kind);
            false
        }
    };
    let mut works = claimed.clone();
    works.schemes.retain(|scheme| {
        claimed.usage.sign && passed(&format!("{scheme:?}"), signs(&*key, &made.public, *scheme))
    });
    works.usage = Usage {
        sign: !works.schemes.is_empty(),
        agree: claimed.usage.agree && passed("key agreement", agrees(&*key, &made.public)),
        decrypt: claimed.usage.decrypt && passed("decryption", decrypts(&*key, &made.public)),
    };
    drop(key);
    provider.forget(&made.blob)?;
    Ok(works)
}

fn signs(key: &dyn Key, public: &PublicKey, scheme: Scheme) -> Result<()> {
    let input = match scheme {
        Scheme::Ecdsa => ecdsa_input(public.kind(), &[0x5a; 32])?,
        Scheme::RsaPkcs1(hash) | Scheme::RsaPss(hash) => vec![0x5a; hash.size()],
        Scheme::Ed25519 | Scheme::MlDsa => b"devkey self-test".to_vec(),
    };
    public.verify(scheme, &input, &key.sign(scheme, &input)?)
}

/// Agrees with a key in software and compares both sides' secrets.
fn agrees(key: &dyn Key, public: &PublicKey) -> Result<()> {
    let curve = match public.kind() {
        KeyKind::EcP256 => &ECDH_P256,
        KeyKind::EcP384 => &ECDH_P384,
        kind => return Err(Error::unsupported(format!("key agreement with {kind}"))),
    };
    let peer = agreement::PrivateKey::generate(curve)?;
    let point = PublicKey::from_sec1(public.kind(), peer.compute_public_key()?.as_ref())?;
    let ours = key.agree(&point)?;
    let device = agreement::UnparsedPublicKey::new(curve, public.point().unwrap_or_default());
    agreement::agree(&peer, device, Error::Crypto, |theirs| {
        match ours.expose() == theirs {
            true => Ok(()),
            false => Err(Error::Crypto),
        }
    })
}

/// # Errors
/// [`Error::BadInput`] for what `CK_TOKEN_INFO.label` does not hold.
pub(super) fn check_label(label: &str) -> Result<()> {
    match label.len() {
        1..=32 => Ok(()),
        _ => Err(Error::input("a token's label has 1 to 32 bytes")),
    }
}

/// Encrypts in software and decrypts with the key.
fn decrypts(key: &dyn Key, public: &PublicKey) -> Result<()> {
    let message = b"devkey self-test";
    let to = PublicEncryptingKey::from_der(&public.to_spki()).map_err(|_| Error::Crypto)?;
    let to = OaepPublicEncryptingKey::new(to)?;
    let mut sealed = vec![0; to.ciphertext_size()];
    to.encrypt(&OAEP_SHA256_MGF1SHA256, message, &mut sealed, None)?;
    let opened = key.decrypt(DecryptScheme::RsaOaep(Hash::Sha256), &sealed)?;
    match opened.expose() == message {
        true => Ok(()),
        false => Err(Error::Crypto),
    }
}
