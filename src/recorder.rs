//! No record, no query: the gate between the relay and the journal.
//!
//! Whoever wants to forward something that is executed must first get a [`Receipt`] from
//! [`Recorder::admit`]; nobody else can make one:
//!
//! ```compile_fail
//! // A receipt has private fields and no constructor.
//! let receipt = pgwitness::recorder::Receipt { first: pgwitness_index::record::Seq(1), position: 0 };
//! ```
//!
//! A record is written by its own session, in one `write` under the journal's lock, together with
//! all ends that waited: a thread of its own would cost each statement two wake-ups (5 µs), the
//! write costs less. While other statements run, a session first lets those go that are ready in the
//! same turn of the scheduler: the first to go on writes for all of them (a [`round`]). What may take
//! long, `fdatasync`, and ends that no next record carries along are the business of the journal
//! thread.
//!
//! Ends wait at most [`FLUSH_EVERY`] to be written. If the process is killed in between, the
//! record stands and its outcome is `unknown`.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use pgwitness_index::journal::{Appended, Head, Journal, JournalError, Position};
use pgwitness_index::record::{Completion, Entry, Record, Seq, Settlement};
use tokio::sync::watch;

use crate::config::Durability;
pub use alarm::alert;
pub use round::Batch;
use round::{Place, Turn, Waiting};

mod alarm;
mod round;

/// Ends wait at most this long, and `batch` syncs this often.
const FLUSH_EVERY: Duration = Duration::from_millis(5);

/// What could not be done because the disk is full is tried again this often.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// Ends that wait; beyond, they are written at once by whoever adds one.
const MAX_WAITING: usize = 4096;

/// Proof that records stand in the journal: the key to forwarding.
#[derive(Debug)]
pub struct Receipt {
    first: Seq,
    position: u64,
}

impl Receipt {
    /// Position of the first of the records; the others follow without a gap.
    pub fn first(&self) -> Seq {
        self.first
    }
}

/// Why nothing could be recorded, and so nothing may pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The journal could not be written. It may work again (space returns).
    #[error("could not write to the access log")]
    Write(String),
    /// The journal could not be made durable, or is closed: final until a restart.
    #[error("the access log has stopped")]
    Stopped(String),
}

/// How far the journal is durable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Durable {
    position: u64,
    /// The end of the journal as it was then.
    end: Option<Position>,
    failed: Option<String>,
}

/// Why nothing was appended.
enum AppendError {
    /// For what the entries say: trying again is useless.
    Refused(JournalError),
    /// The disk is full.
    Full(RecordError),
    Other(RecordError),
}

impl From<AppendError> for RecordError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Refused(error) => RecordError::Write(error.to_string()),
            AppendError::Full(error) | AppendError::Other(error) => error,
        }
    }
}

struct Shared {
    journal: Mutex<Option<Journal>>,
    waiting: Mutex<Waiting>,
    /// Statements that were admitted and have not ended. Only a hint: below zero is harmless.
    running: AtomicI64,
    /// The journal thread has something to do.
    wanted: AtomicBool,
    /// Somebody waits for this position to be durable: as long as it is not, sync now rather than at the next tick. A
    /// position, not a flag: of the sessions of one round the first wishes for a sync, and when the others come to wish
    /// for the same it must not bring about a second one that carries nothing but ends.
    urgent: AtomicU64,
    /// The disk was full: what was set aside for then is to be set aside again.
    reserve_used: AtomicBool,
    /// Position of the last write.
    written: AtomicU64,
    last_seq: AtomicU64,
    /// Syncs that failed and were survived.
    failed_syncs: AtomicU64,
    closing: AtomicBool,
    durability: Durability,
    durable: watch::Sender<Durable>,
}

/// Hands out receipts. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
    thread: Thread,
}

/// The journal thread: ends when told to, after writing what waits.
pub struct RecorderThread {
    recorder: Recorder,
    handle: JoinHandle<()>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("last_seq", &self.last_seq()).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Takes over the journal.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(
        mut journal: Journal,
        durability: Durability,
    ) -> std::io::Result<(Recorder, RecorderThread)> {
        let last_seq = journal.head().seq.0;
        let whole = refill_reserve(&mut journal);
        // What an earlier process wrote was made durable when the journal was opened.
        let durable = Durable { end: Some(journal.position()), ..Durable::default() };
        let shared = Arc::new(Shared {
            journal: Mutex::new(Some(journal)),
            waiting: Mutex::default(),
            running: AtomicI64::new(0),
            wanted: AtomicBool::new(false),
            urgent: AtomicU64::new(0),
            reserve_used: AtomicBool::new(!whole),
            written: AtomicU64::new(0),
            last_seq: AtomicU64::new(last_seq),
            failed_syncs: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            durability,
            durable: watch::Sender::new(durable),
        });
        let thread_shared = shared.clone();
        let handle = thread::Builder::new().name("journal".into()).spawn(move || {
            // Whoever waits for durability must hear of it if this thread panics.
            let _guard = Guard(&thread_shared);
            run(&thread_shared);
        })?;
        let recorder = Recorder { shared, thread: handle.thread().clone() };
        Ok((recorder.clone(), RecorderThread { recorder, handle }))
    }

