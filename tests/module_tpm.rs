//! Rules of tests/module_rules.rs that a TPM may break where a file does not: swtpm, devkeyd and
//! the built module. Each comment says what was changed in the module to see the test fail.
#![cfg(feature = "tpm")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
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
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use board::Board;
use cryptoki_sys::*;
use devkey::key::{Hash, KeyKind, PublicKey, Scheme, ecdsa_input};
use module::{Module, call, in_child};

/// Longer than devkeyd keeps an idle connection to a TPM that serves one at a time.
const IDLE: Duration = Duration::from_millis(500);

fn signs(m: &Module, session: CK_SESSION_HANDLE, label: &str) {
    let key = m.one(session, CKO_PRIVATE_KEY, label);
    assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
    assert_eq!(m.sign(session, &[7; 32]).unwrap().len(), 64);
}

/// The Unix sockets of this process, and whether each is closed in a program that it starts.
fn sockets() -> BTreeSet<(i32, bool)> {
    let open = fs::read_dir("/proc/self/fd").unwrap();
    let numbers = open.map(|entry| entry.unwrap().file_name().to_string_lossy().parse());
    let numbers: Vec<i32> = numbers.map(Result::unwrap).collect();
    let unix = numbers
        .into_iter()
        .filter(|fd| domain(*fd) == libc::AF_UNIX);
    // SAFETY: reads the flags of a descriptor.
    let closed = |fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } & libc::FD_CLOEXEC != 0;
    unix.map(|fd| (fd, closed(fd))).collect()
}

/// The address family of a socket; -1 for what is none.
fn domain(fd: i32) -> i32 {
    let (mut domain, mut length) = (-1, size_of::<i32>() as libc::socklen_t);
    let to = (&raw mut domain).cast();
    // SAFETY: an integer is written to an integer.
    unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, to, &mut length) };
    domain
}

/// A child closes the socket that it inherits, sends nothing on it and has one of its own; the
/// parent's goes on. Fails without `close_inherited` in `forget`; where `forget` drops what it
/// inherited the service ends with the parent's socket shut.
#[test]
fn r05_a_child_lets_go_of_its_parents_service() {
    let board = Board::new();
    let m = &board.module;
    let without = sockets();
    let session = m.session();
    signs(m, session, "p256");
    let with = sockets();
    let ours: Vec<_> = with.difference(&without).copied().collect();
    assert!(ours.len() == 1 && ours[0].1, "{ours:?}");
    thread::sleep(IDLE);
    board.proxy.take();
    let child = |sign: bool| {
        in_child(|| {
            assert_eq!(sockets(), with);
            m.initialize();
            assert_eq!(sockets(), without);
            let session = m.session();
            let key = m.one(session, CKO_PRIVATE_KEY, "p256");
            if sign {
                assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
                assert_eq!(m.sign(session, &[7; 32]).unwrap().len(), 64);
                assert!(sockets().difference(&without).all(|(_, closed)| *closed));
            }
            (call!(m, C_Finalize, null_mut()) != CKR_OK).into()
        })
    };
    assert_eq!(child(false), 0);
    assert_eq!(board.proxy.take(), [0; 0], "the TPM was not to be asked");
    assert_eq!(child(true), 0);
    signs(m, session, "p256");
    assert_eq!(sockets(), with);
}

static FORKS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// fork(2) calls the handlers of pthread_atfork(3), posix_spawn(3) does not. Fails where `start` in
/// raw.rs forks, where `wait` waits for nobody, or where `Slot::open` starts a thread.
#[test]
fn r06_the_service_is_spawned_and_not_forked() {
    let board = Board::loaded();
    let m = &board.module;
    let status = in_child(|| {
        // SAFETY: a function of this program's.
        let registered = unsafe { libc::pthread_atfork(Some(count_fork), None, None) };
        assert_eq!(registered, 0);
        m.initialize();
        signs(m, m.session(), "p256");
        assert_eq!(fs::read_dir("/proc/self/task").unwrap().count(), 1);
        let children = fs::read_to_string("/proc/thread-self/children").unwrap();
        assert_eq!(children, "");
        FORKS.load(Ordering::Relaxed) as i32
    });
    assert_eq!(status, 0);
}

