//! The client's end of the socket: one request out, one response back, in time.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, fstat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::frame::{Frame, Malformed};
use super::protocol::{MAX_REQUEST, MAX_RESPONSE, Request, Response};
use crate::error::Error;

/// Shortest wait that a socket is told; zero would mean for ever.
const LEAST_WAIT: Duration = Duration::from_millis(1);

/// For how long after an answer the service is taken to be there still, so that C_SignInit, C_Sign, C_SignInit, …
/// asks the kernel about the socket once for each signature and not twice. Should it end in that time, C_Sign
/// says so in place of C_SignInit, as it does whenever the service ends between the two.
const FRESH: Duration = Duration::from_millis(5);

/// Why there is no response. The channel is of no more use.
#[derive(Debug)]
pub(super) enum Failure {
    /// The service ended. Unless `sent`, it never had the whole request.
    Ended { sent: bool },
    /// It did not answer in time.
    Late,
    /// It answered what is no answer.
    Malformed(Malformed),
    /// The socket failed.
    Socket(Errno),
    /// There was no starting it.
    NotStarted(Error),
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Failure::Malformed(malformed)
    }
}

/// A connected socket and the room for what crosses it.
pub(super) struct Channel {
    wire: Wire,
    request: Frame,
    response: Frame,
    /// When the last answer came.
    answered: Option<Instant>,
}

struct Wire {
    socket: Socket,
    /// How long each read and write waits, as the socket was last told.
    wait: Option<Duration>,
}

/// A socket in a process whose host closes descriptors that are not its own: daemons close all of
/// them. The number may then be the host's file or connection, which is not to be written nor closed.
struct Socket {
    /// There is none only while it is dropped.
    fd: Option<OwnedFd>,
    inode: u64,
}

impl Channel {
    pub(super) fn new(socket: OwnedFd) -> Result<Self, Failure> {
        Ok(Channel {
            wire: Wire {
                socket: Socket::new(socket).map_err(Failure::Socket)?,
                wait: None,
            },
            request: Frame::new(MAX_REQUEST),
            response: Frame::new(MAX_RESPONSE),
            answered: None,
        })
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.wire.socket.as_fd().as_raw_fd()
    }

    /// The socket's inode: tells it from whatever else may get its number.
    pub(super) fn inode(&self) -> u64 {
        self.wire.socket.inode
    }

    /// Whether the descriptor still is the socket.
    pub(super) fn is_there(&self) -> bool {
        self.wire.socket.is_there()
    }

    /// Whether it is there and the other end has it open, or was so a moment ago. Before anything is written
    /// [`Channel::is_there`] has to be asked.
    pub(super) fn is_open(&self) -> bool {
        let fresh = |answered: Instant| answered.elapsed() < FRESH;
        self.answered.is_some_and(fresh) || self.is_there() && self.has_other_end()
    }

    fn has_other_end(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = recv(&self.wire.socket, &mut [0u8], flags);
        matches!(peeked, Err(Errno::AGAIN))
    }

    /// Asks and waits for the response, `patience` at most.
    ///
    /// One write and one read in the steady state. A request that cannot be said is an error of
    /// its own: nothing was sent.
    pub(super) fn exchange(
        &mut self,
        request: &Request<'_>,
        patience: Duration,
    ) -> Result<Response, Failure> {
        let bytes = match self.request.encode(request) {
            Ok(bytes) => bytes,
            Err(e) => return Ok(Err(e)),
        };
        let until = Instant::now() + patience;
        self.wire.wait(patience)?;
        let sent = self.wire.send(bytes, until);
        self.request.clear();
        sent?;
        let received = self.wire.receive(&mut self.response, until);
        let response = received.and_then(|()| Ok(self.response.decode()?));
        self.response.clear();
        self.answered = response.is_ok().then(Instant::now);
        response
    }
}

impl Socket {
    /// Above the standard streams: a host that has them closed may yet open them.
    fn new(socket: OwnedFd) -> Result<Self, Errno> {
        const FIRST: RawFd = 3;
        let fd = match socket.as_raw_fd() {
            FIRST.. => socket,
            _ => fcntl_dupfd_cloexec(&socket, FIRST)?,
        };
        Ok(Socket {
            inode: fstat(&fd)?.st_ino,
            fd: Some(fd),
        })
    }

    fn is_there(&self) -> bool {
        let stat = fstat(self);
        stat.is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::Socket && stat.st_ino == self.inode
        })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // CWD is no socket to anyone.
        self.fd.as_ref().map_or(CWD, AsFd::as_fd)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.is_there() {
            // Closed already; the number is nobody's, or another's.
            let _ = self.fd.take().map(IntoRawFd::into_raw_fd);
        }
    }
}

impl Wire {
    fn send(&mut self, mut bytes: &[u8], until: Instant) -> Result<(), Failure> {
        loop {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(Failure::Late),
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Failure::Ended { sent: false }),
                Err(e) => return Err(Failure::Socket(e)),
            }
            if bytes.is_empty() {
                return Ok(());
            }
            self.wait_until(until)?;
        }
    }

    fn receive(&mut self, into: &mut Frame, until: Instant) -> Result<(), Failure> {
        loop {
            match recv(&self.socket, into.spare(), RecvFlags::empty()) {
                Ok((_, 0)) => return Err(Failure::Ended { sent: true }),
                Ok((_, count)) => {
                    if into.arrived(count)? {
                        return Ok(());
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(Failure::Late),
                // It ended with our request, or part of it, unread in its queue (unix(7)).
                Err(Errno::CONNRESET) => return Err(Failure::Ended { sent: false }),
                Err(e) => return Err(Failure::Socket(e)),
            }
            self.wait_until(until)?;
        }
    }

    /// What is left of the time, after something happened that was not yet enough.
    fn wait_until(&mut self, until: Instant) -> Result<(), Failure> {
        match until.checked_duration_since(Instant::now()) {
            None | Some(Duration::ZERO) => Err(Failure::Late),
            Some(left) => self.wait(left),
        }
    }

    fn wait(&mut self, time: Duration) -> Result<(), Failure> {
        let time = Some(time.max(LEAST_WAIT));
        if self.wait != time {
            for direction in [Timeout::Send, Timeout::Recv] {
                set_socket_timeout(&self.socket, direction, time).map_err(Failure::Socket)?;
            }
            self.wait = time;
        }
        Ok(())
    }
}
