//! What the list decoder knows of the subtrees of one size.
//!
//! All paths move through the tree together, and an array is written only where its last use is
//! over. So each path writes its own slot, and when a path splits, nothing is copied: both
//! parts find what they have in common through a table of slots.

#![allow(
    clippy::indexing_slicing,
    reason = "paths are below `size`, for which new() makes room, and slots are former paths"
)]

use std::ops::Range;

use zeroize::Zeroizing;

use super::llr;

/// Ratios that are worked on together where subtrees are short.
pub(super) const BLOCK: usize = 64;

/// Ratios and decided bits of the subtrees of one size, a slot for each path.
pub(super) struct Level {
    /// Leaves of a subtree.
    pub(super) len: usize,
    pub(super) ratios: Zeroizing<Vec<f32>>,
    /// In which slot each path finds its ratios.
    pub(super) ratios_at: Zeroizing<Vec<u8>>,
    /// The words of the first and the second child of the subtree above.
    words: [Zeroizing<Vec<u64>>; 2],
    /// In which slot each path finds the first child's word. The second's is always its own.
    pub(super) first_at: Zeroizing<Vec<u8>>,
}

/// Which child of its parent a subtree is.
#[derive(Clone, Copy)]
pub(super) enum Child {
    First,
    Second,
}

impl Level {
    /// For subtrees of `len` leaves: slots for ratios, and paths.
    pub(super) fn new(len: usize, slots: usize, size: usize) -> Self {
        let words = || Zeroizing::new(vec![0; len.div_ceil(64) * size]);
        Level {
            len,
            ratios: Zeroizing::new(vec![0.0; len * slots]),
            ratios_at: Zeroizing::new(vec![0; size]),
            words: [words(), words()],
            first_at: Zeroizing::new(vec![0; size]),
        }
    }

    /// The ratios of a path.
    pub(super) fn ratios(&self, path: usize) -> &[f32] {
        let slot = usize::from(self.ratios_at[path]);
        &self.ratios[slot * self.len..][..self.len]
    }

    /// Makes a path's ratios from both halves of those above: f for the first child, and once its
    /// word is known, g for the second.
    pub(super) fn make(&mut self, path: usize, a: &[f32], b: &[f32], child: Child) {
        self.ratios_at[path] = slot(path);
        let known = self.place(self.first_at[path].into());
        let to = &mut self.ratios[path * self.len..][..self.len];
        match child {
            Child::First => llr::f(a, b, to),
            Child::Second => llr::g(a, b, &self.words[0][known], to),
        }
    }

    /// The first child's ratios of all paths, a block at a time, so that short ones fill vectors.
    pub(super) fn make_short(&mut self, above: &Level, paths: usize, room: &mut [f32]) {
        let (a, b) = room.split_at_mut(BLOCK);
        let each = BLOCK / self.len;
        for begin in (0..paths).step_by(each) {
            let end = paths.min(begin + each);
            for (path, at) in (begin..end).zip((0..).step_by(self.len)) {
                let (one, other) = above.ratios(path).split_at(self.len);
                a[at..][..self.len].copy_from_slice(one);
                b[at..][..self.len].copy_from_slice(other);
            }
            llr::f(a, b, &mut self.ratios[begin * self.len..end * self.len]);
        }
        for (path, at) in self.ratios_at.iter_mut().take(paths).enumerate() {
            *at = slot(path);
        }
    }

    fn place(&self, slot: usize) -> Range<usize> {
        let len = self.len.div_ceil(64);
        slot * len..(slot + 1) * len
    }

    /// The first child's word of a path.
    pub(super) fn first(&self, path: usize) -> &[u64] {
        &self.words[0][self.place(self.first_at[path].into())]
    }

    /// The second child's word of a path.
    pub(super) fn second(&self, path: usize) -> &[u64] {
        &self.words[1][self.place(path)]
    }

    /// Where a path writes a new word.
    pub(super) fn new_word(&mut self, child: Child, path: usize) -> &mut [u64] {
        let place = self.place(path);
        match child {
            Child::First => {
                self.first_at[path] = slot(path);
                &mut self.words[0][place]
            }
            Child::Second => &mut self.words[1][place],
        }
    }
}

/// The slot that a path writes.
pub(super) fn slot(path: usize) -> u8 {
    u8::try_from(path).unwrap_or(u8::MAX)
}
