//! Reading the journal from any frame boundary, while it is written or afterwards.

use std::io;
use std::sync::Arc;

use super::error::{CrashPossible, Flaw, JournalError, io_error};
use super::recovery::segments;
use super::scan::BadOpening;
use super::scan::{Frame, Scan, Step};
use super::segment::file_name;
use super::{Item, Position};
use crate::record::{Digest, Entry, Seals, Seq};
use crate::storage::Storage;

/// One frame: entries that were written together.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadFrame {
    /// Where it begins.
    pub at: Position,
    /// Where the next one begins: continue from here.
    pub next: Position,
    /// The entries; records with their numbers.
    pub entries: Vec<(Option<Seq>, Entry)>,
    /// Digest of the journal up to and including this frame.
    pub digest: Digest,
    /// Random bytes of this frame alone, for commitments to its values; format version 1 has none, and
    /// where [`ReadFrame::seals`] has something, it stands in their place.
    pub salt: Option<[u8; 16]>,
    /// In a rewritten segment, the seals of each entry that has some of its own; else empty.
    pub seals: Vec<Option<Box<Seals>>>,
}

/// Follows the journal.
pub struct Reader {
    storage: Arc<dyn Storage>,
    scan: Option<Scan>,
    /// Length of the file when a bad end was last judged to be unfinished, not damaged.
    judged_len: Option<u64>,
}

impl Reader {
    /// Begins at `from`, a boundary that was given as [`ReadFrame::next`] (or `at`), or at the
    /// beginning. What the segment defined before is read again. Compare [`Reader::digest`] with the
    /// digest kept beside the position, to know that the journal is still the same.
    pub fn open(storage: Arc<dyn Storage>, from: Option<Position>) -> Result<Reader, JournalError> {
        let mut reader = Self { storage, scan: None, judged_len: None };
        if let Some(from) = from {
            reader.seek(from)?;
        }
        Ok(reader)
    }

    /// Where the next frame will be; `None` before the beginning.
    pub fn position(&self) -> Option<Position> {
        self.scan.as_ref().map(Scan::position)
    }

    /// Digest of the journal up to here; `None` before the beginning.
    pub fn digest(&self) -> Option<Digest> {
        self.scan.as_ref().map(Scan::digest)
    }

    /// The next frame with entries; `None` at the end for now. Goes on into later segments.
    pub fn next_frame(&mut self) -> Result<Option<ReadFrame>, JournalError> {
        loop {
            let frame = match self.advance()? {
                Advance::Wait => return Ok(None),
                Advance::Moved => continue,
                Advance::Frame(frame) => frame,
            };
            self.judged_len = None;
            if let Some(frame) = with_entries(frame) {
                return Ok(Some(frame));
            }
        }
    }

    fn advance(&mut self) -> Result<Advance, JournalError> {
        let Some(scan) = &mut self.scan else {
            let Some(&first) = segments(&*self.storage)?.first() else { return Ok(Advance::Wait) };
            self.scan = self.open_segment(first)?;
            return Ok(if self.scan.is_some() { Advance::Moved } else { Advance::Wait });
        };
        let (seen, segment) = (step(scan)?, scan.position().segment);
        if let Step::Frame(frame) = seen {
            return Ok(Advance::Frame(frame));
        }
        match self.open_segment(segment + 1)? {
            None => self.wait_or_stop(seen),
            Some(next) => self.move_on(next),
        }
    }

    fn seek(&mut self, from: Position) -> Result<(), JournalError> {
        let lost = |why| JournalError::NoSuchPosition { at: from, why };
        if !segments(&*self.storage)?.contains(&from.segment) {
            return Err(lost("there is no such segment"));
        }
        let opened = self.open_segment(from.segment)?;
        let mut scan = opened.ok_or_else(|| lost("the segment is not complete"))?;
        let begins_at = scan.format().begins_at();
        if from.offset <= begins_at {
            let at_start = from.offset == 0 || from.offset == begins_at;
            self.scan = Some(scan);
            return if at_start { Ok(()) } else { Err(lost("it lies within the segment's header")) };
        }
        scan.pass(from.offset).map_err(io_error("read", file_name(from.segment)))?;
        while scan.position() < from {
            match step(&mut scan)? {
                Step::Frame(_) => {}
                Step::End => return Err(lost("the segment ends before it")),
                Step::Bad(_) => return Err(lost("an entry before it cannot be read")),
            }
        }
        if scan.position() != from {
            return Err(lost("it lies within an entry"));
        }
        self.scan = Some(scan);
        Ok(())
    }

