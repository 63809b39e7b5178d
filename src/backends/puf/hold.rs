//! A root that is kept for a while after its use.
//!
//! In devkeyd the memory is locked, where the system permits it. A thread wipes it when its time is
//! over; nothing is held in a host application.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::options::Hold;
use crate::error::Result;
use crate::provider::Place;
use crate::secret::Secret;

/// What is held, if anything.
pub(super) struct Held {
    hold: Hold,
    state: Arc<Mutex<State>>,
    /// One reads the device, and the others wait for what it holds then.
    turn: Mutex<()>,
}

/// What is held for more than one.
static SHARED: Mutex<Vec<(Shared, Arc<Held>)>> = Mutex::new(Vec::new());

/// Which token, and how it is held.
#[derive(PartialEq, Eq)]
struct Shared {
    dir: PathBuf,
    binding: String,
    hold: Hold,
}

#[derive(Default)]
struct State {
    root: Option<Secret>,
    /// When it is wiped; `None` for never.
    until: Option<Instant>,
    wiper: bool,
}

impl Held {
    pub(super) fn new(hold: Hold) -> Self {
        Held {
            hold,
            state: Arc::default(),
            turn: Mutex::default(),
        }
    }

    /// What this process holds of a token, for all who open it there. It outlives them.
    ///
    /// By the token's directory and its binding: a token made anew in its place has another one.
    pub(super) fn shared(place: &Place<'_>, hold: Hold) -> Arc<Self> {
        let Some(binding) = place.binding else {
            return Arc::new(Held::new(hold));
        };
        let dir = place.dir.canonicalize();
        let token = Shared {
            dir: dir.unwrap_or_else(|_| place.dir.to_owned()),
            binding: binding.to_owned(),
            hold,
        };
        let mut all = lock(&SHARED);
        all.retain(|(known, held)| *known == token || held.is_wanted());
        if let Some((_, held)) = all.iter().find(|(known, _)| *known == token) {
            return held.clone();
        }
        let held = Arc::new(Held::new(hold));
        all.push((token, held.clone()));
        held
    }

    /// Whether somebody has the token open or a root is held.
    fn is_wanted(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1 || lock(&self.state).root.is_some()
    }

    /// A copy of the root, which is fetched where none is held.
    pub(super) fn get(&self, fetch: impl FnOnce() -> Result<Secret>) -> Result<Secret> {
        let time = match self.hold {
            Hold::For(Duration::ZERO) => return fetch(),
            Hold::For(time) => Some(time),
            Hold::Boot { .. } => None,
        };
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let held = lock(&self.state).copy();
        let root = match held {
            Some(root) => root,
            None => fetch()?,
        };
        self.keep(&root, time);
        Ok(root)
    }

    fn keep(&self, root: &Secret, time: Option<Duration>) {
        let mut state = lock(&self.state);
        let copy = Secret::new(root.expose().to_vec());
        state.root = Some(copy);
        state.until = time.map(|time| Instant::now() + time);
        if time.is_some() && !state.wiper {
            let weak = Arc::downgrade(&self.state);
            let name = "devkey-puf-hold".to_owned();
            let started = thread::Builder::new().name(name).spawn(move || wipe(&weak));
            match started {
                Ok(_) => state.wiper = true,
                // Nobody would wipe it.
                Err(_) => state.root = None,
            }
        }
    }
}

impl State {
    /// For one operation, whose caller wipes it.
    fn copy(&self) -> Option<Secret> {
        let root = self.root.as_ref()?;
        let over = self.until.is_some_and(|until| until <= Instant::now());
        (!over).then(|| Secret::new(root.expose().to_vec()))
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({:?})", self.hold)
    }
}

/// Sleeps until the root's time is over, wipes it and ends. Where the token is closed before, the
/// root is wiped there, and the thread finds nothing.
fn wipe(state: &Weak<Mutex<State>>) {
    while let Some(shared) = state.upgrade() {
        let mut state = lock(&shared);
        let now = Instant::now();
        match state.until {
            Some(until) if until > now => {
                drop(state);
                drop(shared);
                thread::sleep(until - now);
            }
            _ => {
                state.root = None;
                state.wiper = false;
                return;
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(hold: Hold) -> (Held, impl Fn(&Held) -> bool) {
        // Whether the root had to be fetched.
        let fetches = |held: &Held| {
            let mut fetched = false;
            let root = held.get(|| {
                fetched = true;
                Ok(Secret::new(vec![7; 32]))
            });
            assert_eq!(root.unwrap().expose(), [7; 32]);
            fetched
        };
        (Held::new(hold), fetches)
    }

    #[test]
    fn by_default_nothing_is_held() {
        let (held, fetches) = held(Hold::For(Duration::ZERO));
        assert!(fetches(&held) && fetches(&held));
        assert!(lock(&held.state).root.is_none());
    }

    /// Seen to fail without `state.root = None` in `wipe`.
    #[test]
    fn it_is_wiped_when_its_time_is_over() {
        let start = Instant::now();
        let (held, fetches) = held(Hold::For(Duration::from_millis(200)));
        assert!(fetches(&held) && !fetches(&held));
        while lock(&held.state).root.is_some() {
            assert!(start.elapsed() < Duration::from_secs(60), "never wiped");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(start.elapsed() >= Duration::from_millis(150));
        assert!(fetches(&held));
    }

    #[test]
    fn for_as_long_as_the_process_lives_it_is_fetched_once() {
        let (held, fetches) = held(Hold::Boot { scrub: false });
        assert!(fetches(&held) && !fetches(&held));
        assert!(lock(&held.state).until.is_none());
    }

    #[test]
    fn a_failure_is_not_held() {
        let held = Held::new(Hold::Boot { scrub: false });
        let failed = held.get(|| Err(crate::Error::NotReproduced));
        assert!(failed.is_err());
        assert!(held.get(|| Ok(Secret::new(vec![1; 32]))).is_ok());
    }
}
