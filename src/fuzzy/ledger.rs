//! The entropy ledger: how much less than one bit per cell a response holds, by public models of
//! how cells are laid out; K follows from it.
//!
//! What it protects against: the syndrome discloses N − K bits of the response. Were all cells fair
//! coins, K bits would stay secret; where they are not, whoever knows their bias knows as much more
//! (Delvaux, Gu, Verbauwhede, Hiller, Yu, CHES 2016). Real chips have structure that no count of all
//! ones shows: one STM32 starts with 38 % ones in even words and 62 % in odd ones, 50 % in all.
//!
//! Each model sorts the cells into contexts by their address and by other cells, and takes a cell
//! for a coin whose bias depends on its context. The response's code length by that model is
//! L = Σ n·h(k/n) over contexts of n cells and k ones, its loss N − L. That is the length for someone
//! who knows the biases, from other chips of the series say. (The adaptive code of Krichevsky and
//! Trofimov, which has to learn them, is longer by about ½·log₂ n for each context: 250 bits for
//! i mod 64 at 1 KiB, below which it would see nothing.) Fitted to fair coins, C contexts give a loss
//! by chance, of which 2·ln 2 times is χ² with C degrees of freedom (Wilks 1938); its mean and three
//! standard deviations are taken off.
//!
//! Why K needs no margin of six standard deviations, as it would where only the bias was known
//! (asymptotic equipartition): the loss is measured on the very response x that is enrolled.
//! Whatever a model's biases are, P(x) ≤ 2^-L(x) (maximum likelihood). So who knows the biases, the
//! published loss and the syndrome guesses x with a chance, over all devices, of at most the sum
//! over the losses of 2^(N − K) syndromes times 2^(loss − N); and K − loss is at least [`KEPT`] +
//! [`ROOM`] for each. `ROOM` pays for the ten bits of that sum, for what is taken off for chance, and
//! for structure that no single model holds.
//!
//! No time and no address depends on cells: all counts are population counts of masked words. What
//! follows from the counts is public at enrolment.

use std::f64::consts::LN_2;

/// Bits that K must keep beyond the loss: 256 of the root and 64 more for a conditioner to give
/// full entropy (NIST SP 800-90C, of vetted conditioning functions).
const KEPT: usize = 320;
/// Bits of room for what the ledger does not see.
const ROOM: usize = 32;
/// K is a multiple of it.
const STEP: usize = 64;
/// Distances between cells that may depend on each other, in bits.
const LAGS: [usize; 5] = [1, 8, 32, 64, 512];
/// Address bits of a word that may decide a bias, besides the lowest.
const ADDRESS_BITS: [usize; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
/// Ones in a word of 32 below which its density is one class, and the next.
const DENSITIES: [u32; 6] = [11, 13, 15, 17, 19, 21];
/// Longest run told apart.
const RUN: usize = 8;

/// The loss of a response by each model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ledger {
    /// Bits, by the model's name.
    pub(super) models: Vec<(String, f64)>,
}

impl Ledger {
    /// Measures a response, whose length is a multiple of 8 bytes, beside its reliability map, which
    /// is public too; empty where there is none.
    pub(super) fn of(response: &[u8], map: &[u8]) -> Self {
        let (words, map) = (Words::of(response), Words::of(map));
        let each = Model::all().into_iter();
        let models = each.map(|model| (model.name(), model.loss(&words, &map)));
        Ledger {
            models: models.collect(),
        }
    }

    /// The largest loss, in whole bits.
    pub(super) fn loss(&self) -> usize {
        let losses = self.models.iter().map(|(_, loss)| *loss);
        // Not negative, and at most the number of cells.
        losses.fold(0.0, f64::max).ceil() as usize
    }

    /// The least number of secret bits that leaves enough entropy.
    pub(super) fn needs(&self) -> usize {
        KEPT + self.loss() + ROOM
    }

    /// The largest loss that `k` pays for.
    pub(super) fn affordable(k: usize) -> usize {
        k.saturating_sub(KEPT + ROOM)
    }

    /// K: the next multiple of [`STEP`].
    pub(super) fn k(&self) -> usize {
        self.needs().div_ceil(STEP) * STEP
    }
}

/// A response as words of 32 bits, wiped when dropped.
#[derive(zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
struct Words(Vec<u32>);

impl Words {
    fn of(response: &[u8]) -> Self {
        let chunks = response.as_chunks::<4>().0.iter();
        Words(chunks.map(|chunk| u32::from_le_bytes(*chunk)).collect())
    }

    /// Word `at`, zero outside.
    fn get(&self, at: Option<usize>) -> u32 {
        at.and_then(|at| self.0.get(at)).copied().unwrap_or(0)
    }

