//! COBS (Cheshire and Baker, "Consistent Overhead Byte Stuffing", 1999) and CRC-32 (IEEE 802.3).

/// CRC-32 of several parts, bit by bit: a table would take a kilobyte of flash.
pub(crate) fn crc32(parts: &[&[u8]]) -> u32 {
    let mut crc = !0u32;
    for byte in parts.iter().copied().flatten() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let mask = (crc & 1).wrapping_neg();
            crc = (crc >> 1) ^ (0xedb8_8320 & mask);
        }
    }
    !crc
}

/// Undoes COBS of a frame without its end; `None` where that is none or is too long for `out`.
pub(crate) fn decode(frame: &[u8], out: &mut [u8]) -> Option<usize> {
    let (mut at, mut len) = (0, 0);
    while let Some(code) = frame.get(at) {
        let count = usize::from(*code).checked_sub(1)?;
        let run = frame.get(at + 1..at + 1 + count)?;
        out.get_mut(len..len + count)?.copy_from_slice(run);
        at += 1 + count;
        len += count;
        if *code != 0xff && at < frame.len() {
            *out.get_mut(len)? = 0;
            len += 1;
        }
    }
    Some(len)
}

/// A frame that is being written.
pub(crate) struct Cobs<'b> {
    out: &'b mut [u8],
    /// Where the length of the run that is being written goes.
    code: usize,
    len: usize,
}

impl<'b> Cobs<'b> {
    pub(crate) fn new(out: &'b mut [u8]) -> Self {
        Cobs {
            out,
            code: 0,
            len: 1,
        }
    }

    /// Adds bytes; `None` where there is no room.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Option<()> {
        for byte in bytes {
            if *byte == 0 {
                self.close()?;
                continue;
            }
            *self.out.get_mut(self.len)? = *byte;
            self.len += 1;
            if self.len - self.code == 0xff {
                self.close()?;
            }
        }
        Some(())
    }

    /// The frame with its end.
    pub(crate) fn end(mut self) -> Option<&'b [u8]> {
        self.close()?;
        let end = self.len - 1;
        *self.out.get_mut(end)? = 0;
        self.out.get(..self.len)
    }

    fn close(&mut self) -> Option<()> {
        let run = u8::try_from(self.len - self.code).ok()?;
        *self.out.get_mut(self.code)? = run;
        self.code = self.len;
        self.len += 1;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    /// The check value of the CRC catalogue's CRC-32/ISO-HDLC.
    #[test]
    fn the_crc_is_the_one_of_ieee() {
        assert_eq!(crc32(&[b"1234", b"56789"]), 0xcbf4_3926);
    }

    /// Seen to fail with 0xfe for 0xff in `put`, and without the check of `*code` in `decode`.
    #[test]
    fn what_is_encoded_is_decoded_and_has_no_zero() {
        for len in [0, 1, 2, 253, 254, 255, 256, 508, 509, 533] {
            for zeros in [1, 2, 7, 254, 255, 600] {
                let bytes: Vec<u8> = (1..=len)
                    .map(|n| if n % zeros == 0 { 0 } else { n as u8 | 1 })
                    .collect();
                let (mut frame, mut back) = ([0; 540], [0; 540]);
                let mut cobs = Cobs::new(&mut frame);
                cobs.put(&bytes).unwrap();
                let frame = cobs.end().unwrap();
                let (end, inner) = frame.split_last().unwrap();
                assert!(*end == 0 && !inner.contains(&0), "{len} {zeros}");
                let got = decode(inner, &mut back).unwrap();
                assert_eq!(&back[..got], bytes.as_slice(), "{len} {zeros}");
            }
        }
    }
}
