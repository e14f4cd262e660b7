//! What is promised and not yet kept: records without an end, ends without a settled transaction.
//!
//! The writer refuses what would break a promise, recovery and verification check the same rules
//! with the same code. Changes can be undone until they are kept.

use super::seqs::SeqSet;
use crate::record::{Completion, Entry, Record, Seq, Settlement, TxnOutcome};

/// Most ranges of open, and of unsettled, records at one time.
pub(crate) const PROMISE_RANGES_MAX: usize = 1 << 22;

/// Why an entry does not fit what came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerFault {
    /// A completion for a record that is not open.
    #[error("record {0} cannot be completed: it does not exist, or its end was written before")]
    NotOpen(Seq),
    /// A settlement for a record whose transaction is not open.
    #[error("record {0} cannot be settled: its transaction is not open, or was settled before")]
    NotUnsettled(Seq),
    /// A settlement that settles nothing.
    #[error("a settlement cannot leave the transaction open")]
    SettledAsOpen,
    /// Too many promises at one time.
    #[error("too many records wait for their end: more than {PROMISE_RANGES_MAX} separate ranges")]
    TooMany,
}

/// The promises, and the next number.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    next: Seq,
    open: SeqSet,
    unsettled: SeqSet,
    undo: Vec<Change>,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Numbered,
    Opened(Seq),
    Closed(Seq),
    Unsettled(Seq),
    Settled(Seq),
}

impl Ledger {
    /// The ledger of an empty journal.
    pub(crate) fn empty() -> Self {
        Self::carried(Seq(1), SeqSet::default(), SeqSet::default())
    }

    /// The ledger as carried into a segment.
    pub(crate) fn carried(next: Seq, open: SeqSet, unsettled: SeqSet) -> Self {
        Self { next, open, unsettled, undo: Vec::new() }
    }

    pub(crate) fn next(&self) -> Seq {
        self.next
    }

    pub(crate) fn open(&self) -> &SeqSet {
        &self.open
    }

    pub(crate) fn unsettled(&self) -> &SeqSet {
        &self.unsettled
    }

    /// Whether both hold the same promises.
    pub(crate) fn agrees(&self, open: &SeqSet, unsettled: &SeqSet) -> bool {
        self.open == *open && self.unsettled == *unsettled
    }

    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<(), LedgerFault> {
        match entry {
            Entry::Record(record) => self.record(record),
            Entry::Completion(completion) => self.completion(completion),
            Entry::Settlement(settlement) => self.settlement(settlement),
        }
    }

    /// Keeps all changes since the last `keep` or `undo`.
    pub(crate) fn keep(&mut self) {
        self.undo.clear();
    }

    /// Takes back all changes since the last `keep` or `undo`.
    pub(crate) fn undo(&mut self) {
        while let Some(change) = self.undo.pop() {
            match change {
                Change::Numbered => self.next.0 -= 1,
                Change::Opened(seq) => _ = self.open.remove(seq),
                Change::Closed(seq) => _ = self.open.insert(seq),
                Change::Unsettled(seq) => _ = self.unsettled.remove(seq),
                Change::Settled(seq) => _ = self.unsettled.insert(seq),
            }
        }
    }

    fn record(&mut self, record: &Record) -> Result<(), LedgerFault> {
        let seq = self.next;
        self.next.0 += 1;
        self.undo.push(Change::Numbered);
        match &record.done {
            None => {
                self.open.insert(seq);
                self.undo.push(Change::Opened(seq));
                if self.open.range_count() > PROMISE_RANGES_MAX { Err(LedgerFault::TooMany) } else { Ok(()) }
            }
            Some(done) => self.ended(seq, done.txn_outcome),
        }
    }

    fn completion(&mut self, completion: &Completion) -> Result<(), LedgerFault> {
        if !self.open.remove(completion.seq) {
            return Err(LedgerFault::NotOpen(completion.seq));
        }
        self.undo.push(Change::Closed(completion.seq));
        self.ended(completion.seq, completion.txn_outcome)
    }

    fn ended(&mut self, seq: Seq, txn: TxnOutcome) -> Result<(), LedgerFault> {
        if txn != TxnOutcome::Open {
            return Ok(());
        }
        self.unsettled.insert(seq);
        self.undo.push(Change::Unsettled(seq));
        if self.unsettled.range_count() > PROMISE_RANGES_MAX { Err(LedgerFault::TooMany) } else { Ok(()) }
    }

    fn settlement(&mut self, settlement: &Settlement) -> Result<(), LedgerFault> {
        if settlement.txn_outcome == TxnOutcome::Open {
            return Err(LedgerFault::SettledAsOpen);
        }
        for &seq in &settlement.seqs {
            if !self.unsettled.remove(seq) {
                return Err(LedgerFault::NotUnsettled(seq));
            }
            self.undo.push(Change::Settled(seq));
        }
        Ok(())
    }
}
