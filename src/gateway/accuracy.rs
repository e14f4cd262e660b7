//! Our reading of statements against what the server says of them: the table and column that each plain result column
//! comes from (RowDescription), and names that it does not know. The log measures its own accuracy in production.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use pgwitness_index::record::Class;
use pgwitness_protocol::conversation::{End, Origin};
use serde_json::{Value, json};

use super::reading::{Context, Reading};

/// The most differences remembered.
const EXAMPLES_MAX: usize = 20;

/// How often both were compared, and where they differed.
#[derive(Debug, Default)]
pub(super) struct Accuracy {
    compared: AtomicU64,
    differing: AtomicU64,
    last: Mutex<VecDeque<Difference>>,
}

#[derive(Debug)]
struct Difference {
    fingerprint: String,
    command: String,
    note: String,
}

/// What became of the comparison of one reading.
#[derive(Debug, Default)]
pub(super) struct Check {
    /// What the server said when both were the same.
    agreed: OnceLock<Box<[Origin]>>,
    differs: OnceLock<Box<str>>,
}

impl Check {
    /// How both differ.
    pub(super) fn differs(&self) -> Option<&str> {
        self.differs.get().map(|note| &**note)
    }
}

impl Accuracy {
    /// Compares a reading with what the server says its result columns are. True when they differ for the first time:
    /// the catalog may be an old one.
    pub(super) fn compare(&self, reading: &Reading, origins: &[Origin], context: &Context) -> bool {
        let check = &reading.check;
        if origins.is_empty()
            || check.differs().is_some()
            || check.agreed.get().is_some_and(|known| **known == *origins)
        {
            return false;
        }
        let told = origins.iter().filter_map(|origin| context.column_of(*origin));
        let missing = told.into_iter().find(|column| reading.shape.reads.binary_search(column).is_err());
        if let Some(column) = missing {
            return self.differs(
                reading,
                format!("the server's answer holds {column}, which was not found in the text"),
            );
        }
        if check.agreed.set(origins.into()).is_ok() {
            self.compared.fetch_add(1, Ordering::Relaxed);
        }
        false
    }

    /// The server may not know what an exact reading found. True when that is seen for the first time.
    pub(super) fn refused(&self, reading: &Reading, end: &End) -> bool {
        let code = end.report.as_ref().map_or("", |report| report.code.as_str());
        // undefined_table, undefined_column, invalid_schema_name
        let unknown = matches!(code, "42P01" | "42703" | "3F000");
        // Of what commands on objects name, only tables are looked up.
        let looked_up = reading.shape.class.iter().any(|class| matches!(class, Class::Read | Class::Write));
        unknown
            && looked_up
            && reading.is_sure()
            && self.differs(
                reading,
                "the server does not know a name that the statement was read with".to_owned(),
            )
    }

    fn differs(&self, reading: &Reading, note: String) -> bool {
        if reading.check.differs.set(note.clone().into()).is_err() {
            return false;
        }
        if reading.check.agreed.get().is_none() {
            self.compared.fetch_add(1, Ordering::Relaxed);
        }
        self.differing.fetch_add(1, Ordering::Relaxed);
        let (fingerprint, command) = (reading.shape.fingerprint.clone(), reading.shape.command.clone());
        tracing::warn!(%fingerprint, %command, %note, "a statement was read differently from what the server says");
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() >= EXAMPLES_MAX {
            last.pop_front();
        }
        last.push_back(Difference { fingerprint, command, note });
        true
    }

    /// For the status.
    pub(super) fn report(&self) -> Value {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.iter().rev().map(|difference| {
            json!({
                "fingerprint": difference.fingerprint, "command": difference.command, "note": difference.note,
            })
        });
        json!({
            "compared": self.compared.load(Ordering::Relaxed),
            "differing": self.differing.load(Ordering::Relaxed),
            "last": last.collect::<Vec<_>>(),
        })
    }
}
