//! The back ends: each one file or folder, none importing another's, none known to the layers
//! above but through [`BackEnd`](crate::provider::BackEnd).

pub mod file;
#[cfg(feature = "kernel")]
pub mod kernel;
pub mod puf;
pub mod soft;
#[cfg(feature = "tpm")]
pub mod tpm;
pub mod wrapped;
