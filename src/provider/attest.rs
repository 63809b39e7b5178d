//! What a device shows of itself to a CA.

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// Longest qualifying data in bytes that every TPM takes (TPM2B_DATA of one that has SHA-256 alone
/// holds two more).
pub const MAX_QUALIFYING: usize = 32;

/// Longest [`Credential::id_object`] and [`Credential::encrypted_secret`] in bytes: those of a TPM
/// with SHA-512 and RSA-4096.
pub const MAX_CREDENTIAL: usize = 512;

pub(super) const NO_ATTESTATION: &str =
    "attestation without a TPM: this device cannot show where its keys are";

/// What a device is asked to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Attest {
    /// Who it is; the answer is [`Attested::Identity`].
    Identity,
    /// That its attestation key lives beside this endorsement key, by opening what is encrypted for
    /// the two (TPM2_ActivateCredential); the answer is [`Attested::Secret`].
    Activate {
        /// The endorsement key: [`EndorsementKey::public`].
        ek_public: Vec<u8>,
        /// What the CA has encrypted for it.
        credential: Credential,
    },
}

/// What a device has shown.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Attested {
    /// Who it is.
    Identity(Identity),
    /// What the CA had encrypted.
    Secret(Secret),
}

/// Who a TPM is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Its endorsement keys with a certificate; where it has none, one without.
    pub endorsement: Vec<EndorsementKey>,
    /// Its attestation key: TPMT_PUBLIC. The same as long as the endorsement keys are.
    pub ak_public: Vec<u8>,
}

/// An endorsement key: a storage key that a TPM has from its maker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndorsementKey {
    /// TPMT_PUBLIC.
    pub public: Vec<u8>,
    /// Its certificate, DER, as the maker left it in the TPM.
    pub certificate: Option<Vec<u8>>,
    /// What of the chain above it the maker left there, DER each.
    pub intermediates: Vec<Vec<u8>>,
}

/// A secret that only one TPM can decrypt, where a certain object is loaded (TPM2_MakeCredential).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Contents of the TPM2B_ID_OBJECT, without the two bytes of its length.
    pub id_object: Vec<u8>,
    /// Contents of the TPM2B_ENCRYPTED_SECRET, likewise.
    pub encrypted_secret: Vec<u8>,
}

/// What an attestation key says of a key (TPM2_Certify).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certified {
    /// What was signed: TPMS_ATTEST.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
    /// The key: TPMT_PUBLIC.
    pub key_public: Vec<u8>,
}