    /// For each cell of word `at` the cell `lag` before it, and which cells have one.
    fn before(&self, at: usize, lag: usize) -> (u32, u32) {
        let shifted = |word: &dyn Fn(Option<usize>) -> u32| {
            let near = word(at.checked_sub(lag / 32));
            let far = word(at.checked_sub(lag / 32 + 1));
            let pair = u64::from(near) << 32 | u64::from(far);
            (pair >> (32 - lag % 32)) as u32
        };
        let there = shifted(&|at| at.map_or(0, |_| u32::MAX));
        (shifted(&|at| self.get(at)), there)
    }
}

/// What a cell's bias may depend on.
#[derive(Debug, Clone, Copy)]
enum Model {
    /// Its address: (i / unit) mod classes, in bits. Unit times classes divides 64.
    Address { unit: usize, classes: usize },
    /// A bit of its word's address, and the lowest.
    AddressBit(usize),
    /// The eighth of the response it is in, and its word's parity.
    Eighth,
    /// The cell so many bits before it, and its word's parity if so said.
    Lag { lag: usize, parity: bool },
    /// The four cells before it.
    Four,
    /// The density of the word before the last, and its word's parity.
    Density,
    /// Whether readings differed in it, and its word's parity.
    Reliability,
    /// Value and length of the run of equal cells before it within its word.
    Run,
}

impl Model {
    fn all() -> Vec<Model> {
        let address = |(unit, classes)| Model::Address { unit, classes };
        let lag = |lag| [false, true].map(|parity| Model::Lag { lag, parity });
        let mut all = [(1, 1), (32, 2), (16, 4), (1, 8), (1, 32), (1, 64)]
            .map(address)
            .to_vec();
        all.extend(ADDRESS_BITS.map(Model::AddressBit));
        all.extend(LAGS.into_iter().flat_map(lag));
        all.extend([Model::Eighth, Model::Four, Model::Density]);
        all.extend([Model::Run, Model::Reliability]);
        all
    }

    fn name(self) -> String {
        match self {
            Model::Address { classes: 1, .. } => "bias".into(),
            Model::Address { unit: 1, classes } => format!("i mod {classes}"),
            Model::Address { unit, classes } => format!("i / {unit} mod {classes}"),
            Model::AddressBit(bit) => format!("word address bit {bit}, parity"),
            Model::Eighth => "eighth of the window, parity".into(),
            Model::Lag { lag, parity: false } => format!("lag {lag}"),
            Model::Lag { lag, parity: true } => format!("lag {lag}, parity"),
            Model::Four => "the four cells before".into(),
            Model::Density => "density of the last word of that parity".into(),
            Model::Reliability => "reliability, parity".into(),
            Model::Run => "run within the word".into(),
        }
    }

    /// N − L, less what fair coins would give.
    fn loss(self, words: &Words, map: &Words) -> f64 {
        let mut counts = Counts::default();
        for at in 0..words.0.len() {
            self.count(words, map, at, &mut counts);
        }
        counts.loss()
    }

    /// Counts the cells of one word, each in one context.
    fn count(self, words: &Words, map: &Words, at: usize, counts: &mut Counts) {
        let word = words.get(Some(at));
        let mut add = |context, mask| counts.add(context, mask, word);
        match self {
            Model::Address { unit, classes } => {
                for class in 0..classes {
                    let cells = periodic(unit, unit * classes, class * unit);
                    let cells = (cells >> (at % 2 * 32)) as u32;
                    // A matter of the address alone.
                    if cells != 0 {
                        add(class, cells);
                    }
                }
            }
            Model::AddressBit(bit) => add((at >> bit) % 2 * 2 + at % 2, u32::MAX),
            Model::Reliability => {
                add(at % 2, map.get(Some(at)));
                add(at % 2 + 2, !map.get(Some(at)));
            }
            Model::Eighth => add(at * 8 / words.0.len() * 2 + at % 2, u32::MAX),
            Model::Lag { lag, parity } => {
                let (before, there) = words.before(at, lag);
                let base = if parity { at % 2 * 3 } else { 0 };
                add(base, !there);
                add(base + 1, there & !before);
                add(base + 2, there & before);
            }
            Model::Four => {
                let before = [1, 2, 3, 4].map(|lag| words.before(at, lag).0);
                for (context, mask) in patterns(before).into_iter().enumerate() {
                    add(context, mask);
                }
            }
            Model::Density => {
                let density = words.get(at.checked_sub(2)).count_ones();
                let class = DENSITIES.map(|limit| u32::from(density >= limit));
                let class = class.into_iter().sum::<u32>();
                for context in 0..=DENSITIES.len() {
                    // All ones where it is the class: no branch on it.
                    let same = u32::from(context as u32 == class).wrapping_neg();
                    add(context * 2 + at % 2, same);
                }
            }
            Model::Run => {
                for (context, mask) in runs(word).into_iter().enumerate() {
                    add(context, mask);
                }
            }
        }
    }
}

