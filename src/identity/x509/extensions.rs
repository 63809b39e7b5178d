//! Extensions, made for what devkey asks for and issues.

use der::asn1::{Ia5String, ObjectIdentifier, OctetString};
use der::flagset::FlagSet;
use der::oid::AssociatedOid;
use der::{Decode, Encode};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::certpolicy::PolicyInformation;
use x509_cert::ext::pkix::crl::dp::DistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName, GeneralNames};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, CertificatePolicies, CrlDistributionPoints,
    ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName, SubjectKeyIdentifier,
};

use super::alt_name::AltName;
use super::encoding;
use super::usage::ExtendedUsage;
use crate::error::{Error, Result};
use crate::key::{PublicKey, Usage};

/// anyPolicy (RFC 5280 §4.2.1.4): what a CA below the root has where it may state every policy.
pub const ANY_POLICY: &str = "2.5.29.32.0";

/// One extension.
pub(super) fn extension<T: Encode + AssociatedOid>(critical: bool, value: &T) -> Result<Extension> {
    let encode = || {
        Ok(Extension {
            extn_id: T::OID,
            critical,
            extn_value: OctetString::new(value.to_der()?)?,
        })
    };
    encode().map_err(encoding)
}

/// The names beside the subject's. Critical where there is no other (RFC 5280 §4.2.1.6).
pub(super) fn alt_names(names: &[AltName], only: bool) -> Result<Extension> {
    let all: Result<GeneralNames> = names.iter().map(AltName::general).collect();
    extension(only, &SubjectAltName(all?))
}

/// What a key may do, as bits of keyUsage (RFC 5280 §4.2.1.3). Critical.
pub(super) fn key_usage(usage: Usage) -> Result<Extension> {
    let mut bits = FlagSet::<KeyUsages>::default();
    for (set, bit) in [
        (usage.sign, KeyUsages::DigitalSignature),
        (usage.decrypt, KeyUsages::KeyEncipherment),
        (usage.agree, KeyUsages::KeyAgreement),
    ] {
        if set {
            bits |= bit;
        }
    }
    extension(true, &KeyUsage(bits))
}

/// A CA's keyUsage and basicConstraints. Both critical.
pub(super) fn authority(path_len: Option<u8>) -> Result<[Extension; 2]> {
    let bits = KeyUsages::KeyCertSign | KeyUsages::CRLSign;
    let basic = BasicConstraints {
        ca: true,
        path_len_constraint: path_len,
    };
    Ok([extension(true, &basic)?, extension(true, &KeyUsage(bits))?])
}

/// basicConstraints of who is no CA. Critical.
pub(super) fn no_authority() -> Result<Extension> {
    extension(
        true,
        &BasicConstraints {
            ca: false,
            path_len_constraint: None,
        },
    )
}

pub(super) fn extended_usage(usages: &[ExtendedUsage]) -> Result<Extension> {
    extension(
        false,
        &ExtendedKeyUsage(usages.iter().map(|usage| usage.0).collect()),
    )
}

/// # Errors
/// [`Error::BadInput`] where one is no OID.
pub(super) fn policies(policies: &[String]) -> Result<Extension> {
    let all = policies.iter().map(|policy| {
        let policy_identifier = ObjectIdentifier::new(policy)
            .map_err(|_| Error::input(format!("{policy:?} is no OID of a policy")))?;
        Ok(PolicyInformation {
            policy_identifier,
            policy_qualifiers: None,
        })
    });
    extension(false, &CertificatePolicies(all.collect::<Result<_>>()?))
}

/// Where the issuer's revocation list is.
pub(super) fn crl_at(url: &str) -> Result<Extension> {
    let AltName::Uri(url) = format!("uri:{url}").parse()? else {
        return Err(Error::input("a revocation list is at a URI"));
    };
    let name = GeneralName::UniformResourceIdentifier(Ia5String::new(&url).map_err(encoding)?);
    let point = DistributionPoint {
        distribution_point: Some(DistributionPointName::FullName(vec![name])),
        reasons: None,
        crl_issuer: None,
    };
    extension(false, &CrlDistributionPoints(vec![point]))
}

/// The key identifier that devkey gives: RFC 7093 §2 method 1, 20 bytes.
pub(super) fn key_id(public: &PublicKey) -> Result<Vec<u8>> {
    let spki = public.to_spki();
    let info = spki::SubjectPublicKeyInfoRef::from_der(&spki).map_err(|_| Error::Crypto)?;
    let mut digest = crate::key::Hash::Sha256.digest(info.subject_public_key.raw_bytes());
    digest.truncate(20);
    Ok(digest)
}

pub(super) fn subject_key(id: &[u8]) -> Result<Extension> {
    extension(
        false,
        &SubjectKeyIdentifier(OctetString::new(id).map_err(encoding)?),
    )
}

pub(super) fn authority_key(id: &[u8]) -> Result<Extension> {
    let id = OctetString::new(id).map_err(encoding)?;
    let key = AuthorityKeyIdentifier {
        key_identifier: Some(id),
        ..Default::default()
    };
    extension(false, &key)
}
