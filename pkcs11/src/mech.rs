//! Mechanisms: one table, a row for each.

mod digest_info;
mod parameter;

use cryptoki_sys::*;
use devkey::key::{DecryptScheme, Hash, KeyKind, MAX_DIGEST, PublicKey, Scheme, ecdsa_input};
use devkey::provider::Capability;

use crate::raw::{Mechanism, Ulong};
use crate::rv::{Result, Rv};

pub(crate) use parameter::from_point;

use Hash::{Sha256, Sha384, Sha512};
use digest_info::digest_info;

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
    MlDsa,
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
    /// ML-DSA.
    MlDsa,
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
    (CKM_ML_DSA, Does::Sign(Family::MlDsa, None)),
    (CKM_RSA_PKCS_OAEP, Does::Decrypt),
    (CKM_ECDH1_DERIVE, Does::Agree),
    (CKM_EC_KEY_PAIR_GEN, Does::Generate(Pairs::Ec)),
    (CKM_RSA_PKCS_KEY_PAIR_GEN, Does::Generate(Pairs::Rsa)),
    (CKM_EC_EDWARDS_KEY_PAIR_GEN, Does::Generate(Pairs::Edwards)),
    (CKM_ML_DSA_KEY_PAIR_GEN, Does::Generate(Pairs::MlDsa)),
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
        // Bytes of the public key (PKCS#11 3.2 §6.67.4 and 5).
        kind if kind.is_ml_dsa() => kind.bits() as Ulong / 8,
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
    if plan.family == Family::MlDsa {
        parameter::hedge(mechanism)?;
    }
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
        Family::RsaPss => Some(parameter::pss(mechanism, prehash)?),
        Family::Ed25519 => parameter::eddsa(mechanism).map(|()| None)?,
        Family::MlDsa => parameter::ml_dsa(mechanism).map(|()| None)?,
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
    parameter::oaep(mechanism).map(DecryptScheme::RsaOaep)
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
    parameter::ecdh(mechanism, key)
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
            Family::Ed25519 | Family::MlDsa => MAX_MESSAGE,
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
            (Family::MlDsa, _) => Ok((Scheme::MlDsa, data.to_vec())),
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
            Family::MlDsa => key.is_ml_dsa(),
        }
    }

    fn has(self, scheme: Scheme, wanted: Option<Hash>) -> bool {
        let hashes = |hash| wanted.is_none() || wanted == Some(hash);
        match (self, scheme) {
            (Family::Ecdsa, Scheme::Ecdsa)
            | (Family::Ed25519, Scheme::Ed25519)
            | (Family::MlDsa, Scheme::MlDsa) => true,
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
            Does::Generate(Pairs::MlDsa) => kind.is_ml_dsa(),
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

#[cfg(test)]
mod tests {
    use super::*;
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
        let (sha256, sha512) = (Some(parameter::HASHES[0]), Some(parameter::HASHES[2]));
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
}
