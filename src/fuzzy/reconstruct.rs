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
//!   with a chance of 2^-124; what the ledger passes, with one below 2^-256 in every profile
//!   (Chernoff's bound; a test computes it).
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

/// Up to lists of 32: 256 would help once in many thousand, and an attacker's helper data takes the
/// longest.
const EFFORT: Effort = Effort::List32;

/// As [`super::reconstruct`].
pub(super) fn reconstruct(helper: &Helper, reading: &Secret) -> Result<Reconstruction> {
    let found = recover(helper, reading, EFFORT).ok_or(Error::NotReproduced)?;
    Ok(Reconstruction {
        root: found.material.root()?,
        flips: found.flips,
        decoder: found.decoder,
    })
}

/// As [`super::refresh`].
pub(super) fn refresh(helper: &Helper, reading: &Secret) -> Result<Enrolment> {
    let found = recover(helper, reading, EFFORT).ok_or(Error::NotReproduced)?;
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
    let rates = rates(helper);
    let decoded = code.decode_soft(&reading, &rates, helper.syndrome(), effort, &mut accept)?;
    let (response, material, flips) = found?;
    Some(Recovered {
        response,
        material,
        flips,
        decoder: decoded.decoder,
    })
}

/// How often each cell flips, by the reliability map; nothing where there is none. What readings
/// agree on flips half as often as all cells do or less: 3.6 of 6.4 % after three readings, 1.7 of
/// 6.2 % after fifteen (STM32F401 enrolled at room temperature and read at −18 °C); what they differ
/// in, in 30 to 39 %.
fn rates(helper: &Helper) -> Vec<f32> {
    let agreed = helper.profile().family().design_rate() as f32 / 2.0;
    let rate = |byte: u8, bit: u8| if byte >> bit & 1 == 1 { 0.35 } else { agreed };
    let bytes = helper.map().iter();
    bytes
        .flat_map(|byte| (0..8).map(move |bit| rate(*byte, bit)))
        .collect()
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

#[cfg(test)]
mod tests {
    use super::super::synthetic::{Random, chip};
    use super::super::{Profile, Source, SourceKind, enroll, enroll_with_map};
    use super::*;

    const SOURCE: Source = Source {
        kind: SourceKind::Raw,
        offset: 64,
    };
    /// Noise that successive cancellation corrects.
    const NOISE: f64 = 0.05;

    fn enrolled(profile: Profile, seed: u64) -> (Vec<u8>, Enrolment) {
        let cells = chip(seed, profile.response_len(), 0.5);
        let reading = Secret::new(cells.clone());
        (cells, enroll(profile, &[reading], &SOURCE).unwrap())
    }

    fn refused<T>(result: Result<T>) {
        assert!(matches!(result, Err(Error::NotReproduced)));
    }

    /// Fails with the reading for the candidate in `confirm`, and with a longer syndrome.
    #[test]
    fn noisy_readings_give_the_root_back() {
        for (profile, noise) in Profile::ALL.into_iter().zip([0.07, 0.13, 0.18, 0.2]) {
            let (cells, enrolment) = enrolled(profile, 1);
            let bytes = enrolment.helper.encode();
            assert!(bytes.len() <= profile.response_len() + 96);
            let helper = Helper::parse(bytes).unwrap();
            let mut random = Random(!1);
            for _ in 0..5 {
                let reading = random.reading(&cells, noise);
                let expected = super::super::health::distance(&cells, reading.expose());
                let found = super::super::reconstruct(&helper, &reading).unwrap();
                assert_eq!(found.root.expose(), enrolment.root.expose());
                assert_eq!(found.flips, expected as usize);
            }
        }
    }

    /// Fails with the id of the old enrolment, and with a syndrome of the reading.
    #[test]
    fn a_refresh_keeps_the_syndrome_and_changes_the_root() {
        let (cells, before) = enrolled(Profile::Dk256, 2);
        let reading = Random(!2).reading(&cells, NOISE);
        let after = refresh(&before.helper, &reading).unwrap();
        assert_eq!(after.helper.syndrome(), before.helper.syndrome());
        assert_ne!(after.helper.enrolment_id(), before.helper.enrolment_id());
        assert_ne!(after.root.expose(), before.root.expose());
        for enrolment in [&before, &after] {
            let again = reconstruct(&enrolment.helper, &reading).unwrap();
            assert_eq!(again.root.expose(), enrolment.root.expose());
        }
        refused(refresh(&before.helper, &Secret::new(chip(3, 256, 0.5))));
    }

    /// Every bit of the helper data, with one decoder: more of them only offer more candidates to
    /// the same check. Fails without the tag.
    #[test]
    fn each_changed_bit_of_the_helper_data_is_refused() {
        let (cells, enrolment) = enrolled(Profile::Dk256, 4);
        let reading = Random(!4).reading(&cells, NOISE);
        assert!(recover(&enrolment.helper, &reading, Effort::Sc).is_some());
        let good = enrolment.helper.encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            let found = Helper::parse(&bad)
                .ok()
                .and_then(|helper| recover(&helper, &reading, Effort::Sc));
            assert!(found.is_none(), "bit {bit}");
        }
    }

    /// The right response, but a syndrome of other positions. Fails without the design id.
    #[test]
    fn another_table_of_positions_is_refused() {
        let (cells, enrolment) = enrolled(Profile::Dk256, 14);
        let (response, design_id) = (Secret::new(cells), *b"another.");
        let header = Header {
            design_id,
            ..*enrolment.helper.header()
        };
        let syndrome = enrolment.helper.syndrome();
        let (helper, _) = Helper::seal(header, syndrome, &[], &response).unwrap();
        assert!(helper.confirm(&response).is_some());
        refused(reconstruct(&helper, &response));
    }

    /// Parts of one enrolment's helper data with those of another of the same chip. Fails with a
    /// tag over the header or the syndrome alone.
    #[test]
    fn exchanged_parts_are_refused() {
        let (cells, one) = enrolled(Profile::Dk256, 5);
        let reading = Random(!5).reading(&cells, NOISE);
        let other = refresh(&one.helper, &reading).unwrap();
        let (one, other) = (one.helper.encode(), other.helper.encode());
        let tag = one.len() - 32;
        let swapped: Vec<u8> = [&one[..64], &one[72..80], &one[64..72], &one[80..]].concat();
        for bad in [
            [&one[..64], &other[64..]].concat(),
            [&one[..tag], &other[tag..]].concat(),
            [&other[..tag], &one[tag..]].concat(),
            swapped,
        ] {
            refused(reconstruct(&Helper::parse(&bad).unwrap(), &reading));
        }
    }

    /// Fails without the windows' check of the length in `recover`.
    #[test]
    fn another_chip_and_a_short_reading_are_refused() {
        let (cells, enrolment) = enrolled(Profile::Dk256, 6);
        for reading in [
            chip(7, 256, 0.5),
            cells[..255].to_vec(),
            vec![],
            vec![0; 256],
        ] {
            refused(reconstruct(&enrolment.helper, &Secret::new(reading)));
        }
    }

    /// The right response is refused from one cell more than the limit on. Fails without the
    /// comparison, and with `>=`.
    #[test]
    fn the_distance_is_limited() {
        let (cells, enrolment) = enrolled(Profile::Dk256, 8);
        let response = Bits::from_bytes(&cells);
        let limit = Profile::Dk256.distance_limit();
        let at = |distance: usize| {
            let mut reading = response.duplicate();
            (0..distance).for_each(|cell| reading.set(cell * 4, !response.get(cell * 4)));
            confirm(&enrolment.helper, &response, &reading).map(|(_, _, flips)| flips)
        };
        assert_eq!((at(limit), at(limit + 1)), (Some(limit), None));
    }

    /// Helper data for a made-up response with a right tag: the chip's likeliest cells, near enough
    /// to the reading. Fails without the ledger in `confirm`.
    #[test]
    fn what_enrolment_refuses_is_no_response() {
        let bias = |at: usize| [0.8, 0.2][at / 32 % 2];
        let reading = Bits::from_bytes(&Random(9).bytes(256, bias));
        let (_, enrolment) = enrolled(Profile::Dk256, 10);
        let likeliest = Random(0).bytes(256, |at| bias(at).round());
        let code = Code::new(Profile::Dk256.family(), enrolment.helper.k()).unwrap();
        let candidate = Bits::from_bytes(&likeliest);
        let header = *enrolment.helper.header();
        let syndrome = code.syndrome(&candidate);
        let response = candidate.to_secret();
        let (helper, _) = Helper::seal(header, &syndrome, &[], &response).unwrap();
        assert!(candidate.distance(&reading) < Profile::Dk256.distance_limit());
        assert!(helper.confirm(&response).is_some());
        assert!(confirm(&helper, &candidate, &reading).is_none());
    }

    /// Fails where the map is not part of what is sealed, and with `differing` of another reading.
    #[test]
    fn several_readings_give_a_majority_and_a_map() {
        let cells = chip(11, 256, 0.5);
        let mut random = Random(!11);
        let readings = [(); 5].map(|()| random.reading(&cells, NOISE));
        let enrolment = enroll_with_map(Profile::Dk256, &readings, &SOURCE).unwrap();
        let helper = Helper::parse(enrolment.helper.encode()).unwrap();
        assert_eq!(helper.readings(), 5);
        let differing: u32 = helper.map().iter().map(|byte| byte.count_ones()).sum();
        // 1 − 0.95⁵ − 0.05⁵ = 23 % of 2048.
        assert!((400..540).contains(&differing), "{differing}");
        for reading in &readings {
            let again = reconstruct(&helper, reading).unwrap();
            assert_eq!(again.root.expose(), enrolment.root.expose());
        }
        let voted = enroll(Profile::Dk256, &readings, &SOURCE).unwrap().helper;
        let flips = reconstruct(&voted, &Secret::new(cells)).unwrap().flips;
        assert!(
            flips < 20,
            "{flips}: no nearer to the cells than one reading"
        );
        let two = enroll_with_map(Profile::Dk256, &readings[..2], &SOURCE);
        assert!(matches!(two, Err(Error::BadInput(_))));
    }

    /// Three cells in ten flip in 47 of 100 readings, the others in 10: hopeless where nothing is
    /// known of which. Fails with one rate for all cells.
    #[test]
    fn the_map_finds_what_is_lost_without_it() {
        // The bias makes K 512, for which so much noise is too much.
        let (cells, flaky) = (chip(12, 256, 0.65), chip(13, 256, 0.3));
        let mut random = Random(!12);
        let mut reading = || {
            let is_flaky = |cell: usize| flaky[cell / 8] >> (cell % 8) & 1 == 1;
            let flips = random.bytes(256, |cell| if is_flaky(cell) { 0.47 } else { 0.1 });
            Secret::new(
                cells
                    .iter()
                    .zip(flips)
                    .map(|(cell, flip)| cell ^ flip)
                    .collect(),
            )
        };
        // Those of the enrolment differ less, or it would be refused.
        let quiet = |seed| {
            let few = Random(seed).bytes(256, |_| 0.4);
            let flips = few.iter().zip(&flaky).map(|(few, flaky)| few & flaky);
            Secret::new(
                cells
                    .iter()
                    .zip(flips)
                    .map(|(cell, flip)| cell ^ flip)
                    .collect(),
            )
        };
        let readings: Vec<Secret> = (20..29).map(quiet).collect();
        let soft = enroll_with_map(Profile::Dk256, &readings, &SOURCE)
            .unwrap()
            .helper;
        let hard = enroll(Profile::Dk256, &readings, &SOURCE).unwrap().helper;
        let (mut found, mut lost) = (0, 0);
        for _ in 0..20 {
            let reading = reading();
            found += usize::from(reconstruct(&soft, &reading).is_ok());
            lost += usize::from(reconstruct(&hard, &reading).is_err());
        }
        assert!(
            found >= 18 && lost >= 5,
            "{found} found, {lost} lost without the map"
        );
    }
}
