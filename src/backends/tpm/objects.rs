//! TPM objects: templates, and the two ways between the TPM's types and devkey's.

use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::structures::{
    Digest, EccParameter, EccPoint, EccScheme, HashScheme, HashcheckTicket,
    KeyDerivationFunctionScheme, KeyedHashScheme, Public, PublicBuilder, PublicEccParameters,
    PublicKeyRsa, PublicKeyedHashParameters, PublicParameters, PublicRsaParameters, RsaExponent,
    RsaScheme, Signature, SignatureScheme, SymmetricDefinitionObject,
};
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;

use super::policy::Policy;
use super::tss2::marshalled;
use crate::error::{Error, Result};
use crate::key::{Hash, KeyKind, PublicKey, Scheme, Usage};

/// TPM_RH_OWNER, which in a key file means the primary made from [`storage_primary`].
const OWNER: u32 = 0x4000_0001;

/// The storage key that wraps a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parent {
    /// A key that stays in the TPM, by its handle.
    Persistent(u32),
    /// The primary key of the owner hierarchy, made when needed from [`storage_primary`].
    Owner,
}

impl Parent {
    /// Where TCG's provisioning guidance puts the storage root key.
    pub(super) const SRK: Parent = Parent::Persistent(0x8100_0001);

    /// The number in key files and in the binding.
    pub(super) fn handle(self) -> u32 {
        match self {
            Parent::Persistent(handle) => handle,
            Parent::Owner => OWNER,
        }
    }

    /// The parent that a key file names.
    pub(super) fn from_handle(handle: u32) -> Result<Self> {
        match handle {
            OWNER => Ok(Parent::Owner),
            0x8100_0000..=0x81ff_ffff => Ok(Parent::Persistent(handle)),
            _ => Err(Error::unsupported(format!(
                "TPM keys whose parent is {handle:#010x}; use a persistent one or the owner's"
            ))),
        }
    }
}

/// The template of the ECC storage primary: TCG EK Credential Profile's SRK with an empty
/// `unique`, as the Linux tools, tpm2-openssl and the key file draft have it. (Windows fills
/// `unique` with zeros, which makes another key.)
pub(super) fn storage_primary() -> Result<Public> {
    let attributes = made_here()
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build();
    let parameters = PublicEccParameters::new(
        SymmetricDefinitionObject::AES_128_CFB,
        EccScheme::Null,
        EccCurve::NistP256,
        KeyDerivationFunctionScheme::Null,
    );
    ours(
        PublicBuilder::new()
            .with_public_algorithm(PublicAlgorithm::Ecc)
            .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
            .with_object_attributes(ours(attributes)?)
            .with_ecc_parameters(parameters)
            .with_ecc_unique_identifier(EccPoint::default())
            .build(),
    )
}

/// The attributes of what was made in this TPM, never leaves it, and is used by its auth.
pub(super) fn made_here() -> ObjectAttributesBuilder {
    ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
}

/// Whether this is a storage key that never leaves the TPM and needs no password.
pub(super) fn is_storage(public: &Public) -> bool {
    let has = public.object_attributes();
    has.restricted()
        && has.decrypt()
        && !has.sign_encrypt()
        && has.fixed_tpm()
        && has.fixed_parent()
        && has.user_with_auth()
        && has.no_da()
}

/// The template of a key: never leaves this TPM, any scheme, and a wrong auth counts nowhere: keys
/// have none, or one that nobody guesses.
pub(super) fn template(kind: KeyKind, usage: Usage) -> Result<Public> {
    let attributes = made_here()
        .with_no_da(true)
        .with_sign_encrypt(usage.sign)
        .with_decrypt(usage.agree || usage.decrypt)
        .build();
    let builder = PublicBuilder::new()
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(ours(attributes)?);
    let builder = match parameters(kind)? {
        PublicParameters::Ecc(parameters) => builder
            .with_public_algorithm(PublicAlgorithm::Ecc)
            .with_ecc_parameters(parameters)
            .with_ecc_unique_identifier(EccPoint::default()),
        PublicParameters::Rsa(parameters) => builder
            .with_public_algorithm(PublicAlgorithm::Rsa)
            .with_rsa_parameters(parameters)
            .with_rsa_unique_identifier(PublicKeyRsa::default()),
        _ => return Err(no_kind(kind)),
    };
    ours(builder.build())
}

/// The template of a sealed secret, which wrong auths lock as they lock everything of its kind in
/// the TPM: usable under `policy` alone, or by its auth alone.
pub(super) fn sealed(policy: Option<&Policy>) -> Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_user_with_auth(policy.is_none())
        .with_admin_with_policy(policy.is_some())
        .build();
    let digest = policy.map(|policy| policy.0.clone()).unwrap_or_default();
    ours(
        PublicBuilder::new()
            .with_public_algorithm(PublicAlgorithm::KeyedHash)
            .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
            .with_object_attributes(ours(attributes)?)
            .with_auth_policy(ours(Digest::try_from(digest))?)
            .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
            .with_keyed_hash_unique_identifier(Digest::default())
            .build(),
    )
}

