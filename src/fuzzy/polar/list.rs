//! Successive cancellation with a list: the most likely paths are followed side by side.
//!
//! After Tal and Vardy, "List decoding of polar codes", IEEE Trans. Inf. Theory 61 (2015), with the
//! path metric of Balatsoukas-Stimming, Bastani Parizi and Burg (IEEE Trans. Signal Process. 63,
//! 2015) in its exact form, -ln P(path | reading). Since f is exact, a subtree's metric is that of
//! its word: a frozen subtree and one with one last information bit are done at once.
//!
//! Nothing is copied when a path splits, see level.rs.

#![allow(
    clippy::indexing_slicing,
    reason = "paths are below `size`, levels at most m, and new() gives each vector the length for that"
)]

use std::ops::Range;

use zeroize::Zeroizing;

use super::super::bits::Bits;
use super::level::{BLOCK, Child, Level, slot};
use super::llr;
use super::sc::low;
use super::{Code, Node};

/// For simulations: which path is the right one.
struct Guide<'a> {
    truth: &'a Bits,
    path: u8,
}

/// A list decoder at work.
struct List<'a> {
    code: &'a Code,
    /// The ratios of the reading.
    root: &'a [f32],
    /// Most paths at a time, at most 256.
    size: usize,
    levels: Vec<Level>,
    /// Of each living path, -ln P up to what all have in common.
    metrics: Zeroizing<Vec<f64>>,
    /// Of a splitting: metric, parent and bit of each candidate.
    candidates: Zeroizing<Vec<(f64, u8, bool)>>,
    /// -ln P(zeros) of a subtree, of each path.
    surprises: Zeroizing<Vec<f32>>,
    /// Half as long as the code.
    room: Zeroizing<Vec<f32>>,
    guide: Option<Guide<'a>>,
}

/// Offers the words that are left at the end to `accept`, the most likely first; true as soon as it
/// takes one. All frozen bits are zero; `size` is from 1 to 256.
pub(super) fn decode(
    code: &Code,
    ratios: &[f32],
    size: usize,
    accept: &mut dyn FnMut(Bits) -> bool,
) -> bool {
    let mut list = List::new(code, ratios, size);
    list.run();
    let mut order: Vec<usize> = (0..list.metrics.len()).collect();
    order.sort_by(|&a, &b| list.metrics[a].total_cmp(&list.metrics[b]));
    order.into_iter().any(|path| accept(list.word(path)))
}

/// Whether a decoder of `size` paths drops the path of `truth`, which is what u really was. Given up
/// as soon as that has happened.
pub(super) fn loses(code: &Code, ratios: &[f32], size: usize, truth: &Bits) -> bool {
    let mut list = List::new(code, ratios, size);
    list.guide = Some(Guide { truth, path: 0 });
    list.run();
    list.metrics.is_empty()
}

/// Slots for ratios. Of the first half all paths use the same, and those of the second half are
/// never stored, see [`List::down_from_second_half`].
fn slots(level: u32, size: usize) -> usize {
    if level == 1 { 1 } else { size }
}

impl<'a> List<'a> {
    fn new(code: &'a Code, root: &'a [f32], size: usize) -> Self {
        let size = size.clamp(1, 256);
        let level = |level| Level::new(code.len() >> level, slots(level, size), size);
        let mut metrics = Vec::with_capacity(size);
        metrics.push(0.0);
        List {
            code,
            root,
            size,
            // The root itself has no slots.
            levels: (0..=code.len().ilog2())
                .map(|n| {
                    if n == 0 {
                        Level::new(code.len(), 0, 0)
                    } else {
                        level(n)
                    }
                })
                .collect(),
            metrics: Zeroizing::new(metrics),
            candidates: Zeroizing::new(Vec::with_capacity(2 * size)),
            surprises: Zeroizing::new(vec![0.0; size]),
            room: Zeroizing::new(vec![0.0; (code.len() / 2).max(2 * BLOCK)]),
            guide: None,
        }
    }

    fn run(&mut self) {
        self.split(0, 0, Child::First);
    }

    fn paths(&self) -> Range<usize> {
        0..self.metrics.len()
    }

    /// Decodes the subtree at `level` that begins at leaf `at`; its ratios are there already.
    fn node(&mut self, level: usize, at: usize, child: Child) {
        match self.code.node(at, self.levels[level].len) {
            // Subtrees at level 1 have no ratios that could be asked for.
            _ if level == 1 => self.split(level, at, child),
            Node::Frozen => self.frozen(level, child),
            Node::Last => self.fork(level, at, child),
            Node::Free | Node::Mixed => self.split(level, at, child),
        }
    }

    fn frozen(&mut self, level: usize, child: Child) {
        // One path alone has nobody to be compared with.
        let compared = self.metrics.len() > 1;
        if compared {
            self.surprise(level);
            let surprises = self.metrics.iter_mut().zip(self.surprises.iter());
            surprises.for_each(|(metric, &surprise)| *metric += f64::from(surprise));
        }
        for path in self.paths() {
            self.levels[level].new_word(child, path).fill(0);
        }
    }

    /// What zeros at `level` would add to each path's metric. The ratios were made just before, so each
    /// path's are in its own slot.
    fn surprise(&mut self, level: usize) {
        let (level, paths) = (&self.levels[level], self.metrics.len());
        let ratios = &level.ratios[..paths * level.len];
        llr::surprises(ratios, level.len, &mut self.surprises[..paths]);
    }

