//! Software keys under a root: what the back ends share whose device gives nothing but 32 secret
//! bytes.
//!
//! Keys of the curves and of ML-DSA are derived from the root, a salt and the key's auth, so that their blobs
//! hold nothing private at all; RSA keys are wrapped. The root is read for each `generate`, `open`,
//! `seal` and `unseal` and wiped when that returns; an opened key holds its own key and no root, and
//! not even that where [`Root::keys_may_stay`] says no.

mod ec;
mod ed25519;
mod header;
mod material;
mod ml_dsa;
mod rsa;

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::key::{DecryptScheme, KeyKind, PublicKey, Scheme, Usage};
use crate::provider::{Blob, Capability, Key, KeyAuth, NewKey, Provider, ProviderInfo, Sealing};
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

    /// Whether an opened key may stay in memory. Where not, the root is read and the key made of it
    /// for each operation anew, and nothing of either is left between two.
    fn keys_may_stay(&self) -> bool {
        true
    }
}

/// A [`Provider`] of software keys under a root.
#[derive(Debug)]
pub struct SoftKeys<R>(Arc<R>);

impl<R: Root> SoftKeys<R> {
    /// Keys under `root`. Does not read it.
    pub fn new(root: R) -> Self {
        SoftKeys(Arc::new(root))
    }

    fn material(&self, header: Header, auth: &KeyAuth) -> Result<Material> {
        Material::new(&self.0.read()?, auth, header)
    }

    fn open_now(
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
        Ok(match kind {
            KeyKind::Ed25519 => Box::new(ed25519::Ed25519Key::open(&material, public)?),
            _ if kind.is_ml_dsa() => Box::new(ml_dsa::MlDsaKey::open(&material, public)?),
            _ => Box::new(ec::EcKey::open(&material, public, usage)?),
        })
    }
}

impl<R: Root + 'static> Provider for SoftKeys<R> {
    fn info(&self) -> Result<ProviderInfo> {
        self.0.info()
    }

    fn capabilities(&self) -> Result<Vec<Capability>> {
        Ok(KeyKind::ALL
            .map(|kind| Capability::new(kind, kind.uses()))
            .to_vec())
    }

    fn generate(&self, kind: KeyKind, usage: Usage, auth: &KeyAuth) -> Result<NewKey> {
        kind.check_usage(usage)?;
        let material = self.material(Header::new(header::key(kind, usage, auth))?, auth)?;
        let (public, body) = match kind {
            KeyKind::EcP256 | KeyKind::EcP384 => checked(&material, ec::public(kind, &material)?)?,
            KeyKind::Ed25519 => checked(&material, ed25519::public(&material)?)?,
            KeyKind::MlDsa44 | KeyKind::MlDsa65 | KeyKind::MlDsa87 => {
                checked(&material, ml_dsa::public(kind, &material)?)?
            }
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
        let key = self.open_now(blob, public, usage, auth)?;
        if self.0.keys_may_stay() {
            return Ok(key);
        }
        Ok(Box::new(Fleeting {
            keys: SoftKeys(self.0.clone()),
            blob: blob.clone(),
            public: public.clone(),
            usage,
            auth: auth.duplicate(),
        }))
    }

    fn sealing(&self) -> Sealing {
        Sealing::Freely
    }

    fn seal(&self, secret: &Secret, auth: &KeyAuth, _tries: u32) -> Result<Blob> {
        let material = self.material(Header::new(header::sealed(auth))?, auth)?;
        let sealed = material.wrap(&[], secret)?;
        Ok(material.header().blob(SEALED_LABEL, &sealed))
    }

    fn unseal(&self, blob: &Blob, auth: &KeyAuth) -> Result<Secret> {
        let (header, sealed) = Header::read(blob, SEALED_LABEL, header::sealed(auth))?;
        self.material(header, auth)?.unwrap(&[], sealed)
    }
}

/// A key that is made for each operation anew.
#[derive(Debug)]
struct Fleeting<R> {
    keys: SoftKeys<R>,
    blob: Blob,
    public: PublicKey,
    usage: Usage,
    auth: KeyAuth,
}

impl<R: Root> Fleeting<R> {
    fn key(&self) -> Result<Box<dyn Key>> {
        self.keys
            .open_now(&self.blob, &self.public, self.usage, &self.auth)
    }
}

impl<R: Root> Key for Fleeting<R> {
    fn sign(&self, scheme: Scheme, input: &[u8]) -> Result<Vec<u8>> {
        self.key()?.sign(scheme, input)
    }

    fn agree(&self, peer: &PublicKey) -> Result<Secret> {
        self.key()?.agree(peer)
    }

    fn decrypt(&self, scheme: DecryptScheme, ciphertext: &[u8]) -> Result<Secret> {
        self.key()?.decrypt(scheme, ciphertext)
    }
}

/// The body of a derived key's blob is the tag that binds it to root, auth, header and public key.
fn checked(material: &Material, public: PublicKey) -> Result<(PublicKey, Vec<u8>)> {
    let tag = material.tag(&public)?.expose().to_vec();
    Ok((public, tag))
}

