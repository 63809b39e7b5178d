//! TPMT_PUBLIC, TPMT_SIGNATURE and TPMS_ATTEST (part 2 §10.12, §11.2.3, §12.2.4).

use super::reader::Reader;
use crate::error::{Error, Result};
use crate::key::{Hash, KeyKind, PublicKey, Scheme};

/// TPM_ALG_ID, part 2 §6.3.
const RSA: u16 = 0x0001;
const AES: u16 = 0x0006;
const NULL: u16 = 0x0010;
const RSASSA: u16 = 0x0014;
const RSAPSS: u16 = 0x0016;
const ECDSA: u16 = 0x0018;
const ECC: u16 = 0x0023;
const CFB: u16 = 0x0043;

/// Longest digest in bytes, and with its algorithm the longest Name or piece of extra data.
const MAX_DIGEST: usize = 64;
const MAX_NAME: usize = 2 + MAX_DIGEST;
/// Longest RSA modulus or signature in bytes.
const MAX_RSA: usize = 512;

/// An object's public area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Public {
    /// Hash of its Name.
    pub(super) hash: Hash,
    pub(super) attributes: Attributes,
    /// Bits of the AES key that protects its children; `None` where it has none.
    pub(super) symmetric: Option<usize>,
    /// The scheme and hash that it signs by; `None` where its user chooses.
    pub(super) scheme: Option<(Signing, Hash)>,
    pub(super) key: PublicKey,
    /// The x coordinate as it stands, which a TPM may have shortened; empty for RSA.
    pub(super) x: Vec<u8>,
    /// Its Name: the hash's number, and the hash of the public area (part 1 §16).
    pub(super) name: Vec<u8>,
}

/// TPMA_OBJECT, part 2 §8.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes(u32);

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signing {
    RsaSsa,
    RsaPss,
    Ecdsa,
}

/// A signature.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) signing: Signing,
    pub(super) hash: Hash,
    /// One number for RSA, r and s for ECDSA.
    numbers: Vec<Vec<u8>>,
}

/// What stands at the head of each attestation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attest<'a> {
    /// TPM_GENERATED_VALUE, or it was not made by a TPM.
    pub(super) magic: u32,
    /// TPMI_ST_ATTEST: what is attested.
    pub(super) kind: u16,
    /// What the caller gave.
    pub(super) extra_data: &'a [u8],
    /// TPMS_CERTIFY_INFO, for its own kind alone: the Name of the object.
    pub(super) certified: Option<&'a [u8]>,
}

impl Attributes {
    const FIXED_TPM: u32 = 1 << 1;
    const FIXED_PARENT: u32 = 1 << 4;
    const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    const ENCRYPTED_DUPLICATION: u32 = 1 << 11;
    const RESTRICTED: u32 = 1 << 16;
    const DECRYPT: u32 = 1 << 17;
    const SIGN: u32 = 1 << 18;
    /// Those that mean something as of revision 1.83: the others must be 0.
    const KNOWN: u32 = 0x000f_0ff6;

    fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    /// Whether it cannot leave its TPM, neither by itself nor with a parent.
    pub(super) fn stays(self) -> bool {
        self.has(Self::FIXED_TPM)
            && self.has(Self::FIXED_PARENT)
            && !self.has(Self::ENCRYPTED_DUPLICATION)
    }

    /// Whether the TPM made its private part.
    pub(super) fn made_inside(self) -> bool {
        self.has(Self::SENSITIVE_DATA_ORIGIN)
    }

    pub(super) fn restricted(self) -> bool {
        self.has(Self::RESTRICTED)
    }

    pub(super) fn decrypt(self) -> bool {
        self.has(Self::DECRYPT)
    }

    pub(super) fn sign(self) -> bool {
        self.has(Self::SIGN)
    }
}

impl Public {
    /// # Errors
    /// [`Error::BadInput`] for anything but exactly one public area of an RSA or ECC key with
    /// algorithms that devkey knows.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        Reader::all(bytes, |reader| {
            let kind = reader.u16()?;
            let hash = hash(reader.u16()?)?;
            let attributes = attributes(reader.u32()?)?;
            reader.sized(MAX_DIGEST)?;
            let symmetric = symmetric(reader.u16()?, reader)?;
            let scheme = scheme(reader.u16()?, reader)?;
            let (key, x) = match kind {
                RSA => (rsa(reader)?, Vec::new()),
                ECC => ecc(reader)?,
                _ => return Err(unknown("kind of object", kind)),
            };
            Ok(Public {
                hash,
                attributes,
                symmetric,
                scheme,
                key,
                x,
                name: named(hash, bytes),
            })
        })
    }
}

impl Signature {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        Reader::all(bytes, |reader| {
            let signing = signing(reader.u16()?)?;
            let hash = hash(reader.u16()?)?;
            let count = match signing {
                Signing::Ecdsa => 2,
                Signing::RsaSsa | Signing::RsaPss => 1,
            };
            let numbers = (0..count).map(|_| reader.sized(MAX_RSA).map(<[u8]>::to_vec));
            Ok(Signature {
                signing,
                hash,
                numbers: numbers.collect::<Result<_>>()?,
            })
        })
    }

    /// The scheme in devkey's terms, and the signature in its form for a key of that kind.
    pub(super) fn for_key(&self, kind: KeyKind) -> Result<(Scheme, Vec<u8>)> {
        let (scheme, fits) = match self.signing {
            Signing::Ecdsa => (Scheme::Ecdsa, kind.is_ec()),
            Signing::RsaSsa => (Scheme::RsaPkcs1(self.hash), kind.is_rsa()),
            Signing::RsaPss => (Scheme::RsaPss(self.hash), kind.is_rsa()),
        };
        if !fits {
            return Err(Error::input(format!("it is no signature of a {kind} key")));
        }
        let each = kind.signature_len() / self.numbers.len().max(1);
        let padded = self.numbers.iter().map(|number| padded(number, each));
        Ok((scheme, padded.collect::<Result<Vec<_>>>()?.concat()))
    }
}

