//! Successive cancellation with the exact f.
//!
//! Three kinds of subtrees are decided at once, with the very bits that the full recursion finds:
//! all frozen (zeros), one last information bit (the sign of the sum), no frozen bit (the sign of
//! each ratio, since f keeps the product of the signs).

use zeroize::Zeroizing;

use super::super::bits::Bits;
use super::llr;
use super::{Code, Node};

/// The word of the code that successive cancellation finds for these ratios, all frozen bits zero.
pub(super) fn decode(code: &Code, ratios: &[f32]) -> Bits {
    let mut word = Bits::zeros(code.len());
    // A level needs half of what the level above needs.
    let mut room = Zeroizing::new(vec![0.0; code.len()]);
    node(code, 0, ratios, &mut room, word.words_mut());
    word
}

/// Decodes the subtree that begins at leaf `at` and has a leaf for each ratio.
fn node(code: &Code, at: usize, ratios: &[f32], room: &mut [f32], word: &mut [u64]) {
    match code.node(at, ratios.len()) {
        Node::Frozen => word.fill(0),
        Node::Last => {
            let bits = u64::from(llr::total(ratios) < 0.0).wrapping_neg();
            word.fill(bits & low(ratios.len()));
        }
        Node::Free => llr::decide(ratios, word),
        Node::Mixed => split(code, at, ratios, room, word),
    }
}

fn split(code: &Code, at: usize, ratios: &[f32], room: &mut [f32], word: &mut [u64]) {
    let half = ratios.len() / 2;
    let (a, b) = ratios.split_at(half);
    let (below, room) = room.split_at_mut(half);
    if half >= 64 {
        let (first, second) = word.split_at_mut(half / 64);
        if code.node(at, half) == Node::Frozen {
            first.fill(0);
        } else {
            llr::f(a, b, below);
            node(code, at, below, room, first);
        }
        llr::g(a, b, first, below);
        node(code, at + half, below, room, second);
        let pairs = first.iter_mut().zip(second);
        return pairs.for_each(|(first, second)| *first ^= *second);
    }
    let (mut first, mut second) = ([0], [0]);
    if code.node(at, half) != Node::Frozen {
        llr::f(a, b, below);
        node(code, at, below, room, &mut first);
    }
    llr::g(a, b, &first, below);
    node(code, at + half, below, room, &mut second);
    let ([first], [second]) = (first, second);
    word.fill(first ^ second | second << half);
}

/// The lowest `count` bits of a word, at least one.
pub(super) fn low(count: usize) -> u64 {
    u64::MAX >> 64usize.saturating_sub(count)
}
