//! The wrapping class: a device that keeps a key inside, and wraps and unwraps with it, but
//! makes no signatures.
//!
//! The root of the token's software keys is random and stands on disk wrapped only. It is unwrapped
//! for each operation that reads it and wiped after. `docs/wrapping.md` is for who brings a device.

mod file;

use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};

use super::soft::{ROOT_LEN, Root};
use crate::error::{Error, Result};
use crate::provider::{Place, ProviderInfo};
use crate::secret::Secret;

/// A device that wraps.
///
/// What it returns need not be authenticated, though it had better be: a root is compared with the
/// check value that the token recorded.
pub trait Wrapper: fmt::Debug + Send + Sync {
    /// Who the device is. `binding` stays `None`: the token is bound by its root. `serial` is what
    /// the hardware itself says, else `None`.
    fn info(&self) -> Result<ProviderInfo>;

    /// The device as messages name it: a path, a key's name.
    fn device(&self) -> String;

    /// Wraps at most 64 bytes so that only this device gives them back.
    ///
    /// # Errors
    /// [`Error::DeviceGone`], [`Error::DeviceError`], [`Error::Unsupported`], each with the remedy.
    fn wrap(&self, secret: &Secret) -> Result<Vec<u8>>;

    /// Gives back what [`Wrapper::wrap`] was given. `wrapped` comes from a file and is hostile.
    ///
    /// # Errors
    /// [`Error::BadBlob`] where this device did not wrap it; otherwise as [`Wrapper::wrap`].
    fn unwrap(&self, wrapped: &[u8]) -> Result<Secret>;
}

/// The root of a token's software keys, wrapped by a device.
#[derive(Debug)]
pub struct WrappedRoot<W> {
    wrapper: W,
    dir: PathBuf,
    binding: Option<String>,
}

impl<W: Wrapper> WrappedRoot<W> {
    /// Makes a root, has it wrapped, and keeps it only if the device gives it back.
    ///
    /// # Errors
    /// [`Error::Exists`] where the token has a root: it is never replaced.
    pub fn create(wrapper: W, place: &Place<'_>) -> Result<Self> {
        let root = Secret::random(ROOT_LEN)?;
        let wrapped = wrapper.wrap(&root)?;
        // A wrapper that only copies would put the root on the disk.
        let shown = wrapped
            .windows(8)
            .any(|part| root.expose().starts_with(part));
        let back = wrapper.unwrap(&wrapped)?;
        if shown || verify_slices_are_equal(root.expose(), back.expose()).is_err() {
            return Err(Error::DeviceError {
                device: wrapper.device(),
                reason: "it does not wrap: the test with a new root failed".to_owned(),
            });
        }
        file::create(place.dir, &wrapped)?;
        Ok(WrappedRoot::open(wrapper, place))
    }

    /// The root that the token has. Touches neither file nor device.
    pub fn open(wrapper: W, place: &Place<'_>) -> Self {
        WrappedRoot {
            wrapper,
            dir: place.dir.to_owned(),
            binding: place.binding.map(str::to_owned),
        }
    }

    fn unwrapped(&self) -> Result<Secret> {
        match self.wrapper.unwrap(&file::read(&self.dir)?) {
            Ok(root) if root.len() == ROOT_LEN => Ok(root),
            Ok(_) | Err(Error::BadBlob) => Err(self.other_device("it does not unwrap")),
            Err(other) => Err(other),
        }
    }

    fn other_device(&self, what: &str) -> Error {
        let path = file::path(&self.dir);
        Error::OtherDevice {
            device: self.wrapper.device(),
            reason: format!(
                "{what} {}; the token works on the machine that it was made on, with that file as \
                 it was",
                path.display()
            ),
        }
    }
}

impl<W: Wrapper> Root for WrappedRoot<W> {
    fn info(&self) -> Result<ProviderInfo> {
        Ok(ProviderInfo {
            binding: Some(check_value(&self.read()?)?),
            ..self.wrapper.info()?
        })
    }

    fn read(&self) -> Result<Secret> {
        let root = self.unwrapped()?;
        match &self.binding {
            Some(binding) if *binding != check_value(&root)? => {
                Err(self.other_device("it unwraps another root from"))
            }
            _ => Ok(root),
        }
    }
}

/// Where the wrapped root of the token in `dir` is.
pub fn path(dir: &Path) -> PathBuf {
    file::path(dir)
}

/// Says which root it is and nothing about it: 16 bytes of HKDF-SHA-256, in hex.
fn check_value(root: &Secret) -> Result<String> {
    let prk = Salt::none(HKDF_SHA256).extract(root.expose());
    let mut value = [0; 32];
    prk.expand(&[b"devkey wrapped root check"], HKDF_SHA256)?
        .fill(&mut value)?;
    Ok(base16ct::lower::encode_string(value.split_at(16).0))
}
