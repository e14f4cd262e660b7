//! Appending: one frame, one write; syncing without the writer; new segments; the clean end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::decode::Origin;
use super::encode::{Dictionary, item, last_time, oversized_settlement, put_single};
use super::error::{JournalError, io_error};
use super::fields::{Carry, SETTLEMENT_SEQS_MAX};
use super::frame::{self, FIELDS_LEN_V2, New, PAYLOAD_MAX};
use super::head::Head;
use super::ledger::Ledger;
use super::payload::Packer;
use super::random::Random;
use super::reserve::Reserve;
use super::segment::{Base, Format, file_name};
use super::{Position, recovery};
use crate::record::{Digest, Entry, Seq, Timestamp};
use crate::storage::{AppendFile, Lock, Storage};

/// An encoding buffer larger than this is given back after use.
const BUFFER_KEEP_MAX: usize = 1 << 20;

/// What an error says of the randomness of the operating system.
const RANDOM_BYTES: &str = "random bytes";
/// A segment ends at this size, whatever the options say: places in it are numbers of 32 bits.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// How the journal is kept.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A segment of at least this size is closed and the next one begun.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20 }
    }
}

/// What was found when the journal was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The number of the next record.
    pub next_seq: Seq,
    /// Records whose end was not written.
    pub open: Vec<Seq>,
    /// Records that ended in a transaction whose end was not written.
    pub unsettled: Vec<Seq>,
    /// Bytes of an unfinished write that were moved aside.
    pub torn_bytes: u64,
    /// Whether the last run ended with [`Journal::close`], or there was none.
    pub clean: bool,
    /// Time of the last record.
    pub last_time: Option<Timestamp>,
}

/// What one [`Journal::append`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The number of the first record among the entries; the others follow without gaps. (If there
    /// is no record among them: the number of the next record.)
    pub first: Seq,
    /// The entries are durable once a [`SyncTask`] returned this count of frames, or more.
    pub end: u64,
    /// Digest of the journal up to and including these entries.
    pub head: Digest,
}

/// The single writer.
pub struct Journal {
    storage: Arc<dyn Storage>,
    options: Options,
    _lock: Box<dyn Lock>,
    file: Arc<Tail>,
    segment: u64,
    /// What frames of the segment refer to.
    base: Base,
    /// Length of the segment: where the next frame goes.
    offset: u64,
    /// Whether the segment has more than its opening.
    used: bool,
    frames: u64,
    digest: Digest,
    last_time: Option<Timestamp>,
    ledger: Ledger,
    dictionary: Dictionary,
    packer: Packer,
    random: Random,
    reserve: Reserve,
    buffer: Vec<u8>,
    /// Shared with every [`SyncTask`].
    sync_failed: Arc<AtomicBool>,
    /// A failed write could not be taken back.
    tail_unknown: bool,
}

/// The file of the last segment.
struct Tail {
    file: Arc<dyn AppendFile>,
    /// One sync at a time: the system reports an error to one caller only.
    syncing: Mutex<()>,
    /// Length that is known to be durable.
    synced: AtomicU64,
}

impl Tail {
    fn new(file: Arc<dyn AppendFile>, synced: u64) -> Arc<Self> {
        Arc::new(Self { file, syncing: Mutex::new(()), synced: AtomicU64::new(synced) })
    }
}

/// Where recovery found the end of the journal.
pub(super) struct End {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) used: bool,
    pub(super) frames: u64,
    pub(super) digest: Digest,
    pub(super) last_time: Option<Timestamp>,
    pub(super) ledger: Ledger,
    /// How the segment is written, if it has an opening.
    pub(super) format: Option<Format>,
}

