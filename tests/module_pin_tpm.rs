//! What tests/module_pin.rs cannot show on a file: PINs that a TPM counts, a key service that ends,
//! and TPMs that are others than they were. swtpm, devkeyd and the built module. Each comment says
//! what was changed to see the test fail.
#![cfg(feature = "tpm")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what cannot go on has failed"
)]

#[path = "common/module.rs"]
mod module;
#[path = "common/pins.rs"]
mod pins;
#[path = "common/tpm.rs"]
mod tpm;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cryptoki_sys::*;
use devkey::store::{Role, Store};
use module::{Module, call, with_parameter};
use pins::{RW, SO, USER, given, init_token, login, made_token_works, open, token_info};
use rustix::process::{Pid, Signal, kill_process};
use tpm::Swtpm;

/// A TPM, and an initialised module on a token of it with both PINs, or on a place for one.
struct Board {
    // Declared first: the key service ends before the TPM does.
    m: Module,
    swtpm: Swtpm,
}

impl Board {
    fn blank() -> Self {
        let m = Module::without_tokens();
        // Under a name of its own, to know it by.
        fs::copy(env!("CARGO_BIN_EXE_devkeyd"), devkeyd(&m)).unwrap();
        let swtpm = Swtpm::start();
        let config = format!(
            "store = {:?}\ndevkeyd = {:?}\n[token.default]\ninitialise = true\n\
             back_end = 'tpm'\ntcti = '{}'\n",
            m.dir.path(),
            devkeyd(&m),
            swtpm.tcti()
        );
        module::write(&m.dir.path().join("devkey.toml"), &config);
        Board { m, swtpm }
    }

    fn new() -> Self {
        let board = Board::blank();
        let [user, so] = [("user", USER), ("so", SO)].map(|(name, pin)| {
            let path = board.m.dir.path().join(name);
            module::write(&path, pin);
            path
        });
        board.devkey(
            &["init", "--tpm", "--tcti", &board.swtpm.tcti(), "--pin"],
            &[("--pin-file", &user), ("--so-pin-file", &so)],
        );
        for (label, kind) in [("p256", "ec-p256"), ("rsa", "rsa-2048")] {
            let key = ["key", "new", "--kind", kind, label];
            board.devkey(&key, &[("--pin-file", &user)]);
        }
        board.m.initialize();
        board
    }

    fn devkey(&self, args: &[&str], files: &[(&str, &PathBuf)]) {
        let output = Command::new(env!("CARGO_BIN_EXE_devkey"))
            .args(args)
            .args(
                files
                    .iter()
                    .flat_map(|(flag, path)| [Path::new(flag), path]),
            )
            .env("DEVKEY_CONFIG", self.m.dir.path().join("devkey.toml"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
    }

    fn session(&self) -> CK_SESSION_HANDLE {
        open(&self.m, self.m.slots()[0], RW).unwrap()
    }

    fn state(&self, session: CK_SESSION_HANDLE) -> CK_STATE {
        let mut info = CK_SESSION_INFO::default();
        assert_eq!(call!(self.m, C_GetSessionInfo, session, &mut info), CKR_OK);
        info.state
    }

    fn sign(&self, session: CK_SESSION_HANDLE) -> Result<Vec<u8>, CK_RV> {
        let key = self.m.one(session, CKO_PRIVATE_KEY, "p256");
        assert_eq!(self.m.sign_init(session, CKM_ECDSA, key), CKR_OK);
        self.m.sign(session, &[7; 32])
    }

    fn used(&self) -> u32 {
        let store = Store::open(&self.m.token_dir()).unwrap();
        store.tries_used(Role::User).unwrap()
    }

    /// Ends the key service at rest, as a crash would. Amid its work it would leave a session in the TPM,
    /// which has no resource manager here, and after some of these there is no room.
    fn kill_service(&self) {
        std::thread::sleep(Duration::from_millis(500));
        let service = devkeyd(&self.m);
        let runs = || {
            let all = fs::read_dir("/proc").unwrap().flatten();
            let exe = |entry: &fs::DirEntry| fs::read_link(entry.path().join("exe")).ok();
            let ours = all.filter(|entry| exe(entry).as_deref() == Some(&service));
            let pids = ours.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            pids.collect::<Vec<i32>>()
        };
        let [pid] = runs()[..] else {
            panic!("not one key service");
        };
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        let began = Instant::now();
        while !runs().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(10));
        }
    }
}

