//! The PKCS#11 module as a host loads it, with tokens of its own.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::ffi::{OsString, c_void};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::{env, fs, io::Write};

use cryptoki_sys::*;
use devkey::backends::file;
use devkey::key::{KeyKind, Usage};
use devkey::token::{KeyRequest, LocalToken, Names, Token, TokenRequest};
use rustix::thread::{
    CapabilitySet, capabilities, remove_capability_from_bounding_set, set_capabilities,
};
use tempfile::TempDir;

/// Path of the module that `cargo build -p devkey-pkcs11` made.
pub(crate) fn path() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let target = env::var_os("CARGO_TARGET_DIR").map_or(target, PathBuf::from);
    let path = target.join("debug/libdevkey_pkcs11.so");
    assert!(
        path.exists(),
        "{} is missing; run: cargo build -p devkey-pkcs11",
        path.display()
    );
    path
}

/// Calls a function of the module: `call!(m, C_CloseSession, session)`.
macro_rules! call {
    ($module:expr, $name:ident $(, $arg:expr)* $(,)?) => {
        // SAFETY: the arguments are the test's own and live until the call returns.
        unsafe { ($module.list().$name.expect("no function is NULL"))($($arg),*) }
    };
}
pub(crate) use call;

/// The loaded module and a store of this test's own. One test at a time: the module's state is the
/// process's.
pub(crate) struct Module {
    list: *mut CK_FUNCTION_LIST_3_0,
    pub(crate) dir: TempDir,
    _alone: MutexGuard<'static, ()>,
}

// SAFETY: the function list is constant, and the module is thread-safe.
unsafe impl Sync for Module {}

impl Module {
    /// A module that is not initialised, with a copy of the sample token.
    pub(crate) fn loaded() -> Self {
        let module = Module::without_tokens();
        put_sample(&module.dir.path().join("default"));
        module
    }

