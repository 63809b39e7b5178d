//! The attestation key.

use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::structures::{
    EccParameter, EccPoint, EccScheme, HashScheme, KeyDerivationFunctionScheme, Public,
    PublicBuilder, PublicEccParameters, PublicKeyRsa, PublicRsaParameters, RsaExponent, RsaScheme,
    SymmetricDefinitionObject,
};

use super::Endorser;
use crate::backends::tpm::errors::Fault;
use crate::backends::tpm::live::Live;
use crate::backends::tpm::objects::{made_here, ours};
use crate::backends::tpm::probe;
use crate::error::Result;
use crate::key::{Hash, KeyKind};

/// Makes it devkey's own: another program's with the same attributes is another key.
const OURS: &[u8] = b"devkey attestation key 1";

/// Makes the AK: on P-256, or RSA-2048 in a TPM without that curve. To be flushed with the rest.
pub(super) fn make(live: &mut Live, endorser: &Endorser<'_>) -> Result<(KeyHandle, Public), Fault> {
    let kind = match probe::has(live, KeyKind::EcP256)? {
        true => KeyKind::EcP256,
        false => KeyKind::Rsa2048,
    };
    live.endorsement_primary(endorser.password, endorser.session, template(kind)?)
}

/// A restricted signing key: it signs nothing that comes from outside the TPM and looks as if it
/// did not. Its auth is empty; there is nothing to guess.
fn template(kind: KeyKind) -> Result<Public> {
    let attributes = made_here()
        .with_no_da(true)
        .with_restricted(true)
        .with_sign_encrypt(true)
        .build();
    let builder = PublicBuilder::new()
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(ours(attributes)?);
    let unique = Hash::Sha256.digest(OURS);
    ours(match kind {
        KeyKind::EcP256 => builder
            .with_public_algorithm(PublicAlgorithm::Ecc)
            .with_ecc_parameters(ecdsa())
            .with_ecc_unique_identifier(EccPoint::new(
                ours(EccParameter::try_from(unique))?,
                ours(EccParameter::try_from(vec![0; 32]))?,
            ))
            .build(),
        _ => {
            let unique = [unique, vec![0; 256 - 32]].concat();
            builder
                .with_public_algorithm(PublicAlgorithm::Rsa)
                .with_rsa_parameters(rsassa())
                .with_rsa_unique_identifier(ours(PublicKeyRsa::try_from(unique))?)
                .build()
        }
    })
}

fn ecdsa() -> PublicEccParameters {
    PublicEccParameters::new(
        SymmetricDefinitionObject::Null,
        EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256)),
        EccCurve::NistP256,
        KeyDerivationFunctionScheme::Null,
    )
}

fn rsassa() -> PublicRsaParameters {
    PublicRsaParameters::new(
        SymmetricDefinitionObject::Null,
        RsaScheme::RsaSsa(HashScheme::new(HashingAlgorithm::Sha256)),
        RsaKeyBits::Rsa2048,
        RsaExponent::ZERO_EXPONENT,
    )
}
