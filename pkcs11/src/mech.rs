//! Mechanisms: one table, a row for each, and what their parameters mean.

use cryptoki_sys::*;
use der::Decode;
use der::asn1::OctetStringRef;
use devkey::key::{DecryptScheme, Hash, KeyKind, MAX_DIGEST, PublicKey, Scheme, ecdsa_input};
use devkey::provider::Capability;

use crate::raw::{Mechanism, Ulong};
use crate::rv::{Result, Rv};

use Hash::{Sha256, Sha384, Sha512};

/// What a mechanism does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Signs and verifies; hashes the message first where a hash is given.
    Sign(Family, Option<Hash>),
    /// Decrypts by RSA-OAEP.
    Decrypt,
    /// Agrees on a secret by ECDH.
    Agree,
    /// Makes key pairs.
    Generate(Pairs),
}

/// A family of signature schemes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Ecdsa,
    RsaPkcs1,
    RsaPss,
    Ed25519,
}

/// What kind of key pairs a mechanism makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pairs {
    /// On a NIST curve.
    Ec,
    /// RSA.
    Rsa,
    /// On an Edwards curve.
    Edwards,
}

const TABLE: &[(Ulong, Does)] = &[
    (CKM_ECDSA, Does::Sign(Family::Ecdsa, None)),
    (CKM_ECDSA_SHA256, Does::Sign(Family::Ecdsa, Some(Sha256))),
    (CKM_ECDSA_SHA384, Does::Sign(Family::Ecdsa, Some(Sha384))),
    (CKM_ECDSA_SHA512, Does::Sign(Family::Ecdsa, Some(Sha512))),
    (CKM_RSA_PKCS, Does::Sign(Family::RsaPkcs1, None)),
    (
        CKM_SHA256_RSA_PKCS,
        Does::Sign(Family::RsaPkcs1, Some(Sha256)),
    ),
    (
        CKM_SHA384_RSA_PKCS,
        Does::Sign(Family::RsaPkcs1, Some(Sha384)),
    ),
    (
        CKM_SHA512_RSA_PKCS,
        Does::Sign(Family::RsaPkcs1, Some(Sha512)),
    ),
    (CKM_RSA_PKCS_PSS, Does::Sign(Family::RsaPss, None)),
    (
        CKM_SHA256_RSA_PKCS_PSS,
        Does::Sign(Family::RsaPss, Some(Sha256)),
    ),
    (
        CKM_SHA384_RSA_PKCS_PSS,
        Does::Sign(Family::RsaPss, Some(Sha384)),
    ),
    (
        CKM_SHA512_RSA_PKCS_PSS,
        Does::Sign(Family::RsaPss, Some(Sha512)),
    ),
    (CKM_EDDSA, Does::Sign(Family::Ed25519, None)),
    (CKM_RSA_PKCS_OAEP, Does::Decrypt),
    (CKM_ECDH1_DERIVE, Does::Agree),
    (CKM_EC_KEY_PAIR_GEN, Does::Generate(Pairs::Ec)),
    (CKM_RSA_PKCS_KEY_PAIR_GEN, Does::Generate(Pairs::Rsa)),
    (CKM_EC_EDWARDS_KEY_PAIR_GEN, Does::Generate(Pairs::Edwards)),
];

/// The hashes as mechanisms and as mask generation functions.
const HASHES: [(Hash, Ulong, Ulong); 3] = [
    (Sha256, CKM_SHA256, CKG_MGF1_SHA256),
    (Sha384, CKM_SHA384, CKG_MGF1_SHA384),
    (Sha512, CKM_SHA512, CKG_MGF1_SHA512),
];

/// Longest message that is kept for a scheme that has no hash of its own, in bytes.
const MAX_MESSAGE: usize = 16 << 20;

/// The mechanisms that a token with these capabilities has.
pub(crate) fn list(capabilities: &[Capability]) -> Vec<Ulong> {
    let kinds = TABLE.iter().map(|(kind, _)| *kind);
    kinds
        .filter(|kind| find(*kind, capabilities).is_ok())
        .collect()
}

