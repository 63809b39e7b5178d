//! What readings say of a device before anything is enrolled.

use super::health;
use super::ledger::Ledger;
use super::{Fit, Noise, Profile, Report};
use crate::secret::Secret;

/// As [`super::measure`].
pub(super) fn measure(readings: &[Secret]) -> Report {
    let len = readings.iter().map(Secret::len).min().unwrap_or(0);
    let cut = windows(readings, len);
    let first = cut.first().map(Secret::expose).unwrap_or_default();
    let noise = noise(&cut);
    Report {
        len,
        readings: readings.len(),
        ones: health::ones(first),
        noise,
        latched: noise.is_some_and(|noise| noise.max == 0.0),
        fits: Profile::ALL
            .into_iter()
            .filter(|profile| profile.response_len() <= len)
            .map(|profile| fit(profile, &windows(readings, profile.response_len())))
            .collect(),
    }
}

/// The first `len` bytes of each reading.
fn windows(readings: &[Secret], len: usize) -> Vec<Secret> {
    let window = |reading: &Secret| reading.expose().get(..len).unwrap_or_default().to_vec();
    readings.iter().map(|r| Secret::new(window(r))).collect()
}

/// How much the other readings differ from the first.
fn noise(readings: &[Secret]) -> Option<Noise> {
    let (first, others) = readings.split_first()?;
    let share = |other: &Secret| {
        f64::from(health::distance(first.expose(), other.expose())) / (first.len() * 8) as f64
    };
    let shares: Vec<f64> = others.iter().map(share).collect();
    (!shares.is_empty() && !first.is_empty()).then(|| Noise {
        mean: shares.iter().sum::<f64>() / shares.len() as f64,
        max: shares.iter().copied().fold(0.0, f64::max),
    })
}

fn fit(profile: Profile, readings: &[Secret]) -> Fit {
    let first = readings.first().map(Secret::expose).unwrap_or_default();
    let ledger = Ledger::of(first, &[]);
    let mut refusals = health::refusals(readings);
    let k = profile.k_for(&ledger);
    refusals.extend(k.as_ref().err().map(ToString::to_string));
    Fit {
        profile,
        loss: ledger.loss(),
        k: k.ok(),
        ledger: ledger.models,
        refusals,
    }
}