/// Whether an object is a secret sealed so.
pub(super) fn is_sealed(public: &Public, policy: Option<&Policy>) -> bool {
    let Ok(Public::KeyedHash {
        object_attributes,
        name_hashing_algorithm,
        auth_policy,
        parameters,
        ..
    }) = sealed(policy)
    else {
        return false;
    };
    match public {
        Public::KeyedHash {
            object_attributes: attributes,
            name_hashing_algorithm: hash,
            auth_policy: policy,
            parameters: scheme,
            ..
        } => {
            *attributes == object_attributes
                && *hash == name_hashing_algorithm
                && *policy == auth_policy
                && *scheme == parameters
        }
        _ => false,
    }
}

/// The algorithm parameters of a kind of key, scheme left open.
pub(super) fn parameters(kind: KeyKind) -> Result<PublicParameters> {
    let ecc = |curve| {
        PublicParameters::Ecc(PublicEccParameters::new(
            SymmetricDefinitionObject::Null,
            EccScheme::Null,
            curve,
            KeyDerivationFunctionScheme::Null,
        ))
    };
    let rsa = |bits| {
        PublicParameters::Rsa(PublicRsaParameters::new(
            SymmetricDefinitionObject::Null,
            RsaScheme::Null,
            bits,
            RsaExponent::ZERO_EXPONENT,
        ))
    };
    Ok(match kind {
        KeyKind::EcP256 => ecc(EccCurve::NistP256),
        KeyKind::EcP384 => ecc(EccCurve::NistP384),
        KeyKind::Rsa2048 => rsa(RsaKeyBits::Rsa2048),
        KeyKind::Rsa3072 => rsa(RsaKeyBits::Rsa3072),
        KeyKind::Rsa4096 => rsa(RsaKeyBits::Rsa4096),
        KeyKind::Ed25519 | KeyKind::MlDsa44 | KeyKind::MlDsa65 | KeyKind::MlDsa87 => {
            return Err(no_kind(kind));
        }
    })
}

/// The public key of an object.
///
/// # Errors
/// [`Error::BadBlob`] where it is none that devkey knows.
pub(super) fn public_key(public: &Public) -> Result<PublicKey> {
    match public {
        Public::Ecc {
            parameters, unique, ..
        } => {
            let kind = match parameters.ecc_curve() {
                EccCurve::NistP256 => KeyKind::EcP256,
                EccCurve::NistP384 => KeyKind::EcP384,
                _ => return Err(Error::BadBlob),
            };
            let x = padded(unique.x().value(), kind.bits() / 8)?;
            let y = padded(unique.y().value(), kind.bits() / 8)?;
            PublicKey::from_sec1(kind, &[&[4], x.as_slice(), y.as_slice()].concat())
        }
        Public::Rsa {
            parameters, unique, ..
        } => {
            let exponent = match parameters.exponent().value() {
                0 => 0x1_0001,
                other => other,
            };
            PublicKey::from_rsa(unique.value(), &exponent.to_be_bytes())
        }
        _ => Err(Error::BadBlob),
    }
    .map_err(|_| Error::BadBlob)
}

/// Whether an object is that key and may be used so: unrestricted, bound to its TPM and parent,
/// made by the TPM, any scheme.
pub(super) fn is_key(public: &Public, expected: &PublicKey, usage: Usage) -> bool {
    let has = public.object_attributes();
    let open = match public {
        Public::Ecc { parameters, .. } => {
            parameters.ecc_scheme() == EccScheme::Null && !usage.decrypt
        }
        Public::Rsa { parameters, .. } => {
            parameters.rsa_scheme() == RsaScheme::Null && !usage.agree
        }
        _ => false,
    };
    open && has.fixed_tpm()
        && has.fixed_parent()
        && has.sensitive_data_origin()
        && has.user_with_auth()
        && !has.restricted()
        && (has.sign_encrypt() || !usage.sign)
        && (has.decrypt() || !(usage.agree || usage.decrypt))
        && public_key(public).is_ok_and(|key| key == *expected)
}

/// The Name of an object: its hash algorithm and the hash of its public area (part 1 §16).
///
/// # Errors
/// [`Error::BadBlob`] for a hash that devkey does not know.
pub(super) fn name(public: &Public) -> Result<Vec<u8>> {
    named(public.name_hashing_algorithm(), &marshalled(public)?)
}

/// The Qualified Name that a child has, if its parent is the owner's primary of this Name: a chain
/// of hashes from the hierarchy's handle downwards (part 1 §16). `None` for unknown hashes.
pub(super) fn qualified_child(primary: &[u8], child: &Public) -> Option<Vec<u8>> {
    let hash = match primary.first_chunk()? {
        [0, 0x0b] => HashingAlgorithm::Sha256,
        [0, 0x0c] => HashingAlgorithm::Sha384,
        [0, 0x0d] => HashingAlgorithm::Sha512,
        _ => return None,
    };
    let parent = named(hash, &[&OWNER.to_be_bytes(), primary].concat()).ok()?;
    let own = name(child).ok()?;
    named(child.name_hashing_algorithm(), &[parent, own].concat()).ok()
}