/// What is to be known of a mechanism.
pub(crate) fn info(
    kind: Ulong,
    capabilities: &[Capability],
    hardware: bool,
) -> Result<CK_MECHANISM_INFO> {
    let does = find(kind, capabilities)?;
    let keys = capabilities.iter().filter(|c| does.is_within(c));
    let sizes = keys.map(|c| match c.kind {
        // The field of edwards25519 has 255 bits.
        KeyKind::Ed25519 => 255,
        kind => kind.bits() as Ulong,
    });
    let curve = match does {
        Does::Sign(Family::Ecdsa, _) | Does::Agree | Does::Generate(Pairs::Ec) => {
            CKF_EC_F_P | CKF_EC_OID | CKF_EC_UNCOMPRESS
        }
        _ => 0,
    };
    let function = match does {
        Does::Sign(..) => CKF_SIGN | CKF_VERIFY,
        Does::Decrypt => CKF_DECRYPT,
        Does::Agree => CKF_DERIVE,
        Does::Generate(_) => CKF_GENERATE_KEY_PAIR,
    };
    Ok(CK_MECHANISM_INFO {
        ulMinKeySize: sizes.clone().min().unwrap_or(0),
        ulMaxKeySize: sizes.max().unwrap_or(0),
        flags: function | curve | if hardware { CKF_HW } else { 0 },
    })
}

/// The kinds of key pairs that a mechanism makes.
pub(crate) fn generation(mechanism: &Mechanism<'_>, capabilities: &[Capability]) -> Result<Pairs> {
    match find(mechanism.kind, capabilities)? {
        Does::Generate(_) if !mechanism.is_bare() => Err(Rv::MECHANISM_PARAM_INVALID),
        Does::Generate(pairs) => Ok(pairs),
        _ => Err(Rv::MECHANISM_INVALID),
    }
}

/// How a mechanism signs with a key of the token: what the device cannot do with such a key is
/// refused before there is data.
pub(crate) fn signing(
    mechanism: &Mechanism<'_>,
    capabilities: &[Capability],
    key: KeyKind,
) -> Result<Plan> {
    let plan = verification(mechanism, capabilities, key)?;
    let of_key = || capabilities.iter().filter(|c| c.kind == key);
    let has = |hash| {
        let mut schemes = of_key().flat_map(|c| &c.schemes);
        schemes.any(|scheme| plan.family.has(*scheme, hash))
    };
    match (has(plan.hash), has(plan.prehash)) {
        (true, _) => Ok(plan),
        // Another hash in the parameter would do.
        (false, true) => Err(Rv::MECHANISM_PARAM_INVALID),
        (false, false) => Err(Rv::KEY_TYPE_INCONSISTENT),
    }
}

/// How signatures of a mechanism are verified, with a key of anybody: that asks no device.
pub(crate) fn verification(
    mechanism: &Mechanism<'_>,
    capabilities: &[Capability],
    key: KeyKind,
) -> Result<Plan> {
    let Does::Sign(family, prehash) = find(mechanism.kind, capabilities)? else {
        return Err(Rv::MECHANISM_INVALID);
    };
    if !family.fits(key) {
        return Err(Rv::KEY_TYPE_INCONSISTENT);
    }
    let hash = match family {
        Family::RsaPss => Some(pss_hash(mechanism, prehash)?),
        Family::Ed25519 => eddsa(mechanism).map(|()| None)?,
        Family::Ecdsa | Family::RsaPkcs1 if mechanism.is_bare() => prehash,
        Family::Ecdsa | Family::RsaPkcs1 => return Err(Rv::MECHANISM_PARAM_INVALID),
    };
    Ok(Plan {
        family,
        key,
        hash,
        prehash,
    })
}

/// How a mechanism decrypts with a key.
pub(crate) fn decryption(
    mechanism: &Mechanism<'_>,
    capabilities: &[Capability],
    key: KeyKind,
) -> Result<DecryptScheme> {
    let Does::Decrypt = find(mechanism.kind, capabilities)? else {
        return Err(Rv::MECHANISM_INVALID);
    };
    if !key.is_rsa() {
        return Err(Rv::KEY_TYPE_INCONSISTENT);
    }
    let given: CK_RSA_PKCS_OAEP_PARAMS = mechanism.parameter()?;
    // A label is not offered: TPM and file have it different ways.
    if given.ulSourceDataLen != 0 || given.source > CKZ_DATA_SPECIFIED {
        return Err(Rv::MECHANISM_PARAM_INVALID);
    }
    Ok(DecryptScheme::RsaOaep(hash(given.hashAlg, given.mgf)?))
}

