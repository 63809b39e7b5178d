//! Density evolution with a degrading quantiser: an upper bound on the error probability of each bit
//! of a polar code under successive cancellation with the exact f.
//!
//! After Tal and Vardy, "How to construct polar codes", IEEE Trans. Inf. Theory 59 (2013). A channel
//! with binary input and symmetric output is a mixture of binary symmetric channels, held as their
//! masses of right and of wrong output. Two of them become one by adding the masses: the receiver
//! forgets which of the two it was. That degrades the channel, and a degraded channel stays degraded
//! through both polar transforms (their Lemma 5), so all figures err upwards.
//!
//! Rounding: only sums, products and quotients of non-negative numbers occur, so each of the
//! 2^m products that a leaf is made of carries a relative error below 2^m × 10^5 × 2^-53 < 4e-7 for
//! m <= 14, and an underflow loses less than 1e-290. [`MARGIN`] and [`FLOOR`] cover both. Square roots only
//! choose what is merged. Nothing but IEEE 754 basic operations is used: each machine gets the same.

#![allow(
    clippy::indexing_slicing,
    reason = "bucket() is below BUCKETS by its `min`s, and the vector has that length"
)]

/// Parts that a channel is merged down to.
pub(crate) const BINS: usize = 256;

/// Factor on a sum of error probabilities that covers the rounding.
pub(crate) const MARGIN: f64 = 1.0 + 1e-6;

/// Added to a sum of error probabilities for what underflowed.
pub(crate) const FLOOR: f64 = 1e-280;

/// Buckets for channels with an error rate above 1/4: 16 for each halving of 1/2 - rate.
const NOISY: usize = 38 * 16;
/// Buckets of 16 for each halving of the rate, down to 2^-64.
const FINE: usize = 62 * 16;
/// Below, one for each halving; a rate of zero has its place, too.
const BUCKETS: usize = NOISY + FINE + 962;

/// A binary symmetric channel that is used with the probability `right + wrong`.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
struct Part {
    right: f64,
    /// Never more than `right`.
    wrong: f64,
}

/// A binary-input channel with symmetric output: parts in order of falling error rate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Channel(Vec<Part>);

impl Channel {
    /// The binary symmetric channel with this error rate, at most 1/2.
    pub(crate) fn symmetric(rate: f64) -> Self {
        Channel(vec![Part::new(1.0 - rate, rate)])
    }

    /// The probability that the best guess of the input is wrong; a tie counts half.
    pub(crate) fn error(&self) -> f64 {
        self.0.iter().map(|part| part.wrong).sum()
    }
}

impl Part {
    fn new(one: f64, other: f64) -> Self {
        Part {
            right: one.max(other),
            wrong: one.min(other),
        }
    }

    fn plus(self, other: Part) -> Part {
        Part {
            right: self.right + other.right,
            wrong: self.wrong + other.wrong,
        }
    }

    /// Half the Bhattacharyya parameter.
    fn overlap(self) -> f64 {
        (self.right * self.wrong).sqrt()
    }

    /// What merging costs, as growth of the Bhattacharyya parameter.
    fn cost(self, other: Part) -> f64 {
        self.plus(other).overlap() - self.overlap() - other.overlap()
    }
}

/// The two polar transforms, with their working memory.
pub(crate) struct Evolution {
    bins: usize,
    buckets: Vec<Part>,
}

impl Evolution {
    /// Channels are merged down to `bins` parts.
    pub(crate) fn new(bins: usize) -> Self {
        Evolution {
            bins,
            buckets: vec![Part::default(); BUCKETS],
        }
    }

    /// The worse of the two channels made of two copies: of the sum of both inputs (f).
    pub(crate) fn worse(&mut self, channel: &Channel) -> Channel {
        for_pairs(&channel.0, |a, b, times| {
            let right = a.right * b.right + a.wrong * b.wrong;
            let wrong = a.right * b.wrong + a.wrong * b.right;
            self.take(Part::new(right * times, wrong * times));
        });
        self.merged()
    }

