//! All that is unsafe: pointers in, pointers out, the panic guard, the entry macro.
//!
//! PKCS#11 makes the caller vouch for its pointers: each is NULL or valid for the length that
//! stands beside it, until the function returns. Nothing else is believed of them: they may be
//! unaligned, alias one another, and come with any length. So no reference to memory that is
//! written is ever made, and what is read is borrowed from a [`Call`], which ends with the call.

mod spawn;

use std::ffi::{c_ulong, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{mem, ptr, slice};

use cryptoki_sys::*;

pub(crate) use spawn::spawn;

use crate::rv::{Result, Rv};

/// `CK_ULONG` and all that is one: lengths, handles, slot ids, types of attributes.
pub(crate) type Ulong = c_ulong;

/// Most attributes in a template; the longest that a client was seen to send has 110.
const MAX_ATTRIBUTES: Ulong = 4096;
/// Longest value of an attribute in a template, in bytes: a certificate has a few thousand.
const MAX_VALUE: Ulong = 1 << 20;

/// One call into the module, which the caller's memory is borrowed from.
pub(crate) struct Call(());

/// A pointer from the caller that nobody has looked at.
pub(crate) struct Ptr<'c, T> {
    at: *mut T,
    call: PhantomData<&'c Call>,
}

impl<T> Clone for Ptr<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ptr<'_, T> {}

/// Types of which every bit pattern is a value.
///
/// # Safety
/// Implemented for integers, and structures of integers, raw pointers and optional functions only.
pub(crate) unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($type:ty),*) => {
        // SAFETY: integers, and bindgen's structures of integers, raw pointers and `Option<fn>`.
        $(unsafe impl Plain for $type {})*
    };
}

plain!(u8, Ulong, CK_ATTRIBUTE, CK_MECHANISM, CK_VERSION);
plain!(
    CK_C_INITIALIZE_ARGS,
    CK_RSA_PKCS_PSS_PARAMS,
    CK_RSA_PKCS_OAEP_PARAMS
);
plain!(CK_ECDH1_DERIVE_PARAMS, CK_EDDSA_PARAMS);

impl<'c, T> Ptr<'c, T> {
    /// Whether the caller gave none.
    pub(crate) fn is_null(self) -> bool {
        self.at.is_null()
    }

    /// The same pointer to something else.
    pub(crate) fn cast<U>(self) -> Ptr<'c, U> {
        self.of(self.at.cast())
    }

    /// Writes one value.
    pub(crate) fn write(self, value: T) -> Result<()> {
        self.put(0, slice::from_ref(&value))
    }

    /// A pointer that the caller handed over inside of what this one points to.
    fn of<U>(self, at: *mut U) -> Ptr<'c, U> {
        Ptr {
            at,
            call: PhantomData,
        }
    }

    /// Writes values at an offset, in elements.
    fn put(self, offset: usize, values: &[T]) -> Result<()> {
        if self.is_null() {
            return Err(Rv::ARGUMENTS_BAD);
        }
        // SAFETY: not NULL, and the caller vouches for the room, which was compared before. Bytes
        // are copied, so alignment does not matter; `values` is the module's own memory.
        unsafe {
            let to = self.at.cast::<u8>().add(offset * size_of::<T>());
            ptr::copy_nonoverlapping(values.as_ptr().cast(), to, size_of_val(values));
        }
        Ok(())
    }
}

impl<'c, T: Plain> Ptr<'c, T> {
    /// Reads one value.
    pub(crate) fn read(self) -> Result<T> {
        if self.is_null() {
            return Err(Rv::ARGUMENTS_BAD);
        }
        // SAFETY: not NULL, valid by the caller's word, and any bits are a `T`.
        Ok(unsafe { self.at.read_unaligned() })
    }

    /// Reads one value, where there is one.
    pub(crate) fn optional(self) -> Result<Option<T>> {
        (!self.is_null()).then(|| self.read()).transpose()
    }
}

