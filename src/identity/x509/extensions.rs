//! Extensions: made for what devkey issues, and read from what others send.

use std::fmt;
use std::str::FromStr;

use der::asn1::{Ia5String, ObjectIdentifier, OctetString};
use der::flagset::FlagSet;
use der::oid::AssociatedOid;
use der::{Decode, Encode};
use serde::{Deserialize, Serialize};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::certpolicy::PolicyInformation;
use x509_cert::ext::pkix::crl::dp::DistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName, GeneralNames};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, CertificatePolicies, CrlDistributionPoints,
    ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName, SubjectKeyIdentifier,
};

use super::encoding;
use super::name::AltName;
use crate::error::{Error, Result};
use crate::key::{PublicKey, Usage};

/// anyPolicy (RFC 5280 §4.2.1.4): what a CA below the root has where it may state every policy.
pub const ANY_POLICY: &str = "2.5.29.32.0";

/// A purpose of RFC 5280 §4.2.1.12, by its name there (`clientAuth`) or as an OID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExtendedUsage(pub(super) ObjectIdentifier);

impl ExtendedUsage {
    /// id-kp-serverAuth.
    pub const SERVER: ExtendedUsage =
        ExtendedUsage(ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1"));
    /// id-kp-clientAuth.
    pub const CLIENT: ExtendedUsage =
        ExtendedUsage(ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2"));
    /// tcg-kp-EKCertificate, TCG EK Credential Profile 2.6 §3.2.
    pub const ENDORSEMENT: ExtendedUsage =
        ExtendedUsage(ObjectIdentifier::new_unwrap("2.23.133.8.1"));
    /// anyExtendedKeyUsage.
    pub(super) const ANY: ExtendedUsage =
        ExtendedUsage(ObjectIdentifier::new_unwrap("2.5.29.37.0"));

    const NAMES: [(&'static str, ExtendedUsage); 7] = [
        ("serverAuth", Self::SERVER),
        ("clientAuth", Self::CLIENT),
        (
            "codeSigning",
            ExtendedUsage(ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3")),
        ),
        (
            "emailProtection",
            ExtendedUsage(ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.4")),
        ),
        (
            "timeStamping",
            ExtendedUsage(ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.8")),
        ),
        (
            "OCSPSigning",
            ExtendedUsage(ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9")),
        ),
        ("endorsementKey", Self::ENDORSEMENT),
    ];
}

impl FromStr for ExtendedUsage {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let named = Self::NAMES.iter().find(|(name, _)| *name == text);
        let by_oid = || ObjectIdentifier::new(text).ok().map(ExtendedUsage);
        named
            .map(|(_, usage)| *usage)
            .or_else(by_oid)
            .ok_or_else(|| {
                let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
                Error::input(format!(
                    "{text:?} is no purpose: an OID or one of {}",
                    names.join(", ")
                ))
            })
    }
}

impl fmt::Display for ExtendedUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, usage)| usage == self) {
            Some((name, _)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

impl TryFrom<String> for ExtendedUsage {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ExtendedUsage> for String {
    fn from(usage: ExtendedUsage) -> Self {
        usage.to_string()
    }
}

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

/// What the extensions of a request or a certificate say.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) basic: Option<BasicConstraints>,
    pub(super) key_usage: Option<KeyUsage>,
    pub(super) extended: Option<Vec<ExtendedUsage>>,
    pub(super) alt_names: GeneralNames,
    pub(super) policies: Option<Vec<ObjectIdentifier>>,
    pub(super) subject_key: Option<Vec<u8>>,
    pub(super) authority_key: Option<Vec<u8>>,
    pub(super) crl: Option<CrlDistributionPoints>,
    /// Those that are critical and not among the above.
    pub(super) unknown_critical: Vec<ObjectIdentifier>,
    /// nameConstraints, critical or not: to pass over them is to trust too much.
    pub(super) name_constraints: bool,
}

impl Known {
    /// # Errors
    /// [`Error::BadInput`] for one that stands twice (RFC 5280 §4.2) or cannot be read.
    pub(super) fn read(extensions: &[Extension]) -> Result<Self> {
        let mut known = Known::default();
        for (at, one) in extensions.iter().enumerate() {
            let oid = one.extn_id;
            if extensions
                .iter()
                .skip(at + 1)
                .any(|later| later.extn_id == oid)
            {
                return Err(Error::input(format!("extension {oid} stands twice")));
            }
            known
                .take(one)
                .map_err(|e| Error::input(format!("extension {oid} cannot be read: {e}")))?;
        }
        Ok(known)
    }

    fn take(&mut self, one: &Extension) -> der::Result<()> {
        let value = one.extn_value.as_bytes();
        match one.extn_id {
            BasicConstraints::OID => self.basic = Some(Decode::from_der(value)?),
            KeyUsage::OID => self.key_usage = Some(Decode::from_der(value)?),
            ExtendedKeyUsage::OID => {
                let all = ExtendedKeyUsage::from_der(value)?.0;
                self.extended = Some(all.into_iter().map(ExtendedUsage).collect());
            }
            SubjectAltName::OID => self.alt_names = SubjectAltName::from_der(value)?.0,
            CertificatePolicies::OID => {
                let all = CertificatePolicies::from_der(value)?.0;
                self.policies = Some(all.iter().map(|policy| policy.policy_identifier).collect());
            }
            SubjectKeyIdentifier::OID => {
                let id = SubjectKeyIdentifier::from_der(value)?;
                self.subject_key = Some(id.0.as_bytes().to_vec());
            }
            AuthorityKeyIdentifier::OID => {
                let id = AuthorityKeyIdentifier::from_der(value)?.key_identifier;
                self.authority_key = id.map(|id| id.as_bytes().to_vec());
            }
            CrlDistributionPoints::OID => self.crl = Some(Decode::from_der(value)?),
            oid => self.unknown(oid, one.critical),
        }
        Ok(())
    }

    fn unknown(&mut self, oid: ObjectIdentifier, critical: bool) {
        use x509_cert::ext::pkix::NameConstraints;
        self.name_constraints |= oid == NameConstraints::OID;
        if critical {
            self.unknown_critical.push(oid);
        }
    }
}

impl Known {
    /// keyUsage in devkey's words.
    pub(super) fn usage(&self) -> Option<Usage> {
        self.key_usage.map(|bits| Usage {
            sign: bits.digital_signature(),
            agree: bits.key_agreement(),
            decrypt: bits.key_encipherment(),
        })
    }

    /// Whether certificates may be signed: cA in basicConstraints, and keyCertSign where there is a
    /// keyUsage (RFC 5280 §4.2.1.3 and §4.2.1.9).
    pub(super) fn is_authority(&self) -> bool {
        self.basic.as_ref().is_some_and(|basic| basic.ca)
            && self.key_usage.is_none_or(|bits| bits.key_cert_sign())
    }
}
