//! ML-DSA through PKCS#11, by the `cryptoki` crate: what PKCS#11 3.2 §6.67 wants of key pairs,
//! objects and CKM_ML_DSA; and clients that do not know such keys still find the others.
//!
//! The module's state and its environment are the process's, hence one test at a time.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

mod common;

use common::sshd::Agent;
use common::{Backend, Device, module};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, Result, RvError};
use cryptoki::mechanism::dsa::{HedgeType, SignAdditionalContext};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{
    Attribute, AttributeInfo, AttributeType, KeyType, MlDsaParameterSetType, ObjectClass,
    ObjectHandle, SlhDsaParameterSetType,
};
use cryptoki::session::Session;
use cryptoki::slot::Slot;
use devkey::key::{KeyKind, PublicKey};
use ml_dsa::signature::Verifier;
use ml_dsa::{EncodedVerifyingKey, MlDsa44, MlDsa65, MlDsa87, Signature, VerifyingKey};
use serial_test::serial;

/// Parameter set, kind, and the lengths of public key and signature in bytes (FIPS 204 table 2).
const SETS: [(MlDsaParameterSetType, KeyKind, usize, usize); 3] = [
    (
        MlDsaParameterSetType::ML_DSA_44,
        KeyKind::MlDsa44,
        1312,
        2420,
    ),
    (
        MlDsaParameterSetType::ML_DSA_65,
        KeyKind::MlDsa65,
        1952,
        3309,
    ),
    (
        MlDsaParameterSetType::ML_DSA_87,
        KeyKind::MlDsa87,
        2592,
        4627,
    ),
];
/// CKR_PARAMETER_SET_NOT_SUPPORTED, which the crate has no name for.
const PARAMETER_SET_NOT_SUPPORTED: RvError =
    RvError::UnknownErrorCode(cryptoki_sys::CKR_PARAMETER_SET_NOT_SUPPORTED);
const NOT_ASKED: HedgeType = HedgeType::Preferred;

/// A token in a file, and the module with a session on it.
struct Host {
    session: Session,
    slot: Slot,
    pkcs11: Pkcs11,
    _device: Device,
}

impl Host {
    fn new() -> Self {
        let device = Device::new(Backend::File);
        // SAFETY: the tests of this file run one at a time, and nothing else reads it meanwhile.
        unsafe { std::env::set_var("DEVKEY_CONFIG", device.config()) };
        let pkcs11 = Pkcs11::new(module()).unwrap();
        let locking = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        pkcs11.initialize(locking).unwrap();
        let slot = pkcs11.get_slots_with_initialized_token().unwrap()[0];
        let session = pkcs11.open_rw_session(slot).unwrap();
        Host {
            session,
            slot,
            pkcs11,
            _device: device,
        }
    }

    fn pair(&self, set: MlDsaParameterSetType) -> (ObjectHandle, ObjectHandle) {
        let set = Attribute::ParameterSet(set.into());
        self.try_pair(&[set], &[]).unwrap()
    }

    fn try_pair(
        &self,
        public: &[Attribute],
        private: &[Attribute],
    ) -> Result<(ObjectHandle, ObjectHandle)> {
        let token = [Attribute::Token(true)];
        let [public, private] = [public, private].map(|given| [&token, given].concat());
        let mechanism = Mechanism::MlDsaKeyPairGen;
        self.session
            .generate_key_pair(&mechanism, &public, &private)
    }

    fn value(&self, object: ObjectHandle) -> Vec<u8> {
        let found = self.session.get_attributes(object, &[AttributeType::Value]);
        match found.unwrap().pop() {
            Some(Attribute::Value(value)) => value,
            other => panic!("no CKA_VALUE: {other:?}"),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // So that the next test's token is found. Its session ends with it.
        let _ = self.pkcs11.clone().finalize();
    }
}

/// CKM_ML_DSA; the `cryptoki` crate gives no parameter where nothing is asked for.
fn with(hedge: HedgeType, context: Option<&[u8]>) -> Mechanism<'_> {
    Mechanism::MlDsa(SignAdditionalContext::new(hedge, context))
}

