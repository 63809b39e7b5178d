//! The decoders of the fuzzy extractor: time and memory. Part of `make bench`.
//!
//! Times are medians over readings at the family's design noise, of the decoder named alone: with a list,
//! every candidate but its own last is refused. Nothing here passes or fails: a figure
//! worse than its goal is marked.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "what cannot go on has failed; a table is what it is for"
)]

use std::time::Instant;

use devkey::fuzzy::bits::Bits;
use devkey::fuzzy::certify::Random;
use devkey::fuzzy::polar::{Code, Effort, Family};

const ROUNDS: usize = 41;

/// Milliseconds, and bytes for 1 KiB of response.
const GOALS: [(Effort, &str, f64); 3] = [
    (Effort::Sc, "successive cancellation", 1.0),
    (Effort::List8, "then a list of 8", 10.0),
    (Effort::List32, "then a list of 32", 10.0),
];
const MEMORY: usize = 1 << 20;

fn main() {
    println!("| response, K | decoder | time | goal | memory |");
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
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| once(&code, &mut random, effort))
        .collect();
    times.sort_by(f64::total_cmp);
    let (time, memory) = (times[ROUNDS / 2], code.memory(effort));
    let slow = if time > goal { " **missed**" } else { "" };
    let large = if memory > MEMORY {
        " **more than 1 MiB**"
    } else {
        ""
    };
    let bytes = family.len_bits() / 8;
    println!("| {bytes} B, {k} | {name} | {time:.2} ms | {goal} ms{slow} | {memory} B{large} |");
}

/// Milliseconds until this effort is through, nothing being accepted before.
fn once(code: &Code, random: &mut Random, effort: Effort) -> f64 {
    let response = random.bits(code.len(), 0.5);
    let mut reading = random.bits(code.len(), code.family().design_rate());
    reading.add(&response);
    let start = Instant::now();
    let syndrome = code.syndrome(&response);
    let refuse = &mut |_: &Bits| false;
    assert!(code.decode(&reading, &syndrome, effort, refuse).is_none());
    start.elapsed().as_secs_f64() * 1e3
}
