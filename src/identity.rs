//! Identity: a device asks, a CA challenges, the device answers, the CA certifies.
//!
//! Everything that crosses between the two is hostile input on the other side: bounded, parsed into
//! types, and checked before it means anything. No function here touches a file, a clock or a
//! network but those of `ca`, which keeps a CA's books.

/// Has serde write and read a type as its text: by `Display` and `FromStr`.
macro_rules! as_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = crate::error::Error;

            fn try_from(text: String) -> crate::error::Result<Self> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(it: $type) -> Self {
                it.to_string()
            }
        }
    };
}

pub mod bundle;
pub mod ca;
pub mod device;
pub mod flow;
pub mod install;
pub mod level;
pub mod signer;
pub mod ssh;
pub mod tpm;
pub mod x509;
