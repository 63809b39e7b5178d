//! What can be said of a device and of an enrolment, for people and for monitoring.

use std::time::{Duration, Instant};

use super::copies::{self, Enrolled};
use super::options::{Kind, Options};
use super::patience::Patience;
use super::source::{Source, Window};
use super::{enrol, stable, window};
use crate::error::{Error, Result};
use crate::fuzzy::{self, Decoder, Profile, Report};

use crate::provider::{Place, Settings};
use crate::secret::Secret;

/// A device as it was measured.
#[derive(Debug)]
pub struct Probe {
    /// Path of the device.
    pub device: String,
    /// It gives one measurement again and again, until the next start.
    pub latched: bool,
    /// The profile that a token would have: the one that is set, else the largest up to dk-1024 that
    /// the device has room for; `None` for a stable source, or where none fits.
    pub profile: Option<Profile>,
    /// What was measured; `None` for a stable source, of which nothing can be.
    pub report: Option<Report>,
}

/// How often an enrolled device gave its root back.
#[derive(Debug, Clone, Default)]
pub struct Verification {
    /// Attempts, each with a fresh reading and without a second chance.
    pub times: usize,
    /// Readings that did not give the root back.
    pub failures: usize,
    /// Readings that failed already, with the reason of the last one.
    pub unread: Option<(usize, String)>,
    /// Shares of cells that read differently than at enrolment, 0 to 1: the mean and the worst of the
    /// readings that did; 0 for a stable source.
    pub noise: (f64, f64),
    /// How often which decoder was needed; none for a stable source.
    pub decoders: Vec<(Decoder, usize)>,
    /// All readings were the same: a latched device is verified by restarting the machine.
    pub latched: bool,
    /// Longest time of a reading and of a reconstruction.
    pub slowest: (Duration, Duration),
}

/// Measures a device without enrolling it: up to `readings` readings of up to 2 KiB. `told` hears how
/// many there are.
///
/// # Errors
/// Those of reading the device.
pub fn probe(settings: &Settings, readings: usize, told: &mut dyn FnMut(usize)) -> Result<Probe> {
    let options = Options::read(settings)?;
    let source = Source {
        options: options.clone(),
        patience: Patience::Thread,
    };
    let device = options.device.display().to_string();
    let window = match options.kind {
        Kind::Stable { length } => Window::exactly(options.offset, length),
        _ => enrol::window(&options, Profile::Dk2048),
    };
    let all = enrol::readings(&source, window, readings.max(2), told)?;
    let latched = matches!(all.as_slice(), [one, other] if super::same(one, other));
    let room = all.first().map_or(0, |first| first.len());
    let noisy = options.kind != (Kind::Stable { length: room });
    let default = [Profile::Dk1024, Profile::Dk512, Profile::Dk256];
    let fits = default.into_iter().find(|p| p.response_len() <= room);
    Ok(Probe {
        device,
        latched,
        profile: options.profile.or(fits).filter(|_| noisy),
        report: noisy.then(|| fuzzy::measure(&all)),
    })
}

/// Reads the device of a token `times` times and tries each reading alone.
///
/// # Errors
/// Those of the helper data, and of a device that cannot be read even once.
pub fn verify(
    place: &Place<'_>,
    times: usize,
    told: &mut dyn FnMut(&Verification),
) -> Result<Verification> {
    try_all(&copies::read(place.dir, place.binding)?, place, times, told)
}

/// Tries that many readings of a token's device.
pub(super) fn try_all(
    enrolled: &Enrolled,
    place: &Place<'_>,
    times: usize,
    told: &mut dyn FnMut(&Verification),
) -> Result<Verification> {
    let source = Source {
        options: Options::read(place.settings)?,
        patience: Patience::Thread,
    };
    let window = window(enrolled)?;
    let mut sum = Verification {
        latched: true,
        ..Verification::default()
    };
    let mut first = None;
    while sum.times < times {
        let start = Instant::now();
        let reading = source.read(window);
        sum.slowest.0 = sum.slowest.0.max(start.elapsed());
        sum.times += 1;
        match reading {
            Ok(reading) => {
                sum.add(enrolled, &reading)?;
                let first = first.get_or_insert_with(|| Secret::new(reading.expose().to_vec()));
                sum.latched &= super::same(first, &reading);
            }
            // Not one reading: nothing to report on.
            Err(e) if sum.times == times && first.is_none() => return Err(e),
            Err(e) => sum.unread = Some((sum.unread.map_or(1, |(n, _)| n + 1), e.to_string())),
        }
        told(&sum);
    }
    sum.latched &= times > 1;
    Ok(sum)
}

impl Verification {
    /// Tries one reading.
    fn add(&mut self, enrolled: &Enrolled, reading: &Secret) -> Result<()> {
        let start = Instant::now();
        let tried = match enrolled {
            Enrolled::Noisy(helper) => fuzzy::reconstruct(helper, reading).map(Some),
            Enrolled::Stable(helper) => stable::reconstruct(helper, reading).map(|_| None),
        };
        self.slowest.1 = self.slowest.1.max(start.elapsed());
        match tried {
            Ok(Some(good)) => {
                self.count(good.flips as f64 / (8 * reading.len()) as f64, good.decoder);
            }
            Ok(None) => {}
            Err(Error::NotReproduced) => self.failures += 1,
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn count(&mut self, noise: f64, decoder: Decoder) {
        let before: usize = self.decoders.iter().map(|(_, times)| times).sum();
        let (mean, worst) = self.noise;
        self.noise = (
            (mean * before as f64 + noise) / (before + 1) as f64,
            worst.max(noise),
        );
        match self
            .decoders
            .iter_mut()
            .find(|(known, _)| *known == decoder)
        {
            Some((_, times)) => *times += 1,
            None => self.decoders.push((decoder, 1)),
        }
    }
}
