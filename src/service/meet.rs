//! The way to a key service that runs already.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as join, socket_with,
};
use rustix::process::geteuid;

use super::channel::Failure;
use crate::error::Error;

/// Connects to the service at `path`, if it is root's or our own user's: PINs and what is decrypted
/// pass through it.
pub(super) fn connect(path: &Path, patience: Duration) -> Result<OwnedFd, Failure> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None).map_err(Failure::Socket)?;
    // connect(2) waits where many do.
    set_socket_timeout(&socket, Timeout::Send, Some(patience)).map_err(Failure::Socket)?;
    let address = SocketAddrUnix::new(path).map_err(|_| absent(path, "no path of a socket"))?;
    join(&socket, &address).map_err(|errno| not_there(path, errno))?;
    let owner = socket_peercred(&socket).map_err(Failure::Socket)?.uid;
    match owner.is_root() || owner == geteuid() {
        true => Ok(socket),
        false => Err(refused(
            path,
            format!("user {} listens there, not root or you", owner.as_raw()),
        )),
    }
}

fn not_there(path: &Path, errno: Errno) -> Failure {
    match errno {
        Errno::NOENT => absent(path, "there is no socket"),
        Errno::CONNREFUSED => absent(path, "nobody listens there"),
        Errno::AGAIN => Failure::Late,
        Errno::ACCESS | Errno::PERM => refused(path, "no permission; it is another user's".into()),
        other => Failure::Socket(other),
    }
}

fn absent(path: &Path, reason: &str) -> Failure {
    let device = path.display().to_string();
    Failure::NotStarted(Error::DeviceGone {
        reason: format!(
            "the key service is not there: {reason}; start it: devkeyd --listen {device}"
        ),
        device,
    })
}

fn refused(path: &Path, reason: String) -> Failure {
    Failure::NotStarted(Error::Refused {
        path: path.to_owned(),
        reason,
    })
}
