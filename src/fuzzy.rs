//! A fuzzy extractor (Dodis, Reyzin, Smith, EUROCRYPT 2004) for the start-up values of memory
//! cells: the same 32-byte root from every noisy reading of the same chip, and nothing stored from
//! which it could be computed.
//!
//! Pure: bytes in, bytes out, no device and no file. [`enroll`] turns readings into public
//! [`Helper`] data and the root, [`reconstruct`] gives the root back from the helper data and a
//! fresh reading.

pub mod bits;
pub mod certify;
mod enroll;
mod health;
mod helper;
mod kdf;
mod ledger;
mod measure;
pub mod polar;
mod reconstruct;
#[cfg(test)]
mod synthetic;

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

    /// The least and the largest K.
    ///
    /// The least is what fair coins need, or more where it costs no reliability at the profile's
    /// noise. With the largest, successive cancellation alone fails with a probability of at most
    /// 5e-7 (10 % noise, dk-256), 2e-7 (15 %, dk-512), 5e-14 and 5e-15 (15 %, the long ones).
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

    /// The polar codes that correct it.
    pub fn family(self) -> Family {
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
}

impl Fit {
    /// Upper bound of the share of failed reconstructions where cells flip by themselves at that
    /// rate, before list decoding. Takes up to a second for 2 KiB.
    pub fn failure_bound(&self, noise: f64) -> Option<f64> {
        certify::bound(self.profile.family(), self.k?, noise).ok()
    }
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

#[cfg(test)]
mod tests {
    use super::synthetic::{Random, chip};
    use super::*;

    const SOURCE: Source = Source {
        kind: SourceKind::File,
        offset: 0,
    };

    /// Fails with two names exchanged.
    #[test]
    fn profiles_have_names() {
        for profile in Profile::ALL {
            assert_eq!(Profile::from_name(profile.name()).unwrap(), profile);
            assert_eq!(profile.name(), format!("dk-{}", profile.response_len()));
        }
        let refused = Profile::from_name("dk-128").unwrap_err().to_string();
        assert_eq!(refused, "\"dk-128\" is no profile: dk-256 … dk-2048");
    }

    /// From fair coins to 70 % ones: either K pays for the loss, or the chip is refused. Fails with
    /// no loss in `Ledger::needs`.
    #[test]
    fn k_follows_the_bias_until_the_profile_refuses() {
        for profile in Profile::ALL {
            let cells = profile.response_len() * 8;
            let mut last = 0;
            for percent in 50..=70u32 {
                let ones = f64::from(percent) / 100.0;
                let reading = Secret::new(chip(percent.into(), profile.response_len(), ones));
                let entropy = -ones * ones.log2() - (1.0 - ones) * (1.0 - ones).log2();
                let needed = cells as f64 * (1.0 - entropy) + 320.0;
                match enroll(profile, &[reading], &SOURCE) {
                    Ok(enrolment) => {
                        let k = enrolment.helper.k();
                        assert!(k as f64 > needed * 0.95, "{profile} {percent} {k}");
                        assert!(
                            k as f64 <= (needed * 1.2 + 96.0).max(640.0),
                            "{profile} {percent} {k}"
                        );
                        last = percent;
                    }
                    Err(Error::BadInput(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            assert!((58..70).contains(&last), "{profile} takes {last} % ones");
        }
    }

    /// log₂ of the chance that a reading of cells with a share of `p` ones comes within the
    /// profile's distance of a response with a share of `q`: Chernoff's bound.
    fn chance(profile: Profile, p: f64, q: f64) -> f64 {
        let cells = (profile.response_len() * 8) as f64;
        let limit = profile.distance_limit() as f64;
        let bound = |t: f64| {
            let each = |flip: f64| (1.0 - flip + flip * (-t).exp()).log2();
            limit * t * std::f64::consts::LOG2_E + cells * (q * each(1.0 - p) + (1.0 - q) * each(p))
        };
        (0..400)
            .map(|step| bound(f64::from(step) * 0.01))
            .fold(0.0, f64::min)
    }

    /// An editor of helper data who knows how biased the chip is, and makes up the most biased
    /// response that the ledger passes, guesses one within the distance with a chance below 2^-256,
    /// for the most biased chip that can be enrolled. Fails with 40 % for the distance of dk-1024.
    #[test]
    fn no_made_up_response_comes_within_the_distance() {
        for profile in Profile::ALL {
            let (_, k) = profile.k_limits();
            let cells = (profile.response_len() * 8) as f64;
            let shares = (0..200).map(|step| 0.5 + f64::from(step) * 0.001);
            let loss = |p: f64| cells * (1.0 + p * p.log2() + (1.0 - p) * (1.0 - p).log2());
            let most = shares
                .take_while(|p| loss(*p) < (k - 320) as f64)
                .fold(0.5, f64::max);
            let chance = chance(profile, most, most);
            assert!(chance < -256.0, "{profile} at {most}: 2^{chance}");
        }
        // The figure in the documentation of reconstruct.rs.
        let likeliest = chance(Profile::Dk1024, 0.6, 1.0);
        assert!((-124.0..-123.0).contains(&likeliest), "2^{likeliest}");
    }

    /// Fails with the first reading's length for the shortest, without a profile's filter, and with
    /// the sum for the mean.
    #[test]
    fn a_report_says_what_was_measured() {
        let cells = chip(1, 1100, 0.5);
        let mut random = Random(!1);
        let mut readings = [0.0, 0.04, 0.08].map(|noise| random.reading(&cells, noise));
        readings[1] = Secret::new([readings[1].expose(), &[0; 100]].concat());
        let report = measure(&readings);
        assert_eq!(
            (report.len, report.readings, report.latched),
            (1100, 3, false)
        );
        assert!((0.48..0.52).contains(&report.ones));
        let noise = report.noise.unwrap();
        assert!((0.055..0.065).contains(&noise.mean) && (0.075..0.085).contains(&noise.max));
        let profiles: Vec<_> = report.fits.iter().map(|fit| (fit.profile, fit.k)).collect();
        let expected = [
            (Profile::Dk256, 384),
            (Profile::Dk512, 384),
            (Profile::Dk1024, 512),
        ];
        assert_eq!(profiles, expected.map(|(profile, k)| (profile, Some(k))));
        assert!(report.fits.iter().all(|fit| fit.refusals.is_empty()));
        let bound = report.fits[0].failure_bound(0.1).unwrap();
        assert!((1.9e-11..2.1e-11).contains(&bound), "{bound:e}");

        let same = [(); 2].map(|()| Secret::new(cells[..300].to_vec()));
        assert!(measure(&same).latched);
        assert!(!measure(&same[..1]).latched);
        assert_eq!(measure(&[]).fits, []);
        let text = measure(&[Secret::new(vec![b'x'; 256])]);
        assert_eq!(text.fits[0].k, None);
        assert!(
            text.fits[0].refusals.len() >= 3,
            "{:?}",
            text.fits[0].refusals
        );
    }
}
