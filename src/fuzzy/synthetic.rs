//! Chips for tests: cells of a stated bias, readings of a stated noise, from a seed.

use crate::secret::Secret;

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// True with a probability.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        ((self.next() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    /// Bytes of which each bit is a one with a probability that depends on where it is.
    pub(super) fn bytes(&mut self, len: usize, one: impl Fn(usize) -> f64) -> Vec<u8> {
        let mut byte = |at: usize| {
            (0..8).fold(0, |byte, bit| {
                byte | u8::from(self.chance(one(at * 8 + bit))) << bit
            })
        };
        (0..len).map(&mut byte).collect()
    }

    /// A reading of a chip.
    pub(super) fn reading(&mut self, chip: &[u8], noise: f64) -> Secret {
        let flips = self.bytes(chip.len(), |_| noise);
        Secret::new(
            chip.iter()
                .zip(flips)
                .map(|(cell, flip)| cell ^ flip)
                .collect(),
        )
    }
}

/// A chip whose cells are ones with that probability.
pub(super) fn chip(seed: u64, len: usize, ones: f64) -> Vec<u8> {
    Random(seed).bytes(len, |_| ones)
}
