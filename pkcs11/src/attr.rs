//! Attributes: one table, a row for each.

use std::borrow::Cow;

use cryptoki_sys::*;
use der::Encode;
use der::asn1::OctetStringRef;
use devkey::key::KeyKind;

use crate::object::{Body, Class, Object, SecretKey};
use crate::raw::Ulong;
use crate::rv::{Result, Rv};

/// The names that templates use; no other file takes them from the headers.
pub(crate) mod names {
    pub(crate) use cryptoki_sys::{
        CK_FALSE, CKA_ALWAYS_AUTHENTICATE, CKA_CERTIFICATE_TYPE, CKA_CLASS, CKA_DECRYPT,
        CKA_DERIVE, CKA_EC_PARAMS, CKA_EC_POINT, CKA_EXTRACTABLE, CKA_ID, CKA_KEY_TYPE, CKA_LABEL,
        CKA_MODULUS, CKA_MODULUS_BITS, CKA_PARAMETER_SET, CKA_PUBLIC_EXPONENT, CKA_SENSITIVE,
        CKA_SIGN, CKA_TOKEN, CKA_VALUE, CKA_VALUE_LEN, CKC_X_509, CKK_EC, CKK_EC_EDWARDS,
        CKK_GENERIC_SECRET, CKK_ML_DSA, CKK_RSA, CKO_CERTIFICATE, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY,
        CKO_SECRET_KEY,
    };
}

/// What a row says of an object.
enum Value<'o> {
    /// The object has no such attribute.
    Absent,
    /// It has one that nobody gets.
    Sensitive,
    Flag(bool),
    Number(Ulong),
    Bytes(Cow<'o, [u8]>),
}

use Value::{Absent, Flag, Number, Sensitive};

struct Row {
    kind: Ulong,
    read: for<'o> fn(&'o Object) -> Value<'o>,
}

macro_rules! table {
    ($($kind:ident => $read:expr;)*) => {
        const TABLE: &[Row] = &[$(Row { kind: $kind, read: $read },)*];
    };
}

