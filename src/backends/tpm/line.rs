//! The line before a TPM: one worker thread, users in turns and each user's jobs as they came, nobody waits for
//! ever.
//!
//! ESYS blocks for as long as the TPM does, and a context is for one thread. So a worker owns it,
//! and a caller that has waited long enough goes away: who is still in line leaves it, and nothing
//! of his is done; where the TPM itself is silent, the worker is left to itself and ends when its
//! answer comes, flushing what it had loaded. The same thread does the flushing when nobody asks
//! for anything.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::link::Link;
use super::tcti::Tcti;
use crate::error::{Error, Result};
use crate::provider;

/// Threads that may hang in a TPM that does not answer before no more are tried.
const MOST_STUCK: usize = 4;
/// How long the last flush may keep a process from ending.
const FAREWELL: Duration = Duration::from_secs(2);

/// The lines that tokens share, by where the TPM is.
static SHARED: Mutex<BTreeMap<String, Weak<Line>>> = Mutex::new(BTreeMap::new());

/// A TPM, connected to at the first use.
pub(super) struct Line(Arc<Inner>);

/// How long a caller waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For those before him.
    pub(super) queue: Duration,
    /// For the TPM.
    pub(super) work: Duration,
}

struct Inner {
    tcti: Tcti,
    /// Not held while the TPM works.
    state: Mutex<State>,
    /// The worker is wanted.
    called: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    /// The last job of each user who had one since the line was empty.
    served: BTreeMap<u32, u64>,
    /// How many jobs were begun.
    turns: u64,
    running: Option<Running>,
    worker: Option<Worker>,
    stuck: Vec<Weak<()>>,
    /// How many jobs came, and how many workers.
    came: u64,
    workers: u64,
    /// How many jobs the TPM is done with.
    done: u64,
    /// How often it has not answered.
    silences: u64,
    closed: bool,
}

/// What is done with the TPM, and then how the caller hears of it.
type Work = Box<dyn FnOnce(&mut Link) -> Reply + Send>;
type Reply = Box<dyn FnOnce()>;

struct Job {
    number: u64,
    /// On whose behalf.
    user: u32,
    allowed: Duration,
    work: Work,
}

struct Running {
    number: u64,
    since: Instant,
    allowed: Duration,
}

struct Worker {
    number: u64,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
    alive: Weak<()>,
}

/// A caller's place in line.
struct Ticket {
    number: u64,
    patience: Patience,
    /// [`State::done`] and [`State::silences`] when he came.
    done: u64,
    silences: u64,
}

enum Turn {
    Work(Work),
    Rest,
}

impl Line {
    /// A line of one's own. Touches nothing.
    pub(super) fn new(tcti: Tcti) -> Arc<Self> {
        Arc::new(Line(Arc::new(Inner {
            tcti,
            state: Mutex::default(),
            called: Condvar::new(),
        })))
    }

    /// The line of all who share in this process. Touches nothing.
    pub(super) fn shared(tcti: Tcti) -> Arc<Self> {
        let mut lines = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|_, line| line.strong_count() > 0);
        let place = tcti.to_string();
        if let Some(line) = lines.get(&place).and_then(Weak::upgrade) {
            return line;
        }
        let line = Line::new(tcti);
        lines.insert(place, Arc::downgrade(&line));
        line
    }

    /// Ends all that are shared, for good, and leaves nothing in their TPMs.
    pub(super) fn close_shared() {
        let lines = std::mem::take(&mut *SHARED.lock().unwrap_or_else(PoisonError::into_inner));
        let lines: Vec<_> = lines.values().filter_map(Weak::upgrade).collect();
        let ending: Vec<_> = lines.iter().filter_map(|line| line.0.close()).collect();
        let until = Instant::now() + FAREWELL;
        for ended in ending {
            let _ = ended.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
    }

    /// Where the TPM is.
    pub(super) fn tcti(&self) -> &Tcti {
        &self.0.tcti
    }

    /// Has the worker do something, when those before are served.
    ///
    /// # Errors
    /// [`Error::DeviceError`] where those before took too long, and nothing was done.
    /// [`Error::Timeout`] where the TPM does not answer, for this caller and for all behind him.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        patience: Patience,
        work: impl FnOnce(&mut Link) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = mpsc::channel();
        let work = Box::new(move |link: &mut Link| -> Reply {
            let result = work(link);
            Box::new(move || {
                let _ = reply.send(result);
            })
        });
        let ticket = self.0.enter(patience, work)?;
        let mut wait = patience.queue;
        loop {
            match answer.recv_timeout(wait) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => wait = self.0.overdue(&ticket)?,
                Err(RecvTimeoutError::Disconnected) => return Err(self.0.turned_away(&ticket)),
            }
        }
    }

    /// Has the worker do something that nobody waits for. Where there is none, nothing is
    /// connected, and there is nothing to be done.
    pub(super) fn tell(&self, work: impl FnOnce(&mut Link) + Send + 'static) {
        let mut state = self.0.state();
        if state.worker.is_some() {
            let work = Box::new(move |link: &mut Link| -> Reply {
                work(link);
                Box::new(|| ())
            });
            self.0.push(&mut state, FAREWELL, work);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(ended) = self.0.close() {
            let _ = ended.recv_timeout(FAREWELL);
        }
    }
}

