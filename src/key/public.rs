//! Public keys: checked when they come in, encoded as SubjectPublicKeyInfo (RFC 5280 §4.1.2.7).

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, UintRef};
use der::{Decode, Encode, Sequence};
use p256::elliptic_curve::sec1::ToSec1Point;
use serde::{Deserialize, Serialize};
use spki::{AlgorithmIdentifier, SubjectPublicKeyInfo, SubjectPublicKeyInfoRef};
use x509_cert::Certificate;

use super::{Hash, KeyKind, Scheme};
use crate::error::{Error, Result};

/// id-ecPublicKey, RFC 5480 §2.1.1.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// secp256r1, RFC 5480 §2.1.1.1.
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// secp384r1, RFC 5480 §2.1.1.1.
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
/// rsaEncryption, RFC 8017 appendix A.1.
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// id-RSAES-OAEP, RFC 8017 appendix A.2.1: so some TPM makers' certificates name a plain RSA key.
const RSAES_OAEP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.7");
/// id-Ed25519, RFC 8410 §3.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// id-ml-dsa-44, -65 and -87, RFC 9881 §2.
const ML_DSA_44: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.17");
const ML_DSA_65: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.18");
const ML_DSA_87: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.19");

/// RSAPublicKey, RFC 8017 appendix A.1.1.
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

/// The public half of a key pair: a point that lies on its curve, a modulus of a size that devkey
/// makes, or an ML-DSA key. Cannot hold anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct PublicKey {
    kind: KeyKind,
    parts: Parts,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Parts {
    /// An uncompressed SEC1 point, or the 32 bytes of an Ed25519 key.
    Point(Vec<u8>),
    /// Big-endian, without leading zeros.
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    /// FIPS 204 §7.2 (pkEncode): any bytes of the right number are a key.
    MlDsa(Vec<u8>),
}

impl PublicKey {
    /// A NIST curve's key from a SEC1 point (SEC 1 §2.3.3), compressed or not.
    ///
    /// # Errors
    /// [`Error::BadInput`] where the point is not on the curve.
    pub fn from_sec1(kind: KeyKind, point: &[u8]) -> Result<Self> {
        let off_curve = |_| Error::input(format!("not a point of {kind}"));
        let uncompressed = match kind {
            KeyKind::EcP256 => p256::PublicKey::from_sec1_bytes(point)
                .map_err(off_curve)?
                .to_sec1_point(false)
                .as_bytes()
                .to_vec(),
            KeyKind::EcP384 => p384::PublicKey::from_sec1_bytes(point)
                .map_err(off_curve)?
                .to_sec1_point(false)
                .as_bytes()
                .to_vec(),
            _ => return Err(Error::input(format!("{kind} has no SEC1 point"))),
        };
        Ok(PublicKey {
            kind,
            parts: Parts::Point(uncompressed),
        })
    }

    /// An RSA key from big-endian modulus and exponent; leading zeros are accepted.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a size other than 2048, 3072 or 4096 bits, an even modulus, or an
    /// exponent that is even or below 65537 or longer than 8 bytes.
    pub fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self> {
        let (modulus, exponent) = (stripped(modulus), stripped(exponent));
        let kind = match (modulus.first(), modulus.len()) {
            (Some(0x80..), 256) => KeyKind::Rsa2048,
            (Some(0x80..), 384) => KeyKind::Rsa3072,
            (Some(0x80..), 512) => KeyKind::Rsa4096,
            _ => return Err(Error::input("an RSA modulus has 2048, 3072 or 4096 bits")),
        };
        let odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
        if !odd(modulus) || !odd(exponent) || !(3..=8).contains(&exponent.len()) {
            return Err(Error::input("not an RSA public key that can be trusted"));
        }
        Ok(PublicKey {
            kind,
            parts: Parts::Rsa {
                modulus: modulus.to_vec(),
                exponent: exponent.to_vec(),
            },
        })
    }

    /// An Ed25519 key from its 32 bytes (RFC 8032 §5.1.5).
    pub fn from_ed25519(bytes: &[u8]) -> Result<Self> {
        if bytes.len() != 32 {
            return Err(Error::input("an Ed25519 public key has 32 bytes"));
        }
        Ok(PublicKey {
            kind: KeyKind::Ed25519,
            parts: Parts::Point(bytes.to_vec()),
        })
    }

    /// An ML-DSA key as FIPS 204 §7.2 encodes it: 1312, 1952 or 2592 bytes.
    pub fn from_ml_dsa(kind: KeyKind, bytes: &[u8]) -> Result<Self> {
        if !kind.is_ml_dsa() || bytes.len() * 8 != kind.bits() {
            return Err(Error::input(format!(
                "not an ML-DSA public key of kind {kind}"
            )));
        }
        Ok(PublicKey {
            kind,
            parts: Parts::MlDsa(bytes.to_vec()),
        })
    }

