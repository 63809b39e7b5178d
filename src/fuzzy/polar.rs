//! Polar codes: what a helper's syndrome is made with, and the decoders that undo the noise.
//!
//! The code of length N = 2^m is the set of words u F^(x)m, F = [1 0; 1 1], with free bits of u at K
//! *information positions* and known bits at the others, the *frozen* ones (Arıkan, IEEE Trans. Inf.
//! Theory 55, 2009). Of a response x the helper keeps u = x F^(x)m at the frozen positions: N - K
//! bits, so at least K bits of x stay unknown as long as x is uniform (Dodis, Reyzin and Smith).
//! Which positions carry information is in a checked-in table ([`Family`]): computed once, the same on
//! each machine.
//!
//! # What depends on secrets
//! The transform, and with it [`Code::syndrome`], runs the same instructions on the same addresses
//! whatever the response. So does successive cancellation: the updates are arithmetic on whole arrays,
//! with choices between two numbers where compilers put selections, and which subtrees are cut
//! short is a matter of the code. The list decoder compares the metrics of its paths. Which of them survive
//! shows in branches (of the selection) and in addresses (a path's slots). Paths are numbered
//! by rank and not by the bits that they stand for, so an observer of the cache on the same core could learn
//! where the right path was the less likely one: where the *noise* of this reading misled. Noise
//! does not depend on the response where cells are unbiased, and tells of a biased one at most on
//! which side of its bias a cell may be. How many decoders ran shows in the time; it tells
//! how noisy the reading was, which is no secret (`devkey puf verify` prints it).
//!
//! Everything that held bits or ratios is wiped when a decoder ends.

pub(crate) mod density;
mod level;
mod list;
mod llr;
mod sc;
mod table;
mod transform;

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use self::transform::transform;
use super::bits::Bits;
use crate::error::{Error, Result};

/// A ranking of information positions: length, and the noise that it was computed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// 2048 bits, for 10 % noise.
    Dk256,
    /// 4096 bits, for 20 % noise.
    Dk512,
    /// 8192 bits, for 25 % noise.
    Dk1024,
    /// 16384 bits, for 28 % noise.
    Dk2048,
}

impl Family {
    /// All of them, the shortest first.
    pub const ALL: [Family; 4] = [Family::Dk256, Family::Dk512, Family::Dk1024, Family::Dk2048];

    /// m; the code's length is 2^m bits.
    pub fn log2_len(self) -> u32 {
        match self {
            Family::Dk256 => 11,
            Family::Dk512 => 12,
            Family::Dk1024 => 13,
            Family::Dk2048 => 14,
        }
    }

    /// Length of code and response in bits.
    pub fn len_bits(self) -> usize {
        1 << self.log2_len()
    }

    /// Bit-error rate that the ranking was computed for, and that decoders assume.
    pub fn design_rate(self) -> f64 {
        match self {
            Family::Dk256 => 0.10,
            Family::Dk512 => 0.20,
            Family::Dk1024 => 0.25,
            Family::Dk2048 => 0.28,
        }
    }

    /// The best positions for information bits, the best first; as many as K can be at most.
    pub fn ranking(self) -> &'static [u16] {
        match self {
            Family::Dk256 => &table::DK256,
            Family::Dk512 => &table::DK512,
            Family::Dk1024 => &table::DK1024,
            Family::Dk2048 => &table::DK2048,
        }
    }

    /// The first 8 bytes of SHA-256 over "devkey polar", m as a byte and the ranking as 16-bit
    /// little-endian numbers: codes with the same id read each other's syndromes.
    pub fn design_id(self) -> [u8; 8] {
        let mut text = b"devkey polar".to_vec();
        text.extend(self.log2_len().to_le_bytes().first());
        text.extend(self.ranking().iter().flat_map(|at| at.to_le_bytes()));
        let hash = digest::digest(&digest::SHA256, &text);
        hash.as_ref().first_chunk().copied().unwrap_or_default()
    }
}

/// How much a decoder may try: each step is taken only where the one before found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// Successive cancellation alone.
    Sc,
    /// Then a list of 8 paths.
    List8,
    /// Then one of 32.
    List32,
    /// Then one of 256, with eight times the time and memory of the one of 32: some 5 MiB for 8192 bits.
    List256,
}

/// Which decoder found a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    /// Successive cancellation.
    Sc,
    /// A list of so many paths.
    List(usize),
}

/// A response that was accepted.
#[derive(Debug)]
pub struct Decoded {
    /// The response, N bits.
    pub response: Bits,
    /// What found it.
    pub decoder: Decoder,
}

