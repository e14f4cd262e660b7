//! Where others ask: for erasing values of a record, for what was erased of one, for the status.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::Duration;

use pgwitness_index::journal::{Archive, JournalError, Values};
use pgwitness_index::proof::leaf::Erasable;
use pgwitness_index::record::{Entry, Event, Record, Seal, Seals, Seq, Who};
use pgwitness_index::retention::Deed;
use pgwitness_index::storage::Storage;
use pgwitness_index::view::format_time;
use serde_json::{Value, json};

use super::status::Shared;

/// Whoever orders waits for so long; a segment is rewritten in seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// What somebody wants erased.
#[derive(Debug, Clone)]
pub(crate) struct Erase {
    pub(crate) seq: Seq,
    pub(crate) values: Values,
    pub(crate) reason: String,
    /// Who wants it.
    pub(crate) who: Who,
}

/// Why it was not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotErased {
    /// There is no such record any more.
    #[error("there is no such record")]
    NoRecord,
    /// A legal hold.
    #[error("the record is under a legal hold. Lift the hold first")]
    Held,
    /// Its end is still to be written.
    #[error("the statement is still running, or its end was not seen. Try again when it has ended")]
    Running,
    /// There is nothing of it.
    #[error("the record has none of these values, or not any more")]
    Nothing,
    /// Too much is asked at once, or no head was signed in time.
    #[error("the record could not be erased now: {0}. Try again")]
    Busy(String),
    /// Something failed; the log says what.
    #[error("the values could not be erased. The gateway's log says why")]
    Failed,
}

/// What the thread is told.
pub(super) enum Order {
    Erase(Box<Erase>, SyncSender<Result<Seq, NotErased>>),
    /// Look whether to stop.
    Wake,
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Desk {
    orders: SyncSender<Order>,
    archive: Arc<Archive>,
    shared: Arc<Shared>,
}

impl Desk {
    pub(super) fn new(orders: SyncSender<Order>, storage: Arc<dyn Storage>, shared: Arc<Shared>) -> Self {
        Self { orders, archive: Arc::new(Archive::new(storage)), shared }
    }

    /// Has values of a record erased; the record that says so. It blocks.
    ///
    /// # Errors
    /// They were not.
    pub(crate) fn erase(&self, erase: Erase) -> Result<Seq, NotErased> {
        let (answer, answered) = mpsc::sync_channel(1);
        let order = Order::Erase(Box::new(erase), answer);
        self.orders.try_send(order).map_err(|_| NotErased::Busy("others are before it".into()))?;
        match answered.recv_timeout(ANSWER_TIMEOUT) {
            Ok(done) => done,
            Err(RecvTimeoutError::Timeout) => Err(NotErased::Busy("it takes long".into())),
            Err(RecvTimeoutError::Disconnected) => Err(NotErased::Busy("the gateway is stopping".into())),
        }
    }

    /// What was erased of a record, when, by whom and why.
    ///
    /// # Errors
    /// The journal could not be read.
    pub(crate) fn erased(&self, seq: Seq) -> Result<Vec<Value>, JournalError> {
        let Some((at, index)) = self.archive.find(seq)? else { return Ok(Vec::new()) };
        let frame = self.archive.frame(at)?;
        let Some(Some(seals)) = frame.seals.get(index) else { return Ok(Vec::new()) };
        seals.reasons().into_iter().map(|by| self.told(by, seals)).collect()
    }

    fn told(&self, by: Seq, seals: &Seals) -> Result<Value, JournalError> {
        let gone = |value: Erasable| matches!(seals.0.get(value as usize), Some(Seal::Erased { by: own, .. }) if *own == by);
        let values: Vec<&str> =
            Erasable::ALL.into_iter().filter(|value| gone(*value)).map(Erasable::as_str).collect();
        let record = match self.archive.find(by)? {
            Some((at, index)) => match self.archive.entry(at, index)? {
                (_, Entry::Record(record)) => Some(record),
                _ => None,
            },
            None => None,
        };
        let (by_whom, why) = record.as_deref().map(reason).unwrap_or_default();
        Ok(json!({
            "fields": values,
            "time": record.map(|record| format_time(record.time)),
            "by": by_whom,
            "reason": why,
            "seq": by.0,
        }))
    }

    /// Rules, holds, what is oldest, when the next look is, and what stands against it.
    pub(crate) fn status(&self) -> Value {
        self.shared.status()
    }
}

/// By whom and why, as a record says it.
fn reason(record: &Record) -> (String, String) {
    let by = match record.event {
        Event::AuditErase => record.who.user.clone(),
        _ => "retention".to_owned(),
    };
    let why = match Deed::of(record) {
        Ok(Some(Deed::Texts { rule, .. } | Deed::Records { rule, .. })) => rule,
        Ok(Some(Deed::Values { reason, .. })) => reason,
        _ => String::new(),
    };
    (by, why)
}
