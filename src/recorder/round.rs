//! Rounds: the records of all sessions that are ready at one moment, in one write.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use pgwitness_index::journal::{Appended, Journal};
use pgwitness_index::record::{Entry, Record, Seq};

use super::{AppendError, Receipt, RecordError, Shared, lock};

/// What is to be written with the next round. `queue` and `told` hold at most one item for each
/// session, `ends` is bounded by its callers.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) ends: Vec<Entry>,
    queue: Vec<Queued>,
    /// What became of records that another session wrote.
    told: Vec<(u64, Result<Receipt, RecordError>)>,
    tickets: u64,
}

struct Queued {
    ticket: u64,
    records: Vec<Record>,
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
    pub(super) fn take(shared: &'a Shared, records: Vec<Record>) -> Self {
        let mut waiting = lock(&shared.waiting);
        waiting.tickets += 1;
        let ticket = waiting.tickets;
        waiting.queue.push(Queued { ticket, records });
        Self { shared, ticket }
    }

    /// What became of the records; written now, with all others of the round, if they are not yet.
    pub(super) fn redeem(self) -> Result<Receipt, RecordError> {
        if let Some(told) = lock(&self.shared.waiting).take_told(self.ticket) {
            return told;
        }
        self.shared.check_usable()?;
        let mut journal = self.shared.journal()?;
        let (ends, queue) = {
            let mut waiting = lock(&self.shared.waiting);
            // Whoever had the journal before us may have written ours.
            if let Some(told) = waiting.take_told(self.ticket) {
                return told;
            }
            (std::mem::take(&mut waiting.ends), std::mem::take(&mut waiting.queue))
        };
        let told = self.shared.write_round(&mut journal, ends, queue);
        let mut waiting = lock(&self.shared.waiting);
        waiting.told.extend(told);
        waiting.take_told(self.ticket).unwrap_or_else(|| {
            let why = "a place was lost";
            self.shared.fail(why.to_owned());
            Err(RecordError::Stopped(why.into()))
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.shared.waiting);
        waiting.queue.retain(|queued| queued.ticket != self.ticket);
        waiting.take_told(self.ticket);
    }
}

impl Waiting {
    fn take_told(&mut self, ticket: u64) -> Option<Result<Receipt, RecordError>> {
        let at = self.told.iter().position(|(known, _)| *known == ticket)?;
        Some(self.told.swap_remove(at).1)
    }
}

type Told = Vec<(u64, Result<Receipt, RecordError>)>;

impl Shared {
    /// Ends first, then all records: one write carries them, all or none.
    fn write_round(&self, journal: &mut Option<Journal>, ends: Vec<Entry>, queue: Vec<Queued>) -> Told {
        let mut entries = ends;
        let ends = entries.len();
        let batches: Vec<_> = queue.iter().map(|queued| (queued.ticket, queued.records.len())).collect();
        let records = queue.into_iter().flat_map(|queued| queued.records);
        entries.extend(records.map(|record| Entry::Record(Box::new(record))));
        match self.append(journal, &entries) {
            Ok(appended) => self.receipts(appended, &batches),
            // What the journal will never take must not stand in the way of the others.
            Err(AppendError::Refused(_)) if ends > 0 || batches.len() > 1 => {
                let records = entries.split_off(ends);
                if !entries.is_empty() {
                    self.write_ends(journal, entries);
                }
                self.write_apart(journal, records, &batches)
            }
            Err(error) => {
                entries.truncate(ends);
                self.put_back(entries);
                let error = RecordError::from(error);
                batches.into_iter().map(|(ticket, _)| (ticket, Err(error.clone()))).collect()
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
                Ok(appended) => told.extend(self.receipts(appended, &[(ticket, count)])),
                Err(error) => told.push((ticket, Err(error.into()))),
            }
            records = later;
        }
        told
    }

    fn receipts(&self, appended: Appended, batches: &[(u64, usize)]) -> Told {
        let mut first = appended.first.0;
        let receipt = |&(ticket, count): &(u64, usize)| {
            let receipt = Receipt { first: Seq(first), position: appended.end };
            first += count as u64;
            (ticket, Ok(receipt))
        };
        let told = batches.iter().map(receipt).collect();
        self.last_seq.store(first.saturating_sub(1), Ordering::Release);
        told
    }
}
