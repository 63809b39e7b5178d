//! A fuzzy extractor (Dodis, Reyzin, Smith, EUROCRYPT 2004) for the start-up values of memory
//! cells: the same 32-byte root from every noisy reading of the same chip, and nothing stored from
//! which it could be computed.
//!
//! Pure: bytes in, bytes out, no device and no file. [`enroll`] turns readings into public
//! [`Helper`] data and the root, [`reconstruct`] gives the root back from the helper data and a
//! fresh reading.

pub mod bits;
mod enroll;
mod health;
mod helper;
mod kdf;
mod ledger;
mod measure;
pub mod polar;
mod reconstruct;

use std::fmt;

use crate::error::{Error, Result};
use crate::secret::Secret;
use ledger::Ledger;
use polar::Family;

pub use helper::Helper;
pub use polar::Decoder;

/// Length of a root in bytes.
pub const ROOT_LEN: usize = 32;

/// How many cells are read and which polar code corrects them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// 256 bytes, for noise up to 10 %.
    Dk256,
    /// 512 bytes, for noise up to 20 %.
    Dk512,
    /// 1 KiB, for noise up to 25 %. The default.
    Dk1024,
    /// 2 KiB, for strongly biased parts.
    Dk2048,
}

impl Profile {
    /// All of them, by size.
    pub const ALL: [Profile; 4] = [
        Profile::Dk256,
        Profile::Dk512,
        Profile::Dk1024,
        Profile::Dk2048,
    ];

    /// The name in configuration and output: `dk-1024`.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Dk256 => "dk-256",
            Profile::Dk512 => "dk-512",
            Profile::Dk1024 => "dk-1024",
            Profile::Dk2048 => "dk-2048",
        }
    }

    /// The profile of that name.
    ///
    /// # Errors
    /// [`Error::BadInput`] where there is none.
    pub fn from_name(name: &str) -> Result<Self> {
        let found = Profile::ALL.into_iter().find(|p| p.name() == name);
        found.ok_or_else(|| Error::input(format!("{name:?} is no profile: dk-256 … dk-2048")))
    }

    /// Length of a response in bytes: what of a reading is used.
    pub fn response_len(self) -> usize {
        match self {
            Profile::Dk256 => 256,
            Profile::Dk512 => 512,
            Profile::Dk1024 => 1024,
            Profile::Dk2048 => 2048,
        }
    }

    /// The least and the largest K. The largest is where reconstruction still is sure with the noise
    /// of an old chip, 15 %.
    pub fn k_limits(self) -> (usize, usize) {
        match self {
            Profile::Dk256 => (384, 512),
            Profile::Dk512 => (384, 640),
            Profile::Dk1024 => (512, 896),
            Profile::Dk2048 => (640, 1664),
        }
    }

    /// Most cells in which a reading may differ from the enrolled response: what 6 standard
    /// deviations above the noise that the profile is for come to, and no more, as it bounds what an
    /// editor of helper data can reach.
    fn distance_limit(self) -> usize {
        let percent = match self {
            Profile::Dk256 => 23,
            Profile::Dk512 => 30,
            Profile::Dk1024 | Profile::Dk2048 => 33,
        };
        self.response_len() * 8 * percent / 100
    }

    fn family(self) -> Family {
        match self {
            Profile::Dk256 => Family::Dk256,
            Profile::Dk512 => Family::Dk512,
            Profile::Dk1024 => Family::Dk1024,
            Profile::Dk2048 => Family::Dk2048,
        }
    }

    fn offers(self, k: usize) -> bool {
        let (least, most) = self.k_limits();
        (least..=most).contains(&k) && k.is_multiple_of(64)
    }

    /// K for a response with that ledger.
    fn k_for(self, ledger: &Ledger) -> Result<usize> {
        let (least, most) = self.k_limits();
        let k = ledger.k().max(least);
        let (len, loss) = (self.response_len() * 8, ledger.loss());
        match k <= most {
            true => Ok(k),
            false => Err(Error::input(format!(
                "the {len} cells lack {loss} bits of entropy by the ledger, and {self} makes up for at \
                 most {}; use a longer window",
                Ledger::affordable(most)
            ))),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What kind of device a response comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// A character device: one open, one measurement.
    Raw,
    /// A regular file, such as the `sram` export of sysfs.
    File,
    /// A microcontroller at a serial line.
    Serial,
}

impl SourceKind {
    const ALL: [SourceKind; 3] = [SourceKind::Raw, SourceKind::File, SourceKind::Serial];
}

/// Where a response comes from. Not checked here: the back end compares it with what it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// What kind of device.
    pub kind: SourceKind,
    /// Where the window begins within the device's measurement, in bytes.
    pub offset: u64,
}

