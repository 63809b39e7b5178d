//! Every `C_` function, each one expression, with the parameters that the OASIS headers give it.
//!
//! What devkey does not have answers CKR_FUNCTION_NOT_SUPPORTED; no pointer of a list is NULL.

// The names are the specification's.
#![allow(non_snake_case)]

use std::ffi::c_void;
use std::sync::Arc;

use cryptoki_sys::*;
use devkey::store::Role;

use crate::login;
use crate::module::{self, Module, current, with};
use crate::raw::{
    Answer, Interface, Mechanism, Ptr, Room, Ulong, attributes, entries, fill, put_list,
};
use crate::rv::{Result, Rv};
use crate::session::Cancelled;
use crate::slot::Slot;
use crate::template::Template;
use crate::{info, mech};

entries! {
    mend = module::mend;

    2.40:
    // General purpose, PKCS#11 3.0 §5.4.
    global C_Initialize(args: *mut c_void) = initialize(args.cast());
    global C_Finalize(reserved: *mut c_void) = null(reserved).and_then(|()| module::finalize());
    global C_GetInfo(out: *mut CK_INFO) = initialized(|_| out.write(info::module()));
    exported C_GetFunctionList(out: *mut *mut CK_FUNCTION_LIST) =
        out.write((&raw const LIST_2_40).cast_mut());

    // Slots and tokens, §5.5.
    global C_GetSlotList(_present: CK_BBOOL, out: *mut CK_SLOT_ID, count: *mut CK_ULONG) =
        initialized(|module| slot_list(module, out, count));
    global C_GetSlotInfo(slot: CK_SLOT_ID, out: *mut CK_SLOT_INFO) =
        at(slot, |_, slot| out.write(slot_info(slot)));
    global C_GetTokenInfo(slot: CK_SLOT_ID, out: *mut CK_TOKEN_INFO) =
        at(slot, |module, slot| out.write(token_info(module, slot)));
    global C_GetMechanismList(slot: CK_SLOT_ID, out: *mut CK_MECHANISM_TYPE, count: *mut CK_ULONG) =
        at(slot, |_, slot| fill(out, count, |room| Ok(room?.answer(&slot.capable(mech::list)))));
    global C_GetMechanismInfo(slot: CK_SLOT_ID, kind: CK_MECHANISM_TYPE, out: *mut CK_MECHANISM_INFO) =
        at(slot, |_, slot| out.write(mechanism_info(slot, kind)?));
    global C_InitToken(slot: CK_SLOT_ID, pin: *mut CK_UTF8CHAR, len: CK_ULONG, label: *mut CK_UTF8CHAR) =
        initialized(|module| login::init_token(module, slot, given(pin, len)?, label.slice(LABEL)?));
    session C_InitPIN(session: CK_SESSION_HANDLE, pin: *mut CK_UTF8CHAR, len: CK_ULONG) =
        initialized(|module| login::init_pin(module, session, given(pin, len)?));
    session C_SetPIN(session: CK_SESSION_HANDLE, old: *mut CK_UTF8CHAR, old_len: CK_ULONG,
                     new: *mut CK_UTF8CHAR, new_len: CK_ULONG) =
        initialized(|module| login::set_pin(module, session, given(old, old_len)?, given(new, new_len)?));

    // Sessions, §5.6.
    global C_OpenSession(slot: CK_SLOT_ID, flags: CK_FLAGS, _application: *mut c_void,
                         _notify: CK_NOTIFY, out: *mut CK_SESSION_HANDLE) =
        initialized(|module| open_session(module, slot, flags, out));
    session C_CloseSession(session: CK_SESSION_HANDLE) = initialized(|module| module.close(session));
    global C_CloseAllSessions(slot: CK_SLOT_ID) = initialized(|module| module.close_all(slot));
    session C_GetSessionInfo(session: CK_SESSION_HANDLE, out: *mut CK_SESSION_INFO) =
        about(session, |slot, writable| out.write(info::session(slot.id, writable, slot.has_pins(), slot.who())));
    session C_GetOperationState(session: CK_SESSION_HANDLE, _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        with(session, |_| Err(Rv::STATE_UNSAVEABLE));
    session C_SetOperationState(session: CK_SESSION_HANDLE, _state: *mut CK_BYTE, _len: CK_ULONG,
                                _encryption: CK_OBJECT_HANDLE, _authentication: CK_OBJECT_HANDLE) =
        unsupported(session);
    session C_Login(session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: *mut CK_UTF8CHAR, len: CK_ULONG) =
        initialized(|module| login::login(module, session, who(user)?, given(pin, len)?));
    session C_Logout(session: CK_SESSION_HANDLE) = about(session, |slot, _| slot.log_out());

    // Objects, §5.7.
    session C_CreateObject(session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG,
                           out: *mut CK_OBJECT_HANDLE) =
        made(out, || with(session, |s| s.create(&read(template, count)?)));
    session C_CopyObject(session: CK_SESSION_HANDLE, _object: CK_OBJECT_HANDLE,
                         _template: *mut CK_ATTRIBUTE, _count: CK_ULONG, _out: *mut CK_OBJECT_HANDLE) =
        unsupported(session);
    session C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE) =
        with(session, |s| s.destroy(object));
    session C_GetObjectSize(session: CK_SESSION_HANDLE, _object: CK_OBJECT_HANDLE, _out: *mut CK_ULONG) =
        unsupported(session);
    session C_GetAttributeValue(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE,
                                template: *mut CK_ATTRIBUTE, count: CK_ULONG) =
        with(session, |s| s.attributes(object, &attributes(template, count)?));
    session C_SetAttributeValue(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE,
                                template: *mut CK_ATTRIBUTE, count: CK_ULONG) =
        with(session, |s| s.set_attributes(object, &read(template, count)?));
    session C_FindObjectsInit(session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG) =
        with(session, |s| s.find_init(&read(template, count)?));
    session C_FindObjects(session: CK_SESSION_HANDLE, out: *mut CK_OBJECT_HANDLE, most: CK_ULONG,
                          count: *mut CK_ULONG) =
        put_list(out, most, count, |most| with(session, |s| s.find(most)));
    session C_FindObjectsFinal(session: CK_SESSION_HANDLE) = with(session, |s| s.find_final());

    // Encryption, §5.8: whoever has the public key can do without the module.
    session C_EncryptInit(session: CK_SESSION_HANDLE, _mechanism: *mut CK_MECHANISM, _key: CK_OBJECT_HANDLE) =
        unsupported(session);
    session C_Encrypt(session: CK_SESSION_HANDLE, _data: *mut CK_BYTE, _data_len: CK_ULONG,
                      _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        unsupported(session);
    session C_EncryptUpdate(session: CK_SESSION_HANDLE, _data: *mut CK_BYTE, _data_len: CK_ULONG,
                            _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        unsupported(session);
    session C_EncryptFinal(session: CK_SESSION_HANDLE, _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        unsupported(session);

    // Decryption, §5.9: RSA-OAEP has one part.
    session C_DecryptInit(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE) =
        with(session, |s| s.decrypt_init(maybe(mechanism)?, key));
    session C_Decrypt(session: CK_SESSION_HANDLE, data: *mut CK_BYTE, data_len: CK_ULONG,
                      out: *mut CK_BYTE, len: *mut CK_ULONG) =
        fill(out, len, |room| with(session, |s| s.decrypt(data.slice(data_len), room)));
    session C_DecryptUpdate(session: CK_SESSION_HANDLE, _data: *mut CK_BYTE, _data_len: CK_ULONG,
                            _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        unsupported(session);
    session C_DecryptFinal(session: CK_SESSION_HANDLE, _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        unsupported(session);

    // Digests, §5.12: every client has its own.
    session C_DigestInit(session: CK_SESSION_HANDLE, _mechanism: *mut CK_MECHANISM) = unsupported(session);
    session C_Digest(session: CK_SESSION_HANDLE, _data: *mut CK_BYTE, _data_len: CK_ULONG,
                     _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        unsupported(session);
    session C_DigestUpdate(session: CK_SESSION_HANDLE, _data: *mut CK_BYTE, _len: CK_ULONG) =
        unsupported(session);
    session C_DigestKey(session: CK_SESSION_HANDLE, _key: CK_OBJECT_HANDLE) = unsupported(session);
    session C_DigestFinal(session: CK_SESSION_HANDLE, _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        unsupported(session);

    // Signatures, §5.13.
    session C_SignInit(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE) =
        with(session, |s| s.sign_init(maybe(mechanism)?, key));
    session C_Sign(session: CK_SESSION_HANDLE, data: *mut CK_BYTE, data_len: CK_ULONG,
                   out: *mut CK_BYTE, len: *mut CK_ULONG) =
        fill(out, len, |room| with(session, |s| s.sign(data.slice(data_len), room)));
    session C_SignUpdate(session: CK_SESSION_HANDLE, data: *mut CK_BYTE, len: CK_ULONG) =
        with(session, |s| s.sign_update(data.slice(len)));
    session C_SignFinal(session: CK_SESSION_HANDLE, out: *mut CK_BYTE, len: *mut CK_ULONG) =
        fill(out, len, |room| with(session, |s| s.sign_final(room)));
    session C_SignRecoverInit(session: CK_SESSION_HANDLE, _mechanism: *mut CK_MECHANISM, _key: CK_OBJECT_HANDLE) =
        unsupported(session);
    session C_SignRecover(session: CK_SESSION_HANDLE, _data: *mut CK_BYTE, _data_len: CK_ULONG,
                          _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        unsupported(session);

    // Verification, §5.15.
    session C_VerifyInit(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE) =
        with(session, |s| s.verify_init(maybe(mechanism)?, key));
    session C_Verify(session: CK_SESSION_HANDLE, data: *mut CK_BYTE, data_len: CK_ULONG,
                     signature: *mut CK_BYTE, len: CK_ULONG) =
        with(session, |s| s.verify(data.slice(data_len), signature.slice(len)));
    session C_VerifyUpdate(session: CK_SESSION_HANDLE, data: *mut CK_BYTE, len: CK_ULONG) =
        with(session, |s| s.verify_update(data.slice(len)));
    session C_VerifyFinal(session: CK_SESSION_HANDLE, signature: *mut CK_BYTE, len: CK_ULONG) =
        with(session, |s| s.verify_final(signature.slice(len)));
    session C_VerifyRecoverInit(session: CK_SESSION_HANDLE, _mechanism: *mut CK_MECHANISM, _key: CK_OBJECT_HANDLE) =
        unsupported(session);
    session C_VerifyRecover(session: CK_SESSION_HANDLE, _signature: *mut CK_BYTE, _signature_len: CK_ULONG,
                            _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        unsupported(session);

    // Two functions in one, §5.17.
    session C_DigestEncryptUpdate(session: CK_SESSION_HANDLE, _data: *mut CK_BYTE, _data_len: CK_ULONG,
                                  _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        unsupported(session);
    session C_DecryptDigestUpdate(session: CK_SESSION_HANDLE, _data: *mut CK_BYTE, _data_len: CK_ULONG,
                                  _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        unsupported(session);
    session C_SignEncryptUpdate(session: CK_SESSION_HANDLE, _data: *mut CK_BYTE, _data_len: CK_ULONG,
                                _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        unsupported(session);
    session C_DecryptVerifyUpdate(session: CK_SESSION_HANDLE, _data: *mut CK_BYTE, _data_len: CK_ULONG,
                                  _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        unsupported(session);

    // Keys, §5.18.
    session C_GenerateKey(session: CK_SESSION_HANDLE, _mechanism: *mut CK_MECHANISM,
                          _template: *mut CK_ATTRIBUTE, _count: CK_ULONG, _out: *mut CK_OBJECT_HANDLE) =
        unsupported(session);
    session C_GenerateKeyPair(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM,
                              public: *mut CK_ATTRIBUTE, public_count: CK_ULONG,
                              private: *mut CK_ATTRIBUTE, private_count: CK_ULONG,
                              public_out: *mut CK_OBJECT_HANDLE, private_out: *mut CK_OBJECT_HANDLE) =
        pair_made(public_out, private_out, || with(session, |s| s.generate(
            &Mechanism::read(mechanism)?,
            &read(public, public_count)?,
            &read(private, private_count)?,
        )));
    session C_WrapKey(session: CK_SESSION_HANDLE, _mechanism: *mut CK_MECHANISM, _wrapping: CK_OBJECT_HANDLE,
                      _key: CK_OBJECT_HANDLE, _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        unsupported(session);
    session C_UnwrapKey(session: CK_SESSION_HANDLE, _mechanism: *mut CK_MECHANISM, _unwrapping: CK_OBJECT_HANDLE,
                        _wrapped: *mut CK_BYTE, _len: CK_ULONG, _template: *mut CK_ATTRIBUTE,
                        _count: CK_ULONG, _out: *mut CK_OBJECT_HANDLE) =
        unsupported(session);
    session C_DeriveKey(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, base: CK_OBJECT_HANDLE,
                        template: *mut CK_ATTRIBUTE, count: CK_ULONG, out: *mut CK_OBJECT_HANDLE) =
        made(out, || with(session, |s| s.derive(&Mechanism::read(mechanism)?, base, &read(template, count)?)));

    // Random numbers, §5.19.
    session C_SeedRandom(session: CK_SESSION_HANDLE, _seed: *mut CK_BYTE, _len: CK_ULONG) =
        about(session, |_, _| Err(Rv::RANDOM_SEED_NOT_SUPPORTED));
    session C_GenerateRandom(session: CK_SESSION_HANDLE, out: *mut CK_BYTE, len: CK_ULONG) =
        about(session, |_, _| out.fill_by(len, random));

    // Parallel functions, §5.20, of which there are none, and slot events: clients that are told
    // so stop asking.
    global C_GetFunctionStatus(_session: CK_SESSION_HANDLE) = initialized(|_| Err(Rv::FUNCTION_NOT_PARALLEL));
    global C_CancelFunction(_session: CK_SESSION_HANDLE) = initialized(|_| Err(Rv::FUNCTION_NOT_PARALLEL));
    global C_WaitForSlotEvent(_flags: CK_FLAGS, _slot: *mut CK_SLOT_ID, _reserved: *mut c_void) =
        initialized(|_| Err(Rv::FUNCTION_NOT_SUPPORTED));

    3.0:
    exported C_GetInterfaceList(out: *mut CK_INTERFACE, count: *mut CK_ULONG) =
        fill(out.cast(), count, |room| Ok(room?.answer(&INTERFACES)));
    exported C_GetInterface(name: *mut CK_UTF8CHAR, version: *mut CK_VERSION,
                            out: *mut *mut CK_INTERFACE, flags: CK_FLAGS) =
        out.write((&raw const interface(name, version, flags)?.0).cast_mut());
    session C_LoginUser(session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: *mut CK_UTF8CHAR, len: CK_ULONG,
                        name: *mut CK_UTF8CHAR, name_len: CK_ULONG) =
        initialized(|module| {
            nameless(name, name_len)?;
            login::login(module, session, who(user)?, given(pin, len)?)
        });
    session C_SessionCancel(session: CK_SESSION_HANDLE, flags: CK_FLAGS) =
        with(session, |s| { s.cancel(cancelled(flags)); Ok(()) });

    // Messages, §5.10, §5.11, §5.14 and §5.16: for AEAD ciphers, which there are none of.
    session C_MessageEncryptInit(session: CK_SESSION_HANDLE, _mechanism: *mut CK_MECHANISM, _key: CK_OBJECT_HANDLE) =
        unsupported(session);
    session C_EncryptMessage(session: CK_SESSION_HANDLE, _parameter: *mut c_void, _parameter_len: CK_ULONG,
                             _associated: *mut CK_BYTE, _associated_len: CK_ULONG, _data: *mut CK_BYTE,
                             _data_len: CK_ULONG, _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        unsupported(session);
    session C_EncryptMessageBegin(session: CK_SESSION_HANDLE, _parameter: *mut c_void, _parameter_len: CK_ULONG,
                                  _associated: *mut CK_BYTE, _associated_len: CK_ULONG) =
        unsupported(session);
    session C_EncryptMessageNext(session: CK_SESSION_HANDLE, _parameter: *mut c_void, _parameter_len: CK_ULONG,
                                 _data: *mut CK_BYTE, _data_len: CK_ULONG, _out: *mut CK_BYTE,
                                 _len: *mut CK_ULONG, _flags: CK_FLAGS) =
        unsupported(session);
    session C_MessageEncryptFinal(session: CK_SESSION_HANDLE) = unsupported(session);
    session C_MessageDecryptInit(session: CK_SESSION_HANDLE, _mechanism: *mut CK_MECHANISM, _key: CK_OBJECT_HANDLE) =
        unsupported(session);
    session C_DecryptMessage(session: CK_SESSION_HANDLE, _parameter: *mut c_void, _parameter_len: CK_ULONG,
                             _associated: *mut CK_BYTE, _associated_len: CK_ULONG, _data: *mut CK_BYTE,
                             _data_len: CK_ULONG, _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        unsupported(session);
    session C_DecryptMessageBegin(session: CK_SESSION_HANDLE, _parameter: *mut c_void, _parameter_len: CK_ULONG,
                                  _associated: *mut CK_BYTE, _associated_len: CK_ULONG) =
        unsupported(session);
    session C_DecryptMessageNext(session: CK_SESSION_HANDLE, _parameter: *mut c_void, _parameter_len: CK_ULONG,
                                 _data: *mut CK_BYTE, _data_len: CK_ULONG, _out: *mut CK_BYTE,
                                 _len: *mut CK_ULONG, _flags: CK_FLAGS) =
        unsupported(session);
    session C_MessageDecryptFinal(session: CK_SESSION_HANDLE) = unsupported(session);
    session C_MessageSignInit(session: CK_SESSION_HANDLE, _mechanism: *mut CK_MECHANISM, _key: CK_OBJECT_HANDLE) =
        unsupported(session);
    session C_SignMessage(session: CK_SESSION_HANDLE, _parameter: *mut c_void, _parameter_len: CK_ULONG,
                          _data: *mut CK_BYTE, _data_len: CK_ULONG, _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        unsupported(session);
    session C_SignMessageBegin(session: CK_SESSION_HANDLE, _parameter: *mut c_void, _parameter_len: CK_ULONG) =
        unsupported(session);
    session C_SignMessageNext(session: CK_SESSION_HANDLE, _parameter: *mut c_void, _parameter_len: CK_ULONG,
                              _data: *mut CK_BYTE, _data_len: CK_ULONG, _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        unsupported(session);
    session C_MessageSignFinal(session: CK_SESSION_HANDLE) = unsupported(session);
    session C_MessageVerifyInit(session: CK_SESSION_HANDLE, _mechanism: *mut CK_MECHANISM, _key: CK_OBJECT_HANDLE) =
        unsupported(session);
    session C_VerifyMessage(session: CK_SESSION_HANDLE, _parameter: *mut c_void, _parameter_len: CK_ULONG,
                            _data: *mut CK_BYTE, _data_len: CK_ULONG, _signature: *mut CK_BYTE, _len: CK_ULONG) =
        unsupported(session);
    session C_VerifyMessageBegin(session: CK_SESSION_HANDLE, _parameter: *mut c_void, _parameter_len: CK_ULONG) =
        unsupported(session);
    session C_VerifyMessageNext(session: CK_SESSION_HANDLE, _parameter: *mut c_void, _parameter_len: CK_ULONG,
                                _data: *mut CK_BYTE, _data_len: CK_ULONG, _signature: *mut CK_BYTE, _len: CK_ULONG) =
        unsupported(session);
    session C_MessageVerifyFinal(session: CK_SESSION_HANDLE) = unsupported(session);

    3.2:
    // Encapsulation, signatures given before the data, FIPS states, asynchronous calls and
    // authenticated wrapping: there are none. ML-DSA needs no function that was not there before.
    session C_EncapsulateKey(session: CK_SESSION_HANDLE, _mechanism: *mut CK_MECHANISM, _key: CK_OBJECT_HANDLE,
                             _template: *mut CK_ATTRIBUTE, _count: CK_ULONG, _out: *mut CK_BYTE,
                             _len: *mut CK_ULONG, _made: *mut CK_OBJECT_HANDLE) =
        unsupported(session);
    session C_DecapsulateKey(session: CK_SESSION_HANDLE, _mechanism: *mut CK_MECHANISM, _key: CK_OBJECT_HANDLE,
                             _template: *mut CK_ATTRIBUTE, _count: CK_ULONG, _data: *mut CK_BYTE,
                             _len: CK_ULONG, _made: *mut CK_OBJECT_HANDLE) =
        unsupported(session);
    session C_VerifySignatureInit(session: CK_SESSION_HANDLE, _mechanism: *mut CK_MECHANISM,
                                  _key: CK_OBJECT_HANDLE, _signature: *mut CK_BYTE, _len: CK_ULONG) =
        unsupported(session);
    session C_VerifySignature(session: CK_SESSION_HANDLE, _data: *mut CK_BYTE, _len: CK_ULONG) =
        unsupported(session);
    session C_VerifySignatureUpdate(session: CK_SESSION_HANDLE, _data: *mut CK_BYTE, _len: CK_ULONG) =
        unsupported(session);
    session C_VerifySignatureFinal(session: CK_SESSION_HANDLE) = unsupported(session);
    session C_GetSessionValidationFlags(session: CK_SESSION_HANDLE, _kind: CK_SESSION_VALIDATION_FLAGS_TYPE,
                                        _out: *mut CK_FLAGS) =
        unsupported(session);
    session C_AsyncComplete(session: CK_SESSION_HANDLE, _name: *mut CK_UTF8CHAR, _out: *mut CK_ASYNC_DATA) =
        unsupported(session);
    session C_AsyncGetID(session: CK_SESSION_HANDLE, _name: *mut CK_UTF8CHAR, _out: *mut CK_ULONG) =
        unsupported(session);
    session C_AsyncJoin(session: CK_SESSION_HANDLE, _name: *mut CK_UTF8CHAR, _id: CK_ULONG,
                        _data: *mut CK_BYTE, _len: CK_ULONG) =
        unsupported(session);
    session C_WrapKeyAuthenticated(session: CK_SESSION_HANDLE, _mechanism: *mut CK_MECHANISM,
                                   _wrapping: CK_OBJECT_HANDLE, _key: CK_OBJECT_HANDLE,
                                   _associated: *mut CK_BYTE, _associated_len: CK_ULONG,
                                   _out: *mut CK_BYTE, _len: *mut CK_ULONG) =
        unsupported(session);
    session C_UnwrapKeyAuthenticated(session: CK_SESSION_HANDLE, _mechanism: *mut CK_MECHANISM,
                                     _unwrapping: CK_OBJECT_HANDLE, _wrapped: *mut CK_BYTE, _len: CK_ULONG,
                                     _template: *mut CK_ATTRIBUTE, _count: CK_ULONG,
                                     _associated: *mut CK_BYTE, _associated_len: CK_ULONG,
                                     _out: *mut CK_OBJECT_HANDLE) =
        unsupported(session);
}

/// Length of a token's label.
const LABEL: Ulong = 32;
const NAME: &[u8] = b"PKCS 11\0";

/// The interfaces, the default first.
static INTERFACES: [Interface; 3] = [
    pkcs11((&raw const LIST_3_0).cast()),
    pkcs11((&raw const LIST_3_2).cast()),
    pkcs11((&raw const LIST_2_40).cast()),
];
/// Their versions.
const VERSIONS: [(u8, u8); 3] = [(3, 0), (3, 2), (2, 40)];

const fn pkcs11(list: *const c_void) -> Interface {
    Interface(CK_INTERFACE {
        pInterfaceName: NAME.as_ptr().cast_mut(),
        pFunctionList: list.cast_mut(),
        flags: CKF_INTERFACE_FORK_SAFE,
    })
}

/// C_GetInterface: the first that is what the caller wants of name, version and flags.
fn interface(
    name: Ptr<'_, CK_UTF8CHAR>,
    version: Ptr<'_, CK_VERSION>,
    flags: CK_FLAGS,
) -> Result<&'static Interface> {
    if !name.is_null() && name.text(NAME.len())? != b"PKCS 11" {
        return Err(Rv::ARGUMENTS_BAD);
    }
    let wanted = version.optional()?.map(|v| (v.major, v.minor));
    let mut known = INTERFACES.iter().zip(VERSIONS);
    let found = known.find(|(interface, version)| {
        wanted.is_none_or(|wanted| wanted == *version) && interface.0.flags & flags == flags
    });
    found
        .map(|(interface, _)| interface)
        .ok_or(Rv::ARGUMENTS_BAD)
}

/// C_Initialize. The host's locks are not used; the system's are all that is needed, also where
/// the host says that it has one thread.
fn initialize(args: Ptr<'_, CK_C_INITIALIZE_ARGS>) -> Result<()> {
    if let Some(args) = args.optional()? {
        let callbacks = [
            args.CreateMutex.is_some(),
            args.DestroyMutex.is_some(),
            args.LockMutex.is_some(),
            args.UnlockMutex.is_some(),
        ];
        let all = callbacks == [true; 4];
        if !args.pReserved.is_null() || (!all && callbacks != [false; 4]) {
            return Err(Rv::ARGUMENTS_BAD);
        }
        if all && args.flags & CKF_OS_LOCKING_OK == 0 {
            return Err(Rv::CANT_LOCK);
        }
    }
    module::initialize()
}

fn null(reserved: Ptr<'_, c_void>) -> Result<()> {
    match reserved.is_null() {
        true => Ok(()),
        false => Err(Rv::ARGUMENTS_BAD),
    }
}

fn initialized(then: impl FnOnce(&Module) -> Result<()>) -> Result<()> {
    then(&*current()?)
}

fn at(slot: Ulong, then: impl FnOnce(&Module, &Slot) -> Result<()>) -> Result<()> {
    initialized(|module| then(module, &*module.slot(slot)?))
}

/// Something that does not wait for the operation that the session may be busy with.
fn about(session: Ulong, then: impl FnOnce(&Arc<Slot>, bool) -> Result<()>) -> Result<()> {
    let (slot, writable) = current()?.about(session)?;
    then(&slot, writable)
}

fn unsupported(session: Ulong) -> Result<()> {
    about(session, |_, _| Err(Rv::FUNCTION_NOT_SUPPORTED))
}

/// A list that is only counted is looked up anew (§5.5.1).
fn slot_list(module: &Module, out: Ptr<'_, Ulong>, count: Ptr<'_, Ulong>) -> Result<()> {
    if out.is_null() {
        module.look_for_tokens();
    }
    fill(out, count, |room: Result<Room>| -> Result<Answer<Ulong>> {
        Ok(room?.answer(&module.slot_ids()))
    })
}

fn slot_info(slot: &Slot) -> CK_SLOT_INFO {
    slot.record(|record| info::slot(record, &slot.found.name))
}

fn token_info(module: &Module, slot: &Slot) -> CK_TOKEN_INFO {
    let now = info::Now {
        sessions: module.count(slot.id),
        initialised: !slot.is_blank(),
        user: slot.pin(Role::User),
        so: slot.pin(Role::So),
    };
    slot.record(|record| info::token(record, now))
}

fn mechanism_info(slot: &Slot, kind: Ulong) -> Result<CK_MECHANISM_INFO> {
    slot.record(|record| mech::info(kind, &record.capabilities, info::is_hardware(record)))
}

fn open_session(module: &Module, slot: Ulong, flags: CK_FLAGS, out: Ptr<'_, Ulong>) -> Result<()> {
    if flags & CKF_SERIAL_SESSION == 0 {
        return Err(Rv::SESSION_PARALLEL_NOT_SUPPORTED);
    }
    made(out, || module.open(slot, flags & CKF_RW_SESSION != 0))
}

/// Those who log in.
fn who(user: CK_USER_TYPE) -> Result<Role> {
    match user {
        CKU_USER => Ok(Role::User),
        CKU_SO => Ok(Role::So),
        // No key asks for it (CKA_ALWAYS_AUTHENTICATE), so no operation waits for it.
        CKU_CONTEXT_SPECIFIC => Err(Rv::OPERATION_NOT_INITIALIZED),
        _ => Err(Rv::USER_TYPE_INVALID),
    }
}

/// A PIN, where there is one: NULL is none, and an empty one is one that is too short.
fn given(pin: Ptr<'_, u8>, len: Ulong) -> Result<Option<&[u8]>> {
    let bytes = pin.slice(len)?;
    Ok((!pin.is_null()).then_some(bytes))
}

/// There is one user, who has no name.
fn nameless(name: Ptr<'_, u8>, len: Ulong) -> Result<()> {
    match name.slice(len)?.is_empty() {
        true => Ok(()),
        false => Err(Rv::USER_TYPE_INVALID),
    }
}

fn cancelled(flags: CK_FLAGS) -> Cancelled {
    Cancelled {
        search: flags & CKF_FIND_OBJECTS != 0,
        sign: flags & CKF_SIGN != 0,
        verify: flags & CKF_VERIFY != 0,
        decrypt: flags & CKF_DECRYPT != 0,
    }
}

/// Makes something and writes its handle, after making sure that there is a place for it.
fn made(out: Ptr<'_, Ulong>, make: impl FnOnce() -> Result<Ulong>) -> Result<()> {
    match out.is_null() {
        true => Err(Rv::ARGUMENTS_BAD),
        false => out.write(make()?),
    }
}

fn pair_made(
    public: Ptr<'_, Ulong>,
    private: Ptr<'_, Ulong>,
    make: impl FnOnce() -> Result<(Ulong, Ulong)>,
) -> Result<()> {
    made(public, || {
        let mut first = 0;
        made(private, || {
            let (public, private) = make()?;
            first = public;
            Ok(private)
        })?;
        Ok(first)
    })
}

fn read<'c>(template: Ptr<'c, CK_ATTRIBUTE>, count: Ulong) -> Result<Template<'c>> {
    Template::read(&attributes(template, count)?)
}

/// The mechanism, where there is one: without, an operation is cancelled.
fn maybe(mechanism: Ptr<'_, CK_MECHANISM>) -> Result<Option<Mechanism<'_>>> {
    let given = (!mechanism.is_null()).then(|| Mechanism::read(mechanism));
    given.transpose()
}

fn random(buffer: &mut [u8]) -> Result<()> {
    let _inside = devkey::fork::enter();
    aws_lc_rs::rand::fill(buffer).map_err(|_| Rv::FUNCTION_FAILED)
}
