//! The tables of docs/features.md against the built module. Its functions are compared in
//! tests/module_rules.rs.
#![cfg(feature = "tpm")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

#[path = "common/board.rs"]
mod board;
#[path = "common/module.rs"]
mod module;
#[path = "common/tpm.rs"]
mod tpm;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::ptr::null_mut;

use board::Board;
use cryptoki_sys::*;
use module::{Module, call, raw, with_parameter};

/// Constants by name.
macro_rules! named {
    ($($name:ident)*) => { &[$((stringify!($name), $name)),*] };
}

const MECHANISMS: &[(&str, CK_MECHANISM_TYPE)] = named! {
    CKM_ECDSA CKM_ECDSA_SHA1 CKM_ECDSA_SHA256 CKM_ECDSA_SHA384 CKM_ECDSA_SHA512 CKM_RSA_PKCS
    CKM_SHA1_RSA_PKCS CKM_SHA256_RSA_PKCS CKM_SHA384_RSA_PKCS CKM_SHA512_RSA_PKCS
    CKM_RSA_PKCS_PSS CKM_SHA256_RSA_PKCS_PSS CKM_SHA384_RSA_PKCS_PSS CKM_SHA512_RSA_PKCS_PSS
    CKM_RSA_X_509 CKM_EDDSA CKM_RSA_PKCS_OAEP CKM_ECDH1_DERIVE CKM_EC_KEY_PAIR_GEN
    CKM_RSA_PKCS_KEY_PAIR_GEN CKM_EC_EDWARDS_KEY_PAIR_GEN CKM_ML_DSA CKM_ML_DSA_KEY_PAIR_GEN
    CKM_HASH_ML_DSA
};

const ATTRIBUTES: &[(&str, CK_ATTRIBUTE_TYPE)] = named! {
    CKA_CLASS CKA_TOKEN CKA_PRIVATE CKA_MODIFIABLE CKA_COPYABLE CKA_DESTROYABLE CKA_LABEL
    CKA_UNIQUE_ID CKA_ID CKA_KEY_TYPE CKA_START_DATE CKA_END_DATE CKA_LOCAL
    CKA_KEY_GEN_MECHANISM CKA_ALLOWED_MECHANISMS CKA_DERIVE CKA_SENSITIVE CKA_ALWAYS_SENSITIVE
    CKA_EXTRACTABLE CKA_NEVER_EXTRACTABLE CKA_SIGN CKA_SIGN_RECOVER CKA_DECRYPT CKA_UNWRAP
    CKA_WRAP_WITH_TRUSTED CKA_ALWAYS_AUTHENTICATE CKA_VERIFY CKA_VERIFY_RECOVER CKA_ENCRYPT
    CKA_WRAP CKA_TRUSTED CKA_PUBLIC_KEY_INFO CKA_EC_PARAMS CKA_EC_POINT CKA_MODULUS
    CKA_PUBLIC_EXPONENT CKA_MODULUS_BITS CKA_PRIVATE_EXPONENT CKA_PRIME_1 CKA_PRIME_2
    CKA_EXPONENT_1 CKA_EXPONENT_2 CKA_COEFFICIENT CKA_VALUE CKA_VALUE_LEN CKA_CERTIFICATE_TYPE
    CKA_CERTIFICATE_CATEGORY CKA_JAVA_MIDP_SECURITY_DOMAIN CKA_URL CKA_SUBJECT CKA_ISSUER
    CKA_SERIAL_NUMBER CKA_PARAMETER_SET CKA_SEED CKA_CHECK_VALUE CKA_WRAP_TEMPLATE CKA_UNWRAP_TEMPLATE
};

/// The rows of the document whose names begin so: the name, and the cells after it.
fn rows(prefix: &str) -> Vec<(String, Vec<String>)> {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/features.md");
    let document = fs::read_to_string(document).unwrap();
    let begin = format!("| `{prefix}");
    let lines = document.lines().filter(|line| line.starts_with(&begin));
    lines
        .map(|line| {
            let cells = line.trim_matches('|').split('|').map(str::trim);
            let cells: Vec<_> = cells.map(str::to_owned).collect();
            (cells[0].trim_matches('`').to_owned(), cells[1..].to_vec())
        })
        .collect()
}

fn cell_of_mechanism(m: &Module, kind: CK_MECHANISM_TYPE) -> String {
    let (mut list, mut count) = ([0; 64], 64);
    let slot = m.slots()[0];
    let listed = call!(m, C_GetMechanismList, slot, list.as_mut_ptr(), &mut count);
    assert_eq!(listed, CKR_OK);
    let mut info = CK_MECHANISM_INFO::default();
    match call!(m, C_GetMechanismInfo, slot, kind, &mut info) {
        CKR_OK if list[..count as usize].contains(&kind) => match info {
            one if one.ulMinKeySize == one.ulMaxKeySize => format!("✓ {}", one.ulMinKeySize),
            more => format!("✓ {}–{}", more.ulMinKeySize, more.ulMaxKeySize),
        },
        CKR_MECHANISM_INVALID if !list[..count as usize].contains(&kind) => "✗".to_owned(),
        rv => panic!("{kind:#x} is listed otherwise than its info says: {rv:#x}"),
    }
}

