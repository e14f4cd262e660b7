//! What others may know of retention: no text of any record.

use std::sync::{Mutex, PoisonError};

use pgwitness_index::record::Timestamp;
use pgwitness_index::view::format_time;
use serde_json::{Value, json};

use crate::config;

/// As of the last look.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// The oldest record with its full text, held ones aside.
    pub(super) oldest_full: Option<Timestamp>,
    /// The oldest record.
    pub(super) oldest: Option<Timestamp>,
    pub(super) last_run: Option<Timestamp>,
    pub(super) next_run: Option<Timestamp>,
    /// Segments in which something is held.
    pub(super) held_segments: u64,
    pub(super) trouble: Option<String>,
}

/// Shared between the thread and those who ask.
pub(super) struct Shared {
    full: String,
    metadata: String,
    holds: Vec<String>,
    seen: Mutex<Seen>,
}

impl Shared {
    pub(super) fn new(config: &config::Retention) -> Self {
        Self {
            full: config.full_rule.clone(),
            metadata: config.metadata_rule.clone(),
            holds: config.legal_hold.clone(),
            seen: Mutex::default(),
        }
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn status(&self) -> Value {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let time = |time: Option<Timestamp>| time.map(format_time);
        json!({
            "rules": [self.full, self.metadata],
            "legal_hold": self.holds,
            "oldest_full_text": time(seen.oldest_full),
            "oldest_record": time(seen.oldest),
            "held_segments": seen.held_segments,
            "last_run": time(seen.last_run),
            "next_run": time(seen.next_run),
            "trouble": seen.trouble,
        })
    }
}