/// Fails where `Slot::open` looks for the device, or `signed` signs before it compares.
#[test]
fn r23_nothing_but_a_signature_asks_the_tpm() {
    let board = Board::loaded();
    let m = &board.module;
    thread::sleep(IDLE);
    board.proxy.take();
    m.initialize();
    let session = m.session();
    let key = m.one(session, CKO_PRIVATE_KEY, "p256");
    assert_eq!(m.find(session, &[]).len(), 4);
    m.attribute(session, key, CKA_EC_POINT).unwrap();
    assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
    let (mut data, mut length) = ([7; 32], 0);
    let data = data.as_mut_ptr();
    let asked = call!(m, C_Sign, session, data, 32, null_mut(), &mut length);
    assert_eq!((asked, length), (CKR_OK, 64));
    assert_eq!(board.proxy.take(), [0; 0], "the TPM was not to be asked");
    assert_eq!(m.sign(session, &[7; 32]).unwrap().len(), 64);
    assert!(!board.proxy.take().is_empty());
}

/// Fails with CKF_LOGIN_REQUIRED in `info::token`, or where `info::is_hardware` knows no "tpm".
#[test]
fn r12_a_tpm_token_has_no_pin_either() {
    let board = Board::new();
    let m = &board.module;
    let (mut token, mut slot) = (CK_TOKEN_INFO::default(), CK_SLOT_INFO::default());
    assert_eq!(call!(m, C_GetTokenInfo, m.slots()[0], &mut token), CKR_OK);
    assert_eq!(call!(m, C_GetSlotInfo, m.slots()[0], &mut slot), CKR_OK);
    let flags = CKF_TOKEN_INITIALIZED | CKF_USER_PIN_INITIALIZED | CKF_RNG;
    assert_eq!(token.flags, flags);
    assert_eq!(slot.flags, CKF_TOKEN_PRESENT | CKF_HW_SLOT);
    let session = m.session();
    let login = call!(m, C_Login, session, CKU_USER, null_mut(), 0);
    assert_eq!(login, CKR_OK);
    signs(m, session, "p256");
}

/// Fails where `Plan::finish` takes a digest without fitting it: the TPM answers an error.
#[test]
fn r20_digests_of_any_length_and_digest_infos_on_a_tpm() {
    let board = Board::new();
    let m = &board.module;
    let session = m.session();
    let public = |key| {
        let spki = m.attribute(session, key, CKA_PUBLIC_KEY_INFO).unwrap();
        PublicKey::from_spki(&spki).unwrap()
    };
    let key = m.one(session, CKO_PRIVATE_KEY, "p256");
    for length in [1, 20, 28, 32, 48, 64] {
        let digest = vec![0x5a; length];
        assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
        let signature = m.sign(session, &digest).unwrap();
        assert_eq!(signature.len(), 64);
        let fitted = ecdsa_input(KeyKind::EcP256, &digest).unwrap();
        let verified = public(key).verify(Scheme::Ecdsa, &fitted, &signature);
        verified.unwrap();
    }
    let key = m.one(session, CKO_PRIVATE_KEY, "rsa");
    let sha256 = b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";
    let digest = Hash::Sha256.digest(b"hello");
    assert_eq!(m.sign_init(session, CKM_RSA_PKCS, key), CKR_OK);
    let info = [sha256.as_slice(), &digest].concat();
    let signature = m.sign(session, &info).unwrap();
    let scheme = Scheme::RsaPkcs1(Hash::Sha256);
    public(key).verify(scheme, &digest, &signature).unwrap();
    let sha1 = b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14";
    assert_eq!(m.sign_init(session, CKM_RSA_PKCS, key), CKR_OK);
    let info = [sha1.as_slice(), &[7; 20]].concat();
    assert_eq!(m.sign(session, &info), Err(CKR_DATA_INVALID));
}
