//! PINs through the built module: who is logged in, what is counted, what is seen, and tokens that
//! clients make. Rules R10 to R14 and R19 for tokens with PINs, as tests/module_rules.rs has them
//! for those without. Each comment says what was changed in the module to see the test fail.

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

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use cryptoki_sys::*;
use devkey::backends::file;
use devkey::key::{KeyKind, Usage};
use devkey::secret::Secret;
use devkey::store::{Role, Store};
use devkey::token::{KeyRequest, LocalToken, Login, Names, Pin, Pins, Token, TokenRequest};
use module::{Module, bound_by_modes, call, in_child, write};
use pins::{
    NULL, RW, SO, USER, generate, given, init_token, login, made_token_works, open, token_info,
};

const RO: CK_FLAGS = CKF_SERIAL_SESSION;
const TRIES: u32 = 4;

fn pin(text: &[u8]) -> Pin {
    Pin::new(Secret::new(text.to_vec())).unwrap()
}

/// A file token with PINs and the key "p256".
fn make(dir: &Path, label: &str, user: &[u8], so: Option<&[u8]>) -> LocalToken {
    let (user, so) = (pin(user), so.map(pin));
    let request = TokenRequest {
        dir,
        label,
        settings: Default::default(),
        pins: Some(Pins {
            user: Some(&user),
            so: so.as_ref(),
            tries: TRIES,
        }),
    };
    let token = LocalToken::create(&file::BACK_END, &request).unwrap();
    token.login(Role::User, &user, false).unwrap();
    let request = KeyRequest {
        kind: KeyKind::EcP256,
        usage: Usage {
            sign: true,
            agree: true,
            decrypt: false,
        },
        names: Names {
            label: Some("p256".to_owned()),
            cka_id: None,
        },
    };
    token.generate(&request).unwrap();
    token
}

/// An initialised module on one token with both PINs.
struct Pinned {
    m: Module,
}

impl Pinned {
    fn new() -> Self {
        let m = Module::without_tokens();
        make(&m.token_dir(), "pinned", USER, Some(SO));
        m.initialize();
        Pinned { m }
    }

    fn slot(&self) -> CK_SLOT_ID {
        self.m.slots()[0]
    }

    fn open(&self, flags: CK_FLAGS) -> Result<CK_SESSION_HANDLE, CK_RV> {
        open(&self.m, self.slot(), flags)
    }

    fn session(&self) -> CK_SESSION_HANDLE {
        self.open(RW).unwrap()
    }

    fn login(&self, session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: &[u8]) -> CK_RV {
        login(&self.m, session, user, pin)
    }

    /// The tries used of both PINs, as they are on the disk.
    fn used(&self) -> [u32; 2] {
        used(&self.m.token_dir())
    }

    fn state(&self, session: CK_SESSION_HANDLE) -> CK_STATE {
        let mut info = CK_SESSION_INFO::default();
        assert_eq!(call!(self.m, C_GetSessionInfo, session, &mut info), CKR_OK);
        info.state
    }

    fn flags(&self) -> CK_FLAGS {
        token_info(&self.m, self.slot()).flags
    }

    fn set_pin(&self, session: CK_SESSION_HANDLE, old: &[u8], new: &[u8]) -> CK_RV {
        let (old, new) = (given(old), given(new));
        call!(self.m, C_SetPIN, session, old.0, old.1, new.0, new.1)
    }

    fn init_pin(&self, session: CK_SESSION_HANDLE, pin: &[u8]) -> CK_RV {
        let pin = given(pin);
        call!(self.m, C_InitPIN, session, pin.0, pin.1)
    }

    fn private_keys(&self, session: CK_SESSION_HANDLE) -> Vec<CK_OBJECT_HANDLE> {
        let class = CKO_PRIVATE_KEY.to_ne_bytes();
        self.m.find(session, &[(CKA_CLASS, &class)])
    }
}

fn used(dir: &Path) -> [u32; 2] {
    let store = Store::open(dir).unwrap();
    [Role::User, Role::So].map(|role| store.tries_used(role).unwrap())
}

