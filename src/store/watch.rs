//! Keys for who asks for one again and again, and lives in a process of his own: the key service.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{KeyRecord, Listing, ObjectId, Store, settled};
use crate::error::Result;
use crate::files::Dir;

/// How often the directory is looked for by its path: who moves one above it away, and puts another in its
/// place, changes nothing in the directory itself.
const BY_PATH: Duration = Duration::from_millis(100);

/// A directory that is held open. To look at it costs a third of a look by its path. Not for host
/// applications: they close descriptors that are not theirs.
#[derive(Debug, Default)]
pub(super) struct Watch(Mutex<Option<Watched>>);

#[derive(Debug)]
struct Watched {
    dir: Dir,
    listing: Arc<Listing>,
    found: Instant,
}

impl Store {
    /// The key of an id as it is now; `None` where there is none.
    ///
    /// Certificates, which may be edited in place, are of no interest here: a key's file is only ever replaced,
    /// and that changes the directory.
    pub fn key_now(&self, id: &ObjectId) -> Result<Option<Arc<KeyRecord>>> {
        let watch = &self.watch.0;
        let mut watched = watch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = watched.as_ref().filter(|known| known.is_still()) {
            return Ok(known.listing.key(id).cloned());
        }
        // Before the listing: what changes in between is seen the next time.
        let dir = Dir::kept(&self.dir, self.keeper)?;
        let listing = self.list()?;
        let key = listing.key(id).cloned();
        *watched = settled(&dir.stamp()).then(|| Watched {
            dir,
            listing,
            found: Instant::now(),
        });
        Ok(key)
    }
}

impl Watched {
    /// Owner and mode need no second look: who changes them changes the stamp.
    fn is_still(&self) -> bool {
        self.found.elapsed() < BY_PATH && self.dir.stamp_now() == Some(self.dir.stamp())
    }
}