impl<'c> Ptr<'c, u8> {
    /// Bytes of the caller. NULL is fine where there are none.
    pub(crate) fn slice(self, length: Ulong) -> Result<&'c [u8]> {
        match usize::try_from(length) {
            Ok(0) => Ok(&[]),
            Ok(length) if !self.is_null() && isize::try_from(length).is_ok() => {
                // SAFETY: not NULL, no longer than memory can be, and the caller vouches for it
                // until the call ends, which is as long as the slice can live.
                Ok(unsafe { slice::from_raw_parts(self.at, length) })
            }
            _ => Err(Rv::ARGUMENTS_BAD),
        }
    }

    /// Text that ends in a NUL, which is not looked for beyond `most` bytes.
    pub(crate) fn text(self, most: usize) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        for offset in 0..=most {
            // SAFETY: at most one past the last byte read, and that one was no NUL.
            let next = self.of(unsafe { self.at.cast::<u8>().add(offset) });
            match next.read()? {
                0 => return Ok(text),
                byte => text.push(byte),
            }
        }
        Err(Rv::ARGUMENTS_BAD)
    }

    /// Fills the caller's buffer piece by piece.
    pub(crate) fn fill_by(
        self,
        length: Ulong,
        mut source: impl FnMut(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = [0; 4096];
        let length = usize::try_from(length).map_err(|_| Rv::ARGUMENTS_BAD)?;
        if self.is_null() && length > 0 {
            return Err(Rv::ARGUMENTS_BAD);
        }
        for offset in (0..length).step_by(buffer.len()) {
            let size = buffer.len().min(length - offset);
            let piece = buffer.get_mut(..size).unwrap_or_default();
            source(piece)?;
            self.put(offset, piece)?;
        }
        Ok(())
    }
}

/// How much room the caller has, in elements; `None` where it asks how much there must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room(Option<usize>);

/// What goes to a caller that may have asked for the length only.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer<T> {
    /// Only the length was asked for.
    Length(usize),
    /// The buffer is too short; this many would do.
    TooSmall(usize),
    /// The result, no longer than the room.
    Done(Vec<T>),
}

impl Room {
    /// No room: the length is asked for.
    pub(crate) const NONE: Room = Room(None);

    /// The answer where `length` elements are not wanted or do not fit.
    pub(crate) fn refuse<T>(self, length: usize) -> Option<Answer<T>> {
        match self.0 {
            None => Some(Answer::Length(length)),
            Some(room) if room < length => Some(Answer::TooSmall(length)),
            Some(_) => None,
        }
    }

    /// Answers with what is at hand already.
    pub(crate) fn answer<T: Clone>(self, values: &[T]) -> Answer<T> {
        self.refuse(values.len())
            .unwrap_or_else(|| Answer::Done(values.to_vec()))
    }
}

/// The two-call convention (PKCS#11 3.0 §5.2): a NULL buffer asks for the length.
///
/// `produce` has ended, and with it all that it borrowed, when the first byte is written.
pub(crate) fn fill<T>(
    out: Ptr<'_, T>,
    length: Ptr<'_, Ulong>,
    produce: impl FnOnce(Result<Room>) -> Result<Answer<T>>,
) -> Result<()> {
    let room = length.read().and_then(|room| {
        let room = usize::try_from(room).map_err(|_| Rv::ARGUMENTS_BAD)?;
        Ok(Room((!out.is_null()).then_some(room)))
    });
    let (needed, result) = match (produce(room)?, room?) {
        (Answer::Length(needed), _) => (needed, Ok(())),
        (Answer::TooSmall(needed), _) => (needed, Err(Rv::BUFFER_TOO_SMALL)),
        (Answer::Done(values), Room(room)) if room >= Some(values.len()) => {
            out.put(0, &values)?;
            (values.len(), Ok(()))
        }
        // More than it was asked for: a defect of ours.
        (Answer::Done(_), _) => return Err(Rv::GENERAL_ERROR),
    };
    length.write(needed as Ulong)?;
    result
}

/// Writes a list that the caller gave `room` elements for, and how many it has.
pub(crate) fn put_list<T>(
    out: Ptr<'_, T>,
    room: Ulong,
    count: Ptr<'_, Ulong>,
    produce: impl FnOnce(usize) -> Result<Vec<T>>,
) -> Result<()> {
    if count.is_null() || (out.is_null() && room > 0) {
        return Err(Rv::ARGUMENTS_BAD);
    }
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let mut values = produce(room)?;
    values.truncate(room);
    if !values.is_empty() {
        out.put(0, &values)?;
    }
    count.write(values.len() as Ulong)
}

/// One attribute of a template, in the caller's memory.
#[derive(Clone, Copy)]
pub(crate) struct Attribute<'c> {
    place: Ptr<'c, CK_ATTRIBUTE>,
    copy: CK_ATTRIBUTE,
}