    /// Reads a DER SubjectPublicKeyInfo.
    pub fn from_spki(der: &[u8]) -> Result<Self> {
        let bad = |_| Error::input("not a DER SubjectPublicKeyInfo");
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(bad)?;
        let bits = info
            .subject_public_key
            .as_bytes()
            .ok_or_else(|| Error::input("a public key is a whole number of bytes"))?;
        match info.algorithm.oid {
            EC_PUBLIC_KEY => {
                let curve = info.algorithm.parameters_oid().map_err(|_| no_curve())?;
                PublicKey::from_sec1(
                    KeyKind::from_curve_oid(&curve.to_der().map_err(bad)?)?,
                    bits,
                )
            }
            RSA_ENCRYPTION => PublicKey::from_rsa_der(bits),
            ED25519 => PublicKey::from_ed25519(bits),
            // RFC 9881 §2: there are no parameters.
            ML_DSA_44 | ML_DSA_65 | ML_DSA_87 if info.algorithm.parameters.is_some() => {
                Err(Error::input("an ML-DSA key has no parameters"))
            }
            ML_DSA_44 => PublicKey::from_ml_dsa(KeyKind::MlDsa44, bits),
            ML_DSA_65 => PublicKey::from_ml_dsa(KeyKind::MlDsa65, bits),
            ML_DSA_87 => PublicKey::from_ml_dsa(KeyKind::MlDsa87, bits),
            other => Err(Error::input(format!(
                "unknown public key algorithm {other}"
            ))),
        }
    }

    /// The key that an X.509 certificate, DER, is of. Nothing else of it is looked at.
    ///
    /// Beside [`PublicKey::from_spki`] this takes what certificates of TPMs' endorsement keys have:
    /// an RSA key that says that it is for OAEP alone.
    pub fn from_certificate(der: &[u8]) -> Result<Self> {
        let bad = |e| Error::input(format!("not an X.509 certificate: {e}"));
        let certificate = Certificate::from_der(der).map_err(bad)?;
        let info = certificate.tbs_certificate().subject_public_key_info();
        match info.algorithm.oid {
            RSAES_OAEP => {
                PublicKey::from_rsa_der(info.subject_public_key.as_bytes().unwrap_or_default())
            }
            _ => PublicKey::from_spki(&info.to_der().map_err(bad)?),
        }
    }

    /// Reads an RSAPublicKey.
    fn from_rsa_der(der: &[u8]) -> Result<Self> {
        let bad = |_| Error::input("not an RSA public key");
        let key = RsaPublicKey::from_der(der).map_err(bad)?;
        PublicKey::from_rsa(key.modulus.as_bytes(), key.public_exponent.as_bytes())
    }

    /// The key as a DER SubjectPublicKeyInfo.
    pub fn to_spki(&self) -> Vec<u8> {
        // Every part was checked when it came in, and DER has a place for all of them.
        self.encode().unwrap_or_default()
    }

    fn encode(&self) -> der::Result<Vec<u8>> {
        let (oid, parameters) = match self.kind {
            KeyKind::EcP256 => (EC_PUBLIC_KEY, Some(AnyRef::from(&SECP256R1))),
            KeyKind::EcP384 => (EC_PUBLIC_KEY, Some(AnyRef::from(&SECP384R1))),
            KeyKind::Ed25519 => (ED25519, None),
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => {
                (RSA_ENCRYPTION, Some(AnyRef::NULL))
            }
            KeyKind::MlDsa44 => (ML_DSA_44, None),
            KeyKind::MlDsa65 => (ML_DSA_65, None),
            KeyKind::MlDsa87 => (ML_DSA_87, None),
        };
        SubjectPublicKeyInfo {
            algorithm: AlgorithmIdentifier { oid, parameters },
            subject_public_key: BitStringRef::from_bytes(&self.bytes()?)?,
        }
        .to_der()
    }

    /// What kind of key this is.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The uncompressed SEC1 point, or the 32 bytes of an Ed25519 key; `None` where there is no
    /// curve.
    pub fn point(&self) -> Option<&[u8]> {
        match &self.parts {
            Parts::Point(point) => Some(point),
            Parts::Rsa { .. } | Parts::MlDsa(_) => None,
        }
    }

    /// Modulus and public exponent, big-endian without leading zeros; `None` for others than RSA.
    pub fn rsa(&self) -> Option<(&[u8], &[u8])> {
        match &self.parts {
            Parts::Rsa { modulus, exponent } => Some((modulus, exponent)),
            Parts::Point(_) | Parts::MlDsa(_) => None,
        }
    }