fn devkeyd(m: &Module) -> PathBuf {
    m.dir
        .path()
        .canonicalize()
        .unwrap()
        .join("devkeyd-of-this-test")
}

/// A key service that ended took the login with it, and the module says so as soon as it knows:
/// the user's at a signature, the SO's at C_InitPIN. The next login is as good as the first.
///
/// Fails without the call of `login_is_lost`, and without `end_login` in `init_pin`.
#[test]
fn r13_a_login_ends_with_the_key_service() {
    let board = Board::new();
    let (m, session) = (&board.m, board.session());
    assert_eq!(login(m, session, CKU_USER, USER), CKR_OK);
    board.sign(session).unwrap();
    let key = m.one(session, CKO_PRIVATE_KEY, "p256");
    board.kill_service();
    assert_eq!(board.sign(session), Err(CKR_USER_NOT_LOGGED_IN));
    assert_eq!(board.state(session), CKS_RW_PUBLIC_SESSION);
    assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_KEY_HANDLE_INVALID);
    assert_eq!(call!(m, C_Logout, session), CKR_USER_NOT_LOGGED_IN);
    assert_eq!(login(m, session, CKU_USER, USER), CKR_OK);
    board.sign(session).unwrap();
    // Logged out by a service that is not there any more: that is what it is then.
    board.kill_service();
    assert_eq!(call!(m, C_Logout, session), CKR_OK);
    assert_eq!(login(m, session, CKU_SO, SO), CKR_OK);
    board.kill_service();
    let (at, length) = given(b"4321");
    let init = || call!(m, C_InitPIN, session, at, length);
    assert_eq!(init(), CKR_USER_NOT_LOGGED_IN);
    assert_eq!(board.state(session), CKS_RW_PUBLIC_SESSION);
    assert_eq!(login(m, session, CKU_SO, SO), CKR_OK);
    assert_eq!(init(), CKR_OK);
    assert_eq!(call!(m, C_Logout, session), CKR_OK);
    assert_eq!(login(m, session, CKU_USER, b"4321"), CKR_OK);
    board.sign(session).unwrap();
}

/// The TPM's own counter, through the module: wrong PINs count there and nowhere else, the same one
/// once, and the last try is kept back from programs. The SO unlocks.
///
/// Fails where the module's `login` passes on `true` for `last_try`: the last try is then used up.
#[test]
fn r10_a_tpm_counts_and_keeps_its_last_try() {
    let board = Board::new();
    let (m, session) = (&board.m, board.session());
    let flags = || token_info(m, m.slots()[0]).flags;
    let all = CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED;
    assert_eq!(flags() & all, 0);
    for number in 1..10 {
        let wrong = format!("000{number}");
        for _ in 0..2 {
            let rv = login(m, session, CKU_USER, wrong.as_bytes());
            assert_eq!(rv, CKR_PIN_INCORRECT);
        }
        assert_eq!(board.used(), number);
        let last = if number == 9 {
            CKF_USER_PIN_FINAL_TRY
        } else {
            0
        };
        assert_eq!(flags() & all, CKF_USER_PIN_COUNT_LOW | last);
    }
    for pin in [USER, b"another"] {
        assert_eq!(login(m, session, CKU_USER, pin), CKR_PIN_LOCKED);
        assert_eq!(board.used(), 9);
    }
    let properties = board.swtpm.tool("tpm2_getcap", &["properties-variable"]);
    assert!(
        properties.contains("TPM2_PT_LOCKOUT_COUNTER: 0x0"),
        "{properties}"
    );
    assert_eq!(login(m, session, CKU_SO, SO), CKR_OK);
    let (at, length) = given(USER);
    assert_eq!(call!(m, C_InitPIN, session, at, length), CKR_OK);
    assert_eq!(call!(m, C_Logout, session), CKR_OK);
    assert_eq!(flags() & all, 0);
    assert_eq!(login(m, session, CKU_USER, USER), CKR_OK);
    board.sign(session).unwrap();
}

/// C_InitToken makes a TPM token through the key service, and empties it.
///
/// Fails where the service answers `Request::Create` without doing anything.
#[test]
fn r09_a_token_is_made_in_a_tpm() {
    let board = Board::blank();
    let m = &board.m;
    m.initialize();
    let slot = m.slots()[0];
    let flags = || token_info(m, slot).flags & CKF_TOKEN_INITIALIZED;
    assert_eq!(flags(), 0);
    assert_eq!(init_token(m, slot, b"123", "made"), CKR_PIN_LEN_RANGE);
    assert_eq!(init_token(m, slot, SO, "made"), CKR_OK);
    made_token_works(m, slot, "made");
    assert_eq!(init_token(m, slot, b"0000", "again"), CKR_PIN_INCORRECT);
    assert_eq!(init_token(m, slot, SO, "again"), CKR_OK);
    made_token_works(m, slot, "again");
}

