//! Certification requests (PKCS#10, RFC 2986).

use der::asn1::SetOfVec;
use der::oid::AssociatedOid;
use der::{Decode, Encode};
use spki::SubjectPublicKeyInfoOwned;
use x509_cert::attr::Attribute;
use x509_cert::ext::Extension;
use x509_cert::request::{CertReqInfo, ExtensionReq, Version};

use super::alt_name::AltName;
use super::extensions;
use super::known::Known;
use super::name::Subject;
use super::signed::{self, Signed};
use super::usage::ExtendedUsage;
use super::{MAX_LEN, encoding};
use crate::error::{Error, Result};
use crate::identity::signer::Signer;
use crate::key::{PublicKey, Usage};

/// Most names beside the subject's that a request may ask for.
const MAX_NAMES: usize = 64;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestSpec {
    /// Whose certificate.
    pub subject: Subject,
    /// Its other names.
    pub alt_names: Vec<AltName>,
    /// What the key is to be used for.
    pub key_usage: Usage,
}

/// A request whose signature is right: whoever made it held the private key then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The whole, DER.
    pub der: Vec<u8>,
    /// The key to be certified.
    pub public: PublicKey,
    /// Whose certificate is asked for.
    pub subject: Subject,
    /// The other names asked for.
    pub alt_names: Vec<AltName>,
    /// What the key is to be used for, where the request says it.
    pub key_usage: Option<Usage>,
    /// The purposes asked for; none where it asks for none.
    pub extended_usage: Vec<ExtendedUsage>,
}

impl Request {
    /// Makes one and signs it: DER.
    ///
    /// # Errors
    /// [`Error::BadInput`] where it would name nobody, [`Error::Unsupported`] for a usage that the key
    /// cannot have, and those of signing.
    pub fn make(signer: &dyn Signer, spec: &RequestSpec) -> Result<Vec<u8>> {
        named(&spec.subject, &spec.alt_names)?;
        signer.public().kind().check_usage(spec.key_usage)?;
        let mut wanted = vec![extensions::key_usage(spec.key_usage)?];
        if !spec.alt_names.is_empty() {
            let only = spec.subject.is_empty();
            wanted.push(extensions::alt_names(&spec.alt_names, only)?);
        }
        signed_by(signer, &spec.subject, wanted)
    }

    /// The same for a CA below another, which has devices below it and no CA: DER. Policies it may state all:
    /// without those of a level no certificate of its own would state one.
    ///
    /// # Errors
    /// [`Error::BadInput`] without a subject, and those of signing.
    pub fn make_authority(signer: &dyn Signer, subject: &Subject) -> Result<Vec<u8>> {
        if subject.is_empty() {
            return Err(Error::input("a CA needs a subject"));
        }
        let mut wanted = extensions::authority(Some(0))?.to_vec();
        wanted.push(extensions::policies(&[extensions::ANY_POLICY.to_owned()])?);
        signed_by(signer, subject, wanted)
    }

    /// Reads one and checks its signature.
    ///
    /// # Errors
    /// [`Error::BadInput`] for what is no request, is longer than [`MAX_LEN`], names nobody, or asks for
    /// what cannot be granted: a CA, names or keys of kinds that devkey does not know, anything critical
    /// that it does not know. [`Error::Crypto`] for a wrong signature.
    pub fn parse(der: &[u8]) -> Result<Request> {
        let signed = Signed::read(der, MAX_LEN, "a certification request")?;
        let info = CertReqInfo::from_der(&signed.body()?)
            .map_err(|e| Error::input(format!("not a certification request: {e}")))?;
        let spki = info.public_key.to_der().map_err(encoding)?;
        let public = PublicKey::from_spki(&spki)?;
        signed.verify(&spki)?;
        let known = Known::read(&wanted(&info)?)?;
        grantable(&known)?;
        let subject = Subject::try_from(info.subject)?;
        let alt_names = known.alt_names.iter().map(AltName::try_from);
        let alt_names = alt_names.collect::<Result<Vec<_>>>()?;
        named(&subject, &alt_names)?;
        Ok(Request {
            der: der.to_vec(),
            public,
            subject,
            alt_names,
            key_usage: known.usage(),
            extended_usage: known.extended.unwrap_or_default(),
        })
    }
}