    /// Writes the records of a batch, all or none, and empties it, before anything they speak of happens. With `strict` durability
    /// they are synced when this returns.
    ///
    /// Cancel safe: a dropped call may have written the records, never half of them.
    ///
    /// # Errors
    /// The journal could not be written; nothing may pass.
    pub async fn admit(&self, batch: &mut Batch) -> Result<Receipt, RecordError> {
        let count = batch.len();
        let place = Place::take(&self.shared, batch);
        if self.shared.running.load(Ordering::Relaxed) > 0 {
            Turn::default().await;
        }
        let receipt = place.redeem()?;
        self.shared.running.fetch_add(count as i64, Ordering::Relaxed);
        match self.shared.durability {
            Durability::Strict => self.durable(receipt.position).await?,
            // What will be waited for is synced while the database works.
            Durability::Held => self.wake_for(receipt.position),
            Durability::Batch => self.wake(),
        }
        Ok(receipt)
    }

    /// Writes one record of something that is over or waits for nobody (a login, a refusal, a search).
    ///
    /// # Errors
    /// The journal could not be written.
    pub fn note(&self, record: Record) -> Result<Seq, RecordError> {
        let receipt = Place::take(&self.shared, &mut record.into()).redeem()?;
        self.wake();
        Ok(receipt.first)
    }

    /// Completes the segment that is written, if it has entries. It blocks for a sync.
    ///
    /// # Errors
    /// The journal could not be written.
    pub fn begin_segment(&self) -> Result<(), RecordError> {
        self.shared.begin_segment()
    }

    /// Tells how executions, and transactions, ended, and empties the lists. It is written with the next
    /// record, or within [`FLUSH_EVERY`].
    pub fn tell(&self, completions: &mut Vec<Completion>, settlements: &mut Vec<Settlement>) {
        if completions.is_empty() && settlements.is_empty() {
            return;
        }
        self.shared.running.fetch_sub(completions.len() as i64, Ordering::Relaxed);
        let full = {
            let ends = &mut lock(&self.shared.waiting).ends;
            ends.extend(completions.drain(..).map(Entry::Completion));
            ends.extend(settlements.drain(..).map(Entry::Settlement));
            ends.len() >= MAX_WAITING
        };
        if full {
            self.shared.flush();
        }
        self.wake();
    }

    /// Whether a result must be held back until [`Recorder::released`].
    pub fn holds_results(&self) -> bool {
        self.shared.durability == Durability::Held
    }

    /// Waits until the records of a receipt are durable, so that results may pass (`held`).
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The journal could not be made durable; the result must not pass.
    pub async fn released(&self, receipt: &Receipt) -> Result<(), RecordError> {
        self.durable(receipt.position).await
    }

    async fn durable(&self, position: u64) -> Result<(), RecordError> {
        let mut durable = self.shared.durable.subscribe();
        if durable.borrow().position < position {
            self.wake_for(position);
        }
        let reached = durable
            .wait_for(|durable| durable.failed.is_some() || durable.position >= position)
            .await
            .map_err(|_| RecordError::Stopped("the journal thread has ended".into()))?;
        match &reached.failed {
            Some(failed) => Err(RecordError::Stopped(failed.clone())),
            None => Ok(()),
        }
    }

    fn wake(&self) {
        // Whoever finds it wanted already is taken along: the thread clears it before it looks.
        if !self.shared.wanted.swap(true, Ordering::AcqRel) {
            self.thread.unpark();
        }
    }

    /// Has all up to a position made durable now.
    fn wake_for(&self, position: u64) {
        let is_news = self.shared.urgent.fetch_max(position, Ordering::AcqRel) < position;
        if !self.shared.wanted.swap(true, Ordering::AcqRel) || is_news {
            self.thread.unpark();
        }
    }

    /// Position of the newest record.
    pub fn last_seq(&self) -> Seq {
        Seq(self.shared.last_seq.load(Ordering::Acquire))
    }

    /// The journal's head: how many records, and the digest over all of them.
    pub fn head(&self) -> Option<Head> {
        lock(&self.shared.journal).as_ref().map(Journal::head)
    }