impl Journal {
    /// Opens the journal in `storage`, beginning it if there is none. Reads the last segment; what a
    /// crash tore off its end is moved aside.
    pub fn open(storage: Arc<dyn Storage>, options: Options) -> Result<(Journal, Recovery), JournalError> {
        let lock = storage.lock().map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => JournalError::Locked,
            _ => io_error("lock", "the journal's directory")(error),
        })?;
        let (end, recovery) = recovery::recover(&*storage)?;
        let name = file_name(end.segment);
        let file = storage.append(&name).map_err(io_error("open", &name))?;
        let base = match &end.format {
            Some(Format::V2(base)) => Some(*base),
            _ => None,
        };
        let mut journal = Self {
            storage,
            options,
            _lock: lock,
            file: Tail::new(file, 0),
            segment: end.segment,
            base: base.unwrap_or_else(|| Base::new(0, end.digest, [0; 4], Seq(0), Timestamp(0))),
            offset: end.offset,
            used: end.used,
            frames: end.frames,
            digest: end.digest,
            last_time: end.last_time,
            ledger: end.ledger,
            dictionary: Dictionary::new(),
            packer: Packer::new(),
            random: Random::new(),
            reserve: Reserve::default(),
            buffer: Vec::new(),
            sync_failed: Arc::new(AtomicBool::new(false)),
            tail_unknown: false,
        };
        match base {
            None if journal.offset == 0 => journal.write_opening(journal.segment)?,
            // An older format is not written any more.
            None => journal.write_opening(journal.segment + 1)?,
            Some(_) => {
                // What an earlier process wrote but did not sync must not be lost behind our own frames.
                journal.sync_task().run()?;
                journal.storage.sync_names().map_err(io_error("sync", "the journal's directory"))?;
            }
        }
        Ok((journal, recovery))
    }

    /// Writes all entries as one frame with one write, so that after a crash all of them are there
    /// or none. After an error no entry of it remains (a new segment may have begun); see
    /// [`JournalError::is_final`] for whether a later call can succeed.
    pub fn append(&mut self, entries: &[Entry]) -> Result<Appended, JournalError> {
        self.check_usable()?;
        if let Some(size) = oversized_settlement(entries) {
            return Err(JournalError::TooLarge {
                size,
                unit: "records in a settlement",
                max: SETTLEMENT_SEQS_MAX,
            });
        }
        let first = self.ledger.next();
        if !entries.is_empty() {
            if self.used && self.offset >= self.options.segment_bytes.min(SEGMENT_BYTES_MAX) {
                self.write_opening(self.segment + 1)?;
            }
            if let Err(error) = self.append_frame(first, entries) {
                self.ledger.undo();
                self.dictionary.revert();
                return Err(error);
            }
            self.ledger.keep();
            self.last_time = last_time(entries).or(self.last_time);
        }
        Ok(Appended { first, end: self.frames, head: self.digest })
    }

    /// Sets space aside on the disk (1 MiB), or fills up what was set aside; whether it is whole. To be
    /// called when the journal was opened, and from time to time after the disk was full.
    ///
    /// # Errors
    /// Another trouble than a full disk. The journal goes on without.
    pub fn refill_reserve(&mut self) -> Result<bool, JournalError> {
        let filled = self.reserve.refill(&*self.storage, &mut self.random);
        filled.map_err(io_error("set space aside in", "the journal's directory"))
    }

    /// Like [`Journal::append`], but when the disk is full it takes what was set aside: for the last
    /// things that must be written then.
    ///
    /// # Errors
    /// As for [`Journal::append`]; the disk is full and nothing is left of the reserve.
    pub fn append_reserved(&mut self, entries: &[Entry]) -> Result<Appended, JournalError> {
        let appended = loop {
            match self.append(entries) {
                Err(error) if error.is_disk_full() => {
                    let given = self.reserve.give(self.buffer.len() as u64);
                    if !given.map_err(io_error("take space from", "the journal's reserve"))? {
                        return Err(error);
                    }
                }
                appended => break appended?,
            }
        };
        // What is left of the space is for the next time, not for what is written meanwhile. If it
        // cannot be set aside again now, the owner will try.
        let _ = self.reserve.refill(&*self.storage, &mut self.random);
        Ok(appended)
    }

    /// After a failed sync: reads back what is really on the disk, and if all that was appended is
    /// there, goes on in a new segment; the file is not written any more. Returns how many frames are
    /// durable: all of them (compare with [`Appended::end`]). Does nothing if no sync failed.
    ///
    /// # Errors
    /// Something is missing on the disk, or it fails again. The journal stays finished.
    pub fn resume(&mut self) -> Result<u64, JournalError> {
        if self.tail_unknown {
            return Err(JournalError::Finished { why: "a failed write could not be taken back" });
        }
        if !self.sync_failed.load(Ordering::Acquire) {
            return self.sync_task().run();
        }
        recovery::read_back(&*self.storage, self.position(), self.digest)?;
        let name = file_name(self.segment);
        let file = self.storage.append(&name).map_err(io_error("open", &name))?;
        // Tasks that were made before keep the old mark, and fail.
        self.sync_failed = Arc::new(AtomicBool::new(false));
        self.file = Tail::new(file, 0);
        self.storage.sync_names().map_err(|source| {
            self.sync_failed.store(true, Ordering::Release);
            JournalError::Sync { segment: self.segment, source }
        })?;
        self.write_opening(self.segment + 1)?;
        Ok(self.frames)
    }

    /// Begins a new segment if the present one has entries, so that it is complete.
    ///
    /// # Errors
    /// As for [`Journal::append`].
    pub fn begin_segment(&mut self) -> Result<(), JournalError> {
        self.check_usable()?;
        if self.used { self.write_opening(self.segment + 1) } else { Ok(()) }
    }

    /// A handle that makes durable what was appended so far, to be run without holding the journal.
    pub fn sync_task(&self) -> SyncTask {
        SyncTask {
            tail: Arc::clone(&self.file),
            segment: self.segment,
            len: self.offset,
            frames: self.frames,
            failed: Arc::clone(&self.sync_failed),
        }
    }

    /// The end of the journal as of now.
    pub fn head(&self) -> Head {
        let seq = Seq(self.ledger.next().0 - 1);
        Head { seq, frames: self.frames, digest: self.digest, time: self.last_time }
    }

    /// Where the next frame goes.
    pub fn position(&self) -> Position {
        Position { segment: self.segment, offset: self.offset }
    }

    /// Marks a clean end and makes everything durable.
    pub fn close(mut self) -> Result<(), JournalError> {
        self.check_usable()?;
        self.buffer.clear();
        frame::begin(&mut self.buffer);
        put_single(&mut self.buffer, item::END, |_| {});
        self.write_frame(self.ledger.next(), false)?;
        self.sync_task().run().map(|_| ())
    }

    fn check_usable(&self) -> Result<(), JournalError> {
        if self.sync_failed.load(Ordering::Acquire) {
            return Err(JournalError::Finished { why: "an earlier sync failed" });
        }
        if self.tail_unknown {
            return Err(JournalError::Finished { why: "a failed write could not be taken back" });
        }
        Ok(())
    }

    fn append_frame(&mut self, first: Seq, entries: &[Entry]) -> Result<(), JournalError> {
        let offset = u32::try_from(self.offset).map_err(|_| self.too_large())?;
        self.dictionary.begin(offset);
        let origin = Origin { first, time: self.base.time };
        for entry in entries {
            self.ledger.apply(entry)?;
            self.dictionary.put_entry(entry, origin);
        }
        self.buffer.clear();
        frame::begin(&mut self.buffer);
        self.dictionary.finish(&mut self.buffer, origin);
        if self.buffer.len() > FIELDS_LEN_V2 + PAYLOAD_MAX {
            return Err(self.too_large());
        }
        let compressed = self.packer.pack(&mut self.buffer, FIELDS_LEN_V2, entries.len());
        self.write_frame(first, compressed)
    }

    fn too_large(&self) -> JournalError {
        JournalError::TooLarge { size: self.buffer.len(), unit: "bytes", max: PAYLOAD_MAX }
    }

    /// Completes the frame in the buffer and writes it, or leaves the file as it was.
    fn write_frame(&mut self, first: Seq, compressed: bool) -> Result<(), JournalError> {
        let new = New {
            base: &self.base,
            opening: false,
            compressed,
            first,
            synced: self.file.synced.load(Ordering::Acquire),
            previous: self.digest,
            salt: self.random.take().map_err(io_error("draw", RANDOM_BYTES))?,
        };
        let digest = frame::finish(&mut self.buffer, &new).ok_or_else(|| self.too_large())?;
        if let Err(source) = self.file.file.write(&self.buffer) {
            self.tail_unknown = self.file.file.truncate(self.offset).is_err();
            return Err(JournalError::Write { segment: self.segment, source });
        }
        self.offset += self.buffer.len() as u64;
        (self.used, self.frames, self.digest) = (true, self.frames + 1, digest);
        if self.buffer.capacity() > BUFFER_KEEP_MAX {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Begins a segment: makes the present one durable, then writes the header and what is open.
    /// After an error the next call tries again; the segment before takes no more entries, because
    /// readers may have seen the new file.
    fn write_opening(&mut self, segment: u64) -> Result<(), JournalError> {
        let name = file_name(segment);
        if self.offset > 0 {
            self.sync_task().run()?;
        }
        let (first, time) = (self.ledger.next(), self.last_time.unwrap_or_default());
        let mark = self.random.take().map_err(io_error("draw", RANDOM_BYTES))?;
        let base = Base::new(segment, self.digest, mark, first, time);
        let mut buffer = Vec::new();
        frame::begin(&mut buffer);
        let carry = Carry {
            frames: self.frames,
            last_time: self.last_time,
            open: self.ledger.open().clone(),
            unsettled: self.ledger.unsettled().clone(),
        };
        put_single(&mut buffer, item::CARRY, |out| carry.put(out));
        let new = New {
            base: &base,
            opening: true,
            compressed: false,
            first,
            synced: 0,
            previous: self.digest,
            salt: self.random.take().map_err(io_error("draw", RANDOM_BYTES))?,
        };
        let digest = frame::finish(&mut buffer, &new).ok_or(JournalError::TooLarge {
            size: buffer.len(),
            unit: "bytes of open records",
            max: PAYLOAD_MAX,
        })?;
        buffer.splice(..0, base.header);

        let file = self.storage.append(&name).map_err(io_error("create", &name))?;
        if !file.is_empty().map_err(io_error("look at", &name))? {
            file.truncate(0).map_err(io_error("empty", &name))?;
        }
        if let Err(source) = file.write(&buffer) {
            // Should this fail too, the next attempt empties the file.
            let _ = file.truncate(0);
            return Err(JournalError::Write { segment, source });
        }
        // From here on this is the last segment, whether it becomes durable or not.
        let len = buffer.len() as u64;
        self.file = Tail::new(file, 0);
        (self.segment, self.base, self.offset, self.used) = (segment, base, len, false);
        (self.frames, self.digest) = (self.frames + 1, digest);
        self.dictionary.clear();
        self.sync_task().run()?;
        self.storage.sync_names().map_err(|source| {
            self.sync_failed.store(true, Ordering::Release);
            JournalError::Sync { segment, source }
        })
    }
}

/// Makes durable what was appended before it was made.
#[must_use = "nothing is durable before it runs"]
pub struct SyncTask {
    tail: Arc<Tail>,
    segment: u64,
    len: u64,
    frames: u64,
    failed: Arc<AtomicBool>,
}

impl SyncTask {
    /// Syncs; returns the count of frames that are durable (compare with [`Appended::end`]). An
    /// error is final: from then on, nothing can be appended or synced by this process.
    pub fn run(self) -> Result<u64, JournalError> {
        let _alone = self.tail.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.failed.load(Ordering::Acquire) {
            return Err(JournalError::Finished { why: "an earlier sync failed" });
        }
        if let Err(source) = self.tail.file.sync() {
            self.failed.store(true, Ordering::Release);
            return Err(JournalError::Sync { segment: self.segment, source });
        }
        self.tail.synced.fetch_max(self.len, Ordering::AcqRel);
        Ok(self.frames)
    }
}
