//! A body with a signature on it: requests, certificates and lists are one structure (`SIGNED`,
//! X.509 §6.2.1).

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, UintRef};
use der::{Decode, Encode, Sequence};
use spki::{AlgorithmIdentifierOwned, AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

use super::encoding;
use crate::error::{Error, Result};
use crate::identity::signer::{self, Signer};
use crate::key::{KeyKind, PublicKey};

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// ecdsa-with-SHA256, -SHA384, -SHA512: RFC 5758 §3.2.
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const ECDSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4");
/// sha256WithRSAEncryption and its like: RFC 8017 appendix A.2.4.
const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const RSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const RSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
/// id-Ed25519: RFC 8410 §3.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// id-ml-dsa-44, -65, -87: RFC 9881 §2. They name the key and its signatures.
const ML_DSA_44: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.17");
const ML_DSA_65: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.18");
const ML_DSA_87: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.19");

/// Shortest RSA modulus that is trusted, in bytes.
const MIN_RSA: usize = 256;

/// `SIGNED`, whatever its body is.
#[derive(Debug, Clone, Copy, Sequence)]
pub(super) struct Signed<'a> {
    body: AnyRef<'a>,
    algorithm: AlgorithmIdentifierRef<'a>,
    signature: BitStringRef<'a>,
}

/// Ecdsa-Sig-Value, RFC 3279 §2.2.3.
#[derive(Sequence)]
struct EcdsaSignature<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// RSAPublicKey, RFC 8017 appendix A.1.1.
#[derive(Sequence)]
struct RsaKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

impl<'a> Signed<'a> {
    /// Takes it apart. `what` it should be goes into the error.
    ///
    /// # Errors
    /// [`Error::BadInput`] where it is something else or longer than `max` bytes.
    pub(super) fn read(der: &'a [u8], max: usize, what: &str) -> Result<Self> {
        if der.len() > max {
            return Err(Error::input(format!("{what} has at most {max} bytes")));
        }
        Signed::from_der(der).map_err(|e| Error::input(format!("not {what} in DER: {e}")))
    }

    /// The signed bytes, as they came: DER leaves no second way to write tag and length.
    pub(super) fn body(&self) -> Result<Vec<u8>> {
        self.body.to_der().map_err(encoding)
    }

    /// The algorithm that it says it is signed by; only a body may repeat it under the signature.
    pub(super) fn algorithm(&self) -> AlgorithmIdentifierRef<'a> {
        self.algorithm
    }

    /// Checks the signature by a SubjectPublicKeyInfo (DER).
    ///
    /// # Errors
    /// [`Error::Crypto`] where it is not that key's; [`Error::Unsupported`] for an algorithm that is
    /// unknown, weak (SHA-1, RSA below 2048 bits) or not one of the key's.
    pub(super) fn verify(&self, spki: &[u8]) -> Result<()> {
        let key = SubjectPublicKeyInfoRef::from_der(spki)
            .map_err(|e| Error::input(format!("not a public key: {e}")))?;
        let algorithm = verifier(&key, &self.algorithm)?;
        let bits = |bits: BitStringRef<'a>| bits.as_bytes().ok_or(Error::Crypto);
        let point = key.subject_public_key.as_bytes().ok_or(Error::Crypto)?;
        if key.algorithm.oid == RSA_ENCRYPTION && rsa_len(point)? < MIN_RSA {
            return Err(Error::unsupported("an RSA key below 2048 bits"));
        }
        let parsed = ParsedPublicKey::new(algorithm, point).map_err(|_| Error::Crypto)?;
        Ok(parsed.verify_sig(&self.body()?, bits(self.signature)?)?)
    }
}

/// The algorithm by which a key of this kind signs, as [`signer::usual`].
pub(super) fn algorithm(kind: KeyKind) -> AlgorithmIdentifierOwned {
    let (oid, null) = match kind {
        KeyKind::EcP256 => (ECDSA_SHA256, false),
        KeyKind::EcP384 => (ECDSA_SHA384, false),
        KeyKind::Rsa2048 => (RSA_SHA256, true),
        KeyKind::Rsa3072 | KeyKind::Rsa4096 => (RSA_SHA384, true),
        KeyKind::Ed25519 => (ED25519, false),
        KeyKind::MlDsa44 => (ML_DSA_44, false),
        KeyKind::MlDsa65 => (ML_DSA_65, false),
        KeyKind::MlDsa87 => (ML_DSA_87, false),
    };
    // RFC 4055 §5: NULL for RSA; RFC 5758 §3.2, RFC 8410 §3 and RFC 9881 §2: absent for the others.
    let parameters = null.then(der::Any::null);
    AlgorithmIdentifierOwned { oid, parameters }
}

