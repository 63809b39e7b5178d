//! From readings to helper data.
//!
//! What it protects against: the syndrome is over all cells, so that there is no selection of cells
//! that an attacker could steer, and its length follows from the ledger of these very cells. One
//! syndrome is made of a window for life: two enrolments of a biased response disclose more than one
//! (Boyen, CCS 2004), so that [`refresh`](super::refresh) gives the same one again.

use zeroize::Zeroizing;

use super::bits::Bits;
use super::health;
use super::helper::{Header, Helper};
use super::ledger::Ledger;
use super::measure::measure;
use super::polar::Code;
use super::{Enrolment, Profile, Source};
use crate::error::{Error, Result};
use crate::secret::Secret;

/// Readings from which on cells can be called reliable or not.
const LEAST_FOR_MAP: usize = 3;

/// As [`super::enroll`]; with a reliability map where `with_map` says so.
pub(super) fn enroll(
    profile: Profile,
    readings: &[Secret],
    source: &Source,
    with_map: bool,
) -> Result<Enrolment> {
    let readings = windows(profile, readings)?;
    refuse(health::refusals(&readings))?;
    let vote = vote(&readings);
    if with_map && (readings.len() < LEAST_FOR_MAP || health::is_zero(&vote.differing)) {
        return Err(Error::input(
            "a reliability map takes three or more readings of a device that is live",
        ));
    }
    let map: &[u8] = if with_map { &vote.differing } else { &[] };
    let ledger = Ledger::of(vote.response.expose(), map);
    let k = profile.k_for(&ledger)?;
    let code = Code::new(profile.family(), k)?;
    let syndrome = code.syndrome(&Bits::from_bytes(vote.response.expose()));
    let header = Header {
        profile,
        source: *source,
        readings: u8::try_from(readings.len()).unwrap_or(u8::MAX),
        map: with_map,
        k,
        loss: ledger.loss(),
        design_id: code.design_id(),
        enrolment_id: random_id()?,
    };
    let (helper, material) = Helper::seal(header, &syndrome, map, &vote.response)?;
    Ok(Enrolment {
        helper,
        root: material.root()?,
        report: measure(&readings),
    })
}

/// 16 bytes from the system's generator.
pub(super) fn random_id() -> Result<[u8; 16]> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id)?;
    Ok(id)
}

/// What of each reading is used.
fn windows(profile: Profile, readings: &[Secret]) -> Result<Vec<Secret>> {
    let len = profile.response_len();
    let window = |reading: &Secret| {
        let window = reading.expose().get(..len);
        let window = window.map(|bytes| Secret::new(bytes.to_vec()));
        let found = reading.len();
        window.ok_or_else(|| {
            Error::input(format!(
                "{profile} takes {len} bytes; the device gave {found}"
            ))
        })
    };
    readings.iter().map(window).collect()
}

fn refuse(refusals: Vec<String>) -> Result<()> {
    match refusals.is_empty() {
        true => Ok(()),
        false => Err(Error::input(format!(
            "this is no PUF to rely on: {}",
            refusals.join("; ")
        ))),
    }
}

/// What several readings agree on.
struct Vote {
    /// The majority for each cell; the first reading where there is none.
    response: Secret,
    /// A one for each cell that the readings differ in; public only where the helper data say it.
    differing: Zeroizing<Vec<u8>>,
}

/// Counts the readings. No branch and no address depends on a cell.
fn vote(readings: &[Secret]) -> Vote {
    let first = readings.first().map(Secret::expose).unwrap_or_default();
    let mut response = Secret::new(first.to_vec());
    let mut differing = Zeroizing::new(vec![0; first.len()]);
    for (at, byte) in response.expose_mut().iter_mut().enumerate() {
        let column = || readings.iter().filter_map(|r| r.expose().get(at));
        // How many readings differ from the first in each of the byte's cells.
        let against = |bit: u8| {
            column()
                .map(|other| usize::from((*other ^ *byte) >> bit & 1))
                .sum::<usize>()
        };
        let mask =
            |over: usize| (0..8).fold(0, |mask, bit| mask | u8::from(against(bit) > over) << bit);
        let (any, most) = (mask(0), mask(readings.len() / 2));
        *byte ^= most;
        if let Some(differing) = differing.get_mut(at) {
            *differing = any;
        }
    }
    Vote {
        response,
        differing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(bytes: &[u8]) -> Vec<Secret> {
        bytes.iter().map(|byte| Secret::new(vec![*byte])).collect()
    }

    /// Fails with `over + 1`, and with the mask of any for that of most.
    #[test]
    fn the_majority_wins_and_the_first_where_there_is_none() {
        let of = |bytes: &[u8]| {
            let vote = vote(&readings(bytes));
            (vote.response.expose()[0], vote.differing[0])
        };
        assert_eq!(of(&[0b1100]), (0b1100, 0));
        assert_eq!(of(&[0b1100, 0b1010, 0b1001]), (0b1000, 0b0111));
        assert_eq!(of(&[0b1100, 0b1010]), (0b1100, 0b0110));
        assert_eq!(of(&[0b00, 0b01, 0b11, 0b01]), (0b01, 0b11));
    }
}
