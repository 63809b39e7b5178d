//! The TSS2 PRIVATE KEY format: a TPM object as ASN.1 (draft-bottomley-tpm2-keys-00 §3), which
//! tpm2-openssl, the kernel, GnuTLS and ssh-tpm-agent read and write too.

use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef, Utf8StringRef};
use der::{
    Decode, DecodeValue, Encode, EncodeValue, FixedTag, Header, Length, Reader, Sequence, Tag,
    Writer,
};
use tss_esapi::structures::{Private, Public};
use tss_esapi::traits::{Marshall, UnMarshall};

use super::objects::Parent;
use crate::error::{Error, Result};
use crate::provider::Blob;

/// The label of the PEM block.
pub(super) const LABEL: &str = "TSS2 PRIVATE KEY";

/// id-loadablekey: a key that TPM2_Load takes.
const LOADABLE_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.3");

/// TPMKey, §3.1. What follows from a policy is kept apart, so that it can be supported one day.
#[derive(Sequence)]
struct TpmKey<'a> {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", optional = "true")]
    empty_auth: Option<Flag>,
    #[asn1(context_specific = "1", optional = "true")]
    policy: Option<AnyRef<'a>>,
    #[asn1(context_specific = "2", optional = "true")]
    secret: Option<&'a OctetStringRef>,
    #[asn1(context_specific = "3", optional = "true")]
    auth_policy: Option<AnyRef<'a>>,
    #[asn1(context_specific = "4", optional = "true")]
    description: Option<Utf8StringRef<'a>>,
    #[asn1(context_specific = "5", optional = "true")]
    rsa_parent: Option<Flag>,
    parent: u32,
    public: &'a OctetStringRef,
    private: &'a OctetStringRef,
}

/// A BOOLEAN. TRUE is written as DER wants it, 0xff, and read as tpm2-openssl 1.1 writes it, too:
/// 0x01, which is BER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flag(bool);

impl FixedTag for Flag {
    const TAG: Tag = Tag::Boolean;
}

impl<'a> DecodeValue<'a> for Flag {
    type Error = der::Error;

    fn decode_value<R: Reader<'a>>(reader: &mut R, header: Header) -> der::Result<Self> {
        match (header.length() == Length::ONE, reader.read_byte()?) {
            (true, 0) => Ok(Flag(false)),
            (true, 0x01 | 0xff) => Ok(Flag(true)),
            _ => Err(Tag::Boolean.value_error().into()),
        }
    }
}

impl EncodeValue for Flag {
    fn value_len(&self) -> der::Result<Length> {
        Ok(Length::ONE)
    }

    fn encode_value(&self, writer: &mut impl Writer) -> der::Result<()> {
        writer.write_byte(if self.0 { 0xff } else { 0 })
    }
}

/// A key as TPM2_Create gave it and as TPM2_Load wants it.
#[derive(Debug)]
pub(super) struct Wrapped {
    /// Whose child it is.
    pub(super) parent: Parent,
    /// Whether it is said to have an auth.
    pub(super) has_auth: bool,
    /// Its public area.
    pub(super) public: Public,
    /// Its private area, encrypted by the TPM.
    pub(super) private: Private,
}

impl Wrapped {
    /// The key as a blob of its own.
    pub(super) fn to_blob(&self) -> Result<Blob> {
        let public = sized(&marshalled(&self.public)?)?;
        let private = sized(self.private.value())?;
        let bytes = encode(self.parent.handle(), self.has_auth, &public, &private)
            .map_err(|_| Error::Internal("a TPM key does not fit into DER".into()))?;
        Ok(Blob {
            label: LABEL.to_owned(),
            bytes,
        })
    }

    /// Reads a blob, ours or another program's.
    ///
    /// # Errors
    /// [`Error::BadBlob`] for anything but exactly one well-formed key; [`Error::Unsupported`] for
    /// a key that wants a password, a policy or another kind of parent.
    pub(super) fn from_blob(blob: &Blob) -> Result<Self> {
        if blob.label != LABEL {
            return Err(Error::BadBlob);
        }
        let key = TpmKey::from_der(&blob.bytes).map_err(|_| Error::BadBlob)?;
        key.check()?;
        let area = unsized_part(key.public.as_bytes())?;
        let public = Public::unmarshall(area).map_err(|_| Error::BadBlob)?;
        if marshalled(&public)? != area {
            return Err(Error::BadBlob);
        }
        // tpm2_encodeobject 5.4 says of every key that it has a password. To try the empty one is
        // harmless only where a wrong password does not count.
        if key.empty_auth != Some(Flag(true)) && !public.object_attributes().no_da() {
            return Err(Error::unsupported(
                "TPM keys with a password of their own (or of tpm2_create without the noda attribute)",
            ));
        }
        let private = unsized_part(key.private.as_bytes())?;
        Ok(Wrapped {
            parent: Parent::from_handle(key.parent)?,
            has_auth: key.empty_auth != Some(Flag(true)),
            public,
            private: Private::try_from(private).map_err(|_| Error::BadBlob)?,
        })
    }
}

