//! Records are read from the journal when they are shown: the index has none.
//!
//! What the journal does not have any more, because its time was over or its values were erased, is
//! told by [`Lost`]; the answer then says what is left.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::journal::{Archive, JournalError, Position};
use crate::record::{Completion, Entry, Record, Seq};
use crate::storage::Storage;

/// Reads records by their places.
pub(crate) struct Recall {
    archive: Archive,
    /// The frame of the record that was read last.
    last: Mutex<Option<Position>>,
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
        Recall { archive: Archive::new(storage), last: Mutex::default() }
    }

    /// The record with a number, in the frame at a place.
    pub(crate) fn record(&self, at: Position, seq: u64) -> Result<Record, Lost> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).replace(at);
        // A frame of which a second record is wanted is read whole, and remembered: records of one
        // answer are often neighbours.
        if last == Some(at) {
            self.archive.frame(at)?;
        }
        self.archive.record(at, Seq(seq))?.ok_or(Lost::Gone)
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
}