    /// An ML-DSA key as FIPS 204 §7.2 encodes it; `None` for others.
    pub fn ml_dsa(&self) -> Option<&[u8]> {
        match &self.parts {
            Parts::MlDsa(key) => Some(key),
            Parts::Point(_) | Parts::Rsa { .. } => None,
        }
    }

    /// The DER of the named curve (`CKA_EC_PARAMS`): an OID; `None` where there is none.
    pub fn curve_oid(&self) -> Option<Vec<u8>> {
        let oid = match self.kind {
            KeyKind::EcP256 => SECP256R1,
            KeyKind::EcP384 => SECP384R1,
            KeyKind::Ed25519 => ED25519,
            _ => return None,
        };
        oid.to_der().ok()
    }

    /// The default `CKA_ID`: the first 20 bytes of the SHA-256 of the SubjectPublicKeyInfo.
    pub fn id(&self) -> Vec<u8> {
        PublicKey::id_of(&self.to_spki())
    }

    /// The default `CKA_ID` of a DER SubjectPublicKeyInfo, of any algorithm.
    pub fn id_of(spki: &[u8]) -> Vec<u8> {
        let mut id = Hash::Sha256.digest(spki);
        id.truncate(20);
        id
    }

    /// Checks a signature in the form in which [`Key::sign`](crate::provider::Key::sign) gives it.
    ///
    /// # Errors
    /// [`Error::Crypto`] where it is not valid; [`Error::BadInput`] where the scheme is not one of
    /// the key's or `input` has not the length that it wants.
    pub fn verify(&self, scheme: Scheme, input: &[u8], signature: &[u8]) -> Result<()> {
        let (hash, algorithm): (Hash, &'static dyn VerificationAlgorithm) =
            match (scheme, self.kind) {
                (Scheme::Ecdsa, KeyKind::EcP256) => {
                    (Hash::Sha256, &signature::ECDSA_P256_SHA256_FIXED)
                }
                (Scheme::Ecdsa, KeyKind::EcP384) => {
                    (Hash::Sha384, &signature::ECDSA_P384_SHA384_FIXED)
                }
                (Scheme::RsaPkcs1(hash), kind) if kind.is_rsa() => (hash, rsa_pkcs1(hash)),
                (Scheme::RsaPss(hash), kind) if kind.is_rsa() => (hash, rsa_pss(hash)),
                _ => {
                    let algorithm = self.of_message(scheme)?;
                    return Ok(self.parsed(algorithm)?.verify_sig(input, signature)?);
                }
            };
        let digest = hash.import(input)?;
        Ok(self
            .parsed(algorithm)?
            .verify_digest_sig(&digest, signature)?)
    }

    /// The algorithm of a scheme that signs the message itself.
    fn of_message(&self, scheme: Scheme) -> Result<&'static dyn VerificationAlgorithm> {
        match (scheme, self.kind) {
            (Scheme::Ed25519, KeyKind::Ed25519) => Ok(&signature::ED25519),
            (Scheme::MlDsa, KeyKind::MlDsa44) => Ok(&signature::ML_DSA_44),
            (Scheme::MlDsa, KeyKind::MlDsa65) => Ok(&signature::ML_DSA_65),
            (Scheme::MlDsa, KeyKind::MlDsa87) => Ok(&signature::ML_DSA_87),
            (_, kind) => Err(Error::input(format!("{scheme:?} is no scheme of {kind}"))),
        }
    }

    fn parsed(&self, algorithm: &'static dyn VerificationAlgorithm) -> Result<ParsedPublicKey> {
        let bytes = self.bytes().map_err(|_| Error::Crypto)?;
        ParsedPublicKey::new(algorithm, bytes).map_err(|_| Error::Crypto)
    }

    /// The contents of the subjectPublicKey field.
    fn bytes(&self) -> der::Result<Vec<u8>> {
        match &self.parts {
            Parts::Point(bytes) | Parts::MlDsa(bytes) => Ok(bytes.clone()),
            Parts::Rsa { modulus, exponent } => RsaPublicKey {
                modulus: UintRef::new(modulus)?,
                public_exponent: UintRef::new(exponent)?,
            }
            .to_der(),
        }
    }
}

impl TryFrom<Vec<u8>> for PublicKey {
    type Error = Error;

    fn try_from(spki: Vec<u8>) -> Result<Self> {
        PublicKey::from_spki(&spki)
    }
}

impl From<PublicKey> for Vec<u8> {
    fn from(key: PublicKey) -> Self {
        key.to_spki()
    }
}