impl<'a> Attest<'a> {
    /// TPM_GENERATED_VALUE, part 2 §6.2.
    pub(super) const MAGIC: u32 = 0xff54_4347;
    /// TPM_ST_ATTEST_CERTIFY, part 2 §6.9.
    pub(super) const CERTIFY: u16 = 0x8017;

    /// Reads the head of any attestation, and all of one that certifies a key.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let head = Reader::all(bytes, |reader| {
            let (magic, kind) = (reader.u32()?, reader.u16()?);
            reader.rest();
            Ok((magic, kind))
        })?;
        if head != (Self::MAGIC, Self::CERTIFY) {
            let (magic, kind) = head;
            return Ok(Attest {
                magic,
                kind,
                extra_data: &[],
                certified: None,
            });
        }
        Reader::all(bytes, Self::certify)
    }

    fn certify(reader: &mut Reader<'a>) -> Result<Self> {
        let (magic, kind) = (reader.u32()?, reader.u16()?);
        let _qualified_signer = reader.sized(MAX_NAME)?;
        let extra_data = reader.sized(MAX_NAME)?;
        let _clock = reader.u64()?;
        let (_resets, _restarts) = (reader.u32()?, reader.u32()?);
        if reader.u8()? > 1 {
            return Err(Error::input("a yes or no is neither"));
        }
        let _firmware = reader.u64()?;
        let name = reader.sized(MAX_NAME)?;
        let _qualified_name = reader.sized(MAX_NAME)?;
        Ok(Attest {
            magic,
            kind,
            extra_data,
            certified: Some(name),
        })
    }
}

fn hash(id: u16) -> Result<Hash> {
    match id {
        0x000b => Ok(Hash::Sha256),
        0x000c => Ok(Hash::Sha384),
        0x000d => Ok(Hash::Sha512),
        _ => Err(unknown("hash", id)),
    }
}

fn named(hash: Hash, public: &[u8]) -> Vec<u8> {
    let id: u16 = match hash {
        Hash::Sha256 => 0x000b,
        Hash::Sha384 => 0x000c,
        Hash::Sha512 => 0x000d,
    };
    [id.to_be_bytes().as_slice(), &hash.digest(public)].concat()
}

fn attributes(bits: u32) -> Result<Attributes> {
    match bits & !Attributes::KNOWN {
        0 => Ok(Attributes(bits)),
        _ => Err(Error::input("it has attributes that do not exist")),
    }
}

/// TPMT_SYM_DEF_OBJECT+.
fn symmetric(id: u16, reader: &mut Reader<'_>) -> Result<Option<usize>> {
    if id == NULL {
        return Ok(None);
    }
    let (bits, mode) = (reader.u16()?, reader.u16()?);
    match (id, bits, mode) {
        (AES, 128 | 256, CFB) => Ok(Some(usize::from(bits))),
        _ => Err(unknown("cipher", id)),
    }
}

/// TPMT_RSA_SCHEME+ and TPMT_ECC_SCHEME+, of which devkey knows the same few.
fn scheme(id: u16, reader: &mut Reader<'_>) -> Result<Option<(Signing, Hash)>> {
    match id {
        NULL => Ok(None),
        id => Ok(Some((signing(id)?, hash(reader.u16()?)?))),
    }
}

fn signing(id: u16) -> Result<Signing> {
    match id {
        RSASSA => Ok(Signing::RsaSsa),
        RSAPSS => Ok(Signing::RsaPss),
        ECDSA => Ok(Signing::Ecdsa),
        _ => Err(unknown("signature scheme", id)),
    }
}

fn rsa(reader: &mut Reader<'_>) -> Result<PublicKey> {
    let bits = usize::from(reader.u16()?);
    let exponent = match reader.u32()? {
        0 => 0x1_0001,
        exponent => exponent,
    };
    let modulus = reader.sized(MAX_RSA)?;
    match modulus.len() * 8 == bits {
        true => PublicKey::from_rsa(modulus, &exponent.to_be_bytes()),
        false => Err(Error::input("its modulus has not the size that it says")),
    }
}

fn ecc(reader: &mut Reader<'_>) -> Result<(PublicKey, Vec<u8>)> {
    let kind = match reader.u16()? {
        0x0003 => KeyKind::EcP256,
        0x0004 => KeyKind::EcP384,
        other => return Err(unknown("curve", other)),
    };
    let kdf = reader.u16()?;
    if kdf != NULL {
        return Err(unknown("key derivation", kdf));
    }
    let size = kind.bits() / 8;
    let (x, y) = (reader.sized(size)?, reader.sized(size)?);
    let point = [vec![4], padded(x, size)?, padded(y, size)?].concat();
    Ok((PublicKey::from_sec1(kind, &point)?, x.to_vec()))
}

/// A big-endian number in exactly `len` bytes: TPMs may drop leading zeros.
fn padded(number: &[u8], len: usize) -> Result<Vec<u8>> {
    let missing = len.checked_sub(number.len());
    let missing = missing.ok_or_else(|| Error::input("a number is too long"))?;
    Ok([vec![0; missing].as_slice(), number].concat())
}

fn unknown(what: &str, id: u16) -> Error {
    Error::input(format!("{what} {id:#06x} is not known here"))
}