/// Fails with a flag of the user's among the SO's, with CKF_USER_PIN_FINAL_TRY where it is locked, and
/// where `tried` looks for `left <= pin.of`.
#[test]
fn r10_flags_of_pins_are_fresh_at_each_call() {
    let p = Pinned::new();
    let session = p.session();
    let always = CKF_RNG | CKF_TOKEN_INITIALIZED | CKF_LOGIN_REQUIRED | CKF_USER_PIN_INITIALIZED;
    assert_eq!(p.flags(), always);
    let info = token_info(&p.m, p.slot());
    assert_eq!((info.ulMinPinLen, info.ulMaxPinLen), (4, 32));
    let user = [
        CKF_USER_PIN_COUNT_LOW,
        CKF_USER_PIN_COUNT_LOW,
        CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY,
        CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_LOCKED,
    ];
    let so = [
        CKF_SO_PIN_COUNT_LOW,
        CKF_SO_PIN_COUNT_LOW,
        CKF_SO_PIN_COUNT_LOW | CKF_SO_PIN_FINAL_TRY,
        CKF_SO_PIN_COUNT_LOW | CKF_SO_PIN_LOCKED,
    ];
    for (number, wanted) in user.into_iter().enumerate() {
        let wrong = format!("000{number}");
        assert_eq!(
            p.login(session, CKU_USER, wrong.as_bytes()),
            CKR_PIN_INCORRECT
        );
        assert_eq!(p.flags(), always | wanted, "{number}");
    }
    assert_eq!(p.login(session, CKU_USER, USER), CKR_PIN_LOCKED);
    // The SO sets another PIN.
    assert_eq!(p.login(session, CKU_SO, SO), CKR_OK);
    assert_eq!(p.init_pin(session, b"4321"), CKR_OK);
    assert_eq!(p.flags(), always);
    assert_eq!(call!(p.m, C_Logout, session), CKR_OK);
    // Another process lets the user's be changed.
    let other = LocalToken::open(
        &file::BACK_END,
        Store::open(&p.m.token_dir()).unwrap(),
        &Default::default(),
    );
    let other = other.unwrap();
    other.login(Role::So, &pin(SO), false).unwrap();
    other.init_pin(&pin(b"5555"), true).unwrap();
    assert_eq!(p.flags(), always | CKF_USER_PIN_TO_BE_CHANGED);
    assert_eq!(p.set_pin(session, b"5555", USER), CKR_OK);
    assert_eq!(p.flags(), always);
    for (number, wanted) in so.into_iter().enumerate() {
        let wrong = format!("000{number}");
        assert_eq!(
            p.login(session, CKU_SO, wrong.as_bytes()),
            CKR_PIN_INCORRECT
        );
        assert_eq!(p.flags(), always | wanted, "{number}");
    }
    assert_eq!(p.login(session, CKU_SO, SO), CKR_PIN_LOCKED);
}

/// What cannot be a PIN, wherever one is given: the exact answer, and no try is counted.
///
/// Fails with `old_pin` and `new_pin` exchanged in any function, with the order of the two turned
/// round in `set_pin`, and where `given` takes NULL for an empty PIN.
#[test]
fn r11_what_cannot_be_a_pin_costs_nothing() {
    let p = Pinned::new();
    let long = [b'1'; 33];
    let bad: [(&[u8], CK_RV, CK_RV); 6] = [
        (NULL, CKR_ARGUMENTS_BAD, CKR_ARGUMENTS_BAD),
        (b"", CKR_PIN_LEN_RANGE, CKR_PIN_LEN_RANGE),
        (b"123", CKR_PIN_LEN_RANGE, CKR_PIN_LEN_RANGE),
        (&long, CKR_PIN_LEN_RANGE, CKR_PIN_LEN_RANGE),
        (b"12\xff45", CKR_PIN_INCORRECT, CKR_PIN_INVALID),
        (b"12\x0034", CKR_PIN_INCORRECT, CKR_PIN_INVALID),
    ];
    for (malformed, old, new) in bad {
        let session = p.session();
        assert_eq!(p.login(session, CKU_USER, malformed), old);
        assert_eq!(p.login(session, CKU_SO, malformed), old);
        assert_eq!(p.set_pin(session, malformed, b"4321"), old);
        // The new one is looked at before the old one is tried.
        assert_eq!(p.set_pin(session, b"0000", malformed), new);
        assert_eq!(p.login(session, CKU_SO, SO), CKR_OK);
        assert_eq!(p.init_pin(session, malformed), new);
        assert_eq!(call!(p.m, C_CloseAllSessions, p.slot()), CKR_OK);
        assert_eq!(init_token(&p.m, p.slot(), malformed, "x"), old);
        assert_eq!(p.used(), [0, 0], "{malformed:?}");
        assert_eq!(
            p.flags() & (CKF_USER_PIN_COUNT_LOW | CKF_SO_PIN_COUNT_LOW),
            0
        );
    }
    // A length without a place is no PIN either.
    let session = p.session();
    let rv = call!(p.m, C_Login, session, CKU_USER, null_mut(), 4);
    assert_eq!(rv, CKR_ARGUMENTS_BAD);
    // The shortest and the longest.
    for (old, new) in [(USER, &long[..32]), (&long[..32], USER)] {
        assert_eq!(p.set_pin(session, old, new), CKR_OK);
        assert_eq!(p.login(session, CKU_USER, new), CKR_OK);
        assert_eq!(call!(p.m, C_Logout, session), CKR_OK);
    }
}

