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
    let found = [1, 2, 4, 8].into_iter().any(|width| {
        let big = numbers(reading, width, |bytes| {
            bytes.iter().rev().copied().collect()
        });
        counts(&big) || counts(&numbers(reading, width, <[u8]>::to_vec))
    });
    found.then(|| "it counts: neighbouring numbers all differ by the same step".to_owned())
}

/// Numbers of `width` bytes, which `order` brings into little-endian order.
fn numbers(reading: &[u8], width: usize, order: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u64> {
    let number = |bytes: &[u8]| {
        let bytes = order(bytes).into_iter().rev();
        bytes.fold(0, |number, byte| number << 8 | u64::from(byte))
    };
    reading.chunks_exact(width).map(number).collect()
}

/// Whether more than half of the steps equal the one before.
fn counts(numbers: &[u64]) -> bool {
    let steps: Vec<u64> = numbers
        .windows(2)
        .map(|pair| match pair {
            [a, b] => b.wrapping_sub(*a),
            _ => 0,
        })
        .collect();
    let same = steps.windows(2).filter(|pair| pair.first() == pair.last());
    same.count() * 2 > steps.len()
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