/// Fails where a row of TABLE in mech.rs is left out, or one of the document is changed.
#[test]
fn mechanisms_are_as_documented() {
    let on_file = Module::new();
    let file: Vec<_> = MECHANISMS
        .iter()
        .map(|(_, kind)| cell_of_mechanism(&on_file, *kind))
        .collect();
    drop(on_file);
    let board = Board::new();
    let rows = rows("CKM_");
    let mut seen = Vec::new();
    for ((name, kind), file) in MECHANISMS.iter().zip(file) {
        let tpm = cell_of_mechanism(&board.module, *kind);
        let row = rows.iter().find(|(row, _)| row == name);
        seen.push(format!("| `{name}` | {file} | {tpm} |"));
        let documented = row.map(|(_, cells)| (cells[0].clone(), cells[1].clone()));
        assert_eq!(documented, Some((file, tpm)), "{name}; seen: {seen:#?}");
    }
    assert_eq!(rows.len(), MECHANISMS.len());
}

/// Fails where a row of the table in attr.rs is left out, or one of the document is changed.
#[test]
fn attributes_are_as_documented() {
    let m = Module::new();
    let session = m.session();
    add_certificate(&m, session);
    add_secret(&m, session);
    add_lattice_pair(&m, session);
    let classes = [
        CKO_PRIVATE_KEY,
        CKO_PUBLIC_KEY,
        CKO_CERTIFICATE,
        CKO_SECRET_KEY,
    ];
    let table: Vec<String> = ATTRIBUTES
        .iter()
        .map(|(name, kind)| {
            let cells = classes.map(|class| cell_of_attribute(&m, session, class, *kind));
            format!("| `{name}` | {} |", cells.join(" | "))
        })
        .collect();
    let documented: Vec<String> = rows("CKA_")
        .into_iter()
        .map(|(name, cells)| format!("| `{name}` | {} |", cells.join(" | ")))
        .collect();
    let (seen, read): (BTreeSet<_>, BTreeSet<_>) =
        (table.iter().collect(), documented.iter().collect());
    assert!(seen == read, "the module says:\n{}", table.join("\n"));
}

/// What the objects of a class answer, all kinds of key together.
fn cell_of_attribute(
    m: &Module,
    session: CK_SESSION_HANDLE,
    class: CK_OBJECT_CLASS,
    kind: CK_ATTRIBUTE_TYPE,
) -> &'static str {
    let objects = m.find(session, &[(CKA_CLASS, &class.to_ne_bytes())]);
    assert!(!objects.is_empty());
    let answers: Vec<_> = objects
        .iter()
        .map(|object| m.attribute(session, *object, kind))
        .collect();
    match answers {
        all if all.iter().any(Result::is_ok) => "✓",
        all if all.contains(&Err(CKR_ATTRIBUTE_SENSITIVE)) => "hidden",
        _ => "–",
    }
}

fn add_certificate(m: &Module, session: CK_SESSION_HANDLE) {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ed25519",
            "-nodes",
            "-keyout",
            "/dev/null",
        ])
        .args(["-subj", "/CN=c", "-outform", "DER"])
        .output();
    let der = made.unwrap().stdout;
    let class = CKO_CERTIFICATE.to_ne_bytes();
    let mut template = raw(&[(CKA_CLASS, &class), (CKA_TOKEN, &[1]), (CKA_VALUE, &der)]);
    let template = template.as_mut_ptr();
    assert_eq!(
        call!(m, C_CreateObject, session, template, 3, &mut 0),
        CKR_OK
    );
}

/// The sample token has one key of each other family.
fn add_lattice_pair(m: &Module, session: CK_SESSION_HANDLE) {
    let set = CKP_ML_DSA_44.to_ne_bytes();
    let mut public = raw(&[(CKA_PARAMETER_SET, &set)]);
    let mut private = raw(&[(CKA_TOKEN, &[1])]);
    let rv = call!(
        m,
        C_GenerateKeyPair,
        session,
        &mut module::bare(CKM_ML_DSA_KEY_PAIR_GEN),
        public.as_mut_ptr(),
        1,
        private.as_mut_ptr(),
        1,
        &mut 0,
        &mut 0
    );
    assert_eq!(rv, CKR_OK);
}

fn add_secret(m: &Module, session: CK_SESSION_HANDLE) {
    let key = m.one(session, CKO_PRIVATE_KEY, "p256");
    let point = m.attribute(session, key, CKA_EC_POINT).unwrap();
    let mut parameter = CK_ECDH1_DERIVE_PARAMS {
        kdf: CKD_NULL,
        ulSharedDataLen: 0,
        pSharedData: null_mut(),
        ulPublicDataLen: point.len() as CK_ULONG,
        pPublicData: point.as_ptr().cast_mut(),
    };
    let mut mechanism = with_parameter(CKM_ECDH1_DERIVE, &mut parameter);
    let rv = call!(
        m,
        C_DeriveKey,
        session,
        &mut mechanism,
        key,
        null_mut(),
        0,
        &mut 0
    );
    assert_eq!(rv, CKR_OK);
}
