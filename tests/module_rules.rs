//! The rules that real clients set for a PKCS#11 module, R1 to R26, through the built module.
//! Each comment says what was changed in the module to see the test fail.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "what cannot go on has failed"
)]

#[path = "common/module.rs"]
mod module;

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::ptr::null_mut;

use cryptoki_sys::*;
use devkey::key::{Hash, KeyKind, PublicKey, Scheme};
use module::{
    Module, bare, bound_by_modes, call, in_child, interface, interface_raw, raw, symbol,
    with_parameter,
};

const RW: CK_FLAGS = CKF_SERIAL_SESSION | CKF_RW_SESSION;
const TRUE: &[u8] = &[CK_TRUE];
const FALSE: &[u8] = &[CK_FALSE];

fn spki(m: &Module, session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> PublicKey {
    PublicKey::from_spki(&m.attribute(session, key, CKA_PUBLIC_KEY_INFO).unwrap()).unwrap()
}

fn generate(
    m: &Module,
    session: CK_SESSION_HANDLE,
    private: &[(CK_ATTRIBUTE_TYPE, &[u8])],
) -> (CK_RV, CK_OBJECT_HANDLE, CK_OBJECT_HANDLE) {
    let curve: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    let mut public = raw(&[
        (CKA_EC_PARAMS, curve),
        (CKA_TOKEN, TRUE),
        (CKA_VERIFY, TRUE),
    ]);
    let mut private = raw(private);
    let (mut a, mut b) = (0, 0);
    let rv = call!(
        m,
        C_GenerateKeyPair,
        session,
        &mut bare(CKM_EC_KEY_PAIR_GEN),
        public.as_mut_ptr(),
        public.len() as CK_ULONG,
        private.as_mut_ptr(),
        private.len() as CK_ULONG,
        &mut a,
        &mut b
    );
    (rv, a, b)
}

/// A self-signed certificate for the key p256's public half would need openssl; any will do.
fn certificate(common_name: &str) -> Vec<u8> {
    certificate_of(&format!("/CN={common_name}"))
}

fn certificate_of(subject: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let der = dir.path().join("c.der");
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args(["-keyout", "/dev/null", "-outform", "DER", "-subj", subject])
        .arg("-out")
        .arg(&der)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    fs::read(der).unwrap()
}

fn create_certificate(
    m: &Module,
    session: CK_SESSION_HANDLE,
    der: &[u8],
) -> Result<CK_OBJECT_HANDLE, CK_RV> {
    let class = CKO_CERTIFICATE.to_ne_bytes();
    let kind = CKC_X_509.to_ne_bytes();
    // As pkcs11-tool gives it.
    let mut template = raw(&[
        (CKA_CLASS, &class),
        (CKA_CERTIFICATE_TYPE, &kind),
        (CKA_VALUE, der),
        (CKA_TOKEN, TRUE),
        (CKA_PRIVATE, FALSE),
    ]);
    let mut made = 0;
    let rv = call!(
        m,
        C_CreateObject,
        session,
        template.as_mut_ptr(),
        template.len() as CK_ULONG,
        &mut made
    );
    if rv == CKR_OK { Ok(made) } else { Err(rv) }
}

/// A certificate for somebody's public key, SubjectPublicKeyInfo, by a CA of its own; DER.
fn certificate_for(spki: &[u8], subject: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("spki"), spki).unwrap();
    let script = "openssl pkey -pubin -inform DER -in spki -out pub.pem
        openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ca.pem
        openssl x509 -new -force_pubkey pub.pem -key ca.pem -subj $0 -outform DER -out c.der";
    let made = Command::new("sh")
        .args(["-ec", script, subject])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    fs::read(dir.path().join("c.der")).unwrap()
}

/// Fails where C_GetFunctionList writes nothing, or `about` is not asked for in `unsupported`.
#[test]
fn r01_the_function_list_is_whole_and_callable_before_initialisation() {
    let m = Module::without_tokens();
    let mut list: *mut CK_FUNCTION_LIST = null_mut();
    let get = symbol::<CK_C_GetFunctionList>(b"C_GetFunctionList").unwrap();
    // SAFETY: the test's own pointer.
    assert_eq!(unsafe { get(&mut list) }, CKR_OK);
    // SAFETY: the same.
    assert_eq!(unsafe { get(null_mut()) }, CKR_ARGUMENTS_BAD);
    let mut again = null_mut();
    // SAFETY: the same.
    assert_eq!((unsafe { get(&mut again) }, again), (CKR_OK, list));
    // SAFETY: a version and 68 pointers, by the OASIS headers.
    let words = unsafe { std::slice::from_raw_parts(list.cast::<usize>(), 69) };
    assert_eq!(words[0] & 0xffff, 2 | 40 << 8);
    assert!(words[1..].iter().all(|pointer| *pointer != 0));
    let mut count = 0;
    assert_eq!(
        call!(m, C_GetSlotList, 1, null_mut(), &mut count),
        CKR_CRYPTOKI_NOT_INITIALIZED
    );
    assert_eq!(
        call!(m, C_DigestInit, 1, null_mut()),
        CKR_CRYPTOKI_NOT_INITIALIZED
    );
}

