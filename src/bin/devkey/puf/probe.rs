//! `devkey puf probe`: what a device is good for, before anything is made of it.

use std::path::{Path, PathBuf};

use devkey::backends::puf::{self, Probe};
use devkey::fuzzy::{Fit, Noise, Profile, Report, certify};
use devkey::provider::Settings;
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::init::{PUF, back_end, parse_setting};
use crate::output::{self, Answer, Outcome, Progress};

/// A failure rate that is good enough for a device that is to boot unattended for years.
const RARE: f64 = 1e-9;
/// Parts of a channel in the search for the limit: a looser bound, in a tenth of the time.
const COARSE: usize = 40;
/// The noise of a chip at the end of its life, in percent.
const OLD: u32 = 15;

/// Measure a device: noise, bias, entropy, and which profile fits
///
/// Reads it and writes nothing.
///
/// Exit code 1 where no token can be made of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  devkey puf probe
  devkey puf probe /sys/devices/platform/sram/1000.sram --set allow_file=yes
--json: an object of {device, kind, bytes, readings, ones, noise, worst_noise, profile,
fits [{profile, k, loss, failures, failures_at_twice, noise_limit, refusals}]}.
Next: `devkey init --puf DEVICE`.")]
pub(crate) struct Args {
    /// The device's node [default: /dev/puf0]
    device: Option<PathBuf>,
    /// A setting of the PUF back end; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
    /// How many readings to take of a device that gives a fresh one each time
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(2..=1000))]
    readings: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is known of a device, for `--json`. All shares are 0 to 1.
#[derive(Debug, Serialize)]
struct Measured {
    device: String,
    kind: &'static str,
    bytes: usize,
    readings: usize,
    ones: f64,
    noise: Option<f64>,
    worst_noise: Option<f64>,
    profile: Option<&'static str>,
    fits: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    profile: &'static str,
    k: Option<usize>,
    loss: usize,
    failures: Option<f64>,
    failures_at_twice: Option<f64>,
    noise_limit: Option<f64>,
    refusals: Vec<String>,
}

/// The settings of a device on the command line.
pub(crate) fn settings(device: Option<&Path>, set: &[(String, String)]) -> Result<Settings> {
    let mut settings: Settings = set.iter().cloned().collect();
    if let Some(device) = device {
        let path = std::path::absolute(device)
            .map_err(|e| devkey::Error::io(format!("finding {}", device.display()), e))?;
        settings.insert("device".to_owned(), path.display().to_string());
    }
    back_end(PUF)?
        .check_settings(&settings)
        .map_err(devkey::Error::from)?;
    Ok(settings)
}

pub(crate) fn run(args: &Args) -> Outcome {
    let settings = settings(args.device.as_deref(), &args.set)?;
    let progress = Progress::new("readings", usize::from(args.readings));
    let probe = puf::probe(&settings, usize::from(args.readings), &mut |n| {
        progress.at(n)
    })?;
    drop(progress);
    let Some(report) = &probe.report else {
        return Ok(Answer::text(format!(
            "{} says the same each time: nothing can be measured of it\n",
            probe.device
        )));
    };
    let measured = Measured::new(&probe, report);
    let answer = match args.json {
        true => Answer::json(&measured)?,
        false => Answer::text(measured.describe(&probe)),
    };
    Ok(answer
        .problems(measured.verdict(&probe).err())
        .hint(format!("next: devkey init --puf {}", probe.device)))
}

/// Measures a device that a token is to be made of, and says what came out in a sentence.
///
/// # Errors
/// Why none can be made of it.
pub(crate) fn measure(settings: &Settings) -> Result<String> {
    let readings = 5;
    let progress = Progress::new("readings", readings);
    let probe = puf::probe(settings, readings, &mut |n| progress.at(n))?;
    let (Some(report), Some(profile)) = (&probe.report, probe.profile) else {
        return Ok(String::new());
    };
    // The one that counts, and of it what is said: bounds take their time.
    let fits = report.fits.iter().filter(|fit| fit.profile == profile);
    let measured = Measured {
        fits: fits.map(|fit| Row::new(fit, None)).collect(),
        ..Measured::about(&probe, report)
    };
    measured.verdict(&probe)?;
    Ok(measured.sentence(&probe))
}

impl Measured {
    fn new(probe: &Probe, report: &Report) -> Self {
        let fits = report.fits.iter();
        Measured {
            fits: fits.map(|fit| Row::new(fit, report.noise)).collect(),
            ..Measured::about(probe, report)
        }
    }

    /// All but what each profile makes of it, which takes its time.
    fn about(probe: &Probe, report: &Report) -> Self {
        Measured {
            device: probe.device.clone(),
            kind: if probe.latched { "latched" } else { "live" },
            bytes: report.len,
            readings: report.readings,
            ones: report.ones,
            noise: report.noise.map(|Noise { mean, .. }| mean),
            worst_noise: report.noise.map(|Noise { max, .. }| max),
            profile: probe.profile.map(|profile| profile.name()),
            fits: Vec::new(),
        }
    }