/// The attributes of a template; NULL is fine where there are none.
pub(crate) fn attributes<'c>(
    template: Ptr<'c, CK_ATTRIBUTE>,
    count: Ulong,
) -> Result<Vec<Attribute<'c>>> {
    if count > MAX_ATTRIBUTES {
        return Err(Rv::ARGUMENTS_BAD);
    }
    let attribute = |index| {
        // SAFETY: within the array that the caller vouches for; wrapping, for NULL is not one.
        let place = template.of(template.at.wrapping_add(index));
        let copy = match template.is_null() {
            true => Err(Rv::ARGUMENTS_BAD),
            false => place.read(),
        };
        Ok(Attribute { place, copy: copy? })
    };
    (0..count as usize).map(attribute).collect()
}

impl<'c> Attribute<'c> {
    /// Its type.
    pub(crate) fn kind(&self) -> Ulong {
        self.copy.type_
    }

    /// The value that the caller gives.
    pub(crate) fn value(&self) -> Result<&'c [u8]> {
        if self.copy.ulValueLen > MAX_VALUE {
            return Err(Rv::ATTRIBUTE_VALUE_INVALID);
        }
        let value: Ptr<'c, u8> = self.place.of(self.copy.pValue.cast());
        let value = value.slice(self.copy.ulValueLen);
        value.map_err(|_| Rv::ATTRIBUTE_VALUE_INVALID)
    }

    /// Gives the caller a value, or why there is none (PKCS#11 3.0 §5.7.5, C_GetAttributeValue).
    pub(crate) fn answer(&self, value: Result<&[u8]>) -> Result<()> {
        let room = usize::try_from(self.copy.ulValueLen).unwrap_or(usize::MAX);
        let to: Ptr<'c, u8> = self.place.of(self.copy.pValue.cast());
        let (length, result) = match value {
            Ok(value) if to.is_null() => (value.len() as Ulong, Ok(())),
            Ok(value) if value.len() > room => {
                (CK_UNAVAILABLE_INFORMATION, Err(Rv::BUFFER_TOO_SMALL))
            }
            Ok(value) => {
                to.put(0, value)?;
                (value.len() as Ulong, Ok(()))
            }
            Err(rv) => (CK_UNAVAILABLE_INFORMATION, Err(rv)),
        };
        let mut copy = self.copy;
        copy.ulValueLen = length;
        self.place.write(copy)?;
        result
    }
}

/// A mechanism with its parameter, in the caller's memory.
#[derive(Clone, Copy)]
pub(crate) struct Mechanism<'c> {
    /// Its type.
    pub(crate) kind: Ulong,
    parameter: Ptr<'c, u8>,
    length: Ulong,
}

impl<'c> Mechanism<'c> {
    /// Reads the structure, not the parameter.
    pub(crate) fn read(from: Ptr<'c, CK_MECHANISM>) -> Result<Self> {
        let raw = from.read()?;
        Ok(Mechanism {
            kind: raw.mechanism,
            parameter: from.of(raw.pParameter.cast()),
            length: raw.ulParameterLen,
        })
    }

    /// Whether there is no parameter.
    pub(crate) fn is_bare(&self) -> bool {
        self.length == 0
    }

    /// The parameter, which has exactly the size of `T`.
    pub(crate) fn parameter<T: Plain>(&self) -> Result<T> {
        match usize::try_from(self.length) {
            Ok(length) if length == size_of::<T>() => self.parameter.cast().read(),
            _ => Err(Rv::MECHANISM_PARAM_INVALID),
        }
        .map_err(|_| Rv::MECHANISM_PARAM_INVALID)
    }

    /// Bytes that a field of the parameter points to.
    pub(crate) fn bytes(&self, field: *mut c_void, length: Ulong) -> Result<&'c [u8]> {
        if length > MAX_VALUE {
            return Err(Rv::MECHANISM_PARAM_INVALID);
        }
        let bytes: Ptr<'c, u8> = self.parameter.of(field.cast());
        let bytes = bytes.slice(length);
        bytes.map_err(|_| Rv::MECHANISM_PARAM_INVALID)
    }
}

/// Turns a parameter of a `C_` function into what the module works with.
pub(crate) trait Argument {
    /// What it becomes.
    type Wrapped<'c>;
    /// Wraps it for the time of one call.
    fn wrap(self, call: &Call) -> Self::Wrapped<'_>;
}

