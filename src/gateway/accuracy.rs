//! Our reading of statements against what the server says of them: the table and column that each plain result column
//! comes from (RowDescription), and names that it does not know. The log measures its own accuracy in production.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

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

impl Accuracy {
    /// Compares a reading with what the server says its result columns are, once. True when they differ: the catalog
    /// may be an old one.
    pub(super) fn compare(&self, reading: &Reading, origins: &[Origin], context: &Context) -> bool {
        if origins.is_empty() || reading.difference.get().is_some() {
            return false;
        }
        let told = origins.iter().filter_map(|origin| context.column_of(*origin));
        let missing = told.into_iter().find(|column| reading.shape.reads.binary_search(column).is_err());
        let note = missing
            .map(|column| format!("the server's answer holds {column}, which was not found in the text"));
        self.settle(reading, note)
    }

    /// The server does not know what an exact reading found.
    pub(super) fn refused(&self, reading: &Reading, end: &End) -> bool {
        let code = end.report.as_ref().map_or("", |report| report.code.as_str());
        // undefined_table, undefined_column, invalid_schema_name
        let unknown = matches!(code, "42P01" | "42703" | "3F000");
        if unknown && reading.is_sure() && reading.difference.get().is_none() {
            let note = "the server does not know a name that the statement was read with".to_owned();
            return self.settle(reading, Some(note));
        }
        false
    }

    fn settle(&self, reading: &Reading, note: Option<String>) -> bool {
        let differs = note.clone();
        if reading.difference.set(note.map(Into::into)).is_err() {
            return false;
        }
        self.compared.fetch_add(1, Ordering::Relaxed);
        let Some(note) = differs else { return false };
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
