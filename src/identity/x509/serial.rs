//! Serial numbers.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::rand;
use base16ct::lower as hex;
use serde::{Deserialize, Serialize};
use x509_cert::serial_number::SerialNumber;

use super::encoding;
use crate::error::{Error, Result};

/// Longest serial number, in bytes (RFC 5280 §4.1.2.2).
const MAX_SERIAL: usize = 20;

/// A certificate's serial number: positive, of at most 20 bytes. As text: hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial(Vec<u8>);

impl Serial {
    /// From big-endian bytes; leading zeros do not count.
    ///
    /// # Errors
    /// [`Error::BadInput`] for zero, and for what takes more than 20 bytes as a signed number.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let bytes = bytes.get(zeros..).unwrap_or_default();
        let sign = usize::from(bytes.first().is_some_and(|byte| *byte >= 0x80));
        match (1..=MAX_SERIAL).contains(&(bytes.len() + sign)) {
            true => Ok(Serial(bytes.to_vec())),
            false => Err(Error::input(
                "a serial number is positive and has at most 20 bytes",
            )),
        }
    }

    /// A new one: 127 random bits.
    ///
    /// # Errors
    /// [`Error::Crypto`] where there are no random numbers.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        rand::fill(&mut bytes)?;
        if let Some(first) = bytes.first_mut() {
            // Always as long, and positive.
            *first = *first & 0x7f | 0x40;
        }
        Serial::new(&bytes)
    }

    /// Big-endian, without leading zeros.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As it stands in a certificate, that of another CA too, which may be zero or negative.
    pub(super) fn read(serial: &SerialNumber) -> Self {
        let bytes = serial.as_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Serial(bytes.get(zeros..).unwrap_or_default().to_vec())
    }

    pub(super) fn number(&self) -> Result<SerialNumber> {
        SerialNumber::new(&self.0).map_err(encoding)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_string(&self.0))
    }
}

impl FromStr for Serial {
    type Err = Error;

    /// Hexadecimal of either case, with or without colons.
    fn from_str(text: &str) -> Result<Self> {
        let digits = text.replace(':', "").to_ascii_lowercase();
        let whole = format!("{}{digits}", if digits.len() % 2 == 1 { "0" } else { "" });
        let bytes = hex::decode_vec(&whole)
            .map_err(|_| Error::input(format!("{text:?} is no serial number in hexadecimal")))?;
        Serial::new(&bytes)
    }
}

as_text!(Serial);