/// What each wrong PIN costs, and a locked one, as it is on the disk.
///
/// Fails with `was_wrong` of the library false always: the same PIN then costs a second try.
#[test]
fn a_wrong_pin_costs_one_try_and_the_same_one_no_other() {
    let p = Pinned::new();
    let session = p.session();
    let wrong = |pin: &[u8]| p.login(session, CKU_USER, pin);
    for (pin, rv, counted) in [
        (&b"0000"[..], CKR_PIN_INCORRECT, 1),
        (b"0000", CKR_PIN_INCORRECT, 1),
        (b"0001", CKR_PIN_INCORRECT, 2),
        (b"0000", CKR_PIN_INCORRECT, 3),
        (USER, CKR_OK, 0),
    ] {
        assert_eq!((wrong(pin), p.used()), (rv, [counted, 0]), "{pin:?}");
    }
    assert_eq!(call!(p.m, C_Logout, session), CKR_OK);
    // Old PINs of C_SetPIN count alike.
    assert_eq!(p.set_pin(session, b"9990", b"4321"), CKR_PIN_INCORRECT);
    assert_eq!(p.used(), [1, 0]);
    for number in 1..TRIES {
        let pin = format!("999{number}");
        assert_eq!(wrong(pin.as_bytes()), CKR_PIN_INCORRECT);
    }
    for _ in 0..2 {
        assert_eq!(wrong(USER), CKR_PIN_LOCKED);
        assert_eq!(p.set_pin(session, USER, b"4321"), CKR_PIN_LOCKED);
        assert_eq!(p.used(), [TRIES, 0]);
    }
    // A locked PIN of the user's locks nobody else out.
    assert_eq!(p.login(session, CKU_SO, SO), CKR_OK);
    assert_eq!(p.used(), [TRIES, 0]);
    assert_eq!(p.init_pin(session, USER), CKR_OK);
    assert_eq!(p.used(), [0, 0]);
    assert_eq!(call!(p.m, C_Logout, session), CKR_OK);
    assert_eq!(wrong(USER), CKR_OK);
    p.m.one(session, CKO_PRIVATE_KEY, "p256");
}

