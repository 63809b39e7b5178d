//! The module through the `cryptoki` crate, as a Rust program uses it: on each back end one key of
//! each kind that the token makes, its signatures verified by the token and outside of it.
//!
//! The module's state and its environment are the process's, hence one test at a time. Seen to fail
//! with r and s swapped in `EcKey::sign`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

mod common;

use common::{Backend, Device, module};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use devkey::key::{Hash, KeyKind, PublicKey, Scheme};
use serial_test::serial;

/// secp256r1 as CKA_EC_PARAMS.
const P256: [u8; 10] = [6, 8, 42, 134, 72, 206, 61, 3, 1, 7];

#[test]
#[serial]
fn file() {
    keys_work(&Device::new(Backend::File));
}

#[test]
#[serial]
fn tpm() {
    keys_work(&Device::new(Backend::Tpm));
}

fn keys_work(device: &Device) {
    // SAFETY: the tests of this file run one at a time, and nothing else reads it meanwhile.
    unsafe { std::env::set_var("DEVKEY_CONFIG", device.config()) };
    let pkcs11 = Pkcs11::new(module()).unwrap();
    pkcs11
        .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
        .unwrap();
    let slot = pkcs11.get_slots_with_initialized_token().unwrap()[0];
    let info = pkcs11.get_token_info(slot).unwrap();
    assert_eq!(
        (info.label(), info.login_required()),
        (Device::TOKEN, false)
    );
    let session = pkcs11.open_rw_session(slot).unwrap();
    session.login(UserType::User, None).unwrap();
    elliptic(&session);
    rsa(&session);
    let mechanisms = pkcs11.get_mechanism_list(slot).unwrap();
    assert!(mechanisms.contains(&MechanismType::ECDSA));
    session.logout().unwrap();
    session.close().unwrap();
    pkcs11.finalize().unwrap();
}

fn elliptic(session: &Session) {
    let public = [Attribute::EcParams(P256.to_vec())];
    let (public, private) = generate(session, &Mechanism::EccKeyPairGen, &public);
    let digest = Hash::Sha256.digest(b"hello");
    let signature = session.sign(&Mechanism::Ecdsa, private, &digest).unwrap();
    session
        .verify(&Mechanism::Ecdsa, public, &digest, &signature)
        .unwrap();
    let attributes = session.get_attributes(public, &[AttributeType::EcPoint]);
    let [Attribute::EcPoint(point)] = &attributes.unwrap()[..] else {
        panic!("no CKA_EC_POINT");
    };
    // A DER OCTET STRING of 65 bytes.
    assert_eq!(point[..2], [4, 65]);
    let key = PublicKey::from_sec1(KeyKind::EcP256, &point[2..]).unwrap();
    key.verify(Scheme::Ecdsa, &digest, &signature).unwrap();
    session.destroy_object(private).unwrap();
    assert!(found(session).is_empty());
}

fn rsa(session: &Session) {
    let public = [Attribute::ModulusBits(2048.into())];
    let (public, private) = generate(session, &Mechanism::RsaPkcsKeyPairGen, &public);
    let mechanism = Mechanism::Sha256RsaPkcs;
    let signature = session.sign(&mechanism, private, b"hello").unwrap();
    assert_eq!(signature.len(), 256);
    session
        .verify(&mechanism, public, b"hello", &signature)
        .unwrap();
    assert!(
        session
            .verify(&mechanism, public, b"hullo", &signature)
            .is_err()
    );
    assert_eq!(found(session), [private]);
}

fn generate(
    session: &Session,
    mechanism: &Mechanism<'_>,
    public: &[Attribute],
) -> (ObjectHandle, ObjectHandle) {
    let token = [Attribute::Token(true)];
    let public = [&token[..], public].concat();
    session
        .generate_key_pair(mechanism, &public, &token)
        .unwrap()
}

fn found(session: &Session) -> Vec<ObjectHandle> {
    let template = [Attribute::Class(ObjectClass::PRIVATE_KEY)];
    session.find_objects(&template).unwrap()
}
