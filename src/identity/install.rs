//! What a CA issued, checked before it takes the place of what is installed.

use super::x509::chain::{self, Purpose};
use super::x509::{self, matches_key};
use crate::error::{Error, Result};
use crate::key::PublicKey;

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
