//! Lists of revoked keys and certificates for sshd's `RevokedKeys` and ssh's `RevokedHostKeys`:
//! OpenSSH's PROTOCOL.krl.
//!
//! They are not signed: OpenSSH never let anybody sign one by its own tools, and reads no signature
//! since 9.4. Who writes the file on the server is trusted.

use super::{key, wire};
use crate::error::{Error, Result};
use crate::key::PublicKey;

/// "SSHKRL\n\0"
const MAGIC: u64 = 0x5353_484b_524c_0a00;
const FORMAT_VERSION: u32 = 1;
/// KRL_SECTION_CERTIFICATES, KRL_SECTION_EXPLICIT_KEY, KRL_SECTION_CERT_SERIAL_LIST.
const CERTIFICATES: u8 = 1;
const EXPLICIT_KEY: u8 = 2;
const SERIAL_LIST: u8 = 0x20;

/// What is revoked, and by whom.
#[derive(Debug, Clone, Copy)]
pub struct Krl<'a> {
    /// The CA whose serials these are.
    pub authority: &'a PublicKey,
    /// Serials of its certificates; not 0.
    pub serials: &'a [u64],
    /// Keys that are good for nothing any more, neither by themselves nor in any certificate.
    pub keys: &'a [PublicKey],
    /// Number of the list, which goes up with each.
    pub version: u64,
    /// When it was made, in seconds since 1970.
    pub date: u64,
    /// For people.
    pub comment: &'a str,
}

impl Krl<'_> {
    /// The list as a file.
    ///
    /// # Errors
    /// [`Error::BadInput`] for serial 0, which OpenSSH cannot revoke; [`Error::Unsupported`] for keys
    /// that OpenSSH does not know.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut krl = Vec::new();
        wire::put(&mut krl, &MAGIC)?;
        wire::put(&mut krl, &FORMAT_VERSION)?;
        wire::put(&mut krl, &self.version)?;
        wire::put(&mut krl, &self.date)?;
        // No flags, nothing reserved.
        wire::put(&mut krl, &0_u64)?;
        wire::put(&mut krl, "")?;
        wire::put(&mut krl, self.comment)?;
        if !self.serials.is_empty() {
            section(&mut krl, CERTIFICATES, &self.certificates()?)?;
        }
        if !self.keys.is_empty() {
            section(&mut krl, EXPLICIT_KEY, &self.explicit()?)?;
        }
        Ok(krl)
    }

    fn certificates(&self) -> Result<Vec<u8>> {
        let mut serials = self.serials.to_vec();
        serials.sort_unstable();
        serials.dedup();
        if serials.first() == Some(&0) {
            return Err(Error::input(
                "a certificate without a serial is revoked by its key",
            ));
        }
        let mut list = Vec::new();
        serials
            .iter()
            .try_for_each(|serial| wire::put(&mut list, serial))?;
        let mut content = Vec::new();
        wire::put(&mut content, &key::blob(self.authority)?)?;
        wire::put(&mut content, "")?;
        section(&mut content, SERIAL_LIST, &list)?;
        Ok(content)
    }

    fn explicit(&self) -> Result<Vec<u8>> {
        let blobs: Result<Vec<_>> = self.keys.iter().map(key::blob).collect();
        let mut blobs = blobs?;
        blobs.sort_unstable();
        blobs.dedup();
        let mut content = Vec::new();
        blobs
            .iter()
            .try_for_each(|blob| wire::put(&mut content, blob))?;
        Ok(content)
    }
}

fn section(to: &mut Vec<u8>, kind: u8, content: &[u8]) -> Result<()> {
    wire::put(to, &kind)?;
    wire::put(to, content)
}