#[track_caller]
fn refused<T>(result: Result<T>, wanted: RvError) {
    match result {
        Err(Error::Pkcs11(found, _)) => assert_eq!(found, wanted),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused by {wanted:?}"),
    }
}

/// Whether RustCrypto's ml-dsa finds the signature valid.
fn peer_verifies(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    macro_rules! verifies {
        ($parameters:ty) => {{
            let key = EncodedVerifyingKey::<$parameters>::try_from(public).unwrap();
            let signature = Signature::<$parameters>::try_from(signature).unwrap();
            let key = VerifyingKey::<$parameters>::decode(&key);
            key.verify(message, &signature).is_ok()
        }};
    }
    match public.len() {
        1312 => verifies!(MlDsa44),
        1952 => verifies!(MlDsa65),
        _ => verifies!(MlDsa87),
    }
}

/// Seen to fail with CKA_VALUE of public keys absent in attr.rs, and with the lengths of ML-DSA-65
/// and -87 exchanged in `KeyKind::signature_len`.
#[test]
#[serial]
fn every_parameter_set_signs_in_one_part_and_in_many() {
    let host = Host::new();
    let session = &host.session;
    for (set, _, key_len, signature_len) in SETS {
        let (public, private) = host.pair(set);
        let value = host.value(public);
        assert_eq!(value.len(), key_len);
        let mechanism = with(NOT_ASKED, None);
        let once = session.sign(&mechanism, private, b"hello").unwrap();
        session.sign_init(&mechanism, private).unwrap();
        session.sign_update(b"hel").unwrap();
        session.sign_update(b"lo").unwrap();
        let pieces = session.sign_final().unwrap();
        // Both are hedged.
        assert_ne!(once, pieces);
        for signature in [once, pieces] {
            assert_eq!(signature.len(), signature_len);
            assert!(peer_verifies(&value, b"hello", &signature));
            assert!(!peer_verifies(&value, b"hullo", &signature));
            let verify = |message| session.verify(&mechanism, public, message, &signature);
            verify(b"hello").unwrap();
            refused(verify(b"hullo"), RvError::SignatureInvalid);
            session.verify_init(&mechanism, public).unwrap();
            session.verify_update(b"he").unwrap();
            session.verify_update(b"llo").unwrap();
            session.verify_final(&signature).unwrap();
        }
        let short = vec![0; signature_len - 1];
        let checked = session.verify(&mechanism, public, b"hello", &short);
        refused(checked, RvError::SignatureLenRange);
        let empty = session.sign(&mechanism, private, b"").unwrap();
        assert!(peer_verifies(&value, b"", &empty));
    }
}

/// Seen to fail with CKA_SEED not hidden but absent, with CKA_PARAMETER_SET of the next set, and with
/// CKK_EC_EDWARDS for the key type, in attr.rs.
#[test]
#[serial]
fn both_halves_say_what_they_are_and_nothing_private() {
    let host = Host::new();
    for (set, kind, ..) in SETS {
        let (public, private) = host.pair(set);
        let mine = PublicKey::from_ml_dsa(kind, &host.value(public)).unwrap();
        for half in [public, private] {
            let asked = [
                AttributeType::KeyType,
                AttributeType::ParameterSet,
                AttributeType::PublicKeyInfo,
                AttributeType::KeyGenMechanism,
            ];
            let said = host.session.get_attributes(half, &asked).unwrap();
            let wanted = [
                Attribute::KeyType(KeyType::ML_DSA),
                Attribute::ParameterSet(set.into()),
                Attribute::PublicKeyInfo(mine.to_spki()),
                Attribute::KeyGenMechanism(MechanismType::ML_DSA_KEY_PAIR_GEN),
            ];
            assert_eq!(said, wanted);
        }
        for hidden in [AttributeType::Value, AttributeType::Seed] {
            let info = host.session.get_attribute_info(private, &[hidden]).unwrap();
            let sensitive = matches!(info[..], [AttributeInfo::Sensitive]);
            assert!(sensitive, "{hidden}: {info:?}");
        }
        let template = [Attribute::ParameterSet(set.into())];
        let found = host.session.find_objects(&template).unwrap();
        assert_eq!(found.len(), 2, "{kind}");
    }
}

