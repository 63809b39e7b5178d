//! `devkey puf certify rare`: failures that are too seldom to be counted.

use devkey::fuzzy::Profile;
use devkey::fuzzy::certify::splitting;
use serde::Serialize;

use super::{Codes, Command, shown};
use crate::failure::Result;
use crate::output::Outcome;

#[derive(Serialize)]
struct Rare {
    profile: &'static str,
    k: usize,
    noise: f64,
    paths: String,
    runs: usize,
    failures: f64,
    low: f64,
    high: f64,
}

/// The estimates of a ladder of noise, for each code.
pub(super) fn run(of: &Codes, command: &Command, json: bool) -> Outcome {
    let mut rows = Vec::new();
    for (profile, k) in of.all() {
        rows.extend(ladder(profile, k, &of.noise, command)?);
    }
    let line = |row: &Rare| {
        [
            row.profile.to_owned(),
            row.k.to_string(),
            format!("{} %", row.noise),
            row.paths.clone(),
            format!("{:.1e}", row.failures),
            format!("{:.1e} to {:.1e}", row.low, row.high),
        ]
    };
    let header = [
        "PROFILE",
        "K",
        "NOISE",
        "PATHS",
        "FAILURES",
        "95 % INTERVAL",
    ];
    shown(&rows, json, header, line)
}

/// The rungs of one code that three runs or more have reached.
fn ladder(profile: Profile, k: usize, noise: &[f64], command: &Command) -> Result<Vec<Rare>> {
    let Command::Rare {
        paths,
        then,
        runs,
        population,
        steps,
        seed,
        ..
    } = command
    else {
        return Ok(Vec::new());
    };
    let mut falling = noise.to_vec();
    falling.sort_by(|a, b| b.total_cmp(a));
    let mut done = Vec::new();
    for run in 0..*runs {
        let plan = splitting::Plan {
            family: profile.family(),
            k,
            paths: *paths,
            deeper: *then,
            rungs: falling.iter().map(|noise| noise / 100.0).collect(),
            population: *population,
            steps: *steps,
            seed: seed.wrapping_add(run),
        };
        done.push(splitting::run(&plan, &mut |rung| log::info!("{rung:?}"))?);
    }
    let row = |noise: f64, paths: String, runs: usize, (failures, low, high)| Rare {
        profile: profile.name(),
        k,
        noise,
        paths,
        runs,
        failures,
        low,
        high,
    };
    let mut rows = Vec::new();
    for (at, noise) in falling.iter().enumerate() {
        if let Some(estimate) = splitting::combine(&done, at) {
            let runs = done.iter().filter(|run| run.len() > at).count();
            rows.push(row(*noise, paths.to_string(), runs, estimate));
        }
    }
    let last = done.iter().filter_map(|run| run.last());
    let both: Vec<f64> = last
        .filter_map(|rung| Some(rung.failure * rung.deeper?))
        .collect();
    if let (Some(noise), Some(then), Some(estimate)) =
        (falling.last(), then, splitting::mean(&both))
    {
        let paths = format!("{paths}, then {then}");
        rows.push(row(*noise, paths, both.len(), estimate));
    }
    Ok(rows)
}