// By the tables of PKCS#11 3.0: §4.4 storage objects, §4.6 certificates, §4.7 to §4.10 keys; for
// ML-DSA by 3.2 §6.67.2 and 3.
table! {
    CKA_CLASS => |o| Number(match o.class() {
        Class::Private => CKO_PRIVATE_KEY,
        Class::Public => CKO_PUBLIC_KEY,
        Class::Certificate => CKO_CERTIFICATE,
        Class::Secret => CKO_SECRET_KEY,
    });
    CKA_TOKEN => |o| Flag(o.stored().is_some());
    CKA_PRIVATE => |o| Flag(o.is_private());
    CKA_MODIFIABLE => |o| Flag(o.stored().is_some());
    CKA_COPYABLE => |_| Flag(false);
    CKA_DESTROYABLE => |o| Flag(!matches!(o.body, Body::Public(_)));
    CKA_LABEL => |o| bytes(o.label.as_bytes());
    CKA_UNIQUE_ID => |o| match o.stored() {
        Some(id) => owned(format!("{:?}-{id}", o.class()).to_lowercase().into_bytes()),
        None => Absent,
    };
    CKA_ID => |o| bytes(&o.id);

    CKA_KEY_TYPE => |o| match (&o.body, o.public().map(|key| key.kind())) {
        (Body::Secret(_), _) => Number(CKK_GENERIC_SECRET),
        (_, Some(kind)) => Number(key_type(kind)),
        (_, None) => Absent,
    };
    CKA_START_DATE => |_| bytes(&[]);
    CKA_END_DATE => |_| bytes(&[]);
    CKA_LOCAL => |o| of_key(o, o.record().is_some());
    CKA_KEY_GEN_MECHANISM => |o| match o.record() {
        Some(record) => Number(generation(record.public.kind())),
        None if o.class() == Class::Certificate => Absent,
        None => Number(CK_UNAVAILABLE_INFORMATION),
    };
    CKA_DERIVE => |o| of_key(o, agrees(o) && o.class() == Class::Private);

    CKA_SENSITIVE => |o| of_secret(o, |secret| secret.sensitive);
    // Made here, and never out of here: a derived secret may have been elsewhere.
    CKA_ALWAYS_SENSITIVE => |o| of_secret(o, |_| false);
    CKA_EXTRACTABLE => |o| match o.class() {
        Class::Private => Flag(false),
        _ => of_secret(o, |secret| secret.extractable),
    };
    CKA_NEVER_EXTRACTABLE => |o| of_secret(o, |_| false);
    CKA_SIGN => |o| only(o, &[Class::Private, Class::Secret], signs(o));
    CKA_SIGN_RECOVER => |o| only(o, &[Class::Private], false);
    CKA_DECRYPT => |o| only(o, &[Class::Private, Class::Secret], decrypts(o));
    CKA_UNWRAP => |o| only(o, &[Class::Private, Class::Secret], false);
    CKA_WRAP_WITH_TRUSTED => |o| only(o, &[Class::Private, Class::Secret], false);
    // Never: ssh-agent's helper cannot ask for a PIN between C_SignInit and C_Sign.
    CKA_ALWAYS_AUTHENTICATE => |o| only(o, &[Class::Private], false);

    CKA_VERIFY => |o| match &o.body {
        Body::Public(record) => Flag(record.usage.sign),
        Body::Foreign(_) => Flag(true),
        _ => only(o, &[Class::Secret], false),
    };
    CKA_VERIFY_RECOVER => |o| only(o, &[Class::Public], false);
    // The module does not encrypt; whoever holds the public key can.
    CKA_ENCRYPT => |o| only(o, &[Class::Public, Class::Secret], false);
    CKA_WRAP => |o| only(o, &[Class::Public, Class::Secret], false);
    CKA_TRUSTED => |o| only(o, &[Class::Public, Class::Certificate, Class::Secret], false);

    // On private keys too: it saves clients the search for the public key.
    CKA_PUBLIC_KEY_INFO => |o| match (&o.body, o.public()) {
        (Body::Certificate(certificate), _) => bytes(&certificate.spki),
        (_, Some(key)) => owned(key.to_spki()),
        (_, None) => Absent,
    };
    CKA_EC_PARAMS => |o| optional(o.public().and_then(|key| key.curve_oid()));
    CKA_EC_POINT => |o| optional(o.public().and_then(|key| octet_string(key.point()?)));
    CKA_MODULUS => |o| part_of_rsa(o, |modulus, _| Value::Bytes(modulus.into()));
    CKA_PUBLIC_EXPONENT => |o| part_of_rsa(o, |_, exponent| Value::Bytes(exponent.into()));
    CKA_MODULUS_BITS => |o| match o.class() {
        Class::Public => part_of_rsa(o, |modulus, _| Number(8 * modulus.len() as Ulong)),
        _ => Absent,
    };
    CKA_PRIVATE_EXPONENT => hidden_rsa;
    CKA_PRIME_1 => hidden_rsa;
    CKA_PRIME_2 => hidden_rsa;
    CKA_EXPONENT_1 => hidden_rsa;
    CKA_EXPONENT_2 => hidden_rsa;
    CKA_COEFFICIENT => hidden_rsa;

    CKA_PARAMETER_SET => |o| match o.public().and_then(|key| parameter_set(key.kind())) {
        Some(set) => Number(set),
        None => Absent,
    };
    CKA_SEED => |o| match &o.body {
        Body::Private(record) if record.public.kind().is_ml_dsa() => Sensitive,
        _ => Absent,
    };

    CKA_VALUE => |o| match &o.body {
        Body::Certificate(certificate) => bytes(&certificate.der),
        // The caller asked for a secret that it may read: C_DeriveKey without CKA_SENSITIVE.
        Body::Secret(secret) if secret.extractable && !secret.sensitive => bytes(secret.value.expose()),
        Body::Secret(_) => Sensitive,
        Body::Private(record) if !record.public.kind().is_rsa() => Sensitive,
        Body::Public(_) | Body::Foreign(_) => o.public().and_then(|key| key.ml_dsa()).map_or(Absent, bytes),
        _ => Absent,
    };
    CKA_VALUE_LEN => |o| match &o.body {
        Body::Secret(secret) => Number(secret.value.len() as Ulong),
        _ => Absent,
    };

    CKA_CERTIFICATE_TYPE => |o| only_certificate(o, Number(CKC_X_509));
    CKA_CERTIFICATE_CATEGORY => |o| only_certificate(o, Number(CK_CERTIFICATE_CATEGORY_UNSPECIFIED));
    CKA_JAVA_MIDP_SECURITY_DOMAIN => |o| only_certificate(o, Number(CK_SECURITY_DOMAIN_UNSPECIFIED));
    CKA_URL => |o| only_certificate(o, bytes(&[]));
    CKA_SUBJECT => |o| match &o.body {
        Body::Certificate(certificate) => bytes(&certificate.subject),
        Body::Private(_) | Body::Public(_) | Body::Foreign(_) => bytes(&[]),
        Body::Secret(_) => Absent,
    };
    CKA_ISSUER => |o| match &o.body {
        Body::Certificate(certificate) => bytes(&certificate.issuer),
        _ => Absent,
    };
    CKA_SERIAL_NUMBER => |o| match &o.body {
        Body::Certificate(certificate) => bytes(&certificate.serial),
        _ => Absent,
    };
}