    /// Opens a segment; `None` if its opening is still being written.
    fn open_segment(&self, segment: u64) -> Result<Option<Scan>, JournalError> {
        let name = file_name(segment);
        let file = match self.storage.read(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(io_error("open", &name))?,
        };
        let failed = |error| io_error("read", &name)(error);
        match Scan::open(file.clone(), segment).map_err(failed)? {
            Ok((scan, ..)) => Ok(Some(scan)),
            Err(BadOpening { flaw, format }) => {
                let crash = super::crash_possible(&*file, format.as_ref(), 0, &flaw).map_err(failed)?;
                if crash == CrashPossible::Yes && !self.exists(segment + 1)? {
                    return Ok(None);
                }
                let after = self.scan.as_ref().map_or(Seq(0), |scan| Seq(scan.next_seq().0 - 1));
                Err(JournalError::Damaged { at: Position { segment, offset: 0 }, after, flaw })
            }
        }
    }

    fn exists(&self, segment: u64) -> Result<bool, JournalError> {
        let name = file_name(segment);
        match self.storage.read(&name) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("open", name)(error)),
        }
    }

    /// The next segment has begun, so this one is complete.
    fn move_on(&mut self, next: Scan) -> Result<Advance, JournalError> {
        let Some(scan) = &mut self.scan else { return Ok(Advance::Moved) };
        // The writer may have left this segment after we looked: what it wrote last is there now.
        let flaw = match step(scan)? {
            Step::Frame(frame) => return Ok(Advance::Frame(frame)),
            Step::End if next.follows(scan) => {
                self.scan = Some(next);
                return Ok(Advance::Moved);
            }
            Step::End => Flaw::Carry,
            Step::Bad(flaw) => flaw,
        };
        Err(damaged(scan, flaw))
    }

    /// There is no later segment: an unfinished frame is the end for now, a damaged one is an error.
    fn wait_or_stop(&mut self, seen: Step) -> Result<Advance, JournalError> {
        let (Step::Bad(flaw), Some(scan)) = (seen, &self.scan) else { return Ok(Advance::Wait) };
        let failed = |error| io_error("read", file_name(scan.position().segment))(error);
        let len = scan.file_len().map_err(failed)?;
        if self.judged_len != Some(len) {
            if scan.crash_possible(&flaw).map_err(failed)? == CrashPossible::No {
                return Err(damaged(scan, flaw));
            }
            self.judged_len = Some(len);
        }
        Ok(Advance::Wait)
    }
}

enum Advance {
    Frame(Frame),
    /// Into another segment.
    Moved,
    /// Nothing more for now.
    Wait,
}

fn damaged(scan: &Scan, flaw: Flaw) -> JournalError {
    JournalError::Damaged { at: scan.position(), after: Seq(scan.next_seq().0 - 1), flaw }
}

fn step(scan: &mut Scan) -> Result<Step, JournalError> {
    let segment = scan.position().segment;
    scan.step().map_err(io_error("read", file_name(segment)))
}

fn with_entries(frame: Frame) -> Option<ReadFrame> {
    let Frame { at, next, first, digest, salt, items, .. } = frame;
    let (entries, seals) = entries_of(first, items);
    (!entries.is_empty()).then_some(ReadFrame { at, next, entries, digest, salt, seals })
}

/// Entries with their numbers, and the seals of each, if one of them has some.
pub(super) type Entries = (Vec<(Option<Seq>, Entry)>, Vec<Option<Box<Seals>>>);

/// The entries among the items of a frame; its records are numbered from `first`.
pub(super) fn entries_of(first: Seq, items: Vec<Item>) -> Entries {
    let mut seq = first;
    let (mut entries, mut all) = (Vec::with_capacity(items.len()), Vec::new());
    for item in items {
        let Some((entry, seals)) = item.into_entry() else { continue };
        let number = matches!(entry, Entry::Record(_)).then_some(seq);
        seq.0 += u64::from(number.is_some());
        if let Some(seals) = seals {
            all.resize_with(entries.len(), || None);
            all.push(Some(seals));
        }
        entries.push((number, entry));
    }
    (entries, all)
}
