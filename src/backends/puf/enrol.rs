//! A new token's enrolment: read, judge, make helper data, try it, write it.

use std::path::Path;

use super::copies::{self, Enrolled};
use super::options::{Kind, Options};
use super::others::{self, Other};
use super::patience::Patience;
use super::source::{Source, Window};
use super::{again, reconstruct, same, stable};
use crate::error::{Error, Result};
use crate::fuzzy::{self, Enrolment, Profile};
use crate::secret::Secret;

/// Enrols a device and writes the helper data into `dir`. Until the token's record is there too, the
/// enrolment is nobody's, and the next one on this device takes it over.
///
/// # Errors
/// [`Error::Exists`] where a token of the same store is on this window; [`Error::BadInput`] where the
/// device is not fit; those of reading it.
pub(super) fn enrol(dir: &Path, options: &Options, patience: Patience) -> Result<Enrolled> {
    let source = Source {
        options: options.clone(),
        patience,
    };
    let enrolled = match options.kind {
        Kind::Stable { length } => always_the_same(&source, length)?,
        Kind::Raw | Kind::Serial => noisy(dir, &source)?,
    };
    copies::write(dir, &enrolled)?;
    Ok(enrolled)
}

/// The profiles to choose from where none is set, and the window that has room for them.
pub(super) fn window(options: &Options, largest: Profile) -> Window {
    let offset = options.offset;
    match options.profile {
        Some(profile) => Window::exactly(offset, profile.response_len()),
        None => Window {
            offset,
            least: Profile::Dk256.response_len(),
            most: largest.response_len(),
        },
    }
}

/// Up to `count` readings: a latched device gives only one, of which more would say nothing.
pub(super) fn readings(
    source: &Source,
    window: Window,
    count: usize,
    told: &mut dyn FnMut(usize),
) -> Result<Vec<Secret>> {
    let mut readings: Vec<Secret> = Vec::new();
    while readings.len() < count {
        // All of one length, whatever the device has room for.
        let window = readings
            .first()
            .map_or(window, |first| Window::exactly(window.offset, first.len()));
        let reading = source.read(window)?;
        let latched = readings.first().is_some_and(|first| same(first, &reading));
        readings.push(reading);
        told(readings.len());
        if latched && readings.len() == 2 {
            break;
        }
    }
    Ok(readings)
}

/// A source that must say the same twice, and that passes for a secret.
fn always_the_same(source: &Source, length: usize) -> Result<Enrolled> {
    let offset = source.options.offset;
    let window = Window::exactly(offset, length);
    let readings = readings(source, window, 2, &mut |_| {})?;
    match readings.as_slice() {
        [one, other] if same(one, other) => {
            let (helper, _) = stable::enroll(one, offset)?;
            Ok(Enrolled::Stable(helper))
        }
        _ => Err(Error::input(
            "the device says something else each time it is asked; a noisy one is kind = \"raw\"",
        )),
    }
}

fn noisy(dir: &Path, source: &Source) -> Result<Enrolled> {
    let options = &source.options;
    let window = window(options, Profile::Dk1024);
    // Two to tell a latched device from a live one, even where one is enough.
    let mut all = readings(source, window, options.readings.max(2), &mut |_| {})?;
    let profile = chosen(options, &all)?;
    let window = Window::exactly(options.offset, profile.response_len());
    for reading in &mut all {
        reading.truncate(profile.response_len());
    }
    let latched = all.len() == 2 && all.windows(2).all(|w| matches!(w, [a, b] if same(a, b)));
    if latched || options.readings == 1 {
        all.truncate(1);
    }
    let enroll = match options.map {
        true => fuzzy::enroll_with_map,
        false => fuzzy::enroll,
    };
    let made = match taken_over(dir, source, window)? {
        Some(other) => renewed(source, &other)?,
        None => enroll(profile, &all, &source.named(options.offset))?,
    };
    log::info!(
        "{}: {}, {} of the response kept from the helper data: {} bits",
        options.device.display(),
        if latched { "latched" } else { "live" },
        profile.name(),
        made.helper.k()
    );
    tried(source, made)
}

/// The profile that is set, or the largest that the readings have room for.
fn chosen(options: &Options, readings: &[Secret]) -> Result<Profile> {
    let room = readings.first().map_or(0, Secret::len);
    let fits = |profile: &Profile| profile.response_len() <= room;
    let largest = Profile::ALL.into_iter().rev().find(fits);
    let none = || Error::input("the device has no room for any profile");
    options.profile.or(largest).ok_or_else(none)
}

/// The enrolment of this window that is to be taken over, if there is one.
fn taken_over(dir: &Path, source: &Source, window: Window) -> Result<Option<Other>> {
    if let Some(old) = &source.options.renew {
        return others::to_renew(old, window).map(Some);
    }
    match others::of_the_same(dir, source, window).into_iter().next() {
        // A second enrolment could disclose the keys of both.
        Some(other) if !other.is_draft() => Err(Error::Exists(format!(
            "a token on this window of the device ({})",
            other.dir.display()
        ))),
        draft => Ok(draft),
    }
}

fn renewed(source: &Source, other: &Other) -> Result<Enrolment> {
    let window = others::window(&other.helper)?;
    again(source, window, |reading| {
        fuzzy::refresh(&other.helper, reading)
    })
}

/// An enrolment that gives its root back from a fresh reading, as it will have to from now on.
fn tried(source: &Source, made: Enrolment) -> Result<Enrolled> {
    let window = others::window(&made.helper)?;
    let enrolled = Enrolled::Noisy(Box::new(made.helper));
    let root = again(source, window, |reading| reconstruct(&enrolled, reading))?;
    match same(&root, &made.root) {
        true => Ok(enrolled),
        false => Err(Error::Internal("a PUF gives another root".to_owned())),
    }
}
