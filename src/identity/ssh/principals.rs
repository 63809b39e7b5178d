//! What sshd's `AuthorizedPrincipalsCommand` answers: which names of a certificate open an account.
//!
//! sshd lets in whoever's certificate has one of the principals that the command prints, whatever
//! account is asked for. The answer is therefore never all that a certificate names, but those of
//! its names that the account accepts.

use super::certificate::{Certificate, Expected};
use super::key;
use crate::error::{Error, Result};
use crate::identity::level::Level;
use crate::key::{KeyKind, PublicKey};

/// Longest file of CA keys that is read, in bytes.
pub const MAX_AUTHORITIES: usize = 256 * 1024;

/// The principals of a certificate that the account accepts, if its level is at least `least` and
/// it is good for what is expected.
///
/// # Errors
/// [`Error::BadInput`] says why nothing is accepted.
pub fn accepted<'a>(
    certificate: &Certificate,
    expected: &Expected<'_>,
    least: Level,
    account: &'a [String],
) -> Result<Vec<&'a str>> {
    certificate.check(expected)?;
    certificate.check_level(least)?;
    let account = account.iter().map(String::as_str);
    let named: Vec<&str> = account.filter(|name| certificate.names(name)).collect();
    match named.is_empty() {
        true => Err(Error::input(
            "refused: it names no principal that the account accepts",
        )),
        false => Ok(named),
    }
}

/// The keys of a file for sshd's `TrustedUserCAKeys`: one line each; empty lines and comments are
/// passed over, and so are keys of algorithms that devkey has not: no certificate of theirs is read.
///
/// # Errors
/// [`Error::BadInput`] for another line, with its number.
pub fn authorities(text: &str) -> Result<Vec<PublicKey>> {
    if text.len() > MAX_AUTHORITIES {
        return Err(Error::input(format!(
            "more than {MAX_AUTHORITIES} bytes of CA keys"
        )));
    }
    let mut keys = Vec::new();
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if line.is_empty() || line.starts_with('#') || foreign(line) {
            continue;
        }
        let key = key::from_line(line).map_err(|e| Error::input(format!("line {number}: {e}")))?;
        keys.push(key.0);
    }
    Ok(keys)
}

/// Whether a line looks like the key of another algorithm.
fn foreign(line: &str) -> bool {
    let name = line.split(' ').next().unwrap_or_default();
    let own = KeyKind::ALL
        .into_iter()
        .any(|kind| key::algorithm(kind) == Some(name));
    let algorithm = ["ssh-", "ecdsa-", "sk-"]
        .iter()
        .any(|start| name.starts_with(start));
    algorithm && !own
}
