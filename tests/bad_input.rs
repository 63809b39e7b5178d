//! What goes wrong around the module, by the exact `CK_RV`: nothing is lost, nothing is hidden,
//! C_OpenSession always succeeds, and what failed works again once the cause is gone. What the
//! command says of the same is in tests/command.rs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "what cannot go on has failed"
)]

#[cfg(feature = "tpm")]
#[path = "common/board.rs"]
mod board;
#[path = "common/module.rs"]
mod module;
#[cfg(feature = "tpm")]
#[path = "common/tpm.rs"]
mod tpm;

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::null_mut;

use cryptoki_sys::*;
use module::{Module, bare, bound_by_modes, call, in_child, raw, with_parameter};

const TRUE: &[u8] = &[CK_TRUE];
const FALSE: &[u8] = &[CK_FALSE];
const P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";

type Pairs<'a> = &'a [(CK_ATTRIBUTE_TYPE, &'a [u8])];

/// What C_SignInit or C_Sign answers for the key `label`.
fn sign(m: &Module, session: CK_SESSION_HANDLE, label: &str) -> CK_RV {
    let key = m.one(session, CKO_PRIVATE_KEY, label);
    match m.sign_init(session, CKM_ECDSA, key) {
        CKR_OK => m.sign(session, &[7; 32]).err().unwrap_or(CKR_OK),
        rv => rv,
    }
}

fn generate(m: &Module, session: CK_SESSION_HANDLE, public: Pairs, private: Pairs) -> CK_RV {
    generate_by(m, session, CKM_EC_KEY_PAIR_GEN, public, private)
}

fn generate_by(
    m: &Module,
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_TYPE,
    public: Pairs,
    private: Pairs,
) -> CK_RV {
    let (mut public, mut private) = (raw(public), raw(private));
    call!(
        m,
        C_GenerateKeyPair,
        session,
        &mut bare(mechanism),
        public.as_mut_ptr(),
        public.len() as CK_ULONG,
        private.as_mut_ptr(),
        private.len() as CK_ULONG,
        &mut 0,
        &mut 0
    )
}

fn create(m: &Module, session: CK_SESSION_HANDLE, template: Pairs) -> CK_RV {
    let mut template = raw(template);
    let count = template.len() as CK_ULONG;
    call!(
        m,
        C_CreateObject,
        session,
        template.as_mut_ptr(),
        count,
        &mut 0
    )
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The record of the key of that label.
fn record(dir: &Path, label: &str) -> PathBuf {
    let mut files = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| {
        path.extension().is_some_and(|ending| ending == "key")
            && fs::read_to_string(path)
                .unwrap()
                .contains(&format!("{label:?}"))
    };
    files.find(named).unwrap()
}

/// The slot of the token of that label, looked for anew.
fn slot(m: &Module, label: &str) -> Option<CK_SLOT_ID> {
    let labelled = |slot: &CK_SLOT_ID| {
        let mut info = CK_TOKEN_INFO::default();
        assert_eq!(call!(m, C_GetTokenInfo, *slot, &mut info), CKR_OK);
        info.label.starts_with(label.as_bytes())
    };
    m.slots().into_iter().find(labelled)
}

/// Opening a session always works.
fn session_with(m: &Module, slot: CK_SLOT_ID) -> CK_SESSION_HANDLE {
    let (flags, mut session) = (CKF_SERIAL_SESSION | CKF_RW_SESSION, 0);
    let rv = call!(
        m,
        C_OpenSession,
        slot,
        flags,
        null_mut(),
        None,
        &mut session
    );
    assert_eq!(rv, CKR_OK);
    session
}

fn slot_session(m: &Module, label: &str) -> CK_SESSION_HANDLE {
    session_with(m, slot(m, label).unwrap())
}

/// A store is judged at C_GetSlotList, and again at each search in an open session.
/// Fails where `check_owner_and_mode` in src/files.rs passes every owner, or every mode, or where
/// `look_for_tokens` stops at the first token that cannot be opened.
#[test]
fn a_store_that_cannot_be_trusted_or_read_is_not_listed_and_hides_no_other() {
    let m = Module::loaded();
    module::make_token(&m.dir.path().join("other"), "other");
    let dir = m.token_dir();
    let owner = |owner| chown(&dir, Some(owner), None).unwrap();
    // SAFETY: asks for a number.
    let me = unsafe { libc::geteuid() };
    assert_eq!(me, 0, "gives files to another user: run it as root");
    let cases: [(&str, &dyn Fn(bool)); 3] = [
        ("others can write", &|bad| {
            mode(&dir, if bad { 0o777 } else { 0o700 })
        }),
        ("somebody else's", &|bad| {
            // Readable all the same.
            owner(if bad { 12345 } else { me });
            mode(&dir, 0o755);
        }),
        ("unreadable", &|bad| mode(&dir, if bad { 0 } else { 0o700 })),
    ];
    m.initialize();
    for (what, spoil) in cases {
        let sample = slot(&m, "sample").unwrap();
        let open = session_with(&m, sample);
        spoil(true);
        bound_by_modes(|| {
            let m = &m;
            // Already listed: the session opens, the search says it.
            let again = session_with(m, sample);
            for session in [open, again] {
                let search = call!(m, C_FindObjectsInit, session, null_mut(), 0);
                assert_eq!(search, CKR_DEVICE_ERROR, "{what}");
            }
            let made = generate(m, open, &[(CKA_EC_PARAMS, P256)], &[(CKA_TOKEN, TRUE)]);
            assert!(
                [CKR_TOKEN_WRITE_PROTECTED, CKR_DEVICE_ERROR].contains(&made),
                "{what}: {made:#x}"
            );
            // Looked for anew, it is not there; the other one is.
            assert_eq!(
                (slot(m, "sample"), slot(m, "other").is_some()),
                (None, true),
                "{what}"
            );
            assert_eq!(sign(m, slot_session(m, "other"), "p256"), CKR_OK, "{what}");
        });
        spoil(false);
        assert_eq!(slot(&m, "sample"), Some(sample), "{what}");
        assert_eq!(sign(&m, session_with(&m, sample), "p256"), CKR_OK, "{what}");
    }
    // The root alone: what needs no key works.
    let root = m.token_dir().join("root");
    mode(&root, 0o666);
    assert_eq!(call!(m, C_Finalize, null_mut()), CKR_OK);
    m.initialize();
    let session = slot_session(&m, "sample");
    assert_eq!(sign(&m, session, "p256"), CKR_DEVICE_ERROR);
    mode(&root, 0o600);
    assert_eq!(sign(&m, session, "p256"), CKR_OK);
}

/// Fails where FORMAT in src/store/record.rs is 2, or where `Cache::refresh` gives up at the
/// first broken file.
#[test]
fn corrupt_and_newer_records_hide_no_other() {
    let m = Module::loaded();
    let dir = m.token_dir();
    let good = fs::read_to_string(record(&dir, "p256")).unwrap();
    let newer = good.replacen("version = 1", "version = 2", 1);
    assert_ne!(good, newer);
    for (name, text) in [
        ("0corrupt.key", "version = 1\nid = "),
        ("0newer.key", &newer),
        ("0empty.key", ""),
        ("0bad.crt", "no certificate"),
    ] {
        module::write(&dir.join(name), text);
    }
    fs::write(dir.join("0binary.key"), [0xff; 4000]).unwrap();
    mode(&dir.join("0binary.key"), 0o600);
    m.initialize();
    let session = m.session();
    assert_eq!(m.find(session, &[]).len(), 6);
    assert_eq!(sign(&m, session, "p256"), CKR_OK);
    // Neither rewritten nor removed.
    assert_eq!(fs::read_to_string(dir.join("0newer.key")).unwrap(), newer);
    // A token whose own record is newer has no slot, and is left as it is.
    let token = fs::read_to_string(dir.join("token")).unwrap();
    let newer = token.replacen("version = 1", "version = 2", 1);
    module::write(&dir.join("token"), &newer);
    assert_eq!(m.slots(), [0; 0]);
    assert_eq!(fs::read_to_string(dir.join("token")).unwrap(), newer);
    module::write(&dir.join("token"), &token);
    assert_eq!(sign(&m, m.session(), "p256"), CKR_OK);
}

/// An edited record is listed, for listing asks no key, and refused when it is used.
/// Fails where `record.check(mac_key)?` in `LocalToken::key` is left out.
#[test]
fn an_edited_record_does_not_sign() {
    let m = Module::new();
    let session = m.session();
    let file = record(&m.token_dir(), "p256");
    let text = fs::read_to_string(&file).unwrap();
    module::write(&file, &text.replacen("p256", "mine", 1));
    assert_eq!(sign(&m, session, "mine"), CKR_FUNCTION_FAILED);
    assert_eq!(m.find(session, &[]).len(), 6);
    module::write(&file, &text);
    assert_eq!(sign(&m, session, "p256"), CKR_OK);
}

/// Fails where `From<Error>` in rv.rs makes CKR_DEVICE_ERROR of Full. That nothing half-written stays
/// is tests/command.rs's to break.
#[test]
fn a_full_disk_is_said_so_and_loses_nothing() {
    let m = Module::without_tokens();
    let disk = m.dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let config = format!("store = {disk:?}\n");
    module::write(&m.dir.path().join("devkey.toml"), &config);
    // In a mount namespace of its own: nothing stays mounted.
    let status = in_child(|| {
        mount_small_disk(&disk);
        module::make_token(&disk.join("default"), "sample");
        m.initialize();
        let session = m.session();
        let all = m.find(session, &[]);
        fs::write(disk.join("filler"), vec![0; 1 << 20]).unwrap_err();
        let names = || {
            let names = fs::read_dir(disk.join("default")).unwrap();
            let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = names();
        let params: Pairs = &[(CKA_EC_PARAMS, P256)];
        let made = || generate(&m, session, params, &[(CKA_TOKEN, TRUE)]);
        assert_eq!(made(), CKR_DEVICE_MEMORY);
        let key = m.one(session, CKO_PRIVATE_KEY, "p256");
        let mut label = raw(&[(CKA_LABEL, b"renamed")]);
        let renamed = call!(m, C_SetAttributeValue, session, key, label.as_mut_ptr(), 1);
        assert_eq!(renamed, CKR_DEVICE_MEMORY);
        assert_eq!((names(), m.find(session, &[])), (before, all));
        assert_eq!(sign(&m, session, "p256"), CKR_OK);
        fs::remove_file(disk.join("filler")).unwrap();
        assert_eq!(made(), CKR_OK);
        assert_eq!(m.find(session, &[]).len(), 8);
        0
    });
    assert_eq!(status, 0);
}

/// 64 KiB, in namespaces of this process's own, where it is root.
fn mount_small_disk(at: &Path) {
    let at = CString::new(at.as_os_str().as_bytes()).unwrap();
    // SAFETY: asks for numbers.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: the child has one thread.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) };
    assert_eq!(unshared, 0);
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", format!("0 {user} 1")).unwrap();
    fs::write("/proc/self/gid_map", format!("0 {group} 1")).unwrap();
    let (kind, options) = (c"tmpfs".as_ptr(), c"size=64k,mode=700".as_ptr());
    // SAFETY: NUL-terminated strings that live until it returns.
    let mounted = unsafe { libc::mount(kind, at.as_ptr(), kind, 0, options.cast()) };
    assert_eq!(mounted, 0);
}

/// Fails where `line` in src/config/file.rs counts from another line, or `look_for_tokens` ends at
/// the first token that cannot be opened.
#[test]
fn a_bad_line_of_the_configuration_is_named_in_the_log() {
    let m = Module::loaded();
    let file = m.dir.path().join("devkey.toml");
    let list = |level: Option<&str>| {
        let mut tool = Command::new("pkcs11-tool");
        tool.arg("--module").arg(module::path()).arg("-L");
        tool.envs(level.map(|level| ("DEVKEY_LOG", level)));
        let output = tool.output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let store = format!("store = {:?}\n", m.dir.path());
    for (text, line) in [
        ("\nstor = 1\n", 3),
        ("[token.default]\nenabled = 1\n", 3),
        ("store = [\n", 2),
        ("[token.default]\n\ncolour = 'red'\n", 4),
    ] {
        module::write(&file, &format!("{store}{text}"));
        let named = format!("{}:{line}: ", file.display());
        let said = list(Some("warn"));
        assert!(said.contains(&named), "{named} is not in: {said}");
        assert!(
            !list(None).contains("devkey.toml"),
            "said without being asked"
        );
    }
    // One setting of one token is wrong.
    module::write(&file, &format!("{store}[token.default]\ncolour = 'red'\n"));
    module::make_token(&m.dir.path().join("other"), "other");
    m.initialize();
    assert_eq!(m.slots().len(), 1);
    assert_eq!(sign(&m, m.session(), "p256"), CKR_OK);
}

/// A program that uses no key of devkey's does not fail with its configuration, and one that does finds
/// none of them: which it was to leave out is not known.
///
/// Fails where `Module::new` goes on with the error of `Config::load`.
#[test]
fn a_configuration_that_cannot_be_read_is_one_without_tokens() {
    let m = Module::loaded();
    let file = m.dir.path().join("devkey.toml");
    let store = format!("store = {:?}\n", m.dir.path());
    let none = |what: &str| {
        m.initialize();
        assert_eq!(m.slots(), [0; 0], "{what}");
        assert_eq!(call!(m, C_Finalize, null_mut()), CKR_OK, "{what}");
        let mut tool = Command::new("pkcs11-tool");
        tool.arg("--module").arg(module::path()).arg("-L");
        let output = tool.env("DEVKEY_LOG", "error").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let ours: Vec<_> = said.lines().filter(|l| l.starts_with("devkey")).collect();
        assert_eq!(ours.len(), 1, "{what}: {said}");
        assert!(ours[0].contains(file.to_str().unwrap()), "{what}: {said}");
    };
    for text in [
        &b"stor = 1\n"[..],
        b"store = [\n",
        b"no toml\n",
        b"\xff\xfe\0",
    ] {
        module::write(&file, &[store.as_bytes(), text].concat());
        none(&String::from_utf8_lossy(text));
    }
    fs::remove_file(&file).unwrap();
    none("no file");
    module::write(&file, &store);
    mode(&file, 0o666);
    none("others can write it");
    mode(&file, 0o600);
    m.initialize();
    assert_eq!(m.slots().len(), 1);
}

/// Fails where `Template::key_pair` does not ask for the key type, `rsa` does not look at the
/// exponent, `Attribute::value` at MAX_VALUE, or `attributes` at MAX_ATTRIBUTES.
#[test]
fn malformed_templates() {
    let m = Module::new();
    let session = m.session();
    let all = m.find(session, &[]);
    let token: Pairs = &[(CKA_TOKEN, TRUE)];
    let params: Pairs = &[(CKA_EC_PARAMS, P256)];
    let number = |n: CK_ULONG| n.to_ne_bytes();
    let (rsa, ec, secret) = (number(CKK_RSA), number(CKK_EC), number(CKO_SECRET_KEY));
    let secp256k1 = b"\x06\x05\x2b\x81\x04\x00\x0a".as_slice();
    let cases: &[(Pairs, Pairs, CK_RV)] = &[
        (&[], token, CKR_TEMPLATE_INCOMPLETE),
        (
            &[(CKA_EC_PARAMS, secp256k1)],
            token,
            CKR_CURVE_NOT_SUPPORTED,
        ),
        (&[(CKA_EC_PARAMS, b"")], token, CKR_CURVE_NOT_SUPPORTED),
        (params, &[(CKA_TOKEN, &[1, 0])], CKR_ATTRIBUTE_VALUE_INVALID),
        (
            params,
            &[(CKA_TOKEN, TRUE), (CKA_KEY_TYPE, &rsa)],
            CKR_TEMPLATE_INCONSISTENT,
        ),
        (
            params,
            &[(CKA_TOKEN, TRUE), (CKA_KEY_TYPE, b"\x03")],
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        (
            params,
            &[(CKA_TOKEN, TRUE), (CKA_CLASS, &secret)],
            CKR_TEMPLATE_INCONSISTENT,
        ),
        (
            params,
            &[(CKA_TOKEN, TRUE), (CKA_LABEL, b"\xff")],
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        (
            params,
            &[(CKA_TOKEN, TRUE), (CKA_ID, &[7; 256])],
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        (
            params,
            &[(CKA_TOKEN, TRUE), (CKA_SIGN, FALSE)],
            CKR_TEMPLATE_INCONSISTENT,
        ),
    ];
    for (public, private, wanted) in cases {
        assert_eq!(
            generate(&m, session, public, private),
            *wanted,
            "{public:x?} {private:x?}"
        );
    }
    let (small, bits) = (number(1024), number(2048));
    let cases: &[(Pairs, CK_RV)] = &[
        (&[], CKR_TEMPLATE_INCOMPLETE),
        (&[(CKA_MODULUS_BITS, &small)], CKR_KEY_SIZE_RANGE),
        (&[(CKA_MODULUS_BITS, b"2048")], CKR_ATTRIBUTE_VALUE_INVALID),
        (
            &[(CKA_MODULUS_BITS, &bits), (CKA_PUBLIC_EXPONENT, &[3])],
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
    ];
    for (public, wanted) in cases {
        let made = generate_by(&m, session, CKM_RSA_PKCS_KEY_PAIR_GEN, public, token);
        assert_eq!(made, *wanted, "{public:x?}");
    }
    let (certificate, key, data) = (
        number(CKO_CERTIFICATE),
        number(CKO_PUBLIC_KEY),
        number(CKO_DATA),
    );
    let private = number(CKO_PRIVATE_KEY);
    let mut off_curve = [4; 67];
    off_curve[1] = 65;
    let cases: &[(Pairs, CK_RV)] = &[
        (&[], CKR_TEMPLATE_INCOMPLETE),
        (&[(CKA_CLASS, b"\x01")], CKR_ATTRIBUTE_VALUE_INVALID),
        (&[(CKA_CLASS, &data)], CKR_ATTRIBUTE_VALUE_INVALID),
        (
            &[(CKA_CLASS, &private), (CKA_TOKEN, TRUE)],
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        (&[(CKA_CLASS, &certificate)], CKR_TEMPLATE_INCONSISTENT),
        (
            &[(CKA_CLASS, &certificate), (CKA_TOKEN, TRUE)],
            CKR_TEMPLATE_INCOMPLETE,
        ),
        (
            &[
                (CKA_CLASS, &certificate),
                (CKA_TOKEN, TRUE),
                (CKA_VALUE, b"0"),
            ],
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        (
            &[(CKA_CLASS, &key), (CKA_TOKEN, TRUE)],
            CKR_TEMPLATE_INCONSISTENT,
        ),
        (&[(CKA_CLASS, &key)], CKR_TEMPLATE_INCOMPLETE),
        (
            &[(CKA_CLASS, &key), (CKA_KEY_TYPE, &ec)],
            CKR_TEMPLATE_INCOMPLETE,
        ),
        (
            &[
                (CKA_CLASS, &key),
                (CKA_KEY_TYPE, &ec),
                (CKA_EC_PARAMS, P256),
                (CKA_EC_POINT, &off_curve),
            ],
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        (
            &[
                (CKA_CLASS, &key),
                (CKA_KEY_TYPE, &rsa),
                (CKA_MODULUS, &[0xff; 64]),
                (CKA_PUBLIC_EXPONENT, &[1, 0, 1]),
            ],
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
    ];
    for (template, wanted) in cases {
        assert_eq!(create(&m, session, template), *wanted, "{template:x?}");
    }
    // What no template can be.
    let attribute = |pointer: *mut u8, length| CK_ATTRIBUTE {
        type_: CKA_LABEL,
        pValue: pointer.cast(),
        ulValueLen: length,
    };
    let mut byte = 0_u8;
    let find =
        |template: *mut CK_ATTRIBUTE, count| call!(m, C_FindObjectsInit, session, template, count);
    assert_eq!(find(null_mut(), 1), CKR_ARGUMENTS_BAD);
    assert_eq!(
        find(&mut attribute(&mut byte, 1), CK_ULONG::MAX),
        CKR_ARGUMENTS_BAD
    );
    assert_eq!(
        find(&mut attribute(null_mut(), 5), 1),
        CKR_ATTRIBUTE_VALUE_INVALID
    );
    assert_eq!(
        find(&mut attribute(&mut byte, CK_ULONG::MAX), 1),
        CKR_ATTRIBUTE_VALUE_INVALID
    );
    let mut long = vec![0; (1 << 20) + 1];
    let mut label = attribute(long.as_mut_ptr(), long.len() as CK_ULONG);
    assert_eq!(find(&mut label, 1), CKR_ATTRIBUTE_VALUE_INVALID);
    // A class of another size is one that nobody has.
    assert_eq!(m.find(session, &[(CKA_CLASS, b"\x03")]), [0; 0]);
    assert_eq!(m.find(session, &[]), all);
}

/// Fails where `Mechanism::parameter` does not compare the length, `signing` takes parameters that
/// the mechanism does not have or does not ask `fits`, or `decryption` takes a label.
#[test]
fn malformed_mechanisms() {
    let m = Module::new();
    let session = m.session();
    let key = |label| m.one(session, CKO_PRIVATE_KEY, label);
    let (p256, rsa) = (key("p256"), key("rsa"));
    let init =
        |mut mechanism: CK_MECHANISM, key| call!(m, C_SignInit, session, &mut mechanism, key);
    let decrypt =
        |mut mechanism: CK_MECHANISM| call!(m, C_DecryptInit, session, &mut mechanism, rsa);
    let mut pss = CK_RSA_PKCS_PSS_PARAMS {
        hashAlg: CKM_SHA_1,
        mgf: CKG_MGF1_SHA1,
        sLen: 20,
    };
    let right = CK_RSA_PKCS_PSS_PARAMS {
        hashAlg: CKM_SHA256,
        mgf: CKG_MGF1_SHA256,
        sLen: 32,
    };
    let longer = &mut [right, right];
    let mut oaep = CK_RSA_PKCS_OAEP_PARAMS {
        hashAlg: CKM_SHA256,
        mgf: CKG_MGF1_SHA256,
        source: CKZ_DATA_SPECIFIED,
        pSourceData: (&raw mut pss).cast(),
        ulSourceDataLen: 4,
    };
    let null = CK_MECHANISM {
        ulParameterLen: size_of::<CK_RSA_PKCS_PSS_PARAMS>() as CK_ULONG,
        ..bare(CKM_RSA_PKCS_PSS)
    };
    let cases = [
        (init(bare(CKM_SHA_1), p256), CKR_MECHANISM_INVALID),
        (init(bare(CKM_ECDSA_SHA1), p256), CKR_MECHANISM_INVALID),
        (init(bare(CKM_RSA_X_509), rsa), CKR_MECHANISM_INVALID),
        (init(bare(CKM_EC_KEY_PAIR_GEN), p256), CKR_MECHANISM_INVALID),
        (
            init(with_parameter(CKM_ECDSA, &mut 0_u32), p256),
            CKR_MECHANISM_PARAM_INVALID,
        ),
        (
            init(bare(CKM_RSA_PKCS_PSS), rsa),
            CKR_MECHANISM_PARAM_INVALID,
        ),
        (
            init(with_parameter(CKM_RSA_PKCS_PSS, &mut 0_u32), rsa),
            CKR_MECHANISM_PARAM_INVALID,
        ),
        (
            init(with_parameter(CKM_RSA_PKCS_PSS, &mut pss), rsa),
            CKR_MECHANISM_PARAM_INVALID,
        ),
        (
            init(with_parameter(CKM_RSA_PKCS_PSS, longer), rsa),
            CKR_MECHANISM_PARAM_INVALID,
        ),
        (init(null, rsa), CKR_MECHANISM_PARAM_INVALID),
        (init(bare(CKM_ECDSA), rsa), CKR_KEY_TYPE_INCONSISTENT),
        (init(bare(CKM_ECDSA), 0), CKR_KEY_HANDLE_INVALID),
        (
            init(bare(CKM_ECDSA), m.one(session, CKO_PUBLIC_KEY, "p256")),
            CKR_KEY_TYPE_INCONSISTENT,
        ),
        (decrypt(bare(CKM_RSA_PKCS)), CKR_MECHANISM_INVALID),
        (
            decrypt(bare(CKM_RSA_PKCS_OAEP)),
            CKR_MECHANISM_PARAM_INVALID,
        ),
        (
            decrypt(with_parameter(CKM_RSA_PKCS_OAEP, &mut oaep)),
            CKR_MECHANISM_PARAM_INVALID,
        ),
        (
            generate_by(&m, session, CKM_ECDSA, &[], &[]),
            CKR_MECHANISM_INVALID,
        ),
        (
            generate_by(&m, session, CKM_DSA_KEY_PAIR_GEN, &[], &[]),
            CKR_MECHANISM_INVALID,
        ),
    ];
    for (number, (rv, wanted)) in cases.iter().enumerate() {
        assert_eq!(rv, wanted, "case {number}");
    }
    let (token, nothing) = (&mut raw(&[(CKA_TOKEN, TRUE)]), null_mut());
    let template = token.as_mut_ptr();
    let rv = call!(
        m,
        C_GenerateKeyPair,
        session,
        nothing,
        template,
        1,
        template,
        1,
        &mut 0,
        &mut 0
    );
    assert_eq!(rv, CKR_ARGUMENTS_BAD);
    // None of it began an operation.
    assert_eq!(
        m.sign(session, &[7; 32]),
        Err(CKR_OPERATION_NOT_INITIALIZED)
    );
    assert_eq!(sign(&m, session, "p256"), CKR_OK);
}

#[cfg(feature = "tpm")]
mod with_a_tpm {
    use super::board::{Board, configure};
    use super::*;

    /// Everything but the signature goes as if nothing were wrong; the signature answers `wanted`.
    fn fails_at_the_signature(m: &Module, wanted: CK_RV) {
        assert_eq!(m.slots().len(), 1);
        let session = m.session();
        assert_eq!(m.find(session, &[]).len(), 4);
        let key = m.one(session, CKO_PRIVATE_KEY, "p256");
        assert_eq!(m.sign_init(session, CKM_ECDSA, key), CKR_OK);
        assert_eq!(m.sign(session, &[7; 32]), Err(wanted));
        assert_eq!(
            m.sign(session, &[7; 32]),
            Err(CKR_OPERATION_NOT_INITIALIZED)
        );
        let params: Pairs = &[(CKA_EC_PARAMS, P256)];
        assert_eq!(generate(m, session, params, &[(CKA_TOKEN, TRUE)]), wanted);
        // Sessions go on opening, and the objects are what they were.
        assert_eq!(m.find(m.session(), &[]).len(), 4);
    }

    /// Fails where `From<Error>` in rv.rs answers CKR_DEVICE_REMOVED for DeviceGone, or `Slot::open`
    /// asks the device.
    #[test]
    fn without_its_tpm_a_token_is_listed_and_does_not_sign() {
        let mut board = Board::loaded();
        board.swtpm.kill();
        board.module.initialize();
        fails_at_the_signature(&board.module, CKR_DEVICE_ERROR);
        board.swtpm.run();
        let session = board.module.session();
        assert_eq!(sign(&board.module, session, "p256"), CKR_OK);
        // Gone in the middle, and back.
        board.swtpm.kill();
        fails_at_the_signature(&board.module, CKR_DEVICE_ERROR);
        board.swtpm.run();
        assert_eq!(sign(&board.module, session, "p256"), CKR_OK);
    }

    /// Fails where `From<Error>` in rv.rs does not know OtherDevice.
    #[test]
    fn another_tpm_is_not_the_tokens() {
        let mut board = Board::loaded();
        board.swtpm.replace();
        board.module.initialize();
        fails_at_the_signature(&board.module, CKR_DEVICE_ERROR);
    }

    /// Fails where `From<Error>` in rv.rs makes CKR_GENERAL_ERROR of DeviceGone.
    #[test]
    fn without_permission_for_the_tpm_nothing_else_is_refused() {
        let board = Board::loaded();
        let device = board.module.dir.path().join("tpmrm0");
        fs::write(&device, "").unwrap();
        mode(&device, 0);
        configure(
            &board.module,
            &format!("[token.board]\ntcti = 'device:{}'", device.display()),
        );
        let status = in_child(|| {
            module::give_up_rights();
            board.module.initialize();
            fails_at_the_signature(&board.module, CKR_DEVICE_ERROR);
            0
        });
        assert_eq!(status, 0);
        // Nor is there a device at all.
        fs::remove_file(&device).unwrap();
        board.module.initialize();
        fails_at_the_signature(&board.module, CKR_DEVICE_ERROR);
    }

    /// Fails where `From<Error>` in rv.rs makes CKR_GENERAL_ERROR of DeviceGone.
    #[test]
    fn without_devkeyd_nothing_else_is_refused() {
        let board = Board::loaded();
        let config = format!(
            "store = {:?}\ndevkeyd = '/nonexistent'\n",
            board.module.dir.path()
        );
        module::write(&board.module.dir.path().join("devkey.toml"), &config);
        board.module.initialize();
        fails_at_the_signature(&board.module, CKR_DEVICE_ERROR);
    }
}
