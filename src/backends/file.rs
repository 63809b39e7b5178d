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
    hardware: false,
    settings: &[],
    check,
    service: |_| false,
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
    Ok(base16ct::lower::encode_string(value.split_at(16).0))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::key::{KeyKind, Usage};
    use crate::provider::KeyAuth;

    fn at<'a>(dir: &'a TempDir, settings: &'a Settings) -> Place<'a> {
        Place {
            dir: dir.path(),
            settings,
            binding: None,
        }
    }

    fn generate(provider: &dyn Provider) -> Result<()> {
        provider
            .generate(KeyKind::EcP256, Usage::SIGN, &KeyAuth::None)
            .map(drop)
    }

    /// Seen to fail with the root read in `open`.
    #[test]
    fn opening_touches_nothing() {
        let (dir, none) = (TempDir::new().unwrap(), Settings::new());
        let early = open(&at(&dir, &none)).unwrap();
        early.capabilities().unwrap();
        let missing = generate(&*early);
        assert!(
            matches!(missing, Err(Error::DeviceGone { .. })),
            "{missing:?}"
        );
        create(&at(&dir, &none)).unwrap();
        generate(&*early).unwrap();
    }

    /// Seen to fail without the comparison in `FileRoot::read`.
    #[test]
    fn a_root_that_is_exchanged_is_noticed_in_a_running_process() {
        let (dir, none) = (TempDir::new().unwrap(), Settings::new());
        let binding = create(&at(&dir, &none)).unwrap().info().unwrap().binding;
        let place = Place {
            binding: binding.as_deref(),
            ..at(&dir, &none)
        };
        let provider = open(&place).unwrap();
        generate(&*provider).unwrap();
        std::fs::remove_file(root::path(dir.path())).unwrap();
        create(&at(&dir, &none)).unwrap();
        let other = generate(&*provider);
        assert!(matches!(other, Err(Error::OtherDevice { .. })), "{other:?}");
    }

    /// HKDF of the bytes 0, 1, 2, … 31, computed by Python's hmac: records hold this value.
    #[test]
    fn the_check_value_is_what_it_always_was() {
        let root = Secret::new((0..32).collect());
        assert_eq!(
            check_value(&root).unwrap(),
            "c9495ca59cbbeb5be80f7cd964794cde"
        );
    }

    #[test]
    fn there_are_no_settings() {
        let some = Settings::from([("path".to_owned(), "/dev/null".to_owned())]);
        assert!(matches!(check(&some), Err(Error::BadInput(_))));
    }
}
