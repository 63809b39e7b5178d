//! Health tests of readings at enrolment: sources that are no PUF are refused with the reason.
//!
//! What they protect against: enrolling what anybody can guess (erased or initialised memory, text,
//! counters, an id), and a device that is too noisy to be relied on. They see only enrolment; the
//! finer structure is the ledger's.

use crate::secret::Secret;

/// Share of ones below which, and from 1 − which on, a source is refused.
const LEAST_ONES: f64 = 0.30;
/// Share of cells that may differ between two readings.
pub(super) const MOST_NOISE: f64 = 0.20;
/// Length of a block in bytes.
const BLOCK: usize = 32;
/// Bits in which two blocks of one reading differ at least. Independent ones, 30 % ones: 108 of
/// 256, with a standard deviation below 8.
const LEAST_DISTANCE: u32 = 51;

/// What is wrong with readings of one window, one sentence each. All readings have one length.
pub(super) fn refusals(readings: &[Secret]) -> Vec<String> {
    let Some(first) = readings.first() else {
        return vec!["there is no reading".to_owned()];
    };
    let first = first.expose();
    let mut found: Vec<String> = [bias(first), blocks(first), text(first), counter(first)]
        .into_iter()
        .flatten()
        .collect();
    found.extend(noise(readings));
    found
}

/// Bits in which two slices of the same length differ.
pub(super) fn distance(a: &[u8], b: &[u8]) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

/// Share of ones.
pub(super) fn ones(reading: &[u8]) -> f64 {
    let ones: u32 = reading.iter().map(|byte| byte.count_ones()).sum();
    f64::from(ones) / (reading.len() * 8) as f64
}

/// Whether there is no one.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn bias(reading: &[u8]) -> Option<String> {
    let ones = ones(reading);
    let fine = (LEAST_ONES..=1.0 - LEAST_ONES).contains(&ones);
    (!fine).then(|| {
        let percent = ones * 100.0;
        format!("{percent:.0} % of the bits are ones; of start-up values 30 to 70 % are")
    })
}

fn blocks(reading: &[u8]) -> Option<String> {
    let blocks: Vec<&[u8]> = reading.chunks_exact(BLOCK).collect();
    for (at, block) in blocks.iter().enumerate() {
        let at_byte = at * BLOCK;
        let constant = block.iter().all(|byte| Some(byte) == block.first());
        if constant {
            return Some(format!("the {BLOCK} bytes at {at_byte} are all the same"));
        }
        let mut earlier = blocks.iter().take(at);
        if let Some(other) = earlier.position(|other| distance(other, block) < LEAST_DISTANCE) {
            let other = other * BLOCK;
            return Some(format!(
                "the {BLOCK} bytes at {at_byte} repeat those at {other}"
            ));
        }
    }
    None
}

fn text(reading: &[u8]) -> Option<String> {
    let printable = |byte: &&u8| matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r');
    let count = reading.iter().filter(printable).count();
    (count * 10 > reading.len() * 9).then(|| "it is text".to_owned())
}

fn counter(reading: &[u8]) -> Option<String> {
    let widths = [1, 2, 4, 8].into_iter();
    let mut kinds = widths.flat_map(|width| [(width, false), (width, true)]);
    kinds
        .any(|(width, big)| counts(reading, width, big))
        .then(|| "it counts: neighbouring numbers all differ by the same step".to_owned())
}

/// Whether more than half of the steps between numbers of `width` bytes equal the one before.
fn counts(reading: &[u8], width: usize, big: bool) -> bool {
    let numbers = reading.chunks_exact(width).map(|bytes| number(bytes, big));
    let pairs = numbers.clone().zip(numbers.skip(1));
    let steps = pairs.map(|(a, b)| b.wrapping_sub(a));
    let same = steps.clone().zip(steps.clone().skip(1));
    same.filter(|(a, b)| a == b).count() * 2 > steps.count()
}

fn number(bytes: &[u8], big: bool) -> u64 {
    let push = |number, byte: &u8| number << 8 | u64::from(*byte);
    match big {
        true => bytes.iter().fold(0, push),
        false => bytes.iter().rev().fold(0, push),
    }
}

