//! The service's end of the socket: whole messages, all of one process.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_passcred, socket_peercred};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, UCred, recv,
    recvmsg, send,
};
use rustix::process::{PidfdFlags, pidfd_open};

use super::super::frame::{Frame, Malformed};
use super::super::protocol::MAX_REQUEST;
use super::Client;
use crate::error::{Error, Result};

/// Who is at the other end.
pub(super) struct Peer {
    socket: OwnedFd,
    /// How long a message may take to arrive; of a service that listens.
    arrival: Option<Duration>,
    /// The process that sent the first message, and alone may send more, as the user that it was.
    sender: Option<UCred>,
    /// That process, to notice its end: others may still have its descriptor.
    process: Option<OwnedFd>,
    request: Frame,
}

impl Peer {
    /// # Errors
    /// [`Error::BadInput`] for a socket without `SO_PASSCRED`; [`Error::Io`] for no socket.
    pub(super) fn new(socket: OwnedFd, arrival: Option<Duration>) -> Result<Self> {
        if arrival.is_some() {
            // The greeting comes before there is a process to wait for too.
            for direction in [Timeout::Send, Timeout::Recv] {
                set_socket_timeout(&socket, direction, arrival).map_err(failed)?;
            }
        }
        match socket_passcred(&socket) {
            Ok(true) => Ok(Peer {
                socket,
                arrival,
                sender: None,
                process: None,
                request: Frame::new(MAX_REQUEST),
            }),
            Ok(false) => Err(Error::input("the socket was made without SO_PASSCRED")),
            Err(e) => Err(failed(e)),
        }
    }

    /// Waits for the next request, `idle` at most where one that begins no sooner is not awaited;
    /// `false` where the other end is closed or that time is over.
    ///
    /// # Errors
    /// [`Error::BadInput`] for what is no message, [`Error::NotPermitted`] for one of another
    /// process, [`Error::Timeout`] for one that takes too long. The connection is to be closed.
    pub(super) fn receive(&mut self, idle: Option<Duration>) -> Result<bool> {
        let first = self.sender.is_none();
        let idle = idle.map(|idle| Instant::now() + idle);
        let mut until = None;
        loop {
            let end = match self.at_end(until.or(idle)) {
                Err(Error::Timeout { .. }) if self.request.is_empty() => return Ok(false),
                end => end?,
            };
            if end {
                return match self.request.is_empty() {
                    true => Ok(false),
                    false => Err(Malformed("cut short").into()),
                };
            }
            let count = self.read()?;
            if self.request.arrived(count)? {
                if first {
                    self.nothing_more()?;
                }
                return Ok(true);
            }
            until = until.or_else(|| Some(Instant::now() + self.arrival?));
        }
    }

    /// The request that was received last.
    pub(super) fn request(&self) -> &Frame {
        &self.request
    }

    /// Wipes the request that was received last, which comes before the next.
    pub(super) fn wipe(&mut self) {
        self.request.clear();
    }

    /// Who asks, where the service listens. Asked after the second message, the one after the
    /// greeting's answer: it was sent by the process whose descriptor we had by then, and if that
    /// has not ended now, its number was not given to another one.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the process has ended.
    pub(super) fn client(&self) -> Result<Option<Client>> {
        if self.arrival.is_none() {
            return Ok(None);
        }
        let credentials = socket_peercred(&self.socket).map_err(failed)?;
        let client = Client::of(&credentials);
        let mut process = match &self.process {
            Some(process) => [PollFd::new(process, PollFlags::IN)],
            None => return Err(Error::unsupported("clients, before Linux 5.3")),
        };
        let now = Timespec::default();
        match retry_on_intr(|| poll(&mut process, Some(&now))).map_err(failed)? {
            0 => Ok(Some(client)),
            _ => Err(Error::NotFound("the client".to_owned())),
        }
    }