/// Fails where C_GetInfo is `exported` as well, or without "nodelete" in build.rs.
#[test]
fn r02_three_symbols_and_no_more() {
    let output = |program: &str, args: &[&str]| {
        let output = Command::new(program)
            .args(args)
            .arg(module::path())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let symbols = output("nm", &["-D", "--defined-only"]);
    let names: Vec<&str> = symbols
        .lines()
        .filter_map(|line| line.split(' ').nth(2))
        .collect();
    assert_eq!(
        names,
        ["C_GetFunctionList", "C_GetInterface", "C_GetInterfaceList"]
    );
    // R7: nothing is asked of the host but its C library and the unwinder.
    let asked = output("nm", &["-D", "--undefined-only", "--with-symbol-versions"]);
    for line in asked.lines().filter(|line| !line.trim().starts_with('w')) {
        assert!(line.contains("@GLIBC_") || line.contains("@GCC_"), "{line}");
    }
    let dynamic = output("readelf", &["-dlW"]);
    for wanted in ["NODELETE", "NOW", "GNU_RELRO"] {
        assert!(dynamic.contains(wanted), "{wanted}");
    }
    for unwanted in ["tss2", "libcrypto", "libssl"] {
        assert!(!dynamic.contains(unwanted), "{unwanted}");
    }
}

/// Fails where `wanted.is_none_or(…)` in `interface` is true for versions that it does not know,
/// without its comparison of the flags, and where INTERFACES has another order.
#[test]
fn r03_interfaces_by_name_version_and_flags() {
    let _m = Module::without_tokens();
    let name = b"PKCS 11\0";
    let version = |found: Result<CK_INTERFACE, CK_RV>| {
        // SAFETY: every function list begins with its version.
        found
            .map(|i| unsafe { *i.pFunctionList.cast::<CK_VERSION>() })
            .map(|v| (v.major, v.minor))
    };
    assert_eq!(
        version(interface_raw(name.as_ptr(), null_mut(), 0)),
        Ok((3, 0))
    );
    assert_eq!(
        version(interface_raw(module::NONE, null_mut(), 0)),
        Ok((3, 0))
    );
    assert_eq!(
        version(interface_raw(
            name.as_ptr(),
            null_mut(),
            CKF_INTERFACE_FORK_SAFE
        )),
        Ok((3, 0))
    );
    assert!(interface(name, (2, 40)).is_ok());
    assert!(interface(name, (3, 2)).is_ok());
    assert_eq!(interface(name, (3, 1)), Err(CKR_ARGUMENTS_BAD));
    assert_eq!(
        interface(b"Vendor NSS FIPS Interface\0", (3, 0)),
        Err(CKR_ARGUMENTS_BAD)
    );
    assert_eq!(
        version(interface_raw(name.as_ptr(), null_mut(), 2)),
        Err(CKR_ARGUMENTS_BAD)
    );
    // Whoever does not name the interface is held to the version all the same.
    let mut newer = CK_VERSION { major: 3, minor: 3 };
    assert_eq!(
        version(interface_raw(module::NONE, &mut newer, 0)),
        Err(CKR_ARGUMENTS_BAD)
    );
    let list = symbol::<CK_C_GetInterfaceList>(b"C_GetInterfaceList").unwrap();
    let mut count = 0;
    // SAFETY: the test's own.
    assert_eq!(unsafe { list(null_mut(), &mut count) }, CKR_OK);
    assert_eq!(count, 3);
    let mut all = [CK_INTERFACE {
        pInterfaceName: null_mut(),
        pFunctionList: null_mut(),
        flags: 0,
    }; 3];
    // SAFETY: the test's own.
    assert_eq!(unsafe { list(all.as_mut_ptr(), &mut count) }, CKR_OK);
    for (found, expected) in all.iter().zip([(3, 0), (3, 2), (2, 40)]) {
        // SAFETY: a string of the module's.
        let named = unsafe { CStr::from_ptr(found.pInterfaceName.cast()) };
        assert_eq!((named, found.flags), (c"PKCS 11", CKF_INTERFACE_FORK_SAFE));
        assert_eq!(version(Ok(*found)), Ok(expected));
    }
}

unsafe extern "C" fn make_lock(_: *mut *mut std::ffi::c_void) -> CK_RV {
    CKR_OK
}
unsafe extern "C" fn use_lock(_: *mut std::ffi::c_void) -> CK_RV {
    CKR_OK
}

/// Fails without the line that answers CANT_LOCK, or the one that looks at pReserved.
#[test]
fn r04_arguments_of_initialize() {
    let m = Module::without_tokens();
    let with = |callbacks: bool, flags| CK_C_INITIALIZE_ARGS {
        CreateMutex: callbacks.then_some(make_lock),
        DestroyMutex: callbacks.then_some(use_lock),
        LockMutex: callbacks.then_some(use_lock),
        UnlockMutex: callbacks.then_some(use_lock),
        flags,
        pReserved: null_mut(),
    };
    let initialize = |mut args: CK_C_INITIALIZE_ARGS| {
        let rv = call!(m, C_Initialize, (&raw mut args).cast());
        (rv, call!(m, C_Finalize, null_mut()))
    };
    let fine = (CKR_OK, CKR_OK);
    let refused = |rv| (rv, CKR_CRYPTOKI_NOT_INITIALIZED);
    assert_eq!(initialize(with(false, 0)), fine);
    assert_eq!(initialize(with(false, CKF_OS_LOCKING_OK)), fine);
    assert_eq!(
        initialize(with(
            false,
            CKF_OS_LOCKING_OK | CKF_LIBRARY_CANT_CREATE_OS_THREADS
        )),
        fine
    );
    assert_eq!(initialize(with(true, CKF_OS_LOCKING_OK)), fine);
    assert_eq!(initialize(with(true, 0)), refused(CKR_CANT_LOCK));
    let half = CK_C_INITIALIZE_ARGS {
        LockMutex: None,
        ..with(true, CKF_OS_LOCKING_OK)
    };
    assert_eq!(initialize(half), refused(CKR_ARGUMENTS_BAD));
    let reserved = CK_C_INITIALIZE_ARGS {
        pReserved: m
            .dir
            .path()
            .as_os_str()
            .as_encoded_bytes()
            .as_ptr()
            .cast_mut()
            .cast(),
        ..with(false, 0)
    };
    assert_eq!(initialize(reserved), refused(CKR_ARGUMENTS_BAD));
    assert_eq!(call!(m, C_Initialize, null_mut()), CKR_OK);
    assert_eq!(
        call!(m, C_Initialize, null_mut()),
        CKR_CRYPTOKI_ALREADY_INITIALIZED
    );
    let mut something = 0_u8;
    assert_eq!(
        call!(m, C_Finalize, (&raw mut something).cast()),
        CKR_ARGUMENTS_BAD
    );
}

/// With NULL arguments, as libp11 and python-pkcs11 do before they start threads.
/// Fails where `new_handle` loads and stores in two steps instead of `fetch_add`.
#[test]
fn r04_initialised_with_nothing_it_serves_many_threads() {
    let m = Module::new();
    let session = m.session();
    let key = m.one(session, CKO_PRIVATE_KEY, "p256");
    let public = spki(&m, session, key);
    let sign = || {
        let m = &m;
        for _ in 0..200 {
            let session = m.session();
            assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
            let signature = m.sign(session, &[7; 32]).unwrap();
            public.verify(Scheme::Ecdsa, &[7; 32], &signature).unwrap();
            assert_eq!(call!(m, C_CloseSession, session), CKR_OK);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(sign);
        }
    });
    // No two sessions are one.
    let slot = m.slots()[0];
    let open = || -> Vec<_> {
        let m = &m;
        let mut session = 0;
        let mut opened = || {
            let rv = call!(m, C_OpenSession, slot, RW, null_mut(), None, &mut session);
            assert_eq!(rv, CKR_OK);
            session
        };
        (0..5000).map(|_| opened()).collect()
    };
    let mut sessions = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        let all = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap());
        all.collect::<Vec<_>>()
    });
    sessions.sort_unstable();
    sessions.dedup();
    assert_eq!(sessions.len(), 8 * 5000);
}

/// Fails where `is_ours` is always true.
#[test]
fn r05_a_child_has_no_state_until_it_initialises() {
    let m = Module::new();
    let session = m.session();
    let key = m.one(session, CKO_PRIVATE_KEY, "p256");
    assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
    let status = in_child(|| {
        let mut info = CK_SESSION_INFO::default();
        assert_eq!(
            call!(m, C_GetSessionInfo, session, &mut info),
            CKR_CRYPTOKI_NOT_INITIALIZED
        );
        assert_eq!(m.sign(session, &[7; 32]), Err(CKR_CRYPTOKI_NOT_INITIALIZED));
        assert_eq!(
            call!(m, C_Finalize, null_mut()),
            CKR_CRYPTOKI_NOT_INITIALIZED
        );
        assert_eq!(call!(m, C_Initialize, null_mut()), CKR_OK);
        assert_eq!(m.sign(session, &[7; 32]), Err(CKR_SESSION_HANDLE_INVALID));
        let session = m.session();
        let key = m.one(session, CKO_PRIVATE_KEY, "p256");
        assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
        assert_eq!(m.sign(session, &[7; 32]).unwrap().len(), 64);
        assert_eq!(call!(m, C_Finalize, null_mut()), CKR_OK);
        // A grandchild of a child that finalised has none either.
        in_child(|| i32::from(call!(m, C_Finalize, null_mut()) != CKR_CRYPTOKI_NOT_INITIALIZED))
    });
    assert_eq!(status, 0);
    // The parent's operation goes on where it was.
    assert_eq!(m.sign(session, &[7; 32]).unwrap().len(), 64);
}

/// Fails where `initialized` does not look for the state: some function then answers another way.
#[test]
fn r05_every_function_waits_for_the_child_to_initialise() {
    let m = Module::new();
    let status = in_child(|| {
        let mut left = Vec::new();
        let functions = m.functions().into_iter();
        for (name, function) in functions.filter(|(name, _)| *name != "C_Initialize") {
            let answer = module::call_blindly(function, None);
            if answer != CKR_CRYPTOKI_NOT_INITIALIZED {
                left.push(name);
            }
        }
        // Given something where PKCS#11 reserves a pointer, C_Finalize refuses that first.
        let expected = [
            "C_Finalize",
            "C_GetFunctionList",
            "C_GetInterfaceList",
            "C_GetInterface",
        ];
        assert_eq!(left, expected);
        assert_eq!(
            call!(m, C_Finalize, null_mut()),
            CKR_CRYPTOKI_NOT_INITIALIZED
        );
        0
    });
    assert_eq!(status, 0);
}

/// As [`r05_a_child_has_no_state_until_it_initialises`], while other threads are in the module.
/// Fails (hangs) where C_Initialize in a child locks `slots` of the state that it inherited.
#[test]
fn r05_a_child_is_not_stopped_by_its_parents_threads() {
    let m = Module::new();
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let m = &m;
                while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                    let session = m.session();
                    let key = m.one(session, CKO_PRIVATE_KEY, "p256");
                    assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
                    assert_eq!(m.sign(session, &[7; 32]).unwrap().len(), 64);
                    assert_eq!(call!(m, C_CloseSession, session), CKR_OK);
                }
            });
        }
        for _ in 0..50 {
            let status = in_child(|| {
                // SAFETY: ends a child that hangs.
                unsafe { libc::alarm(20) };
                let finalized = call!(m, C_Finalize, null_mut());
                assert_eq!(finalized, CKR_CRYPTOKI_NOT_INITIALIZED);
                assert_eq!(call!(m, C_Initialize, null_mut()), CKR_OK);
                let session = m.session();
                i32::from(call!(m, C_CloseSession, session) != CKR_OK)
            });
            assert_eq!(status, 0);
        }
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// Fails where `Slot::open` starts a thread.
#[test]
fn r06_no_threads_and_no_children() {
    let m = Module::loaded();
    let status = in_child(|| {
        m.initialize();
        let session = m.session();
        let key = m.one(session, CKO_PRIVATE_KEY, "p256");
        assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
        assert_eq!(m.sign(session, &[7; 32]).unwrap().len(), 64);
        assert_eq!(fs::read_dir("/proc/self/task").unwrap().count(), 1);
        let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        i32::from(!children.is_empty())
    });
    assert_eq!(status, 0);
}

