//! Reads the TPM's wire format (part 2 §4): big-endian numbers, and bytes after their number.

use crate::error::{Error, Result};

/// The rest of what is being read.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads all of `bytes` by `read`.
    ///
    /// # Errors
    /// [`Error::BadInput`] where something is left over.
    pub(super) fn all<T>(
        bytes: &'a [u8],
        read: impl FnOnce(&mut Reader<'a>) -> Result<T>,
    ) -> Result<T> {
        let mut reader = Reader(bytes);
        let value = read(&mut reader)?;
        match reader.0.is_empty() {
            true => Ok(value),
            false => Err(Error::input("there are bytes left over")),
        }
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A TPM2B of at most `most` bytes.
    pub(super) fn sized(&mut self, most: usize) -> Result<&'a [u8]> {
        let len = usize::from(self.u16()?);
        if len > most {
            return Err(Error::input(format!(
                "{len} bytes stand where there are at most {most}"
            )));
        }
        let (bytes, rest) = self.0.split_at_checked(len).ok_or_else(cut)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Passes over all that is left.
    pub(super) fn rest(&mut self) {
        self.0 = &[];
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or_else(cut)?;
        self.0 = rest;
        Ok(*bytes)
    }
}

/// Bytes after their number, as a TPM2B. Lengths here are bounded by what was read, or our own.
pub(super) fn sized(bytes: &[u8]) -> Result<Vec<u8>> {
    let len = u16::try_from(bytes.len()).map_err(|_| Error::input("too long for a TPM"))?;
    Ok([&len.to_be_bytes(), bytes].concat())
}

fn cut() -> Error {
    Error::input("it is cut short")
}
