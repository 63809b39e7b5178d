//! Every function of the module with arguments that no client would give, from four threads.
//!
//! Pointers are NULL or valid for the length beside them, as PKCS#11 has it; all else is arbitrary:
//! lengths, handles, mechanisms, templates, the order of calls, C_Finalize in the middle. The seed
//! is fixed; how the threads interleave is not. `DEVKEY_HAMMER=1000000` makes more of it.
//!
//! Not yet seen to fail by a change of a line; a template that let the module write to read-only memory
//! ended it.
#![cfg(test)]

#[path = "common/module.rs"]
mod module;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, thread};

use cryptoki_sys::*;
use module::{Module, call};

/// secp256r1 as an object identifier, DER.
const P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const THREADS: u64 = 4;
const CALLS: u64 = 60_000;
/// Size of each buffer, in bytes: the longest that is passed in.
const BUFFER: usize = 300_000;

/// The arguments of each function, in the order of CK_FUNCTION_LIST_3_0: s session, S slot, o object,
/// m mechanism, t template and its count, b bytes and their length, B room and where its length
/// stands, R room and its length, L list and where its length stands, i a structure to be written,
/// H a handle to be written, u a number, z NULL mostly, a arguments of C_Initialize.
const FUNCTIONS: [&str; 68] = [
    "a", "z", "i", "i", "uL", "Si", "Si", "SL", "Sui", "Sbb", "sb", "sbb", "SuzzH", "s", "S", "si",
    "sB", "sboo", "sub", "s", "stH", "sotH", "so", "soH", "sot", "sot", "st", "sRH", "s", "smo",
    "sbB", "sbB", "sB", "smo", "sbB", "sbB", "sB", "sm", "sbB", "sb", "so", "sB", "smo", "sbB",
    "sb", "sB", "smo", "sbB", "smo", "sbb", "sb", "sb", "smo", "sbB", "sbB", "sbB", "sbB", "sbB",
    "smtH", "smttHH", "smooB", "smobtH", "smotH", "sb", "sR", "s", "s", "uiz",
];
/// What comes after them, from C_LoginUser; the message functions look at their session only.
const LATER: [&str; 22] = [
    "subb", "su", "smo", "s", "s", "s", "s", "smo", "s", "s", "s", "s", "smo", "s", "s", "s", "s",
    "smo", "s", "s", "s", "s",
];
/// C_GetInterfaceList and C_GetInterface stand between; they are called by other tests.
const INTERFACES: usize = 2;
/// Those that end the module's state, write files or look for tokens, and are called less often.
const RARE: [usize; 9] = [0, 1, 4, 14, 20, 22, 25, 59, 13];

#[test]
fn nothing_that_a_caller_does_is_answered_with_a_defect() {
    let calls = env::var("DEVKEY_HAMMER").map_or(CALLS, |calls| calls.parse().unwrap());
    // SAFETY: no other thread is there yet.
    unsafe { env::set_var("DEVKEY_LOG", "error") };
    let module = Module::new();
    let module = Shared(&module);
    let mut said = Captured::new();
    let answers = thread::scope(|scope| {
        let module = &module;
        let all: Vec<_> = (1..=THREADS)
            .map(|seed| scope.spawn(move || Hammer::new(module.get(), seed).run(calls / THREADS)))
            .collect();
        let all = all.into_iter().map(|one| one.join());
        all.collect::<Vec<_>>()
    });
    let said = said.end();
    let mut counts = BTreeMap::new();
    for (rv, count) in answers.into_iter().flat_map(Result::unwrap) {
        *counts.entry(rv).or_insert(0) += count;
    }
    assert_eq!(said, "");
    assert_eq!(counts.get(&CKR_GENERAL_ERROR), None, "{counts:x?}");
    // It is worth nothing where all calls fail alike.
    assert!(counts[&CKR_OK] > calls / 50, "{counts:x?}");
    assert!(counts.len() > 20, "{counts:x?}");
}

struct Shared<'a>(&'a Module);

// SAFETY: the function list is a static; nothing else of it is used by the threads.
unsafe impl Sync for Shared<'_> {}

impl Shared<'_> {
    fn get(&self) -> &Module {
        self.0
    }
}

/// What the process says on both its streams.
struct Captured {
    file: File,
    kept: [i32; 2],
}

impl Captured {
    fn new() -> Self {
        let file = tempfile::tempfile().unwrap();
        let kept = [1, 2].map(|fd| {
            // SAFETY: descriptors of this process, which another test does not use meanwhile.
            unsafe {
                let kept = libc::dup(fd);
                libc::dup2(file.as_raw_fd(), fd);
                kept
            }
        });
        Captured { file, kept }
    }