/// The other's key in a mechanism that agrees on a secret.
pub(crate) fn agreement(
    mechanism: &Mechanism<'_>,
    capabilities: &[Capability],
    key: KeyKind,
) -> Result<PublicKey> {
    let Does::Agree = find(mechanism.kind, capabilities)? else {
        return Err(Rv::MECHANISM_INVALID);
    };
    if !key.is_ec() {
        return Err(Rv::KEY_TYPE_INCONSISTENT);
    }
    let given: CK_ECDH1_DERIVE_PARAMS = mechanism.parameter()?;
    if given.kdf != CKD_NULL || given.ulSharedDataLen != 0 {
        return Err(Rv::MECHANISM_PARAM_INVALID);
    }
    let point = mechanism.bytes(given.pPublicData.cast(), given.ulPublicDataLen)?;
    from_point(key, point).map_err(|_| Rv::MECHANISM_PARAM_INVALID)
}

/// The key of a point as it is or in a DER OCTET STRING: clients give both (PKCS#11 3.0 §6.3.17).
///
/// First as it is: one P-256 point in 256 begins with 04 3f and is a whole OCTET STRING by chance,
/// while no curve's point is as long as one in DER.
pub(crate) fn from_point(curve: KeyKind, point: &[u8]) -> devkey::Result<PublicKey> {
    let read = |point| match curve {
        KeyKind::Ed25519 => PublicKey::from_ed25519(point),
        curve => PublicKey::from_sec1(curve, point),
    };
    read(point).or_else(|e| match <&OctetStringRef>::from_der(point) {
        Ok(inner) => read(inner.as_bytes()),
        Err(_) => Err(e),
    })
}

/// How to sign: what becomes of the message on its way to the key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    family: Family,
    key: KeyKind,
    /// Hash of the scheme, where it is known before the data.
    hash: Option<Hash>,
    /// Hash that the module applies.
    pub(crate) prehash: Option<Hash>,
}

impl Plan {
    /// Length of the signature in bytes.
    pub(crate) fn signature_len(&self) -> usize {
        self.key.signature_len()
    }

    /// Most bytes that there can be of a message that is not hashed here.
    pub(crate) fn max_input(&self) -> usize {
        match self.family {
            Family::Ed25519 => MAX_MESSAGE,
            Family::Ecdsa => MAX_DIGEST,
            Family::RsaPkcs1 | Family::RsaPss => self.key.bits() / 8,
        }
    }

    /// The scheme and its input, from a digest, a DigestInfo or a message.
    pub(crate) fn finish(&self, data: &[u8]) -> Result<(Scheme, Vec<u8>)> {
        match (self.family, self.hash) {
            (Family::Ecdsa, _) => {
                let input = ecdsa_input(self.key, data).map_err(|_| Rv::DATA_LEN_RANGE)?;
                Ok((Scheme::Ecdsa, input))
            }
            (Family::Ed25519, _) => Ok((Scheme::Ed25519, data.to_vec())),
            (Family::RsaPkcs1, None) => {
                let (hash, digest) = digest_info(data).ok_or(Rv::DATA_INVALID)?;
                Ok((Scheme::RsaPkcs1(hash), digest.to_vec()))
            }
            (_, Some(hash)) if data.len() != hash.size() => Err(Rv::DATA_LEN_RANGE),
            (Family::RsaPkcs1, Some(hash)) => Ok((Scheme::RsaPkcs1(hash), data.to_vec())),
            (Family::RsaPss, Some(hash)) => Ok((Scheme::RsaPss(hash), data.to_vec())),
            (Family::RsaPss, None) => Err(Rv::GENERAL_ERROR),
        }
    }
}

impl Family {
    fn fits(self, key: KeyKind) -> bool {
        match self {
            Family::Ecdsa => key.is_ec(),
            Family::RsaPkcs1 | Family::RsaPss => key.is_rsa(),
            Family::Ed25519 => key == KeyKind::Ed25519,
        }
    }

    fn has(self, scheme: Scheme, wanted: Option<Hash>) -> bool {
        let hashes = |hash| wanted.is_none() || wanted == Some(hash);
        match (self, scheme) {
            (Family::Ecdsa, Scheme::Ecdsa) | (Family::Ed25519, Scheme::Ed25519) => true,
            (Family::RsaPkcs1, Scheme::RsaPkcs1(hash)) => hashes(hash),
            (Family::RsaPss, Scheme::RsaPss(hash)) => hashes(hash),
            _ => false,
        }
    }
}