impl State {
    /// Whether a worker is the line's still.
    fn has(&self, worker: u64) -> bool {
        self.worker.as_ref().is_some_and(|one| one.number == worker)
    }

    /// The next job: of who was served longest ago the one that came first. One user with many jobs keeps the
    /// others waiting for one of them.
    fn pop(&mut self) -> Option<Job> {
        let ago = |job: &Job| self.served.get(&job.user).copied().unwrap_or_default();
        let next = (0..self.waiting.len()).min_by_key(|place| self.waiting.get(*place).map(ago))?;
        let job = self.waiting.remove(next)?;
        self.turns += 1;
        match self.waiting.is_empty() {
            true => self.served.clear(),
            false => drop(self.served.insert(job.user, self.turns)),
        }
        Some(job)
    }

    /// The TPM is done with a worker's job.
    fn finish(&mut self, worker: u64) {
        if self.has(worker) && self.running.take().is_some() {
            self.done += 1;
        }
    }
}

impl Inner {
    fn enter(self: &Arc<Self>, patience: Patience, work: Work) -> Result<Ticket> {
        let mut state = self.state();
        if state.closed {
            return Err(self.ending());
        }
        let alive = |worker: &Worker| worker.alive.strong_count() > 0;
        if !state.worker.as_ref().is_some_and(alive) {
            state.worker = Some(self.start(&mut state, patience)?);
        }
        Ok(Ticket {
            number: self.push(&mut state, patience.work, work),
            patience,
            done: state.done,
            silences: state.silences,
        })
    }

    fn push(&self, state: &mut State, allowed: Duration, work: Work) -> u64 {
        state.came += 1;
        let number = state.came;
        state.waiting.push_back(Job {
            number,
            user: provider::user(),
            allowed,
            work,
        });
        self.called.notify_one();
        number
    }

    /// How long a caller goes on waiting whose time is over.
    fn overdue(&self, ticket: &Ticket) -> Result<Duration> {
        let mut state = self.state();
        let mine = |job: &Job| job.number == ticket.number;
        if let Some(place) = state.waiting.iter().position(mine) {
            let left = state.waiting.remove(place);
            let served = state.done - ticket.done;
            drop(state);
            drop(left);
            return Err(self.too_long(served, ticket.patience.queue));
        }
        match &state.running {
            Some(running) if running.number == ticket.number => {
                let left = running.allowed.saturating_sub(running.since.elapsed());
                if left.is_zero() {
                    self.give_up(state);
                    return Err(self.silent(ticket.patience.work));
                }
                Ok(left)
            }
            // Done with just now: the answer is there, or about to be.
            _ => Ok(Duration::ZERO),
        }
    }

    /// The TPM is silent: nobody waits for its worker any more.
    fn give_up(&self, mut state: MutexGuard<'_, State>) {
        state.silences += 1;
        state.running = None;
        if let Some(worker) = state.worker.take() {
            state.stuck.push(worker.alive);
        }
        let turned_away = std::mem::take(&mut state.waiting);
        drop(state);
        drop(turned_away);
    }

