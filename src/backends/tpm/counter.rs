//! The NV index that counts the wrong PINs of one sealed secret, and nothing else.
//!
//! Of type TPM_NT_PIN_FAIL (part 1 §37.2): a wrong auth raises pinCount, a right one sets it to 0,
//! at pinLimit the auth is refused whatever it is. Everything that a policy must rely on is in the
//! index's Name, so a policy that names it cannot be met by another: it is computed here, from the
//! handle and [`Counter::writer`], and never read from anywhere.
//!
//! The auth is not in the Name: who has the owner's authorisation can take the index away and
//! define it anew with an auth of his own. But then it has not been written, which the Name tells,
//! too; and it was written once, under [`Counter::writer`], which nobody can satisfy again: the
//! policy is TPM2_PolicySecret of a key whose auth was random and has been forgotten. (A
//! TPM2_PolicySigned over the session's nonce by a forgotten key would be as good, but tss-esapi 7.7
//! does not give the nonce.)

use tss_esapi::attributes::NvIndexAttributes;
use tss_esapi::handles::NvIndexTpmHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::structures::{Digest, NvPublic};

use super::objects::ours;
use super::policy::{NV_READ, Policy};
use crate::error::{Error, Result};
use crate::key::Hash;
use crate::secret::Secret;

/// The handles that TCG leaves to the owner (Registry of Reserved TPM 2.0 Handles).
const OWNERS: std::ops::RangeInclusive<u32> = 0x0180_0000..=0x01bf_ffff;
/// TPM_ALG_SHA256.
const SHA256: u16 = 0x0b;
/// POLICYWRITE, TPM_NT_PIN_FAIL, AUTHREAD (for TPM2_PolicySecret), POLICYREAD, NO_DA (part 2 §13.4).
const ATTRIBUTES: u32 = 1 << 3 | 8 << 4 | 1 << 18 | 1 << 19 | 1 << 25;
/// TPMA_NV_WRITTEN.
const WRITTEN: u32 = 1 << 29;
/// pinCount and pinLimit, 4 bytes each (part 2 §13.3).
pub(super) const SIZE: u16 = 8;

/// The index, by what makes its Name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counter {
    handle: u32,
    writer: Policy,
}

impl Counter {
    /// A counter somewhere in the owner's range: whether the place is free, its definition shows.
    pub(super) fn anywhere(writer: Policy) -> Result<Self> {
        let random = Secret::random(4)?;
        let number = random
            .expose()
            .iter()
            .fold(0, |n, b| n << 8 | u32::from(*b));
        let size = OWNERS.end() - OWNERS.start() + 1;
        Counter::new(OWNERS.start() + number % size, writer)
    }

    /// A counter at this handle, written once under this policy.
    ///
    /// # Errors
    /// [`Error::BadBlob`] where that is not the owner's.
    pub(super) fn new(handle: u32, writer: Policy) -> Result<Self> {
        match OWNERS.contains(&handle) && writer.0.len() == 32 {
            true => Ok(Counter { handle, writer }),
            false => Err(Error::BadBlob),
        }
    }

    /// Its handle.
    pub(super) fn handle(&self) -> u32 {
        self.handle
    }

    /// The policy under which it was written.
    pub(super) fn writer(&self) -> &Policy {
        &self.writer
    }

    /// The policies of which either will do: to write it, once; to read it, for everybody.
    pub(super) fn branches(&self) -> [Policy; 2] {
        [self.writer.clone(), Policy::new().command(NV_READ)]
    }

    /// Its Name once it has been written (part 1 §16).
    pub(super) fn name(&self) -> Vec<u8> {
        // TPMS_NV_PUBLIC, part 2 §13.5.
        let public = [
            self.handle.to_be_bytes().as_slice(),
            &SHA256.to_be_bytes(),
            &(ATTRIBUTES | WRITTEN).to_be_bytes(),
            &[0, 32],
            &self.policy().0,
            &SIZE.to_be_bytes(),
        ]
        .concat();
        let digest = Hash::Sha256.digest(&public);
        [SHA256.to_be_bytes().as_slice(), &digest].concat()
    }

    /// What TPM2_NV_DefineSpace wants.
    pub(super) fn public(&self) -> Result<NvPublic> {
        ours(
            NvPublic::builder()
                .with_nv_index(ours(NvIndexTpmHandle::new(self.handle))?)
                .with_index_name_algorithm(HashingAlgorithm::Sha256)
                .with_index_attributes(ours(NvIndexAttributes::try_from(ATTRIBUTES))?)
                .with_index_auth_policy(ours(Digest::try_from(self.policy().0))?)
                .with_data_area_size(usize::from(SIZE))
                .build(),
        )
    }

    fn policy(&self) -> Policy {
        let [write, read] = self.branches();
        Policy::either(&write, &read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Several tokens, and what others keep there, seldom meet, and nobody else's range is taken.
    #[test]
    fn handles_are_the_owners_and_differ() {
        let writer = Policy::new().command(1);
        let handles: std::collections::BTreeSet<_> = (0..100)
            .map(|_| Counter::anywhere(writer.clone()).unwrap().handle())
            .collect();
        assert!(handles.len() > 95, "{handles:x?}");
        for bad in [0x017f_ffff, 0x01c0_0002, 0x8100_0001, 0] {
            assert!(Counter::new(bad, writer.clone()).is_err(), "{bad:#x}");
        }
        assert!(Counter::new(0x0180_0000, Policy(vec![0; 31])).is_err());
    }
}