impl Does {
    fn is_within(self, capability: &Capability) -> bool {
        let Capability {
            kind,
            usage,
            schemes,
        } = capability;
        match self {
            Does::Sign(family, hash) => {
                usage.sign && schemes.iter().any(|scheme| family.has(*scheme, hash))
            }
            Does::Decrypt => usage.decrypt && kind.is_rsa(),
            Does::Agree => usage.agree && kind.is_ec(),
            Does::Generate(Pairs::Ec) => kind.is_ec(),
            Does::Generate(Pairs::Rsa) => kind.is_rsa(),
            Does::Generate(Pairs::Edwards) => *kind == KeyKind::Ed25519,
        }
    }
}

fn find(kind: Ulong, capabilities: &[Capability]) -> Result<Does> {
    let row = TABLE.iter().find(|(known, _)| *known == kind);
    let (_, does) = row.ok_or(Rv::MECHANISM_INVALID)?;
    match capabilities.iter().any(|c| does.is_within(c)) {
        true => Ok(*does),
        false => Err(Rv::MECHANISM_INVALID),
    }
}

/// The hash that goes with a mechanism and a mask generation function: the same for both.
fn hash(mechanism: Ulong, mgf: Ulong) -> Result<Hash> {
    let known = |(_, m, g): &&(Hash, Ulong, Ulong)| (*m, *g) == (mechanism, mgf);
    let row = HASHES.iter().find(known);
    row.map(|(hash, ..)| *hash)
        .ok_or(Rv::MECHANISM_PARAM_INVALID)
}

/// The salt is as long as the hash: TLS 1.3 wants that, and a TPM does nothing else.
fn pss_hash(mechanism: &Mechanism<'_>, prehash: Option<Hash>) -> Result<Hash> {
    let given: CK_RSA_PKCS_PSS_PARAMS = mechanism.parameter()?;
    let hash = hash(given.hashAlg, given.mgf)?;
    let fits = given.sLen == hash.size() as Ulong && prehash.is_none_or(|prehash| prehash == hash);
    fits.then_some(hash).ok_or(Rv::MECHANISM_PARAM_INVALID)
}

/// Ed25519 itself: neither its prehashed variant nor one with a context.
fn eddsa(mechanism: &Mechanism<'_>) -> Result<()> {
    if mechanism.is_bare() {
        return Ok(());
    }
    let given: CK_EDDSA_PARAMS = mechanism.parameter()?;
    match (given.phFlag, given.ulContextDataLen) {
        (CK_FALSE, 0) => Ok(()),
        _ => Err(Rv::MECHANISM_PARAM_INVALID),
    }
}