impl<T> Argument for *mut T {
    type Wrapped<'c> = Ptr<'c, T>;
    fn wrap(self, _: &Call) -> Ptr<'_, T> {
        Ptr {
            at: self,
            call: PhantomData,
        }
    }
}

macro_rules! as_they_are {
    ($($type:ty),*) => {
        $(impl Argument for $type {
            type Wrapped<'c> = Self;
            fn wrap(self, _: &Call) -> Self {
                self
            }
        })*
    };
}

as_they_are!(u8, Ulong, CK_NOTIFY);

/// Runs one call. No panic leaves it: `mend` repairs what one may have left half done.
pub(crate) fn guard(
    session: Option<Ulong>,
    mend: fn(Option<Ulong>),
    body: impl FnOnce(&Call) -> Result<()>,
) -> CK_RV {
    match catch_unwind(AssertUnwindSafe(|| body(&Call(())))) {
        Ok(result) => Rv::code(result),
        Err(payload) => {
            // Whoever panics with a value of his own may panic again when it is dropped.
            mem::forget(payload);
            if let Err(payload) = catch_unwind(|| mend(session)) {
                mem::forget(payload);
            }
            CKR_GENERAL_ERROR
        }
    }
}

/// Defines the `C_` functions and both function lists. A function that is missing or has other
/// parameters than the header's does not compile.
///
/// `exported` functions are the shared object's symbols; after a panic in one of a `session`, that
/// session is closed.
macro_rules! entries {
    (mend = $mend:path;
     2.40: $($kind:ident $name:ident($($arg:ident: $type:ty),*) = $body:expr;)*
     3.0: $($kind3:ident $name3:ident($($arg3:ident: $type3:ty),*) = $body3:expr;)*) => {
        $($crate::raw::entry!($mend; $kind $name($($arg: $type),*) = $body);)*
        $($crate::raw::entry!($mend; $kind3 $name3($($arg3: $type3),*) = $body3);)*

        pub(crate) static LIST_2_40: CK_FUNCTION_LIST = CK_FUNCTION_LIST {
            version: CK_VERSION { major: 2, minor: 40 },
            $($name: Some($name),)*
        };

        pub(crate) static LIST_3_0: CK_FUNCTION_LIST_3_0 = CK_FUNCTION_LIST_3_0 {
            version: CK_VERSION { major: 3, minor: 0 },
            $($name: Some($name),)*
            $($name3: Some($name3),)*
        };
    };
}

macro_rules! entry {
    ($mend:path; exported $name:ident($($arg:ident: $type:ty),*) = $body:expr) => {
        /// One of the three symbols of the shared object.
        // SAFETY: PKCS#11 gives the name to this function alone.
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn $name($($arg: $type),*) -> CK_RV {
            $crate::raw::guard(None, $mend, |_call| {
                $(let $arg = $crate::raw::Argument::wrap($arg, _call);)*
                $body
            })
        }
    };
    ($mend:path; global $name:ident($($arg:ident: $type:ty),*) = $body:expr) => {
        extern "C" fn $name($($arg: $type),*) -> CK_RV {
            $crate::raw::guard(None, $mend, |_call| {
                $(let $arg = $crate::raw::Argument::wrap($arg, _call);)*
                $body
            })
        }
    };
    ($mend:path; session $name:ident($first:ident: $of:ty $(, $arg:ident: $type:ty)*) = $body:expr) => {
        extern "C" fn $name($first: $of $(, $arg: $type)*) -> CK_RV {
            $crate::raw::guard(Some($first), $mend, |_call| {
                $(let $arg = $crate::raw::Argument::wrap($arg, _call);)*
                $body
            })
        }
    };
}

pub(crate) use {entries, entry};

/// An interface in static memory.
#[repr(transparent)]
pub(crate) struct Interface(pub(crate) CK_INTERFACE);

// SAFETY: its pointers are to other statics, and nothing of it is ever written.
unsafe impl Sync for Interface {}

/// Whether the process runs with rights that its caller has not, so that the environment is not
/// to be believed.
pub(crate) fn is_secure() -> bool {
    // SAFETY: getauxval(3) reads a constant of the process.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Writes a line to standard error in one go and without any lock. What cannot be written is lost.
pub(crate) fn write_stderr(line: &[u8]) {
    // SAFETY: write(2) from memory of ours.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}
