//! Seeds for what is random in a test: the same in every run, and another at each call.

use std::cell::Cell;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::thread;

/// A seed of the running test's own: from its thread's name, which is the test's, and from how many
/// seeds it took before.
pub(crate) fn seed() -> u64 {
    thread_local!(static TAKEN: Cell<u32> = const { Cell::new(0) });
    let taken = TAKEN.replace(TAKEN.get() + 1);
    // Not `RandomState`: this one's keys are zero.
    let mut hasher = DefaultHasher::new();
    (thread::current().name(), taken).hash(&mut hasher);
    hasher.finish()
}
