//! A deadline for devices whose drivers wait inside read(2), whatever poll(2) and O_NONBLOCK say.
//!
//! A thread does the reading, and the caller goes away when it takes too long. The thread is left to
//! itself: it ends when the driver lets it, wiping what it read. Host applications get no threads
//! from us; there a driver has to heed O_NONBLOCK, or the token to use the key service.

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};

/// Threads that may hang in devices of this process before no more are started.
const MOST_STUCK: usize = 4;
/// How much longer than the device's own deadline the thread is waited for.
const GRACE: Duration = Duration::from_millis(500);

/// Each lives as long as a thread that was left behind.
static STUCK: Mutex<Vec<Weak<()>>> = Mutex::new(Vec::new());

/// Who waits for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// A thread of ours, which can be left behind.
    Thread,
    /// The caller: this is somebody else's process.
    Caller,
}

impl Patience {
    /// Runs `op` on the device at `path`, within about the time given.
    ///
    /// # Errors
    /// [`Error::Timeout`]; and those of `op`.
    pub(super) fn run<T: Send + 'static>(
        self,
        path: &Path,
        time: Duration,
        op: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self == Patience::Caller {
            return op();
        }
        let silent = || Error::Timeout {
            what: path.display().to_string(),
            seconds: time.as_secs(),
        };
        if stuck(None) >= MOST_STUCK {
            return Err(silent());
        }
        let (reply, answer) = mpsc::channel();
        let token = Arc::new(());
        let alive = Arc::downgrade(&token);
        thread::Builder::new()
            .name("devkey-puf".into())
            .spawn(move || {
                let _token = token;
                let _ = reply.send(op());
            })
            .map_err(|e| Error::io("starting a thread for the PUF", e))?;
        match answer.recv_timeout(time + GRACE) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                stuck(Some(alive));
                Err(silent())
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(Error::Internal("the thread that reads the PUF".to_owned()))
            }
        }
    }
}

/// How many threads hang, with one more.
fn stuck(one: Option<Weak<()>>) -> usize {
    let mut stuck = STUCK.lock().unwrap_or_else(PoisonError::into_inner);
    stuck.retain(|thread| thread.strong_count() > 0);
    stuck.extend(one);
    stuck.len()
}
