//! A sealed secret as a blob: strict DER, of which only the private area is secret, and encrypted
//! by the TPM.
//!
//! ```text
//! SealedSecret ::= SEQUENCE {
//!     version  INTEGER,                    -- 1
//!     counter  [0] EXPLICIT SEQUENCE {     -- absent: wrong PINs count for the whole TPM
//!         handle  INTEGER,                 -- of the NV index
//!         writer  OCTET STRING             -- SHA-256: the policy that wrote it
//!     } OPTIONAL,
//!     public   OCTET STRING,               -- TPMT_PUBLIC
//!     private  OCTET STRING }              -- TPM2B_PRIVATE without its length
//! ```
//!
//! Its parent is the token's storage key, which the token records. The public area must be exactly
//! what the rest asks for: a policy over the counter's Name, or none.

use der::asn1::OctetStringRef;
use der::{Decode, Encode, Sequence};
use tss_esapi::structures::{Private, Public};
use tss_esapi::traits::UnMarshall;

use super::counter::Counter;
use super::objects::{self, Parent};
use super::policy::Policy;
use super::tss2::{Wrapped, marshalled};
use crate::error::{Error, Result};
use crate::provider::Blob;

/// The label of the PEM block.
const LABEL: &str = "DEVKEY TPM SECRET";
/// The newest format.
const VERSION: u32 = 1;

/// A sealed secret and what counts the wrong PINs for it.
#[derive(Debug)]
pub(super) struct Sealed {
    /// `None` where that is the whole TPM.
    pub(super) counter: Option<Counter>,
    /// The object.
    pub(super) public: Public,
    /// Its private area, encrypted by the TPM.
    pub(super) private: Private,
}

#[derive(Sequence)]
struct SealedSecret<'a> {
    version: u32,
    #[asn1(context_specific = "0", optional = "true")]
    counter: Option<Place<'a>>,
    public: &'a OctetStringRef,
    private: &'a OctetStringRef,
}

#[derive(Sequence)]
struct Place<'a> {
    handle: u32,
    writer: &'a OctetStringRef,
}

impl Sealed {
    /// The policy of a secret with this counter: the counter is asked first, so that an honest
    /// wrong PIN never comes as far as the auth that the whole TPM counts.
    pub(super) fn policy(counter: &Counter) -> Policy {
        Policy::new().secret(&counter.name()).auth_value()
    }

    /// The blob.
    pub(super) fn to_blob(&self) -> Result<Blob> {
        let bytes = self
            .encode()
            .map_err(|_| Error::Internal("a sealed secret does not fit into DER".into()))?;
        Ok(Blob {
            label: LABEL.to_owned(),
            bytes,
        })
    }

    /// Reads a blob.
    ///
    /// # Errors
    /// [`Error::BadBlob`] for anything but exactly one well-formed secret; [`Error::Unsupported`]
    /// for one of a newer format.
    pub(super) fn from_blob(blob: &Blob) -> Result<Self> {
        if blob.label != LABEL {
            return Err(Error::BadBlob);
        }
        let read = SealedSecret::from_der(&blob.bytes).map_err(|_| Error::BadBlob)?;
        match read.version {
            VERSION => {}
            0 => return Err(Error::BadBlob),
            newer => {
                return Err(Error::unsupported(format!(
                    "a sealed secret of format {newer}; upgrade devkey"
                )));
            }
        }
        let counter = read.counter.map(|place| place.counter()).transpose()?;
        let policy = counter.as_ref().map(Sealed::policy);
        let area = read.public.as_bytes();
        let public = Public::unmarshall(area).map_err(|_| Error::BadBlob)?;
        if marshalled(&public)? != area || !objects::is_sealed(&public, policy.as_ref()) {
            return Err(Error::BadBlob);
        }
        let private = read.private.as_bytes();
        Ok(Sealed {
            counter,
            public,
            private: Private::try_from(private).map_err(|_| Error::BadBlob)?,
        })
    }

