//! Data types of RFC 4251 §5, read to their end and bounded.

use base64ct::{Base64, Encoding};
use ssh_encoding::{Decode, Encode};

use crate::error::{Error, Result};

/// The next value.
pub(super) fn take<T>(from: &mut &[u8]) -> Result<T>
where
    T: Decode<Error = ssh_encoding::Error>,
{
    T::decode(from).map_err(|_| Error::input("malformed SSH data, or cut short"))
}

/// Adds a value.
pub(super) fn put(to: &mut Vec<u8>, value: &(impl Encode + ?Sized)) -> Result<()> {
    value
        .encode(to)
        .map_err(|_| Error::input("too long for SSH"))
}

/// Reads `bytes` and refuses what is left of them. ssh-encoding's own nested reader does not.
pub(super) fn whole<T>(bytes: &[u8], read: impl FnOnce(&mut &[u8]) -> Result<T>) -> Result<T> {
    let mut rest = bytes;
    let value = read(&mut rest)?;
    match rest {
        [] => Ok(value),
        _ => Err(Error::input("SSH data with more behind their end")),
    }
}

/// A `string` that holds further values.
pub(super) fn nested<T>(from: &mut &[u8], read: impl FnOnce(&mut &[u8]) -> Result<T>) -> Result<T> {
    whole(&take::<Vec<u8>>(from)?, read)
}

/// Base64 of at most `most` bytes.
pub(super) fn decode(text: &str, most: usize) -> Result<Vec<u8>> {
    // Four characters for each three bytes.
    if text.len().div_ceil(4) > most.div_ceil(3) {
        return Err(Error::input(format!("more than {most} bytes of SSH data")));
    }
    Base64::decode_vec(text).map_err(|_| Error::input("no Base64"))
}

/// Name, Base64 and comment of a line as OpenSSH writes keys and certificates.
pub(super) fn words(line: &str) -> Result<(&str, &str, &str)> {
    let line = line.trim();
    if line.contains(char::is_control) {
        return Err(Error::input(
            "one line is wanted, without control characters",
        ));
    }
    let (name, rest) = line.split_once(' ').ok_or_else(|| {
        Error::input("not a line of OpenSSH: the algorithm's name, then Base64, then a comment")
    })?;
    let (base64, comment) = rest.split_once(' ').unwrap_or((rest, ""));
    Ok((name, base64, comment.trim()))
}

/// `name Base64 comment`. What would end the line or drive a terminal is escaped.
pub(super) fn line(name: &str, blob: &[u8], comment: &str) -> String {
    let shown = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    let comment: String = comment.chars().map(shown).collect();
    let line = format!("{name} {} {comment}", Base64::encode_string(blob));
    line.trim_end().to_owned()
}
