//! The service's end of the socket: whole messages, all of one process.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::socket_passcred;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recv, recvmsg,
    send,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::super::frame::{Frame, Malformed};
use super::super::protocol::MAX_REQUEST;
use crate::error::{Error, Result};

/// Who is at the other end.
pub(super) struct Peer {
    socket: OwnedFd,
    /// The process that sent the first message, and alone may send more.
    pid: Option<Pid>,
    /// That process, to notice its end: others may still have its descriptor.
    process: Option<OwnedFd>,
    request: Frame,
}

impl Peer {
    /// # Errors
    /// [`Error::BadInput`] for a socket without `SO_PASSCRED`; [`Error::Io`] for no socket.
    pub(super) fn new(socket: OwnedFd) -> Result<Self> {
        match socket_passcred(&socket) {
            Ok(true) => Ok(Peer {
                socket,
                pid: None,
                process: None,
                request: Frame::new(MAX_REQUEST),
            }),
            Ok(false) => Err(Error::input("the socket was made without SO_PASSCRED")),
            Err(e) => Err(failed(e)),
        }
    }

    /// The next request; `None` where the other end is closed.
    ///
    /// # Errors
    /// [`Error::BadInput`] for what is no message, [`Error::NotPermitted`] for one of another
    /// process. The connection is to be closed.
    pub(super) fn receive(&mut self) -> Result<Option<&Frame>> {
        self.request.clear();
        loop {
            if self.at_end()? {
                return match self.request.is_empty() {
                    true => Ok(None),
                    false => Err(Malformed("cut short").into()),
                };
            }
            let count = self.read()?;
            if self.request.arrived(count)? {
                return Ok(Some(&self.request));
            }
        }
    }

    /// Sends the bytes of a response.
    pub(super) fn send(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let count = retry_on_intr(|| send(&self.socket, bytes, SendFlags::NOSIGNAL));
            bytes = bytes.get(count.map_err(failed)?..).unwrap_or_default();
        }
        Ok(())
    }

    /// Waits for bytes, or for the end of the connection or the process. What is read at the end
    /// bears process id 0, which rustix has no value for; so nothing is read there.
    fn at_end(&self) -> Result<bool> {
        if let Some(process) = &self.process {
            let mut either = [&self.socket, process].map(|fd| PollFd::new(fd, PollFlags::IN));
            retry_on_intr(|| poll(&mut either, None)).map_err(failed)?;
            if either
                .last()
                .is_some_and(|process| !process.revents().is_empty())
            {
                return Ok(true);
            }
        }
        let mut byte = [0u8];
        match retry_on_intr(|| recv(&self.socket, &mut byte, RecvFlags::PEEK)) {
            Ok((_, count)) => Ok(count == 0),
            Err(Errno::CONNRESET) => Ok(true),
            Err(e) => Err(failed(e)),
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
            RecvAncillaryMessage::ScmCredentials(credentials) => Some(credentials.pid),
            _ => None,
        });
        if message.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Malformed("descriptors attached").into());
        }
        let sender = sender.ok_or(Malformed("no credentials"))?;
        match self.pid {
            Some(first) if first == sender => {}
            Some(_) => return Err(Error::NotPermitted("serve another process".to_owned())),
            None => {
                self.pid = Some(sender);
                self.process = match pidfd_open(sender, PidfdFlags::empty()) {
                    Ok(process) => Some(process),
                    Err(Errno::SRCH) => return Err(Error::NotFound("the client".to_owned())),
                    // Forbidden, or Linux before 5.3: the end of the last descriptor must do.
                    Err(_) => None,
                };
            }
        }
        Ok(message.bytes)
    }
}

fn failed(errno: Errno) -> Error {
    Error::io("talking to the client", errno.into())
}