impl KeyKind {
    /// The kind of the curve that a DER OID names (`CKA_EC_PARAMS`).
    pub fn from_curve_oid(der: &[u8]) -> Result<KeyKind> {
        match ObjectIdentifier::from_der(der) {
            Ok(SECP256R1) => Ok(KeyKind::EcP256),
            Ok(SECP384R1) => Ok(KeyKind::EcP384),
            Ok(ED25519) => Ok(KeyKind::Ed25519),
            _ => Err(no_curve()),
        }
    }
}

fn no_curve() -> Error {
    Error::input("the curve is none of P-256, P-384 and Ed25519")
}

fn rsa_pkcs1(hash: Hash) -> &'static dyn VerificationAlgorithm {
    match hash {
        Hash::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Hash::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Hash::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
    }
}

fn rsa_pss(hash: Hash) -> &'static dyn VerificationAlgorithm {
    match hash {
        Hash::Sha256 => &signature::RSA_PSS_2048_8192_SHA256,
        Hash::Sha384 => &signature::RSA_PSS_2048_8192_SHA384,
        Hash::Sha512 => &signature::RSA_PSS_2048_8192_SHA512,
    }
}

fn stripped(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;

    fn sample() -> (EcdsaKeyPair, PublicKey) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let public = PublicKey::from_sec1(KeyKind::EcP256, pair.public_key().as_ref()).unwrap();
        (pair, public)
    }

    #[test]
    fn spki_is_read_back() {
        let (_, ec) = sample();
        assert_eq!(PublicKey::from_spki(&ec.to_spki()).unwrap(), ec);
        let mut modulus = vec![0xff; 256];
        modulus[0] = 0x80;
        let rsa = PublicKey::from_rsa(&modulus, &[0, 1, 0, 1]).unwrap();
        assert_eq!(PublicKey::from_spki(&rsa.to_spki()).unwrap(), rsa);
        let ed = PublicKey::from_ed25519(&[9; 32]).unwrap();
        assert_eq!(PublicKey::from_spki(&ed.to_spki()).unwrap(), ed);
        for kind in KeyKind::ALL.into_iter().filter(|kind| kind.is_ml_dsa()) {
            let key = PublicKey::from_ml_dsa(kind, &vec![9; kind.bits() / 8]).unwrap();
            assert_eq!(PublicKey::from_spki(&key.to_spki()).unwrap(), key);
        }
    }

    /// RFC 9881 §2 and §4. Seen to fail without the look at the parameters, and without that at the
    /// length.
    #[test]
    fn ml_dsa_has_no_parameters_and_one_length() {
        let bytes = vec![9; 1312];
        let info = |parameters| {
            SubjectPublicKeyInfo {
                algorithm: AlgorithmIdentifier {
                    oid: ML_DSA_44,
                    parameters,
                },
                subject_public_key: BitStringRef::from_bytes(&bytes).unwrap(),
            }
            .to_der()
            .unwrap()
        };
        let right = PublicKey::from_spki(&info(None)).unwrap();
        assert_eq!(right.ml_dsa(), Some(&bytes[..]));
        assert!(PublicKey::from_spki(&info(Some(AnyRef::NULL))).is_err());
        for len in [0, 1311, 1313, 1952] {
            assert!(PublicKey::from_ml_dsa(KeyKind::MlDsa44, &vec![9; len]).is_err());
        }
        assert!(PublicKey::from_ml_dsa(KeyKind::Ed25519, &[9; 32]).is_err());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(PublicKey::from_sec1(KeyKind::EcP256, &[4; 65]).is_err());
        assert!(PublicKey::from_rsa(&[0xff; 255], &[1, 0, 1]).is_err());
        assert!(PublicKey::from_rsa(&[0xff; 256], &[3]).is_err());
        assert!(PublicKey::from_rsa(&[0xfe; 256], &[1, 0, 1]).is_err());
        assert!(PublicKey::from_spki(&[]).is_err());
        let (_, ec) = sample();
        let mut longer = ec.to_spki();
        longer.push(0);
        assert!(PublicKey::from_spki(&longer).is_err());
    }

    #[test]
    fn signatures_are_checked() {
        let (pair, public) = sample();
        let signature = pair.sign(&SystemRandom::new(), b"hello").unwrap();
        let digest = Hash::Sha256.digest(b"hello");
        public
            .verify(Scheme::Ecdsa, &digest, signature.as_ref())
            .unwrap();
        let other = Hash::Sha256.digest(b"hullo");
        let refused = public.verify(Scheme::Ecdsa, &other, signature.as_ref());
        assert!(matches!(refused, Err(Error::Crypto)));
        let scheme = public.verify(Scheme::Ed25519, &digest, signature.as_ref());
        assert!(matches!(scheme, Err(Error::BadInput(_))));
    }
}
