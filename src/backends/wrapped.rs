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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap};
    use tempfile::TempDir;

    use super::*;
    use crate::backends::soft::SoftKeys;
    use crate::key::{KeyKind, Scheme, Usage, ecdsa_input};
    use crate::provider::{KeyAuth, Provider, Settings};

    /// What a chip may do: AES key wrap (RFC 3394) under a key of its own.
    #[derive(Debug)]
    struct Chip([u8; 32]);

    impl Chip {
        fn kek(&self) -> AesKek {
            AesKek::new(&AES_256, &self.0).unwrap()
        }
    }

    impl Wrapper for Chip {
        fn info(&self) -> Result<ProviderInfo> {
            Ok(ProviderInfo {
                model: "Chip".to_owned(),
                serial: Some(format!("{:016}", self.0[0])),
                binding: None,
            })
        }

        fn device(&self) -> String {
            "/dev/chip0".to_owned()
        }

        fn wrap(&self, secret: &Secret) -> Result<Vec<u8>> {
            let mut out = vec![0; secret.len() + 8];
            self.kek().wrap(secret.expose(), &mut out)?;
            Ok(out)
        }

        fn unwrap(&self, wrapped: &[u8]) -> Result<Secret> {
            let mut secret = Secret::new(vec![0; wrapped.len()]);
            let opened = self.kek().unwrap(wrapped, secret.expose_mut());
            let len = opened.map_err(|_| Error::BadBlob)?.len();
            secret.truncate(len);
            Ok(secret)
        }
    }

    /// One that only masks: whatever it is given, it unwraps to something.
    #[derive(Debug)]
    struct Mask(u8);

    impl Wrapper for Mask {
        fn info(&self) -> Result<ProviderInfo> {
            Chip([self.0; 32]).info()
        }

        fn device(&self) -> String {
            "/dev/mask0".to_owned()
        }

        fn wrap(&self, secret: &Secret) -> Result<Vec<u8>> {
            Ok(secret.expose().iter().map(|byte| byte ^ self.0).collect())
        }

        fn unwrap(&self, wrapped: &[u8]) -> Result<Secret> {
            self.wrap(&Secret::new(wrapped.to_vec())).map(Secret::new)
        }
    }

    /// One that gives back other bytes than it was given.
    #[derive(Debug)]
    struct Forgetful;

    impl Wrapper for Forgetful {
        fn info(&self) -> Result<ProviderInfo> {
            Mask(1).info()
        }

        fn device(&self) -> String {
            Mask(1).device()
        }

        fn wrap(&self, secret: &Secret) -> Result<Vec<u8>> {
            Mask(1).wrap(secret)
        }

        fn unwrap(&self, _: &[u8]) -> Result<Secret> {
            Secret::random(ROOT_LEN)
        }
    }

    static NONE: Settings = Settings::new();

    fn place<'a>(dir: &'a TempDir, binding: Option<&'a str>) -> Place<'a> {
        Place {
            dir: dir.path(),
            settings: &NONE,
            binding,
        }
    }

    /// A token's directory with a root wrapped by a device, and the binding that it records.
    fn made<W: Wrapper>(wrapper: W) -> (TempDir, String) {
        let dir = TempDir::new().unwrap();
        let root = WrappedRoot::create(wrapper, &place(&dir, None)).unwrap();
        let binding = root.info().unwrap().binding.unwrap();
        (dir, binding)
    }

    fn read<W: Wrapper>(wrapper: W, dir: &TempDir, binding: &str) -> Result<Secret> {
        WrappedRoot::open(wrapper, &place(dir, Some(binding))).read()
    }

    /// Seen to fail with `verify_slices_are_equal` and `shown` left out of `create`.
    #[test]
    fn a_device_that_does_not_wrap_is_refused() {
        let dir = TempDir::new().unwrap();
        let copied = WrappedRoot::create(Mask(0), &place(&dir, None)).map(drop);
        let forgot = WrappedRoot::create(Forgetful, &place(&dir, None)).map(drop);
        for refused in [copied, forgot] {
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("does not wrap"), "{refused}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_root_is_on_the_disk_wrapped_only() {
        let (dir, binding) = made(Chip([1; 32]));
        let [one, two] = [(); 2].map(|()| read(Chip([1; 32]), &dir, &binding).unwrap());
        assert_eq!(one.expose(), two.expose());
        let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(files.len(), 1);
        let wrapped = std::fs::read(path(dir.path())).unwrap();
        assert_eq!(wrapped.len(), 8 + ROOT_LEN + 8);
        let shown = wrapped
            .windows(4)
            .any(|part| one.expose().starts_with(part));
        assert!(!shown);
        let (other, _) = made(Chip([1; 32]));
        assert_ne!(std::fs::read(path(other.path())).unwrap(), wrapped);
    }

    #[test]
    fn keys_under_a_wrapped_root_sign() {
        let (dir, binding) = made(Chip([1; 32]));
        let provider = || {
            let root = WrappedRoot::open(Chip([1; 32]), &place(&dir, Some(&binding)));
            SoftKeys::new(root)
        };
        let (kind, none) = (KeyKind::EcP256, KeyAuth::None);
        let made = provider().generate(kind, Usage::SIGN, &none).unwrap();
        let key = provider().open(&made.blob, &made.public, Usage::SIGN, &none);
        let input = ecdsa_input(kind, &[7; 32]).unwrap();
        let signature = key.unwrap().sign(Scheme::Ecdsa, &input).unwrap();
        made.public
            .verify(Scheme::Ecdsa, &input, &signature)
            .unwrap();
    }

    /// One device says so itself, the other's roots are told apart. Seen to fail with
    /// `Error::BadBlob` passed on by `unwrapped`, and without the comparison in `read`.
    #[test]
    fn another_device_is_noticed() {
        let (dir, binding) = made(Chip([1; 32]));
        let chip = read(Chip([2; 32]), &dir, &binding);
        let (dir, binding) = made(Mask(1));
        let mask = read(Mask(2), &dir, &binding);
        for (other, device) in [(chip, "/dev/chip0"), (mask, "/dev/mask0")] {
            let Err(Error::OtherDevice { device: named, .. }) = other else {
                panic!("{other:?}");
            };
            assert_eq!(named, device);
        }
    }

    /// Each bit of the file, and its length. Seen to fail without the comparison in `read`, and
    /// without the test of the length in `unwrapped`.
    #[test]
    fn a_changed_root_is_refused() {
        for wrapper in [|| Mask(1), || Mask(7)] {
            let (dir, binding) = made(wrapper());
            let whole = std::fs::read(path(dir.path())).unwrap();
            let changed = |bytes: &[u8]| {
                std::fs::write(path(dir.path()), bytes).unwrap();
                read(wrapper(), &dir, &binding).unwrap_err()
            };
            for bit in 0..whole.len() * 8 {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                match (changed(&bytes), bit / 8) {
                    (Error::BadRecord { .. }, 0..7) => {}
                    (Error::NewerRecord { .. }, 7) => {}
                    (Error::OtherDevice { .. }, 8..) => {}
                    (other, _) => panic!("bit {bit}: {other:?}"),
                }
            }
            for len in 0..whole.len() {
                changed(&whole[..len]);
            }
            changed(&[&whole[..], &[0]].concat());
            // Nor is one of another length a root while a token is being made.
            std::fs::write(path(dir.path()), &whole[..whole.len() - 1]).unwrap();
            let short = WrappedRoot::open(wrapper(), &place(&dir, None)).read();
            assert!(matches!(short, Err(Error::OtherDevice { .. })), "{short:?}");
        }
    }

    /// Whoever else runs on the machine could have the device unwrap it. Seen to fail with `read`
    /// for `read_secret` in file.rs.
    #[test]
    fn a_root_that_others_can_read_is_refused() {
        let (dir, binding) = made(Chip([1; 32]));
        let mode = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(path(dir.path()), mode).unwrap();
        };
        mode(0o604);
        let refused = read(Chip([1; 32]), &dir, &binding);
        assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
        mode(0o600);
        read(Chip([1; 32]), &dir, &binding).unwrap();
    }

    /// Seen to fail with `true` for `false` in `file::create`.
    #[test]
    fn a_root_is_never_replaced() {
        let (dir, binding) = made(Chip([1; 32]));
        let again = WrappedRoot::create(Chip([1; 32]), &place(&dir, None));
        assert!(matches!(again, Err(Error::Exists(_))));
        read(Chip([1; 32]), &dir, &binding).unwrap();
    }

    #[test]
    fn opening_touches_nothing_and_a_missing_root_is_named() {
        let dir = TempDir::new().unwrap();
        let root = WrappedRoot::open(Chip([1; 32]), &place(&dir, None));
        let missing = root.read();
        let Err(Error::DeviceGone { device, .. }) = missing else {
            panic!("{missing:?}");
        };
        assert!(device.ends_with("root.wrapped"));
    }

    /// HKDF of the bytes 0, 1, 2, … 31, computed by Python's hmac: records hold this value.
    #[test]
    fn the_check_value_is_what_it_always_was() {
        let root = Secret::new((0..32).collect());
        assert_eq!(
            check_value(&root).unwrap(),
            "4d2fb720dc2b4dc8d34fd4208df9977a"
        );
    }
}