/// Seen to fail without the call of `parameter::hedge` in mech.rs, with that call in `verification`,
/// and without the look at the context's length in parameter.rs.
#[test]
#[serial]
fn contexts_and_deterministic_signatures_are_refused() {
    let host = Host::new();
    let (session, (public, private)) = (&host.session, host.pair(SETS[0].0));
    let sign = |hedge, context| session.sign(&with(hedge, context), private, b"hello");
    let signature = sign(HedgeType::Required, None).unwrap();
    sign(HedgeType::Preferred, Some(b"")).unwrap();
    let wrong = RvError::MechanismParamInvalid;
    refused(sign(HedgeType::DeterministicRequired, None), wrong);
    refused(sign(HedgeType::Preferred, Some(b"context")), wrong);
    let verify = |hedge, context| {
        let mechanism = with(hedge, context);
        session.verify(&mechanism, public, b"hello", &signature)
    };
    verify(NOT_ASKED, None).unwrap();
    // How a signature was made is nothing to who verifies it.
    verify(HedgeType::DeterministicRequired, None).unwrap();
    refused(verify(NOT_ASKED, Some(b"context")), wrong);
}

/// Seen to fail with a default for CKA_PARAMETER_SET, without the `insist` on the private half's,
/// and with `Rv::CURVE_NOT_SUPPORTED` in `ml_dsa`, in template.rs.
#[test]
#[serial]
fn the_parameter_set_is_wanted_and_known() {
    let host = Host::new();
    let [(small, ..), (middle, ..), _] = SETS;
    let [small, middle] = [small, middle].map(|set| Attribute::ParameterSet(set.into()));
    refused(host.try_pair(&[], &[]), RvError::TemplateIncomplete);
    let other = SlhDsaParameterSetType::SHA2_256F;
    let other = [Attribute::ParameterSet(other.into())];
    refused(host.try_pair(&other, &[]), PARAMETER_SET_NOT_SUPPORTED);
    let two = host.try_pair(std::slice::from_ref(&small), &[middle]);
    refused(two, RvError::TemplateInconsistent);
    let edwards = [small.clone(), Attribute::KeyType(KeyType::EC_EDWARDS)];
    refused(host.try_pair(&edwards, &[]), RvError::TemplateInconsistent);
    let typed = [small.clone(), Attribute::KeyType(KeyType::ML_DSA)];
    host.try_pair(&typed, &[small]).unwrap();
}

/// Seen to fail with `Family::MlDsa => true` in `Family::fits`, and with sizes in bits in `info`, in
/// mech.rs.
#[test]
#[serial]
fn mechanisms_and_keys_go_together() {
    let host = Host::new();
    let (_, lattice) = host.pair(SETS[0].0);
    let curve = [
        Attribute::Token(true),
        Attribute::EcParams(vec![6, 8, 42, 134, 72, 206, 61, 3, 1, 7]),
    ];
    let (point, elliptic) = host
        .session
        .generate_key_pair(&Mechanism::EccKeyPairGen, &curve, &curve[..1])
        .unwrap();
    let sign = |mechanism: &Mechanism<'_>, key| host.session.sign(mechanism, key, &[7; 32]);
    let wrong = RvError::KeyTypeInconsistent;
    refused(sign(&with(NOT_ASKED, None), elliptic), wrong);
    refused(sign(&Mechanism::Ecdsa, lattice), wrong);
    let mechanism = with(NOT_ASKED, None);
    let verified = host.session.verify(&mechanism, point, b"hello", &[7; 64]);
    refused(verified, wrong);
    // Bytes of the public key.
    for mechanism in [MechanismType::ML_DSA, MechanismType::ML_DSA_KEY_PAIR_GEN] {
        let info = host
            .pkcs11
            .get_mechanism_info(host.slot, mechanism)
            .unwrap();
        assert_eq!((info.min_key_size(), info.max_key_size()), (1312, 2592));
    }
}