    /// A module that is not initialised, with an empty store.
    pub(crate) fn without_tokens() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = TempDir::new().unwrap();
        let config = format!("store = {:?}\n", dir.path());
        write(&dir.path().join("devkey.toml"), &config);
        // SAFETY: the tests that read the environment run one at a time, in the lock above.
        unsafe { env::set_var("DEVKEY_CONFIG", dir.path().join("devkey.toml")) };
        let list = interface(b"PKCS 11\0", (3, 0)).expect("an interface 3.0");
        let module = Module {
            list: list.cast(),
            dir,
            _alone: alone,
        };
        // A test that failed may have left it initialised.
        call!(module, C_Finalize, null_mut());
        module
    }

    /// An initialised module with the sample token.
    pub(crate) fn new() -> Self {
        let module = Module::loaded();
        module.initialize();
        module
    }

    pub(crate) fn initialize(&self) {
        assert_eq!(call!(self, C_Initialize, null_mut()), CKR_OK);
    }

    pub(crate) fn list(&self) -> &CK_FUNCTION_LIST_3_0 {
        // SAFETY: a static of the module, which is never unloaded.
        unsafe { &*self.list }
    }

    /// Each function of the list 3.0 with its name, in the order of the list.
    pub(crate) fn functions(&self) -> Vec<(&'static str, usize)> {
        macro_rules! functions {
            ($($name:ident)*) => {
                vec![$((stringify!($name), self.list().$name.expect("no function is NULL") as usize)),*]
            };
        }
        functions! {
            C_Initialize C_Finalize C_GetInfo C_GetFunctionList C_GetSlotList C_GetSlotInfo
            C_GetTokenInfo C_GetMechanismList C_GetMechanismInfo C_InitToken C_InitPIN C_SetPIN
            C_OpenSession C_CloseSession C_CloseAllSessions C_GetSessionInfo C_GetOperationState
            C_SetOperationState C_Login C_Logout C_CreateObject C_CopyObject C_DestroyObject
            C_GetObjectSize C_GetAttributeValue C_SetAttributeValue C_FindObjectsInit
            C_FindObjects C_FindObjectsFinal C_EncryptInit C_Encrypt C_EncryptUpdate
            C_EncryptFinal C_DecryptInit C_Decrypt C_DecryptUpdate C_DecryptFinal C_DigestInit
            C_Digest C_DigestUpdate C_DigestKey C_DigestFinal C_SignInit C_Sign C_SignUpdate
            C_SignFinal C_SignRecoverInit C_SignRecover C_VerifyInit C_Verify C_VerifyUpdate
            C_VerifyFinal C_VerifyRecoverInit C_VerifyRecover C_DigestEncryptUpdate
            C_DecryptDigestUpdate C_SignEncryptUpdate C_DecryptVerifyUpdate C_GenerateKey
            C_GenerateKeyPair C_WrapKey C_UnwrapKey C_DeriveKey C_SeedRandom C_GenerateRandom
            C_GetFunctionStatus C_CancelFunction C_WaitForSlotEvent
            C_GetInterfaceList C_GetInterface C_LoginUser C_SessionCancel C_MessageEncryptInit
            C_EncryptMessage C_EncryptMessageBegin C_EncryptMessageNext C_MessageEncryptFinal
            C_MessageDecryptInit C_DecryptMessage C_DecryptMessageBegin C_DecryptMessageNext
            C_MessageDecryptFinal C_MessageSignInit C_SignMessage C_SignMessageBegin
            C_SignMessageNext C_MessageSignFinal C_MessageVerifyInit C_VerifyMessage
            C_VerifyMessageBegin C_VerifyMessageNext C_MessageVerifyFinal
        }
    }

    pub(crate) fn token_dir(&self) -> PathBuf {
        self.dir.path().join("default")
    }

    pub(crate) fn slots(&self) -> Vec<CK_SLOT_ID> {
        let mut count = 0;
        assert_eq!(
            call!(self, C_GetSlotList, 1, null_mut(), &mut count),
            CKR_OK
        );
        let mut slots = vec![0; count as usize];
        let rv = call!(self, C_GetSlotList, 1, slots.as_mut_ptr(), &mut count);
        assert_eq!(rv, CKR_OK);
        slots
    }

    /// A session that may write, with the only token.
    pub(crate) fn session(&self) -> CK_SESSION_HANDLE {
        self.session_with(CKF_SERIAL_SESSION | CKF_RW_SESSION)
    }

    pub(crate) fn session_with(&self, flags: CK_FLAGS) -> CK_SESSION_HANDLE {
        let mut session = 0;
        let slot = self.slots()[0];
        let rv = call!(
            self,
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

    /// All objects that a template finds.
    pub(crate) fn find(
        &self,
        session: CK_SESSION_HANDLE,
        template: &[(CK_ATTRIBUTE_TYPE, &[u8])],
    ) -> Vec<CK_OBJECT_HANDLE> {
        let mut raw = raw(template);
        let rv = call!(
            self,
            C_FindObjectsInit,
            session,
            raw.as_mut_ptr(),
            raw.len() as CK_ULONG
        );
        assert_eq!(rv, CKR_OK);
        let (mut found, mut count) = ([0; 64], 0);
        assert_eq!(
            call!(
                self,
                C_FindObjects,
                session,
                found.as_mut_ptr(),
                64,
                &mut count
            ),
            CKR_OK
        );
        assert_eq!(call!(self, C_FindObjectsFinal, session), CKR_OK);
        found[..count as usize].to_vec()
    }

    /// The only object of a class and label.
    pub(crate) fn one(
        &self,
        session: CK_SESSION_HANDLE,
        class: CK_OBJECT_CLASS,
        label: &str,
    ) -> CK_OBJECT_HANDLE {
        let class = class.to_ne_bytes();
        let found = self.find(
            session,
            &[(CKA_CLASS, &class), (CKA_LABEL, label.as_bytes())],
        );
        assert_eq!(found.len(), 1, "{label}");
        found[0]
    }

    /// An attribute's value, or the error.
    pub(crate) fn attribute(
        &self,
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
        kind: CK_ATTRIBUTE_TYPE,
    ) -> Result<Vec<u8>, CK_RV> {
        let mut buffer = vec![0; 4096];
        let mut attribute = CK_ATTRIBUTE {
            type_: kind,
            pValue: buffer.as_mut_ptr().cast(),
            ulValueLen: 4096,
        };
        match call!(
            self,
            C_GetAttributeValue,
            session,
            object,
            &mut attribute,
            1
        ) {
            CKR_OK => {
                buffer.truncate(attribute.ulValueLen as usize);
                Ok(buffer)
            }
            rv => {
                let answered = [CKR_ATTRIBUTE_TYPE_INVALID, CKR_ATTRIBUTE_SENSITIVE].contains(&rv);
                assert_eq!(answered, attribute.ulValueLen == CK_UNAVAILABLE_INFORMATION);
                Err(rv)
            }
        }
    }

    pub(crate) fn sign_init(
        &self,
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_TYPE,
        key: CK_OBJECT_HANDLE,
    ) -> CK_RV {
        call!(self, C_SignInit, session, &mut bare(mechanism), key)
    }

    /// C_Sign into a buffer of 512 bytes.
    pub(crate) fn sign(&self, session: CK_SESSION_HANDLE, data: &[u8]) -> Result<Vec<u8>, CK_RV> {
        let (mut signature, mut length) = (vec![0; 512], 512);
        let rv = call!(
            self,
            C_Sign,
            session,
            data.as_ptr().cast_mut(),
            data.len() as CK_ULONG,
            signature.as_mut_ptr(),
            &mut length
        );
        signature.truncate(length as usize);
        if rv == CKR_OK { Ok(signature) } else { Err(rv) }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        call!(self, C_Finalize, null_mut());
    }
}

/// C_GetInterface; the function list or the error.
pub(crate) fn interface(name: &[u8], version: (u8, u8)) -> Result<*mut c_void, CK_RV> {
    let mut version = CK_VERSION {
        major: version.0,
        minor: version.1,
    };
    interface_raw(name.as_ptr(), &mut version, 0).map(|interface| interface.pFunctionList)
}

/// C_GetInterface as it is.
pub(crate) fn interface_raw(
    name: *const u8,
    version: *mut CK_VERSION,
    flags: CK_FLAGS,
) -> Result<CK_INTERFACE, CK_RV> {
    let mut found = null_mut();
    let function = symbol::<CK_C_GetInterface>(b"C_GetInterface").unwrap();
    // SAFETY: NULL or the test's own.
    match unsafe { function(name.cast_mut(), version, &mut found, flags) } {
        // SAFETY: a static of the module.
        CKR_OK => Ok(unsafe { *found }),
        rv => Err(rv),
    }
}

/// A symbol of the module. The library is never unloaded.
pub(crate) fn symbol<T>(name: &[u8]) -> libloading::Symbol<'static, T> {
    static LIBRARY: OnceLock<libloading::Library> = OnceLock::new();
    // SAFETY: the module has no constructors.
    let library = LIBRARY.get_or_init(|| unsafe { libloading::Library::new(path()) }.unwrap());
    // SAFETY: the caller names the symbol's type as the OASIS headers do.
    unsafe { library.get(name) }.unwrap()
}

