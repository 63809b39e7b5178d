//! The PUF back end: software keys whose root is nowhere but in the noise of a chip.
//!
//! The device is read when a root is needed, the fuzzy extractor makes the root of it, and both are
//! wiped after the operation, or after a stated time. What is stored is helper data, which is public.
//! docs/puf-device.md says what a device has to be like.

mod copies;
mod enrol;
mod health;
mod hold;
mod measure;
mod node;
mod options;
mod others;
mod patience;
mod scrub;
mod serial;
mod source;
mod stable;

use std::path::PathBuf;
use std::sync::Arc;

use super::soft::{Root, SoftKeys};
use crate::error::{Error, Result};
use crate::fuzzy;
use crate::provider::{BackEnd, Place, Provider, ProviderInfo};
use crate::secret::Secret;

pub use health::{Device, Health, examine};
pub use measure::{Probe, Verification, probe, verify};

use copies::Enrolled;
use hold::Held;
use options::{Hold, Options};
use patience::Patience;
use source::{Source, Window};

/// The PUF back end, as programs of devkey's own register it.
pub const BACK_END: BackEnd = BackEnd {
    name: "puf",
    summary: "a PUF: keys made of a chip's noise, stored nowhere",
    hardware: false,
    settings: options::SETTINGS,
    check: |settings| Options::read(settings).map(drop),
    service: options::want_service,
    create: |place| create(place, Patience::Thread),
    open: |place| open(place, Patience::Thread),
};

/// The same for the processes of others, in which no thread is started: a device whose driver waits
/// whatever O_NONBLOCK says keeps its caller waiting there, unless `service = "always"`.
pub const IN_HOST: BackEnd = BackEnd {
    create: |place| create(place, Patience::Caller),
    open: |place| open(place, Patience::Caller),
    ..BACK_END
};

/// The same for a process that serves many: what is held is held for all who open the token, and after
/// the last of them closed it too.
pub const SHARED: BackEnd = BackEnd {
    open: |place| open_with(place, Patience::Thread, Held::shared),
    ..BACK_END
};

/// Fresh readings that a live device is asked for before a failure is reported.
const READINGS: usize = 3;

fn create(place: &Place<'_>, patience: Patience) -> Result<Arc<dyn Provider>> {
    let mut options = Options::read(place.settings)?;
    let enrolled = enrol::enrol(place.dir, &options, patience)?;
    // The window is wanted once more, by who uses the token.
    if let Hold::Boot { scrub } = &mut options.hold {
        *scrub = false;
    }
    let binding = Some(enrolled.binding());
    let held = Arc::new(Held::new(options.hold));
    Ok(provider(place, Source { options, patience }, binding, held))
}

fn open(place: &Place<'_>, patience: Patience) -> Result<Arc<dyn Provider>> {
    let alone = |_: &Place<'_>, hold| Arc::new(Held::new(hold));
    open_with(place, patience, alone)
}

fn open_with(
    place: &Place<'_>,
    patience: Patience,
    held: impl Fn(&Place<'_>, Hold) -> Arc<Held>,
) -> Result<Arc<dyn Provider>> {
    let options = Options::read(place.settings)?;
    let (binding, held) = (place.binding.map(str::to_owned), held(place, options.hold));
    Ok(provider(place, Source { options, patience }, binding, held))
}

fn provider(
    place: &Place<'_>,
    source: Source,
    binding: Option<String>,
    held: Arc<Held>,
) -> Arc<dyn Provider> {
    Arc::new(SoftKeys::new(PufRoot {
        dir: place.dir.to_owned(),
        binding,
        held,
        source,
    }))
}

/// The root of one enrolment of a device.
#[derive(Debug)]
struct PufRoot {
    dir: PathBuf,
    binding: Option<String>,
    source: Source,
    held: Arc<Held>,
}

impl Root for PufRoot {
    /// By the helper data alone: the device is asked for its root only.
    fn info(&self) -> Result<ProviderInfo> {
        let binding = self.enrolled()?.binding();
        Ok(ProviderInfo {
            model: "PUF".to_owned(),
            serial: Some(binding.chars().take(16).collect()),
            binding: Some(binding),
        })
    }

    fn read(&self) -> Result<Secret> {
        self.held.get(|| self.fetch())
    }

    /// What is held, and for how long, is for [`Held`] alone to say.
    fn keys_may_stay(&self) -> bool {
        false
    }
}

impl PufRoot {
    fn enrolled(&self) -> Result<Enrolled> {
        copies::read(&self.dir, self.binding.as_deref())
    }

    /// Reads the device, and a live one again if that does not do.
    fn fetch(&self) -> Result<Secret> {
        let enrolled = self.enrolled()?;
        let root = again(&self.source, window(&enrolled)?, |reading| {
            reconstruct(&enrolled, reading)
        })?;
        match self.source.options.hold {
            Hold::Boot { scrub: true } => scrub::scrub(&self.source, &enrolled).map(|()| root),
            _ => Ok(root),
        }
    }
}

/// Tries `op` on fresh readings: on the first only, where the second is the same again, since a
/// latched device will not change its mind.
fn again<T>(source: &Source, window: Window, op: impl Fn(&Secret) -> Result<T>) -> Result<T> {
    let mut last: Option<Secret> = None;
    let mut failure = Error::NotReproduced;
    for _ in 0..READINGS {
        failure = match source.read(window) {
            Ok(reading) if last.as_ref().is_some_and(|last| same(last, &reading)) => break,
            Ok(reading) => match op(&reading) {
                Err(e @ Error::NotReproduced) => {
                    last = Some(reading);
                    e
                }
                done => return done,
            },
            // It may have been a moment's.
            Err(e @ Error::DeviceError { .. }) => e,
            Err(e) => return Err(e),
        };
        log::debug!("{}: {failure}", source.options.device.display());
    }
    Err(failure)
}

fn same(one: &Secret, other: &Secret) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one.expose(), other.expose()).is_ok()
}

/// The window of an enrolment in its device's measurement.
fn window(enrolled: &Enrolled) -> Result<Window> {
    match enrolled {
        Enrolled::Noisy(helper) => others::window(helper),
        Enrolled::Stable(helper) => stable::window(helper),
    }
}

fn reconstruct(enrolled: &Enrolled, reading: &Secret) -> Result<Secret> {
    match enrolled {
        Enrolled::Noisy(helper) => Ok(fuzzy::reconstruct(helper, reading)?.root),
        Enrolled::Stable(helper) => stable::reconstruct(helper, reading),
    }
}