/// A login is of all sessions of a slot and of no other, in every state that there is.
///
/// Fails where `close` does not log out, where `session` of info.rs exchanges any two states, where
/// `allowed` does not look at the sessions, or `open` at who is logged in.
#[test]
fn r13_states_of_sessions() {
    let p = Pinned::new();
    let (writing, reading) = (p.session(), p.open(RO).unwrap());
    let states = || (p.state(writing), p.state(reading));
    assert_eq!(states(), (CKS_RW_PUBLIC_SESSION, CKS_RO_PUBLIC_SESSION));
    assert_eq!(call!(p.m, C_Logout, writing), CKR_USER_NOT_LOGGED_IN);
    assert_eq!(
        p.login(writing, CKU_CONTEXT_SPECIFIC, USER),
        CKR_OPERATION_NOT_INITIALIZED
    );
    assert_eq!(p.login(writing, 7, USER), CKR_USER_TYPE_INVALID);
    // The SO has no sessions that only read.
    assert_eq!(p.login(writing, CKU_SO, SO), CKR_SESSION_READ_ONLY_EXISTS);
    assert_eq!(p.login(reading, CKU_USER, USER), CKR_OK);
    assert_eq!(states(), (CKS_RW_USER_FUNCTIONS, CKS_RO_USER_FUNCTIONS));
    assert_eq!(
        p.login(writing, CKU_USER, b"0000"),
        CKR_USER_ALREADY_LOGGED_IN
    );
    let other = CKR_USER_ANOTHER_ALREADY_LOGGED_IN;
    assert_eq!(p.login(writing, CKU_SO, SO), other);
    assert_eq!(p.used(), [0, 0]);
    // A session that comes later is the user's too; only the last to go logs out.
    let late = p.open(RO).unwrap();
    assert_eq!(p.state(late), CKS_RO_USER_FUNCTIONS);
    assert_eq!(call!(p.m, C_CloseSession, reading), CKR_OK);
    assert_eq!(call!(p.m, C_CloseSession, late), CKR_OK);
    assert_eq!(p.state(writing), CKS_RW_USER_FUNCTIONS);
    assert_eq!(call!(p.m, C_CloseSession, writing), CKR_OK);
    let writing = p.session();
    assert_eq!(p.state(writing), CKS_RW_PUBLIC_SESSION);
    assert!(p.private_keys(writing).is_empty());
    // The SO: no keys, and no new session that only reads.
    assert_eq!(p.login(writing, CKU_SO, SO), CKR_OK);
    assert_eq!(p.state(writing), CKS_RW_SO_FUNCTIONS);
    assert_eq!(p.login(writing, CKU_USER, USER), other);
    assert_eq!(p.open(RO), Err(CKR_SESSION_READ_WRITE_SO_EXISTS));
    let second = p.session();
    assert_eq!(p.state(second), CKS_RW_SO_FUNCTIONS);
    assert!(p.private_keys(writing).is_empty());
    assert_eq!(generate(&p.m, writing), CKR_USER_NOT_LOGGED_IN);
    assert_eq!(p.state(second), CKS_RW_SO_FUNCTIONS);
    assert_eq!(call!(p.m, C_CloseAllSessions, p.slot()), CKR_OK);
    let reading = p.open(RO).unwrap();
    assert_eq!(p.state(reading), CKS_RO_PUBLIC_SESSION);
    // Who may not change PINs.
    assert_eq!(p.init_pin(reading, USER), CKR_USER_NOT_LOGGED_IN);
    assert_eq!(p.set_pin(reading, USER, b"4321"), CKR_SESSION_READ_ONLY);
    let writing = p.session();
    assert_eq!(p.login(writing, CKU_USER, USER), CKR_OK);
    assert_eq!(p.init_pin(writing, USER), CKR_USER_NOT_LOGGED_IN);
    assert_eq!(generate(&p.m, reading), CKR_SESSION_READ_ONLY);
    assert_eq!(generate(&p.m, writing), CKR_OK);
    assert_eq!(call!(p.m, C_Finalize, null_mut()), CKR_OK);
    p.m.initialize();
    assert_eq!(p.state(p.session()), CKS_RW_PUBLIC_SESSION);
    // C_LoginUser, of 3.0: there is one user, who has no name.
    let (session, (at, length)) = (p.session(), given(USER));
    let mut name = *b"me";
    let named = |name, size| call!(p.m, C_LoginUser, session, CKU_USER, at, length, name, size);
    assert_eq!(named(name.as_mut_ptr(), 2), CKR_USER_TYPE_INVALID);
    assert_eq!(named(null_mut(), 0), CKR_OK);
    assert_eq!(p.state(session), CKS_RW_USER_FUNCTIONS);
}

