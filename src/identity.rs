//! Identity: a device asks, a CA challenges, the device answers, the CA certifies.
//!
//! Everything that crosses between the two is hostile input on the other side: bounded, parsed into
//! types, and checked before it means anything. No function here touches a file, a clock or a
//! network but those of `ca`, which keeps a CA's books.

pub mod ca;
pub mod device;
pub mod flow;
pub mod install;
pub mod level;
pub mod signer;
pub mod ssh;
pub mod tpm;
pub mod x509;