/// Of the cells of two words the first `unit` of each `every`, which divides 64, from `start` on.
fn periodic(unit: usize, every: usize, start: usize) -> u64 {
    let mut cells = u64::MAX >> (64 - unit) << start;
    let mut len = every;
    while len < 64 {
        cells |= cells << len;
        len *= 2;
    }
    cells
}

/// Which cells follow each of the sixteen patterns of four.
fn patterns(before: [u32; 4]) -> [u32; 16] {
    std::array::from_fn(|pattern| {
        let each = before.into_iter().enumerate();
        each.fold(u32::MAX, |mask, (bit, cells)| {
            mask & if pattern >> bit & 1 == 1 {
                cells
            } else {
                !cells
            }
        })
    })
}

/// Which cells of a word follow a run of 1, 2, … [`RUN`] or more zeros, of as many ones, and none.
fn runs(word: u32) -> [u32; 2 * RUN + 1] {
    let before = word << 1;
    let mut longer = !1;
    let mut masks = [0; 2 * RUN + 1];
    for len in 1..=RUN {
        // The cell len + 1 before is there and equals the last.
        let goes_on = !(before ^ before << len) & u32::MAX << (len + 1);
        let here = if len < RUN { longer & !goes_on } else { longer };
        longer &= goes_on;
        if let Some([zeros, ones]) = masks.get_mut(2 * len - 1..=2 * len) {
            (*zeros, *ones) = (here & !before, here & before);
        }
    }
    masks[0] = 1;
    masks
}

/// Cells and ones by context.
#[derive(Default)]
struct Counts(Vec<(u32, u32)>);

impl Counts {
    /// Counts the cells of `mask` in a context.
    fn add(&mut self, context: usize, mask: u32, word: u32) {
        if self.0.len() <= context {
            self.0.resize(context + 1, (0, 0));
        }
        if let Some((cells, ones)) = self.0.get_mut(context) {
            *cells += mask.count_ones();
            *ones += (mask & word).count_ones();
        }
    }

    fn loss(&self) -> f64 {
        let used = self.0.iter().filter(|(cells, _)| *cells > 0);
        let contexts = used.clone().count() as f64;
        let gain: f64 = used.map(|&(cells, ones)| gain(cells, ones)).sum();
        gain - (contexts + 3.0 * (2.0 * contexts).sqrt()) / (2.0 * LN_2)
    }
}

