//! The way to a key service that runs already.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::stat;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as join, socket_with,
};
use rustix::process::geteuid;

use super::channel::Failure;
use crate::error::Error;
use crate::files::{Keeper, check_kept};

/// Connects to the service at `path`, if it is root's, our own user's or the keeper's: PINs and what
/// is decrypted pass through it. None but these can have put a socket into its directory.
pub(super) fn connect(path: &Path, keeper: Keeper, patience: Duration) -> Result<OwnedFd, Failure> {
    check_directory(path, keeper)?;
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None).map_err(Failure::Socket)?;
    // connect(2) waits where many do.
    set_socket_timeout(&socket, Timeout::Send, Some(patience)).map_err(Failure::Socket)?;
    let address = SocketAddrUnix::new(path).map_err(|_| absent(path, "no path of a socket"))?;
    join(&socket, &address).map_err(|errno| not_there(path, errno))?;
    let owner = socket_peercred(&socket).map_err(Failure::Socket)?.uid;
    match owner.is_root() || owner == geteuid() || keeper == Some(owner.as_raw()) {
        true => Ok(socket),
        false => Err(refused(
            path,
            format!(
                "user {} listens there, who is not trusted to; \
                 `user` in devkey.toml says as whom devkeyd runs",
                owner.as_raw()
            ),
        )),
    }
}

fn check_directory(path: &Path, keeper: Keeper) -> Result<(), Failure> {
    let dir = path.parent().unwrap_or(path);
    let stat = stat(dir).map_err(|errno| not_there(path, errno))?;
    check_kept(dir, &stat, keeper).map_err(Failure::NotStarted)
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
            "the key service is not there: {reason}; start it: systemctl start devkeyd.socket, \
             or devkeyd --listen {device}"
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