/// The hash and digest of a DER DigestInfo (RFC 8017 §9.2 note 1): exactly what RSA signs, so
/// another encoding of the same is refused.
fn digest_info(data: &[u8]) -> Option<(Hash, &[u8])> {
    let hashes = [(Sha256, 1), (Sha384, 2), (Sha512, 3)];
    hashes.into_iter().find_map(|(hash, arc)| {
        let size = hash.size() as u8;
        let prefix = [
            0x30,
            0x11 + size,
            0x30,
            0x0d,
            0x06,
            0x09,
            0x60,
            0x86,
            0x48,
            0x01,
            0x65,
            0x03,
            0x04,
            0x02,
            arc,
            0x05,
            0x00,
            0x04,
            size,
        ];
        let digest = data.strip_prefix(&prefix)?;
        (digest.len() == hash.size()).then_some((hash, digest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::agreement;
    use devkey::key::Usage;

    /// Fails where a row stands twice.
    #[test]
    fn the_table_has_each_mechanism_once() {
        for (index, (kind, _)) in TABLE.iter().enumerate() {
            assert!(TABLE[..index].iter().all(|(other, _)| other != kind));
        }
    }

    /// R22. Fails where `is_within` does not look at schemes or usage.
    #[test]
    fn what_the_token_cannot_do_is_not_listed() {
        let only = Capability {
            kind: KeyKind::Rsa2048,
            usage: Usage::SIGN,
            schemes: vec![Scheme::RsaPkcs1(Sha256)],
        };
        let expected = [CKM_RSA_PKCS, CKM_SHA256_RSA_PKCS, CKM_RSA_PKCS_KEY_PAIR_GEN];
        assert_eq!(list(std::slice::from_ref(&only)), expected);
        let found = info(CKM_RSA_PKCS, &[only], true).unwrap();
        assert_eq!((found.ulMinKeySize, found.ulMaxKeySize), (2048, 2048));
        assert_eq!(found.flags, CKF_SIGN | CKF_VERIFY | CKF_HW);
    }

    /// Fails where `signing` asks for any scheme of the family, or of any kind of key.
    #[test]
    fn what_the_key_cannot_do_is_refused_before_there_is_data() {
        let only = |kind, schemes: &[Scheme]| Capability {
            kind,
            usage: Usage::SIGN,
            schemes: schemes.to_vec(),
        };
        let (short, long) = (KeyKind::Rsa2048, KeyKind::Rsa3072);
        let token = [
            only(short, &[Scheme::RsaPkcs1(Sha256), Scheme::RsaPss(Sha256)]),
            only(long, &[Scheme::RsaPkcs1(Sha512), Scheme::RsaPss(Sha512)]),
            only(KeyKind::EcP256, &[Scheme::Ecdsa]),
        ];
        let with =
            |plan: fn(&Mechanism<'_>, &[Capability], KeyKind) -> Result<Plan>, kind, hash, key| {
                Mechanism::with_pss(kind, hash, |mechanism| {
                    plan(mechanism, &token, key).map(|_| ())
                })
            };
        let sign = |kind, hash, key| with(signing, kind, hash, key);
        let none = None::<(Hash, Ulong, Ulong)>;
        let (sha256, sha512) = (Some(HASHES[0]), Some(HASHES[2]));
        let wrong_key = Err(Rv::KEY_TYPE_INCONSISTENT);
        assert_eq!(sign(CKM_SHA512_RSA_PKCS, none, long), Ok(()));
        assert_eq!(sign(CKM_SHA512_RSA_PKCS, none, short), wrong_key);
        assert_eq!(sign(CKM_RSA_PKCS, none, short), Ok(()));
        assert_eq!(sign(CKM_RSA_PKCS, none, KeyKind::Rsa4096), wrong_key);
        assert_eq!(sign(CKM_ECDSA_SHA512, none, KeyKind::EcP256), Ok(()));
        assert_eq!(sign(CKM_RSA_PKCS_PSS, sha256, short), Ok(()));
        let wrong_hash = Err(Rv::MECHANISM_PARAM_INVALID);
        assert_eq!(sign(CKM_RSA_PKCS_PSS, sha512, short), wrong_hash);
        assert_eq!(sign(CKM_SHA512_RSA_PKCS_PSS, sha512, short), wrong_key);
        // Anybody's key of any kind verifies.
        let verified = with(verification, CKM_SHA512_RSA_PKCS, none, short);
        assert_eq!(verified, Ok(()));
    }

    /// R20. Fails where the length of the digest or the arc of the hash is not compared.
    #[test]
    fn digest_infos_are_read_exactly() {
        let mut info =
            b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"
                .to_vec();
        info.extend([9; 32]);
        assert_eq!(digest_info(&info), Some((Sha256, &[9; 32][..])));
        assert_eq!(digest_info(&info[..50]), None);
        assert_eq!(digest_info(&[&info[..], &[0]].concat()), None);
        info[14] = 2;
        assert_eq!(digest_info(&info), None);
        let sha1 = b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14";
        assert_eq!(digest_info(&[&sha1[..], &[9; 20]].concat()), None);
        assert_eq!(digest_info(&[]), None);
    }

    /// A point whose second byte makes all of it an OCTET STRING.
    fn like_der(curve: &'static agreement::Algorithm, second: u8) -> Vec<u8> {
        loop {
            let key = agreement::PrivateKey::generate(curve).unwrap();
            let point = key.compute_public_key().unwrap().as_ref().to_vec();
            if point[1] == second {
                return point;
            }
        }
    }

    /// Fails where `from_point` reads DER first, or not at all.
    #[test]
    fn points_come_raw_or_in_der() {
        let p256 = like_der(&agreement::ECDH_P256, 0x3f);
        let p384 = like_der(&agreement::ECDH_P384, 0x5f);
        let points = [
            (KeyKind::EcP256, p256, [4, 65]),
            (KeyKind::EcP384, p384, [4, 97]),
            (KeyKind::Ed25519, [&[4, 30][..], &[9; 30]].concat(), [4, 32]),
        ];
        for (curve, point, header) in points {
            let wrapped = [&header, &point[..]].concat();
            for given in [&point, &wrapped] {
                let key = from_point(curve, given).unwrap();
                assert_eq!(key.point(), Some(&point[..]), "{curve}");
            }
            assert!(from_point(curve, &[&wrapped[..], &[0]].concat()).is_err());
        }
        assert!(from_point(KeyKind::EcP256, &[4; 65]).is_err());
        assert!(from_point(KeyKind::EcP256, &[]).is_err());
    }
}
