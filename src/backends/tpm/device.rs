//! The caller's side of the device: one lock, one worker thread, one deadline.
//!
//! ESYS blocks for as long as the TPM does, and a context is for one thread. So a worker owns it,
//! and a caller that has waited long enough goes away: the worker is left to itself and ends when
//! its answer comes, flushing what it had loaded. The same thread does the flushing when nobody
//! asks for anything.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::errors::Fault;
use super::link::{Binding, Link};
use super::tcti::Tcti;
use crate::error::{Error, Result};

/// Threads that may hang in a TPM that does not answer before no more are tried.
const MOST_STUCK: usize = 4;
/// How long the last flush may keep a process from ending.
const FAREWELL: Duration = Duration::from_secs(2);

type Job = Box<dyn FnOnce(&mut Link) + Send>;

/// A TPM, opened at the first use.
pub(super) struct Device {
    tcti: Tcti,
    binding: Option<Binding>,
    deadline: Duration,
    state: Mutex<State>,
    /// How often the TPM has not answered.
    silences: AtomicU64,
}

#[derive(Default)]
struct State {
    worker: Option<Worker>,
    stuck: Vec<Weak<()>>,
}

struct Worker {
    jobs: Sender<Job>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
    alive: Weak<()>,
}

impl Device {
    /// Touches nothing.
    pub(super) fn new(tcti: Tcti, binding: Option<Binding>, deadline: Duration) -> Self {
        Device {
            tcti,
            binding,
            deadline,
            state: Mutex::default(),
            silences: AtomicU64::new(0),
        }
    }

    /// Where the TPM is.
    pub(super) fn tcti(&self) -> &Tcti {
        &self.tcti
    }

    /// Runs an operation within the deadline.
    pub(super) fn run<T: Send + 'static>(
        &self,
        op: impl FnMut(&mut Link) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        self.run_within(self.deadline, op)
    }

    /// Runs an operation that may take longer than most.
    ///
    /// # Errors
    /// [`Error::Timeout`] for this caller and for all who were waiting behind it.
    pub(super) fn run_within<T: Send + 'static>(
        &self,
        deadline: Duration,
        op: impl FnMut(&mut Link) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let silences = self.silences.load(Ordering::Acquire);
        let mut state = self.state();
        if self.silences.load(Ordering::Acquire) != silences {
            return Err(self.silent(deadline));
        }
        let (reply, answer) = mpsc::channel();
        let job: Job = Box::new(move |link| {
            let _ = reply.send(link.run(op));
        });
        let worker = match state.worker.take() {
            Some(worker) => worker,
            None => self.start(&mut state.stuck)?,
        };
        let _ = worker.jobs.send(job);
        match answer.recv_timeout(deadline) {
            Ok(result) => {
                state.worker = Some(worker);
                result
            }
            Err(RecvTimeoutError::Timeout) => {
                self.silences.fetch_add(1, Ordering::Release);
                state.stuck.push(worker.alive);
                Err(self.silent(deadline))
            }
            // The worker panicked: tss-esapi met something that it had not thought of.
            Err(RecvTimeoutError::Disconnected) => {
                Err(self.tcti.failed("an answer that makes no sense"))
            }
        }
    }

    fn start(&self, stuck: &mut Vec<Weak<()>>) -> Result<Worker> {
        stuck.retain(|one| one.strong_count() > 0);
        if stuck.len() >= MOST_STUCK {
            return Err(self.silent(self.deadline));
        }
        let (jobs, inbox) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let token = Arc::new(());
        let alive = Arc::downgrade(&token);
        let (tcti, binding) = (self.tcti.clone(), self.binding.clone());
        thread::Builder::new()
            .name("devkey-tpm".into())
            .spawn(move || {
                let _kept = (end, token);
                serve(Link::new(tcti, binding), &inbox);
            })
            .map_err(|error| Error::io("starting a thread for the TPM", error))?;
        Ok(Worker { jobs, ended, alive })
    }

    fn silent(&self, deadline: Duration) -> Error {
        Error::Timeout {
            what: self.tcti.to_string(),
            seconds: deadline.as_secs(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(Worker { jobs, ended, .. }) = self.state().worker.take() {
            drop(jobs);
            let _ = ended.recv_timeout(FAREWELL);
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.tcti)
    }
}

/// The worker: jobs in order, a rest when there are none, the end when the device is gone.
fn serve(mut link: Link, inbox: &Receiver<Job>) {
    loop {
        let next = match link.patience() {
            Some(patience) => inbox.recv_timeout(patience),
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(job) => {
                job(&mut link);
                link.breathe();
            }
            Err(RecvTimeoutError::Timeout) => link.rest(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