/// A polar code with K information bits.
#[derive(Debug)]
pub struct Code {
    family: Family,
    k: usize,
    /// For each position how many information positions are before it; one more at the end.
    before: Vec<u16>,
}

/// What a subtree of the code consists of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    /// Frozen bits only.
    Frozen,
    /// One information bit, the last: a repetition code.
    Last,
    /// Information bits only, more than one.
    Free,
    /// Anything else.
    Mixed,
}

impl Code {
    /// The code with the `k` best positions of a family's ranking, 64 at least.
    pub fn new(family: Family, k: usize) -> Result<Self> {
        let most = family.ranking().len();
        let Some(information) = family.ranking().get(..k).filter(|_| k >= 64) else {
            let family = family.len_bits() / 8;
            let reason = format!("{k} secret bits from {family} bytes; 64 to {most} are possible");
            return Err(Error::input(reason));
        };
        let mut free = vec![false; family.len_bits()];
        for &at in information {
            if let Some(free) = free.get_mut(usize::from(at)) {
                *free = true;
            }
        }
        let mut before = vec![0; 1];
        before.extend(free.iter().scan(0, |sum, &free| {
            *sum += u16::from(free);
            Some(*sum)
        }));
        Ok(Code { family, k, before })
    }

    /// N, the length of a response in bits.
    #[allow(clippy::len_without_is_empty, reason = "no code is empty")]
    pub fn len(&self) -> usize {
        self.family.len_bits()
    }

    /// K, the number of information bits.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The family that the code belongs to.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Names the ranking, see [`Family::design_id`].
    pub fn design_id(&self) -> [u8; 8] {
        self.family.design_id()
    }

    /// Length of a syndrome in bytes: N - K bits, rounded up.
    pub fn syndrome_len(&self) -> usize {
        (self.len() - self.k).div_ceil(8)
    }