fn noise(readings: &[Secret]) -> Option<String> {
    let (first, others) = readings.split_first()?;
    let bits = (first.len() * 8) as f64;
    let distances = others
        .iter()
        .map(|other| distance(first.expose(), other.expose()));
    let worst = f64::from(distances.max()?) / bits;
    (worst > MOST_NOISE).then(|| {
        let percent = worst * 100.0;
        format!(
            "two readings differ in {percent:.0} % of their bits; at most 20 % can be relied on"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::{Random, chip};
    use super::*;

    fn of(reading: Vec<u8>) -> String {
        refusals(&[Secret::new(reading)]).join("; ")
    }

    /// Fails with 0.45 for the least share of ones, and with 120 for the least distance.
    #[test]
    fn chips_pass() {
        for (seed, ones) in [(1, 0.33), (2, 0.4), (3, 0.5), (4, 0.6), (5, 0.67)] {
            let cells = chip(seed, 2048, ones);
            assert_eq!(of(cells.clone()), "");
            let mut random = Random(!seed);
            let readings = [0.05, 0.1, 0.15].map(|noise| random.reading(&cells, noise));
            assert_eq!(refusals(&readings), [""; 0]);
        }
    }

    /// Each fails without the one line of `refusals`, or the one line of `blocks`, that it is for.
    #[test]
    fn what_is_no_puf_is_refused() {
        let with = |at: usize, block: &[u8]| {
            let mut cells = chip(6, 1024, 0.5);
            cells[at..at + block.len()].copy_from_slice(block);
            cells
        };
        let same = |byte| [byte; 32];
        let other = chip(6, 1024, 0.5)[64..96].to_vec();
        let mut near = other.clone();
        (0..32).for_each(|at| near[at] ^= 1);
        let all = "the 32 bytes at 512 are all the same";
        for (reading, reason) in [
            (vec![0xff; 1024], "100 % of the bits are ones"),
            (vec![0; 1024], "0 % of the bits are ones"),
            (chip(7, 1024, 0.25), "25 % of the bits are ones"),
            (chip(7, 1024, 0.75), "75 % of the bits are ones"),
            (with(512, &same(0xff)), all),
            (with(512, &same(0)), all),
            (with(512, &same(0x5a)), all),
            (with(512, &other), "the 32 bytes at 512 repeat those at 64"),
            (with(512, &near), "the 32 bytes at 512 repeat those at 64"),
            (
                b"To be, or not to be, that is the question:\n".repeat(24),
                "it is text",
            ),
        ] {
            let found = of(reading);
            assert!(found.contains(reason), "{found:?} is not {reason:?}");
        }
        assert_eq!(refusals(&[]), ["there is no reading"]);
    }

    /// Counters from somewhere, by a step, in each width and order, with one number in ten wrong.
    /// Fails without 2, 4 or 8 among the widths, with one of the orders, and with
    /// `> steps.len()` for the count; 1 stands for 256 bytes in a row.
    #[test]
    fn counters_are_refused() {
        let mut random = Random(8);
        for (width, step) in [
            (1, 1),
            (1, 255),
            (2, 1),
            (2, 0x1234),
            (4, 0x11),
            (8, 0x9876_5432_10ab),
        ] {
            for big in [false, true] {
                let start = random.next();
                let number = |at: u64| {
                    let wrong = if at % 10 == 5 { random.next() } else { 0 };
                    let number = start.wrapping_add(at * step) ^ wrong;
                    let mut bytes = number.to_le_bytes()[..width].to_vec();
                    if big {
                        bytes.reverse();
                    }
                    bytes
                };
                let reading: Vec<u8> = (0..1024 / width as u64).flat_map(number).collect();
                let found = of(reading);
                assert!(
                    found.contains("it counts"),
                    "{width} {step} {big}: {found:?}"
                );
            }
        }
    }

    /// Fails with 0.3 for the most noise, and with the least of the distances for the largest.
    #[test]
    fn a_noisy_device_is_refused() {
        let cells = chip(9, 1024, 0.5);
        let mut random = Random(!9);
        let readings = [0.0, 0.25, 0.05].map(|noise| random.reading(&cells, noise));
        let found = refusals(&readings).join("; ");
        assert!(
            found.contains("two readings differ in 25 % of their bits"),
            "{found:?}"
        );
    }
}