fn signed_by(signer: &dyn Signer, subject: &Subject, wanted: Vec<Extension>) -> Result<Vec<u8>> {
    let info = || -> der::Result<CertReqInfo> {
        Ok(CertReqInfo {
            version: Version::V1,
            subject: subject.name(),
            public_key: SubjectPublicKeyInfoOwned::from_der(&signer.public().to_spki())?,
            attributes: SetOfVec::try_from(vec![Attribute::try_from(ExtensionReq(wanted))?])?,
        })
    };
    signed::sign(signer, &info().map_err(encoding)?)
}

fn named(subject: &Subject, alt_names: &[AltName]) -> Result<()> {
    if subject.is_empty() && alt_names.is_empty() {
        return Err(Error::input(
            "a certificate needs a subject or an alternative name",
        ));
    }
    if alt_names.len() > MAX_NAMES {
        return Err(Error::input(format!(
            "at most {MAX_NAMES} alternative names"
        )));
    }
    Ok(())
}

/// The extensions that a request asks for. Its other attributes are for other CAs.
fn wanted(info: &CertReqInfo) -> Result<Vec<Extension>> {
    let mut all = info
        .attributes
        .iter()
        .filter(|one| one.oid == ExtensionReq::OID);
    let (first, second) = (all.next(), all.next());
    let Some(first) = first else {
        return Ok(Vec::new());
    };
    let mut values = first.values.iter();
    match (second, values.next(), values.next()) {
        (None, Some(value), None) => value
            .decode_as::<ExtensionReq>()
            .map(|extensions| extensions.0)
            .map_err(|e| Error::input(format!("the extensions asked for cannot be read: {e}"))),
        _ => Err(Error::input("a request asks for extensions once")),
    }
}

fn grantable(known: &Known) -> Result<()> {
    if known.basic.as_ref().is_some_and(|basic| basic.ca) {
        return Err(Error::input("the request asks for a CA's certificate"));
    }
    if known
        .key_usage
        .is_some_and(|bits| bits.key_cert_sign() || bits.crl_sign())
    {
        return Err(Error::input(
            "the request asks for what only a CA's key may do",
        ));
    }
    if let Some(oid) = known.unknown_critical.first() {
        let reason = format!("the request asks for the critical extension {oid}, which is unknown");
        return Err(Error::input(reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use der::Any;
    use x509_cert::name::Name;

    use super::*;

    fn info(attributes: Vec<Attribute>) -> CertReqInfo {
        let key = PublicKey::from_ed25519(&[9; 32]).unwrap();
        CertReqInfo {
            version: Version::V1,
            subject: Name::default(),
            public_key: SubjectPublicKeyInfoOwned::from_der(&key.to_spki()).unwrap(),
            attributes: SetOfVec::try_from(attributes).unwrap(),
        }
    }

    /// A second list of extensions, in a value or an attribute of its own, could be what another reader
    /// takes for the only one. Seen to fail where `second`, and where the second value, is not looked at.
    #[test]
    fn extensions_are_asked_for_once() {
        let list = |usage| {
            let wanted = ExtensionReq(vec![extensions::key_usage(usage).unwrap()]);
            Attribute::try_from(wanted).unwrap()
        };
        let one = list(Usage::SIGN);
        let other = list(Usage {
            agree: true,
            ..Usage::SIGN
        });
        assert_eq!(wanted(&info(vec![])).unwrap().len(), 0);
        assert_eq!(wanted(&info(vec![one.clone()])).unwrap().len(), 1);
        assert!(wanted(&info(vec![one.clone(), other.clone()])).is_err());
        let values: Vec<Any> = one
            .values
            .iter()
            .chain(other.values.iter())
            .cloned()
            .collect();
        let values = SetOfVec::try_from(values).unwrap();
        assert!(
            wanted(&info(vec![Attribute {
                values,
                ..one.clone()
            }]))
            .is_err()
        );
        let none = Attribute {
            values: SetOfVec::default(),
            ..one
        };
        assert!(wanted(&info(vec![none])).is_err());
    }
}