/// Signs a body, which names [`algorithm`] where it names one, and gives the whole.
pub(super) fn sign(signer: &dyn Signer, body: &impl Encode) -> Result<Vec<u8>> {
    let kind = signer.public().kind();
    let body = body.to_der().map_err(encoding)?;
    let plain = signer::sign_message(signer, &body)?;
    let signature = match kind.is_ec() {
        true => ecdsa_to_der(&plain)?,
        false => plain,
    };
    let algorithm = algorithm(kind);
    let assemble = || {
        let signed = Signed {
            body: AnyRef::from_der(&body)?,
            algorithm: (&algorithm).into(),
            signature: BitStringRef::from_bytes(&signature)?,
        };
        signed.to_der()
    };
    let whole = assemble().map_err(encoding)?;
    // A signature that a fault spoiled would say something of the key.
    checked(&whole, signer.public())?;
    Ok(whole)
}

fn checked(whole: &[u8], public: &PublicKey) -> Result<()> {
    Signed::read(whole, usize::MAX, "what was just signed")?.verify(&public.to_spki())
}

/// r‖s as an Ecdsa-Sig-Value.
fn ecdsa_to_der(plain: &[u8]) -> Result<Vec<u8>> {
    let (r, s) = plain.split_at(plain.len() / 2);
    let encode = || {
        EcdsaSignature {
            r: UintRef::new(r)?,
            s: UintRef::new(s)?,
        }
        .to_der()
    };
    encode().map_err(encoding)
}

/// Length of a public key's modulus in bytes.
fn rsa_len(key: &[u8]) -> Result<usize> {
    let key = RsaKey::from_der(key).map_err(|_| Error::Crypto)?;
    Ok(key.modulus.as_bytes().len())
}

/// What verifies a signature by this key with this algorithm.
fn verifier(
    key: &SubjectPublicKeyInfoRef<'_>,
    algorithm: &AlgorithmIdentifierRef<'_>,
) -> Result<&'static dyn VerificationAlgorithm> {
    let refused = || {
        let (name, key) = (algorithm.oid, key.algorithm.oid);
        Error::unsupported(format!("signature algorithm {name} with a key of {key}"))
    };
    let null = algorithm.parameters.is_some_and(AnyRef::is_null);
    let fitting = match algorithm.oid {
        RSA_SHA256 | RSA_SHA384 | RSA_SHA512 => null,
        _ => algorithm.parameters.is_none(),
    };
    let found = match key.algorithm.oid {
        _ if !fitting => None,
        RSA_ENCRYPTION => rsa(algorithm.oid),
        EC_PUBLIC_KEY => ecdsa(key.algorithm.parameters_oid().ok(), algorithm.oid),
        own if own == algorithm.oid && key.algorithm.parameters.is_none() => of_message(own),
        _ => None,
    };
    found.ok_or_else(refused)
}

fn rsa(algorithm: ObjectIdentifier) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        RSA_SHA256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        RSA_SHA384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        RSA_SHA512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        _ => return None,
    })
}

fn ecdsa(
    curve: Option<ObjectIdentifier>,
    algorithm: ObjectIdentifier,
) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (curve?, algorithm) {
        (P256, ECDSA_SHA256) => &signature::ECDSA_P256_SHA256_ASN1,
        (P256, ECDSA_SHA384) => &signature::ECDSA_P256_SHA384_ASN1,
        (P256, ECDSA_SHA512) => &signature::ECDSA_P256_SHA512_ASN1,
        (P384, ECDSA_SHA256) => &signature::ECDSA_P384_SHA256_ASN1,
        (P384, ECDSA_SHA384) => &signature::ECDSA_P384_SHA384_ASN1,
        (P384, ECDSA_SHA512) => &signature::ECDSA_P384_SHA512_ASN1,
        (P521, ECDSA_SHA256) => &signature::ECDSA_P521_SHA256_ASN1,
        (P521, ECDSA_SHA384) => &signature::ECDSA_P521_SHA384_ASN1,
        (P521, ECDSA_SHA512) => &signature::ECDSA_P521_SHA512_ASN1,
        _ => return None,
    })
}

fn of_message(algorithm: ObjectIdentifier) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        ED25519 => &signature::ED25519,
        ML_DSA_44 => &signature::ML_DSA_44,
        ML_DSA_65 => &signature::ML_DSA_65,
        ML_DSA_87 => &signature::ML_DSA_87,
        _ => return None,
    })
}
