//! Says what happens on standard error where `DEVKEY_LOG` asks for it, and nothing otherwise.
//!
//! No lock is taken: a forked child logs too, whatever its parent's threads were writing.

use std::env;
use std::sync::atomic::{AtomicBool, Ordering};

use log::{LevelFilter, Log, Metadata, Record};

use crate::raw;

static LOGGER: Stderr = Stderr;
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Installs the logger and silences panics; once per process, whatever is called how often.
///
/// `DEVKEY_LOG` is a level: error, warn, info, debug or trace. It is ignored where the process has
/// rights that its caller has not.
pub(crate) fn install(secure: bool) {
    if INSTALLED.swap(true, Ordering::Relaxed) {
        return;
    }
    // The hook is that of this library's own runtime; the host's panics are not touched.
    std::panic::set_hook(Box::new(|panic| log::error!("defect: {panic}")));
    let wanted = env::var("DEVKEY_LOG").ok().filter(|_| !secure);
    if let Some(level) = wanted {
        log::set_max_level(level.parse().unwrap_or(LevelFilter::Debug));
        // Fails where a logger is installed already, which then does as well.
        let _ = log::set_logger(&LOGGER);
    }
}

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("devkey")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = format!("devkey: {}: {}\n", record.level(), record.args());
            raw::write_stderr(line.as_bytes());
        }
    }

    fn flush(&self) {}
}
