//! Templates: from the caller's attributes to typed requests, once.

use devkey::key::{KeyKind, PublicKey, Usage};
use devkey::provider::Capability;
use devkey::token::{CertificateRequest, KeyRequest, Names};

use crate::attr::{self, names::*};
use crate::mech::{Pairs, from_point};
use crate::object::Object;
use crate::raw::{Attribute, Ulong};
use crate::rv::{Result, Rv};

/// The attributes that a caller gives, borrowed for the time of the call.
#[derive(Debug)]
pub(crate) struct Template<'c>(Vec<(Ulong, &'c [u8])>);

/// What C_CreateObject is asked for.
#[derive(Debug)]
pub(crate) enum NewObject {
    /// A certificate on the token.
    Certificate(CertificateRequest),
    /// Somebody's public key, for the time of the session.
    PublicKey(PublicKey, Names),
}

/// What C_DeriveKey is asked for.
#[derive(Debug)]
pub(crate) struct NewSecret {
    /// `CKA_VALUE_LEN` in bytes; by default all that there is.
    pub(crate) length: Option<usize>,
    /// `CKA_SENSITIVE`
    pub(crate) sensitive: bool,
    /// `CKA_EXTRACTABLE`
    pub(crate) extractable: bool,
    /// `CKA_LABEL` and `CKA_ID`
    pub(crate) names: Names,
}