    fn describe(&self, probe: &Probe) -> String {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let noise = match (self.noise, self.worst_noise) {
            (Some(mean), Some(worst)) if !probe.latched => {
                format!("{}, at worst {}", percent(mean), percent(worst))
            }
            _ => "unknown: every reading is the same; restart the machine to see another".into(),
        };
        let kind = match probe.latched {
            true => "latched: one measurement until the next start",
            false => "live: a fresh measurement each time",
        };
        let mut text = output::fields(&[
            ("device", self.device.clone()),
            ("kind", kind.to_owned()),
            (
                "read",
                format!("{} times {} bytes", self.readings, self.bytes),
            ),
            ("ones", percent(self.ones)),
            ("noise", noise),
        ]);
        let header = [
            "PROFILE",
            "K",
            "LOSS",
            "FAILURES",
            "AT TWICE THE NOISE",
            "NOISE LIMIT",
            "FIT",
        ];
        let lines: Vec<_> = self.fits.iter().map(Row::line).collect();
        text.push('\n');
        text += &output::table(header, &lines);
        for row in self.fits.iter().filter(|row| !row.refusals.is_empty()) {
            text += &format!("{}: {}\n", row.profile, row.refusals.join("; "));
        }
        text
    }

    fn sentence(&self, probe: &Probe) -> String {
        let noise = match self.noise.filter(|_| !probe.latched) {
            Some(noise) => format!(
                "{:.1} % of its cells differ from reading to reading",
                noise * 100.0
            ),
            None => "it gives one reading until the next start".to_owned(),
        };
        let mut text = format!("measured {}: {noise}\n", self.device);
        if let Some((row, limit)) = self
            .fits
            .first()
            .and_then(|row| Some((row, row.noise_limit?)))
        {
            let limit = limit * 100.0;
            text += &format!(
                "{} gives the key back up to {limit:.0} % at least, but for one time in 10^9\n",
                row.profile
            );
        }
        text
    }

    /// Whether a token can be made, in plain language.
    fn verdict(&self, probe: &Probe) -> Result<()> {
        let row = self
            .fits
            .iter()
            .find(|row| Some(row.profile) == self.profile);
        let reasons = match row {
            Some(row) if row.refusals.is_empty() => return Ok(()),
            Some(row) => row.refusals.join("; "),
            None => format!(
                "{} bytes are less than the smallest profile wants",
                self.bytes
            ),
        };
        let error = devkey::Error::input(format!(
            "{}: no token for this device: {reasons}",
            probe.device
        ));
        let other = self.fits.iter().find(|row| row.refusals.is_empty());
        Err(match other {
            Some(row) => Failure::new(error, format!("--set profile={}", row.profile)),
            None => Failure::new(error, "another window (--set offset=N) or another device"),
        })
    }
}

impl Row {
    fn new(fit: &Fit, noise: Option<Noise>) -> Self {
        let bound = |times: f64| {
            let rate = times * noise?.mean;
            certify::bound(fit.profile.family(), fit.k?, rate).ok()
        };
        Row {
            profile: fit.profile.name(),
            k: fit.k,
            loss: fit.loss,
            failures: bound(1.0),
            failures_at_twice: bound(2.0),
            noise_limit: fit.k.and_then(|k| limit(fit.profile, k)),
            refusals: fit.refusals.clone(),
        }
    }

    fn line(&self) -> [String; 7] {
        let bound = |bound: Option<f64>| bound.map_or("-".to_owned(), |b| format!("< {b:.0e}"));
        let limit = |limit: f64| format!("{:.0} %", limit * 100.0);
        [
            self.profile.to_owned(),
            self.k.map_or("-".to_owned(), |k| k.to_string()),
            self.loss.to_string(),
            bound(self.failures),
            bound(self.failures_at_twice),
            self.noise_limit.map_or("-".to_owned(), limit),
            self.fit().to_owned(),
        ]
    }

    /// The limit is before list decoding, which adds some percent of noise.
    fn fit(&self) -> &'static str {
        let old = f64::from(OLD) / 100.0;
        match self.noise_limit {
            _ if !self.refusals.is_empty() => "no",
            Some(limit) if limit >= old => "good",
            _ => "for low noise only",
        }
    }
}

/// The most noise, in whole percent, at which failures are bound to be rare.
pub(crate) fn limit(profile: Profile, k: usize) -> Option<f64> {
    let rare = |percent: u32| {
        let family = profile.family();
        let bound = certify::bound_with(family, k, f64::from(percent) / 100.0, COARSE);
        bound.is_ok_and(|bound| bound <= RARE)
    };
    let (mut good, mut bad) = (0, 40);
    while bad - good > 1 {
        let middle = u32::midpoint(good, bad);
        match rare(middle) {
            true => good = middle,
            false => bad = middle,
        }
    }
    (good > 0).then(|| f64::from(good) / 100.0)
}
