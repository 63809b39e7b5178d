//! The decoders of the fuzzy extractor: time and memory. Part of `make bench`.
//!
//! Each line is for readings at the family's design noise and for all decoders up to the one named:
//! every candidate is refused, so that none is spared. Times are the median and the least of the
//! rounds; memory is the peak on the heap. Nothing here passes or fails: a figure worse than its goal
//! is marked.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "what cannot go on has failed; a table is what it is for"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use devkey::fuzzy::bits::Bits;
use devkey::fuzzy::certify::Random;
use devkey::fuzzy::polar::{Code, Effort, Family};

const ROUNDS: usize = 41;

/// The system's allocator, counting.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: both methods are the system's own, called as they were called.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller keeps the rules of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the memory came from `alloc` above with this layout.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Milliseconds, and bytes for 1 KiB of response.
const GOALS: [(Effort, &str, f64); 3] = [
    (Effort::Sc, "successive cancellation", 1.0),
    (Effort::List8, "then a list of 8", 10.0),
    (Effort::List32, "then a list of 32", 10.0),
];
const MEMORY: usize = 1 << 20;

fn main() {
    println!("| response, K | decoder | time: median, least | goal | memory |");
    println!("|---|---|---|---|---|");
    for (family, k) in Family::ALL.into_iter().zip([384, 384, 512, 640]) {
        for (effort, name, goal) in GOALS {
            row(family, k, effort, name, goal);
        }
    }
    println!("\nGoals are for 1024 bytes; memory within {MEMORY} bytes there.");
}

fn row(family: Family, k: usize, effort: Effort, name: &str, goal: f64) {
    let code = Code::new(family, k).unwrap();
    let mut random = Random::new(1);
    let rounds = (0..ROUNDS).map(|_| once(&code, &mut random, effort));
    let (mut times, memory): (Vec<f64>, Vec<usize>) = rounds.unzip();
    times.sort_by(f64::total_cmp);
    let (time, least) = (times[ROUNDS / 2], times[0]);
    let memory = memory.into_iter().max().unwrap();
    let slow = if least > goal { " **missed**" } else { "" };
    let large = if memory > MEMORY {
        " **more than 1 MiB**"
    } else {
        ""
    };
    let bytes = family.len_bits() / 8;
    println!(
        "| {bytes} B, {k} | {name} | {time:.2} ms, {least:.2} ms | {goal} ms{slow} | {memory} B{large} |"
    );
}

/// Milliseconds until this effort is through, nothing being accepted, and bytes held meanwhile.
fn once(code: &Code, random: &mut Random, effort: Effort) -> (f64, usize) {
    let response = random.bits(code.len(), 0.5);
    let mut reading = random.bits(code.len(), code.family().design_rate());
    reading.add(&response);
    let syndrome = code.syndrome(&response);
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let start = Instant::now();
    let refuse = &mut |_: &Bits| false;
    assert!(code.decode(&reading, &syndrome, effort, refuse).is_none());
    let time = start.elapsed().as_secs_f64() * 1e3;
    (time, PEAK.load(Ordering::Relaxed) - before)
}