/// Fails where `made` opens the session before it looks at the pointer, or `open` looks for the
/// token's files.
#[test]
fn r08_a_session_opens_whatever_became_of_the_token() {
    let m = Module::new();
    fs::remove_file(m.token_dir().join("root")).unwrap();
    let slot = m.slots()[0];
    let handles: Vec<_> = (0..20).map(|_| m.session()).collect();
    assert!(handles.iter().all(|handle| *handle != 0));
    assert_eq!(handles.iter().collect::<BTreeSet<_>>().len(), 20);
    let mut info = CK_TOKEN_INFO::default();
    assert_eq!(call!(m, C_GetTokenInfo, slot, &mut info), CKR_OK);
    assert_eq!((info.ulMaxSessionCount, info.ulSessionCount), (0, 20));
    assert_eq!(
        call!(m, C_OpenSession, slot, RW, null_mut(), None, null_mut()),
        CKR_ARGUMENTS_BAD
    );
    let mut session = 0;
    let parallel = call!(
        m,
        C_OpenSession,
        slot,
        CKF_RW_SESSION,
        null_mut(),
        None,
        &mut session
    );
    assert_eq!(parallel, CKR_SESSION_PARALLEL_NOT_SUPPORTED);
    // The missing root shows at the signature.
    let key = m.one(handles[0], CKO_PRIVATE_KEY, "p256");
    assert_eq!(m.sign_init(handles[0], CKM_ECDSA, key), CKR_OK);
    assert_eq!(m.sign(handles[0], &[7; 32]), Err(CKR_DEVICE_ERROR));
    // Nor does a session need the token's directory, which shows at the search.
    fs::remove_dir_all(m.token_dir()).unwrap();
    let (mut session, mut count) = (0, 0);
    let open = |session: &mut _| call!(m, C_OpenSession, slot, RW, null_mut(), None, session);
    assert_eq!(open(&mut session), CKR_OK);
    let search = call!(m, C_FindObjectsInit, session, null_mut(), 0);
    assert_eq!(search, CKR_DEVICE_ERROR);
    // Once the slots are looked up anew it is listed no longer.
    assert_eq!(call!(m, C_GetSlotList, 1, null_mut(), &mut count), CKR_OK);
    assert_eq!((count, open(&mut session)), (0, CKR_SLOT_ID_INVALID));
}

/// OpenSSH always wants to write. Fails with CKF_WRITE_PROTECTED in `info::token`, or where
/// `of_write` is `Rv::from`.
#[test]
fn r08_a_read_only_store_shows_where_something_is_written() {
    let m = Module::loaded();
    fs::set_permissions(m.token_dir(), fs::Permissions::from_mode(0o500)).unwrap();
    bound_by_modes(|| {
        let m = &m;
        m.initialize();
        let session = m.session();
        let mut info = CK_TOKEN_INFO::default();
        assert_eq!(call!(m, C_GetTokenInfo, m.slots()[0], &mut info), CKR_OK);
        assert_eq!(info.flags & CKF_WRITE_PROTECTED, 0);
        let key = m.one(session, CKO_PRIVATE_KEY, "p256");
        assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
        m.sign(session, &[7; 32]).unwrap();
        let created = create_certificate(m, session, &certificate("somebody"));
        assert_eq!(created, Err(CKR_TOKEN_WRITE_PROTECTED));
        let (rv, ..) = generate(m, session, &[(CKA_TOKEN, TRUE)]);
        assert_eq!(rv, CKR_TOKEN_WRITE_PROTECTED);
        let destroyed = call!(m, C_DestroyObject, session, key);
        assert_eq!(destroyed, CKR_TOKEN_WRITE_PROTECTED);
        let mut label = raw(&[(CKA_LABEL, b"new")]);
        let set = call!(m, C_SetAttributeValue, session, key, label.as_mut_ptr(), 1);
        assert_eq!(set, CKR_TOKEN_WRITE_PROTECTED);
    });
    fs::set_permissions(m.token_dir(), fs::Permissions::from_mode(0o700)).unwrap();
}

/// Fails with a NUL in `padded`, or with CKF_LOGIN_REQUIRED among the flags.
#[test]
fn r09_token_info_is_padded_and_stable() {
    let m = Module::new();
    let info = || {
        let mut info = CK_TOKEN_INFO::default();
        assert_eq!(call!(m, C_GetTokenInfo, m.slots()[0], &mut info), CKR_OK);
        info
    };
    let first = info();
    assert_eq!(
        first.flags,
        CKF_TOKEN_INITIALIZED | CKF_USER_PIN_INITIALIZED | CKF_RNG
    );
    assert_eq!(&first.label, format!("{:32}", "sample").as_bytes());
    assert_eq!(&first.manufacturerID, format!("{:32}", "devkey").as_bytes());
    assert_eq!(&first.model, format!("{:16}", "File").as_bytes());
    assert_eq!(first.utcTime, [b' '; 16]);
    assert!(first.serialNumber.iter().all(u8::is_ascii_hexdigit));
    let (mut slot_info, mut general) = (CK_SLOT_INFO::default(), CK_INFO::default());
    assert_eq!(
        call!(m, C_GetSlotInfo, m.slots()[0], &mut slot_info),
        CKR_OK
    );
    assert_eq!(call!(m, C_GetInfo, &mut general), CKR_OK);
    assert_eq!(slot_info.flags, CKF_TOKEN_PRESENT);
    for (field, text) in [
        (&slot_info.slotDescription[..], "devkey file: sample"),
        (&slot_info.manufacturerID, "devkey"),
        (&general.manufacturerID, "devkey"),
        (&general.libraryDescription, "devkey"),
    ] {
        assert_eq!(field, format!("{text:0$}", field.len()).as_bytes());
    }
    assert_eq!(
        (
            first.ulMinPinLen,
            first.ulMaxPinLen,
            first.ulMaxSessionCount
        ),
        (4, 32, 0)
    );
    let slots = m.slots();
    // Another token, which sorts first, moves neither id nor serial.
    module::copy_dir(&m.token_dir(), &m.dir.path().join("another"));
    assert_eq!(m.slots().len(), 2);
    assert!(m.slots().contains(&slots[0]));
    fs::remove_dir_all(m.dir.path().join("another")).unwrap();
    assert_eq!(call!(m, C_Finalize, null_mut()), CKR_OK);
    m.initialize();
    assert_eq!(m.slots(), slots);
    assert_eq!(info().serialNumber, first.serialNumber);
    // Each token has a serial of its own, and its label as far as there is room.
    let long = "\u{e4}".repeat(16) + "b";
    module::make_token(&m.dir.path().join("another"), &long[..32]);
    let slots = m.slots();
    let serials = slots.iter().map(|slot| {
        let mut info = CK_TOKEN_INFO::default();
        assert_eq!(call!(m, C_GetTokenInfo, *slot, &mut info), CKR_OK);
        (info.serialNumber, info.label)
    });
    let serials: BTreeSet<_> = serials.collect();
    assert_eq!(serials.len(), 2);
    assert_ne!(serials.first().unwrap().0, serials.last().unwrap().0);
    let fits = |(_, label): &(_, [u8; 32])| label == &long.as_bytes()[..32];
    assert!(serials.iter().any(fits));
    fs::remove_dir_all(m.dir.path().join("another")).unwrap();
    // What is no token has no slot.
    fs::create_dir(m.dir.path().join("empty")).unwrap();
    fs::write(m.token_dir().join("token"), "version = 99\n").unwrap();
    assert!(m.slots().is_empty());
}