pub(crate) fn bare(mechanism: CK_MECHANISM_TYPE) -> CK_MECHANISM {
    CK_MECHANISM {
        mechanism,
        pParameter: null_mut(),
        ulParameterLen: 0,
    }
}

pub(crate) fn with_parameter<T>(mechanism: CK_MECHANISM_TYPE, parameter: &mut T) -> CK_MECHANISM {
    CK_MECHANISM {
        mechanism,
        pParameter: (parameter as *mut T).cast(),
        ulParameterLen: size_of::<T>() as CK_ULONG,
    }
}

pub(crate) fn raw(template: &[(CK_ATTRIBUTE_TYPE, &[u8])]) -> Vec<CK_ATTRIBUTE> {
    let attribute = |(type_, value): &(CK_ATTRIBUTE_TYPE, &[u8])| CK_ATTRIBUTE {
        type_: *type_,
        pValue: if value.is_empty() {
            null_mut()
        } else {
            value.as_ptr().cast_mut().cast()
        },
        ulValueLen: value.len() as CK_ULONG,
    };
    template.iter().map(attribute).collect()
}

/// Puts a file token "sample" there, with the keys p256 (signs and agrees), rsa (signs and
/// decrypts) and ed. It is made once, and kept in memory: nothing would remove a directory of it.
fn put_sample(path: &Path) {
    static SAMPLE: OnceLock<Vec<(OsString, Vec<u8>)>> = OnceLock::new();
    let files = SAMPLE.get_or_init(|| {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("sample");
        make_token(&path, "sample");
        let entries = fs::read_dir(path).unwrap().map(Result::unwrap);
        entries
            .map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap()))
            .collect()
    });
    fs::DirBuilder::new().mode(0o700).create(path).unwrap();
    for (name, content) in files {
        write(&path.join(name), content);
    }
}

