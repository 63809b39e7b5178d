//! The checks, each with a reason of its own.

use super::about;
use super::structures::{Attest, Public, Signature};
use crate::error::{Error, Result};
use crate::key::{PublicKey, ecdsa_input};
use crate::provider::Certified;

/// Checks that a TPMT_PUBLIC is that of an attestation key: a restricted signing key that the TPM
/// made and that cannot leave it. Gives its Name. That it is in a TPM at all, activation shows.
///
/// # Errors
/// [`Error::BadInput`] with the check that failed.
pub fn check_ak(ak_public: &[u8]) -> Result<Vec<u8>> {
    ak(ak_public).map(|ak| ak.name)
}

/// Checks that the AK has certified, for this `qualifying_data`, that the TPM holds the key
/// `expected`, has made it, and cannot give it away.
///
/// # Errors
/// [`Error::BadInput`] with the check that failed.
pub fn verify_certify(
    certified: &Certified,
    ak_public: &[u8],
    expected: &PublicKey,
    qualifying_data: &[u8],
) -> Result<()> {
    let ak = ak(ak_public)?;
    signed(&ak, &certified.attest, &certified.signature)?;
    let key = Public::parse(&certified.key_public).map_err(|e| about("the certified key", e))?;
    attested(&certified.attest, &key.name, qualifying_data)?;
    is_device_key(&key, expected)
}

/// The attestation key of a TPMT_PUBLIC.
pub(super) fn ak(public: &[u8]) -> Result<Public> {
    const WHAT: &str = "the attestation key";
    let ak = Public::parse(public).map_err(|e| about(WHAT, e))?;
    let is = ak.attributes;
    for (good, reason) in [
        (is.restricted(), "is not restricted: it signs anything"),
        (is.sign(), "is not for signing"),
        (!is.decrypt(), "is for decryption, too"),
        (is.stays(), "may leave its TPM"),
        (is.made_inside(), "was not made by its TPM"),
        (ak.scheme.is_some(), "has no signature scheme"),
    ] {
        require(good, WHAT, reason)?;
    }
    Ok(ak)
}

/// Whether an object is an endorsement key; gives the bits of its symmetric cipher.
pub(super) fn is_ek(ek: &Public) -> Result<usize> {
    const WHAT: &str = "the endorsement key";
    let is = ek.attributes;
    for (good, reason) in [
        (is.restricted(), "is not restricted: it decrypts anything"),
        (is.decrypt(), "is not for decryption"),
        (!is.sign(), "is for signing, too"),
        (is.stays(), "may leave its TPM"),
        (is.made_inside(), "was not made by its TPM"),
        (ek.scheme.is_none(), "has a signature scheme"),
    ] {
        require(good, WHAT, reason)?;
    }
    ek.symmetric
        .ok_or_else(|| Error::input(format!("{WHAT} has no cipher")))
}

/// Whether the certified object is the device's key, and as devkey makes them.
fn is_device_key(key: &Public, expected: &PublicKey) -> Result<()> {
    const WHAT: &str = "the certified key";
    let is = key.attributes;
    for (good, reason) in [
        (key.key == *expected, "is another than the one asked about"),
        (is.stays(), "may leave its TPM"),
        (is.made_inside(), "was not made by its TPM"),
        (is.sign(), "is not for signing"),
        (!is.restricted(), "is restricted: it could not have signed"),
    ] {
        require(good, WHAT, reason)?;
    }
    Ok(())
}

/// Whether an attestation was signed by the AK, in the one way that it can sign.
fn signed(ak: &Public, attest: &[u8], signature: &[u8]) -> Result<()> {
    const WHAT: &str = "the attestation's signature";
    let signature = Signature::parse(signature).map_err(|e| about(WHAT, e))?;
    let same = ak.scheme == Some((signature.signing, signature.hash));
    require(same, WHAT, "is of another scheme than its key's")?;
    let kind = ak.key.kind();
    let (scheme, bytes) = signature.for_key(kind).map_err(|e| about(WHAT, e))?;
    let digest = signature.hash.digest(attest);
    let input = match kind.is_ec() {
        true => ecdsa_input(kind, &digest)?,
        false => digest,
    };
    let verified = ak.key.verify(scheme, &input, &bytes);
    require(verified.is_ok(), WHAT, "is not the attestation key's")
}

/// Whether an attestation is what it must be.
fn attested(attest: &[u8], name: &[u8], qualifying_data: &[u8]) -> Result<()> {
    const WHAT: &str = "the attestation";
    let attest = Attest::parse(attest).map_err(|e| about(WHAT, e))?;
    for (good, reason) in [
        (attest.magic == Attest::MAGIC, "was not made by a TPM"),
        (
            attest.kind == Attest::CERTIFY,
            "is of something else than a key",
        ),
        (
            attest.extra_data == qualifying_data,
            "answers another challenge",
        ),
        (attest.certified == Some(name), "is of another key"),
    ] {
        require(good, WHAT, reason)?;
    }
    Ok(())
}

fn require(good: bool, what: &str, reason: &str) -> Result<()> {
    match good {
        true => Ok(()),
        false => Err(Error::input(format!("{what} {reason}"))),
    }
}