    /// The end of what is durable: a boundary in the journal.
    pub fn durable_to(&self) -> Position {
        self.shared.durable.borrow().end.unwrap_or(Position { segment: 0, offset: 0 })
    }

    /// How many syncs of the journal failed and were survived: the disk is not to be trusted.
    pub fn failed_syncs(&self) -> u64 {
        self.shared.failed_syncs.load(Ordering::Relaxed)
    }

    /// Why the journal no longer works, if so.
    pub fn failure(&self) -> Option<String> {
        self.shared.durable.borrow().failed.clone()
    }
}

impl RecorderThread {
    /// Writes what waits, closes the journal in order, and ends the thread.
    pub fn close(self) {
        self.recorder.shared.closing.store(true, Ordering::Release);
        self.recorder.thread.unpark();
        if self.handle.join().is_err() {
            tracing::error!("the journal thread panicked");
        }
    }
}

impl Shared {
    /// The journal, for one write. After a panic in the middle of one nobody knows what it holds: it
    /// takes no more.
    fn journal(&self) -> Result<MutexGuard<'_, Option<Journal>>, RecordError> {
        self.journal.lock().map_err(|_| {
            let reason = "a write to the journal panicked";
            self.fail(reason.to_owned());
            RecordError::Stopped(reason.into())
        })
    }

    fn check_usable(&self) -> Result<(), RecordError> {
        match &self.durable.borrow().failed {
            Some(failed) => Err(RecordError::Stopped(failed.clone())),
            None => Ok(()),
        }
    }

    /// From now on statements are refused.
    fn fail(&self, reason: String) {
        self.durable.send_if_modified(|durable| {
            let first = durable.failed.is_none();
            if first {
                tracing::error!(%reason, "the journal has stopped: statements are refused from now on");
                durable.failed = Some(reason);
            }
            first
        });
    }

    fn append(&self, journal: &mut Option<Journal>, entries: &[Entry]) -> Result<Appended, AppendError> {
        let Some(journal) = journal.as_mut() else {
            return Err(AppendError::Other(RecordError::Stopped("the journal is closed".into())));
        };
        let appended = match journal.append(entries) {
            Err(error) if error.is_final() && self.resume(journal, &error) => journal.append(entries),
            appended => appended,
        };
        match appended {
            Ok(appended) => {
                self.written.store(appended.end, Ordering::Release);
                Ok(appended)
            }
            Err(error) if error.is_callers_fault() => {
                tracing::error!(%error, "the journal refused an entry");
                Err(AppendError::Refused(error))
            }
            Err(error) if error.is_final() => {
                self.fail(error.to_string());
                Err(AppendError::Other(RecordError::Stopped(error.to_string())))
            }
            Err(error) => {
                tracing::error!(%error, "could not write to the journal");
                let refused = RecordError::Write(error.to_string());
                Err(if error.is_disk_full() {
                    AppendError::Full(refused)
                } else {
                    AppendError::Other(refused)
                })
            }
        }
    }

    fn begin_segment(&self) -> Result<(), RecordError> {
        self.check_usable()?;
        let mut journal = self.journal()?;
        let Some(journal) = journal.as_mut() else {
            return Err(RecordError::Stopped("the journal is closed".into()));
        };
        match journal.begin_segment() {
            Err(error) if error.is_final() && self.resume(journal, &error) => {}
            Err(error) if error.is_final() => {
                self.fail(error.to_string());
                return Err(RecordError::Stopped(error.to_string()));
            }
            Err(error) => return Err(RecordError::Write(error.to_string())),
            Ok(()) => {}
        }
        // What was written before is durable, and so is the beginning of the new one.
        let head = journal.head();
        self.written.store(head.frames, Ordering::Release);
        self.reached(head.frames, journal.position());
        Ok(())
    }

    /// After a failed sync: goes on in a new segment if all that was written is on the disk, and says so
    /// loudly. If not, statements are refused until a restart.
    fn resume(&self, journal: &mut Journal, error: &JournalError) -> bool {
        let before = journal.position().segment;
        match journal.resume() {
            Ok(position) => {
                self.reached(position, journal.position());
                // Else another has done it.
                if journal.position().segment != before {
                    self.alarm(journal, error);
                }
                true
            }
            Err(resumed) => {
                self.fail(format!("{error}; {resumed}"));
                false
            }
        }
    }

    /// All up to a position, and to a place in the files, is durable.
    fn reached(&self, position: u64, end: Position) {
        self.durable.send_modify(|durable| {
            durable.position = durable.position.max(position);
            durable.end = durable.end.max(Some(end));
        });
    }

    /// Writes the ends that wait. If that fails they go on waiting: the database has answered, only
    /// our knowledge of it is late.
    fn flush(&self) -> bool {
        let Ok(mut journal) = self.journal() else { return false };
        let ends = std::mem::take(&mut lock(&self.waiting).ends);
        ends.is_empty() || self.write_ends(&mut journal, ends)
    }

    /// Writes ends in one write; if the journal refuses them for what they say, one by one, so that
    /// only the offending one is lost, and loudly. What could not be written goes on waiting.
    fn write_ends(&self, journal: &mut Option<Journal>, mut entries: Vec<Entry>) -> bool {
        match self.append(journal, &entries) {
            Ok(_) => return true,
            Err(AppendError::Refused(_)) => {}
            Err(AppendError::Full(_) | AppendError::Other(_)) => {
                self.put_back(entries);
                return false;
            }
        }
        while !entries.is_empty() {
            let later = entries.split_off(1);
            match self.append(journal, &entries) {
                Ok(_) => {}
                Err(AppendError::Refused(error)) => {
                    tracing::error!(%error, "an end was dropped: this is a defect, report it");
                }
                Err(AppendError::Full(_) | AppendError::Other(_)) => {
                    entries.extend(later);
                    self.put_back(entries);
                    return false;
                }
            }
            entries = later;
        }
        true
    }

    fn put_back(&self, mut entries: Vec<Entry>) {
        let ends = &mut lock(&self.waiting).ends;
        entries.append(ends);
        *ends = entries;
    }

    /// Waits for one tick, so that one sync serves many; an urgent wish cuts it short.
    fn gather(&self) {
        let until = Instant::now() + FLUSH_EVERY;
        let is_urgent = || self.urgent.load(Ordering::Acquire) > self.durable.borrow().position;
        while !is_urgent() && !self.closing.load(Ordering::Acquire) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::park_timeout(left);
        }
    }

    fn sync(&self) {
        let Ok(journal) = self.journal() else { return };
        let (task, end) = match &*journal {
            Some(journal) if self.durable.borrow().position < self.written.load(Ordering::Acquire) => {
                (journal.sync_task(), journal.position())
            }
            _ => return,
        };
        drop(journal);
        match task.run() {
            Ok(position) => self.reached(position, end),
            Err(error) => {
                let Ok(mut journal) = self.journal() else { return };
                if let Some(journal) = journal.as_mut() {
                    // Does nothing if a session that wrote meanwhile has done it.
                    self.resume(journal, &error);
                }
            }
        }
    }

    /// Sets the reserve aside again once it was used; whether there is no more to do.
    fn restore_reserve(&self) -> bool {
        if !self.reserve_used.load(Ordering::Acquire) {
            return true;
        }
        let Ok(mut journal) = self.journal() else { return true };
        let Some(journal) = journal.as_mut() else { return true };
        let whole = refill_reserve(journal);
        self.reserve_used.store(!whole, Ordering::Release);
        whole
    }
}

