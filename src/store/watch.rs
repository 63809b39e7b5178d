//! Keys for who asks for one again and again, and lives in a process of his own: the key service.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{KeyRecord, Listing, ObjectId, Store, settled};
use crate::error::Result;
use crate::files::Dir;

/// How often the directory is looked for by its path: who moves one above it away, and puts another in its
/// place, changes nothing in the directory itself.
const BY_PATH: Duration = Duration::from_millis(100);

/// For how long a look holds good, so that who signs again and again does not look each time. That somebody else
/// changed the directory is seen this much later; what this process writes through its store, at once.
const BURST: Duration = Duration::from_millis(1);

/// A directory that is held open. To look at it costs a third of a look by its path. Not for host
/// applications: they close descriptors that are not theirs.
#[derive(Debug, Default)]
pub(super) struct Watch(Mutex<Option<Watched>>);

#[derive(Debug)]
struct Watched {
    dir: Dir,
    listing: Arc<Listing>,
    found: Instant,
    looked: Instant,
}

/// Has a watch forget what it knows, when it is dropped.
#[derive(Debug)]
pub(super) struct Forget(Arc<Watch>);

impl Drop for Forget {
    fn drop(&mut self) {
        *self.0.known() = None;
    }
}

impl Watch {
    fn known(&self) -> MutexGuard<'_, Option<Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// The key of an id as it is now, or was a millisecond ago; `None` where there is none.
    ///
    /// Certificates, which may be edited in place, are of no interest here: a key's file is only ever replaced,
    /// and that changes the directory.
    pub fn key_now(&self, id: &ObjectId) -> Result<Option<Arc<KeyRecord>>> {
        let mut watched = self.watch.known();
        let now = Instant::now();
        if let Some(known) = watched.as_mut()
            && known.is_still(now)
        {
            return Ok(known.listing.key(id).cloned());
        }
        // Before the listing: what changes in between is seen the next time.
        let dir = Dir::kept(&self.dir, self.keeper)?;
        let listing = self.list()?;
        let key = listing.key(id).cloned();
        *watched = settled(&dir.stamp()).then(|| Watched {
            dir,
            listing,
            found: now,
            looked: now,
        });
        Ok(key)
    }

    /// To be dropped after something was written.
    pub(super) fn forget(&self) -> Forget {
        Forget(self.watch.clone())
    }
}

impl Watched {
    /// Owner and mode need no second look: who changes them changes the stamp.
    fn is_still(&mut self, now: Instant) -> bool {
        if now.duration_since(self.looked) < BURST {
            return true;
        }
        let is_still = now.duration_since(self.found) < BY_PATH
            && self.dir.stamp_now() == Some(self.dir.stamp());
        if is_still {
            self.looked = now;
        }
        is_still
    }
}
