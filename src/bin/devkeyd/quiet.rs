//! Lines of the log that anybody could have written without end.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most lines about one user in a [`SPAN`]; what clients do with tokens that they may use is not counted.
const MOST: u32 = 20;
const SPAN: Duration = Duration::from_secs(60);

/// How much was said of whom.
#[derive(Default)]
pub(super) struct Quiet(Mutex<HashMap<u32, Said>>);

struct Said {
    since: Instant,
    lines: u32,
}

impl Quiet {
    /// Whether one more line about a user may be written. How many were not is written later.
    pub(super) fn lets_say(&self, user: u32) -> bool {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|user, said| {
            let is_over = said.since.elapsed() >= SPAN;
            if is_over && said.lines > MOST {
                let more = said.lines - MOST;
                log::warn!("{more} more lines about user {user} within a minute were left out");
            }
            !is_over
        });
        let said = users.entry(user).or_insert_with(|| Said {
            since: Instant::now(),
            lines: 0,
        });
        said.lines = said.lines.saturating_add(1);
        said.lines <= MOST
    }
}
