//! All that is derived for one blob: HKDF-SHA-256 (RFC 5869) over root and auth, salted by the
//! blob's header, one purpose to each output.
//!
//! aws-lc-rs wipes what it copies of the input (`hkdf::ZeroizeBoxSlice`), and aws-lc all that it
//! frees (`OPENSSL_free`, crypto/mem.c: `OPENSSL_cleanse` before `free`).

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

use super::ROOT_LEN;
use super::header::Header;
use crate::error::{Error, Result};
use crate::key::PublicKey;
use crate::provider::KeyAuth;
use crate::secret::Secret;

/// Separates what is derived here from every other use of a root.
const DOMAIN: &[u8] = b"devkey soft 1\0";
/// Length of a key's auth in bytes.
const AUTH_LEN: usize = 32;
/// Length of the tag of a derived key's blob in bytes.
const TAG_LEN: usize = 32;
/// Each wrapping key has a salt of 32 random bytes of its own and encrypts once, so that the nonce
/// need not vary; SIV (RFC 8452) for the day on which a snapshot of a machine repeats a salt.
const NONCE: [u8; 12] = [0; 12];

/// What the secrets of one blob are derived from.
#[derive(Debug)]
pub(super) struct Material {
    prk: Prk,
    header: Header,
}

impl Material {
    /// Root and auth have fixed lengths and the header says whether there is an auth, so that
    /// root ‖ auth is unambiguous.
    pub(super) fn new(root: &Secret, auth: &KeyAuth, header: Header) -> Result<Self> {
        let auth = match auth {
            KeyAuth::None => &[],
            KeyAuth::Secret(secret) if secret.len() == AUTH_LEN => secret.expose(),
            KeyAuth::Secret(_) => return Err(Error::input("a key's auth has 32 bytes")),
        };
        if root.len() != ROOT_LEN {
            return Err(Error::Internal("a root has 32 bytes".to_owned()));
        }
        let input = Secret::new([root.expose(), auth].concat());
        let prk = Salt::new(HKDF_SHA256, header.salt()).extract(input.expose());
        Ok(Material { prk, header })
    }

    /// `len` bytes for one purpose, which is written without a NUL, in a context.
    pub(super) fn derive(&self, purpose: &str, context: &[u8], len: usize) -> Result<Secret> {
        let info = [DOMAIN, purpose.as_bytes(), &[0], self.header.of(), context];
        let mut secret = Secret::new(vec![0; len]);
        self.prk
            .expand(&info, Len(len))?
            .fill(secret.expose_mut())?;
        Ok(secret)
    }

    /// The tag that binds a derived key's blob to root, auth, header and public key.
    pub(super) fn tag(&self, public: &PublicKey) -> Result<Secret> {
        self.derive("check", &public.to_spki(), TAG_LEN)
    }

    /// Checks a [`tag`](Material::tag) in constant time.
    pub(super) fn verify_tag(&self, public: &PublicKey, tag: &[u8]) -> Result<()> {
        verify_slices_are_equal(self.tag(public)?.expose(), tag).map_err(|_| Error::BadBlob)
    }

    /// Encrypts by AES-256-GCM-SIV; header and context are authenticated with it.
    pub(super) fn wrap(&self, context: &[u8], secret: &Secret) -> Result<Vec<u8>> {
        let mut buffer = Secret::new(secret.expose().to_vec());
        let tag = self.wrapping_key()?.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(NONCE),
            self.aad(context),
            buffer.expose_mut(),
        )?;
        Ok([buffer.expose(), tag.as_ref()].concat())
    }

    /// Undoes [`wrap`](Material::wrap).
    pub(super) fn unwrap(&self, context: &[u8], sealed: &[u8]) -> Result<Secret> {
        let mut buffer = Secret::new(sealed.to_vec());
        let len = self
            .wrapping_key()?
            .open_in_place(
                Nonce::assume_unique_for_key(NONCE),
                self.aad(context),
                buffer.expose_mut(),
            )
            .map_err(|_| Error::BadBlob)?
            .len();
        buffer.truncate(len);
        Ok(buffer)
    }

    /// The header of the blob.
    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    fn wrapping_key(&self) -> Result<LessSafeKey> {
        let key = self.derive("wrap", &[], AES_256_GCM_SIV.key_len())?;
        Ok(LessSafeKey::new(UnboundKey::new(
            &AES_256_GCM_SIV,
            key.expose(),
        )?))
    }

    fn aad(&self, context: &[u8]) -> Aad<Vec<u8>> {
        Aad::from([self.header.of(), self.header.salt(), context].concat())
    }
}

/// A length in bytes, as HKDF wants it.
struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}