/// PINs of two tokens, and none of a third: each slot has its own login, and its own counter.
///
/// Fails where `count` counts the sessions of all slots.
#[test]
fn logins_of_slots_are_apart() {
    let p = Pinned::new();
    let (second, third) = (p.m.dir.path().join("other"), p.m.dir.path().join("third"));
    make(&second, "other", b"5678", None);
    module::make_token(&third, "third");
    let by_label = |label: &str| {
        let found = p.m.slots().into_iter().find(|slot| {
            let info = token_info(&p.m, *slot);
            info.label == format!("{label:32}").as_bytes()
        });
        open(&p.m, found.unwrap(), RW).unwrap()
    };
    let [one, two, three] = ["pinned", "other", "third"].map(by_label);
    assert_eq!(p.login(one, CKU_USER, USER), CKR_OK);
    let states = [one, two, three].map(|session| p.state(session));
    let user = CKS_RW_USER_FUNCTIONS;
    assert_eq!(states, [user, CKS_RW_PUBLIC_SESSION, user]);
    assert_eq!(p.login(two, CKU_USER, USER), CKR_PIN_INCORRECT);
    assert_eq!((used(&p.m.token_dir()), used(&second)), ([0, 0], [1, 0]));
    assert_eq!(p.login(two, CKU_USER, b"5678"), CKR_OK);
    // Without a SO's PIN there is no SO.
    assert_eq!(call!(p.m, C_Logout, two), CKR_OK);
    assert_eq!(p.login(two, CKU_SO, SO), CKR_USER_TYPE_INVALID);
    // Of the third, any PIN opens what is open.
    assert_eq!(p.login(three, CKU_USER, b"anything"), CKR_OK);
    assert_eq!(used(&third), [0, 0]);
    assert_eq!(p.state(one), user);
    // A session that only reads is in the way of the SO of its own slot alone.
    let mut info = CK_SESSION_INFO::default();
    assert_eq!(call!(p.m, C_GetSessionInfo, two, &mut info), CKR_OK);
    open(&p.m, info.slotID, RO).unwrap();
    assert_eq!(call!(p.m, C_Logout, one), CKR_OK);
    assert_eq!(p.login(one, CKU_SO, SO), CKR_OK);
    open(&p.m, info.slotID, RO).unwrap();
}

/// Many threads log in at once: one of them does, the others are told; then all log out.
///
/// Fails without `changing` in `login`.
#[test]
fn r13_of_many_logins_at_once_one_counts() {
    let p = Pinned::new();
    let sessions: Vec<_> = (0..6).map(|_| p.session()).collect();
    let all = |what: &(dyn Fn(CK_SESSION_HANDLE) -> CK_RV + Sync)| {
        std::thread::scope(|scope| {
            let threads = sessions
                .iter()
                .map(|session| scope.spawn(|| what(*session)));
            let threads: Vec<_> = threads.collect();
            let mut answers: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
            answers.sort_unstable();
            answers.dedup();
            answers
        })
    };
    for _ in 0..2 {
        let answers = all(&|session| login(&p.m, session, CKU_USER, USER));
        assert_eq!(answers, [CKR_OK, CKR_USER_ALREADY_LOGGED_IN]);
        assert_eq!(p.used(), [0, 0]);
        let answers = all(&|session| call!(p.m, C_Logout, session));
        assert_eq!(answers, [CKR_OK, CKR_USER_NOT_LOGGED_IN]);
    }
}