/// The hash of something after the number of its algorithm.
fn named(algorithm: HashingAlgorithm, bytes: &[u8]) -> Result<Vec<u8>> {
    let (id, hash) = match algorithm {
        HashingAlgorithm::Sha256 => (0x0b_u16, Hash::Sha256),
        HashingAlgorithm::Sha384 => (0x0c, Hash::Sha384),
        HashingAlgorithm::Sha512 => (0x0d, Hash::Sha512),
        _ => return Err(Error::BadBlob),
    };
    Ok([id.to_be_bytes().as_slice(), &hash.digest(bytes)].concat())
}

/// The TPM's name for a hash.
pub(super) fn hashing(hash: Hash) -> HashingAlgorithm {
    match hash {
        Hash::Sha256 => HashingAlgorithm::Sha256,
        Hash::Sha384 => HashingAlgorithm::Sha384,
        Hash::Sha512 => HashingAlgorithm::Sha512,
    }
}

/// The TPM's name for a scheme and the length in bytes of the digest that it wants. An ECDSA
/// digest has been fitted to the curve, so the hash of the curve's size stands for all.
pub(super) fn scheme(kind: KeyKind, scheme: Scheme) -> Result<(SignatureScheme, usize)> {
    let with = |hash: Hash| (HashScheme::new(hashing(hash)), hash.size());
    Ok(match (scheme, kind) {
        (Scheme::Ecdsa, KeyKind::EcP256) => {
            let (hash_scheme, size) = with(Hash::Sha256);
            (SignatureScheme::EcDsa { hash_scheme }, size)
        }
        (Scheme::Ecdsa, KeyKind::EcP384) => {
            let (hash_scheme, size) = with(Hash::Sha384);
            (SignatureScheme::EcDsa { hash_scheme }, size)
        }
        (Scheme::RsaPkcs1(hash), kind) if kind.is_rsa() => {
            let (hash_scheme, size) = with(hash);
            (SignatureScheme::RsaSsa { hash_scheme }, size)
        }
        (Scheme::RsaPss(hash), kind) if kind.is_rsa() => {
            let (hash_scheme, size) = with(hash);
            (SignatureScheme::RsaPss { hash_scheme }, size)
        }
        _ => {
            return Err(Error::unsupported(format!(
                "{scheme:?} with a TPM key of kind {kind}"
            )));
        }
    })
}

/// A signature in devkey's form: r‖s, or as long as the modulus. `None` where it is another's.
pub(super) fn signature(kind: KeyKind, signature: &Signature) -> Option<Vec<u8>> {
    let len = kind.signature_len();
    match signature {
        Signature::EcDsa(ecdsa) if kind.is_ec() => {
            let r = padded(ecdsa.signature_r().value(), len / 2).ok()?;
            let s = padded(ecdsa.signature_s().value(), len / 2).ok()?;
            Some([r, s].concat())
        }
        Signature::RsaSsa(rsa) | Signature::RsaPss(rsa) if kind.is_rsa() => {
            let bytes = rsa.signature().value();
            (bytes.len() == len).then(|| bytes.to_vec())
        }
        _ => None,
    }
}

/// A public key's point for the TPM.
pub(super) fn point(public: &PublicKey) -> Result<EccPoint> {
    let coordinates = public.point().and_then(|point| point.get(1..));
    let (x, y) = coordinates
        .map(|both| both.split_at(both.len() / 2))
        .ok_or_else(|| Error::input("not a point of a curve"))?;
    Ok(EccPoint::new(
        ours(EccParameter::try_from(x))?,
        ours(EccParameter::try_from(y))?,
    ))
}

/// The ticket that says nothing: our keys are not restricted.
pub(super) fn no_ticket() -> Result<HashcheckTicket> {
    ours(HashcheckTicket::try_from(TPMT_TK_HASHCHECK {
        tag: TPM2_ST_HASHCHECK,
        hierarchy: TPM2_RH_NULL,
        digest: Default::default(),
    }))
}

/// A big-endian number in exactly `len` bytes: TPMs may drop leading zeros, or add some.
pub(super) fn padded(number: &[u8], len: usize) -> Result<Vec<u8>> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let digits = number.get(zeros..).unwrap_or_default();
    let missing = len.checked_sub(digits.len()).ok_or(Error::BadBlob)?;
    Ok([vec![0; missing].as_slice(), digits].concat())
}

/// A structure that tss-esapi refused to build from our own constants.
pub(super) fn ours<T>(built: tss_esapi::Result<T>) -> Result<T> {
    built.map_err(|error| Error::Internal(format!("TPM structure: {error}")))
}

fn no_kind(kind: KeyKind) -> Error {
    Error::unsupported(format!("{kind} keys in a TPM"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen failing with the `checked_sub` of `padded` changed to `saturating_sub`.
    #[test]
    fn numbers_are_fitted() {
        assert_eq!(padded(&[1, 2], 4).unwrap(), [0, 0, 1, 2]);
        assert_eq!(padded(&[0, 0, 0, 1, 2], 2).unwrap(), [1, 2]);
        assert_eq!(padded(&[], 1).unwrap(), [0]);
        assert!(padded(&[1, 2, 3], 2).is_err());
    }
}
