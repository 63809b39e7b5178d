//! A vector of bits, wiped when dropped: readings, responses, words of the code.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::secret::Secret;

/// Bits in 64-bit words; bit i stands in byte i/8, the least significant bit of a byte first.
///
/// What is beyond the last bit is zero. No operation's time depends on the bits' values.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    /// `len` zero bits.
    pub fn zeros(len: usize) -> Self {
        let words = vec![0; len.div_ceil(64)];
        Bits { words, len }
    }

    /// All the bits of `bytes`.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let word = |chunk: &[u8]| {
            let each = chunk.iter().zip((0..).step_by(8));
            each.fold(0, |word, (&byte, at)| word | u64::from(byte) << at)
        };
        Bits {
            words: bytes.chunks(8).map(word).collect(),
            len: bytes.len() * 8,
        }
    }

    /// A second copy; named, so that each stands out.
    pub fn duplicate(&self) -> Self {
        Bits {
            words: self.words.clone(),
            len: self.len,
        }
    }

    /// Length in bits.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bits at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bit `at`; false beyond the end.
    pub fn get(&self, at: usize) -> bool {
        let word = self.words.get(at / 64).copied().unwrap_or(0);
        word >> (at % 64) & 1 == 1
    }

    /// Sets bit `at`; nothing happens beyond the end.
    pub fn set(&mut self, at: usize, value: bool) {
        if at < self.len
            && let Some(word) = self.words.get_mut(at / 64)
        {
            *word = *word & !(1 << (at % 64)) | u64::from(value) << (at % 64);
        }
    }

    /// How many bits are one.
    pub fn ones(&self) -> usize {
        self.words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// In how many places two vectors of the same length differ.
    pub fn distance(&self, other: &Bits) -> usize {
        let pairs = self.words.iter().zip(&other.words);
        pairs.map(|(a, b)| (a ^ b).count_ones() as usize).sum()
    }

    /// Adds another vector of the same length, modulo 2.
    pub fn add(&mut self, other: &Bits) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word ^= other;
        }
    }

    /// The bytes; the last one is padded with zeros.
    pub fn to_secret(&self) -> Secret {
        Secret::new(self.to_bytes())
    }

    /// The bytes of what is no secret; the last one is padded with zeros.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.words.len() * 8);
        bytes.extend(self.words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.truncate(self.len.div_ceil(8));
        bytes
    }

    /// The words, bit 0 of the vector first.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// The words; who writes them leaves the padding zero.
    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }
}

impl fmt::Debug for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bits({} of them)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails with the most significant bit first.
    #[test]
    fn the_least_significant_bit_comes_first() {
        let bits = Bits::from_bytes(&[0b0000_0101, 0, 0, 0, 0, 0, 0, 0, 0x80]);
        assert_eq!(bits.len(), 72);
        let ones: Vec<usize> = (0..80).filter(|&at| bits.get(at)).collect();
        assert_eq!(ones, [0, 2, 71]);
        assert_eq!(bits.ones(), 3);
        assert_eq!(bits.to_secret().expose(), [5, 0, 0, 0, 0, 0, 0, 0, 0x80]);
    }

    /// Fails without the check of the length in `set`.
    #[test]
    fn what_is_set_is_what_is_read() {
        let mut bits = Bits::zeros(70);
        for at in [0, 63, 64, 69, 70, 1000] {
            bits.set(at, true);
        }
        assert_eq!(bits.ones(), 4);
        bits.set(63, false);
        assert!(!bits.get(63) && bits.get(64));
        let mut other = Bits::zeros(70);
        other.set(1, true);
        assert_eq!(bits.distance(&other), 4);
        bits.add(&other);
        assert_eq!(bits.distance(&other), 3);
        assert_eq!(bits.duplicate().to_bytes(), [3, 0, 0, 0, 0, 0, 0, 0, 0x21]);
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Bits::from_bytes(&[9])), "Bits(8 of them)");
    }
}
