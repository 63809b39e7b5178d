//! `devkey puf verify`: whether a token's device still gives its key back.

use devkey::backends::puf::{self, Verification};
use devkey::provider::Place;
use devkey::{Error, Result as LibraryResult};
use serde::Serialize;

use super::certify::named;
use crate::failure::{Failure, Result};
use crate::init::PUF;
use crate::output::{self, Answer, Outcome, Progress};
use crate::tokens::{Tokens, parse_name};

/// Try whether a token's device gives its key back, many times
///
/// Each reading is tried alone, without the second chances that a signature has.
///
/// Exit code 1 where a reading failed or the noise is above the limit, for monitoring.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  devkey puf verify
  devkey puf verify --token board --times 1000 --json
--json: an object of {device_readings, failures, unread, noise, worst_noise, decoders [{decoder,
times}], latched, slowest_reading_ms, slowest_reconstruction_ms}.
Next: `devkey puf probe`, where it fails.")]
pub(crate) struct Args {
    /// The token's name [default: the only one, or "default"]
    #[arg(long, value_parser = parse_name)]
    token: Option<String>,
    /// How many readings to take
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// Noise above which it counts as failed, in percent
    #[arg(long, default_value = "18", value_parser = limit)]
    max_noise: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Verified {
    device_readings: usize,
    failures: usize,
    unread: usize,
    noise: f64,
    worst_noise: f64,
    decoders: Vec<Used>,
    latched: bool,
    slowest_reading_ms: f64,
    slowest_reconstruction_ms: f64,
}

#[derive(Debug, Serialize)]
struct Used {
    decoder: String,
    times: usize,
}

fn limit(text: &str) -> LibraryResult<f64> {
    match text.trim_end_matches('%').trim().parse() {
        Ok(percent @ 0.0..=50.0) => Ok(percent / 100.0),
        _ => Err(Error::input("a number from 0 to 50 is wanted")),
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let (found, sum) = verify(args)?;
    let verified = Verified::new(&sum);
    let answer = match args.json {
        true => Answer::json(&verified)?,
        false => Answer::text(describe(&sum)),
    };
    Ok(answer.problems(verdict(&found, &sum, args.max_noise).err()))
}

fn verify(args: &Args) -> Result<(String, Verification)> {
    let tokens = Tokens::load()?;
    let (found, token) = tokens.find_open(args.token.as_deref())?;
    let record = token.store().token();
    if record.back_end != PUF {
        let error = Error::input(format!("token {} is no PUF token", found.name));
        return Err(Failure::new(error, "`devkey token list` says which are"));
    }
    let settings = found.place(record.settings.clone()).settings;
    let place = Place {
        dir: &found.dir,
        settings: &settings,
        binding: record.binding.as_deref(),
    };
    let times = args.times as usize;
    let progress = Progress::new("readings", times);
    let sum = puf::verify(&place, times, &mut |sum| progress.at(sum.times))?;
    Ok((found.name, sum))
}

impl Verified {
    fn new(sum: &Verification) -> Self {
        let used = sum.decoders.iter().map(|(decoder, times)| Used {
            decoder: named(*decoder),
            times: *times,
        });
        Verified {
            device_readings: sum.times,
            failures: sum.failures,
            unread: sum.unread.as_ref().map_or(0, |(times, _)| *times),
            noise: sum.noise.0,
            worst_noise: sum.noise.1,
            decoders: used.collect(),
            latched: sum.latched,
            slowest_reading_ms: sum.slowest.0.as_secs_f64() * 1e3,
            slowest_reconstruction_ms: sum.slowest.1.as_secs_f64() * 1e3,
        }
    }
}

fn describe(sum: &Verification) -> String {
    let noise = match (sum.decoders.is_empty(), sum.noise) {
        (true, _) => "-".to_owned(),
        (false, (mean, worst)) => {
            format!("{:.1} %, at worst {:.1} %", mean * 100.0, worst * 100.0)
        }
    };
    let used = sum.decoders.iter();
    let used: Vec<_> = used
        .map(|(decoder, times)| format!("{} {times} times", named(*decoder)))
        .collect();
    let mut fields = vec![
        ("readings", sum.times.to_string()),
        ("failed", sum.failures.to_string()),
        ("noise", noise),
        ("decoder", used.join(", ")),
    ];
    if let Some((times, reason)) = &sum.unread {
        fields.push((
            "not read",
            format!("{times} times; the last time: {reason}"),
        ));
    }
    if sum.latched {
        let what = "every reading was the same; restart the machine to try another";
        fields.push(("latched", what.to_owned()));
    }
    output::fields(&fields)
}

fn verdict(token: &str, sum: &Verification, max_noise: f64) -> Result<()> {
    let bad = sum.failures + sum.unread.as_ref().map_or(0, |(times, _)| *times);
    if bad > 0 {
        let error = format!(
            "token {token}: {bad} of {} readings did not give the key back",
            sum.times
        );
        let remedy = "look at the device with `devkey puf probe`; signatures try a live device again, so \
                      the token may still work";
        return Err(Failure::new(error, remedy));
    }
    if sum.noise.1 > max_noise {
        let (worst, most) = (sum.noise.1 * 100.0, max_noise * 100.0);
        let error = format!("token {token}: the noise reaches {worst:.1} %, more than {most} %");
        return Err(Failure::new(
            error,
            "plan for a new token while this one works",
        ));
    }
    Ok(())
}