/// What an enrolment gives.
#[derive(Debug)]
pub struct Enrolment {
    /// To be stored; public.
    pub helper: Helper,
    /// [`ROOT_LEN`] bytes; not to be stored.
    pub root: Secret,
    /// What was measured.
    pub report: Report,
}

/// What a reconstruction gives.
#[derive(Debug)]
pub struct Reconstruction {
    /// [`ROOT_LEN`] bytes.
    pub root: Secret,
    /// How many cells read differently than at enrolment.
    pub flips: usize,
    /// The decoder that succeeded.
    pub decoder: Decoder,
}

/// What can be said of a device by its readings. All of it public.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Length of the shortest reading, in bytes.
    pub len: usize,
    /// How many readings.
    pub readings: usize,
    /// Share of ones, 0 to 1.
    pub ones: f64,
    /// Share of cells that differ from the first reading; `None` for a single reading.
    pub noise: Option<Noise>,
    /// All readings are equal: the device gives one measurement again and again.
    pub latched: bool,
    /// What each profile, for which the readings are long enough, makes of it.
    pub fits: Vec<Fit>,
}

/// Shares of cells that differ from the first reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    /// Mean over the other readings, 0 to 1.
    pub mean: f64,
    /// The worst of them, 0 to 1.
    pub max: f64,
}

/// What a profile makes of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// The profile.
    pub profile: Profile,
    /// Entropy that the response lacks by each model of the ledger, in bits.
    pub ledger: Vec<(String, f64)>,
    /// The largest of these, in whole bits, at least 0.
    pub loss: usize,
    /// K for this device.
    pub k: Option<usize>,
    /// Why the window is refused, one sentence each; empty where it can be enrolled.
    pub refusals: Vec<String>,
    /// Upper bound of the share of failed reconstructions at the measured noise, before list
    /// decoding, where there is more than one reading.
    pub failure_bound: Option<f64>,
    /// The same at twice the measured noise.
    pub failure_bound_at_double: Option<f64>,
}

/// Makes helper data and root from one or several readings of a device.
///
/// # Errors
/// [`Error::BadInput`] with the reason where the device is not fit for the profile.
pub fn enroll(profile: Profile, readings: &[Secret], source: &Source) -> Result<Enrolment> {
    enroll::enroll(profile, readings, source, false)
}

/// Like [`enroll`], and the helper data says which cells differed between the readings. For live
/// devices, of which three or more readings are at hand.
///
/// # Errors
/// As [`enroll`]; [`Error::BadInput`] for fewer than three readings or equal ones.
pub fn enroll_with_map(
    profile: Profile,
    readings: &[Secret],
    source: &Source,
) -> Result<Enrolment> {
    enroll::enroll(profile, readings, source, true)
}

/// The root of the helper data's enrolment, from a fresh reading.
///
/// # Errors
/// [`Error::NotReproduced`], whatever the reason.
pub fn reconstruct(helper: &Helper, reading: &Secret) -> Result<Reconstruction> {
    reconstruct::reconstruct(helper, reading)
}

/// New helper data and a new root from the same response: the syndrome is the same bytes, the
/// enrolment id another.
///
/// # Errors
/// [`Error::NotReproduced`], whatever the reason.
pub fn refresh(helper: &Helper, reading: &Secret) -> Result<Enrolment> {
    reconstruct::refresh(helper, reading)
}

/// Measures a device without enrolling it. Of each reading a profile looks at what it would use: the
/// first [`Profile::response_len`] bytes.
pub fn measure(readings: &[Secret]) -> Report {
    measure::measure(readings)
}
