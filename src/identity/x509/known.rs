//! Extensions, read from what others send.

use der::Decode;
use der::oid::{AssociatedOid, ObjectIdentifier};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralNames;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, CertificatePolicies, CrlDistributionPoints,
    ExtendedKeyUsage, KeyUsage, NameConstraints, SubjectAltName, SubjectKeyIdentifier,
};

use super::usage::ExtendedUsage;
use crate::error::{Error, Result};
use crate::key::Usage;

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

#[cfg(test)]
mod tests {
    use der::asn1::OctetString;

    use super::*;

    fn extension(oid: ObjectIdentifier, value: &[u8]) -> Extension {
        let extn_value = OctetString::new(value).unwrap();
        Extension {
            extn_id: oid,
            critical: false,
            extn_value,
        }
    }

    /// RFC 5280 §4.2. Seen to fail without the look at later ones.
    #[test]
    fn no_extension_stands_twice() {
        let twice = ObjectIdentifier::new_unwrap("1.2.3.4");
        let [one, other] = [
            extension(twice, &[]),
            extension(BasicConstraints::OID, &[0x30, 0]),
        ];
        Known::read(&[one.clone(), other.clone()]).unwrap();
        assert!(Known::read(&[one.clone(), other, one]).is_err());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for oid in [
            BasicConstraints::OID,
            KeyUsage::OID,
            ExtendedKeyUsage::OID,
            SubjectAltName::OID,
            CertificatePolicies::OID,
            SubjectKeyIdentifier::OID,
            AuthorityKeyIdentifier::OID,
            CrlDistributionPoints::OID,
        ] {
            assert!(
                Known::read(&[extension(oid, &[0x05, 0x00])]).is_err(),
                "{oid}"
            );
        }
    }
}
