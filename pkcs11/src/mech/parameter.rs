//! What the parameters of mechanisms mean, and which are refused.

use cryptoki_sys::*;
use der::Decode;
use der::asn1::OctetStringRef;
use devkey::key::Hash::{self, Sha256, Sha384, Sha512};
use devkey::key::{KeyKind, PublicKey};

use crate::raw::{Mechanism, Ulong};
use crate::rv::{Result, Rv};

/// The hashes as mechanisms and as mask generation functions.
pub(super) const HASHES: [(Hash, Ulong, Ulong); 3] = [
    (Sha256, CKM_SHA256, CKG_MGF1_SHA256),
    (Sha384, CKM_SHA384, CKG_MGF1_SHA384),
    (Sha512, CKM_SHA512, CKG_MGF1_SHA512),
];

/// The salt is as long as the hash: TLS 1.3 wants that, and a TPM does nothing else.
pub(super) fn pss(mechanism: &Mechanism<'_>, prehash: Option<Hash>) -> Result<Hash> {
    let given: CK_RSA_PKCS_PSS_PARAMS = mechanism.parameter()?;
    let hash = hash(given.hashAlg, given.mgf)?;
    let fits = given.sLen == hash.size() as Ulong && prehash.is_none_or(|prehash| prehash == hash);
    fits.then_some(hash).ok_or(Rv::MECHANISM_PARAM_INVALID)
}

/// The hash of RSA-OAEP.
pub(super) fn oaep(mechanism: &Mechanism<'_>) -> Result<Hash> {
    let given: CK_RSA_PKCS_OAEP_PARAMS = mechanism.parameter()?;
    // A label is not offered: TPM and file have it different ways.
    if given.ulSourceDataLen != 0 || given.source > CKZ_DATA_SPECIFIED {
        return Err(Rv::MECHANISM_PARAM_INVALID);
    }
    hash(given.hashAlg, given.mgf)
}

/// The other's key of ECDH.
pub(super) fn ecdh(mechanism: &Mechanism<'_>, curve: KeyKind) -> Result<PublicKey> {
    let given: CK_ECDH1_DERIVE_PARAMS = mechanism.parameter()?;
    if given.kdf != CKD_NULL || given.ulSharedDataLen != 0 {
        return Err(Rv::MECHANISM_PARAM_INVALID);
    }
    let point = mechanism.bytes(given.pPublicData.cast(), given.ulPublicDataLen)?;
    from_point(curve, point).map_err(|_| Rv::MECHANISM_PARAM_INVALID)
}

/// Ed25519 itself: neither its prehashed variant nor one with a context.
pub(super) fn eddsa(mechanism: &Mechanism<'_>) -> Result<()> {
    if mechanism.is_bare() {
        return Ok(());
    }
    let given: CK_EDDSA_PARAMS = mechanism.parameter()?;
    match (given.phFlag, given.ulContextDataLen) {
        (CK_FALSE, 0) => Ok(()),
        _ => Err(Rv::MECHANISM_PARAM_INVALID),
    }
}

/// ML-DSA with an empty context, which no back end takes another than. Whether signatures are
/// hedged is of no interest to who verifies them (PKCS#11 3.2 §6.67.5).
pub(super) fn ml_dsa(mechanism: &Mechanism<'_>) -> Result<()> {
    match additional(mechanism)? {
        Some(given) if given.ulContextLen != 0 => Err(Rv::MECHANISM_PARAM_INVALID),
        _ => Ok(()),
    }
}

/// Signatures by ML-DSA are hedged: whoever insists on deterministic ones gets none.
pub(super) fn hedge(mechanism: &Mechanism<'_>) -> Result<()> {
    match additional(mechanism)?.map(|given| given.hedgeVariant) {
        None | Some(CKH_HEDGE_PREFERRED | CKH_HEDGE_REQUIRED) => Ok(()),
        Some(_) => Err(Rv::MECHANISM_PARAM_INVALID),
    }
}

fn additional(mechanism: &Mechanism<'_>) -> Result<Option<CK_SIGN_ADDITIONAL_CONTEXT>> {
    let given = (!mechanism.is_bare()).then(|| mechanism.parameter());
    given.transpose()
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

/// The hash that goes with a mechanism and a mask generation function: the same for both.
fn hash(mechanism: Ulong, mgf: Ulong) -> Result<Hash> {
    let known = |(_, m, g): &&(Hash, Ulong, Ulong)| (*m, *g) == (mechanism, mgf);
    let row = HASHES.iter().find(known);
    row.map(|(hash, ..)| *hash)
        .ok_or(Rv::MECHANISM_PARAM_INVALID)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::agreement;

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