impl TpmKey<'_> {
    fn check(&self) -> Result<()> {
        if self.kind != LOADABLE_KEY {
            return Err(Error::unsupported("TPM keys other than loadable ones"));
        }
        if self.policy.is_some() || self.auth_policy.is_some() || self.secret.is_some() {
            return Err(Error::unsupported("TPM keys with a policy"));
        }
        if self.rsa_parent == Some(Flag(true)) {
            return Err(Error::unsupported("TPM keys under an RSA primary"));
        }
        Ok(())
    }
}

/// A public area as the TPM writes it (TPMT_PUBLIC).
pub(super) fn marshalled(public: &Public) -> Result<Vec<u8>> {
    public.marshall().map_err(|_| Error::BadBlob)
}

fn encode(parent: u32, has_auth: bool, public: &[u8], private: &[u8]) -> der::Result<Vec<u8>> {
    TpmKey {
        kind: LOADABLE_KEY,
        empty_auth: Some(Flag(!has_auth)),
        policy: None,
        secret: None,
        auth_policy: None,
        description: None,
        rsa_parent: None,
        parent,
        public: OctetStringRef::new(public)?,
        private: OctetStringRef::new(private)?,
    }
    .to_der()
}

/// Puts the two length bytes of a TPM2B in front.
fn sized(bytes: &[u8]) -> Result<Vec<u8>> {
    let len = u16::try_from(bytes.len()).map_err(|_| Error::BadBlob)?;
    Ok([&len.to_be_bytes(), bytes].concat())
}

/// Takes the two length bytes of a TPM2B off; nothing may follow.
fn unsized_part(bytes: &[u8]) -> Result<&[u8]> {
    let (len, rest) = bytes.split_first_chunk().ok_or(Error::BadBlob)?;
    if usize::from(u16::from_be_bytes(*len)) != rest.len() || rest.is_empty() {
        return Err(Error::BadBlob);
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::tpm::objects;
    use crate::key::{KeyKind, Usage};

    fn sample() -> Blob {
        Wrapped {
            parent: Parent::Persistent(0x8100_0001),
            has_auth: false,
            public: objects::template(KeyKind::EcP256, Usage::SIGN).unwrap(),
            private: Private::try_from(vec![7; 126]).unwrap(),
        }
        .to_blob()
        .unwrap()
    }

    #[test]
    fn a_blob_is_read_back() {
        let blob = sample();
        let key = Wrapped::from_blob(&blob).unwrap();
        assert_eq!(key.parent, Parent::Persistent(0x8100_0001));
        assert_eq!(key.to_blob().unwrap(), blob);
    }

    /// Every truncation and every flipped bit is refused or read back as what it says, and nothing
    /// panics. Seen failing with the `rest.len()` comparison of `unsized_part` taken out.
    #[test]
    fn damage_is_noticed() {
        let blob = sample();
        for len in 0..blob.bytes.len() {
            let bytes = blob.bytes[..len].to_vec();
            let short = Blob {
                bytes,
                ..blob.clone()
            };
            assert!(Wrapped::from_blob(&short).is_err(), "{len} bytes");
        }
        let mut longer = blob.clone();
        longer.bytes.push(0);
        assert!(matches!(Wrapped::from_blob(&longer), Err(Error::BadBlob)));
        for at in 0..blob.bytes.len() * 8 {
            let mut bytes = blob.bytes.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            let flipped = Blob {
                bytes,
                ..blob.clone()
            };
            if let Ok(key) = Wrapped::from_blob(&flipped) {
                assert_eq!(key.to_blob().unwrap(), flipped, "bit {at}");
            }
        }
    }

    #[test]
    fn another_label_is_refused() {
        let other = Blob {
            label: "PRIVATE KEY".into(),
            ..sample()
        };
        assert!(matches!(Wrapped::from_blob(&other), Err(Error::BadBlob)));
    }

    /// Seen failing with each comparison of `TpmKey::check` taken out.
    #[test]
    fn what_is_not_supported_is_said() {
        let blob = sample();
        let text = |key: TpmKey<'_>| {
            let bytes = key.to_der().unwrap();
            Wrapped::from_blob(&Blob {
                bytes,
                ..blob.clone()
            })
            .unwrap_err()
            .to_string()
        };
        let base = || TpmKey::from_der(&blob.bytes).unwrap();
        let yes = Some(Flag(true));
        let null = Some(AnyRef::NULL);
        let rsa = TpmKey {
            rsa_parent: yes,
            ..base()
        };
        assert!(text(rsa).contains("RSA primary"));
        let policy = TpmKey {
            policy: null,
            ..base()
        };
        assert!(text(policy).contains("policy"));
        let auth_policy = TpmKey {
            auth_policy: null,
            ..base()
        };
        assert!(text(auth_policy).contains("policy"));
        let parent = TpmKey {
            parent: 0x4000_000b,
            ..base()
        };
        assert!(text(parent).contains("parent"));
        // A password counts where noDA (bit 10 of the attributes, part 2 §8.3) is not set.
        let mut counted = base().public.as_bytes().to_vec();
        counted[8] &= !0x04;
        let public = OctetStringRef::new(&counted).unwrap();
        for empty_auth in [None, Some(Flag(false))] {
            assert!(
                text(TpmKey {
                    empty_auth,
                    public,
                    ..base()
                })
                .contains("password")
            );
        }
        let kind = ObjectIdentifier::new_unwrap("2.23.133.10.1.5");
        assert!(text(TpmKey { kind, ..base() }).contains("loadable"));
    }
}