/// Whether the reserve is whole. Trouble with it stops nothing.
fn refill_reserve(journal: &mut Journal) -> bool {
    journal.refill_reserve().unwrap_or_else(|error| {
        tracing::warn!(%error, "no space is set aside for refusals when the disk is full");
        false
    })
}

/// Refuses statements once the journal thread is gone, however it went.
struct Guard<'a>(&'a Shared);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail("the journal thread panicked".into());
        }
    }
}

fn run(shared: &Shared) {
    loop {
        if !shared.wanted.load(Ordering::Acquire) && !shared.closing.load(Ordering::Acquire) {
            thread::park();
            continue;
        }
        shared.gather();
        // Before the work: what is wanted from here on is for the next round. While gathering it
        // stays set, so that nobody wakes us for what will be taken along anyway. Closing as well: an end that
        // was told while this round syncs, just before the recorder was closed, is written by one more.
        let closing = shared.closing.load(Ordering::Acquire);
        shared.wanted.swap(false, Ordering::AcqRel);
        let flushed = shared.flush();
        shared.sync();
        if closing {
            close(shared);
            return;
        }
        if !(flushed && shared.restore_reserve()) && shared.durable.borrow().failed.is_none() {
            // Try again later, for as long as it takes.
            thread::sleep(RETRY_EVERY);
            shared.wanted.store(true, Ordering::Release);
        }
    }
}

fn close(shared: &Shared) {
    // After a panic in the middle of a write the end is not marked as clean: the next start looks.
    let Ok(mut journal) = shared.journal() else { return };
    let Some(journal) = journal.take() else { return };
    let end = journal.position();
    match journal.close() {
        Ok(()) => shared.durable.send_modify(|durable| durable.end = durable.end.max(Some(end))),
        Err(error) => tracing::error!(%error, "could not close the journal in order"),
    }
}

/// A panic while holding one of our locks leaves values that are whole: entries are moved, not edited.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