    fn split(&mut self, level: usize, at: usize, child: Child) {
        let half = self.levels[level].len / 2;
        let idle = self.metrics.len() == 1 && self.code.node(at, half) == Node::Frozen;
        if !idle {
            self.down(level, at, Child::First);
        }
        self.node(level + 1, at, Child::First);
        self.down(level, at, Child::Second);
        self.node(level + 1, at + half, Child::Second);
        if level > 0 {
            self.up(level, child);
        }
    }

    /// Makes the ratios of a child of the subtree at `level`.
    fn down(&mut self, level: usize, at: usize, to: Child) {
        let second_half = at >= self.code.len() / 2;
        match (level, to) {
            (0, Child::Second) => {}
            (1, _) if second_half => self.down_from_second_half(to),
            _ => self.down_from_stored(level, to),
        }
    }

    fn down_from_stored(&mut self, level: usize, to: Child) {
        let (above, below) = self.levels.split_at_mut(level + 1);
        let (above, below) = (&above[level], &mut below[0]);
        if below.len <= BLOCK / 4 && matches!(to, Child::First) {
            return below.make_short(above, self.metrics.len(), &mut self.room);
        }
        for path in 0..self.metrics.len() {
            let ratios = if level == 0 {
                self.root
            } else {
                above.ratios(path)
            };
            let (a, b) = ratios.split_at(below.len);
            below.make(path, a, b, to);
        }
    }

    /// The ratios of the second half of the code are sums and differences of the reading's. They are
    /// made again, a piece at a time, where their halves are needed: half of all memory is saved.
    fn down_from_second_half(&mut self, to: Child) {
        let (above, below) = self.levels.split_at_mut(2);
        let (above, below) = (&above[1], &mut below[0]);
        for path in 0..self.metrics.len() {
            let (a, b) = self.root.split_at(above.len);
            llr::g(a, b, above.first(path), &mut self.room);
            let (a, b) = self.room.split_at(below.len);
            below.make(path, a, b, to);
        }
    }

    /// Makes the word of a subtree from those of its children.
    fn up(&mut self, level: usize, child: Child) {
        let (above, below) = self.levels.split_at_mut(level + 1);
        let (above, below) = (&mut above[level], &below[0]);
        for path in 0..self.metrics.len() {
            let (first, second) = (below.first(path), below.second(path));
            let word = above.new_word(child, path);
            if below.len < 64 {
                word[0] = first[0] ^ second[0] | second[0] << below.len;
                continue;
            }
            let (one, other) = word.split_at_mut(first.len());
            for ((to, first), second) in one.iter_mut().zip(first).zip(second) {
                *to = first ^ second;
            }
            other.copy_from_slice(second);
        }
    }

    /// Splits each path at a subtree with one last information bit: its word is zeros or ones.
    fn fork(&mut self, level: usize, at: usize, child: Child) {
        self.candidates.clear();
        self.surprise(level);
        for path in self.paths() {
            let ratios = self.levels[level].ratios(path);
            let zeros = self.metrics[path] + f64::from(self.surprises[path]);
            let ones = zeros + f64::from(llr::total(ratios));
            // By rank and not by value: the order, and with it all addresses, says nothing of the bit.
            let bit = ones < zeros;
            let likely = (zeros.min(ones), slot(path), bit);
            let unlikely = (zeros.max(ones), slot(path), !bit);
            self.candidates.extend([likely, unlikely]);
        }
        if self.candidates.len() > self.size {
            let by_metric = |a: &(f64, u8, bool), b: &(f64, u8, bool)| a.0.total_cmp(&b.0);
            self.candidates
                .select_nth_unstable_by(self.size - 1, by_metric);
            self.candidates.truncate(self.size);
        }
        self.follow(at + self.levels[level].len - 1);
        self.inherit(level);
        let level = &mut self.levels[level];
        let ones = low(level.len);
        for (path, &(_, _, bit)) in self.candidates.iter().enumerate() {
            level
                .new_word(child, path)
                .fill(u64::from(bit).wrapping_neg() & ones);
        }
    }

    /// Keeps the guide on the right path. Where it was dropped, so are all others.
    fn follow(&mut self, last: usize) {
        let Some(guide) = &mut self.guide else {
            return;
        };
        let right = (guide.path, guide.truth.get(last));
        let mut candidates = self.candidates.iter();
        match candidates.position(|&(_, parent, bit)| (parent, bit) == right) {
            Some(path) => guide.path = slot(path),
            None => self.candidates.clear(),
        }
    }

    /// Gives the chosen candidates what their parents had, down to `level`.
    fn inherit(&mut self, level: usize) {
        self.metrics.clear();
        self.metrics
            .extend(self.candidates.iter().map(|candidate| candidate.0));
        let mut old = [0; 256];
        for level in &mut self.levels[1..=level] {
            for table in [&mut level.ratios_at, &mut level.first_at] {
                old[..table.len()].copy_from_slice(table);
                for (to, &(_, parent, _)) in table.iter_mut().zip(self.candidates.iter()) {
                    *to = old[usize::from(parent)];
                }
            }
        }
    }

    /// The whole word of a path, at the end.
    fn word(&self, path: usize) -> Bits {
        let mut word = Bits::zeros(self.code.len());
        let (first, second) = (self.levels[1].first(path), self.levels[1].second(path));
        let (one, other) = word.words_mut().split_at_mut(first.len());
        for ((to, first), second) in one.iter_mut().zip(first).zip(second) {
            *to = first ^ second;
        }
        other.copy_from_slice(second);
        word
    }
}