    fn end(&mut self) -> String {
        for (fd, kept) in [1, 2].into_iter().zip(self.kept) {
            // SAFETY: as in `new`.
            unsafe { libc::dup2(kept, fd) };
        }
        let mut said = String::new();
        self.file.rewind().unwrap();
        self.file.read_to_string(&mut said).unwrap();
        said
    }
}

/// Handles that any thread was given lately.
static HANDLES: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];
static SLOT: AtomicU64 = AtomicU64::new(0);

struct Hammer<'m> {
    module: &'m Module,
    random: u64,
    session: u64,
    bytes: Vec<u8>,
    room: Vec<u8>,
    templates: [Vec<CK_ATTRIBUTE>; 2],
    /// The values in the templates, where the module may write others.
    values: [Vec<[u8; 64]>; 2],
    numbers: Box<[u64; 16]>,
    mechanism: Box<CK_MECHANISM>,
    handles: Box<[u64; 4]>,
    length: Box<u64>,
}

impl<'m> Hammer<'m> {
    fn new(module: &'m Module, seed: u64) -> Self {
        Hammer {
            module,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            session: 0,
            bytes: vec![4; BUFFER],
            room: vec![0; BUFFER],
            templates: [Vec::new(), Vec::new()],
            values: [vec![[0; 64]; 128], vec![[0; 64]; 128]],
            numbers: Box::default(),
            mechanism: Box::new(module::bare(0)),
            handles: Box::default(),
            length: Box::default(),
        }
    }

    /// The answers, and how often each was given.
    fn run(mut self, calls: u64) -> BTreeMap<u64, u64> {
        let mut answers = BTreeMap::new();
        for _ in 0..calls {
            if self.below(50) == 0 {
                self.start();
            }
            let mut function = self.below(92) as usize;
            if self.below(3) == 0 {
                function = [24, 26, 27, 28, 42, 43, 44, 45, 48, 49, 62][self.below(11) as usize];
            }
            if RARE.contains(&function) && self.below(40) != 0 {
                continue;
            }
            let rv = self.call(function);
            *answers.entry(rv).or_insert(0) += 1;
        }
        answers
    }

    /// Sees to it that there is a session and some objects, as most calls need.
    fn start(&mut self) {
        let m = self.module;
        call!(m, C_Initialize, null_mut());
        let (mut slots, mut count) = ([0; 4], 4);
        if call!(m, C_GetSlotList, 1, slots.as_mut_ptr(), &mut count) == CKR_OK && count > 0 {
            SLOT.store(slots[0], Ordering::Relaxed);
        }
        let slot = SLOT.load(Ordering::Relaxed);
        call!(
            m,
            C_OpenSession,
            slot,
            6,
            null_mut(),
            None,
            &mut self.session
        );
        call!(m, C_FindObjectsInit, self.session, null_mut(), 0);
        let (mut found, mut count) = ([0; 8], 0);
        call!(
            m,
            C_FindObjects,
            self.session,
            found.as_mut_ptr(),
            8,
            &mut count
        );
        call!(m, C_FindObjectsFinal, self.session);
        for object in &found[..count as usize] {
            let place = self.below(16) as usize;
            HANDLES[place].store(*object, Ordering::Relaxed);
        }
    }

    fn call(&mut self, function: usize) -> u64 {
        let later = function.checked_sub(FUNCTIONS.len() + INTERFACES);
        let kinds = match later {
            Some(later) => LATER[later],
            None => match FUNCTIONS.get(function) {
                Some(kinds) => kinds,
                None => return CKR_OK,
            },
        };
        let mut given = [0_u64; 10];
        let mut at = 0;
        for kind in kinds.bytes() {
            let (first, second) = self.argument(kind, function);
            given[at] = first;
            at += 1;
            if let Some(second) = second {
                given[at] = second;
                at += 1;
            }
        }
        let list: *const CK_FUNCTION_LIST_3_0 = self.module.list();
        type Any = unsafe extern "C" fn(u64, u64, u64, u64, u64, u64, u64, u64, u64, u64) -> u64;
        let [a, b, c, d, e, f, g, h, i, j] = given;
        // SAFETY: the list is a version, padded to a pointer's size, and then pointers to functions
        // that take integers and pointers alone; more arguments than they have do no harm. Each
        // pointer is NULL or valid for the length that is given with it.
        let rv = unsafe {
            let function = *list.cast::<Any>().add(1 + function);
            function(a, b, c, d, e, f, g, h, i, j)
        };
        if rv == CKR_OK {
            let place = self.below(16) as usize;
            HANDLES[place].store(self.handles[0], Ordering::Relaxed);
        }
        rv
    }

