//! Random numbers for simulations: fast, the same everywhere, not for secrets.

use crate::fuzzy::bits::Bits;

/// xoshiro256** of Blackman and Vigna (2018), seeded through splitmix64.
#[derive(Clone, Debug)]
pub struct Random([u64; 4]);

impl Random {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Random(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ mixed >> 31
        }))
    }

    /// An independent generator for part `part` of a simulation.
    pub fn part(seed: u64, part: u64) -> Self {
        let [first, ..] = Random::new(seed).0;
        Random::new(first ^ part.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// 64 uniform bits.
    pub fn word(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let word = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        word
    }

    /// Uniform from 0 to below 2^32.
    pub fn half(&mut self) -> u32 {
        (self.word() >> 32) as u32
    }

    /// `len` bits, each of them one with the probability `rate`, within 2^-32.
    pub fn bits(&mut self, len: usize, rate: f64) -> Bits {
        let limit = threshold(rate);
        let mut bits = Bits::zeros(len);
        for at in 0..len {
            bits.set(at, u64::from(self.half()) < limit);
        }
        bits
    }
}

/// What [`Random::half`] is below with the probability `rate`.
pub(super) fn threshold(rate: f64) -> u64 {
    (rate * 4_294_967_296.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of the authors' C code for the state 1, 2, 3, 4.
    #[test]
    fn the_generator_is_xoshiro() {
        let mut random = Random([1, 2, 3, 4]);
        let words: Vec<u64> = (0..4).map(|_| random.word()).collect();
        assert_eq!(words, [11520, 0, 1_509_978_240, 1_215_971_899_390_074_240]);
    }

    /// Fails with a threshold of twice or half the rate.
    #[test]
    fn bits_have_their_rate() {
        let ones = Random::part(1, 2).bits(1 << 20, 0.1).ones();
        assert!((104_300..105_400).contains(&ones), "{ones}");
    }
}