    /// Why a caller gets no answer.
    fn turned_away(&self, ticket: &Ticket) -> Error {
        let state = self.state();
        match (state.silences != ticket.silences, state.closed) {
            (true, _) => self.silent(ticket.patience.queue),
            (_, true) => self.ending(),
            // The worker panicked: tss-esapi met something that it had not thought of.
            _ => self.tcti.failed("an answer that makes no sense"),
        }
    }

    fn start(self: &Arc<Self>, state: &mut State, patience: Patience) -> Result<Worker> {
        state.stuck.retain(|one| one.strong_count() > 0);
        if state.stuck.len() >= MOST_STUCK {
            return Err(self.silent(patience.queue));
        }
        state.workers += 1;
        let number = state.workers;
        let (end, ended) = mpsc::channel();
        let token = Arc::new(());
        let alive = Arc::downgrade(&token);
        let line = self.clone();
        thread::Builder::new()
            .name("devkey-tpm".into())
            .spawn(move || {
                let _kept = (end, token);
                line.serve(number);
            })
            .map_err(|error| Error::io("starting a thread for the TPM", error))?;
        Ok(Worker {
            number,
            ended,
            alive,
        })
    }

    /// The worker: jobs in order, a rest when there are none, the end when it is not wanted.
    fn serve(&self, number: u64) {
        let mut link = Link::new(self.tcti.clone());
        while let Some(turn) = self.next(number, link.patience()) {
            let served = catch_unwind(AssertUnwindSafe(|| match turn {
                Turn::Work(work) => {
                    let reply = work(&mut link);
                    // First, or whoever comes next would count it as served while he waited.
                    self.state().finish(number);
                    reply();
                    link.breathe();
                }
                Turn::Rest => link.rest(),
            }));
            if served.is_err() {
                let broken = std::mem::replace(&mut link, Link::new(self.tcti.clone()));
                let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
            }
        }
    }

    /// What a worker does next; `None` where it is not the line's any more.
    fn next(&self, worker: u64, patience: Option<Duration>) -> Option<Turn> {
        let mut state = self.state();
        // What panicked.
        state.finish(worker);
        loop {
            if !state.has(worker) {
                return None;
            }
            if let Some(job) = state.pop() {
                state.running = Some(Running {
                    number: job.number,
                    since: Instant::now(),
                    allowed: job.allowed,
                });
                return Some(Turn::Work(job.work));
            }
            let (woken, over) = self.sleep(state, patience);
            state = woken;
            if over && state.waiting.is_empty() {
                return state.has(worker).then_some(Turn::Rest);
            }
        }
    }

    /// Until somebody calls, or for as long as `patience`; whether that is over.
    fn sleep<'s>(
        &self,
        state: MutexGuard<'s, State>,
        patience: Option<Duration>,
    ) -> (MutexGuard<'s, State>, bool) {
        match patience {
            None => {
                let woken = self.called.wait(state);
                (woken.unwrap_or_else(PoisonError::into_inner), false)
            }
            Some(patience) => {
                let woken = self.called.wait_timeout(state, patience);
                let (state, over) = woken.unwrap_or_else(PoisonError::into_inner);
                (state, over.timed_out())
            }
        }
    }

    /// Lets nobody in any more, turns away who waits and sends the worker home; what tells when it
    /// is there.
    fn close(&self) -> Option<Receiver<()>> {
        let mut state = self.state();
        state.closed = true;
        let worker = state.worker.take();
        let turned_away = std::mem::take(&mut state.waiting);
        self.called.notify_all();
        drop(state);
        drop(turned_away);
        worker.map(|worker| worker.ended)
    }

    /// Nothing was done, for others were before.
    fn too_long(&self, served: u64, waited: Duration) -> Error {
        match served {
            0 => self.silent(waited),
            served => self.tcti.failed(format!(
                "busy: {served} others were served in the {} s that this one could wait; try again",
                waited.as_secs()
            )),
        }
    }

    fn silent(&self, waited: Duration) -> Error {
        Error::Timeout {
            what: self.tcti.to_string(),
            seconds: waited.as_secs(),
        }
    }

    fn ending(&self) -> Error {
        self.tcti.gone("the program that speaks to it is ending")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