impl<'c> Template<'c> {
    /// Reads the caller's attributes.
    pub(crate) fn read(attributes: &[Attribute<'c>]) -> Result<Self> {
        let pair = |attribute: &Attribute<'c>| Ok((attribute.kind(), attribute.value()?));
        let pairs = attributes.iter().map(pair);
        Ok(Template(pairs.collect::<Result<_>>()?))
    }

    /// The attributes as they came.
    pub(crate) fn pairs(&self) -> &[(Ulong, &'c [u8])] {
        &self.0
    }

    /// A key pair on the token (PKCS#11 3.0 §5.18.2, C_GenerateKeyPair).
    ///
    /// Clients differ in what they give: attributes that change nothing of the pair are not
    /// looked at, and of the uses those that the token has for such keys are taken.
    pub(crate) fn key_pair(
        pairs: Pairs,
        public: &Template<'_>,
        private: &Template<'_>,
        capabilities: &[Capability],
    ) -> Result<KeyRequest> {
        // Session key pairs are not offered: a key that nobody keeps needs no device.
        if private.flag(CKA_TOKEN)? != Some(true) || public.flag(CKA_TOKEN)? == Some(false) {
            return Err(Rv::TEMPLATE_INCONSISTENT);
        }
        if private.flag(CKA_EXTRACTABLE)? == Some(true)
            || private.flag(CKA_ALWAYS_AUTHENTICATE)? == Some(true)
        {
            return Err(Rv::TEMPLATE_INCONSISTENT);
        }
        let kind = kind(pairs, public, private)?;
        for half in [public, private] {
            half.insist(CKA_KEY_TYPE, attr::key_type(kind))?;
        }
        public.insist(CKA_CLASS, CKO_PUBLIC_KEY)?;
        private.insist(CKA_CLASS, CKO_PRIVATE_KEY)?;
        let offered = capabilities.iter().find(|c| c.kind == kind);
        let offered = offered.ok_or(match pairs {
            Pairs::Rsa => Rv::KEY_SIZE_RANGE,
            Pairs::Ec | Pairs::Edwards => Rv::CURVE_NOT_SUPPORTED,
            Pairs::MlDsa => Rv::PARAMETER_SET_NOT_SUPPORTED,
        })?;
        let (names, others) = (private.names()?, public.names()?);
        Ok(KeyRequest {
            kind,
            usage: private.usage(offered.usage)?,
            names: Names {
                label: names.label.or(others.label),
                cka_id: names.cka_id.or(others.cka_id),
            },
        })
    }

    /// An object to create.
    pub(crate) fn new_object(&self) -> Result<NewObject> {
        let on_token = self.flag(CKA_TOKEN)?.unwrap_or(false);
        match (self.number(CKA_CLASS)?, on_token) {
            (None, _) => Err(Rv::TEMPLATE_INCOMPLETE),
            (Some(CKO_CERTIFICATE), true) => self.certificate(),
            (Some(CKO_PUBLIC_KEY), false) => {
                Ok(NewObject::PublicKey(self.public_key()?, self.names()?))
            }
            // Certificates live on the token; public keys there are those of its pairs.
            (Some(CKO_CERTIFICATE | CKO_PUBLIC_KEY), _) => Err(Rv::TEMPLATE_INCONSISTENT),
            (Some(_), _) => Err(Rv::ATTRIBUTE_VALUE_INVALID),
        }
    }

    /// A secret to derive. Java gives no more than class and key type, and means to read it.
    pub(crate) fn new_secret(&self) -> Result<NewSecret> {
        self.insist(CKA_CLASS, CKO_SECRET_KEY)?;
        self.insist(CKA_KEY_TYPE, CKK_GENERIC_SECRET)?;
        if self.flag(CKA_TOKEN)? == Some(true) {
            return Err(Rv::TEMPLATE_INCONSISTENT);
        }
        let length = self.number(CKA_VALUE_LEN)?.map(usize::try_from);
        Ok(NewSecret {
            length: length
                .transpose()
                .map_err(|_| Rv::ATTRIBUTE_VALUE_INVALID)?,
            sensitive: self.flag(CKA_SENSITIVE)?.unwrap_or(false),
            extractable: self.flag(CKA_EXTRACTABLE)?.unwrap_or(true),
            names: self.names()?,
        })
    }

    /// New names for an object on the token; whatever else is given must be as it is already.
    pub(crate) fn new_names(&self, object: &Object) -> Result<Names> {
        for (kind, wanted) in &self.0 {
            if [CKA_LABEL, CKA_ID].contains(kind) {
                continue;
            }
            if *attr::value(object, *kind)? != **wanted {
                return Err(Rv::ATTRIBUTE_READ_ONLY);
            }
        }
        let names = self.names()?;
        let emptied = |kind, name| self.get(kind).is_some() && name;
        match emptied(CKA_LABEL, names.label.is_none()) || emptied(CKA_ID, names.cka_id.is_none()) {
            true => Err(Rv::ATTRIBUTE_VALUE_INVALID),
            false => Ok(names),
        }
    }

    fn certificate(&self) -> Result<NewObject> {
        self.insist(CKA_CERTIFICATE_TYPE, CKC_X_509)?;
        let der = self.get(CKA_VALUE).ok_or(Rv::TEMPLATE_INCOMPLETE)?;
        Ok(NewObject::Certificate(CertificateRequest {
            der: der.to_vec(),
            names: self.names()?,
        }))
    }

    fn public_key(&self) -> Result<PublicKey> {
        let key_type = self.number(CKA_KEY_TYPE)?.ok_or(Rv::TEMPLATE_INCOMPLETE)?;
        let get = |kind| self.get(kind).ok_or(Rv::TEMPLATE_INCOMPLETE);
        let key = match key_type {
            CKK_EC => match curve(get(CKA_EC_PARAMS)?)? {
                // Its key type is another.
                KeyKind::Ed25519 => return Err(Rv::ATTRIBUTE_VALUE_INVALID),
                curve => from_point(curve, get(CKA_EC_POINT)?),
            },
            CKK_EC_EDWARDS => from_point(KeyKind::Ed25519, get(CKA_EC_POINT)?),
            CKK_ML_DSA => PublicKey::from_ml_dsa(ml_dsa(self)?, get(CKA_VALUE)?),
            CKK_RSA => PublicKey::from_rsa(get(CKA_MODULUS)?, get(CKA_PUBLIC_EXPONENT)?),
            _ => return Err(Rv::ATTRIBUTE_VALUE_INVALID),
        };
        key.map_err(|_| Rv::ATTRIBUTE_VALUE_INVALID)
    }

    /// What a private key is to be used for, of what it can be; signatures, if nothing is said.
    fn usage(&self, offered: Usage) -> Result<Usage> {
        let [sign, agree, decrypt] =
            [CKA_SIGN, CKA_DERIVE, CKA_DECRYPT].map(|kind| self.flag(kind));
        let [sign, agree, decrypt] = [sign?, agree?, decrypt?];
        let other = agree == Some(true) || decrypt == Some(true);
        let usage = Usage {
            sign: offered.sign && sign.unwrap_or(!other),
            agree: offered.agree && agree == Some(true),
            decrypt: offered.decrypt && decrypt == Some(true),
        };
        match usage.sign || usage.agree || usage.decrypt {
            true => Ok(usage),
            false => Err(Rv::TEMPLATE_INCONSISTENT),
        }
    }

    /// Label and ID, where they are given and not empty.
    fn names(&self) -> Result<Names> {
        let given = |kind| self.get(kind).filter(|value| !value.is_empty());
        let label = given(CKA_LABEL).map(|label| String::from_utf8(label.to_vec()));
        let names = Names {
            label: label.transpose().map_err(|_| Rv::ATTRIBUTE_VALUE_INVALID)?,
            cka_id: given(CKA_ID).map(<[u8]>::to_vec),
        };
        names.check().map_err(|_| Rv::ATTRIBUTE_VALUE_INVALID)?;
        Ok(names)
    }

    fn get(&self, kind: Ulong) -> Option<&'c [u8]> {
        let found = self.0.iter().find(|(given, _)| *given == kind);
        found.map(|(_, value)| *value)
    }

    fn flag(&self, kind: Ulong) -> Result<Option<bool>> {
        match self.get(kind) {
            None => Ok(None),
            Some([CK_FALSE]) => Ok(Some(false)),
            Some([_]) => Ok(Some(true)),
            Some(_) => Err(Rv::ATTRIBUTE_VALUE_INVALID),
        }
    }

    fn number(&self, kind: Ulong) -> Result<Option<Ulong>> {
        let number = self
            .get(kind)
            .map(|value| value.try_into().map(Ulong::from_ne_bytes));
        number.transpose().map_err(|_| Rv::ATTRIBUTE_VALUE_INVALID)
    }

    /// An attribute that may be left out but has one value only.
    fn insist(&self, kind: Ulong, wanted: Ulong) -> Result<()> {
        match self.number(kind)?.is_none_or(|given| given == wanted) {
            true => Ok(()),
            false => Err(Rv::TEMPLATE_INCONSISTENT),
        }
    }
}

fn kind(pairs: Pairs, public: &Template<'_>, private: &Template<'_>) -> Result<KeyKind> {
    match pairs {
        Pairs::Rsa => return rsa(public),
        Pairs::MlDsa => {
            let kind = ml_dsa(public)?;
            let set = attr::parameter_set(kind).ok_or(Rv::GENERAL_ERROR)?;
            return private.insist(CKA_PARAMETER_SET, set).map(|()| kind);
        }
        Pairs::Ec | Pairs::Edwards => {}
    }
    let params = public.get(CKA_EC_PARAMS).or(private.get(CKA_EC_PARAMS));
    let kind = curve(params.ok_or(Rv::TEMPLATE_INCOMPLETE)?)?;
    match kind.is_ec() == (pairs == Pairs::Ec) {
        true => Ok(kind),
        false => Err(Rv::CURVE_NOT_SUPPORTED),
    }
}

fn rsa(public: &Template<'_>) -> Result<KeyKind> {
    let bits = public
        .number(CKA_MODULUS_BITS)?
        .ok_or(Rv::TEMPLATE_INCOMPLETE)?;
    let exponent = public.get(CKA_PUBLIC_EXPONENT).unwrap_or(&[1, 0, 1]);
    let zeros = exponent.iter().take_while(|byte| **byte == 0).count();
    if exponent.get(zeros..) != Some(&[1, 0, 1]) {
        return Err(Rv::ATTRIBUTE_VALUE_INVALID);
    }
    let mut kinds = KeyKind::ALL.into_iter().filter(|kind| kind.is_rsa());
    let found = kinds.find(|kind| kind.bits() as Ulong == bits);
    found.ok_or(Rv::KEY_SIZE_RANGE)
}

/// The kind of ML-DSA key that CKA_PARAMETER_SET names.
fn ml_dsa(template: &Template<'_>) -> Result<KeyKind> {
    let set = template.number(CKA_PARAMETER_SET)?;
    let set = set.ok_or(Rv::TEMPLATE_INCOMPLETE)?;
    let mut kinds = KeyKind::ALL.into_iter();
    let found = kinds.find(|kind| attr::parameter_set(*kind) == Some(set));
    found.ok_or(Rv::PARAMETER_SET_NOT_SUPPORTED)
}

/// A named curve: its OID, or for edwards25519 its name (PKCS#11 3.0 §6.3.3).
fn curve(params: &[u8]) -> Result<KeyKind> {
    const EDWARDS25519: &[u8] = b"\x13\x0cedwards25519";
    match params {
        EDWARDS25519 => Ok(KeyKind::Ed25519),
        oid => KeyKind::from_curve_oid(oid).map_err(|_| Rv::CURVE_NOT_SUPPORTED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devkey::key::Scheme;

    const P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    const TRUE: &[u8] = &[1];
    const FALSE: &[u8] = &[CK_FALSE];
    /// Attributes of NSS that change nothing here.
    const CKA_WRAP: Ulong = cryptoki_sys::CKA_WRAP;
    const CKA_VERIFY_RECOVER: Ulong = cryptoki_sys::CKA_VERIFY_RECOVER;

    type Given<'c> = &'c [(Ulong, &'c [u8])];

    fn pair(pairs: Pairs, public: Given<'_>, private: Given<'_>) -> Result<KeyRequest> {
        let all = Usage {
            sign: true,
            agree: true,
            decrypt: false,
        };
        let token = [
            Capability {
                kind: KeyKind::EcP256,
                usage: all,
                schemes: vec![Scheme::Ecdsa],
            },
            Capability::new(KeyKind::Rsa2048, Usage::SIGN),
        ];
        let [public, private] = [public, private].map(|given| Template(given.to_vec()));
        Template::key_pair(pairs, &public, &private, &token)
    }

    /// Q12: GnuTLS and OpenSSL's provider give no class and no key type.
    /// Fails where `expect` wants the attribute.
    #[test]
    fn class_and_type_may_be_left_out() {
        let made = pair(
            Pairs::Ec,
            &[(CKA_TOKEN, TRUE), (CKA_EC_PARAMS, P256)],
            &[(CKA_TOKEN, TRUE), (CKA_LABEL, b"k"), (CKA_ID, &[1])],
        );
        let made = made.unwrap();
        assert_eq!((made.kind, made.usage), (KeyKind::EcP256, Usage::SIGN));
        assert_eq!(made.names.label.as_deref(), Some("k"));
        assert_eq!(made.names.cka_id.as_deref(), Some(&[1][..]));
    }

    /// Q12: NSS refuses uses one by one. Fails where `usage` takes a flag that is there for true.
    #[test]
    fn uses_that_are_refused_are_not_taken() {
        let bits: Ulong = 2048;
        let bits = bits.to_ne_bytes();
        let made = pair(
            Pairs::Rsa,
            &[
                (CKA_MODULUS_BITS, &bits),
                (CKA_PUBLIC_EXPONENT, &[1, 0, 1]),
                (CKA_WRAP, FALSE),
                (CKA_VERIFY_RECOVER, FALSE),
                (CKA_DERIVE, FALSE),
            ],
            &[
                (CKA_TOKEN, TRUE),
                (CKA_SIGN, TRUE),
                (CKA_DERIVE, FALSE),
                (CKA_DECRYPT, FALSE),
            ],
        );
        assert_eq!(made.unwrap().usage, Usage::SIGN);
        let refuses: Given<'_> = &[(CKA_TOKEN, TRUE), (CKA_DERIVE, FALSE)];
        let made = pair(Pairs::Ec, &[(CKA_EC_PARAMS, P256)], refuses);
        assert_eq!(made.unwrap().usage, Usage::SIGN);
        let derives: Given<'_> = &[(CKA_TOKEN, TRUE), (CKA_DERIVE, TRUE)];
        let usage = pair(Pairs::Ec, &[(CKA_EC_PARAMS, P256)], derives).unwrap();
        assert!(usage.usage.agree && !usage.usage.sign);
    }

    /// Q12: Java and node want pairs for the session. Fails without the first two lines of
    /// `key_pair`, or the look at CKA_EXTRACTABLE.
    #[test]
    fn pairs_of_a_session_and_keys_to_take_away_are_refused() {
        let curve: Given<'_> = &[(CKA_EC_PARAMS, P256)];
        let refused: [Given<'_>; 3] = [
            &[],
            &[(CKA_TOKEN, FALSE), (CKA_SENSITIVE, FALSE)],
            &[(CKA_TOKEN, TRUE), (CKA_EXTRACTABLE, TRUE)],
        ];
        for private in refused {
            let made = pair(Pairs::Ec, curve, private).unwrap_err();
            assert_eq!(made, Rv::TEMPLATE_INCONSISTENT);
        }
    }

    /// Fails where `rsa` does not look at the exponent.
    #[test]
    fn other_sizes_and_exponents_are_refused() {
        let token: Given<'_> = &[(CKA_TOKEN, TRUE)];
        let rsa = |bits: Ulong, exponent: &[u8]| {
            let bits = bits.to_ne_bytes();
            let public = [
                (CKA_MODULUS_BITS, &bits[..]),
                (CKA_PUBLIC_EXPONENT, exponent),
            ];
            pair(Pairs::Rsa, &public, token).map(|made| made.kind)
        };
        assert_eq!(rsa(2048, &[0, 1, 0, 1]), Ok(KeyKind::Rsa2048));
        assert_eq!(rsa(2048, &[3]), Err(Rv::ATTRIBUTE_VALUE_INVALID));
        assert_eq!(rsa(1024, &[1, 0, 1]), Err(Rv::KEY_SIZE_RANGE));
        assert_eq!(rsa(3072, &[1, 0, 1]), Err(Rv::KEY_SIZE_RANGE));
        let none = pair(Pairs::Ec, &[], token).unwrap_err();
        assert_eq!(none, Rv::TEMPLATE_INCOMPLETE);
    }
}