    /// The object as a child of the token's storage key.
    pub(super) fn wrapped(&self, parent: Parent) -> Wrapped {
        Wrapped {
            parent,
            has_auth: true,
            public: self.public.clone(),
            private: self.private.clone(),
        }
    }

    fn encode(&self) -> der::Result<Vec<u8>> {
        let public = marshalled(&self.public).unwrap_or_default();
        let place = |counter| -> der::Result<Place<'_>> {
            let counter: &Counter = counter;
            Ok(Place {
                handle: counter.handle(),
                writer: OctetStringRef::new(&counter.writer().0)?,
            })
        };
        SealedSecret {
            version: VERSION,
            counter: self.counter.as_ref().map(place).transpose()?,
            public: OctetStringRef::new(&public)?,
            private: OctetStringRef::new(self.private.value())?,
        }
        .to_der()
    }
}

impl Place<'_> {
    fn counter(&self) -> Result<Counter> {
        Counter::new(self.handle, Policy(self.writer.as_bytes().to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(counter: Option<Counter>) -> Sealed {
        let policy = counter.as_ref().map(Sealed::policy);
        Sealed {
            counter,
            public: objects::sealed(policy.as_ref()).unwrap(),
            private: Private::try_from(vec![7; 126]).unwrap(),
        }
    }

    fn samples() -> [Sealed; 2] {
        let counter = Counter::new(0x0180_1234, Policy::new().command(1)).unwrap();
        [sample(Some(counter)), sample(None)]
    }

    fn with(bytes: Vec<u8>) -> Blob {
        Blob {
            label: LABEL.to_owned(),
            bytes,
        }
    }

    #[test]
    fn a_blob_is_read_back() {
        for sealed in samples() {
            let blob = sealed.to_blob().unwrap();
            let read = Sealed::from_blob(&blob).unwrap();
            assert_eq!(read.counter, sealed.counter);
            assert_eq!(read.to_blob().unwrap(), blob);
        }
    }

    /// Nothing but the TPM's private area can be changed: the rest is said twice. Seen failing
    /// without `is_sealed` in `from_blob`.
    #[test]
    fn damage_is_noticed() {
        for sealed in samples() {
            let blob = sealed.to_blob().unwrap();
            let private = blob.bytes.len() - 126;
            for len in 0..blob.bytes.len() {
                let short = with(blob.bytes[..len].to_vec());
                assert!(Sealed::from_blob(&short).is_err(), "{len} bytes");
            }
            assert!(Sealed::from_blob(&with([blob.bytes.as_slice(), &[0]].concat())).is_err());
            for bit in 0..private * 8 {
                let mut bytes = blob.bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let read = Sealed::from_blob(&with(bytes));
                assert!(read.is_err(), "bit {bit}: {read:?}");
            }
        }
    }

    /// The two ways to count are not exchanged. Seen failing without `is_sealed` in `from_blob`.
    #[test]
    fn a_counter_is_neither_dropped_nor_added() {
        let [counted, shared] = samples();
        let mixed = [
            Sealed {
                counter: None,
                public: counted.public,
                private: counted.private,
            },
            Sealed {
                counter: counted.counter,
                public: shared.public,
                private: shared.private,
            },
        ];
        for sealed in mixed {
            let read = Sealed::from_blob(&sealed.to_blob().unwrap());
            assert!(matches!(read, Err(Error::BadBlob)), "{read:?}");
        }
    }

    #[test]
    fn a_newer_format_is_named() {
        let [sealed, _] = samples();
        let blob = sealed.to_blob().unwrap();
        let mut bytes = blob.bytes;
        let at = bytes.iter().position(|byte| *byte == 2).unwrap() + 2;
        assert_eq!(bytes[at], 1, "the version");
        bytes[at] = 2;
        let text = Sealed::from_blob(&with(bytes)).unwrap_err().to_string();
        assert!(text.contains("upgrade"), "{text}");
    }
}
