//! A record on its way into the index, or read from the journal again.

use std::sync::Arc;

use crate::journal::Position;
use crate::record::{
    Certainty, Class, Completion, Event, Outcome, Param, Record, Seq, Shape, Sql, TxnOutcome,
};
use crate::view::{self, View};

/// A record and what is known of its end.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    record: Arc<Record>,
    at: Position,
    end: Option<End>,
    txn_outcome: TxnOutcome,
}

/// How an execution ended, and the frame of the journal that says so.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) completion: Completion,
    pub(crate) at: Position,
}

impl Draft {
    pub(crate) fn new(record: Record, at: Position) -> Draft {
        let txn_outcome = record.done.as_ref().map_or(TxnOutcome::Open, |done| done.txn_outcome);
        Draft { record: Arc::new(record), at, end: None, txn_outcome }
    }

    /// A record as it was indexed.
    pub(crate) fn again(record: Record, at: Position, end: Option<End>, txn_outcome: TxnOutcome) -> Draft {
        Draft { record: Arc::new(record), at, end, txn_outcome }
    }

    /// How the execution ended; counts once only.
    pub(crate) fn complete(&mut self, end: End) {
        if self.is_running() {
            self.txn_outcome = end.completion.txn_outcome;
            self.end = Some(end);
        }
    }

    /// How the transaction ended, if it was still open.
    pub(crate) fn settle(&mut self, txn_outcome: TxnOutcome) {
        if self.txn_outcome == TxnOutcome::Open {
            self.txn_outcome = txn_outcome;
        }
    }

    /// Whether the end, or that of its transaction, is still to come.
    pub(crate) fn is_open(&self) -> bool {
        self.is_running() || self.txn_outcome == TxnOutcome::Open
    }

    pub(crate) fn is_running(&self) -> bool {
        self.record.done.is_none() && self.end.is_none()
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// How the execution ended, if that is known.
    pub(crate) fn end(&self) -> Option<&Completion> {
        self.record.done.as_ref().or(self.end.as_ref().map(|end| &end.completion))
    }

    /// The frame of the journal that has the record.
    pub(crate) fn at(&self) -> Position {
        self.at
    }

    /// The frame that says how the execution ended, if that is another than the record's.
    pub(crate) fn end_at(&self) -> Option<Position> {
        self.end.as_ref().map(|end| end.at)
    }

    pub(crate) fn txn_outcome(&self) -> TxnOutcome {
        self.txn_outcome
    }

    pub(crate) fn is_statement(&self) -> bool {
        view::is_statement(&self.record)
    }

    /// About how many bytes it holds in memory.
    pub(crate) fn weight(&self) -> usize {
        const FIELDS: usize = 1_024;
        let params: usize = self.record.params.iter().map(param_weight).sum();
        FIELDS + params + self.record.sql.as_ref().map_or(0, |sql| sql.as_bytes().len())
    }

    /// The merged view.
    pub(crate) fn view(&self, seq: u64) -> View {
        let mut view =
            view::merged(&self.record, Seq(seq), self.end.as_ref().map(|end| &end.completion), None);
        view::settle(&mut view, self.txn_outcome);
        view
    }

    /// A plain statement with a plain end: what it shares with others is defined in the dictionary, and its
    /// document refers to that.
    pub(crate) fn plain(&self) -> Option<Plain<'_>> {
        let record = &*self.record;
        let end = self.end.as_ref().filter(|end| end.completion.notes.is_empty())?;
        let shape = record.shape.as_ref().filter(|shape| !shape.command.is_empty())?;
        let sql = record.sql.as_ref()?;
        let text = std::str::from_utf8(sql.as_bytes()).ok()?;
        (record.event == Event::Query).then_some(Plain {
            record,
            sql,
            text,
            shape,
            end: &end.completion,
            txn_outcome: self.txn_outcome,
        })
    }
}

fn param_weight(param: &Param) -> usize {
    const VALUE: usize = 32;
    match param {
        Param::Text(text) => VALUE + text.len(),
        Param::Bytes(bytes) => VALUE + bytes.len(),
        _ => VALUE,
    }
}

/// A statement that can go the short way.
pub(crate) struct Plain<'a> {
    pub(crate) record: &'a Record,
    pub(crate) sql: &'a Sql,
    /// The same, in letters.
    pub(crate) text: &'a str,
    pub(crate) shape: &'a Arc<Shape>,
    pub(crate) end: &'a Completion,
    pub(crate) txn_outcome: TxnOutcome,
}

impl Plain<'_> {
    /// Whether nothing is to be said of its end but numbers.
    pub(crate) fn ended_well(&self) -> bool {
        self.end.sqlstate.is_empty() && self.end.error.is_empty()
    }

    pub(crate) fn is(&self) -> Vec<&'static str> {
        let facts = view::Facts {
            failed: self.end.outcome == Outcome::Error,
            denied: self.end.outcome == Outcome::Denied,
            ddl: self.shape.class.contains(&Class::Ddl),
            write: self.shape.class.contains(&Class::Write),
            rows: self.end.rows.unwrap_or(0),
            tagged: !self.shape.tags.is_empty(),
            unparsed: self.shape.analysis == Certainty::Unresolved,
        };
        facts.is().collect()
    }
}