/// Fails with CKS_RO_PUBLIC_SESSION in `info::session`.
#[test]
fn r12_without_a_pin_every_session_is_the_users() {
    let m = Module::new();
    let state = |session| {
        let mut info = CK_SESSION_INFO::default();
        assert_eq!(call!(m, C_GetSessionInfo, session, &mut info), CKR_OK);
        (info.state, info.flags)
    };
    let mut info = CK_TOKEN_INFO::default();
    assert_eq!(call!(m, C_GetTokenInfo, m.slots()[0], &mut info), CKR_OK);
    assert_eq!(info.flags & CKF_LOGIN_REQUIRED, 0);
    assert_eq!(state(m.session()), (CKS_RW_USER_FUNCTIONS, RW));
    let read_only = m.session_with(CKF_SERIAL_SESSION);
    assert_eq!(
        state(read_only),
        (CKS_RO_USER_FUNCTIONS, CKF_SERIAL_SESSION)
    );
    m.one(read_only, CKO_PRIVATE_KEY, "p256");
    let mut pin = *b"1234";
    let login = |user| call!(m, C_Login, read_only, user, pin.as_ptr().cast_mut(), 4);
    assert_eq!(login(CKU_SO), CKR_USER_TYPE_INVALID);
    assert_eq!(login(CKU_CONTEXT_SPECIFIC), CKR_OPERATION_NOT_INITIALIZED);
    let slot = m.slots()[0];
    assert_eq!(
        call!(
            m,
            C_InitToken,
            slot,
            pin.as_mut_ptr(),
            4,
            [b' '; 32].as_mut_ptr()
        ),
        CKR_SESSION_EXISTS
    );
    assert_eq!(
        call!(m, C_InitPIN, read_only, pin.as_mut_ptr(), 4),
        CKR_USER_NOT_LOGGED_IN
    );
    assert_eq!(
        call!(m, C_SetPIN, m.session(), null_mut(), 0, pin.as_mut_ptr(), 4),
        CKR_FUNCTION_NOT_SUPPORTED
    );
    assert_eq!(call!(m, C_CloseAllSessions, slot), CKR_OK);
    assert_eq!(
        call!(
            m,
            C_InitToken,
            slot,
            pin.as_mut_ptr(),
            4,
            [b' '; 32].as_mut_ptr()
        ),
        CKR_FUNCTION_NOT_SUPPORTED
    );
}

/// Fails where `close` does not log out, or only when no slot has a session left, or where `log_in`
/// answers CKR_OK always.
#[test]
fn r13_login_is_per_process_and_ends_with_the_last_session() {
    let m = Module::new();
    let (one, two) = (m.session(), m.session());
    let login = |session| call!(m, C_Login, session, CKU_USER, null_mut(), 0);
    assert_eq!(call!(m, C_Logout, one), CKR_USER_NOT_LOGGED_IN);
    assert_eq!(login(one), CKR_OK);
    assert_eq!(login(two), CKR_USER_ALREADY_LOGGED_IN);
    assert_eq!(call!(m, C_Logout, two), CKR_OK);
    assert_eq!(
        call!(m, C_LoginUser, one, CKU_USER, null_mut(), 0, null_mut(), 0),
        CKR_OK
    );
    assert_eq!(call!(m, C_CloseSession, one), CKR_OK);
    assert_eq!(login(two), CKR_USER_ALREADY_LOGGED_IN);
    assert_eq!(call!(m, C_CloseSession, two), CKR_OK);
    assert_eq!(login(m.session()), CKR_OK);
    let slot = m.slots()[0];
    assert_eq!(call!(m, C_CloseAllSessions, slot), CKR_OK);
    assert_eq!(login(m.session()), CKR_OK);
    // Another slot's user is another.
    module::copy_dir(&m.token_dir(), &m.dir.path().join("zz"));
    let mut session = 0;
    let other = *m.slots().iter().find(|other| **other != slot).unwrap();
    let opened = call!(m, C_OpenSession, other, RW, null_mut(), None, &mut session);
    assert_eq!((opened, login(session)), (CKR_OK, CKR_OK));
    assert_eq!(call!(m, C_CloseAllSessions, slot), CKR_OK);
    assert_eq!(login(session), CKR_USER_ALREADY_LOGGED_IN);
    let mut again = 0;
    let opened = call!(m, C_OpenSession, slot, RW, null_mut(), None, &mut again);
    assert_eq!((opened, login(again)), (CKR_OK, CKR_OK));
}

/// Fails where CKA_ALWAYS_AUTHENTICATE is TRUE in the table of attributes.
#[test]
fn r14_no_key_wants_a_login_for_each_signature() {
    let m = Module::new();
    let session = m.session();
    for label in ["p256", "rsa", "ed"] {
        let key = m.one(session, CKO_PRIVATE_KEY, label);
        assert_eq!(
            m.attribute(session, key, CKA_ALWAYS_AUTHENTICATE).unwrap(),
            FALSE
        );
    }
}

/// Fails where `Object::certificate` leaves the label empty, takes the first key instead of
/// `listing.key_of(c)`, or takes `common_name` before the key's label.
#[test]
fn r15_ids_pair_objects_and_labels_are_there() {
    let m = Module::new();
    let session = m.session();
    create_certificate(&m, session, &certificate("somebody")).unwrap();
    let all = m.find(session, &[]);
    assert_eq!(all.len(), 7);
    for object in &all {
        for kind in [CKA_ID, CKA_LABEL] {
            let length = m.attribute(session, *object, kind).unwrap().len();
            assert!((1..=255).contains(&length));
        }
    }
    let id = |class| {
        m.attribute(session, m.one(session, class, "p256"), CKA_ID)
            .unwrap()
    };
    assert_eq!(id(CKO_PRIVATE_KEY), id(CKO_PUBLIC_KEY));
    let certificate = m.one(session, CKO_CERTIFICATE, "somebody");
    let spki = m
        .attribute(session, certificate, CKA_PUBLIC_KEY_INFO)
        .unwrap();
    let id = m.attribute(session, certificate, CKA_ID).unwrap();
    assert_eq!(id, Hash::Sha256.digest(&spki)[..20]);
    // A certificate of a key here goes by the key's names, and follows them.
    for label in ["rsa", "p256", "ed"] {
        let key = m.one(session, CKO_PRIVATE_KEY, label);
        let spki = m.attribute(session, key, CKA_PUBLIC_KEY_INFO).unwrap();
        let der = certificate_for(&spki, "/CN=other");
        let certificate = create_certificate(&m, session, &der).unwrap();
        for kind in [CKA_ID, CKA_LABEL] {
            let of = |object| m.attribute(session, object, kind).unwrap();
            assert_eq!(of(certificate), of(key), "{label}");
        }
        assert_eq!(
            m.attribute(session, certificate, CKA_VALUE).unwrap(),
            der,
            "{label}"
        );
    }
    // Without a common name it has a label all the same; so has a key that was given none.
    let nameless = create_certificate(&m, session, &certificate_of("/O=nobody")).unwrap();
    assert!(
        !m.attribute(session, nameless, CKA_LABEL)
            .unwrap()
            .is_empty()
    );
    let (rv, public, private) = generate(&m, session, &[(CKA_TOKEN, TRUE)]);
    assert_eq!(rv, CKR_OK);
    for kind in [CKA_ID, CKA_LABEL] {
        let of = |object| m.attribute(session, object, kind).unwrap();
        assert_eq!(of(public), of(private));
        assert!(!of(private).is_empty());
    }
    let set = |value: &[u8]| {
        let mut id = raw(&[(CKA_ID, value)]);
        call!(m, C_SetAttributeValue, session, private, id.as_mut_ptr(), 1)
    };
    assert_eq!(set(&[7; 255]), CKR_OK);
    assert_eq!(set(&[7; 256]), CKR_ATTRIBUTE_VALUE_INVALID);
    assert_eq!(set(&[]), CKR_ATTRIBUTE_VALUE_INVALID);
}

/// Fails where `fresh_objects` gives up at the first file that is broken.
#[test]
fn r16_a_bad_file_hides_no_other() {
    let m = Module::new();
    module::write(
        &m.token_dir().join("0000000000000000.key"),
        "version = 1\nnonsense",
    );
    module::write(&m.token_dir().join("bad.crt"), "nothing");
    assert_eq!(m.find(m.session(), &[]).len(), 6);
}

