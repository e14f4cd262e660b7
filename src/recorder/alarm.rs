//! What must not be a line in a log alone: the disk failed to make durable what was written.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pgwitness_index::journal::{Journal, JournalError};
use pgwitness_index::record::{Completion, Entry, Event, Outcome, Record, TxnOutcome, Who};

use super::Shared;
use crate::clock;

impl Shared {
    /// A sync failed, and the journal goes on in a new file: an `alert` record says so in there.
    pub(super) fn alarm(&self, journal: &mut Journal, error: &JournalError) {
        tracing::error!(
            %error,
            "a sync of the journal failed. All that was written was found on the disk: the journal goes on in a new \
             file. Check the disk"
        );
        self.failed_syncs.fetch_add(1, Ordering::Relaxed);
        match journal.append(&[Entry::Record(Box::new(alert(format!(
            "a sync of the log failed; all that was written was found on the disk, and the log goes on in a new file: {error}"
        ))))]) {
            Ok(appended) => {
                self.written.store(appended.end, Ordering::Release);
                self.last_seq.fetch_max(appended.first.0, Ordering::AcqRel);
                // It is synced with the next round.
                self.wanted.store(true, Ordering::Release);
            }
            Err(error) => tracing::error!(%error, "that a sync failed could not be recorded"),
        }
    }
}

/// The record of something that somebody must know who watches over the log.
pub fn alert(detail: String) -> Record {
    let time = clock::now();
    Record {
        id: clock::new_id(time),
        time,
        event: Event::Alert,
        who: Arc::new(Who::default()),
        sql: None,
        shape: None,
        params: Vec::new(),
        detail,
        done: Some(Completion::new(Outcome::Unknown, TxnOutcome::None)),
    }
}
