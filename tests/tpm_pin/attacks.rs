//! Attacks by who has the owner's authorisation, the store and tpm2-tools, but not the PIN.