/// Fails where `attributes` stops at the first error, or CKA_COEFFICIENT has no row.
#[test]
fn r17_every_attribute_is_answered() {
    let m = Module::new();
    let session = m.session();
    let key = m.one(session, CKO_PRIVATE_KEY, "rsa");
    assert_eq!(call!(m, C_FindObjectsInit, session, null_mut(), 0), CKR_OK);
    let (mut short, mut label) = ([0_u8; 2], [0_u8; 8]);
    let attribute = |type_, value: &mut [u8]| CK_ATTRIBUTE {
        type_,
        pValue: value.as_mut_ptr().cast(),
        ulValueLen: value.len() as CK_ULONG,
    };
    let size = |type_| CK_ATTRIBUTE {
        type_,
        pValue: null_mut(),
        ulValueLen: 0,
    };
    let mut template = [
        size(CKA_VENDOR_DEFINED | 77),
        size(CKA_PRIVATE_EXPONENT),
        attribute(CKA_MODULUS, &mut short),
        size(CKA_MODULUS),
        size(CKA_SUBJECT),
        attribute(CKA_LABEL, &mut label),
    ];
    let rv = call!(
        m,
        C_GetAttributeValue,
        session,
        key,
        template.as_mut_ptr(),
        6
    );
    assert_eq!(rv, CKR_ATTRIBUTE_TYPE_INVALID);
    const NO: CK_ULONG = CK_UNAVAILABLE_INFORMATION;
    assert_eq!(template.map(|a| a.ulValueLen), [NO, NO, NO, 256, 0, 3]);
    assert_eq!(&label[..3], b"rsa");
    let value = |kind| m.attribute(session, key, kind);
    for part in [
        CKA_PRIVATE_EXPONENT,
        CKA_PRIME_1,
        CKA_PRIME_2,
        CKA_EXPONENT_1,
        CKA_EXPONENT_2,
        CKA_COEFFICIENT,
    ] {
        assert_eq!(value(part), Err(CKR_ATTRIBUTE_SENSITIVE));
    }
    // The search that was begun before goes on.
    let (mut found, mut count) = ([0; 64], 0);
    let rv = call!(
        m,
        C_FindObjects,
        session,
        found.as_mut_ptr(),
        64,
        &mut count
    );
    assert_eq!((rv, count), (CKR_OK, 6));
    assert_eq!(call!(m, C_FindObjectsFinal, session), CKR_OK);
    for label in ["p256", "ed"] {
        let key = m.one(session, CKO_PRIVATE_KEY, label);
        let value = m.attribute(session, key, CKA_VALUE);
        assert_eq!(value, Err(CKR_ATTRIBUTE_SENSITIVE));
    }
    let mut alone = attribute(CKA_MODULUS, &mut short);
    let rv = call!(m, C_GetAttributeValue, session, key, &mut alone, 1);
    assert_eq!((rv, alone.ulValueLen), (CKR_BUFFER_TOO_SMALL, NO));
    let rv = call!(m, C_GetAttributeValue, session, key, &mut template[2], 1);
    // Again, without a new length: what is left there is no room that any buffer has.
    assert_eq!((rv, short), (CKR_BUFFER_TOO_SMALL, [0; 2]));
    assert_eq!(
        call!(m, C_GetAttributeValue, session, 0, template.as_mut_ptr(), 6),
        CKR_OBJECT_HANDLE_INVALID
    );
    assert_eq!(
        call!(
            m,
            C_GetAttributeValue,
            session,
            key,
            null_mut(),
            CK_ULONG::MAX
        ),
        CKR_ARGUMENTS_BAD
    );
}

/// Fails where CKA_EC_POINT is the bare point.
#[test]
fn r18_points_are_octet_strings_and_private_keys_have_public_parts() {
    let m = Module::new();
    let session = m.session();
    for class in [CKO_PRIVATE_KEY, CKO_PUBLIC_KEY] {
        let get = |label, kind| m.attribute(session, m.one(session, class, label), kind);
        let point = get("p256", CKA_EC_POINT).unwrap();
        assert_eq!(point[..3], [0x04, 65, 0x04]);
        assert_eq!(
            get("p256", CKA_EC_PARAMS).unwrap(),
            b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
        );
        assert_eq!(get("ed", CKA_EC_PARAMS).unwrap(), b"\x06\x03\x2b\x65\x70");
        assert_eq!(
            get("ed", CKA_KEY_TYPE).unwrap(),
            CKK_EC_EDWARDS.to_ne_bytes()
        );
        assert_eq!(get("rsa", CKA_MODULUS).unwrap().len(), 256);
        assert_eq!(get("rsa", CKA_PUBLIC_EXPONENT).unwrap(), [1, 0, 1]);
        for (label, kind) in [
            ("p256", KeyKind::EcP256),
            ("rsa", KeyKind::Rsa2048),
            ("ed", KeyKind::Ed25519),
        ] {
            let spki = get(label, CKA_PUBLIC_KEY_INFO).unwrap();
            assert_eq!(PublicKey::from_spki(&spki).unwrap().kind(), kind);
        }
        let point = get("ed", CKA_EC_POINT).unwrap();
        assert_eq!((point.len(), &point[..2]), (34, &[0x04, 32][..]));
    }
}

/// Fails where CKA_PRIVATE is TRUE for public keys.
#[test]
fn r19_public_objects_are_public() {
    let m = Module::new();
    let session = m.session();
    create_certificate(&m, session, &certificate("somebody")).unwrap();
    let private = m.find(session, &[(CKA_PRIVATE, TRUE)]);
    let public = m.find(session, &[(CKA_PRIVATE, FALSE)]);
    assert_eq!((private.len(), public.len()), (3, 4));
    // Nobody has logged in.
    for (class, count) in [(CKO_PUBLIC_KEY, 3), (CKO_CERTIFICATE, 1)] {
        let found = m.find(session, &[(CKA_CLASS, &class.to_ne_bytes())]);
        assert_eq!(found.len(), count);
        for object in found {
            assert_eq!(m.attribute(session, object, CKA_PRIVATE).unwrap(), FALSE);
        }
    }
}

/// Fails where `Plan::finish` takes a digest without fitting it, or `digest_info` looks at the
/// digest's length only.
#[test]
fn r20_digests_of_any_length_and_digest_infos() {
    let m = Module::new();
    let session = m.session();
    let key = m.one(session, CKO_PRIVATE_KEY, "p256");
    let public = spki(&m, session, key);
    for length in [1, 20, 32, 48, 64] {
        let digest = vec![0x5a; length];
        assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
        let signature = m.sign(session, &digest).unwrap();
        let fitted = devkey::key::ecdsa_input(KeyKind::EcP256, &digest).unwrap();
        public.verify(Scheme::Ecdsa, &fitted, &signature).unwrap();
    }
    assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
    assert_eq!(m.sign(session, &[0; 65]), Err(CKR_DATA_LEN_RANGE));
    // One in 128 has a number that begins with a zero byte.
    for _ in 0..500 {
        assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
        assert_eq!(m.sign(session, &[7; 32]).unwrap().len(), 64);
    }

    let key = m.one(session, CKO_PRIVATE_KEY, "rsa");
    let public = spki(&m, session, key);
    let sha256 = b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";
    let sha384 = b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30";
    let sha512 = b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40";
    for (prefix, hash) in [
        (sha256, Hash::Sha256),
        (sha384, Hash::Sha384),
        (sha512, Hash::Sha512),
    ] {
        let digest = hash.digest(b"hello");
        assert_eq!(m.sign_init(session, CKM_RSA_PKCS, key), CKR_OK);
        let signature = m
            .sign(session, &[prefix.as_slice(), &digest].concat())
            .unwrap();
        public
            .verify(Scheme::RsaPkcs1(hash), &digest, &signature)
            .unwrap();
    }
    assert_eq!(m.sign_init(session, CKM_RSA_PKCS, key), CKR_OK);
    assert_eq!(m.sign(session, &[7; 36]), Err(CKR_DATA_INVALID));
    // SHA-1, whose signatures nobody should believe, and a digest of another length than its name.
    let sha1 = b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14";
    let mut wrong = [sha256.as_slice(), &[7; 32]].concat();
    wrong[14] = 2;
    for info in [[sha1.as_slice(), &[7; 20]].concat(), wrong] {
        assert_eq!(m.sign_init(session, CKM_RSA_PKCS, key), CKR_OK);
        assert_eq!(m.sign(session, &info), Err(CKR_DATA_INVALID));
    }
}

fn multipart(m: &Module, session: CK_SESSION_HANDLE, pieces: &[&[u8]]) -> Vec<u8> {
    for piece in pieces {
        let rv = call!(
            m,
            C_SignUpdate,
            session,
            piece.as_ptr().cast_mut(),
            piece.len() as CK_ULONG
        );
        assert_eq!(rv, CKR_OK);
    }
    let (mut signature, mut length) = (vec![0; 512], 0);
    assert_eq!(
        call!(m, C_SignFinal, session, null_mut(), &mut length),
        CKR_OK
    );
    assert_eq!(
        call!(m, C_SignFinal, session, signature.as_mut_ptr(), &mut length),
        CKR_OK
    );
    signature.truncate(length as usize);
    signature
}