/// What is public is there before the login, and private keys and all that they do end with it.
///
/// Fails where `refresh` shows private objects always, without any line of `hide_private`, and
/// without any one of `end_what_was_before`.
#[test]
fn r19_private_objects_are_the_users() {
    let p = Pinned::new();
    let m = &p.m;
    let session = p.session();
    let public = m.one(session, CKO_PUBLIC_KEY, "p256");
    assert_eq!(
        m.attribute(session, public, CKA_PRIVATE),
        Ok(vec![CK_FALSE])
    );
    assert!(p.private_keys(session).is_empty());
    assert_eq!(m.find(session, &[]), [public]);
    assert_eq!(generate(m, session), CKR_USER_NOT_LOGGED_IN);
    let rename = |object| {
        let mut label = module::raw(&[(CKA_LABEL, b"p256")]);
        call!(
            m,
            C_SetAttributeValue,
            session,
            object,
            label.as_mut_ptr(),
            1
        )
    };
    assert_eq!(rename(public), CKR_USER_NOT_LOGGED_IN);
    assert_eq!(p.login(session, CKU_USER, USER), CKR_OK);
    assert_eq!(rename(public), CKR_OK);
    let key = m.one(session, CKO_PRIVATE_KEY, "p256");
    assert_eq!(m.attribute(session, key, CKA_PRIVATE), Ok(vec![CK_TRUE]));
    assert_eq!(
        m.attribute(session, key, CKA_ALWAYS_AUTHENTICATE),
        Ok(vec![CK_FALSE])
    );
    assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
    // An operation does not make a login of its own possible: the key asks for none.
    assert_eq!(
        p.login(session, CKU_CONTEXT_SPECIFIC, USER),
        CKR_OPERATION_NOT_INITIALIZED
    );
    assert_eq!(m.sign(session, &[7; 32]).unwrap().len(), 64);
    let secret = derive(m, session, key);
    assert_eq!(m.attribute(session, secret, CKA_PRIVATE), Ok(vec![CK_TRUE]));
    // Begun before the logout, and by another session.
    assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
    let mut class = module::raw(&[]);
    assert_eq!(
        call!(m, C_FindObjectsInit, session, class.as_mut_ptr(), 0),
        CKR_OK
    );
    let other = p.open(RO).unwrap();
    assert_eq!(call!(m, C_Logout, other), CKR_OK);
    assert_eq!(
        m.sign(session, &[7; 32]),
        Err(CKR_OPERATION_NOT_INITIALIZED)
    );
    assert_eq!(
        call!(m, C_FindObjectsFinal, session),
        CKR_OPERATION_NOT_INITIALIZED
    );
    assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_KEY_HANDLE_INVALID);
    for gone in [key, secret] {
        let mut attribute = module::raw(&[(CKA_CLASS, b"")]);
        let rv = call!(
            m,
            C_GetAttributeValue,
            session,
            gone,
            attribute.as_mut_ptr(),
            1
        );
        assert_eq!(rv, CKR_OBJECT_HANDLE_INVALID);
        assert_eq!(
            call!(m, C_DestroyObject, session, gone),
            CKR_OBJECT_HANDLE_INVALID
        );
    }
    assert_eq!(m.find(session, &[]), [public]);
    // A later login gives the key another handle, for good.
    assert_eq!(p.login(session, CKU_USER, USER), CKR_OK);
    let again = m.one(session, CKO_PRIVATE_KEY, "p256");
    assert_ne!(again, key);
    assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_KEY_HANDLE_INVALID);
    assert_eq!(m.sign_init(session, CKM_ECDSA, again), CKR_OK);
    assert_eq!(m.one(session, CKO_PUBLIC_KEY, "p256"), public);
    // What was begun goes on through a login that fails.
    assert_eq!(p.login(session, CKU_USER, USER), CKR_USER_ALREADY_LOGGED_IN);
    assert_eq!(m.sign(session, &[7; 32]).unwrap().len(), 64);
    // So it is where nobody looked in between.
    assert_eq!(call!(m, C_Logout, session), CKR_OK);
    assert_eq!(p.login(session, CKU_USER, USER), CKR_OK);
    assert_ne!(m.one(session, CKO_PRIVATE_KEY, "p256"), again);
}

