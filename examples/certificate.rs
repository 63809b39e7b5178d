//! Figures of the fuzzy extractor: `cargo run --release --example certificate -- WHAT ...`
//!
//! table                                           the source of src/fuzzy/polar/table.rs
//! bounds                                          every family and K, 5 to 30 % noise
//! count FAMILY K RATE TRIALS EFFORT [matched]     failures, counted
//! rare FAMILY K PATHS FIRST LAST RUNGS POPULATION STEPS RUNS SEED [DEEPER]
//!                                                 failure rates of the list decoder, by splitting
//! entropy                                         loss and least K for biased cells

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "figures are what the program is for; it stops at bad arguments"
)]

use std::env;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use devkey::fuzzy::certify::{self, splitting};
use devkey::fuzzy::polar::{Effort, Family};

const SECRETS: [&[usize]; 4] = [
    &[384, 448, 512],
    &[384, 448, 512, 640],
    &[512, 640, 768, 832, 896],
    &[640, 768, 896],
];

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["table"] => print!("{}", certify::table()),
        ["bounds"] => bounds(),
        ["entropy"] => entropy(),
        ["count", rest @ ..] => count(rest),
        ["rare", rest @ ..] => rare(rest),
        _ => panic!("table, bounds, entropy, count or rare; see the source"),
    }
}

fn family(bytes: &str) -> Family {
    let all = Family::ALL.into_iter();
    let mut found = all.filter(|family| family.len_bits() / 8 == bytes.parse::<usize>().unwrap());
    found.next().expect("256, 512, 1024 or 2048 bytes")
}

fn bounds() {
    let rates = [0.05, 0.10, 0.15, 0.18, 0.20, 0.22, 0.25, 0.28, 0.30];
    for (family, secrets) in Family::ALL.into_iter().zip(SECRETS) {
        for &k in secrets {
            let bounds =
                rates.map(|rate| format!("{:.1e}", certify::bound(family, k, rate).unwrap()));
            println!(
                "| dk-{}, {k} | {} |",
                family.len_bits() / 8,
                bounds.join(" | ")
            );
        }
    }
}

fn entropy() {
    let biases = [0.50, 0.51, 0.52, 0.55, 0.58, 0.60, 0.62, 0.65, 0.70];
    for (family, secrets) in Family::ALL.into_iter().zip(SECRETS) {
        let most = secrets[secrets.len() - 1];
        let cells = biases.map(|bias| {
            let account = certify::residual(family, most, bias);
            let k = secrets.iter().find(|&&k| k >= account.least_k());
            let k = k.map_or("refused".to_owned(), usize::to_string);
            format!("{:.0} → {k}", account.loss)
        });
        println!("| dk-{} | {} |", family.len_bits() / 8, cells.join(" | "));
    }
}

fn count(words: &[&str]) {
    let effort = match words[4] {
        "sc" => Effort::Sc,
        "8" => Effort::List8,
        "32" => Effort::List32,
        _ => Effort::List256,
    };
    let plan = certify::Plan {
        family: family(words[0]),
        k: words[1].parse().unwrap(),
        rate: words[2].parse().unwrap(),
        effort,
        matched: words.get(5).is_some(),
        trials: words[3].parse().unwrap(),
        seed: 1,
        threads: None,
    };
    let start = Instant::now();
    let outcome = certify::simulate(&plan).unwrap();
    let bound = certify::bound(plan.family, plan.k, plan.rate).unwrap();
    let mut line = format!(
        "| dk-{} K={} | {} | {} | {bound:.2e}",
        words[0], words[1], words[2], words[3]
    );
    for (_, failures) in &outcome.failures {
        let (low, high) = certify::interval(*failures, outcome.trials);
        line += &format!(" | {failures} ({low:.2e} to {high:.2e})");
    }
    println!(
        "{line} | {:.0?}{} |",
        start.elapsed(),
        if plan.matched { " matched" } else { "" }
    );
}

fn rare(words: &[&str]) {
    let number = |at: usize| words[at].parse::<f64>().unwrap();
    let (first, last, rungs) = (number(3), number(4), number(5) as usize);
    let step = (first - last) / (rungs as f64 - 1.0);
    let plan = splitting::Plan {
        family: family(words[0]),
        k: number(1) as usize,
        paths: number(2) as usize,
        deeper: words.get(10).map(|paths| paths.parse().unwrap()),
        rungs: (0..rungs).map(|rung| first - step * rung as f64).collect(),
        population: number(6) as usize,
        steps: number(7) as usize,
        seed: 0,
    };
    println!("{plan:?}");
    let (total, seed) = (number(8) as u64, number(9) as u64);
    let runs = Mutex::new(Vec::new());
    let next = Mutex::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = {
                        let mut next = next.lock().unwrap();
                        *next += 1;
                        *next
                    };
                    if at > total {
                        return;
                    }
                    let plan = splitting::Plan {
                        seed: seed + at,
                        ..plan.clone()
                    };
                    let run = splitting::run(&plan, &mut |rung| {
                        println!("{at} {:.2e} {rung:.3?}", rung.failure)
                    })
                    .unwrap();
                    let mut runs = runs.lock().unwrap();
                    runs.push(run);
                    report(&plan, &runs);
                }
            });
        }
    });
}

fn report(plan: &splitting::Plan, runs: &[Vec<splitting::Rung>]) {
    println!("after {} runs", runs.len());
    let deeper = runs.iter().filter_map(|run| run.last());
    let both = deeper.filter_map(|rung| Some(rung.failure * rung.deeper?));
    let both: Vec<f64> = both.collect();
    if let Some((mean, low, high)) = splitting::mean(&both) {
        println!("both decoders: {mean:.2e} ({low:.2e} to {high:.2e})");
    }
    for (at, rate) in plan.rungs.iter().enumerate() {
        let Some((mean, low, high)) = splitting::combine(runs, at) else {
            continue;
        };
        let bound = certify::bound(plan.family, plan.k, *rate).unwrap();
        println!("| {rate:.4} | {mean:.2e} | {low:.2e} to {high:.2e} | {bound:.2e} |");
    }
}
