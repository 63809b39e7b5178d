//! `devkey puf certify`: how seldom a PUF's key is not found again, and what is secret of it.

mod rare;

use devkey::fuzzy::Profile;
use devkey::fuzzy::certify::{self, Plan};
use devkey::fuzzy::polar::{Decoder, Effort, Family};
use devkey::{Error, Result as LibraryResult};
use serde::Serialize;

use crate::failure::Result;
use crate::output::{self, Answer, Outcome};

/// Compute how reliable the codes are
///
/// `bound` is proved, `count` is measured, `rare` is an estimate with an interval, `entropy` says
/// what is left of a biased chip. None of them asks a device.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Bound the failures of successive cancellation, by density evolution
    ///
    /// An upper bound, with nothing sampled and nothing extrapolated, for cells that flip each by
    /// itself. Lists of paths, which are tried where it fails, come on top.
    #[command(after_help = "Examples:
  devkey puf certify bound
  devkey puf certify bound --profile dk-1024 --k 512 --noise 25
--json: an array of {profile, k, noise, bound}.
Next: `devkey puf certify count --help`.")]
    Bound {
        #[command(flatten)]
        of: Codes,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Count the failures of the decoders
    #[command(after_help = "Example:
  devkey puf certify count --profile dk-512 --k 384 --noise 25 --trials 500000 --lists 8
--json: an array of {profile, k, noise, trials, decoder, failures, low, high}.
Next: `devkey puf certify rare --help`.")]
    Count {
        #[command(flatten)]
        of: Codes,
        /// How many readings are tried
        #[arg(long, default_value_t = 10_000)]
        trials: u64,
        /// Longest list that is tried: 1, 8, 32 or 256 paths
        #[arg(long, default_value = "32", value_parser = effort)]
        lists: Effort,
        /// Tell the decoders the noise, as they are not told in earnest
        #[arg(long)]
        matched: bool,
        /// Same seed, same result
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Estimate failures that are too rare to be counted, by splitting
    #[command(after_help = "Example:
  devkey puf certify rare --profile dk-512 --k 384 --paths 32 --noise 30,29,28,27,26,25
--json: an array of {profile, k, noise, paths, runs, failures, low, high}.
Next: `devkey puf certify entropy`.")]
    Rare {
        #[command(flatten)]
        of: Codes,
        /// Paths of the list decoder; 1 is successive cancellation
        #[arg(long, default_value_t = 32)]
        paths: usize,
        /// Paths of a second decoder, tried at the last noise where the first fails
        #[arg(long)]
        then: Option<usize>,
        /// Independent runs, three or more
        #[arg(long, default_value_t = 5)]
        runs: u64,
        /// States in each run
        #[arg(long, default_value_t = 300)]
        population: usize,
        /// Steps of each state at each rung
        #[arg(long, default_value_t = 20)]
        steps: usize,
        /// Seed of the first run; the others count on from it
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// What stays secret of chips with a bias
    #[command(after_help = "Example:
  devkey puf certify entropy
--json: an array of {profile, k, ones, loss, secret, enough}.
Next: `devkey puf probe --help`.")]
    Entropy {
        /// Only this profile
        #[arg(long, value_parser = Profile::from_name)]
        profile: Option<Profile>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which codes, at which noise.
#[derive(Debug, clap::Args)]
pub(crate) struct Codes {
    /// Only this profile
    #[arg(long, value_parser = Profile::from_name)]
    profile: Option<Profile>,
    /// Only this number of secret bits [default: the profile's least]
    #[arg(long, conflicts_with = "all")]
    k: Option<usize>,
    /// Every number of secret bits that the profile offers
    #[arg(long)]
    all: bool,
    /// Cells that flip, in percent
    #[arg(long, value_delimiter = ',', default_values_t = [5.0, 10.0, 15.0, 18.0, 20.0, 22.0, 25.0, 28.0, 30.0])]
    noise: Vec<f64>,
}

impl Codes {
    /// Each code with its profile.
    fn all(&self) -> Vec<(Profile, usize)> {
        let wanted = |profile: &Profile| self.profile.is_none_or(|only| only == *profile);
        let profiles = Profile::ALL.into_iter().filter(wanted);
        let each = |profile: Profile| {
            let (least, most) = profile.k_limits();
            let (from, to) = match (self.k, self.all) {
                (Some(k), _) => (k, k),
                (None, true) => (least, most),
                (None, false) => (least, least),
            };
            (from..=to).step_by(64).map(move |k| (profile, k))
        };
        profiles.flat_map(each).collect()
    }
}

#[derive(Serialize)]
struct Bound {
    profile: &'static str,
    k: usize,
    noise: f64,
    bound: f64,
}

#[derive(Serialize)]
struct Count {
    profile: &'static str,
    k: usize,
    noise: f64,
    trials: u64,
    decoder: String,
    failures: u64,
    low: f64,
    high: f64,
}

#[derive(Serialize)]
struct Entropy {
    profile: &'static str,
    k: usize,
    ones: f64,
    loss: f64,
    secret: f64,
    enough: bool,
}

fn effort(paths: &str) -> LibraryResult<Effort> {
    match paths {
        "1" => Ok(Effort::Sc),
        "8" => Ok(Effort::List8),
        "32" => Ok(Effort::List32),
        "256" => Ok(Effort::List256),
        _ => Err(Error::input("1, 8, 32 or 256 is wanted")),
    }
}

pub(crate) fn run(command: &Command) -> Outcome {
    match command {
        Command::Bound { of, json } => bounds(of, *json),
        Command::Count { of, json, .. } => counts(of, command, *json),
        Command::Rare { of, json, .. } => rare::run(of, command, *json),
        Command::Entropy { profile, json } => entropy(*profile, *json),
    }
}

fn bounds(of: &Codes, json: bool) -> Outcome {
    let mut rows = Vec::new();
    for (profile, k) in of.all() {
        for noise in &of.noise {
            rows.push(Bound {
                profile: profile.name(),
                k,
                noise: *noise,
                bound: certify::bound(profile.family(), k, noise / 100.0)?,
            });
        }
    }
    let line = |row: &Bound| {
        [
            row.profile.to_owned(),
            row.k.to_string(),
            format!("{} %", row.noise),
            format!("{:.1e}", row.bound),
        ]
    };
    let header = ["PROFILE", "K", "NOISE", "FAILURES AT MOST"];
    shown(&rows, json, header, line)
}

fn counts(of: &Codes, command: &Command, json: bool) -> Outcome {
    let mut rows = Vec::new();
    for (profile, k) in of.all() {
        for noise in &of.noise {
            rows.extend(count(profile, k, *noise, command)?);
        }
    }
    let line = |row: &Count| {
        [
            row.profile.to_owned(),
            row.k.to_string(),
            format!("{} %", row.noise),
            row.decoder.clone(),
            format!("{} of {}", row.failures, row.trials),
            format!("{:.1e} to {:.1e}", row.low, row.high),
        ]
    };
    let header = [
        "PROFILE",
        "K",
        "NOISE",
        "DECODER",
        "FAILURES",
        "95 % INTERVAL",
    ];
    shown(&rows, json, header, line)
}

/// Rows as JSON or as a table.
fn shown<T: Serialize, const N: usize>(
    rows: &[T],
    json: bool,
    header: [&str; N],
    line: impl Fn(&T) -> [String; N],
) -> Outcome {
    if json {
        return Answer::json(&rows);
    }
    let lines: Vec<_> = rows.iter().map(line).collect();
    Ok(Answer::text(output::table(header, &lines)))
}

/// A row for each decoder.
fn count(profile: Profile, k: usize, noise: f64, command: &Command) -> Result<Vec<Count>> {
    let Command::Count {
        trials,
        lists,
        matched,
        seed,
        ..
    } = command
    else {
        return Ok(Vec::new());
    };
    let outcome = certify::simulate(&Plan {
        family: profile.family(),
        k,
        rate: noise / 100.0,
        effort: *lists,
        matched: *matched,
        trials: *trials,
        seed: *seed,
        threads: None,
    })?;
    let row = |(decoder, failures): &(Decoder, u64)| {
        let (low, high) = certify::interval(*failures, *trials);
        Count {
            profile: profile.name(),
            k,
            noise,
            trials: *trials,
            decoder: named(*decoder),
            failures: *failures,
            low,
            high,
        }
    };
    Ok(outcome.failures.iter().map(row).collect())
}

/// What a decoder is called in tables.
pub(super) fn named(decoder: Decoder) -> String {
    match decoder {
        Decoder::Sc => "SC".to_owned(),
        Decoder::List(paths) => format!("list of {paths}"),
    }
}

fn entropy(only: Option<Profile>, json: bool) -> Outcome {
    let mut rows = Vec::new();
    let wanted = |profile: &Profile| only.is_none_or(|only| only == *profile);
    for profile in Profile::ALL.into_iter().filter(wanted) {
        let (least, most) = profile.k_limits();
        for ones in [0.50, 0.51, 0.52, 0.55, 0.60, 0.65, 0.70] {
            let family: Family = profile.family();
            let k = certify::residual(family, most, ones)
                .least_k()
                .clamp(least, most);
            let account = certify::residual(family, k, ones);
            rows.push(Entropy {
                profile: profile.name(),
                k,
                ones,
                loss: account.loss,
                secret: account.secret,
                enough: account.enough,
            });
        }
    }
    let line = |row: &Entropy| {
        [
            row.profile.to_owned(),
            format!("{:.0} %", row.ones * 100.0),
            row.k.to_string(),
            format!("{:.0}", row.loss),
            format!("{:.0}", row.secret),
            if row.enough { "yes" } else { "refused" }.to_owned(),
        ]
    };
    let header = ["PROFILE", "ONES", "K", "BITS LOST", "BITS LEFT", "ENROLLED"];
    shown(&rows, json, header, line)
}