/// Fails where `Message::whole` does not hash, or `pss_hash` takes any salt.
#[test]
fn r22_what_is_listed_works() {
    let m = Module::new();
    let session = m.session();
    let slot = m.slots()[0];
    let (mut list, mut count) = ([0; 64], 64);
    assert_eq!(
        call!(m, C_GetMechanismList, slot, list.as_mut_ptr(), &mut count),
        CKR_OK
    );
    let list = &list[..count as usize];
    let mut info = CK_MECHANISM_INFO::default();
    for mechanism in list {
        assert_eq!(
            call!(m, C_GetMechanismInfo, slot, *mechanism, &mut info),
            CKR_OK
        );
        assert!(info.ulMinKeySize > 0 && info.flags & CKF_HW == 0);
    }
    assert_eq!(
        call!(m, C_GetMechanismInfo, slot, CKM_AES_GCM, &mut info),
        CKR_MECHANISM_INVALID
    );
    let hashes = [
        (
            Hash::Sha256,
            CKM_SHA256,
            CKG_MGF1_SHA256,
            CKM_ECDSA_SHA256,
            CKM_SHA256_RSA_PKCS,
            CKM_SHA256_RSA_PKCS_PSS,
        ),
        (
            Hash::Sha384,
            CKM_SHA384,
            CKG_MGF1_SHA384,
            CKM_ECDSA_SHA384,
            CKM_SHA384_RSA_PKCS,
            CKM_SHA384_RSA_PKCS_PSS,
        ),
        (
            Hash::Sha512,
            CKM_SHA512,
            CKG_MGF1_SHA512,
            CKM_ECDSA_SHA512,
            CKM_SHA512_RSA_PKCS,
            CKM_SHA512_RSA_PKCS_PSS,
        ),
    ];
    for (hash, hash_alg, mgf, ecdsa, pkcs1, pss) in hashes {
        let digest = hash.digest(b"hello, world");
        let mut right = CK_RSA_PKCS_PSS_PARAMS {
            hashAlg: hash_alg,
            mgf,
            sLen: hash.size() as CK_ULONG,
        };
        let cases = [
            ("p256", bare(ecdsa), Scheme::Ecdsa),
            ("rsa", bare(pkcs1), Scheme::RsaPkcs1(hash)),
            ("rsa", with_parameter(pss, &mut right), Scheme::RsaPss(hash)),
        ];
        for (label, mut mechanism, scheme) in cases {
            assert!(list.contains(&mechanism.mechanism));
            let key = m.one(session, CKO_PRIVATE_KEY, label);
            let public = spki(&m, session, key);
            let input = devkey::key::ecdsa_input(public.kind(), &digest).unwrap_or(digest.clone());
            let check = |signature: &[u8]| public.verify(scheme, &input, signature).unwrap();
            assert_eq!(call!(m, C_SignInit, session, &mut mechanism, key), CKR_OK);
            check(&multipart(&m, session, &[b"hello", b", ", b"world"]));
            assert_eq!(call!(m, C_SignInit, session, &mut mechanism, key), CKR_OK);
            check(&m.sign(session, b"hello, world").unwrap());
        }
        let key = m.one(session, CKO_PRIVATE_KEY, "rsa");
        let mut wrong = CK_RSA_PKCS_PSS_PARAMS { sLen: 20, ..right };
        let mut mechanism = with_parameter(CKM_RSA_PKCS_PSS, &mut wrong);
        assert_eq!(
            call!(m, C_SignInit, session, &mut mechanism, key),
            CKR_MECHANISM_PARAM_INVALID
        );
    }
    let key = m.one(session, CKO_PRIVATE_KEY, "ed");
    assert_eq!(m.sign_init(session, CKM_EDDSA, key), CKR_OK);
    let signature = m.sign(session, b"hello").unwrap();
    spki(&m, session, key)
        .verify(Scheme::Ed25519, b"hello", &signature)
        .unwrap();
    assert_eq!(
        m.sign_init(session, CKM_ECDSA, key),
        CKR_KEY_TYPE_INCONSISTENT
    );
}

/// Fails where `signed` does not put the operation back.
#[test]
fn r23_asking_for_the_length_keeps_the_operation_and_asks_no_device() {
    let m = Module::new();
    let session = m.session();
    let key = m.one(session, CKO_PRIVATE_KEY, "p256");
    let root = m.token_dir().join("root");
    fs::rename(&root, m.token_dir().join("away")).unwrap();
    assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
    let mut data = [7; 32];
    let (mut short, mut length) = ([0xaa; 64], 0);
    for _ in 0..2 {
        assert_eq!(
            call!(
                m,
                C_Sign,
                session,
                data.as_mut_ptr(),
                32,
                null_mut(),
                &mut length
            ),
            CKR_OK
        );
        assert_eq!(length, 64);
    }
    length = 63;
    let rv = call!(
        m,
        C_Sign,
        session,
        data.as_mut_ptr(),
        32,
        short.as_mut_ptr(),
        &mut length
    );
    assert_eq!((rv, length, short), (CKR_BUFFER_TOO_SMALL, 64, [0xaa; 64]));
    fs::rename(m.token_dir().join("away"), &root).unwrap();
    assert_eq!(m.sign(session, &data).unwrap().len(), 64);
    assert_eq!(m.sign(session, &data), Err(CKR_OPERATION_NOT_INITIALIZED));
    // Any other error ends it.
    assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
    assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OPERATION_ACTIVE);
    assert_eq!(m.sign(session, &[]), Err(CKR_DATA_LEN_RANGE));
    assert_eq!(m.sign(session, &data), Err(CKR_OPERATION_NOT_INITIALIZED));
    assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
    let rv = call!(
        m,
        C_Sign,
        session,
        null_mut(),
        32,
        short.as_mut_ptr(),
        &mut 64
    );
    assert_eq!(rv, CKR_ARGUMENTS_BAD);
    assert_eq!(m.sign(session, &data), Err(CKR_OPERATION_NOT_INITIALIZED));
    // Cancelled both ways.
    assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
    assert_eq!(call!(m, C_SignInit, session, null_mut(), 0), CKR_OK);
    assert_eq!(m.sign(session, &data), Err(CKR_OPERATION_NOT_INITIALIZED));
    assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
    assert_eq!(call!(m, C_SessionCancel, session, CKF_SIGN), CKR_OK);
    assert_eq!(m.sign(session, &data), Err(CKR_OPERATION_NOT_INITIALIZED));
}

/// Fails where C_WaitForSlotEvent answers CKR_OK.
#[test]
fn r24_what_there_is_not_is_said_so() {
    let m = Module::new();
    let session = m.session();
    let mut slot = 0;
    assert_eq!(
        call!(m, C_WaitForSlotEvent, 0, &mut slot, null_mut()),
        CKR_FUNCTION_NOT_SUPPORTED
    );
    assert_eq!(
        call!(m, C_SeedRandom, session, null_mut(), 0),
        CKR_RANDOM_SEED_NOT_SUPPORTED
    );
    let mut length = 0;
    assert_eq!(
        call!(m, C_GetOperationState, session, null_mut(), &mut length),
        CKR_STATE_UNSAVEABLE
    );
    assert_eq!(call!(m, C_GetFunctionStatus, 0), CKR_FUNCTION_NOT_PARALLEL);
    assert_eq!(call!(m, C_CancelFunction, 0), CKR_FUNCTION_NOT_PARALLEL);
    assert_eq!(
        call!(m, C_DigestInit, session, null_mut()),
        CKR_FUNCTION_NOT_SUPPORTED
    );
    let netscape_trust = (CKO_VENDOR_DEFINED | 0x4e53_4353).to_ne_bytes();
    for class in [netscape_trust, CKO_PROFILE.to_ne_bytes()] {
        assert!(
            m.find(session, &[(CKA_CLASS, &class), (CKA_TOKEN, TRUE)])
                .is_empty()
        );
    }
    let mut random = [0; 5000];
    assert_eq!(
        call!(m, C_GenerateRandom, session, random.as_mut_ptr(), 5000),
        CKR_OK
    );
    assert!(random[4900..].iter().any(|byte| *byte != 0));
}

/// What PKCS#11 3.2 adds, in the order of its list.
const ADDED_BY_3_2: [&str; 12] = [
    "C_EncapsulateKey",
    "C_DecapsulateKey",
    "C_VerifySignatureInit",
    "C_VerifySignature",
    "C_VerifySignatureUpdate",
    "C_VerifySignatureFinal",
    "C_GetSessionValidationFlags",
    "C_AsyncComplete",
    "C_AsyncGetID",
    "C_AsyncJoin",
    "C_WrapKeyAuthenticated",
    "C_UnwrapKeyAuthenticated",
];