/// The value of an attribute.
///
/// # Errors
/// `CKR_ATTRIBUTE_TYPE_INVALID` where the object has none, `CKR_ATTRIBUTE_SENSITIVE`.
pub(crate) fn value(object: &Object, kind: Ulong) -> Result<Cow<'_, [u8]>> {
    let row = TABLE.iter().find(|row| row.kind == kind);
    match (row.ok_or(Rv::ATTRIBUTE_TYPE_INVALID)?.read)(object) {
        Absent => Err(Rv::ATTRIBUTE_TYPE_INVALID),
        Sensitive => Err(Rv::ATTRIBUTE_SENSITIVE),
        Flag(flag) => Ok(vec![CK_BBOOL::from(flag)].into()),
        Number(number) => Ok(number.to_ne_bytes().to_vec().into()),
        Value::Bytes(bytes) => Ok(bytes),
    }
}

/// Whether an object has all attributes of a template, byte for byte.
pub(crate) fn matches(object: &Object, template: &[(Ulong, &[u8])]) -> bool {
    template
        .iter()
        .all(|(kind, wanted)| value(object, *kind).is_ok_and(|found| *found == **wanted))
}

/// `CKK_` of a kind of key.
pub(crate) fn key_type(kind: KeyKind) -> Ulong {
    match kind {
        KeyKind::EcP256 | KeyKind::EcP384 => CKK_EC,
        KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => CKK_RSA,
        KeyKind::Ed25519 => CKK_EC_EDWARDS,
        KeyKind::MlDsa44 | KeyKind::MlDsa65 | KeyKind::MlDsa87 => CKK_ML_DSA,
    }
}

/// `CKP_` of a kind of key that has such a thing.
pub(crate) fn parameter_set(kind: KeyKind) -> Option<Ulong> {
    match kind {
        KeyKind::MlDsa44 => Some(CKP_ML_DSA_44),
        KeyKind::MlDsa65 => Some(CKP_ML_DSA_65),
        KeyKind::MlDsa87 => Some(CKP_ML_DSA_87),
        _ => None,
    }
}

fn generation(kind: KeyKind) -> Ulong {
    match kind {
        KeyKind::EcP256 | KeyKind::EcP384 => CKM_EC_KEY_PAIR_GEN,
        KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => CKM_RSA_PKCS_KEY_PAIR_GEN,
        KeyKind::Ed25519 => CKM_EC_EDWARDS_KEY_PAIR_GEN,
        KeyKind::MlDsa44 | KeyKind::MlDsa65 | KeyKind::MlDsa87 => CKM_ML_DSA_KEY_PAIR_GEN,
    }
}

fn bytes(bytes: &[u8]) -> Value<'_> {
    Value::Bytes(bytes.into())
}

fn owned(bytes: Vec<u8>) -> Value<'static> {
    Value::Bytes(bytes.into())
}

fn optional(bytes: Option<Vec<u8>>) -> Value<'static> {
    bytes.map_or(Absent, owned)
}

/// A flag of objects of some classes.
fn only(object: &Object, classes: &[Class], flag: bool) -> Value<'static> {
    match classes.contains(&object.class()) {
        true => Flag(flag),
        false => Absent,
    }
}

fn of_key(object: &Object, flag: bool) -> Value<'static> {
    only(
        object,
        &[Class::Private, Class::Public, Class::Secret],
        flag,
    )
}