    /// The better one: of the second input, where the first is known (g).
    pub(crate) fn better(&mut self, channel: &Channel) -> Channel {
        for_pairs(&channel.0, |a, b, times| {
            let (right, wrong) = (a.right * b.right, a.wrong * b.wrong);
            self.take(Part::new(right * times, wrong * times));
            let (one, other) = (a.right * b.wrong, a.wrong * b.right);
            self.take(Part::new(one * times, other * times));
        });
        self.merged()
    }

    fn take(&mut self, part: Part) {
        let bucket = &mut self.buckets[bucket(part)];
        *bucket = bucket.plus(part);
    }

    /// Empties the buckets into a channel of at most `bins` parts.
    fn merged(&mut self) -> Channel {
        let used = self.buckets.iter_mut().filter(|part| part.right > 0.0);
        let mut parts: Vec<Part> = used.map(std::mem::take).collect();
        while parts.len() > self.bins {
            parts = thinned(&parts, parts.len() - self.bins);
        }
        Channel(parts)
    }
}

/// Calls `each` with all unordered pairs, and with how often each occurs.
fn for_pairs(parts: &[Part], mut each: impl FnMut(Part, Part, f64)) {
    for (at, &a) in parts.iter().enumerate() {
        each(a, a, 1.0);
        for &b in &parts[at + 1..] {
            each(a, b, 2.0);
        }
    }
}

/// A fine logarithmic grid, in order of falling error rate.
fn bucket(part: Part) -> usize {
    let rate = part.wrong / (part.right + part.wrong);
    match rate < 0.25 {
        true => {
            let halvings = sixteenths(rate);
            NOISY + halvings.min(FINE) + halvings.saturating_sub(FINE) / 16
        }
        false => NOISY - 1 - sixteenths(0.5 - rate).min(NOISY - 1),
    }
}

/// How far a number is below 1/4, in sixteenths of an octave: exponent and four bits of mantissa.
fn sixteenths(number: f64) -> usize {
    let quarter: usize = (1021 << 4) - 1;
    // At most 12 + 4 bits.
    let at = (number.to_bits() >> 48) as usize;
    quarter.saturating_sub(at.min(quarter))
}

/// Merges neighbours, cheapest first, by at most `excess` in number.
fn thinned(parts: &[Part], excess: usize) -> Vec<Part> {
    let pairs = parts.windows(2);
    let mut costs: Vec<f64> = pairs.map(|pair| pair[0].cost(pair[1])).collect();
    let nth = (excess / 2).min(costs.len() - 1);
    let (_, &mut limit, _) = costs.select_nth_unstable_by(nth, f64::total_cmp);
    let (mut thin, mut left) = (Vec::<Part>::with_capacity(parts.len()), excess);
    for &part in parts {
        match thin.last_mut() {
            Some(last) if left > 0 && last.cost(part) <= limit => {
                *last = last.plus(part);
                left -= 1;
            }
            _ => thin.push(part),
        }
    }
    thin
}

/// The error probability of each of the 2^m bits, in order, for the channel of one use.
pub(crate) fn errors(channel: &Channel, m: u32, bins: usize) -> Vec<f64> {
    let mut found = Vec::with_capacity(1 << m);
    let every: Vec<usize> = (0..1 << m).collect();
    descend(&mut Evolution::new(bins), channel, m, &every, &mut found);
    found
}

/// The error probabilities of the bits at `wanted`, which ascend, all below 2^m.
pub(crate) fn errors_of(channel: &Channel, m: u32, wanted: &[usize], bins: usize) -> Vec<f64> {
    let mut found = Vec::with_capacity(wanted.len());
    descend(&mut Evolution::new(bins), channel, m, wanted, &mut found);
    found
}

fn descend(
    evolution: &mut Evolution,
    channel: &Channel,
    m: u32,
    wanted: &[usize],
    found: &mut Vec<f64>,
) {
    let Some(below) = m.checked_sub(1) else {
        return found.extend(wanted.iter().map(|_| channel.error()));
    };
    let half = wanted.partition_point(|at| at >> below & 1 == 0);
    let (first, second) = wanted.split_at(half);
    if !first.is_empty() {
        let worse = evolution.worse(channel);
        descend(evolution, &worse, below, first, found);
    }
    if !second.is_empty() {
        let better = evolution.better(channel);
        descend(evolution, &better, below, second, found);
    }
}
