//! Records are read from the journal when they are shown: the index has none.
//!
//! What the journal does not have any more, because its time was over or its values were erased, is
//! told by [`Lost`]; the answer then says what is left.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::journal::{Archive, JournalError, Position, StoredFrame};
use crate::record::{Completion, Entry, Record, Seq};
use crate::storage::Storage;

/// Frames that were read last: records of one answer are often neighbours.
const NEAR: usize = 16;

/// Reads records by their numbers.
pub(crate) struct Recall {
    archive: Archive,
    near: Mutex<VecDeque<Arc<StoredFrame>>>,
}

/// Why a record is not shown.
#[derive(Debug)]
pub(crate) enum Lost {
    /// It is not in the journal, or not any more.
    Gone,
    /// It could not be read.
    Unread(JournalError),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::Gone => f.write_str("the record is not in the journal any more"),
            Lost::Unread(error) => write!(f, "the record could not be read from the journal: {error}"),
        }
    }
}

impl From<JournalError> for Lost {
    fn from(error: JournalError) -> Lost {
        match error {
            JournalError::NoSuchPosition { .. } => Lost::Gone,
            JournalError::Io { ref source, .. } if source.kind() == io::ErrorKind::NotFound => Lost::Gone,
            error => Lost::Unread(error),
        }
    }
}

impl Recall {
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Recall {
        Recall { archive: Archive::new(storage), near: Mutex::default() }
    }

    /// The record with a number.
    pub(crate) fn record(&self, seq: u64) -> Result<Record, Lost> {
        let of = |frame: &StoredFrame| {
            frame.entries.iter().find_map(|(number, entry)| match entry {
                Entry::Record(record) if *number == Some(Seq(seq)) => Some(Record::clone(record)),
                _ => None,
            })
        };
        let near = |frame: &Arc<StoredFrame>| {
            let mut numbers = frame.entries.iter().filter_map(|(number, _)| *number);
            let first = numbers.next();
            first.is_some_and(|first| first.0 <= seq)
                && numbers.next_back().or(first).is_some_and(|last| seq <= last.0)
        };
        let known = self.near().iter().find(|frame| near(frame)).cloned();
        if let Some(record) = known.and_then(|frame| of(&frame)) {
            return Ok(record);
        }
        let (at, _) = self.archive.find(Seq(seq))?.ok_or(Lost::Gone)?;
        let frame = self.archive.frame(at)?;
        let mut near = self.near();
        near.truncate(NEAR - 1);
        near.push_front(Arc::clone(&frame));
        drop(near);
        of(&frame).ok_or(Lost::Gone)
    }

    /// How a record ended, as the frame at a place says.
    pub(crate) fn completion(&self, at: Position, seq: u64) -> Result<Completion, Lost> {
        let frame = self.archive.frame(at)?;
        let found = frame.entries.iter().find_map(|(_, entry)| match entry {
            Entry::Completion(completion) if completion.seq == Seq(seq) => Some(completion.clone()),
            _ => None,
        });
        found.ok_or(Lost::Gone)
    }

    fn near(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<StoredFrame>>> {
        self.near.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