/// Makes a file token of that label with the keys of the sample token.
pub(crate) fn make_token(path: &Path, label: &str) {
    let request = TokenRequest {
        dir: path,
        label,
        settings: Default::default(),
        pins: None,
    };
    let token = LocalToken::create(&file::BACK_END, &request).unwrap();
    let keys = [
        (
            "p256",
            KeyKind::EcP256,
            Usage {
                sign: true,
                agree: true,
                decrypt: false,
            },
        ),
        (
            "rsa",
            KeyKind::Rsa2048,
            Usage {
                sign: true,
                agree: false,
                decrypt: true,
            },
        ),
        ("ed", KeyKind::Ed25519, Usage::SIGN),
    ];
    for (label, kind, usage) in keys {
        let names = Names {
            label: Some(label.to_owned()),
            cka_id: None,
        };
        token.generate(&KeyRequest { kind, usage, names }).unwrap();
    }
}

/// Calls any function with `first`, or zeroed memory, and zeroed memory for whatever else it may
/// take. In the C ABIs of Linux a function does not see arguments that it does not have.
pub(crate) fn call_blindly(function: usize, first: Option<CK_ULONG>) -> CK_RV {
    type Any = unsafe extern "C" fn(
        *mut c_void,
        *mut c_void,
        *mut c_void,
        *mut c_void,
        *mut c_void,
        *mut c_void,
        *mut c_void,
        *mut c_void,
        *mut c_void,
        *mut c_void,
    ) -> CK_RV;
    let mut memory = [0_usize; 512];
    let at = memory.as_mut_ptr().cast();
    let first = first.map_or(at, |first| first as *mut c_void);
    // SAFETY: a function of the module's list, all of which take words; what they write fits.
    unsafe {
        let function = std::mem::transmute::<usize, Any>(function);
        function(first, at, at, at, at, at, at, at, at, at)
    }
}

/// Runs something, and the processes that it starts, without root's right to ignore modes.
pub(crate) fn bound_by_modes<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            give_up_rights();
            what()
        });
        thread.join().unwrap()
    })
}

/// Gives up root's right to ignore modes, in this thread and for good.
pub(crate) fn give_up_rights() {
    let rights = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
    for right in rights.iter() {
        // Others than root have nothing to give up.
        let _ = remove_capability_from_bounding_set(right);
    }
    let mut own = capabilities(None).unwrap();
    own.effective.remove(rights);
    own.permitted.remove(rights);
    own.inheritable.remove(rights);
    set_capabilities(None, own).unwrap();
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::DirBuilder::new().mode(0o700).create(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let copy = to.join(entry.file_name());
        fs::copy(entry.path(), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

pub(crate) fn write(path: &Path, content: &(impl AsRef<[u8]> + ?Sized)) {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all(content.as_ref()).unwrap();
}

/// Runs `child` in a forked process; what it returns is its exit status.
pub(crate) fn in_child(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child runs the test's closure and ends without returning.
    match unsafe { libc::fork() } {
        0 => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(101);
            // SAFETY: ends the process.
            unsafe { libc::_exit(code) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: waits for the child that was just made.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            // A child that a signal ended has no exit status, and that reads as 0.
            assert!(libc::WIFEXITED(status), "ended by {status:#x}");
            libc::WEXITSTATUS(status)
        }
    }
}

/// No name, or no version.
pub(crate) const NONE: *const u8 = null();