/// The list 3.2 is that of 3.0 and twelve functions more. Fails where one of those in entry.rs
/// answers CKR_OK, and where the document leaves one out.
#[test]
fn r24_the_list_3_2_goes_on_where_3_0_ends() {
    let m = Module::new();
    let list = interface(b"PKCS 11\0", (3, 2)).unwrap();
    // SAFETY: a version, padded to a pointer's size, and then 104 pointers to functions.
    let list = unsafe { std::slice::from_raw_parts(list.cast::<usize>().add(1), 104) };
    let older: Vec<usize> = m
        .functions()
        .iter()
        .map(|(_, function)| *function)
        .collect();
    assert_eq!(list[..92], older);
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/features.md"));
    let document = document.unwrap();
    let session = m.session();
    for (name, function) in ADDED_BY_3_2.iter().zip(&list[92..]) {
        let row = format!("| `{name}` | ✗ `CKR_FUNCTION_NOT_SUPPORTED`, always |");
        assert!(document.contains(&row), "{name}");
        let rv = module::call_blindly(*function, Some(session));
        assert_eq!(rv, CKR_FUNCTION_NOT_SUPPORTED);
        let rv = module::call_blindly(*function, Some(0));
        assert_eq!(rv, CKR_SESSION_HANDLE_INVALID);
    }
}

/// What docs/features.md says of each function, through the real lists. Fails where
/// C_DigestInit answers CKR_OK, where `unsupported` answers CKR_GENERAL_ERROR, or where a row of
/// the document is wrong.
#[test]
fn r24_each_function_answers_as_documented() {
    let m = Module::new();
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/features.md"));
    let document = document.unwrap();
    let functions = m.functions();
    assert_eq!(functions.len(), 92);
    for (name, function) in functions {
        let row = format!("| `{name}` |");
        let mut rows = document.lines().filter(|line| line.starts_with(&row));
        let row = rows.next().expect("every function has a row");
        assert!(rows.next().is_none(), "{name} has two rows");
        let session = m.session();
        if row.contains("`CKR_FUNCTION_NOT_SUPPORTED`, always") {
            let rv = module::call_blindly(function, Some(session));
            assert_eq!(rv, CKR_FUNCTION_NOT_SUPPORTED, "{name}");
            // A session that there is not comes first.
            let rv = module::call_blindly(function, Some(0));
            let global = name == "C_WaitForSlotEvent";
            assert!(global || rv == CKR_SESSION_HANDLE_INVALID, "{name}");
        } else if !row.contains("`CKR_FUNCTION_NOT_SUPPORTED`") && takes_a_session(name) {
            let rv = module::call_blindly(function, Some(session));
            assert_ne!(rv, CKR_FUNCTION_NOT_SUPPORTED, "{name}");
        }
    }
}

/// Not those that take a pointer first, or that would fill as many bytes as an address has.
fn takes_a_session(function: &str) -> bool {
    let others = [
        "C_Initialize",
        "C_Finalize",
        "C_GetInfo",
        "C_GetFunctionList",
        "C_GetInterfaceList",
        "C_GetInterface",
        "C_GenerateRandom",
    ];
    !others.contains(&function)
}

/// Fails where `refresh` gives every object a new handle.
#[test]
fn r25_handles_stay() {
    let m = Module::new();
    let (one, two) = (m.session(), m.session());
    let first = m.find(one, &[]);
    let template: &[(_, &[u8])] = &[(CKA_TOKEN, TRUE), (CKA_LABEL, b"new")];
    let (rv, public, private) = generate(&m, one, template);
    assert_eq!(rv, CKR_OK);
    let second = m.find(two, &[]);
    assert_eq!(second, [first.clone(), vec![private, public]].concat());
    assert_eq!(
        call!(m, C_DestroyObject, two, public),
        CKR_ACTION_PROHIBITED
    );
    assert_eq!(call!(m, C_DestroyObject, two, private), CKR_OK);
    assert_eq!(m.find(one, &[]), first);
    assert_eq!(
        call!(m, C_DestroyObject, two, private),
        CKR_OBJECT_HANDLE_INVALID
    );
    // After a fork the old names are found again, under handles that work.
    let status = in_child(|| {
        m.initialize();
        let session = m.session();
        let found = m.find(session, &[]);
        assert!(found.iter().all(|handle| !second.contains(handle)));
        let key = m.one(session, CKO_PRIVATE_KEY, "p256");
        assert_eq!(
            m.sign_init(session, CKM_ECDSA, first[0]),
            CKR_KEY_HANDLE_INVALID
        );
        assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
        (m.sign(session, &[7; 32]).unwrap().len() != 64).into()
    });
    assert_eq!(status, 0);
    // Another process's key appears in the next search.
    let made = in_child(|| {
        m.initialize();
        let (rv, ..) = generate(&m, m.session(), template);
        rv as i32
    });
    assert_eq!(made, 0);
    assert_eq!(m.find(one, &[]).len(), first.len() + 2);
}

/// Fails where `dir.lock()` is asked for in `Store::list`.
#[test]
fn r26_reading_needs_no_right_to_write() {
    let m = Module::loaded();
    let dir = m.token_dir();
    let _ = fs::remove_file(dir.join("lock"));
    let names = || {
        let names = fs::read_dir(&dir).unwrap();
        names.map(|entry| entry.unwrap().file_name()).collect()
    };
    let before: BTreeSet<_> = names();
    let mode = |mode| fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o500);
    bound_by_modes(|| {
        let m = &m;
        m.initialize();
        let session = m.session();
        let key = m.one(session, CKO_PRIVATE_KEY, "p256");
        assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
        assert_eq!(m.sign(session, &[7; 32]).unwrap().len(), 64);
    });
    mode(0o700);
    assert_eq!(before, names());
}

/// Fails where `set_attributes` does not ask whether the session may write.
#[test]
fn names_can_be_changed_on_either_half() {
    let m = Module::new();
    let session = m.session();
    let set = |session, object, template: &[(CK_ATTRIBUTE_TYPE, &[u8])]| {
        let mut raw = raw(template);
        call!(
            m,
            C_SetAttributeValue,
            session,
            object,
            raw.as_mut_ptr(),
            raw.len() as CK_ULONG
        )
    };
    let public = m.one(session, CKO_PUBLIC_KEY, "p256");
    let private = m.one(session, CKO_PRIVATE_KEY, "p256");
    assert_eq!(
        set(
            session,
            public,
            &[(CKA_ID, &[9; 20]), (CKA_LABEL, b"renamed")]
        ),
        CKR_OK
    );
    assert_eq!(m.one(session, CKO_PRIVATE_KEY, "renamed"), private);
    assert_eq!(m.attribute(session, private, CKA_ID).unwrap(), [9; 20]);
    assert_eq!(
        set(session, private, &[(CKA_LABEL, b"")]),
        CKR_ATTRIBUTE_VALUE_INVALID
    );
    assert_eq!(
        set(session, private, &[(CKA_LABEL, &[b'x'; 256])]),
        CKR_ATTRIBUTE_VALUE_INVALID
    );
    assert_eq!(
        set(session, private, &[(CKA_EXTRACTABLE, TRUE)]),
        CKR_ATTRIBUTE_READ_ONLY
    );
    assert_eq!(set(session, private, &[(CKA_EXTRACTABLE, FALSE)]), CKR_OK);
    let reader = m.session_with(CKF_SERIAL_SESSION);
    assert_eq!(
        set(reader, private, &[(CKA_LABEL, b"no")]),
        CKR_SESSION_READ_ONLY
    );
}

/// Fails where `key_pair` makes a token key of a session key, or ignores CKA_EXTRACTABLE.
#[test]
fn key_pairs_are_made_as_asked_or_not_at_all() {
    let m = Module::new();
    let session = m.session();
    let made = |template: &[(CK_ATTRIBUTE_TYPE, &[u8])]| generate(&m, session, template).0;
    assert_eq!(made(&[]), CKR_TEMPLATE_INCONSISTENT);
    assert_eq!(made(&[(CKA_TOKEN, FALSE)]), CKR_TEMPLATE_INCONSISTENT);
    assert_eq!(
        made(&[(CKA_TOKEN, TRUE), (CKA_EXTRACTABLE, TRUE)]),
        CKR_TEMPLATE_INCONSISTENT
    );
    assert_eq!(made(&[(CKA_TOKEN, b"")]), CKR_ATTRIBUTE_VALUE_INVALID);
    // As pkcs11-tool gives it, which asks for what the key cannot do as well.
    let (rv, _, private) = generate(
        &m,
        session,
        &[
            (CKA_CLASS, &CKO_PRIVATE_KEY.to_ne_bytes()),
            (CKA_TOKEN, TRUE),
            (CKA_PRIVATE, TRUE),
            (CKA_SENSITIVE, TRUE),
            (CKA_KEY_TYPE, &CKK_EC.to_ne_bytes()),
            (CKA_SIGN, TRUE),
            (CKA_DERIVE, TRUE),
            (CKA_DECRYPT, TRUE),
            (CKA_ID, &[1, 2]),
        ],
    );
    assert_eq!(rv, CKR_OK);
    let value = |kind| m.attribute(session, private, kind).unwrap();
    assert_eq!(value(CKA_ID), [1, 2]);
    assert_eq!(
        [value(CKA_SIGN), value(CKA_DERIVE), value(CKA_DECRYPT)],
        [TRUE, TRUE, FALSE]
    );
    assert_eq!(
        [
            value(CKA_SENSITIVE),
            value(CKA_EXTRACTABLE),
            value(CKA_LOCAL)
        ],
        [TRUE, FALSE, TRUE]
    );
}

