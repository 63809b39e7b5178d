//! How many connections there may be, and whose go first where there are too many.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devkey::{Error, Result};
use rustix::net::{Shutdown, shutdown};

/// Most connections with a token at a time, each with a thread.
const MAX_CONNECTIONS: usize = 512;
/// Most of them of one user; root has no such limit.
const MAX_OF_USER: usize = 128;
/// What is kept for root beside them, who is to get through when all others are there.
const FOR_ROOT: usize = 32;
/// Most connections that have found no token yet. Anybody may have them; so none is refused, and of who has
/// the most the oldest goes.
const MAX_STRANGERS: usize = 128;

/// The connections that there are.
#[derive(Default)]
pub(super) struct Connections(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    /// Of those that have found a token: how many each user has.
    users: HashMap<u32, usize>,
    /// The others, the oldest first.
    strangers: VecDeque<Stranger>,
    /// How many came.
    came: u64,
}

struct Stranger {
    number: u64,
    user: u32,
    /// The connection, to be shut down.
    client: OwnedFd,
}

/// A connection, which is counted for as long as this lives.
pub(super) struct Counted {
    all: Arc<Connections>,
    number: u64,
    user: u32,
    settled: AtomicBool,
}

impl Connections {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more.
    ///
    /// # Errors
    /// [`Error::Io`] where no descriptor is left to shut it down by.
    pub(super) fn admit(self: &Arc<Self>, client: &OwnedFd, user: u32) -> Result<Counted> {
        let client = client.try_clone();
        let client = client.map_err(|e| Error::io("one more connection", e))?;
        let mut counts = self.counts();
        if counts.strangers.len() >= MAX_STRANGERS {
            counts.send_one_away();
        }
        counts.came += 1;
        let number = counts.came;
        counts.strangers.push_back(Stranger {
            number,
            user,
            client,
        });
        Ok(Counted {
            all: self.clone(),
            number,
            user,
            settled: AtomicBool::new(false),
        })
    }
}

impl Counts {
    /// The oldest of the user with the most.
    fn send_one_away(&mut self) {
        let mut sums: HashMap<u32, usize> = HashMap::new();
        for stranger in &self.strangers {
            *sums.entry(stranger.user).or_default() += 1;
        }
        let most = sums.into_iter().max_by_key(|(_, count)| *count);
        let oldest = most.and_then(|(user, _)| {
            let mut all = self.strangers.iter();
            all.position(|stranger| stranger.user == user)
        });
        if let Some(gone) = oldest.and_then(|oldest| self.strangers.remove(oldest)) {
            let _ = shutdown(&gone.client, Shutdown::Both);
        }
    }
}

impl Counted {
    /// It has found a token.
    ///
    /// # Errors
    /// [`Error::DeviceError`] where there are too many of these.
    pub(super) fn settle(&self) -> Result<()> {
        let mut counts = self.all.counts();
        if self.settled.load(Ordering::Relaxed) {
            return Ok(());
        }
        let all: usize = counts.users.values().sum();
        let own = counts.users.get(&self.user).copied().unwrap_or_default();
        let full = match self.user {
            0 => all >= MAX_CONNECTIONS + FOR_ROOT,
            _ => all >= MAX_CONNECTIONS || own >= MAX_OF_USER,
        };
        if full {
            return Err(Error::DeviceError {
                device: "the key service".to_owned(),
                reason: format!(
                    "too many connections: {own} of this user, {all} of all; end programs that keep some open"
                ),
            });
        }
        counts.strangers.retain(|one| one.number != self.number);
        self.settled.store(true, Ordering::Relaxed);
        *counts.users.entry(self.user).or_default() += 1;
        Ok(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.all.counts();
        if !*self.settled.get_mut() {
            counts.strangers.retain(|one| one.number != self.number);
        } else if let Some(own) = counts.users.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                counts.users.remove(&self.user);
            }
        }
    }
}
