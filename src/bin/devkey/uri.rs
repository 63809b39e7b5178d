//! PKCS#11 URIs (RFC 7512).

use std::fmt::Write;

use devkey::MANUFACTURER;
use devkey::store::{KeyRecord, TokenRecord};

/// Names a token.
pub(crate) fn token(token: &TokenRecord) -> String {
    format!(
        "pkcs11:model={};manufacturer={MANUFACTURER};serial={};token={}",
        text(&token.model),
        text(&token.serial),
        text(&token.label),
    )
}

/// Names the private key of a pair.
pub(crate) fn key(record: &TokenRecord, key: &KeyRecord) -> String {
    let (token, object) = (token(record), text(&key.label));
    format!(
        "{token};id={};object={object};type=private",
        all(&key.cka_id)
    )
}

/// Percent-encodes all but the unreserved characters of RFC 3986 §2.3, which every parser takes.
fn text(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into());
            }
            other => encoded += &all(&[other]),
        }
    }
    encoded
}

/// Percent-encodes every byte, as RFC 7512 §2.3 asks for `id`.
fn all(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut encoded, byte| {
        let _ = write!(encoded, "%{byte:02X}");
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails where `b'-'` and the others are followed by `b';'`.
    #[test]
    fn what_separates_is_encoded() {
        assert_eq!(text("a b;c=d/é%"), "a%20b%3Bc%3Dd%2F%C3%A9%25");
        assert_eq!(all(&[0, 0xff]), "%00%FF");
    }
}
