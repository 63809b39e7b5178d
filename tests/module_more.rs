//! What the module does where several sessions, or other processes, meet in one token.
//! Each comment says what was changed in the module to see the test fail.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "what cannot go on has failed"
)]

#[path = "common/module.rs"]
mod module;

use std::fs;
use std::ptr::null_mut;

use cryptoki_sys::*;
use module::{Module, call, raw, with_parameter};

const TRUE: &[u8] = &[CK_TRUE];

/// Derives a secret of the key p256 and a point.
fn derive(
    m: &Module,
    session: CK_SESSION_HANDLE,
    key: CK_OBJECT_HANDLE,
    point: &[u8],
) -> Result<CK_OBJECT_HANDLE, CK_RV> {
    let mut parameter = CK_ECDH1_DERIVE_PARAMS {
        kdf: CKD_NULL,
        ulSharedDataLen: 0,
        pSharedData: null_mut(),
        ulPublicDataLen: point.len() as CK_ULONG,
        pPublicData: point.as_ptr().cast_mut(),
    };
    let mut mechanism = with_parameter(CKM_ECDH1_DERIVE, &mut parameter);
    let (mut secret, none) = (0, null_mut());
    let rv = call!(
        m,
        C_DeriveKey,
        session,
        &mut mechanism,
        key,
        none,
        0,
        &mut secret
    );
    if rv == CKR_OK { Ok(secret) } else { Err(rv) }
}

fn oaep() -> CK_RSA_PKCS_OAEP_PARAMS {
    CK_RSA_PKCS_OAEP_PARAMS {
        hashAlg: CKM_SHA256,
        mgf: CKG_MGF1_SHA256,
        source: CKZ_DATA_SPECIFIED,
        pSourceData: null_mut(),
        ulSourceDataLen: 0,
    }
}

fn decrypt(m: &Module, session: CK_SESSION_HANDLE) -> CK_RV {
    let (mut from, mut plain, mut length) = ([7; 256], [0; 256], 256);
    let (from, to) = (from.as_mut_ptr(), plain.as_mut_ptr());
    call!(m, C_Decrypt, session, from, 256, to, &mut length)
}

fn relabel(m: &Module, session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE) -> CK_RV {
    let mut label = raw(&[(CKA_LABEL, b"other")]);
    call!(
        m,
        C_SetAttributeValue,
        session,
        object,
        label.as_mut_ptr(),
        1
    )
}

/// Fails where one of `sign`, `agree`, `decrypt` in op.rs and session.rs, or one of `rename` and
/// `delete`, maps its error by `Rv::from`; each was tried.
#[test]
fn a_key_that_another_process_deleted_is_no_key() {
    let m = Module::new();
    let session = m.session();
    let ec = m.one(session, CKO_PRIVATE_KEY, "p256");
    let rsa = m.one(session, CKO_PRIVATE_KEY, "rsa");
    let point = m.attribute(session, ec, CKA_EC_POINT).unwrap();
    assert_eq!(m.sign_init(session, CKM_ECDSA, ec), CKR_OK);
    let mut oaep = oaep();
    let mut mechanism = with_parameter(CKM_RSA_PKCS_OAEP, &mut oaep);
    let begun = call!(m, C_DecryptInit, session, &mut mechanism, rsa);
    assert_eq!(begun, CKR_OK);
    for file in fs::read_dir(m.token_dir()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "key") {
            fs::remove_file(path).unwrap();
        }
    }
    assert_eq!(m.sign(session, &[7; 32]), Err(CKR_KEY_HANDLE_INVALID));
    assert_eq!(decrypt(&m, session), CKR_KEY_HANDLE_INVALID);
    let derived = derive(&m, session, ec, &point);
    assert_eq!(derived, Err(CKR_KEY_HANDLE_INVALID));
    assert_eq!(relabel(&m, session, ec), CKR_OBJECT_HANDLE_INVALID);
    let gone = call!(m, C_DestroyObject, session, ec);
    assert_eq!(gone, CKR_OBJECT_HANDLE_INVALID);
    assert_eq!(m.find(session, &[]), []);
}

/// Fails where `Rv::from` makes CKR_OBJECT_HANDLE_INVALID of what is not found.
#[test]
fn a_search_in_a_token_that_is_gone_is_a_device_error() {
    let m = Module::new();
    let session = m.session();
    fs::remove_dir_all(m.token_dir()).unwrap();
    let begun = call!(m, C_FindObjectsInit, session, null_mut(), 0);
    assert_eq!(begun, CKR_DEVICE_ERROR);
}
