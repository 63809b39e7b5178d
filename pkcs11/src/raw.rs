//! All that is unsafe: pointers in, pointers out, the panic guard, the entry macro.
//!
//! PKCS#11 makes the caller vouch for its pointers: each is NULL or valid for the length that
//! stands beside it, until the function returns. Nothing else is believed of them: they may be
//! unaligned, alias one another, and come with any length. So no reference to memory that is
//! written is ever made, and what is read is borrowed from a [`Call`], which ends with the call.

mod call;
mod spawn;
mod structures;

use std::ffi::{c_int, c_ulong};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::{ptr, slice};

use cryptoki_sys::*;

pub(crate) use call::{Argument, entries, entry, guard};
pub(crate) use spawn::spawn;
pub(crate) use structures::{Attribute, Mechanism, attributes};

use crate::rv::{Result, Rv};

/// `CK_ULONG` and all that is one: lengths, handles, slot ids, types of attributes.
pub(crate) type Ulong = c_ulong;

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

/// Closes a descriptor if it still is a socket that process `maker` made: one end of a pair
/// answers with the process that made the pair. A forked child closes what it inherited so, unless
/// the host closed it already and the number is something else's now.
pub(crate) fn close_inherited(fd: RawFd, maker: u32) {
    let mut peer = MaybeUninit::<libc::ucred>::zeroed();
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the option is written to memory of ours of the length that is given; all its bits
    // are integers.
    let (found, peer) = unsafe {
        let to = peer.as_mut_ptr().cast();
        let found: c_int =
            libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, to, &mut length);
        (found, peer.assume_init())
    };
    if found == 0 && u32::try_from(peer.pid) == Ok(maker) {
        // SAFETY: nothing of this process uses it: its owner is forgotten.
        unsafe { libc::close(fd) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ptr<'c, T>(_: &'c Call, at: *mut T) -> Ptr<'c, T> {
        Ptr {
            at,
            call: PhantomData,
        }
    }

    /// R23. Fails where `fill` writes before it compares, or does not write the length.
    #[test]
    fn the_two_call_convention() {
        let call = Call(());
        let (mut buffer, mut length) = ([0_u8; 4], 0);
        let (out, len) = (ptr(&call, buffer.as_mut_ptr()), ptr(&call, &raw mut length));
        let none = ptr(&call, ptr::null_mut());
        let answer = |room: Result<Room>| Ok(room?.answer(&[1, 2, 3]));
        assert_eq!(fill(none, len, answer), Ok(()));
        assert_eq!(len.read(), Ok(3));
        len.write(2).unwrap();
        assert_eq!(fill(out, len, answer), Err(Rv::BUFFER_TOO_SMALL));
        assert_eq!((len.read(), out.slice(4).unwrap()), (Ok(3), &[0; 4][..]));
        len.write(4).unwrap();
        assert_eq!(fill(out, len, answer), Ok(()));
        assert_eq!(
            (len.read(), out.slice(4).unwrap()),
            (Ok(3), &[1, 2, 3, 0][..])
        );
        let no_length = ptr(&call, ptr::null_mut());
        assert_eq!(fill(out, no_length, answer), Err(Rv::ARGUMENTS_BAD));
    }

    /// Fails where `slice` does not look for NULL or at the length.
    #[test]
    fn absurd_pointers_and_lengths_are_refused() {
        let call = Call(());
        let mut byte = 7;
        let (one, none) = (ptr(&call, &raw mut byte), ptr::<u8>(&call, ptr::null_mut()));
        assert_eq!(none.slice(0), Ok(&[][..]));
        assert_eq!(none.slice(1), Err(Rv::ARGUMENTS_BAD));
        assert_eq!(one.slice(Ulong::MAX), Err(Rv::ARGUMENTS_BAD));
        assert_eq!(none.read(), Err(Rv::ARGUMENTS_BAD));
        assert_eq!(none.text(8), Err(Rv::ARGUMENTS_BAD));
        assert_eq!(none.fill_by(9, |_| Ok(())), Err(Rv::ARGUMENTS_BAD));
        let count = ptr(&call, ptr::null_mut());
        let listed = put_list(none, 0, count, |_| Ok(Vec::new()));
        assert_eq!(listed, Err(Rv::ARGUMENTS_BAD));
        let template = ptr::<CK_ATTRIBUTE>(&call, ptr::null_mut());
        assert!(attributes(template, 0).is_ok_and(|all| all.is_empty()));
        assert!(attributes(template, 1).is_err());
        assert!(attributes(template, Ulong::MAX).is_err());
    }

    /// Fails where structures are read by an aligned read (in a build with debug assertions).
    #[test]
    fn structures_may_be_unaligned() {
        let call = Call(());
        let mut bytes = [0_u8; 1 + size_of::<CK_ATTRIBUTE>()];
        let at = bytes.as_mut_ptr().wrapping_add(1).cast::<CK_ATTRIBUTE>();
        let all = attributes(ptr(&call, at), 1).unwrap();
        assert_eq!(all[0].answer(Ok(b"value")), Ok(()));
        assert_eq!(bytes[17], 5);
    }
}
