//! The device's side of devkey's serial PUF protocol (docs/puf-device.md): what a microcontroller
//! answers that has start-up values to give.
//!
//! Bytes in, frames out; no heap, no dependency, no target. A firmware implements [`Memory`], feeds
//! each byte of its UART or USB CDC-ACM to [`Reader::byte`] and sends back what that returns:
//!
//! ```
//! # struct Cells;
//! # impl puf_reader::Memory for Cells {
//! #     fn measure(&mut self) -> bool { true }
//! #     fn power_cycles(&self) -> u32 { 1 }
//! #     fn cells(&self) -> &[u8] { &[0xa5; 1024] }
//! # }
//! # let (received, mut sent) = ([0u8; 0], Vec::new());
//! let mut reader = puf_reader::Reader::new(Cells);
//! for byte in received {
//!     if let Some(frame) = reader.byte(byte) {
//!         sent.extend_from_slice(frame);
//!     }
//! }
//! ```
//!
//! Whoever talks to the reader reads the cells: it belongs to one machine, and its line into its case.

#![no_std]
#![forbid(unsafe_code)]

mod wire;

use wire::{Cobs, crc32};

/// Most bytes of data in one reply.
pub const MAX_DATA: usize = 512;

/// Length of a request's fields with their CRC, in bytes.
const REQUEST: usize = 10 + 4;
/// Length of a reply's fields without data and CRC, in bytes.
const HEADER: usize = 17;
/// Longest reply: fields, data, CRC, two bytes of COBS and one for each 254 bytes, and its end.
const MAX_FRAME: usize = HEADER + MAX_DATA + 4 + 4;

const VERSION: u8 = 1;
const MEASURE: u8 = 1;
const READ: u8 = 2;
const REPLY: u8 = 0x80;

/// Where the start-up values are.
pub trait Memory {
    /// Measures anew, by taking the power from a memory and giving it back, say; `false` where the
    /// memory does not answer. One that is filled at the reader's own start only has nothing to do.
    fn measure(&mut self) -> bool;

    /// Counts measurements: another number, another measurement.
    fn power_cycles(&self) -> u32;

    /// The measurement: what the memory held before anything was written to it.
    fn cells(&self) -> &[u8];
}

/// A reader: the protocol over a [`Memory`].
#[derive(Debug)]
pub struct Reader<M> {
    memory: M,
    request: [u8; REQUEST + 2],
    len: usize,
    frame: [u8; MAX_FRAME],
}

/// What a reply says of a request.
#[derive(Clone, Copy)]
enum Status {
    Good = 0,
    UnknownRequest = 1,
    NoSuchBytes = 2,
    Fault = 3,
}

impl<M: Memory> Reader<M> {
    /// A reader that has heard nothing yet.
    pub const fn new(memory: M) -> Self {
        Reader {
            memory,
            request: [0; REQUEST + 2],
            len: 0,
            frame: [0; MAX_FRAME],
        }
    }

    /// The memory.
    pub fn memory(&mut self) -> &mut M {
        &mut self.memory
    }

    /// Takes a byte from the line. Gives the frame to send, with its end, when that byte completed a
    /// request; what is garbled is not answered, and asked for again.
    pub fn byte(&mut self, byte: u8) -> Option<&[u8]> {
        if byte != 0 {
            if let Some(place) = self.request.get_mut(self.len) {
                *place = byte;
            }
            self.len = self.len.saturating_add(1);
            return None;
        }
        let len = core::mem::take(&mut self.len);
        let mut fields = [0; REQUEST];
        let request = self.request.get(..len)?;
        if wire::decode(request, &mut fields)? != REQUEST {
            return None;
        }
        let (fields, crc) = fields.split_last_chunk::<4>()?;
        if crc32(&[fields]).to_le_bytes() != *crc {
            return None;
        }
        self.answer(fields.try_into().ok()?)
    }

    fn answer(&mut self, request: [u8; 10]) -> Option<&[u8]> {
        let [version, command, s0, s1, o0, o1, o2, o3, l0, l1] = request;
        let offset = u32::from_le_bytes([o0, o1, o2, o3]);
        let len = usize::from(u16::from_le_bytes([l0, l1]));
        let mut status = match (version, command) {
            (VERSION, MEASURE) if self.memory.measure() => Status::Good,
            (VERSION, MEASURE) => Status::Fault,
            (VERSION, READ) if len <= MAX_DATA => Status::Good,
            _ => Status::UnknownRequest,
        };
        let cells = self.memory.cells();
        let data = match (command, status) {
            (READ, Status::Good) => part(cells, offset, len),
            _ => Some([].as_slice()),
        };
        if data.is_none() {
            status = Status::NoSuchBytes;
        }
        let data = data.unwrap_or_default();
        let [p0, p1, p2, p3] = self.memory.power_cycles().to_le_bytes();
        let [t0, t1, t2, t3] = (cells.len() as u32).to_le_bytes();
        let header = [
            VERSION,
            command | REPLY,
            s0,
            s1,
            status as u8,
            p0,
            p1,
            p2,
            p3,
            t0,
            t1,
            t2,
            t3,
            o0,
            o1,
            o2,
            o3,
        ];
        let crc = crc32(&[&header, data]).to_le_bytes();
        let mut frame = Cobs::new(&mut self.frame);
        for part in [header.as_slice(), data, crc.as_slice()] {
            frame.put(part)?;
        }
        frame.end()
    }
}

fn part(cells: &[u8], offset: u32, len: usize) -> Option<&[u8]> {
    let offset = usize::try_from(offset).ok()?;
    cells.get(offset..offset.checked_add(len)?)
}
