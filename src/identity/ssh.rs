//! Identity in SSH: public keys, certificates, lists of revoked keys, and what a server decides by
//! them.
//!
//! A request for a certificate is a public key's line: SSH has no other. The types on the wire (RFC
//! 4251 §5) are ssh-encoding's; what is made of them follows OpenSSH's PROTOCOL.certkeys and
//! PROTOCOL.krl. Cargo.toml says why not the crate ssh-key.

pub mod agent;
pub mod certificate;
pub mod key;
pub mod krl;
pub mod principals;
mod signature;
mod wire;
