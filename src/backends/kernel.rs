//! The kernel back end: software keys whose root is wrapped by a key that only the Linux kernel
//! has.
//!
//! That key is a *trusted* key, which the kernel has sealed by a TPM, TEE or CAAM, or an
//! *encrypted* key under another one (keyrings(7), Documentation/security/keys/trusted-encrypted.rst).
//! No program can read either. The kernel computes an HMAC with it through an AF_ALG socket, and what
//! that makes of a random salt wraps the root. Linux 6.2 or later.

mod alg;
mod blob;
mod keyring;
mod settings;

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};

use super::soft::SoftKeys;
use super::wrapped::{WrappedRoot, Wrapper};
use crate::error::{Error, Result};
use crate::provider::{BackEnd, Place, Provider, ProviderInfo};
use crate::secret::Secret;

use keyring::{Name, Serial};
use settings::{Options, Source};

/// How the kernel back end is registered.
pub const BACK_END: BackEnd = BackEnd {
    name: "kernel",
    summary: "keys under a root that a key of the Linux kernel wraps",
    // The keys themselves are in memory while they are used.
    hardware: false,
    settings: settings::KNOWN,
    check: |settings| Options::read(settings).map(drop),
    service: |_| false,
    create,
    open,
};

/// What the HMAC is taken of, before the salt.
const LABEL: &[u8] = b"devkey kernel wrap 1\0";
/// Length of the salt of a wrapped secret in bytes.
const SALT_LEN: usize = 32;
/// A wrapping key has a salt of its own and encrypts once; SIV (RFC 8452) for a generator that
/// repeats itself.
const NONCE: [u8; 12] = [0; 12];

/// A key of the kernel, in use as a wrapping device.
#[derive(Debug)]
struct KernelKey {
    options: Options,
    dir: PathBuf,
}

fn create(place: &Place<'_>) -> Result<Arc<dyn Provider>> {
    let key = KernelKey::new(place)?;
    // Before a key is made, and says best what this kernel lacks.
    alg::probe()?;
    if let Source::Own(recipe) = &key.options.source {
        blob::create(place.dir, &keyring::make(recipe)?)?;
    }
    Ok(Arc::new(SoftKeys::new(WrappedRoot::create(key, place)?)))
}

fn open(place: &Place<'_>) -> Result<Arc<dyn Provider>> {
    let key = KernelKey::new(place)?;
    Ok(Arc::new(SoftKeys::new(WrappedRoot::open(key, place))))
}

impl KernelKey {
    fn new(place: &Place<'_>) -> Result<Self> {
        Ok(KernelKey {
            options: Options::read(place.settings)?,
            dir: place.dir.to_owned(),
        })
    }

    /// The key, loaded if it is not.
    fn serial(&self) -> Result<Serial> {
        match &self.options.source {
            Source::Loaded(description) => {
                keyring::find(&Name::new(self.options.kind, description))
            }
            Source::Own(recipe) => keyring::load(recipe, &blob::read(&self.dir)?),
        }
    }

    /// The key that wraps one secret: HMAC-SHA-256 of label and salt, by the kernel.
    fn wrapping_key(&self, salt: &[u8]) -> Result<LessSafeKey> {
        let key = alg::hmac(self.serial()?, &[LABEL, salt].concat())?;
        Ok(LessSafeKey::new(UnboundKey::new(
            &AES_256_GCM_SIV,
            key.expose(),
        )?))
    }
}

impl Wrapper for KernelKey {
    fn info(&self) -> Result<ProviderInfo> {
        Ok(ProviderInfo {
            model: format!("Kernel {}", self.options.kind),
            serial: None,
            binding: None,
        })
    }

    fn device(&self) -> String {
        match &self.options.source {
            Source::Loaded(description) => Name::new(self.options.kind, description).to_string(),
            Source::Own(recipe) => recipe.to_string(),
        }
    }

    fn wrap(&self, secret: &Secret) -> Result<Vec<u8>> {
        let salt = Secret::random(SALT_LEN)?;
        let mut buffer = Secret::new(secret.expose().to_vec());
        let tag = self
            .wrapping_key(salt.expose())?
            .seal_in_place_separate_tag(nonce(), Aad::from(LABEL), buffer.expose_mut())?;
        Ok([salt.expose(), buffer.expose(), tag.as_ref()].concat())
    }

    fn unwrap(&self, wrapped: &[u8]) -> Result<Secret> {
        let (salt, sealed) = wrapped.split_at_checked(SALT_LEN).ok_or(Error::BadBlob)?;
        let mut buffer = Secret::new(sealed.to_vec());
        let key = self.wrapping_key(salt)?;
        let opened = key.open_in_place(nonce(), Aad::from(LABEL), buffer.expose_mut());
        let len = opened.map_err(|_| Error::BadBlob)?.len();
        buffer.truncate(len);
        Ok(buffer)
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key(NONCE)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::provider::Settings;

    /// Under a storage key that no TPM has, no kernel makes a trusted key, and each says why. The
    /// machines of `make vm-test` say each in turn. Seen to fail with a blob written before
    /// `alg::probe`.
    #[test]
    fn what_is_missing_is_named_and_nothing_is_left() {
        let dir = TempDir::new().unwrap();
        let settings = Settings::from([("keyhandle".to_owned(), "0x81fffffe".to_owned())]);
        let place = Place {
            dir: dir.path(),
            settings: &settings,
            binding: None,
        };
        let said = match create(&place).map(drop) {
            Err(e @ (Error::Unsupported(_) | Error::DeviceGone { .. })) => e.to_string(),
            other => panic!("{other:?}"),
        };
        let remedies = ["CONFIG_", "Linux 6.2", "tpm2_evictcontrol", "sandbox"];
        let named = remedies.iter().any(|remedy| said.contains(remedy));
        assert!(named, "{said}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// Seen to fail with `KernelKey::serial` called in `open`.
    #[test]
    fn opening_asks_no_kernel() {
        let dir = TempDir::new().unwrap();
        let place = Place {
            dir: dir.path(),
            settings: &Settings::new(),
            binding: Some("0"),
        };
        let provider = open(&place).unwrap();
        assert!(!provider.capabilities().unwrap().is_empty());
    }
}
