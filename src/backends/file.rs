//! The file back end: software keys whose root is a file in the token's directory.
//!
//! Whoever can read that file has every key of a token without a PIN: its owner and mode are all
//! the protection there is, and they are checked at each reading.

mod root;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};

use super::soft::{Root, SoftKeys};
use crate::error::{Error, Result};
use crate::provider::{BackEnd, Place, Provider, ProviderInfo, Settings};
use crate::secret::Secret;

/// How the file back end is registered.
pub const BACK_END: BackEnd = BackEnd {
    name: "file",
    summary: "keys under a secret file in the token's directory",
    settings: &[],
    check,
    create,
    open,
};

/// The root's file in the token's directory.
#[derive(Debug)]
struct FileRoot {
    dir: PathBuf,
    binding: Option<String>,
}

impl Root for FileRoot {
    fn info(&self) -> Result<ProviderInfo> {
        Ok(ProviderInfo {
            model: "File".to_owned(),
            serial: None,
            binding: Some(check_value(&self.read()?)?),
        })
    }

    fn read(&self) -> Result<Secret> {
        let root = root::read(&self.dir)?;
        match &self.binding {
            Some(binding) if *binding != check_value(&root)? => Err(Error::OtherDevice {
                device: root::path(&self.dir).display().to_string(),
                reason: "it holds another root; put back the one that was there".to_owned(),
            }),
            _ => Ok(root),
        }
    }
}

fn check(settings: &Settings) -> Result<()> {
    match settings.keys().next() {
        Some(name) => Err(Error::input(format!(
            "a file token has no setting {name:?}"
        ))),
        None => Ok(()),
    }
}

fn create(place: &Place<'_>) -> Result<Arc<dyn Provider>> {
    check(place.settings)?;
    root::create(place.dir)?;
    Ok(provider(place.dir, None))
}

fn open(place: &Place<'_>) -> Result<Arc<dyn Provider>> {
    check(place.settings)?;
    Ok(provider(place.dir, place.binding))
}

fn provider(dir: &Path, binding: Option<&str>) -> Arc<dyn Provider> {
    Arc::new(SoftKeys::new(FileRoot {
        dir: dir.to_owned(),
        binding: binding.map(str::to_owned),
    }))
}

/// Says which root it is and nothing about it: 16 bytes of HKDF-SHA-256, in hex.
fn check_value(root: &Secret) -> Result<String> {
    let prk = Salt::none(HKDF_SHA256).extract(root.expose());
    let mut value = [0; 32];
    prk.expand(&[b"devkey file root check"], HKDF_SHA256)?
        .fill(&mut value)?;
    Ok(value
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