/// ECDH with the key's own public half.
fn derive(m: &Module, session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> CK_OBJECT_HANDLE {
    let point = m.attribute(session, key, CKA_EC_POINT).unwrap();
    let mut parameter = CK_ECDH1_DERIVE_PARAMS {
        kdf: CKD_NULL,
        ulSharedDataLen: 0,
        pSharedData: null_mut(),
        ulPublicDataLen: point.len() as CK_ULONG,
        pPublicData: point.as_ptr().cast_mut(),
    };
    let mut mechanism = module::with_parameter(CKM_ECDH1_DERIVE, &mut parameter);
    let mut made = 0;
    let rv = call!(
        m,
        C_DeriveKey,
        session,
        &mut mechanism,
        key,
        null_mut(),
        0,
        &mut made
    );
    assert_eq!(rv, CKR_OK);
    made
}

/// A child has no login until it makes one of its own, which its parent's outlives.
///
/// Fails where `initialize` keeps the state of another process.
#[test]
fn r05_a_child_starts_logged_out() {
    let p = Pinned::new();
    let session = p.session();
    assert_eq!(p.login(session, CKU_USER, USER), CKR_OK);
    let status = in_child(|| {
        assert_eq!(
            login(&p.m, session, CKU_USER, USER),
            CKR_CRYPTOKI_NOT_INITIALIZED
        );
        p.m.initialize();
        let own = p.session();
        assert_eq!(p.state(own), CKS_RW_PUBLIC_SESSION);
        assert!(p.private_keys(own).is_empty());
        assert_eq!(p.login(own, CKU_USER, USER), CKR_OK);
        let key = p.m.one(own, CKO_PRIVATE_KEY, "p256");
        assert_eq!(p.m.sign_init(own, CKM_ECDSA, key), CKR_OK);
        p.m.sign(own, &[7; 32]).unwrap();
        assert_eq!(call!(p.m, C_Logout, own), CKR_OK);
        0
    });
    assert_eq!(status, 0);
    assert_eq!(p.state(session), CKS_RW_USER_FUNCTIONS);
    let key = p.m.one(session, CKO_PRIVATE_KEY, "p256");
    assert_eq!(p.m.sign_init(session, CKM_ECDSA, key), CKR_OK);
    p.m.sign(session, &[7; 32]).unwrap();
}

/// Where nothing can be written, a login goes on uncounted, a PIN stays as it is, and a record that
/// was changed opens nothing.
///
/// Fails where `of_write` in `set_pin` is `from`.
#[test]
fn r26_a_read_only_store_takes_logins_and_no_pins() {
    let p = Pinned::new();
    let dir = p.m.token_dir();
    let mode = |mode| fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o500);
    bound_by_modes(|| {
        let session = p.session();
        assert_eq!(p.login(session, CKU_USER, b"0000"), CKR_PIN_INCORRECT);
        assert_eq!(p.used(), [0, 0]);
        assert_eq!(p.set_pin(session, USER, b"4321"), CKR_TOKEN_WRITE_PROTECTED);
        assert_eq!(p.login(session, CKU_USER, USER), CKR_OK);
        assert_eq!(generate(&p.m, session), CKR_TOKEN_WRITE_PROTECTED);
        let key = p.m.one(session, CKO_PRIVATE_KEY, "p256");
        assert_eq!(p.m.sign_init(session, CKM_ECDSA, key), CKR_OK);
        p.m.sign(session, &[7; 32]).unwrap();
        assert_eq!(call!(p.m, C_CloseAllSessions, p.slot()), CKR_OK);
        assert_eq!(
            init_token(&p.m, p.slot(), SO, "new"),
            CKR_TOKEN_WRITE_PROTECTED
        );
    });
    mode(0o700);
    // The file of a PIN of another token: what it seals is not for this one.
    let other = p.m.dir.path().join("other");
    make(&other, "other", USER, Some(SO));
    fs::copy(other.join("user.pin"), dir.join("user.pin")).unwrap();
    fs::remove_dir_all(other).unwrap();
    let session = p.session();
    assert_eq!(p.login(session, CKU_USER, USER), CKR_PIN_INCORRECT);
    assert_eq!(p.used(), [1, 0]);
    // One that nobody can read breaks no other call.
    write(&dir.join("user.pin"), "nonsense");
    assert_eq!(
        p.flags() & CKF_USER_PIN_INITIALIZED,
        CKF_USER_PIN_INITIALIZED
    );
    assert_eq!(p.login(session, CKU_USER, USER), CKR_DEVICE_ERROR);
    fs::remove_file(dir.join("user.pin")).unwrap();
    assert_eq!(p.flags() & CKF_USER_PIN_INITIALIZED, 0);
    assert_eq!(
        p.login(session, CKU_USER, USER),
        CKR_USER_PIN_NOT_INITIALIZED
    );
    assert_eq!(
        p.set_pin(session, USER, b"4321"),
        CKR_USER_PIN_NOT_INITIALIZED
    );
}

/// A configuration with more in it.
fn configure(m: &Module, more: &str) {
    let text = format!(
        "store = {:?}
{more}
",
        m.dir.path()
    );
    write(&m.dir.path().join("devkey.toml"), &text);
}