/// n·(1 − h(k/n)) in bits.
fn gain(cells: u32, ones: u32) -> f64 {
    let (n, k) = (f64::from(cells), f64::from(ones));
    let part = |k: f64| if k > 0.0 { k * libm::log2(k / n) } else { 0.0 };
    n + part(k) + part(n - k)
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::{Random, chip};
    use super::*;

    fn loss(ledger: &Ledger, model: &str) -> f64 {
        let found = ledger.models.iter().find(|(name, _)| name == model);
        found.unwrap_or_else(|| panic!("no model {model}")).1
    }

    /// 1 KiB of cells that are ones with a probability by address.
    fn structured(seed: u64, one: impl Fn(usize) -> f64) -> Ledger {
        Ledger::of(&Random(seed).bytes(1024, one), &[])
    }

    /// Fails without the allowance for chance: losses of 20 bits and more.
    #[test]
    fn fair_coins_lose_next_to_nothing() {
        let losses: Vec<usize> = (0..200)
            .map(|seed| Ledger::of(&chip(seed, 1024, 0.5), &[]).loss())
            .collect();
        assert!(losses.iter().max() < Some(&25), "{losses:?}");
        assert!(losses.iter().sum::<usize>() < 200 * 4, "{losses:?}");
    }

    /// Fails with `n` for `n + part(k)` in `gain`.
    #[test]
    fn bias_costs_what_information_theory_says() {
        for (ones, each) in [(0.55, 0.007_226), (0.60, 0.029_049), (0.70, 0.118_709)] {
            let expected = 8192.0 * each;
            let mean: f64 = (0..20)
                .map(|seed| loss(&Ledger::of(&chip(seed, 1024, ones), &[]), "bias"))
                .sum::<f64>()
                / 20.0;
            assert!(
                (mean - expected).abs() < 0.1 * expected + 6.0,
                "{mean} {expected}"
            );
        }
    }

    /// Each structure is seen by the model that is made for it, and by no count of all ones. Fails
    /// for each model with 0 for its context, or with the cells of the neighbouring context.
    #[test]
    fn each_structure_is_seen_by_its_model() {
        let bias = |up: bool| if up { 0.62 } else { 0.38 };
        type Up = fn(usize) -> bool;
        let each: [(&str, Up); 8] = [
            ("i / 32 mod 2", |i| i / 32 % 2 == 0),
            ("i / 16 mod 4", |i| i / 16 % 4 < 2),
            ("i mod 8", |i| i % 8 < 4),
            ("i mod 32", |i| i % 32 < 16),
            ("i mod 64", |i| i % 64 * 7 % 64 < 32),
            ("word address bit 1, parity", |i| i / 64 % 2 == 0),
            ("word address bit 7, parity", |i| (i / 32) & 128 == 0),
            ("eighth of the window, parity", |i| i / 1024 % 2 == 0),
        ];
        for (model, up) in each {
            let ledger = structured(1, |i| bias(up(i)));
            assert!(loss(&ledger, model) > 250.0, "{model}: {ledger:?}");
            assert!(loss(&ledger, "bias") < 20.0, "{model}: {ledger:?}");
        }
    }

    /// 1 KiB of cells of which each is a one with a probability by those before it.
    fn dependent(one: impl Fn(&[bool]) -> f64) -> Vec<u8> {
        let mut random = Random(1);
        let mut cells: Vec<bool> = Vec::new();
        for _ in 0..8192 {
            let probability = one(&cells);
            cells.push(random.chance(probability));
        }
        let byte = |bits: &[bool]| {
            let each = bits.iter().rev();
            each.fold(0, |byte, bit| byte << 1 | u8::from(*bit))
        };
        cells.chunks(8).map(byte).collect()
    }

    /// Fails for each lag with another lag's cells, as with `lag / 32 + 1` for the near word; for
    /// the four before with three of them.
    #[test]
    fn each_dependence_between_cells_is_seen_by_its_model() {
        let bias = |up: bool| if up { 0.62 } else { 0.38 };
        let before = |cells: &[bool], lag: usize| match cells.len().checked_sub(lag) {
            Some(at) => cells[at],
            None => cells.len().is_multiple_of(2),
        };
        for lag in LAGS {
            let ledger = Ledger::of(&dependent(|cells| bias(before(cells, lag))), &[]);
            assert!(loss(&ledger, &format!("lag {lag}")) > 250.0, "{ledger:?}");
            let up = |cells: &[bool]| before(cells, lag) ^ (cells.len() / 32 % 2 == 1);
            let ledger = Ledger::of(&dependent(|cells| bias(up(cells))), &[]);
            assert!(
                loss(&ledger, &format!("lag {lag}, parity")) > 250.0,
                "{ledger:?}"
            );
        }
        let up = |cells: &[bool]| (1..=4).fold(false, |sum, lag| sum ^ before(cells, lag));
        let ledger = Ledger::of(&dependent(|cells| bias(up(cells))), &[]);
        assert!(loss(&ledger, "the four cells before") > 200.0, "{ledger:?}");
        assert!(loss(&ledger, "lag 1") < 20.0, "{ledger:?}");
    }

    /// A word as dense as the last but one is not; cells that go on as they did for three and turn after
    /// five; cells whose bias is that of the reliable ones. Fail with 0 for the model's context, the
    /// second with a `RUN` of 3.
    #[test]
    fn density_runs_and_the_map_are_seen() {
        let bias = |up: bool| if up { 0.66 } else { 0.34 };
        let dense = dependent(|cells| {
            let start = (cells.len() / 32 * 32).saturating_sub(64);
            let word = cells.get(start..start + 32).unwrap_or(&[true; 32]);
            bias(word.iter().filter(|cell| **cell).count() < 16)
        });
        let ledger = Ledger::of(&dense, &[]);
        assert!(
            loss(&ledger, "density of the last word of that parity") > 250.0,
            "{ledger:?}"
        );

        let runs = dependent(|cells| {
            let word = &cells[cells.len() / 32 * 32..];
            let Some(last) = word.last() else { return 0.5 };
            let run = word.iter().rev().take_while(|cell| *cell == last).count();
            bias((run < 5) == *last)
        });
        let ledger = Ledger::of(&runs, &[]);
        let four = loss(&ledger, "the four cells before");
        assert!(
            loss(&ledger, "run within the word") > four + 20.0,
            "{ledger:?}"
        );

        let map = chip(2, 1024, 0.2);
        let response = Random(3).bytes(1024, |at| {
            if map[at / 8] >> (at % 8) & 1 == 1 {
                0.3
            } else {
                0.55
            }
        });
        let ledger = Ledger::of(&response, &map);
        assert!(loss(&ledger, "reliability, parity") > 200.0, "{ledger:?}");
        assert!(loss(&ledger, "bias") < 20.0, "{ledger:?}");
    }
}