    /// The information positions, in ascending order.
    pub(crate) fn information(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len()).filter(|&at| self.free(at))
    }

    /// The syndrome of a response of N bits: u = x F^(x)m at the frozen positions in ascending order.
    /// It is public. A response of another length is cut or filled with zeros.
    pub fn syndrome(&self, response: &Bits) -> Vec<u8> {
        let mut u = self.fitted(response);
        transform(&mut u);
        let mut syndrome = Bits::zeros(self.len() - self.k);
        let frozen = (0..self.len()).filter(|&at| !self.free(at));
        for (to, from) in frozen.enumerate() {
            syndrome.set(to, u.get(from));
        }
        syndrome.to_bytes()
    }

    /// Finds the response that has this syndrome and is near to `reading`, all cells being equally
    /// reliable. Candidates are offered to `accept`, of each decoder the most likely first.
    pub fn decode(
        &self,
        reading: &Bits,
        syndrome: &[u8],
        effort: Effort,
        accept: &mut dyn FnMut(&Bits) -> bool,
    ) -> Option<Decoded> {
        self.decode_soft(reading, &[], syndrome, effort, accept)
    }

    /// As [`Code::decode`], with the bit-error rate of each cell; the family's design rate counts for
    /// cells beyond the end of `rates`. Rates are taken as 1e-6 at least and 1/2 at most.
    pub fn decode_soft(
        &self,
        reading: &Bits,
        rates: &[f32],
        syndrome: &[u8],
        effort: Effort,
        accept: &mut dyn FnMut(&Bits) -> bool,
    ) -> Option<Decoded> {
        let coset = self.coset(syndrome);
        let ratios = self.ratios(reading, &coset, rates);
        let mut found = None;
        let mut offer = |mut word: Bits, decoder| {
            word.add(&coset);
            let accepted = accept(&word);
            if accepted {
                found = Some(Decoded {
                    response: word,
                    decoder,
                });
            }
            accepted
        };
        if !offer(sc::decode(self, &ratios), Decoder::Sc) {
            let steps = [
                (Effort::List8, 8),
                (Effort::List32, 32),
                (Effort::List256, 256),
            ];
            let steps = steps.into_iter().filter(|(least, _)| *least <= effort);
            for (_, size) in steps {
                if list::decode(self, &ratios, size, &mut |word| {
                    offer(word, Decoder::List(size))
                }) {
                    break;
                }
            }
        }
        found
    }

    /// Whether a list of `size` paths, from 1 to 256, misses what is right: for simulations. `u` has
    /// zeros at the frozen positions, and its word is read with `noise`.
    pub(crate) fn misses(&self, u: &Bits, noise: &Bits, size: usize) -> bool {
        let mut word = self.fitted(u);
        transform(&mut word);
        let ratios = self.ratios(noise, &word, &[]);
        list::loses(self, &ratios, size, u)
    }

    /// A word that has this syndrome: what is missing counts as zero.
    fn coset(&self, syndrome: &[u8]) -> Bits {
        let syndrome = Bits::from_bytes(syndrome);
        let mut word = Bits::zeros(self.len());
        let frozen = (0..self.len()).filter(|&at| !self.free(at));
        for (from, to) in frozen.enumerate() {
            word.set(to, syndrome.get(from));
        }
        transform(&mut word);
        word
    }

    /// The ratios of a reading, seen from a word with the same syndrome: all frozen bits become zero.
    fn ratios(&self, reading: &Bits, coset: &Bits, rates: &[f32]) -> Zeroizing<Vec<f32>> {
        let mut seen = self.fitted(reading);
        seen.add(coset);
        let design = self.family.design_rate() as f32;
        let ratio = |at| {
            let rate = rates.get(at).copied().unwrap_or(design).clamp(1e-6, 0.5);
            let size = libm::logf((1.0 - rate) / rate);
            f32::from_bits(size.to_bits() ^ u32::from(seen.get(at)) << 31)
        };
        Zeroizing::new((0..self.len()).map(ratio).collect())
    }

    fn fitted(&self, bits: &Bits) -> Bits {
        let mut fitted = Bits::zeros(self.len());
        let words = fitted.words_mut().iter_mut().zip(bits.words());
        words.for_each(|(to, from)| *to = *from);
        fitted
    }

    fn free(&self, at: usize) -> bool {
        self.count(at, 1) == 1
    }

    /// How many of the `len` positions from `at` on carry information.
    fn count(&self, at: usize, len: usize) -> u16 {
        let before = |at| self.before.get(at).copied().unwrap_or(0);
        before(at + len).wrapping_sub(before(at))
    }

    /// The kind of the subtree of `len` leaves that begins at leaf `at`.
    fn node(&self, at: usize, len: usize) -> Node {
        match usize::from(self.count(at, len)) {
            0 => Node::Frozen,
            1 if self.free(at + len - 1) => Node::Last,
            count if count == len => Node::Free,
            _ => Node::Mixed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzy::certify::Random;

    /// What decodes a reading with this noise, and whether to the right response.
    fn trial(code: &Code, random: &mut Random, noise: f64) -> Option<Decoder> {
        let response = random.bits(code.len(), 0.5);
        let mut reading = random.bits(code.len(), noise);
        reading.add(&response);
        let syndrome = code.syndrome(&response);
        assert_eq!(syndrome.len(), code.syndrome_len());
        let mut accept = |found: &Bits| found.distance(&response) == 0;
        let decoded = code.decode(&reading, &syndrome, Effort::List32, &mut accept)?;
        assert_eq!(decoded.response.distance(&response), 0);
        Some(decoded.decoder)
    }

    /// Fails with the halves of a word, or the arguments of g, exchanged in sc.rs.
    #[test]
    fn design_noise_is_undone_at_once() {
        let mut random = Random::new(1);
        for family in Family::ALL {
            let code = Code::new(family, 512).unwrap();
            let rate = family.design_rate() - 0.05;
            assert_eq!(
                trial(&code, &mut random, rate),
                Some(Decoder::Sc),
                "{family:?}"
            );
        }
    }

    /// Fails with any table of list.rs left out of `inherit`, and with the metric negated.
    #[test]
    fn lists_find_what_successive_cancellation_does_not() {
        let code = Code::new(Family::Dk512, 384).unwrap();
        let mut random = Random::new(2);
        let found: Vec<_> = (0..60).map(|_| trial(&code, &mut random, 0.28)).collect();
        let count = |decoder| found.iter().filter(|&&by| by == decoder).count();
        let (sc, eight) = (count(Some(Decoder::Sc)), count(Some(Decoder::List(8))));
        assert!(sc > 25 && eight > 5 && sc + eight > 54, "{sc} {eight}");
    }

    /// Fails where the coset is not added again to what is offered.
    #[test]
    fn every_candidate_has_the_syndrome() {
        let code = Code::new(Family::Dk256, 448).unwrap();
        let mut random = Random::new(3);
        let syndrome = code.syndrome(&random.bits(2048, 0.5));
        let (reading, mut offered) = (random.bits(2048, 0.5), 0);
        let none = code.decode(&reading, &syndrome, Effort::List256, &mut |found| {
            offered += 1;
            assert_eq!(code.syndrome(found), syndrome);
            false
        });
        assert!(none.is_none());
        assert_eq!(offered, 1 + 8 + 32 + 256);
    }
}
