//! The sessions that are open now, as the page and `pgwitness sessions` list them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgwitness_index::record::{Timestamp, Who};

/// A session as others see it.
#[derive(Debug, Clone)]
pub struct LiveSession {
    /// Who and from where.
    pub who: Arc<Who>,
    /// Process id of its backend.
    pub pid: u32,
    /// When it began.
    pub since: Timestamp,
}

/// Sessions that are open now, by id. Bounded by the number of clients.
#[derive(Debug, Default)]
pub struct LiveSessions(Mutex<BTreeMap<String, LiveSession>>);

impl LiveSessions {
    /// All of them, oldest first (ids carry their time).
    pub fn list(&self) -> Vec<LiveSession> {
        self.lock().values().cloned().collect()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<String, LiveSession>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
