//! Other enrolments of the same window, in the same store. Two syndromes of one window may say
//! together what each alone does not, so there is one for its life (Delvaux et al., CHES 2016).
//!
//! Best effort: it is looked for among the token's neighbours, whose helper data is tried on the
//! device itself, whatever its path. A token that was deleted, or is in another store, is not found.

use std::fs;
use std::path::{Path, PathBuf};

use super::copies::{self, Enrolled};
use super::source::{Source, Window};
use crate::error::{Error, Result};
use crate::files::TEMPORARY;
use crate::fuzzy::{self, Helper};
use crate::secret::Secret;

/// An enrolment of this device.
#[derive(Debug)]
pub(super) struct Other {
    /// The directory that it is in.
    pub(super) dir: PathBuf,
    /// Its helper data.
    pub(super) helper: Helper,
}

impl Other {
    /// Whether its making was cut short, so that no token uses it: the token that is made now takes
    /// it over.
    pub(super) fn is_draft(&self) -> bool {
        let name = self.dir.file_name().unwrap_or_default();
        name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes())
    }
}

/// Enrolments among the neighbours of `dir` that this device reproduces and that share bytes with
/// `window`; those that tokens use first.
pub(super) fn of_the_same(dir: &Path, source: &Source, window: Window) -> Vec<Other> {
    let store = dir.parent().unwrap_or(dir);
    let entries = fs::read_dir(store).into_iter().flatten().flatten();
    let mut found: Vec<Other> = entries
        .map(|entry| entry.path())
        .filter(|neighbour| neighbour != dir)
        .filter_map(|neighbour| enrolment(&neighbour))
        .filter(|other| overlap(&other.helper, window))
        .filter(|other| reproduces(source, &other.helper))
        .collect();
    found.sort_by_key(Other::is_draft);
    found
}

/// The enrolment of a token that is to be taken over.
///
/// # Errors
/// [`Error::BadInput`] where it is of another window.
pub(super) fn to_renew(dir: &Path, window: Window) -> Result<Other> {
    let wrong = |why: &str| Error::input(format!("renew = {:?}: {why}", dir.display()));
    match copies::peek(dir)? {
        Enrolled::Noisy(helper) if covers(&helper, window) => Ok(Other {
            dir: dir.to_owned(),
            helper: *helper,
        }),
        Enrolled::Noisy(_) => Err(wrong("that token is on another window of the device")),
        Enrolled::Stable(_) => Err(wrong("a stable source needs no renewal; make a new token")),
    }
}

/// The window of helper data.
pub(super) fn window(helper: &Helper) -> Result<Window> {
    let offset = usize::try_from(helper.source().offset).map_err(|_| Error::NotReproduced)?;
    Ok(Window::exactly(offset, helper.profile().response_len()))
}

fn enrolment(dir: &Path) -> Option<Other> {
    // Not what could be a link into somebody else's directory.
    let is_dir = fs::symlink_metadata(dir).is_ok_and(|about| about.is_dir());
    let enrolled = is_dir.then(|| copies::peek(dir))?;
    match enrolled.ok()? {
        Enrolled::Noisy(helper) => Some(Other {
            dir: dir.to_owned(),
            helper: *helper,
        }),
        Enrolled::Stable(_) => None,
    }
}

fn overlap(helper: &Helper, new: Window) -> bool {
    window(helper)
        .is_ok_and(|old| old.offset < new.offset + new.most && new.offset < old.offset + old.most)
}

fn covers(helper: &Helper, new: Window) -> bool {
    window(helper).is_ok_and(|old| old.offset == new.offset && old.most <= new.most)
}

fn reproduces(source: &Source, helper: &Helper) -> bool {
    let tried = |reading: Secret| fuzzy::reconstruct(helper, &reading).is_ok();
    window(helper).is_ok_and(|window| source.read(window).is_ok_and(tried))
}
