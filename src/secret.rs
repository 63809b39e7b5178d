//! Bytes that are wiped when dropped and cannot be printed.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::Result;

/// Secret bytes of any length.
///
/// Has no `Display`, no `Clone` and no `==`; [`Secret::expose`] is where a secret becomes readable,
/// and each call of it wants a reason.
#[derive(Default, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes over; the caller keeps no copy.
    pub fn new(bytes: Vec<u8>) -> Self {
        Secret(bytes)
    }

    /// `len` fresh bytes from the system's generator.
    pub fn random(len: usize) -> Result<Self> {
        let mut secret = Secret(vec![0; len]);
        aws_lc_rs::rand::fill(&mut secret.0)?;
        Ok(secret)
    }

    /// The bytes, for the operation that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, to be filled in place.
    pub fn expose_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps the first `len` bytes and wipes the rest.
    pub fn truncate(&mut self, len: usize) {
        if let Some(rest) = self.0.get_mut(len..) {
            rest.zeroize();
        }
        self.0.truncate(len);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let secret = Secret::new(b"hunter2".to_vec());
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