/// A TPM that was cleared, and another one: no login, no key, no try; what is public stays.
///
/// Fails where `Error::OtherDevice` becomes CKR_PIN_INCORRECT in rv.rs.
#[test]
fn another_tpm_takes_no_pin() {
    let mut board = Board::new();
    board.swtpm.tool("tpm2_clear", &[]);
    refuses(&board);
    board.swtpm.replace();
    refuses(&board);
}

fn refuses(board: &Board) {
    let (m, session) = (&board.m, board.session());
    assert_eq!(login(m, session, CKU_USER, USER), CKR_DEVICE_ERROR);
    assert_eq!(login(m, session, CKU_SO, SO), CKR_DEVICE_ERROR);
    let ((old, size), (new, _)) = (given(USER), given(b"4321"));
    let rv = call!(m, C_SetPIN, session, old, size, new, 4);
    assert_eq!(rv, CKR_DEVICE_ERROR);
    assert_eq!(board.used(), 0);
    assert_eq!(board.state(session), CKS_RW_PUBLIC_SESSION);
    m.one(session, CKO_PUBLIC_KEY, "p256");
    assert_eq!(call!(m, C_CloseSession, session), CKR_OK);
}

/// R21. A PSS salt is as long as the hash, verified by OpenSSL, which is told that length; another
/// length is refused before there is data.
///
/// Fails without the comparison of `sLen` in mech.rs. A TPM whose salts are of another length fails
/// the self-test at `devkey init`, and its token lists no PSS.
#[test]
fn r21_pss_salts_are_as_long_as_the_hash() {
    let board = Board::new();
    let session = board.session();
    assert_eq!(login(&board.m, session, CKU_USER, USER), CKR_OK);
    salts_are_as_long_as_the_hash(&board.m, session);
    drop(board);
    let m = Module::new();
    salts_are_as_long_as_the_hash(&m, m.session());
}

fn salts_are_as_long_as_the_hash(m: &Module, session: CK_SESSION_HANDLE) {
    let key = m.one(session, CKO_PRIVATE_KEY, "rsa");
    let spki = m.attribute(session, key, CKA_PUBLIC_KEY_INFO).unwrap();
    for (hash, mgf, size, name) in [
        (CKM_SHA256, CKG_MGF1_SHA256, 32, "sha256"),
        (CKM_SHA384, CKG_MGF1_SHA384, 48, "sha384"),
        (CKM_SHA512, CKG_MGF1_SHA512, 64, "sha512"),
    ] {
        let init = |salt: usize| {
            let mut parameter = CK_RSA_PKCS_PSS_PARAMS {
                hashAlg: hash,
                mgf,
                sLen: salt as CK_ULONG,
            };
            let mut mechanism = with_parameter(CKM_RSA_PKCS_PSS, &mut parameter);
            call!(m, C_SignInit, session, &mut mechanism, key)
        };
        for other in [0, size - 1, size + 1, 222] {
            assert_eq!(init(other), CKR_MECHANISM_PARAM_INVALID);
        }
        assert_eq!(init(size), CKR_OK);
        let digest = vec![7; size];
        let signature = m.sign(session, &digest).unwrap();
        assert!(verifies(name, size, &spki, &digest, &signature), "{name}");
        assert!(
            !verifies(name, size - 1, &spki, &digest, &signature),
            "{name}"
        );
    }
}

/// `openssl pkeyutl -verify` of a digest, with the length of the salt that there must be.
fn verifies(hash: &str, salt: usize, spki: &[u8], digest: &[u8], signature: &[u8]) -> bool {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in [("spki", spki), ("digest", digest), ("sig", signature)] {
        fs::write(dir.path().join(name), content).unwrap();
    }
    let verified = Command::new("openssl")
        .args(["pkeyutl", "-verify", "-pubin", "-keyform", "DER"])
        .args(["-inkey", "spki", "-in", "digest", "-sigfile", "sig"])
        .args(["-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt"])
        .arg(format!("digest:{hash}"))
        .arg("-pkeyopt")
        .arg(format!("rsa_pss_saltlen:{salt}"))
        .current_dir(dir.path())
        .output()
        .unwrap();
    verified.status.success()
}
