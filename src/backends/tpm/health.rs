//! How a TPM is, for people and for monitoring. Nothing in it is changed, and no try is spent: what is
//! loaded meanwhile is flushed, and nothing here has an auth.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tss_esapi::constants::PropertyTag;

use super::advisories::{self, Advisory};
use super::device::Device;
use super::errors::{Fault, HANDLE};
use super::line::Line;
use super::link::{Binding, Link};
use super::live::Live;
use super::objects::{self, Parent};
use super::options::Options;
use super::probe;
use crate::error::Result;
use crate::key::KeyKind;
use crate::provider::Settings;

/// TPMA_PERMANENT.inLockout (part 2 §8.6).
const IN_LOCKOUT: u32 = 1 << 9;

/// Where a token's TPM is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// For people: a path, or an address.
    pub name: String,
    /// Its node, where it has one.
    pub node: Option<PathBuf>,
    /// A resource manager gives each connection a memory of its own.
    pub managed: bool,
}

/// A TPM as it was found.
#[derive(Debug, Clone)]
pub struct Health {
    /// The four letters of its maker, without blanks: `IFX`, `INTC`, `STM`, `NTC`, `AMD`, `IBM` (swtpm).
    pub maker: String,
    /// What its maker calls it.
    pub model: String,
    /// Its firmware's version.
    pub firmware: [u16; 4],
    /// What is known to be wrong with that.
    pub advisories: Vec<Advisory>,
    /// What it says of wrong passwords.
    pub lockout: Lockout,
    /// What lies in the memory of a TPM without a resource manager: it is not of this connection.
    pub left: Left,
    /// The key at 0x81000001.
    pub storage: Storage,
    /// It makes P-256 keys, which every client can use.
    pub p256: bool,
}

/// The one count of wrong passwords for all that the TPM protects against guessing (part 1 §19.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lockout {
    /// Wrong ones that count now.
    pub failed: u32,
    /// How many of them lock it.
    pub limit: u32,
    /// Seconds after which one of them counts no longer; 0 where nothing is counted.
    pub interval: u32,
    /// Seconds for which the lockout's own password is refused after a wrong one; 0 until the restart.
    pub recovery: u32,
    /// It is locked.
    pub locked: bool,
}

/// What a TPM's memory holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// Transient objects.
    pub objects: usize,
    /// Loaded sessions.
    pub sessions: usize,
}

/// What is at 0x81000001.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// A storage key that takes children without a password.
    Fit,
    /// Another kind of key.
    Unfit,
    /// Nothing.
    None,
}

/// Where the TPM of a token with these settings is. Touches nothing.
///
/// # Errors
/// [`Error::BadInput`](crate::Error::BadInput)
pub fn place(settings: &Settings) -> Result<Place> {
    let tcti = Options::read(settings)?.tcti;
    Ok(Place {
        name: tcti.to_string(),
        node: tcti.node().map(Path::to_owned),
        managed: tcti.managed(),
    })
}

/// Asks the TPM of a token with these settings how it is.
///
/// # Errors
/// Those of the device; [`Error::Timeout`](crate::Error::Timeout) where it does not answer within
/// `patience`.
pub fn examine(settings: &Settings, patience: Duration) -> Result<Health> {
    device(settings, None, patience)?.run(health)
}

/// Whether the TPM is the one that a token with this binding was made on.
///
/// # Errors
/// [`Error::OtherDevice`](crate::Error::OtherDevice) where it is another, and those of [`examine`].
pub fn recognise(settings: &Settings, binding: &str, patience: Duration) -> Result<()> {
    let binding: Binding = binding.parse()?;
    device(settings, Some(binding), patience)?.run(|link| link.live().map(drop))
}

/// The device, given up after no more than `patience`.
fn device(settings: &Settings, binding: Option<Binding>, patience: Duration) -> Result<Device> {
    let options = Options::read(settings)?;
    let deadline = options.timeout.min(patience);
    Ok(Device::new(Line::new(options.tcti), binding, deadline))
}

fn health(link: &mut Link) -> Result<Health, Fault> {
    let managed = link.tcti().managed();
    let live = link.live()?;
    // First, while there is nothing of ours.
    let left = match managed {
        true => Left::default(),
        false => live.left()?,
    };
    let maker = property(live, PropertyTag::Manufacturer)?.to_be_bytes();
    let maker = String::from_utf8_lossy(&maker);
    let maker = maker.trim_matches([' ', '\0']).to_owned();
    let firmware = firmware(live)?;
    Ok(Health {
        advisories: advisories::of(&maker, firmware),
        maker,
        model: probe::model(live)?,
        firmware,
        lockout: lockout(live)?,
        left,
        storage: storage(live)?,
        p256: probe::has(live, KeyKind::EcP256)?,
    })
}

fn firmware(live: &mut Live) -> Result<advisories::Version, Fault> {
    let mut version = [0; 4];
    let words = [PropertyTag::FirmwareVersion1, PropertyTag::FirmwareVersion2];
    for (word, pair) in words.into_iter().zip(version.chunks_mut(2)) {
        let [a, b, c, d] = property(live, word)?.to_be_bytes();
        pair.copy_from_slice(&[u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]);
    }
    Ok(version)
}

fn lockout(live: &mut Live) -> Result<Lockout, Fault> {
    let permanent = property(live, PropertyTag::Permanent)?;
    let known = live.lockout()?;
    Ok(Lockout {
        failed: known.failed,
        limit: known.limit,
        interval: known.interval,
        recovery: property(live, PropertyTag::LockoutRecovery)?,
        locked: permanent & IN_LOCKOUT != 0,
    })
}

fn storage(live: &mut Live) -> Result<Storage, Fault> {
    let handle = match live.parent(Parent::SRK) {
        Ok(handle) => handle,
        Err(fault) if fault.is(HANDLE) => return Ok(Storage::None),
        Err(fault) => return Err(fault),
    };
    let (public, ..) = live.plain(|context| context.read_public(handle))?;
    Ok(match objects::is_storage(&public) {
        true => Storage::Fit,
        false => Storage::Unfit,
    })
}

/// A property that every TPM has.
fn property(live: &mut Live, tag: PropertyTag) -> Result<u32, Fault> {
    let value = live.plain(|context| context.get_tpm_property(tag))?;
    value.ok_or(Fault::Wrong)
}