    fn argument(&mut self, kind: u8, function: usize) -> (u64, Option<u64>) {
        let null = self.below(40) == 0;
        match kind {
            b's' => (self.either(self.session), None),
            b'S' => (self.either(SLOT.load(Ordering::Relaxed)), None),
            b'o' => {
                let place = self.below(16) as usize;
                (self.either(HANDLES[place].load(Ordering::Relaxed)), None)
            }
            b'u' => (self.number(), None),
            b'z' | b'a' => (0, None),
            b'm' => (if null { 0 } else { self.any_mechanism() }, None),
            b't' => self.any_template(function == 59),
            b'b' => self.any_bytes(null),
            b'B' | b'L' => {
                *self.length = self.length_of(kind == b'L');
                let length = if self.below(60) == 0 {
                    0
                } else {
                    &raw mut *self.length as u64
                };
                (
                    if self.below(5) == 0 { 0 } else { self.room() },
                    Some(length),
                )
            }
            b'R' => match null {
                true => (0, Some(self.number())),
                false => (self.room(), Some(self.below(BUFFER as u64 / 8))),
            },
            b'i' => (if null { 0 } else { self.room() }, None),
            _ => (
                if null {
                    0
                } else {
                    &raw mut self.handles[self.random as usize % 2] as u64
                },
                None,
            ),
        }
    }

    fn any_mechanism(&mut self) -> u64 {
        const KINDS: [u64; 18] = [
            CKM_ECDSA,
            CKM_ECDSA_SHA256,
            CKM_ECDSA_SHA512,
            CKM_RSA_PKCS,
            CKM_SHA256_RSA_PKCS,
            CKM_RSA_PKCS_PSS,
            CKM_SHA384_RSA_PKCS_PSS,
            CKM_RSA_PKCS_OAEP,
            CKM_EDDSA,
            CKM_ML_DSA,
            CKM_ECDH1_DERIVE,
            CKM_EC_KEY_PAIR_GEN,
            CKM_EC_EDWARDS_KEY_PAIR_GEN,
            CKM_ML_DSA_KEY_PAIR_GEN,
            CKM_RSA_X_509,
            CKM_AES_GCM,
            CKM_ECDSA_SHA1,
            CKM_SHA256,
        ];
        for index in 0..self.numbers.len() {
            self.numbers[index] = match self.below(4) {
                0 => [
                    CKM_SHA256,
                    CKM_SHA384,
                    CKG_MGF1_SHA256,
                    CKG_MGF1_SHA384,
                    1,
                    32,
                    48,
                    65,
                ][self.below(8) as usize],
                // A pointer for those structures that have one: valid, or NULL.
                1 => self.bytes.as_ptr() as u64,
                _ => 0,
            };
        }
        // The lengths that stand beside inner pointers: those of ECDH, EdDSA and OAEP.
        let inner = [0, 1, 32, 65, 97, 255, 4096][self.below(7) as usize];
        self.numbers[self.below(5) as usize] = inner;
        let kind = KINDS[self.below(18) as usize];
        self.make_lengths_true(kind, inner);
        let kind = self.either(kind);
        self.mechanism.mechanism = kind;
        let length = [0, 1, 16, 24, 40, 128, u64::MAX][self.below(7) as usize];
        let known = match kind {
            CKM_RSA_PKCS_OAEP | CKM_ECDH1_DERIVE => 40,
            CKM_EDDSA | CKM_ML_DSA | CKM_RSA_PKCS_PSS | CKM_SHA384_RSA_PKCS_PSS => 24,
            _ => 0,
        };
        let length = if self.below(3) > 0 { known } else { length };
        let none = length == 0 || length == u64::MAX || self.below(10) == 0;
        self.mechanism.pParameter = match none {
            true => null_mut(),
            false => self.numbers.as_mut_ptr().cast(),
        };
        self.mechanism.ulParameterLen = length;
        &raw mut *self.mechanism as u64
    }

    /// What PKCS#11 asks of the caller: an inner pointer is NULL or valid for its length.
    fn make_lengths_true(&mut self, kind: u64, length: u64) {
        let valid = self.bytes.as_ptr() as u64;
        let valid = if self.below(8) == 0 { 0 } else { valid };
        match kind {
            // hash, mgf, source, data, length
            CKM_RSA_PKCS_OAEP => (self.numbers[3], self.numbers[4]) = (valid, length),
            // kdf, length, shared, length, public
            CKM_ECDH1_DERIVE => {
                self.numbers[0] = self.below(3);
                (self.numbers[1], self.numbers[2]) = (0, 0);
                (self.numbers[3], self.numbers[4]) = (length, valid);
            }
            // flag, length, context
            CKM_EDDSA => (self.numbers[1], self.numbers[2]) = (length, valid),
            // hedge, context, length
            CKM_ML_DSA => (self.numbers[1], self.numbers[2]) = (valid, length),
            _ => {}
        }
    }