/// A flag that is always set on private keys, and as it is on a derived secret.
fn of_secret(object: &Object, flag: fn(&SecretKey) -> bool) -> Value<'static> {
    match &object.body {
        Body::Private(_) => Flag(true),
        Body::Secret(secret) => Flag(flag(secret)),
        _ => Absent,
    }
}

fn only_certificate<'o>(object: &Object, value: Value<'o>) -> Value<'o> {
    match object.class() {
        Class::Certificate => value,
        _ => Absent,
    }
}

fn part_of_rsa<'o>(
    object: &'o Object,
    part: impl FnOnce(&'o [u8], &'o [u8]) -> Value<'o>,
) -> Value<'o> {
    match object.public().and_then(|key| key.rsa()) {
        Some((modulus, exponent)) => part(modulus, exponent),
        None => Absent,
    }
}

fn hidden_rsa(object: &Object) -> Value<'_> {
    match &object.body {
        Body::Private(record) if record.public.kind().is_rsa() => Sensitive,
        _ => Absent,
    }
}

fn signs(object: &Object) -> bool {
    object.record().is_some_and(|record| record.usage.sign)
}

fn agrees(object: &Object) -> bool {
    object.record().is_some_and(|record| record.usage.agree)
}

fn decrypts(object: &Object) -> bool {
    object.record().is_some_and(|record| record.usage.decrypt)
}

fn octet_string(point: &[u8]) -> Option<Vec<u8>> {
    OctetStringRef::new(point).ok()?.to_der().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use devkey::secret::Secret;

    fn secret(sensitive: bool, extractable: bool) -> Object {
        Object {
            label: "s".into(),
            id: Vec::new(),
            body: Body::Secret(SecretKey {
                value: Secret::new(vec![7; 32]),
                sensitive,
                extractable,
                private: false,
            }),
        }
    }

    fn foreign() -> Object {
        let mut modulus = vec![0xff; 256];
        modulus[0] = 0x80;
        let key = devkey::key::PublicKey::from_rsa(&modulus, &[1, 0, 1]).unwrap();
        Object {
            label: String::new(),
            id: vec![1],
            body: Body::Foreign(key),
        }
    }

    /// Fails where a row stands twice or a flag has another size.
    #[test]
    fn the_table_has_each_attribute_once_and_answers_every_object() {
        for (index, row) in TABLE.iter().enumerate() {
            let again = TABLE[..index].iter().any(|other| other.kind == row.kind);
            assert!(!again, "{:#x} stands twice", row.kind);
            for object in [secret(false, true), foreign()] {
                match ((row.read)(&object), value(&object, row.kind)) {
                    (Absent, answer) => assert_eq!(answer, Err(Rv::ATTRIBUTE_TYPE_INVALID)),
                    (Sensitive, answer) => assert_eq!(answer, Err(Rv::ATTRIBUTE_SENSITIVE)),
                    (Flag(_), answer) => assert_eq!(answer.unwrap().len(), 1),
                    (Number(_), answer) => assert_eq!(answer.unwrap().len(), size_of::<Ulong>()),
                    (Value::Bytes(bytes), answer) => assert_eq!(answer.unwrap(), bytes),
                }
            }
        }
    }

    /// Fails where CKA_VALUE of a secret looks at one of the two flags only.
    #[test]
    fn a_secret_is_read_only_where_both_flags_let_it() {
        let read = |sensitive, extractable| {
            let secret = secret(sensitive, extractable);
            value(&secret, CKA_VALUE).map(|value| value.len())
        };
        assert_eq!(read(false, true), Ok(32));
        for (sensitive, extractable) in [(true, true), (true, false), (false, false)] {
            assert_eq!(read(sensitive, extractable), Err(Rv::ATTRIBUTE_SENSITIVE));
        }
    }

    /// Fails where `matches` lets attributes pass that the object does not have.
    #[test]
    fn templates_match_by_every_attribute() {
        let class = CKO_PUBLIC_KEY.to_ne_bytes();
        let object = foreign();
        assert!(matches(&object, &[]));
        assert!(matches(&object, &[(CKA_CLASS, &class), (CKA_ID, &[1])]));
        assert!(!matches(&object, &[(CKA_CLASS, &class), (CKA_ID, &[2])]));
        assert!(!matches(&object, &[(CKA_WRAP_TEMPLATE, &[])]));
    }
}
