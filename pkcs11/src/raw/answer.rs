//! Results of any length: the two-call convention (PKCS#11 3.0 §5.2) and lists.

use zeroize::{Zeroize, Zeroizing};

use super::{Ptr, Ulong};
use crate::rv::{Result, Rv};

/// How much room the caller has, in elements; `None` where it asks how much there must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room(Option<usize>);

/// What goes to a caller that may have asked for the length only.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer<T: Zeroize> {
    /// Only the length was asked for.
    Length(usize),
    /// The buffer is too short; this many would do.
    TooSmall(usize),
    /// The result, no longer than the room. Wiped when the caller has it: it may be a plaintext.
    Done(Zeroizing<Vec<T>>),
}

impl Room {
    /// No room: the length is asked for.
    pub(crate) const NONE: Room = Room(None);

    /// The answer where `length` elements are not wanted or do not fit.
    pub(crate) fn refuse<T: Zeroize>(self, length: usize) -> Option<Answer<T>> {
        match self.0 {
            None => Some(Answer::Length(length)),
            Some(room) if room < length => Some(Answer::TooSmall(length)),
            Some(_) => None,
        }
    }

    /// Answers with what is at hand already.
    pub(crate) fn answer<T: Clone + Zeroize>(self, values: &[T]) -> Answer<T> {
        self.refuse(values.len())
            .unwrap_or_else(|| Answer::Done(values.to_vec().into()))
    }
}

/// The two-call convention (PKCS#11 3.0 §5.2): a NULL buffer asks for the length.
///
/// `produce` has ended, and with it all that it borrowed, when the first byte is written.
pub(crate) fn fill<T: Zeroize>(
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Does not compile where what goes to the caller is a plain `Vec`.
    #[test]
    fn what_the_caller_gets_is_wiped_here() {
        let Answer::Done(given) = Room(Some(2)).answer(&[7_u8, 8]) else {
            panic!("there is room for it");
        };
        let mut wiped: Zeroizing<Vec<u8>> = given;
        assert_eq!(*wiped, [7, 8]);
        wiped.zeroize();
        assert!(wiped.is_empty());
    }
}
