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

/// Pointers of a module that threads share, as a host does.
struct Shared<'m>(&'m Module);

// SAFETY: PKCS#11 functions may be called by any thread.
unsafe impl Sync for Shared<'_> {}

impl Shared<'_> {
    fn get(&self) -> &Module {
        self.0
    }
}

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
    assert!(m.find(session, &[]).is_empty());
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

/// Somebody's public key, for the time of the session.
fn create_peer(m: &Module, session: CK_SESSION_HANDLE) -> CK_OBJECT_HANDLE {
    let class = CKO_PUBLIC_KEY.to_ne_bytes();
    let kind = CKK_EC_EDWARDS.to_ne_bytes();
    let mut template = raw(&[
        (CKA_CLASS, &class),
        (CKA_KEY_TYPE, &kind),
        (CKA_EC_POINT, &[9; 32]),
        (CKA_LABEL, b"peer"),
    ]);
    let (count, mut made) = (template.len() as CK_ULONG, 0);
    let template = template.as_mut_ptr();
    let rv = call!(m, C_CreateObject, session, template, count, &mut made);
    assert_eq!(rv, CKR_OK);
    made
}

/// PKCS#11 3.0 §4.4: all sessions of a process see an object of one, until that one ends.
/// Fails where `end_session` keeps the objects.
#[test]
fn session_objects_are_seen_by_all_and_end_with_their_own() {
    let m = Module::new();
    let (one, two, watcher) = (m.session(), m.session(), m.session());
    let (first, second) = (create_peer(&m, one), create_peer(&m, two));
    let named: &[(_, &[u8])] = &[(CKA_LABEL, b"peer")];
    assert_eq!(m.find(watcher, named), [first, second]);
    assert_eq!(call!(m, C_CloseSession, one), CKR_OK);
    assert_eq!(m.find(watcher, named), [second]);
    assert_eq!(call!(m, C_DestroyObject, watcher, second), CKR_OK);
    assert!(m.find(two, named).is_empty());
}

/// Fails where `add` does not ask whether the session is still open: a few of the 200 secrets stay.
#[test]
fn no_secret_outlives_its_session() {
    let m = Module::new();
    let watcher = m.session();
    let key = m.one(watcher, CKO_PRIVATE_KEY, "p256");
    let point = m.attribute(watcher, key, CKA_EC_POINT).unwrap();
    let shared = Shared(&m);
    for turn in 0..200 {
        let session = m.session();
        std::thread::scope(|scope| {
            let derived = scope.spawn(|| derive(shared.get(), session, key, &point).map(|_| ()));
            std::thread::sleep(std::time::Duration::from_micros(turn));
            assert_eq!(call!(m, C_CloseSession, session), CKR_OK);
            let ends = [
                Ok(()),
                Err(CKR_SESSION_CLOSED),
                Err(CKR_SESSION_HANDLE_INVALID),
            ];
            assert!(ends.contains(&derived.join().unwrap()));
        });
    }
    let class = CKO_SECRET_KEY.to_ne_bytes();
    assert!(m.find(watcher, &[(CKA_CLASS, &class)]).is_empty());
}
