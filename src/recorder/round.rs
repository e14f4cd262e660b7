//! Rounds: the records of all sessions that are ready at one moment, in one write.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use pgwitness_index::journal::{Appended, Journal};
use pgwitness_index::record::{Completion, Entry, Outcome, Record, Seq, TxnOutcome};

use super::{AppendError, Receipt, RecordError, Shared, lock};

/// Lists of this many items are kept for the next round, larger ones given back.
const KEEP_MAX: usize = 1024;

/// io_error: what a client is told (PostgreSQL's appendix A).
const SQLSTATE: &str = "58030";
/// What the record of a refused statement says.
const REFUSED: &str = "could not write to the access log";

/// Records that are admitted together, or not at all.
#[derive(Debug, Default)]
pub struct Batch(Vec<Entry>);

impl Batch {
    /// Adds a record.
    pub fn push(&mut self, record: Record) {
        self.0.push(Entry::Record(Box::new(record)));
    }

    /// One of them, by its place.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut Record> {
        match self.0.get_mut(at)? {
            Entry::Record(record) => Some(record),
            _ => None,
        }
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes all of them away.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl From<Record> for Batch {
    fn from(record: Record) -> Self {
        Self(vec![Entry::Record(Box::new(record))])
    }
}

/// What is to be written with the next round. `batches` and `told` hold at most one item for each
/// session, `ends` is bounded by its callers.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) ends: Vec<Entry>,
    /// The records of all batches, in their order.
    records: Vec<Entry>,
    /// Whose they are: a ticket, and how many.
    batches: Vec<(u64, usize)>,
    /// What became of records that another session wrote.
    told: Told,
    tickets: u64,
}

/// What one write carries: ends first, then all records.
struct Round {
    entries: Vec<Entry>,
    ends: usize,
    batches: Vec<(u64, usize)>,
}

/// Lets the tasks go first that are ready already. (Tokio's `yield_now` would also look at all
/// sockets first: a system call, for a round that is hardly larger.)
#[derive(Default)]
pub(super) struct Turn {
    over: bool,
}

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.over, true) {
            return Poll::Ready(());
        }
        // A task that wakes itself goes to the end of its worker's queue.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A session's place in the next round. Dropped without being redeemed, it is given up: its records
/// are not written, unless another session has done so already.
pub(super) struct Place<'a> {
    shared: &'a Shared,
    ticket: u64,
}

impl<'a> Place<'a> {
    pub(super) fn take(shared: &'a Shared, batch: &mut Batch) -> Self {
        let mut waiting = lock(&shared.waiting);
        waiting.tickets += 1;
        let ticket = waiting.tickets;
        waiting.batches.push((ticket, batch.len()));
        waiting.records.append(&mut batch.0);
        Self { shared, ticket }
    }

    /// What became of the records; written now, with all others of the round, if they are not yet.
    pub(super) fn redeem(self) -> Result<Receipt, RecordError> {
        if let Some(told) = lock(&self.shared.waiting).take_told(self.ticket) {
            return told;
        }
        self.shared.check_usable()?;
        let mut journal = self.shared.journal()?;
        let round = {
            let mut waiting = lock(&self.shared.waiting);
            // Whoever had the journal before us may have written ours.
            if let Some(told) = waiting.take_told(self.ticket) {
                return told;
            }
            waiting.take_round()
        };
        self.shared.write_round(&mut journal, round);
        lock(&self.shared.waiting).take_told(self.ticket).unwrap_or_else(|| {
            let why = "a place was lost";
            self.shared.fail(why.to_owned());
            Err(RecordError::Stopped(why.into()))
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.shared.waiting);
        waiting.take_away(self.ticket);
        waiting.take_told(self.ticket);
    }
}

impl Waiting {
    fn take_told(&mut self, ticket: u64) -> Option<Result<Receipt, RecordError>> {
        let at = self.told.iter().position(|(known, _)| *known == ticket)?;
        Some(self.told.swap_remove(at).1)
    }

    fn take_away(&mut self, ticket: u64) {
        if let Some(at) = self.batches.iter().position(|(known, _)| *known == ticket) {
            let before: usize = self.batches.iter().take(at).map(|(_, count)| count).sum();
            let (_, count) = self.batches.remove(at);
            self.records.drain(before..before + count);
        }
    }