fn no_scheme(scheme: Scheme, kind: KeyKind) -> Error {
    Error::input(format!("{scheme:?} is no scheme of {kind}"))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::key::{Hash, ecdsa_input};

    /// The bytes 0, 1, 2, … 31.
    #[derive(Debug)]
    struct Known;

    impl Root for Known {
        fn info(&self) -> Result<ProviderInfo> {
            Err(Error::unsupported("info"))
        }

        fn read(&self) -> Result<Secret> {
            Ok(Secret::new((0..32).collect()))
        }
    }

    #[derive(Deserialize)]
    struct Vectors {
        sealed: String,
        key: Vec<Vector>,
    }

    #[derive(Deserialize)]
    struct Vector {
        kind: KeyKind,
        usage: Usage,
        auth: String,
        blob: String,
        public: String,
    }

    impl Vector {
        fn parts(&self) -> (Blob, PublicKey, KeyAuth) {
            let auth = match unhex(&self.auth) {
                empty if empty.is_empty() => KeyAuth::None,
                auth => KeyAuth::Secret(Secret::new(auth)),
            };
            let public = PublicKey::from_spki(&unhex(&self.public)).unwrap();
            (blob(KEY_LABEL, unhex(&self.blob)), public, auth)
        }
    }

    fn vectors() -> Vectors {
        toml::from_str(include_str!("soft/vectors.toml")).unwrap()
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len() / 2)
            .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
            .collect()
    }

    fn blob(label: &str, bytes: Vec<u8>) -> Blob {
        Blob {
            label: label.to_owned(),
            bytes,
        }
    }

    /// The material of a blob made earlier.
    fn material(of: &Blob, public: &PublicKey, usage: Usage, auth: &KeyAuth) -> Material {
        let type_ = header::key(public.kind(), usage, auth);
        let (header, _) = Header::read(of, KEY_LABEL, type_).unwrap();
        SoftKeys::new(Known).material(header, auth).unwrap()
    }

    /// Seen to fail with another `DOMAIN` in material.rs, another purpose in ec.rs, ed25519.rs
    /// and ml_dsa.rs, and `auth ‖ root` in place of `root ‖ auth`.
    #[test]
    fn what_was_written_is_read_for_ever() {
        let keys = SoftKeys::new(Known);
        for vector in vectors().key {
            let (blob, public, auth) = vector.parts();
            let key = keys.open(&blob, &public, vector.usage, &auth).unwrap();
            let scheme = vector.kind.schemes()[0];
            let input = match scheme {
                Scheme::Ecdsa => ecdsa_input(vector.kind, &[7; 32]).unwrap(),
                _ => Hash::Sha256.digest(b"hello"),
            };
            let signature = key.sign(scheme, &input).unwrap();
            public.verify(scheme, &input, &signature).unwrap();
        }
        let sealed = blob(SEALED_LABEL, unhex(&vectors().sealed));
        assert_eq!(
            keys.unseal(&sealed, &KeyAuth::None).unwrap().expose(),
            [9; 32]
        );
    }

    /// Seen to fail with `VERSION` compared by the type alone.
    #[test]
    fn a_newer_format_is_named() {
        let vector = &vectors().key[0];
        let (mut blob, public, auth) = vector.parts();
        blob.bytes[0] = 2;
        let newer = SoftKeys::new(Known).open(&blob, &public, vector.usage, &auth);
        assert!(newer.unwrap_err().to_string().contains("upgrade"));
    }

    #[test]
    fn an_auth_has_32_bytes() {
        for len in [0, 1, 31, 33] {
            let auth = KeyAuth::Secret(Secret::new(vec![0; len]));
            let refused = SoftKeys::new(Known).generate(KeyKind::EcP256, Usage::SIGN, &auth);
            assert!(matches!(refused, Err(Error::BadInput(_))));
        }
    }

    /// Seen to fail with the seed kept beside the pair in `Ed25519Key`.
    #[test]
    fn no_key_is_printed() {
        for vector in vectors().key {
            let (blob, public, auth) = vector.parts();
            let usage = vector.usage;
            let key = SoftKeys::new(Known)
                .open(&blob, &public, usage, &auth)
                .unwrap();
            let material = material(&blob, &public, usage, &auth);
            let private = match vector.kind {
                KeyKind::EcP256 => material.derive("ec scalar", &[0], 32),
                KeyKind::EcP384 => material.derive("ec scalar", &[0], 48),
                KeyKind::Ed25519 => material.derive("ed25519 seed", &[], 32),
                kind if kind.is_ml_dsa() => material.derive("ml-dsa seed", &[], 32),
                _ => material.unwrap(&public.to_spki(), &blob.bytes[36..]),
            };
            let private = private.unwrap();
            // Of a PKCS#8, the part behind the modulus, which is public.
            let private = private
                .expose()
                .get(26 + 4 + 3 + 261 + 5 + 4..)
                .unwrap_or(private.expose());
            let printed = format!("{key:?} {material:?}").to_lowercase();
            for window in private.windows(6) {
                let hex: String = window.iter().map(|byte| format!("{byte:02x}")).collect();
                let list = format!("{window:?}");
                assert!(!printed.contains(&hex), "{printed}");
                assert!(
                    !printed.contains(list.trim_matches(['[', ']'])),
                    "{printed}"
                );
            }
        }
    }
}