/// Fails where the secret is cut at its end.
#[test]
fn secrets_are_agreed_on_and_read() {
    let m = Module::new();
    let session = m.session();
    let key = m.one(session, CKO_PRIVATE_KEY, "p256");
    let point = m.attribute(session, key, CKA_EC_POINT).unwrap();
    let derive = |point: &[u8], template: &[(CK_ATTRIBUTE_TYPE, &[u8])]| {
        let mut parameter = CK_ECDH1_DERIVE_PARAMS {
            kdf: CKD_NULL,
            ulSharedDataLen: 0,
            pSharedData: null_mut(),
            ulPublicDataLen: point.len() as CK_ULONG,
            pPublicData: point.as_ptr().cast_mut(),
        };
        let (mut template, mut secret) = (raw(template), 0);
        let mut mechanism = with_parameter(CKM_ECDH1_DERIVE, &mut parameter);
        let rv = call!(
            m,
            C_DeriveKey,
            session,
            &mut mechanism,
            key,
            template.as_mut_ptr(),
            template.len() as CK_ULONG,
            &mut secret
        );
        (rv, secret)
    };
    // As Java gives it: with itself here.
    let java: [(_, &[u8]); 2] = [
        (CKA_CLASS, &CKO_SECRET_KEY.to_ne_bytes()),
        (CKA_KEY_TYPE, &CKK_GENERIC_SECRET.to_ne_bytes()),
    ];
    let (rv, whole) = derive(&point, &java);
    assert_eq!(rv, CKR_OK);
    let whole_value = m.attribute(session, whole, CKA_VALUE).unwrap();
    assert_eq!(whole_value.len(), 32);
    let (rv, short) = derive(
        &point[2..],
        &[
            (CKA_VALUE_LEN, &16_u64.to_ne_bytes()),
            (CKA_LABEL, b"short"),
        ],
    );
    assert_eq!(rv, CKR_OK);
    assert_eq!(
        m.attribute(session, short, CKA_VALUE).unwrap(),
        whole_value[16..]
    );
    let (_, hidden) = derive(&point, &[(CKA_SENSITIVE, TRUE)]);
    assert_eq!(
        m.attribute(session, hidden, CKA_VALUE),
        Err(CKR_ATTRIBUTE_SENSITIVE)
    );
    assert_eq!(derive(&[4; 65], &[]).0, CKR_MECHANISM_PARAM_INVALID);
    assert_eq!(
        derive(&point, &[(CKA_TOKEN, TRUE)]).0,
        CKR_TEMPLATE_INCONSISTENT
    );
    // NULL inside of the parameter.
    let mut parameter = CK_ECDH1_DERIVE_PARAMS {
        kdf: CKD_NULL,
        ulSharedDataLen: 0,
        pSharedData: null_mut(),
        ulPublicDataLen: 65,
        pPublicData: null_mut(),
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
    assert_eq!(rv, CKR_MECHANISM_PARAM_INVALID);
    // It is another session's too, until the one that made it ends.
    let other = m.session();
    assert_eq!(m.one(other, CKO_SECRET_KEY, "short"), short);
    assert_eq!(call!(m, C_CloseSession, session), CKR_OK);
    assert_eq!(
        m.attribute(other, short, CKA_VALUE),
        Err(CKR_OBJECT_HANDLE_INVALID)
    );
}

/// Fails where `check` lets the library's error through.
#[test]
fn signatures_are_verified_with_keys_of_anybody() {
    let m = Module::new();
    let session = m.session();
    let key = m.one(session, CKO_PRIVATE_KEY, "p256");
    let class = CKO_PUBLIC_KEY.to_ne_bytes();
    let (params, point) = (
        m.attribute(session, key, CKA_EC_PARAMS).unwrap(),
        m.attribute(session, key, CKA_EC_POINT).unwrap(),
    );
    let mut template = raw(&[
        (CKA_CLASS, &class),
        (CKA_KEY_TYPE, &CKK_EC.to_ne_bytes()),
        (CKA_EC_PARAMS, &params),
        (CKA_EC_POINT, &point),
    ]);
    let mut foreign = 0;
    let reader = m.session_with(CKF_SERIAL_SESSION);
    let rv = call!(
        m,
        C_CreateObject,
        reader,
        template.as_mut_ptr(),
        template.len() as CK_ULONG,
        &mut foreign
    );
    assert_eq!(rv, CKR_OK);
    assert_eq!(m.sign_init(session, CKM_ECDSA_SHA256, key), CKR_OK);
    let signature = m.sign(session, b"hello").unwrap();
    let verify = |data: &[u8], signature: &[u8]| {
        assert_eq!(
            call!(
                m,
                C_VerifyInit,
                session,
                &mut bare(CKM_ECDSA_SHA256),
                foreign
            ),
            CKR_OK
        );
        call!(
            m,
            C_Verify,
            session,
            data.as_ptr().cast_mut(),
            data.len() as CK_ULONG,
            signature.as_ptr().cast_mut(),
            signature.len() as CK_ULONG
        )
    };
    assert_eq!(verify(b"hello", &signature), CKR_OK);
    assert_eq!(verify(b"hullo", &signature), CKR_SIGNATURE_INVALID);
    assert_eq!(verify(b"hello", &signature[1..]), CKR_SIGNATURE_LEN_RANGE);
}

/// Fails where a too short buffer ends the decryption.
#[test]
fn oaep_decrypts_once_for_any_buffer() {
    let m = Module::new();
    let session = m.session();
    let key = m.one(session, CKO_PRIVATE_KEY, "rsa");
    fs::write(
        m.dir.path().join("pub"),
        m.attribute(session, key, CKA_PUBLIC_KEY_INFO).unwrap(),
    )
    .unwrap();
    fs::write(m.dir.path().join("plain"), "secret").unwrap();
    let made = Command::new("openssl")
        .current_dir(m.dir.path())
        .args([
            "pkeyutl", "-encrypt", "-pubin", "-keyform", "DER", "-inkey", "pub", "-in", "plain",
            "-out", "cipher",
        ])
        .args([
            "-pkeyopt",
            "rsa_padding_mode:oaep",
            "-pkeyopt",
            "rsa_oaep_md:sha256",
        ])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let mut cipher = fs::read(m.dir.path().join("cipher")).unwrap();
    let mut parameter = CK_RSA_PKCS_OAEP_PARAMS {
        hashAlg: CKM_SHA256,
        mgf: CKG_MGF1_SHA256,
        source: CKZ_DATA_SPECIFIED,
        pSourceData: null_mut(),
        ulSourceDataLen: 0,
    };
    let mut mechanism = with_parameter(CKM_RSA_PKCS_OAEP, &mut parameter);
    assert_eq!(
        call!(m, C_DecryptInit, session, &mut mechanism, key),
        CKR_OK
    );
    let (mut plain, mut length) = ([0; 256], 0);
    let mut decrypt = |plain: *mut u8, length: &mut CK_ULONG| {
        call!(
            m,
            C_Decrypt,
            session,
            cipher.as_mut_ptr(),
            256,
            plain,
            length
        )
    };
    assert_eq!((decrypt(null_mut(), &mut length), length), (CKR_OK, 190));
    length = 5;
    assert_eq!(
        (decrypt(plain.as_mut_ptr(), &mut length), length),
        (CKR_BUFFER_TOO_SMALL, 6)
    );
    assert_eq!(
        (decrypt(plain.as_mut_ptr(), &mut length), length),
        (CKR_OK, 6)
    );
    assert_eq!(&plain[..6], b"secret");
    cipher[9] ^= 1;
    assert_eq!(
        call!(m, C_DecryptInit, session, &mut mechanism, key),
        CKR_OK
    );
    length = 256;
    let rv = call!(
        m,
        C_Decrypt,
        session,
        cipher.as_mut_ptr(),
        256,
        plain.as_mut_ptr(),
        &mut length
    );
    assert_eq!(rv, CKR_ENCRYPTED_DATA_INVALID);
}
