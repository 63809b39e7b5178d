//! `devkey doctor`: what works, what does not, and what to type about it.
//!
//! One file for each area. They run side by side, each within the same time, so that one device that
//! hangs hides nothing of the others. Nothing here asks for a PIN, spends a try of one, or writes.

mod accounts;
mod certificates;
mod config;
mod finding;
mod module;
mod openssl;
mod program;
mod puf;
mod report;
mod scope;
mod service;
mod ssh;
mod store;
mod tokens;
#[cfg(feature = "tpm")]
mod tpm;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use devkey::config::parse_span;

use crate::failure::Result;
use crate::output::Outcome;
use crate::tokens::parse_name;

use finding::{Area, Finding};
use report::Report;
use scope::{PATIENCE, Scope};

/// How long all of it may take. A device is given up sooner: [`PATIENCE`].
const DEADLINE: Duration = Duration::from_secs(40);

/// Say what works and what does not, and how to mend it
///
/// Looks at the configuration, the tokens, the TPM, PUFs, the PKCS#11 module, OpenSSL, certificates and the
/// key service. Changes nothing, asks for no PIN and spends no try of one, and ends within a minute even
/// where a device hangs. What it may not look at it names: run it as root too.
///
/// Exit code 1 where a check failed, which is among what is printed, else 0; with --strict 1 for a warning too.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  devkey doctor
  devkey doctor tpm module
  devkey doctor --token web --expires-within 14d --json
--json: an object of {version, state, ok, warnings, failed, not_applicable, checks [{id, area,
subject, state, found, fix}]}. A state is ok, warning, failed or not-applicable; subject and fix may
be null. The ids are those of docs/doctor.md and stay.
Next: what stands after \"try:\", then `devkey doctor` again.")]
pub(crate) struct Args {
    /// Look at these alone [default: all]
    #[arg(value_enum, value_name = "AREA")]
    areas: Vec<Area>,
    /// Of the tokens, look at this one alone
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    token: Option<String>,
    /// The PKCS#11 module [default: the installed one]
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// Warn of certificates that end within that time: 30d, 12h, 45m, 90s
    #[arg(long, value_name = "SPAN", default_value = "30d", value_parser = parse_span)]
    expires_within: Duration,
    /// Exit code 1 for warnings too
    #[arg(long)]
    strict: bool,
    /// Show what does not apply here too
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let areas = match args.areas.is_empty() {
        true => Area::ALL.to_vec(),
        false => args.areas.clone(),
    };
    let report = Report::new(match scope(args)? {
        Some(scope) => examine(&scope, &areas),
        None => vec![Finding::late(Area::Config, PATIENCE)],
    });
    match args.json {
        true => report.json(args.strict),
        false => Ok(report.text(args.all, args.strict)),
    }
}

/// What is to be looked at; `None` where a file system hangs before that is known.
fn scope(args: &Args) -> Result<Option<Arc<Scope>>> {
    let (send, receive) = channel();
    let (token, module, within) = (args.token.clone(), args.module.clone(), args.expires_within);
    thread::spawn(move || send.send(Scope::new(token, module, within).map(Arc::new)));
    receive.recv_timeout(PATIENCE).ok().transpose()
}

/// What each area has to say, in their order. An area that is not done in time has said less.
fn examine(scope: &Arc<Scope>, areas: &[Area]) -> Vec<Finding> {
    let end = Instant::now() + DEADLINE;
    let started = areas.iter().map(|area| {
        let (send, receive) = channel();
        let (scope, area) = (scope.clone(), *area);
        // Who hangs is left to himself, and ends with the process.
        let thread = thread::spawn(move || {
            look(area, &scope, &mut |finding| {
                let _ = send.send(finding);
            });
        });
        (area, thread, receive)
    });
    let mut all = Vec::new();
    for (area, thread, receive) in started.collect::<Vec<_>>() {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match receive.recv_timeout(left) {
                Ok(finding) => all.push(finding),
                Err(RecvTimeoutError::Timeout) => {
                    all.push(Finding::late(area, DEADLINE));
                    break;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    all.extend(thread.join().is_err().then(|| Finding::broken(area)));
                    break;
                }
            }
        }
    }
    all
}

fn look(area: Area, scope: &Scope, say: &mut dyn FnMut(Finding)) {
    match area {
        Area::Config => config::look(scope, say),
        Area::Tokens => tokens::look(scope, say),
        #[cfg(feature = "tpm")]
        Area::Tpm => tpm::look(scope, say),
        Area::Puf => puf::look(scope, say),
        Area::Module => module::look(scope, say),
        Area::Openssl => openssl::look(scope, say),
        Area::Certificates => certificates::look(scope, say),
        Area::Service => service::look(scope, say),
    }
}
