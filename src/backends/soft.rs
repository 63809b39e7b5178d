//! Software keys under a root: what the back ends share whose device gives nothing but 32 secret
//! bytes.
//!
//! Keys of the curves are derived from the root, a salt and the key's auth, so that their blobs
//! hold nothing private at all; RSA keys are wrapped. The root is read for each `generate`, `open`,
//! `seal` and `unseal` and wiped when that returns; an opened key holds its own key and no root.

mod ec;
mod ed25519;
mod header;
mod material;
mod rsa;

use std::fmt;

use crate::error::{Error, Result};
use crate::key::{KeyKind, PublicKey, Scheme, Usage};
use crate::provider::{Blob, Capability, Key, KeyAuth, NewKey, Provider, ProviderInfo};
use crate::secret::Secret;

use header::Header;
use material::Material;

/// The PEM label of a key's blob.
pub const KEY_LABEL: &str = "DEVKEY SOFT KEY";

/// The PEM label of a sealed token secret.
pub const SEALED_LABEL: &str = "DEVKEY SEALED SECRET";

/// Length of a root in bytes.
pub const ROOT_LEN: usize = 32;

/// Where the root comes from: all that tells one such back end from another.
pub trait Root: fmt::Debug + Send + Sync {
    /// Who the device is, as [`Provider::info`].
    fn info(&self) -> Result<ProviderInfo>;

    /// The root: [`ROOT_LEN`] uniformly random bytes, always the same. The caller wipes them
    /// after one operation.
    ///
    /// # Errors
    /// [`Error::OtherDevice`] where it is not the root that the token was made with.
    fn read(&self) -> Result<Secret>;
}

/// A [`Provider`] of software keys under a root.
#[derive(Debug)]
pub struct SoftKeys<R>(R);

impl<R: Root> SoftKeys<R> {
    /// Keys under `root`. Does not read it.
    pub fn new(root: R) -> Self {
        SoftKeys(root)
    }

    fn material(&self, header: Header, auth: &KeyAuth) -> Result<Material> {
        Material::new(&self.0.read()?, auth, header)
    }
}

impl<R: Root> Provider for SoftKeys<R> {
    fn info(&self) -> Result<ProviderInfo> {
        self.0.info()
    }

    fn capabilities(&self) -> Result<Vec<Capability>> {
        Ok(KeyKind::ALL
            .map(|kind| Capability::new(kind, uses(kind)))
            .to_vec())
    }

    fn generate(&self, kind: KeyKind, usage: Usage, auth: &KeyAuth) -> Result<NewKey> {
        check_usage(kind, usage)?;
        let material = self.material(Header::new(header::key(kind, usage, auth))?, auth)?;
        let (public, body) = match kind {
            KeyKind::EcP256 | KeyKind::EcP384 => checked(&material, ec::public(kind, &material)?)?,
            KeyKind::Ed25519 => checked(&material, ed25519::public(&material)?)?,
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => {
                rsa::generate(kind, &material)?
            }
        };
        Ok(NewKey {
            blob: material.header().blob(KEY_LABEL, &body),
            public,
        })
    }

    fn open(
        &self,
        blob: &Blob,
        public: &PublicKey,
        usage: Usage,
        auth: &KeyAuth,
    ) -> Result<Box<dyn Key>> {
        let kind = public.kind();
        let (header, body) = Header::read(blob, KEY_LABEL, header::key(kind, usage, auth))?;
        let material = self.material(header, auth)?;
        if kind.is_rsa() {
            return Ok(Box::new(rsa::RsaKey::open(&material, body, public, usage)?));
        }
        material.verify_tag(public, body)?;
        if kind == KeyKind::Ed25519 {
            return Ok(Box::new(ed25519::Ed25519Key::open(&material, public)?));
        }
        Ok(Box::new(ec::EcKey::open(&material, public, usage)?))
    }

    fn seal(&self, secret: &Secret) -> Result<Blob> {
        let material = self.material(Header::new(header::SEALED)?, &KeyAuth::None)?;
        let sealed = material.wrap(&[], secret)?;
        Ok(material.header().blob(SEALED_LABEL, &sealed))
    }

    fn unseal(&self, blob: &Blob) -> Result<Secret> {
        let (header, sealed) = Header::read(blob, SEALED_LABEL, header::SEALED)?;
        self.material(header, &KeyAuth::None)?.unwrap(&[], sealed)
    }
}

/// What a key of this kind can be used for.
fn uses(kind: KeyKind) -> Usage {
    Usage {
        sign: true,
        agree: kind.is_ec(),
        decrypt: kind.is_rsa(),
    }
}

fn check_usage(kind: KeyKind, usage: Usage) -> Result<()> {
    if !(usage.sign || usage.agree || usage.decrypt) {
        return Err(Error::input("a key that may be used for nothing"));
    }
    if !uses(kind).covers(usage) {
        return Err(Error::unsupported(format!(
            "a {kind} key for more than {}",
            if kind.is_ec() {
                "signing and key agreement"
            } else if kind.is_rsa() {
                "signing and decryption"
            } else {
                "signing"
            }
        )));
    }
    Ok(())
}

/// The body of a derived key's blob is the tag that binds it to root, auth, header and public key.
fn checked(material: &Material, public: PublicKey) -> Result<(PublicKey, Vec<u8>)> {
    let tag = material.tag(&public)?.expose().to_vec();
    Ok((public, tag))
}

fn no_scheme(scheme: Scheme, kind: KeyKind) -> Error {
    Error::input(format!("{scheme:?} is no scheme of {kind}"))
}
