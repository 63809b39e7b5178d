//! The frames of docs/puf-device.md: fields in little-endian order, CRC-32 (IEEE 802.3) over them,
//! COBS (Cheshire and Baker, 1999) over both, and a zero byte at the end.

use zeroize::Zeroize;

use crate::secret::Secret;

/// Ends every frame and is in none.
pub(super) const END: u8 = 0;
/// Most bytes of data in a reply.
pub(super) const MAX_DATA: usize = 512;
/// Longest frame without its end: header, data, CRC and the overhead of COBS.
pub(super) const MAX_FRAME: usize = HEADER + MAX_DATA + CRC + 3;

const VERSION: u8 = 1;
const REPLY: u8 = 0x80;
/// Length of a reply's header: version, command, seq, status, power cycles, total, offset.
const HEADER: usize = 1 + 1 + 2 + 1 + 4 + 4 + 4;
const CRC: usize = 4;

/// What a reader is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// Measure anew if it can. Answered without data.
    Measure = 1,
    /// Give a part of the measurement.
    Read = 2,
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) seq: u16,
    pub(super) offset: u32,
    pub(super) len: u16,
}

/// A reply to a request.
#[derive(Debug)]
pub(super) struct Reply {
    status: u8,
    offset: u32,
    /// Counts measurements.
    pub(super) power_cycles: u32,
    /// Length of a measurement in bytes.
    pub(super) total_len: u32,
    pub(super) data: Secret,
}

impl Request {
    /// The frame, with its end. The one before it too, so that what noise there was ends there.
    pub(super) fn frame(&self) -> Vec<u8> {
        let mut fields = vec![VERSION, self.command as u8];
        fields.extend(self.seq.to_le_bytes());
        fields.extend(self.offset.to_le_bytes());
        fields.extend(self.len.to_le_bytes());
        fields.extend(crc32fast::hash(&fields).to_le_bytes());
        let mut frame = vec![END];
        frame.extend(cobs::encode_vec(&fields));
        frame.push(END);
        frame
    }
}

impl Reply {
    /// The reply in a frame; `None` for what is garbled or answers something else. The frame is
    /// decoded in place and wiped.
    pub(super) fn parse(frame: &mut [u8], to: &Request) -> Option<Self> {
        let reply = Reply::decode(frame, to);
        frame.zeroize();
        reply
    }

    fn decode(frame: &mut [u8], to: &Request) -> Option<Self> {
        let len = cobs::decode_in_place(frame).ok()?;
        let (fields, crc) = frame.get(..len)?.split_last_chunk::<CRC>()?;
        if crc32fast::hash(fields).to_le_bytes() != *crc {
            return None;
        }
        let (header, data) = fields.split_first_chunk::<HEADER>()?;
        let [version, command, s0, s1, status, numbers @ ..] = *header;
        let ours = version == VERSION
            && command == to.command as u8 | REPLY
            && u16::from_le_bytes([s0, s1]) == to.seq;
        let [p0, p1, p2, p3, t0, t1, t2, t3, o0, o1, o2, o3] = numbers;
        ours.then(|| Reply {
            status,
            power_cycles: u32::from_le_bytes([p0, p1, p2, p3]),
            total_len: u32::from_le_bytes([t0, t1, t2, t3]),
            offset: u32::from_le_bytes([o0, o1, o2, o3]),
            data: Secret::new(data.to_vec()),
        })
    }

    /// The reply, if it gives what was asked for.
    pub(super) fn fits(self, request: &Request) -> Result<Self, String> {
        let wanted = match request.command {
            Command::Measure => 0,
            Command::Read => usize::from(request.len),
        };
        match self.status {
            0 if self.data.len() == wanted && self.offset == request.offset => Ok(self),
            0 => Err(format!(
                "{} bytes at {} instead of {wanted} at {}",
                self.data.len(),
                self.offset,
                request.offset
            )),
            1 => Err("it does not know the request; it has another version of firmware".to_owned()),
            2 => Err("it has no such bytes".to_owned()),
            3 => Err("its memory does not answer".to_owned()),
            other => Err(format!("status {other}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Request = Request {
        command: Command::Read,
        seq: 0x0102,
        offset: 0x10,
        len: 4,
    };

    /// The bytes of docs/puf-device.md, of which the CRC was computed by Python's zlib.
    #[test]
    fn a_request_is_what_the_document_shows() {
        let hex: Vec<String> = REQUEST.frame().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex.join(" "), DOCUMENTED_REQUEST);
    }

    /// As above.
    #[test]
    fn a_reply_is_what_the_document_shows() {
        let reply = Reply::parse(&mut unhex(DOCUMENTED_REPLY), &REQUEST).unwrap();
        assert_eq!((reply.power_cycles, reply.total_len), (7, 1024));
        let reply = reply.fits(&REQUEST).unwrap();
        assert_eq!(reply.data.expose(), [0xde, 0xad, 0, 0xef]);
    }

    /// Seen to fail without the comparison of the CRC, and without that of seq.
    #[test]
    fn what_is_garbled_or_answers_another_is_no_reply() {
        let frame = unhex(DOCUMENTED_REPLY);
        for bit in 0..frame.len() * 8 {
            let mut garbled = frame.clone();
            garbled[bit / 8] ^= 1 << (bit % 8);
            assert!(Reply::parse(&mut garbled, &REQUEST).is_none(), "bit {bit}");
        }
        for len in 0..frame.len() {
            assert!(Reply::parse(&mut frame[..len].to_vec(), &REQUEST).is_none());
        }
        let seq = 0x0103;
        assert!(Reply::parse(&mut frame.clone(), &Request { seq, ..REQUEST }).is_none());
        let command = Command::Measure;
        assert!(Reply::parse(&mut frame.clone(), &Request { command, ..REQUEST }).is_none());
    }

    #[test]
    fn other_bytes_than_asked_for_are_an_error() {
        for request in [
            Request {
                offset: 0,
                ..REQUEST
            },
            Request { len: 5, ..REQUEST },
        ] {
            let reply = Reply::parse(&mut unhex(DOCUMENTED_REPLY), &REQUEST).unwrap();
            assert!(reply.fits(&request).is_err());
        }
    }

    fn unhex(text: &str) -> Vec<u8> {
        let bytes = text.split(' ').map(|byte| u8::from_str_radix(byte, 16));
        bytes.map(Result::unwrap).collect()
    }

    const DOCUMENTED_REQUEST: &str = "00 06 01 02 02 01 10 01 01 02 04 05 98 e0 56 a1 00";
    /// Without its end.
    const DOCUMENTED_REPLY: &str = "05 01 82 02 01 02 07 01 01 01 02 04 01 02 10 01 01 03 de ad 06 ef \
         09 85 02 f2";
}
