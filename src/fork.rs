//! Keeps fork(2) and cryptography apart.
//!
//! aws-lc guards its random generator by locks, and a forked child inherits them as the parent's
//! other threads hold them: its first signature would then wait for ever. So a host's fork waits
//! until no thread is inside, and none gets in meanwhile. The module calls [`close`], [`open`] and
//! [`reset`] from pthread_atfork(3) handlers; elsewhere [`enter`] costs two additions.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

static INSIDE: AtomicUsize = AtomicUsize::new(0);
static FORKING: AtomicBool = AtomicBool::new(false);

/// How long a fork waits for operations in other threads. Only the making of a large RSA key takes
/// longer; a host that forks in a signal handler amid an operation must not wait for itself.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether a thread has its turn.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// Between two looks whether the turn is over that another thread has.
const LOOK: Duration = Duration::from_millis(1);

/// Held by the one thread whose turn it is.
#[derive(Debug)]
#[must_use]
pub struct Turn(());

/// Waits until no other thread has its turn. No lock, which a forked child would inherit.
pub fn turn() -> Turn {
    while TAKEN.swap(true, Ordering::Acquire) {
        thread::sleep(LOOK);
    }
    Turn(())
}

impl Drop for Turn {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Release);
    }
}

/// Held by a thread that is inside.
#[derive(Debug)]
#[must_use]
pub struct Inside(());

/// Waits for a fork in another thread and keeps the next one waiting.
pub fn enter() -> Inside {
    let mut began = None;
    loop {
        INSIDE.fetch_add(1, Ordering::SeqCst);
        let mut waited = || began.get_or_insert_with(Instant::now).elapsed();
        if !FORKING.load(Ordering::SeqCst) || waited() > 2 * PATIENCE {
            return Inside(());
        }
        INSIDE.fetch_sub(1, Ordering::SeqCst);
        thread::yield_now();
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // A child that forked amid an operation counts from zero.
        let _ = INSIDE.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |inside| {
            inside.checked_sub(1)
        });
    }
}

/// Before a fork: lets nobody in and waits until all are out.
pub fn close() {
    FORKING.store(true, Ordering::SeqCst);
    let began = Instant::now();
    while INSIDE.load(Ordering::SeqCst) > 0 && began.elapsed() < PATIENCE {
        thread::sleep(Duration::from_micros(20));
    }
}

/// After a fork, in the parent.
pub fn open() {
    FORKING.store(false, Ordering::SeqCst);
}

/// After a fork, in the child, where no other thread is.
pub fn reset() {
    INSIDE.store(0, Ordering::SeqCst);
    TAKEN.store(false, Ordering::Release);
    open();
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    /// There is one of each for the whole process.
    fn alone() -> MutexGuard<'static, ()> {
        static ONE: Mutex<()> = Mutex::new(());
        ONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails with `TAKEN` not looked at.
    #[test]
    fn turns_come_one_after_the_other_and_none_is_inherited() {
        let _alone = alone();
        let now = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _turn = turn();
                    assert_eq!(now.fetch_add(1, Ordering::SeqCst), 0);
                    thread::sleep(Duration::from_millis(5));
                    now.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        let held = turn();
        TAKEN.store(true, Ordering::SeqCst);
        reset();
        drop((turn(), held));
    }

    /// Fails with the wait in `close` left out, and with the load of `FORKING` in `enter`.
    #[test]
    fn a_fork_waits_for_those_inside_and_they_for_it() {
        let _alone = alone();
        let inside = enter();
        let closing = thread::spawn(|| {
            close();
            Instant::now()
        });
        thread::sleep(Duration::from_millis(50));
        let left = Instant::now();
        drop(inside);
        assert!(closing.join().unwrap() >= left);
        let entering = thread::spawn(|| {
            let _inside = enter();
            Instant::now()
        });
        thread::sleep(Duration::from_millis(50));
        let opened = Instant::now();
        open();
        assert!(entering.join().unwrap() >= opened);
    }
}