/// Seen to fail without CKK_ML_DSA in `Template::public_key`.
#[test]
#[serial]
fn anybodys_key_verifies() {
    let host = Host::new();
    for (set, _, len, _) in SETS {
        let (public, private) = host.pair(set);
        let mechanism = with(NOT_ASKED, None);
        let signature = host.session.sign(&mechanism, private, b"hello").unwrap();
        let create = |value: Vec<u8>| {
            host.session.create_object(&[
                Attribute::Class(ObjectClass::PUBLIC_KEY),
                Attribute::KeyType(KeyType::ML_DSA),
                Attribute::ParameterSet(set.into()),
                Attribute::Value(value),
            ])
        };
        let copy = create(host.value(public)).unwrap();
        let verify = |message| host.session.verify(&mechanism, copy, message, &signature);
        verify(b"hello").unwrap();
        refused(verify(b"hullo"), RvError::SignatureInvalid);
        refused(create(vec![9; len - 1]), RvError::AttributeValueInvalid);
    }
}

/// Keys that OpenSSH, GnuTLS and NSS do not know hide none of the others, wherever they stand in the
/// list. (libp11 0.4.12 finds no key then; see docs/features.md.) Seen to fail with no CKA_KEY_TYPE on
/// ML-DSA keys in attr.rs.
#[test]
#[serial]
fn clients_without_ml_dsa_find_the_other_keys() {
    let device = Device::new(Backend::File);
    let ids = ["0a", "0b", "0c", "0d", "0e"];
    let kinds = ["ml-dsa-44", "ec-p256", "ml-dsa-65", "rsa-2048", "ml-dsa-87"];
    for (kind, id) in kinds.iter().zip(ids) {
        let new = ["key", "new", "--kind", kind, "--id", id, kind];
        device.devkey().args(new).ok();
    }
    let line = |kind: &str| {
        let show = ["key", "show", "--format", "ssh", kind];
        device.devkey().args(show).ok().text().trim().to_owned()
    };
    let lines = [line("ec-p256"), line("rsa-2048")];
    let lines = [&*lines[0], &*lines[1]];
    device
        .run("ssh-keygen")
        .arg("-D")
        .arg(module())
        .ok()
        .says(&lines);
    let agent = Agent::new(&device);
    agent.add(&device).arg("-s").arg(module()).ok();
    agent.add(&device).arg("-L").ok().says(&lines);
    let p11tool = device.run("p11tool").arg("--provider").arg(module());
    let listed = p11tool.args(["--list-all", "pkcs11:token=machine"]).ok();
    listed.says(&["Label: ec-p256", "Label: rsa-2048", "EC/ECDSA-SECP256R1"]);
    let objects = device.pkcs11_tool().arg("--list-objects").ok();
    for kind in kinds {
        objects.says(&[&format!("label:      {kind}")]);
    }
    let db = format!("sql:{}", device.path("home").display());
    let nss = ["-N", "-d", &db, "--empty-password"];
    device.run("certutil").args(nss).ok();
    let add = ["-dbdir", &db, "-add", "devkey", "-force", "-libfile"];
    device.run("modutil").args(add).arg(module()).ok();
    let keys = device
        .run("certutil")
        .args(["-K", "-h", "all", "-d", &db])
        .ok();
    keys.says(&["ec-p256", "rsa-2048"]);
}