    fn take_round(&mut self) -> Round {
        let mut entries = std::mem::take(&mut self.ends);
        let ends = entries.len();
        entries.append(&mut self.records);
        Round { entries, ends, batches: std::mem::take(&mut self.batches) }
    }

    /// The lists of a round that was written serve again.
    fn reuse(&mut self, round: Round) {
        let Round { mut entries, mut batches, .. } = round;
        if self.ends.capacity() == 0 && entries.capacity() <= KEEP_MAX {
            entries.clear();
            self.ends = entries;
        }
        if self.batches.capacity() == 0 && batches.capacity() <= KEEP_MAX {
            batches.clear();
            self.batches = batches;
        }
    }
}

type Told = Vec<(u64, Result<Receipt, RecordError>)>;

impl Shared {
    /// One write carries all of the round, or nothing. What became of it is told.
    fn write_round(&self, journal: &mut Option<Journal>, mut round: Round) {
        match self.append(journal, &round.entries) {
            Ok(appended) => {
                // Records are large: they go before the others are kept waiting.
                round.entries.clear();
                let mut waiting = lock(&self.waiting);
                self.receipts(appended, &round.batches, &mut waiting.told);
                waiting.reuse(round);
            }
            // What the journal will never take must not stand in the way of the others.
            Err(AppendError::Refused(_)) if round.ends > 0 || round.batches.len() > 1 => {
                let records = round.entries.split_off(round.ends);
                if !round.entries.is_empty() {
                    self.write_ends(journal, round.entries);
                }
                let told = self.write_apart(journal, records, &round.batches);
                lock(&self.waiting).told.extend(told);
            }
            Err(error) => {
                let records = round.entries.split_off(round.ends);
                self.put_back(round.entries);
                if matches!(error, AppendError::Full(_)) {
                    self.record_refusals(journal, records);
                }
                let error = RecordError::from(error);
                let told = round.batches.iter().map(|(ticket, _)| (*ticket, Err(error.clone())));
                lock(&self.waiting).told.extend(told);
            }
        }
    }

    /// On a full disk: what is refused now is recorded as refused, in space that was set aside.
    fn record_refusals(&self, journal: &mut Option<Journal>, records: Vec<Entry>) {
        let refusals: Vec<_> = records.into_iter().filter_map(refusal).collect();
        let Some(journal) = journal.as_mut().filter(|_| !refusals.is_empty()) else { return };
        self.reserve_used.store(true, Ordering::Release);
        match journal.append_reserved(&refusals) {
            Ok(appended) => {
                self.written.store(appended.end, Ordering::Release);
                self.last_seq.store(appended.first.0 + refusals.len() as u64 - 1, Ordering::Release);
            }
            Err(error) => {
                let count = refusals.len();
                tracing::error!(%error, count, "refused statements could not be recorded either");
            }
        }
    }

    /// Each session's records in a write of their own.
    fn write_apart(
        &self,
        journal: &mut Option<Journal>,
        mut records: Vec<Entry>,
        batches: &[(u64, usize)],
    ) -> Told {
        let mut told = Told::new();
        for &(ticket, count) in batches {
            let later = records.split_off(count.min(records.len()));
            match self.append(journal, &records) {
                Ok(appended) => self.receipts(appended, &[(ticket, count)], &mut told),
                Err(error) => told.push((ticket, Err(error.into()))),
            }
            records = later;
        }
        told
    }

    fn receipts(&self, appended: Appended, batches: &[(u64, usize)], told: &mut Told) {
        let mut first = appended.first.0;
        for &(ticket, count) in batches {
            told.push((ticket, Ok(Receipt { first: Seq(first), position: appended.end })));
            first += count as u64;
        }
        self.last_seq.store(first.saturating_sub(1), Ordering::Release);
    }
}

/// The record of a statement that is refused because the disk is full. Of things that are over only
/// those that were refused anyway are left: the others did not happen.
fn refusal(entry: Entry) -> Option<Entry> {
    let Entry::Record(mut record) = entry else { return None };
    match &record.done {
        Some(done) if done.outcome != Outcome::Denied => return None,
        Some(_) => {}
        None => {
            let end = Completion::new(Outcome::Denied, TxnOutcome::None);
            record.done = Some(Completion { sqlstate: SQLSTATE.into(), error: REFUSED.into(), ..end });
        }
    }
    Some(Entry::Record(record))
}
