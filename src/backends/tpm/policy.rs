//! Policies as digests (part 1 §19.7, part 3 §23), computed here so that nobody else's answer is
//! taken for one.

use crate::key::Hash;

/// TPM_CC_NV_Read.
pub(super) const NV_READ: u32 = 0x14e;

const POLICY_AUTH_VALUE: u32 = 0x16b;
const POLICY_COMMAND_CODE: u32 = 0x16c;
const POLICY_OR: u32 = 0x171;
const POLICY_SECRET: u32 = 0x151;

/// A policy: a chain of SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy(pub(super) Vec<u8>);

impl Policy {
    /// Asks for nothing, so far.
    pub(super) fn new() -> Self {
        Policy(vec![0; 32])
    }

    /// And TPM2_PolicySecret of the entity of this Name, without a policyRef.
    pub(super) fn secret(self, name: &[u8]) -> Self {
        self.and(POLICY_SECRET, name).extended(&[])
    }

    /// And TPM2_PolicyAuthValue: the object's own auth.
    pub(super) fn auth_value(self) -> Self {
        self.and(POLICY_AUTH_VALUE, &[])
    }

    /// And TPM2_PolicyCommandCode.
    pub(super) fn command(self, code: u32) -> Self {
        self.and(POLICY_COMMAND_CODE, &code.to_be_bytes())
    }

    /// TPM2_PolicyOR of two.
    pub(super) fn either(one: &Policy, other: &Policy) -> Self {
        Policy::new().and(POLICY_OR, &[one.0.as_slice(), &other.0].concat())
    }

    fn and(self, command: u32, with: &[u8]) -> Self {
        self.extended(&[&command.to_be_bytes(), with].concat())
    }

    fn extended(self, with: &[u8]) -> Self {
        Policy(Hash::Sha256.digest(&[self.0.as_slice(), with].concat()))
    }
}
