//! Where the TPM is: the `tcti` setting, checked once.
//!
//! Environment variables (`TPM2TOOLS_TCTI` and the like) are never read, and `tabrmd` is not
//! offered: the kernel's resource manager does its work without a daemon.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use tss_esapi::tcti_ldr::{DeviceConfig, NetworkTPMConfig, TctiNameConf};

use crate::error::{Error, Result};

/// The kernel's resource manager, which every Linux machine with a TPM 2.0 has.
pub(super) const DEFAULT: &str = "device:/dev/tpmrm0";

/// The forms that [`Tcti::parse`] accepts, for people.
pub(super) const FORMS: &str = "device:/dev/tpmrm0 (any absolute path) or \
                                swtpm:host=ADDRESS,port=PORT (control channel at PORT + 1)";

/// How the TPM is reached.
#[derive(Debug, Clone)]
pub(super) struct Tcti {
    address: Address,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    Device(String),
    Swtpm { host: String, port: u16 },
}

/// How long loaded keys may stay in the TPM's memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tenure {
    /// Flush after this long without a command.
    pub(super) idle: Duration,
    /// Flush after this long even when busy, so that others get their turn.
    pub(super) held: Option<Duration>,
    /// Leave the device, too: nobody else can open it meanwhile.
    pub(super) disconnect: bool,
}

impl Tcti {
    /// Reads the setting.
    ///
    /// # Errors
    /// [`Error::BadInput`] that names the accepted forms.
    pub(super) fn parse(setting: &str) -> Result<Self> {
        let bad = || Error::input(format!("tcti = {setting:?} is not understood; use {FORMS}"));
        let address = Address::parse(setting).ok_or_else(bad)?;
        Ok(Tcti { address })
    }

    /// What libtss2 is told. Costs tss-esapi half a millisecond for an address, so it is not asked
    /// before the TPM is.
    pub(super) fn conf(&self) -> tss_esapi::Result<TctiNameConf> {
        match &self.address {
            Address::Device(path) => DeviceConfig::from_str(path).map(TctiNameConf::Device),
            Address::Swtpm { host, port } => {
                NetworkTPMConfig::from_str(&format!("host={host},port={port}"))
                    .map(TctiNameConf::Swtpm)
            }
        }
    }

    /// Whether a resource manager gives each connection a TPM memory of its own.
    pub(super) fn managed(&self) -> bool {
        matches!(&self.address, Address::Device(path) if path.starts_with("/dev/tpmrm"))
    }

    /// The path of its node, where it is a device of this machine.
    pub(super) fn node(&self) -> Option<&Path> {
        match &self.address {
            Address::Device(path) => Some(Path::new(path)),
            Address::Swtpm { .. } => None,
        }
    }

    /// How long loaded keys may stay.
    pub(super) fn tenure(&self) -> Tenure {
        if self.managed() {
            return Tenure {
                idle: Duration::from_secs(5),
                held: None,
                disconnect: true,
            };
        }
        Tenure {
            idle: Duration::from_millis(20),
            held: Some(Duration::from_millis(100)),
            disconnect: matches!(self.address, Address::Device(_)),
        }
    }

    /// Tries to open the device or connect, so that the failures that happen to people are named
    /// before libtss2 flattens them into one code.
    ///
    /// # Errors
    /// [`Error::DeviceGone`] with what to do.
    pub(super) fn probe(&self) -> Result<()> {
        let tried = match &self.address {
            Address::Device(path) => OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .map(drop),
            Address::Swtpm { host, port } => TcpStream::connect((host.as_str(), *port)).map(drop),
        };
        tried.map_err(|error| self.gone(self.remedy(&error)))
    }

    /// [`Error::DeviceGone`] for this device.
    pub(super) fn gone(&self, reason: impl Into<String>) -> Error {
        Error::DeviceGone {
            device: self.to_string(),
            reason: reason.into(),
        }
    }

    fn remedy(&self, error: &io::Error) -> String {
        let Address::Device(path) = &self.address else {
            return format!("{error}; is swtpm running there?");
        };
        match error.kind() {
            ErrorKind::PermissionDenied => format!(
                "no permission; add yourself to group tss: sudo usermod -aG tss $USER, \
                 then log in again (ls -l {path})"
            ),
            ErrorKind::NotFound => "there is no TPM here, or it is switched off in the firmware; \
                 use a file token: devkey init"
                .to_owned(),
            ErrorKind::ResourceBusy => {
                format!("another program holds {path}; use device:/dev/tpmrm0")
            }
            _ => error.to_string(),
        }
    }
}

impl fmt::Display for Tcti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Device(path) => f.write_str(path),
            Address::Swtpm { host, port } => write!(f, "swtpm at {host}:{port}"),
        }
    }
}

impl Address {
    fn parse(setting: &str) -> Option<Address> {
        if let Some(path) = setting.strip_prefix("device:") {
            let clean = path.starts_with('/') && !path.chars().any(char::is_control);
            return clean.then(|| Address::Device(path.to_owned()));
        }
        let mut host = None;
        let mut port = None;
        for pair in setting.strip_prefix("swtpm:")?.split(',') {
            let (name, value) = pair.split_once('=')?;
            match name {
                "host" if host.is_none() && is_host(value) => host = Some(value.to_owned()),
                "port" if port.is_none() => port = Some(value.parse().ok().filter(usable)?),
                _ => return None,
            }
        }
        Some(Address::Swtpm {
            host: host?,
            port: port?,
        })
    }
}

/// A port whose successor, the control channel, exists.
fn usable(port: &u16) -> bool {
    (1..u16::MAX).contains(port)
}

fn is_host(value: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-:".contains(&byte);
    !value.is_empty() && value.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_are_read() {
        assert!(Tcti::parse(DEFAULT).unwrap().managed());
        assert!(!Tcti::parse("device:/dev/tpm0").unwrap().managed());
        let swtpm = Tcti::parse("swtpm:port=2321,host=127.0.0.1").unwrap();
        assert_eq!(swtpm.to_string(), "swtpm at 127.0.0.1:2321");
    }

    /// Seen failing with `_ => return None` in `Address::parse` changed to `_ => continue`.
    #[test]
    fn everything_else_is_refused_with_the_forms() {
        for setting in [
            "",
            "tabrmd:",
            "device:",
            "device:dev/tpm0",
            "device:/dev/\ntpm0",
            "mssim:host=localhost,port=2321",
            "swtpm:",
            "swtpm:host=localhost",
            "swtpm:port=2321",
            "swtpm:host=localhost,port=0",
            "swtpm:host=localhost,port=65535",
            "swtpm:host=localhost,port=2321,port=2322",
            "swtpm:host=local host,port=2321",
            "swtpm:host=localhost,port=2321,path=/x",
            "swtpm:path=/run/swtpm.sock",
        ] {
            let Err(Error::BadInput(text)) = Tcti::parse(setting) else {
                panic!("{setting:?} was accepted");
            };
            assert!(text.contains("device:/dev/tpmrm0"), "{text}");
        }
    }
}
