//! What a CA issued, checked before it takes the place of what is installed.

use std::path::Path;

use super::x509::chain::{self, Purpose};
use super::x509::{self, MAX_LEN, matches_key};
use crate::error::{Error, Result};
use crate::key::PublicKey;
use crate::store::record;

/// Longest input in bytes: what fits into a file of a token.
pub const MAX_INPUT: usize = 256 * 1024 - 1;
/// Most certificates of one input.
const MAX_CERTIFICATES: usize = 16;

/// The certificate of a key, and what leads from it to its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The certificate, then its issuer's and so on, DER. Without the root, which a peer has or does
    /// not trust.
    pub certificates: Vec<Vec<u8>>,
    /// The root (DER), where it was given.
    pub root: Option<Vec<u8>>,
}

/// Under which conditions a chain may be installed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions<'a> {
    /// Now, in seconds since 1970.
    pub now: u64,
    /// Whether one that is not valid now will do.
    pub any_time: bool,
    /// Roots (DER), one of which the chain must lead to; without any, none is asked for.
    pub roots: &'a [Vec<u8>],
}

/// The certificates of an input: PEM, with text or blocks of other kinds between, or one in DER.
///
/// # Errors
/// [`Error::BadInput`]
pub fn certificates(input: &[u8]) -> Result<Vec<Vec<u8>>> {
    if input.len() > MAX_INPUT {
        return Err(Error::input(format!(
            "more than {MAX_INPUT} bytes are no certificate and its chain"
        )));
    }
    let all = match std::str::from_utf8(input) {
        Ok(text) if text.contains("-----BEGIN ") => from_pem(text)?,
        Ok(text) if text.trim().is_empty() => return Err(Error::input("there is nothing in it")),
        _ => vec![input.to_vec()],
    };
    let mut different: Vec<Vec<u8>> = Vec::new();
    for der in all {
        x509::describe(&der)?;
        if !different.contains(&der) {
            different.push(der);
        }
    }
    match different.len() {
        0..=MAX_CERTIFICATES => Ok(different),
        many => Err(Error::input(format!(
            "{many} certificates; a chain has at most {MAX_CERTIFICATES}"
        ))),
    }
}

/// Puts the certificates of a key in order, its own first, and checks each one's signature by the next,
/// times and rights.
///
/// # Errors
/// [`Error::BadInput`] with the reason: none is for the key, or several are; one is not of the chain;
/// one is not valid now; the chain does not lead to one of the roots that were asked for.
pub fn chain(all: &[Vec<u8>], key: &PublicKey, conditions: &Conditions<'_>) -> Result<Chain> {
    let mut own = Vec::new();
    for der in all {
        if matches_key(der, key)? {
            own.push(der);
        }
    }
    let leaf = match own.as_slice() {
        [leaf] => *leaf,
        [] => return Err(Error::input("the certificate is for another key")),
        _ => return Err(Error::input("several certificates for one key; give one")),
    };
    let said = x509::describe(leaf)?;
    if said.ca {
        return Err(Error::input("it is a CA's certificate, not a device's"));
    }
    let at = moment(&said, conditions)?;
    let above: Vec<Vec<u8>> = all.iter().filter(|der| *der != leaf).cloned().collect();
    let mut path = longest(leaf, &above, at)?;
    if !conditions.roots.is_empty() {
        path = chain::verify(leaf, &above, conditions.roots, at, Purpose::Any)?.path;
    }
    let own_issuer = |der: &Vec<u8>| x509::describe(der).is_ok_and(|d| d.subject == d.issuer);
    let root = match path.len() {
        2.. if path.last().is_some_and(own_issuer) => path.pop(),
        _ => None,
    };
    Ok(Chain {
        certificates: path,
        root,
    })
}

/// The second at which the chain is looked at.
fn moment(leaf: &x509::Description, conditions: &Conditions<'_>) -> Result<u64> {
    let now = conditions.now;
    if conditions.any_time {
        return Ok(now.clamp(leaf.not_before, leaf.not_after.max(leaf.not_before)));
    }
    if now < leaf.not_before {
        return Err(Error::input(
            "the certificate is not valid yet; is the clock right?",
        ));
    }
    match now > leaf.not_after {
        true => Err(Error::input("the certificate has expired")),
        false => Ok(now),
    }
}

/// The path that takes in all of the certificates given.
fn longest(leaf: &[u8], above: &[Vec<u8>], at: u64) -> Result<Vec<Vec<u8>>> {
    let mut best = vec![leaf.to_vec()];
    let mut reason = None;
    for end in above {
        // Each might be the last one.
        match chain::verify(leaf, above, std::slice::from_ref(end), at, Purpose::Any) {
            Ok(found) if found.path.len() > best.len() => best = found.path,
            Ok(_) => {}
            Err(e) => reason = reason.or(Some(e)),
        }
    }
    match above.iter().find(|der| !best.contains(der)) {
        None => Ok(best),
        Some(stray) => {
            let subject = x509::describe(stray)?.subject;
            let why = reason.map_or_else(String::new, |e| format!(": {e}"));
            Err(Error::input(format!(
                "the certificate of {subject} is not of the chain{why}"
            )))
        }
    }
}

fn from_pem(text: &str) -> Result<Vec<Vec<u8>>> {
    let (_, blocks) = record::split(text, Path::new("")).map_err(|e| match e {
        Error::BadRecord { reason, .. } => Error::input(reason),
        other => other,
    })?;
    let labels: Vec<String> = blocks.iter().map(|b| b.blob.label.clone()).collect();
    let certificates: Vec<_> = blocks
        .into_iter()
        .map(|block| block.blob)
        .filter(|blob| ["CERTIFICATE", "X509 CERTIFICATE"].contains(&blob.label.as_str()))
        .map(|blob| blob.bytes)
        .collect();
    if certificates.is_empty() {
        return Err(match labels.iter().any(|label| label == "PKCS7") {
            true => Error::unsupported("PKCS#7; convert it with `openssl pkcs7 -print_certs`"),
            false => Error::input(format!("no CERTIFICATE in it, but {}", labels.join(", "))),
        });
    }
    if certificates.iter().any(|der| der.len() > MAX_LEN) {
        return Err(Error::input("a certificate is too long"));
    }
    Ok(certificates)
}