/// Without `initialise` there is no slot without a token. With it there is one, which C_InitToken
/// fills; the SO sets the user's PIN; C_InitToken again takes all away.
///
/// Fails where `initialise` leaves the content as it is, where `init_token` does not look at the
/// sessions, and without its `reopen`: the label is then the old one.
#[test]
fn r09_a_token_is_made_where_the_configuration_offers_it() {
    let m = Module::without_tokens();
    configure(
        &m,
        "[token.board]
enabled = true
",
    );
    m.initialize();
    assert!(m.slots().is_empty());
    assert_eq!(call!(m, C_Finalize, null_mut()), CKR_OK);
    configure(
        &m,
        "[token.board]
initialise = true
",
    );
    m.initialize();
    let [slot] = m.slots()[..] else {
        panic!("not one slot");
    };
    let info = token_info(&m, slot);
    assert_eq!(info.flags, CKF_RNG | CKF_LOGIN_REQUIRED);
    assert_eq!(info.label, [b' '; 32]);
    let mut seen = CK_SLOT_INFO::default();
    assert_eq!(call!(m, C_GetSlotInfo, slot, &mut seen), CKR_OK);
    assert!(seen.slotDescription.starts_with(b"devkey file: board "));
    // R8: sessions open, and find nothing and do nothing.
    let session = open(&m, slot, RW).unwrap();
    assert!(m.find(session, &[]).is_empty());
    assert_eq!(
        login(&m, session, CKU_USER, USER),
        CKR_USER_PIN_NOT_INITIALIZED
    );
    assert_eq!(login(&m, session, CKU_SO, SO), CKR_USER_PIN_NOT_INITIALIZED);
    assert_eq!(generate(&m, session), CKR_MECHANISM_INVALID);
    assert_eq!(init_token(&m, slot, SO, "board"), CKR_SESSION_EXISTS);
    assert_eq!(call!(m, C_CloseSession, session), CKR_OK);
    for (pin, label, rv) in [
        (NULL, "board", CKR_ARGUMENTS_BAD),
        (b"123", "board", CKR_PIN_LEN_RANGE),
        (b"12\xff45", "board", CKR_PIN_INVALID),
        (SO, "", CKR_ARGUMENTS_BAD),
    ] {
        assert_eq!(init_token(&m, slot, pin, label), rv);
        assert_eq!(token_info(&m, slot).flags & CKF_TOKEN_INITIALIZED, 0);
    }
    assert_eq!(init_token(&m, slot, SO, "the board"), CKR_OK);
    let made = CKF_TOKEN_INITIALIZED;
    assert_eq!(token_info(&m, slot).flags & made, made);
    assert_eq!(m.slots(), [slot]);
    made_token_works(&m, slot, "the board");
    let serial = token_info(&m, slot).serialNumber;
    // Once more, with the right PIN of the SO.
    assert_eq!(init_token(&m, slot, b"0000", "again"), CKR_PIN_INCORRECT);
    assert_eq!(used(&m.dir.path().join("board")), [0, 1]);
    assert_eq!(init_token(&m, slot, SO, "again"), CKR_OK);
    assert_eq!(used(&m.dir.path().join("board")), [0, 0]);
    let session = open(&m, slot, RW).unwrap();
    assert!(m.find(session, &[]).is_empty());
    assert_eq!(
        login(&m, session, CKU_USER, USER),
        CKR_USER_PIN_NOT_INITIALIZED
    );
    assert_eq!(call!(m, C_CloseSession, session), CKR_OK);
    made_token_works(&m, slot, "again");
    assert_eq!(token_info(&m, slot).serialNumber, serial);
}

/// A token that another process made where one was offered is seen in the slot that there was; a
/// place where others could put a token is none.
///
/// Fails where `is` does not look at blank slots, and without `check_store` in `Offer::create`.
#[test]
fn an_offer_is_taken_once() {
    let m = Module::without_tokens();
    configure(
        &m,
        "[token.board]\ninitialise = true\nback_end = 'nonsense'\n",
    );
    m.initialize();
    let slot = m.slots()[0];
    // No such back end here, and no key service that could have it.
    assert_ne!(init_token(&m, slot, SO, "x"), CKR_OK);
    assert_eq!(call!(m, C_Finalize, null_mut()), CKR_OK);
    configure(&m, "[token.board]\ninitialise = true\n");
    m.initialize();
    let slot = m.slots()[0];
    let dir: PathBuf = m.dir.path().join("board");
    fs::set_permissions(m.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(init_token(&m, slot, SO, "x"), CKR_TOKEN_WRITE_PROTECTED);
    assert!(!dir.exists());
    fs::set_permissions(m.dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    make(&dir, "theirs", USER, Some(SO));
    // Not looked at again, the slot is still without a token; nothing is overwritten.
    assert_eq!(init_token(&m, slot, SO, "ours"), CKR_FUNCTION_FAILED);
    assert_eq!(m.slots(), [slot]);
    assert_eq!(
        token_info(&m, slot).label,
        format!("{:32}", "theirs").as_bytes()
    );
    let session = open(&m, slot, RW).unwrap();
    assert_eq!(login(&m, session, CKU_USER, USER), CKR_OK);
    m.one(session, CKO_PRIVATE_KEY, "p256");
}
