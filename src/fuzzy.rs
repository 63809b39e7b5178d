//! A fuzzy extractor (Dodis, Reyzin, Smith, EUROCRYPT 2004) for the start-up values of memory
//! cells: the same 32-byte root from every noisy reading of the same chip, and nothing stored from
//! which it could be computed.
//!
//! Pure: bytes in, bytes out, no device and no file. [`enroll`] turns readings into public
//! [`Helper`] data and the root, [`reconstruct`] gives the root back from the helper data and a
//! fresh reading.

use crate::error::{Error, Result};
use crate::secret::Secret;

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

/// Where a response comes from. Not checked here: the back end compares it with what it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// What kind of device.
    pub kind: SourceKind,
    /// Where the window begins within the device's measurement, in bytes.
    pub offset: u64,
}

/// Public helper data: what [`reconstruct`] needs besides a reading. Whoever reads it learns
/// nothing about the root; whoever changes it gets an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper(());

impl Helper {
    /// Reads helper data as [`encode`](Helper::encode) wrote it.
    ///
    /// # Errors
    /// [`Error::NewerRecord`] for a newer format, [`Error::NotReproduced`] for all that is not
    /// exactly right.
    pub fn parse(_bytes: &[u8]) -> Result<Self> {
        Err(Error::NotReproduced)
    }

    /// The bytes to store, at most [`Profile::response_len`] + 96 of them (and as many bytes as a
    /// response more where there is a reliability map).
    pub fn encode(&self) -> &[u8] {
        &[]
    }

    /// The profile.
    pub fn profile(&self) -> Profile {
        Profile::Dk1024
    }

    /// Where the response came from.
    pub fn source(&self) -> Source {
        Source {
            kind: SourceKind::Raw,
            offset: 0,
        }
    }

    /// K: how many bits of the response the syndrome does not disclose.
    pub fn k(&self) -> usize {
        0
    }

    /// How many readings the enrolment was made from.
    pub fn readings(&self) -> u8 {
        0
    }

    /// 16 random bytes, new with each enrolment and refresh.
    pub fn enrolment_id(&self) -> [u8; 16] {
        [0; 16]
    }

    /// SHA-256 of the syndrome: the same before and after a [`refresh`], so that a token can be
    /// bound to it, and a second enrolment of the same window told from a refresh.
    pub fn syndrome_id(&self) -> [u8; 32] {
        [0; 32]
    }

    /// SHA-256 of all helper data, for a token to be bound to it.
    pub fn id(&self) -> [u8; 32] {
        [0; 32]
    }
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
    /// The decoder that succeeded: `SC`, `SCL-8`, `SCL-32`.
    pub decoder: &'static str,
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
    /// Why the device is not fit whatever the profile, one sentence each; empty where it is.
    pub refusals: Vec<String>,
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
    pub ledger: Vec<(&'static str, f64)>,
    /// The largest of these, in whole bits, at least 0.
    pub loss: usize,
    /// K for this device.
    pub k: Option<usize>,
    /// Why the profile does not fit.
    pub refusal: Option<String>,
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
pub fn enroll(_profile: Profile, _readings: &[Secret], _source: &Source) -> Result<Enrolment> {
    Err(Error::unsupported("enrolment"))
}

/// Like [`enroll`], and the helper data says which cells differed between the readings. For live
/// devices, of which three or more readings are at hand.
///
/// # Errors
/// As [`enroll`]; [`Error::BadInput`] for fewer than three readings or equal ones.
pub fn enroll_with_map(
    _profile: Profile,
    _readings: &[Secret],
    _source: &Source,
) -> Result<Enrolment> {
    Err(Error::unsupported("enrolment"))
}

/// The root of the helper data's enrolment, from a fresh reading.
///
/// # Errors
/// [`Error::NotReproduced`], whatever the reason.
pub fn reconstruct(_helper: &Helper, _reading: &Secret) -> Result<Reconstruction> {
    Err(Error::NotReproduced)
}

/// New helper data and a new root from the same response: the syndrome is the same bytes, the
/// enrolment id another.
///
/// # Errors
/// [`Error::NotReproduced`], whatever the reason.
pub fn refresh(_helper: &Helper, _reading: &Secret) -> Result<Enrolment> {
    Err(Error::NotReproduced)
}

/// Measures a device without enrolling it.
pub fn measure(_readings: &[Secret]) -> Report {
    Report {
        len: 0,
        readings: 0,
        ones: 0.0,
        noise: None,
        latched: false,
        refusals: Vec::new(),
        fits: Vec::new(),
    }
}
