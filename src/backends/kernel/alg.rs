//! HMAC by the kernel, with a key that stays there: AF_ALG (Documentation/crypto/userspace-if.rst)
//! and its socket option ALG_SET_KEY_BY_KEY_SERIAL of Linux 6.2.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::sockopt::SetStruct;
use nix::sys::socket::{AddressFamily, AlgAddr, SockFlag, SockType, bind, setsockopt, socket};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::keyring::Serial;
use crate::error::{Error, Result};
use crate::secret::Secret;

/// Length of the result in bytes.
const MAC_LEN: usize = 32;

/// How messages name the interface.
const DEVICE: &str = "the kernel's AF_ALG";

/// The option that takes a key's number for the key.
#[derive(Debug, Clone, Copy)]
struct SetKeyBySerial;

// The `unsafe` of setsockopt(2) is nix's own, in its macro for options that it does not list.
nix::setsockopt_impl!(
    SetKeyBySerial,
    libc::SOL_ALG,
    libc::ALG_SET_KEY_BY_KEY_SERIAL,
    i32,
    SetStruct<'_, i32>
);

/// Whether this kernel has what [`hmac`] needs, as far as can be told without a key.
///
/// # Errors
/// [`Error::Unsupported`], naming what is missing.
pub(super) fn probe() -> Result<()> {
    let socket = bound()?;
    // A number that hardly any key has: the option is known where the answer is about the key.
    match set_key(&socket, i32::MAX) {
        Err(Errno::NOPROTOOPT) => Err(too_old()),
        _ => Ok(()),
    }
}

/// HMAC-SHA-256 of a message, with a key of the kernel.
///
/// # Errors
/// [`Error::Unsupported`], naming what the kernel lacks; [`Error::DeviceGone`] for a key that went
/// away or that this process may not use.
pub(super) fn hmac(key: Serial, message: &[u8]) -> Result<Secret> {
    let socket = bound()?;
    set_key(&socket, key.get()).map_err(|e| match e {
        Errno::NOPROTOOPT => too_old(),
        Errno::NOKEY | Errno::KEYEXPIRED | Errno::KEYREVOKED => {
            gone("the key went away meanwhile; try again")
        }
        Errno::ACCESS => gone("no permission for the key; its user's processes alone may use it"),
        other => failed("setting the key", other),
    })?;
    let accepted = accept_with(&socket, SocketFlags::CLOEXEC);
    let mut operation = File::from(accepted.map_err(|e| failed("accept", e))?);
    let mut mac = Secret::new(vec![0; MAC_LEN]);
    let computed = operation
        .write_all(message)
        .and_then(|()| operation.read_exact(mac.expose_mut()));
    match computed {
        Ok(()) => Ok(mac),
        Err(e) => Err(Error::io(format!("{DEVICE}: HMAC"), e)),
    }
}

fn bound() -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Alg, SockType::SeqPacket, flags, None);
    let socket = socket.map_err(|e| match errno(e) {
        Errno::AFNOSUPPORT => Error::Unsupported(
            "this kernel computes for no program (AF_ALG); it wants CONFIG_CRYPTO_USER_API_HASH, \
             which may be the module algif_hash, and Linux 6.2 or later"
                .to_owned(),
        ),
        Errno::ACCESS | Errno::PERM => gone("no permission; a sandbox shuts AF_ALG sockets out"),
        other => failed("socket", other),
    })?;
    let hmac = AlgAddr::new("hash", "hmac(sha256)");
    match bind(socket.as_raw_fd(), &hmac) {
        Ok(()) => Ok(socket),
        Err(nix::errno::Errno::ENOENT) => Err(Error::Unsupported(
            "this kernel computes no HMAC-SHA-256 for programs; it wants \
             CONFIG_CRYPTO_USER_API_HASH (module algif_hash), CONFIG_CRYPTO_HMAC and \
             CONFIG_CRYPTO_SHA256"
                .to_owned(),
        )),
        Err(other) => Err(failed("bind", errno(other))),
    }
}

fn set_key(socket: &OwnedFd, serial: i32) -> Result<(), Errno> {
    setsockopt(socket, SetKeyBySerial, &serial).map_err(errno)
}

fn too_old() -> Error {
    let release = rustix::system::uname();
    Error::Unsupported(format!(
        "Linux {} computes with no key of a keyring (ALG_SET_KEY_BY_KEY_SERIAL); Linux 6.2 or \
         later is needed, with CONFIG_TRUSTED_KEYS or CONFIG_ENCRYPTED_KEYS",
        release.release().to_string_lossy()
    ))
}

fn gone(reason: &str) -> Error {
    Error::DeviceGone {
        device: DEVICE.to_owned(),
        reason: reason.to_owned(),
    }
}

fn errno(error: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(error as i32)
}

fn failed(doing: &str, cause: Errno) -> Error {
    Error::io(format!("{DEVICE}: {doing}"), cause.into())
}
