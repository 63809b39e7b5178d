//! A microcontroller that reads raw start-up values, at a serial line.
//!
//! The line is in the clear, and who moves the dongle moves the identity. Each measurement is
//! fetched in frames of up to 512 bytes; all of them must be of one power cycle.

mod frame;

use std::time::{Duration, Instant};

use rustix::termios::{
    OptionalActions, QueueSelector, ioctl_tiocexcl, tcflush, tcgetattr, tcsetattr,
};

use super::node::{Node, Wanted, failed};
use super::options::Options;
use super::source::Window;
use crate::error::{Error, Result};
use crate::secret::Secret;
use frame::{Command, MAX_DATA, Reply, Request};

/// Bits a second. A USB device has no use for it; a real UART has.
const SPEED: u32 = 115_200;
/// How long one frame may take.
const FRAME: Duration = Duration::from_millis(500);
/// How often a frame is asked for.
const TRIES: usize = 3;

/// A window of a measurement: a new one where the reader can power its memory off and on.
pub(super) fn read(options: &Options, window: Window) -> Result<Secret> {
    let wanted = Wanted {
        file: false,
        write: true,
    };
    let mut line = Line::open(Node::open(&options.device, wanted, options.timeout)?)?;
    let deadline = Instant::now() + options.timeout;
    let start = line.ask(Command::Measure, 0, 0, deadline)?;
    let total = start.total_len as usize;
    let end = total.min(window.offset + window.most);
    if end < window.offset + window.least {
        return Err(line.failed(format!(
            "it has {total} bytes; {} are needed",
            window.offset + window.least
        )));
    }
    let mut data = Secret::new(vec![0; end - window.offset]);
    for (n, place) in data.expose_mut().chunks_mut(MAX_DATA).enumerate() {
        let offset = window.offset + n * MAX_DATA;
        let reply = line.ask(Command::Read, offset, place.len(), deadline)?;
        if (reply.power_cycles, reply.total_len) != (start.power_cycles, start.total_len) {
            return Err(line.failed("it was reset while it was read".to_owned()));
        }
        // As long as was asked for: `Reply::fits`.
        place.copy_from_slice(reply.data.expose());
    }
    Ok(data)
}

/// A serial line with a reader at its other end.
struct Line {
    node: Node,
    seq: u16,
}

impl Line {
    /// Takes a tty for itself and makes it pass bytes as they are.
    fn open(node: Node) -> Result<Self> {
        let broken = |e: rustix::io::Errno| match e {
            rustix::io::Errno::NOTTY => {
                failed(node.path(), "not a tty, as kind = \"serial\" wants")
            }
            e => super::node::fault(node.path(), e),
        };
        let mut termios = tcgetattr(&node).map_err(broken)?;
        // Two processes at one line would read each other's frames.
        ioctl_tiocexcl(&node).map_err(broken)?;
        termios.make_raw();
        termios.set_speed(SPEED).map_err(broken)?;
        tcsetattr(&node, OptionalActions::Now, &termios).map_err(broken)?;
        tcflush(&node, QueueSelector::IOFlush).map_err(broken)?;
        let mut seq = [0; 2];
        aws_lc_rs::rand::fill(&mut seq)?;
        Ok(Line {
            node,
            seq: u16::from_le_bytes(seq),
        })
    }

    /// A request and its reply; asked again where the reply is lost or garbled.
    fn ask(&mut self, command: Command, offset: usize, len: usize, end: Instant) -> Result<Reply> {
        let mut last = None;
        for _ in 0..TRIES {
            if Instant::now() >= end {
                break;
            }
            self.seq = self.seq.wrapping_add(1);
            let request = Request {
                command,
                seq: self.seq,
                offset: offset as u32,
                len: len as u16,
            };
            match self.exchange(&request, end) {
                Ok(reply) => return reply.fits(&request).map_err(|reason| self.failed(reason)),
                Err(e @ Error::Timeout { .. }) => last = Some(e),
                Err(e) => return Err(e),
            }
        }
        Err(last.unwrap_or_else(|| self.failed("it does not answer".to_owned())))
    }

    /// Sends a request and waits for the frame that answers it; others are passed over.
    fn exchange(&mut self, request: &Request, end: Instant) -> Result<Reply> {
        self.node.until(end.min(Instant::now() + FRAME));
        self.node.write_all(&request.frame())?;
        let mut frame = Secret::new(vec![0; frame::MAX_FRAME]);
        loop {
            let len = self.receive(frame.expose_mut())?;
            let bytes = frame.expose_mut().get_mut(..len).unwrap_or_default();
            if let Some(reply) = Reply::parse(bytes, request) {
                return Ok(reply);
            }
        }
    }

    /// The bytes up to the next end of a frame. What is longer than any frame is passed over.
    fn receive(&self, frame: &mut [u8]) -> Result<usize> {
        let mut len = 0;
        loop {
            let mut byte = [0];
            match (self.node.read(&mut byte)?, byte) {
                (0, _) => return Err(self.failed("it was unplugged while it was read".to_owned())),
                (_, [frame::END]) => return Ok(len.min(frame.len())),
                (_, [byte]) => {
                    if let Some(place) = frame.get_mut(len) {
                        *place = byte;
                    }
                    len += 1;
                }
            }
        }
    }

    fn failed(&self, reason: String) -> Error {
        failed(self.node.path(), reason)
    }
}
