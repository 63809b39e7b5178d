//! Calls of the module with PINs.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::ptr::null_mut;

use cryptoki_sys::*;

use super::module::{self, Module, call};

/// A session that may write.
pub(crate) const RW: CK_FLAGS = CKF_SERIAL_SESSION | CKF_RW_SESSION;
/// The user's PIN of the tests' tokens, and the SO's.
pub(crate) const USER: &[u8] = b"1234";
pub(crate) const SO: &[u8] = b"87654321";

pub(crate) fn open(
    m: &Module,
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
) -> Result<CK_SESSION_HANDLE, CK_RV> {
    let mut session = 0;
    match call!(
        m,
        C_OpenSession,
        slot,
        flags,
        null_mut(),
        None,
        &mut session
    ) {
        CKR_OK => Ok(session),
        rv => Err(rv),
    }
}

/// What is no PIN at all, as the tests write it.
pub(crate) const NULL: &[u8] = b"\0NULL";

/// Pointer and length of a PIN; an empty one is not NULL.
pub(crate) fn given(pin: &[u8]) -> (*mut u8, CK_ULONG) {
    match pin == NULL {
        true => (null_mut(), 0),
        false => (pin.as_ptr().cast_mut(), pin.len() as CK_ULONG),
    }
}

pub(crate) fn login(
    m: &Module,
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: &[u8],
) -> CK_RV {
    let (at, length) = given(pin);
    call!(m, C_Login, session, user, at, length)
}

pub(crate) fn init_token(m: &Module, slot: CK_SLOT_ID, pin: &[u8], label: &str) -> CK_RV {
    let mut label = format!("{label:32}").into_bytes();
    let (at, length) = given(pin);
    call!(m, C_InitToken, slot, at, length, label.as_mut_ptr())
}

pub(crate) fn token_info(m: &Module, slot: CK_SLOT_ID) -> CK_TOKEN_INFO {
    let mut info = CK_TOKEN_INFO::default();
    assert_eq!(call!(m, C_GetTokenInfo, slot, &mut info), CKR_OK);
    info
}

/// A pair on the token, by CKM_EC_KEY_PAIR_GEN.
pub(crate) fn generate(m: &Module, session: CK_SESSION_HANDLE) -> CK_RV {
    let curve: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    let mut public = module::raw(&[(CKA_EC_PARAMS, curve), (CKA_TOKEN, &[1])]);
    let mut private = module::raw(&[(CKA_TOKEN, &[1]), (CKA_SIGN, &[1]), (CKA_LABEL, b"made")]);
    let mut mechanism = module::bare(CKM_EC_KEY_PAIR_GEN);
    let (public, private) = (public.as_mut_ptr(), private.as_mut_ptr());
    let (mut a, mut b) = (0, 0);
    call!(
        m,
        C_GenerateKeyPair,
        session,
        &mut mechanism,
        public,
        2,
        private,
        3,
        &mut a,
        &mut b
    )
}

/// The SO sets the user's PIN, who makes a key and signs.
pub(crate) fn made_token_works(m: &Module, slot: CK_SLOT_ID, label: &str) {
    let info = token_info(m, slot);
    assert_eq!(info.label, format!("{label:32}").as_bytes());
    assert_eq!(
        info.flags,
        CKF_RNG | CKF_LOGIN_REQUIRED | CKF_TOKEN_INITIALIZED
    );
    let session = open(m, slot, RW).unwrap();
    assert_eq!(login(m, session, CKU_SO, SO), CKR_OK);
    let (at, length) = given(USER);
    assert_eq!(call!(m, C_InitPIN, session, at, length), CKR_OK);
    let flags = token_info(m, slot).flags;
    assert_eq!(flags & CKF_USER_PIN_INITIALIZED, CKF_USER_PIN_INITIALIZED);
    assert_eq!(call!(m, C_Logout, session), CKR_OK);
    assert_eq!(login(m, session, CKU_USER, USER), CKR_OK);
    assert_eq!(generate(m, session), CKR_OK);
    let key = m.one(session, CKO_PRIVATE_KEY, "made");
    assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
    m.sign(session, &[7; 32]).unwrap();
    assert_eq!(call!(m, C_CloseSession, session), CKR_OK);
}
