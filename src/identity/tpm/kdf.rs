//! The TPM's key derivations (part 1 §11.4.10): of SP 800-108 in counter mode, and of SP 800-56A.

use aws_lc_rs::hmac;

use crate::key::Hash;
use crate::secret::Secret;

/// KDFa: `bits` from a key by HMAC. `label` without its zero byte.
pub(super) fn kdfa(
    hash: Hash,
    key: &[u8],
    label: &[u8],
    contexts: [&[u8]; 2],
    bits: usize,
) -> Secret {
    let key = hmac::Key::new(mac(hash), key);
    let [u, v] = contexts;
    let size = (bits as u32).to_be_bytes();
    expand(bits, |counter| {
        let mut context = hmac::Context::with_key(&key);
        for part in [&counter, label, &[0], u, v, &size] {
            context.update(part);
        }
        context.sign().as_ref().to_vec()
    })
}

/// KDFe: `bits` from the x coordinate `z` of a shared point, bound to the x coordinates of the two
/// parties.
pub(super) fn kdfe(hash: Hash, z: &[u8], label: &[u8], parties: [&[u8]; 2], bits: usize) -> Secret {
    let [u, v] = parties;
    expand(bits, |counter| {
        let mut input = Secret::new([&counter, z, label, &[0], u, v].concat());
        let digest = hash.digest(input.expose());
        input.truncate(0);
        digest
    })
}

/// The HMAC over a hash.
pub(super) fn mac(hash: Hash) -> hmac::Algorithm {
    match hash {
        Hash::Sha256 => hmac::HMAC_SHA256,
        Hash::Sha384 => hmac::HMAC_SHA384,
        Hash::Sha512 => hmac::HMAC_SHA512,
    }
}

/// Blocks by their number from 1, cut to size; `bits` is a multiple of 8 here.
fn expand(bits: usize, block: impl Fn([u8; 4]) -> Vec<u8>) -> Secret {
    let mut out = Vec::new();
    let mut counter = 0_u32;
    while out.len() * 8 < bits {
        counter += 1;
        out.extend(block(counter.to_be_bytes()));
    }
    let mut out = Secret::new(out);
    out.truncate(bits / 8);
    out
}