    fn any_template(&mut self, pair: bool) -> (u64, Option<u64>) {
        const KINDS: [u64; 21] = [
            CKA_CLASS,
            CKA_TOKEN,
            CKA_LABEL,
            CKA_ID,
            CKA_VALUE,
            CKA_KEY_TYPE,
            CKA_EC_PARAMS,
            CKA_EC_POINT,
            CKA_MODULUS,
            CKA_PUBLIC_EXPONENT,
            CKA_MODULUS_BITS,
            CKA_SIGN,
            CKA_DERIVE,
            CKA_PRIVATE,
            CKA_SENSITIVE,
            CKA_EXTRACTABLE,
            CKA_VALUE_LEN,
            CKA_CERTIFICATE_TYPE,
            CKA_WRAP_TEMPLATE,
            CKA_SUBJECT,
            CKA_PARAMETER_SET,
        ];
        let count = [0, 1, 2, 3, 5, 8, 100][self.below(7) as usize];
        let which = usize::from(self.below(2) == 0);
        let mut template = Vec::new();
        if pair && self.below(2) == 0 {
            // P-256 or ML-DSA-44 on the token.
            template.push((CKA_TOKEN, vec![1]));
            template.push((CKA_EC_PARAMS, P256.to_vec()));
            template.push((CKA_PARAMETER_SET, CKP_ML_DSA_44.to_ne_bytes().to_vec()));
        }
        for _ in 0..count {
            let kind = KINDS[self.below(21) as usize];
            let value = match self.below(5) {
                0 => vec![1],
                1 => (1 + self.below(3)).to_ne_bytes().to_vec(),
                2 => P256.to_vec(),
                3 => b"-----BEGIN \"\"\"\n'''\0label\n-----BEGIN X-----\n".to_vec(),
                _ => Vec::new(),
            };
            template.push((self.either(kind), value));
        }
        self.templates[which].clear();
        for (index, (type_, value)) in template.into_iter().enumerate() {
            self.values[which][index][..value.len()].copy_from_slice(&value);
            let mut one = CK_ATTRIBUTE {
                type_,
                pValue: self.values[which][index].as_mut_ptr().cast(),
                ulValueLen: value.len() as u64,
            };
            match self.below(6) {
                0 => (one.pValue, one.ulValueLen) = (null_mut(), self.number()),
                1 => {
                    one.pValue = self.room.as_mut_ptr().cast();
                    one.ulValueLen = self.below(BUFFER as u64);
                }
                // More than is taken for a value, so that nobody looks.
                2 => one.ulValueLen = u64::MAX - self.below(2),
                _ => {}
            }
            self.templates[which].push(one);
        }
        let template = &mut self.templates[which];
        let (at, count) = (template.as_mut_ptr() as u64, template.len() as u64);
        match self.below(30) {
            0 => (0, Some(self.number())),
            1 => (at, Some(u64::MAX - count)),
            _ => (at, Some(count)),
        }
    }

    fn any_bytes(&mut self, null: bool) -> (u64, Option<u64>) {
        if null {
            return (0, Some(self.number()));
        }
        let length = [0, 1, 20, 32, 48, 64, 65, 256, 5000, BUFFER as u64][self.below(10) as usize];
        let at = self.below(BUFFER as u64) as usize;
        self.bytes[at] = self.random as u8;
        (self.bytes.as_ptr() as u64, Some(length))
    }

    /// A length of a result, no more than there is room for.
    fn length_of(&mut self, list: bool) -> u64 {
        let most = if list {
            BUFFER as u64 / 8
        } else {
            BUFFER as u64
        };
        [0, 1, 63, 64, 256, 512, most][self.below(7) as usize]
    }

    fn room(&mut self) -> u64 {
        self.room.as_mut_ptr() as u64
    }

    fn number(&mut self) -> u64 {
        [
            0,
            1,
            2,
            3,
            4,
            6,
            32,
            4097,
            1 << 31,
            1 << 63,
            u64::MAX,
            self.random,
        ][self.below(12) as usize]
    }

    /// Mostly the number, sometimes any.
    fn either(&mut self, number: u64) -> u64 {
        match self.below(25) {
            0 => self.number(),
            _ => number,
        }
    }

    /// xorshift64*.
    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}