    /// Sends the bytes of a response.
    pub(super) fn send(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let count = retry_on_intr(|| send(&self.socket, bytes, SendFlags::NOSIGNAL));
            let count = count.map_err(|errno| self.late(errno))?;
            bytes = bytes.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Waits for bytes, or for the end of the connection or the process. What is read at the end
    /// bears process id 0, which rustix has no value for; so nothing is read there.
    fn at_end(&self, until: Option<Instant>) -> Result<bool> {
        if let Some(process) = &self.process {
            let mut either = [
                PollFd::new(&self.socket, PollFlags::IN | PollFlags::RDHUP),
                PollFd::new(process, PollFlags::IN),
            ];
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            if retry_on_intr(|| poll(&mut either, left.as_ref())).map_err(failed)? == 0 {
                return Err(self.late(Errno::AGAIN));
            }
            let [socket, process] = either.map(|fd| fd.revents());
            if !process.is_empty() {
                return Ok(true);
            }
            // Readable, and nobody has closed it: there are bytes. They stay until we read them.
            if socket == PollFlags::IN {
                return Ok(false);
            }
        }
        let mut byte = [0u8];
        match retry_on_intr(|| recv(&self.socket, &mut byte, RecvFlags::PEEK)) {
            Ok((_, count)) => Ok(count == 0),
            Err(Errno::CONNRESET) => Ok(true),
            Err(e) => Err(self.late(e)),
        }
    }

    /// What a failure of the socket means: one that would have had to wait is a deadline missed.
    fn late(&self, errno: Errno) -> Error {
        match (errno, self.arrival) {
            (Errno::AGAIN, Some(arrival)) => Error::Timeout {
                what: "the client".to_owned(),
                seconds: arrival.as_secs(),
            },
            _ => failed(errno),
        }
    }

    /// Takes note of the process that sent the first message, which is the one that connected, as the user
    /// that it was, where we listen.
    fn meet(&mut self, sender: UCred) -> Result<()> {
        if self.arrival.is_some() {
            // As the same user too: rights are the connector's.
            if socket_peercred(&self.socket).map_err(failed)? != sender {
                return Err(another());
            }
        }
        self.sender = Some(sender);
        self.process = match pidfd_open(sender.pid, PidfdFlags::empty()) {
            Ok(process) => Some(process),
            Err(Errno::SRCH) => return Err(Error::NotFound("the client".to_owned())),
            // Forbidden, or Linux before 5.3: the end of the last descriptor must do.
            Err(_) => None,
        };
        Ok(())
    }

    /// Nothing may have come beside the greeting: what comes later was sent by who is the process
    /// that we know by now, if its number fits.
    fn nothing_more(&self) -> Result<()> {
        let mut byte = [0u8];
        match recv(
            &self.socket,
            &mut byte,
            RecvFlags::PEEK | RecvFlags::DONTWAIT,
        ) {
            Ok((_, 1..)) => Err(Malformed("more than one at a time").into()),
            _ => Ok(()),
        }
    }

    /// Reads some bytes; the kernel never joins those of two processes in one read.
    fn read(&mut self) -> Result<usize> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmCredentials(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(self.request.spare())];
        let message = retry_on_intr(|| {
            recvmsg(
                &self.socket,
                &mut into,
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        });
        let message = message.map_err(failed)?;
        let sender = control.drain().find_map(|attached| match attached {
            RecvAncillaryMessage::ScmCredentials(credentials) => Some(credentials),
            _ => None,
        });
        if message.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Malformed("descriptors attached").into());
        }
        let sender = sender.ok_or(Malformed("no credentials"))?;
        match &self.sender {
            // One that gave its user up has no more of the user's rights: it connects anew.
            Some(first) if *first == sender => {}
            Some(_) => return Err(another()),
            None => self.meet(sender)?,
        }
        Ok(message.bytes)
    }
}

fn another() -> Error {
    Error::NotPermitted("serve another process, or another user".to_owned())
}

fn failed(errno: Errno) -> Error {
    Error::io("talking to the client", errno.into())
}
