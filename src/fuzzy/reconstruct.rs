//! From helper data and a fresh reading back to the response.
//!
//! What it protects against, after Becker 2017 and Delvaux, Gu, Schellekens, Verbauwhede (TCAD
//! 2015): who edits helper data and watches whether the device still works.
//! - A strict limit of distance, counted over all cells after decoding: however the code is led, a
//!   response farther from the reading is none.
//! - The tag is over all helper data under a key that takes every cell to know.
//! - What enrolment would have refused is refused: by the ledger, which is asked again. Else helper
//!   data for a response that the attacker made up, such as the chip's likeliest one, would be
//!   accepted where bias brings it within the distance. At 60 % ones and 1 KiB that is "all ones"
//!   with a chance of 2^-124; what the ledger passes comes within the distance by 2^-400.
//! - One error for every failure, and all candidates tried before it.
//!
//! Time depends on the reading's noise: successive cancellation first, lists only after it fails.
//! That tells how many tries a reading took, which follows from noise that is fresh in each reading
//! and from no cell's value.

use super::bits::Bits;
use super::enroll::random_id;
use super::helper::{Header, Helper};
use super::kdf::Material;
use super::ledger::Ledger;
use super::measure::measure;
use super::polar::{Code, Decoder, Effort};
use super::{Enrolment, Reconstruction};
use crate::error::{Error, Result};
use crate::secret::Secret;

/// Bits by which the ledger's second look may find more loss than K pays for: sums of logarithms
/// differ in the last place between machines. A quarter of the room that K has.
const SLACK: usize = 8;

/// As [`super::reconstruct`].
pub(super) fn reconstruct(helper: &Helper, reading: &Secret) -> Result<Reconstruction> {
    let found = recover(helper, reading, Effort::Full).ok_or(Error::NotReproduced)?;
    Ok(Reconstruction {
        root: found.material.root()?,
        flips: found.flips,
        decoder: found.decoder,
    })
}

/// As [`super::refresh`].
pub(super) fn refresh(helper: &Helper, reading: &Secret) -> Result<Enrolment> {
    let found = recover(helper, reading, Effort::Full).ok_or(Error::NotReproduced)?;
    let header = Header {
        enrolment_id: random_id()?,
        ..*helper.header()
    };
    let (helper, material) =
        Helper::seal(header, helper.syndrome(), helper.map(), &found.response)?;
    Ok(Enrolment {
        helper,
        root: material.root()?,
        report: measure(&[found.response]),
    })
}

/// The enrolled response and what is derived from it.
struct Recovered {
    response: Secret,
    material: Material,
    flips: usize,
    decoder: Decoder,
}

fn recover(helper: &Helper, reading: &Secret, effort: Effort) -> Option<Recovered> {
    let profile = helper.profile();
    let code = Code::new(profile.family(), helper.k()).ok()?;
    if code.design_id() != helper.header().design_id {
        return None;
    }
    let reading = Bits::from_bytes(reading.expose().get(..profile.response_len())?);
    let mut found = None;
    let mut accept = |candidate: &Bits| {
        found = confirm(helper, candidate, &reading);
        found.is_some()
    };
    let decoded = code.decode(&reading, helper.syndrome(), effort, &mut accept)?;
    let (response, material, flips) = found?;
    Some(Recovered {
        response,
        material,
        flips,
        decoder: decoded.decoder,
    })
}

/// Whether a candidate is the enrolled response: near enough, confirmed by the tag, and one that
/// enrolment takes.
fn confirm(helper: &Helper, candidate: &Bits, reading: &Bits) -> Option<(Secret, Material, usize)> {
    let flips = candidate.distance(reading);
    if flips > helper.profile().distance_limit() {
        return None;
    }
    let response = candidate.to_secret();
    let material = helper.confirm(&response)?;
    let ledger = Ledger::of(response.expose(), helper.map());
    (ledger.needs() <= helper.k() + SLACK).then_some((response, material, flips))
}
