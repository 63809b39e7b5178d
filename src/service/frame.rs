//! One message: a length, and that many bytes.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, Result};

/// Bytes of a message's length.
const HEADER: usize = size_of::<u32>();
/// Room for a message that is kept ready, in bytes; most messages have some hundred.
const ROOM: usize = 4096;

/// Bytes that are no message of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Error::input(format!("no message of the protocol: {}", malformed.0))
    }
}

/// Room for one message, used again and again, and wiped in between.
///
/// It never grows in place, which would leave a copy of its contents behind.
pub(super) struct Frame {
    room: Zeroizing<Vec<u8>>,
    filled: usize,
    limit: usize,
}

impl Frame {
    /// Room for messages of up to `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Frame {
            room: Zeroizing::new(vec![0; ROOM]),
            filled: 0,
            limit,
        }
    }

    /// Builds a message; gives all bytes to be sent.
    ///
    /// # Errors
    /// [`Error::BadInput`] where it is longer than the limit or cannot be said at all.
    pub(super) fn encode(&mut self, message: &impl Serialize) -> Result<&[u8]> {
        self.clear();
        loop {
            let body = self.room.get_mut(HEADER..).unwrap_or_default();
            match postcard::to_slice(message, body) {
                Ok(written) => {
                    self.filled = HEADER + written.len();
                    break;
                }
                Err(postcard::Error::SerializeBufferFull) => self.make_room()?,
                Err(e) => {
                    self.filled = self.room.len();
                    self.clear();
                    return Err(Error::input(format!("cannot be sent: {e}")));
                }
            }
        }
        let length = (self.filled - HEADER) as u32;
        if let Some(header) = self.room.first_chunk_mut() {
            *header = length.to_le_bytes();
        }
        Ok(self.message())
    }

    /// All bytes of the message.
    pub(super) fn message(&self) -> &[u8] {
        self.room.get(..self.filled).unwrap_or_default()
    }

    /// Where the next bytes that arrive belong. Never empty while the message is not complete.
    pub(super) fn spare(&mut self) -> &mut [u8] {
        self.room.get_mut(self.filled..).unwrap_or_default()
    }

    /// Takes note of `count` bytes that arrived, and says whether the message is complete.
    pub(super) fn arrived(&mut self, count: usize) -> Result<bool, Malformed> {
        self.filled += count;
        let Some(length) = self.length() else {
            return Ok(false);
        };
        if length > self.limit {
            return Err(Malformed("too long"));
        }
        let whole = HEADER + length;
        if self.filled > whole {
            return Err(Malformed("more than one at a time"));
        }
        if self.room.len() < whole {
            self.resize(whole);
        }
        Ok(self.filled == whole)
    }

    /// Reads the message that is complete.
    pub(super) fn decode<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Malformed> {
        let body = self.room.get(HEADER..self.filled).unwrap_or_default();
        match postcard::take_from_bytes(body) {
            Ok((message, [])) => Ok(message),
            Ok(_) => Err(Malformed("bytes left over")),
            Err(_) => Err(Malformed("cannot be read")),
        }
    }

    /// Whether nothing of a message has arrived yet.
    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Wipes the message, and gives back the memory of a long one.
    pub(super) fn clear(&mut self) {
        match self.room.len() {
            ROOM => self
                .room
                .get_mut(..self.filled)
                .unwrap_or_default()
                .zeroize(),
            _ => self.room = Zeroizing::new(vec![0; ROOM]),
        }
        self.filled = 0;
    }

    fn length(&self) -> Option<usize> {
        let header = self.room.get(..self.filled)?.first_chunk()?;
        usize::try_from(u32::from_le_bytes(*header)).ok()
    }

    fn make_room(&mut self) -> Result<()> {
        let most = HEADER + self.limit;
        if self.room.len() >= most {
            return Err(Error::input(format!(
                "longer than the {} bytes that cross to the key service",
                self.limit
            )));
        }
        self.resize((self.room.len() * 16).min(most));
        Ok(())
    }

    fn resize(&mut self, size: usize) {
        let mut larger = Zeroizing::new(vec![0; size]);
        let kept = self.room.get(..self.filled).unwrap_or_default();
        for (to, from) in larger.iter_mut().zip(kept) {
            *to = *from;
        }
        self.room = larger;
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::super::protocol::{MAX_INPUT, MAX_REQUEST, MAX_RESPONSE, Reply, Request, Response};
    use super::*;
    use crate::key::Scheme;
    use crate::secret::Secret;
    use crate::store::ObjectId;

    fn feed(frame: &mut Frame, bytes: &[u8]) -> Result<bool, Malformed> {
        frame.clear();
        let mut complete = false;
        for piece in bytes.chunks(1000) {
            assert!(!complete);
            frame.spare()[..piece.len()].copy_from_slice(piece);
            complete = frame.arrived(piece.len())?;
        }
        Ok(complete)
    }

    fn sign(input: &[u8]) -> Request<'_> {
        Request::Sign {
            token: 7,
            key: Cow::Owned(ObjectId::try_from("k".to_owned()).unwrap()),
            scheme: Scheme::Ed25519,
            input,
        }
    }

    #[test]
    fn messages_of_every_length_arrive() {
        let (mut out, mut back) = (Frame::new(MAX_REQUEST), Frame::new(MAX_REQUEST));
        for length in [0, 1, 900, ROOM - 1, ROOM, 100_000, MAX_INPUT] {
            let input = vec![0x5a; length];
            let bytes = out.encode(&sign(&input)).unwrap();
            assert_eq!(feed(&mut back, bytes), Ok(true));
            match back.decode().unwrap() {
                Request::Sign {
                    token: 7,
                    input: read,
                    ..
                } => assert!(read == input),
                _ => panic!("another request came back"),
            }
        }
    }

    /// Seen to fail with `make_room`'s comparison taken out.
    #[test]
    fn what_is_too_long_is_not_sent() {
        let mut frame = Frame::new(MAX_REQUEST);
        let refused = frame
            .encode(&sign(&vec![0; MAX_REQUEST + 1]))
            .map(<[u8]>::len);
        assert!(matches!(refused, Err(Error::BadInput(_))));
    }

    /// Seen to fail with each of the three checks in `arrived` and `decode` taken out.
    #[test]
    fn what_is_no_message_is_refused() {
        let mut frame = Frame::new(MAX_RESPONSE);
        let huge = [0xff, 0xff, 0xff, 0xff, 0];
        assert_eq!(feed(&mut frame, &huge), Err(Malformed("too long")));
        let two = [1, 0, 0, 0, 5, 5];
        assert_eq!(
            feed(&mut frame, &two),
            Err(Malformed("more than one at a time"))
        );
        // Ok(Done), and one byte.
        assert_eq!(feed(&mut frame, &[3, 0, 0, 0, 0, 5, 9]), Ok(true));
        let left_over = frame.decode::<Response>().err();
        assert_eq!(left_over, Some(Malformed("bytes left over")));
        assert_eq!(feed(&mut frame, &[3, 0, 0]), Ok(false));
    }

    /// Seen to fail with the `zeroize` in `clear` taken out.
    #[test]
    fn nothing_of_a_message_is_left() {
        let mut frame = Frame::new(MAX_RESPONSE);
        let reply: Response = Ok(Reply::Secret(Secret::new(vec![0xa5; 32])));
        frame.encode(&reply).unwrap();
        frame.clear();
        assert!(frame.room.iter().all(|byte| *byte == 0));
    }

    /// The first messages of every version there will ever be.
    ///
    /// Seen to fail with another variant put before `Hello` or `Welcome`.
    #[test]
    fn the_greeting_never_changes() {
        let mut frame = Frame::new(MAX_REQUEST);
        let hello = Request::Hello { protocol: 1 };
        assert_eq!(frame.encode(&hello).unwrap(), [2, 0, 0, 0, 0, 1]);
        let welcome: Response = Ok(Reply::Welcome {
            protocol: 1,
            version: "x".into(),
        });
        assert_eq!(
            frame.encode(&welcome).unwrap(),
            [5, 0, 0, 0, 0, 0, 1, 1, b'x']
        );
    }
}
