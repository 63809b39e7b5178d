//! A socket where clients find a key service that stays.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, Stat, chmod, flock, fstat, lstat, open};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{set_socket_passcred, socket_peercred};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
    socket_with,
};
use rustix::process::{Uid, geteuid};

use crate::error::{Error, Result};
use crate::files::check_owner_and_mode;

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 64;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    audience: Audience,
    /// Where it was bound, if it was here: device and inode too, for the path may be another's by the
    /// time of [`Listener::remove`].
    bound: Option<(PathBuf, (u64, u64))>,
}

/// Who may connect. What they may do then is another question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Processes of this process's user, and root's.
    Own,
    /// All.
    Everyone,
}

impl Listener {
    /// A socket that listens already: of who started this process.
    pub fn inherited(socket: OwnedFd) -> Result<Self> {
        let path = Path::new("the socket that was passed");
        set_socket_passcred(&socket, true).map_err(|e| failed("setting up", path, e))?;
        Ok(Listener {
            socket,
            audience: Audience::Everyone,
            bound: None,
        })
    }

    /// Listens at an absolute path, in a directory that only its owner can write. A socket that a
    /// service left behind is replaced.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a path that cannot be a socket's; [`Error::Exists`] where somebody
    /// listens; [`Error::Refused`] for the directory, and for what is no socket.
    pub fn bind(path: &Path, audience: Audience) -> Result<Self> {
        let nowhere = || Error::input("--listen wants an absolute path of a socket");
        let dir = path.parent().filter(|_| path.is_absolute());
        let dir = dir.ok_or_else(nowhere)?;
        let address = SocketAddrUnix::new(path);
        let address = address.map_err(|_| Error::input("the path is too long for a socket"))?;
        // Of two that start at once, one finds the other's socket.
        let _turn = lock(dir)?;
        clear(path, &address)?;
        let failed = |e| failed("listening at", path, e);
        let socket = stream().map_err(failed)?;
        // Sockets that are accepted have it from this one.
        set_socket_passcred(&socket, true).map_err(failed)?;
        bind(&socket, &address).map_err(failed)?;
        let mode = match audience {
            Audience::Own => 0o600,
            Audience::Everyone => 0o666,
        };
        chmod(path, Mode::from_raw_mode(mode)).map_err(failed)?;
        let bound = identity(&lstat(path).map_err(failed)?);
        listen(&socket, BACKLOG).map_err(failed)?;
        Ok(Listener {
            socket,
            audience,
            bound: Some((path.to_owned(), bound)),
        })
    }

    /// The next client that may be served, and its user; others are closed.
    ///
    /// # Errors
    /// [`Error::Io`] where none can be accepted, for now.
    pub fn accept(&self) -> Result<(OwnedFd, u32)> {
        loop {
            let client = retry_on_intr(|| accept_with(&self.socket, SocketFlags::CLOEXEC));
            let client = match client {
                Err(Errno::CONNABORTED) => continue,
                client => client.map_err(|e| Error::io("accepting", e.into()))?,
            };
            match socket_peercred(&client) {
                Ok(peer) if self.admits(peer.uid) => return Ok((client, peer.uid.as_raw())),
                Ok(peer) => log::warn!("user {} was refused", peer.uid.as_raw()),
                Err(e) => log::warn!("a client without credentials: {e}"),
            }
        }
    }

    fn admits(&self, user: Uid) -> bool {
        self.audience == Audience::Everyone || user.is_root() || user == geteuid()
    }

    /// Takes the socket away, if it still is this one.
    pub fn remove(&self) {
        if let Some((path, bound)) = &self.bound
            && lstat(path).is_ok_and(|now| identity(&now) == *bound)
        {
            // It is replaced at the next start, if need be.
            let _ = fs::remove_file(path);
        }
    }
}

/// The directory, locked, if only its owner can write it.
fn lock(dir: &Path) -> Result<OwnedFd> {
    let failed = |e| failed("opening", dir, e);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = open(dir, flags, Mode::empty()).map_err(failed)?;
    check_owner_and_mode(dir, &fstat(&fd).map_err(failed)?)?;
    retry_on_intr(|| flock(&fd, FlockOperation::LockExclusive)).map_err(failed)?;
    Ok(fd)
}

/// Removes a socket at which nobody listens.
fn clear(path: &Path, address: &SocketAddrUnix) -> Result<()> {
    match lstat(path) {
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(failed("reading the state of", path, e)),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Socket => {
            return Err(Error::Refused {
                path: path.to_owned(),
                reason: "there is something else than a socket".to_owned(),
            });
        }
        Ok(_) => {}
    }
    let asked = stream().and_then(|socket| connect(&socket, address));
    match asked {
        Err(Errno::CONNREFUSED) => {
            fs::remove_file(path).map_err(|e| Error::io(format!("removing {}", path.display()), e))
        }
        Ok(()) => Err(Error::Exists(format!(
            "a service that listens at {}",
            path.display()
        ))),
        Err(e) => Err(failed("connecting to", path, e)),
    }
}

fn stream() -> Result<OwnedFd, Errno> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    socket_with(family, kind, SocketFlags::CLOEXEC, None)
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn failed(doing: &str, path: &Path, errno: Errno) -> Error {
    Error::io(format!("{doing} {}", path.display()), errno.into())
}
