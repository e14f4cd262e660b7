//! Finding the end of the journal when it is opened, and moving aside what a crash tore.

use super::crash::crash_possible;
use super::error::{CrashPossible, Flaw, JournalError, io_error};
use super::fields::Carry;
use super::ledger::Ledger;
use super::scan::{BadOpening, Frame, Scan, Step};
use super::segment::{Format, file_name, segment_of, torn_name};
use super::writer::{End, Recovery};
use super::{Item, Position};
use crate::record::{Digest, Entry, Seq};
use crate::storage::Storage;

/// Bytes copied at once.
const CHUNK: usize = 256 << 10;

/// The numbers of all segments, ascending and without gaps.
pub(crate) fn segments(storage: &dyn Storage) -> Result<Vec<u64>, JournalError> {
    let names = storage.list().map_err(io_error("list", "the journal's directory"))?;
    Ok(names.iter().filter_map(|name| segment_of(name)).collect())
}

/// Finds the end. An [`End::offset`] of 0 says that the segment's opening is still to be written.
pub(super) fn recover(storage: &dyn Storage) -> Result<(End, Recovery), JournalError> {
    let segments = segments(storage)?;
    if let Some(pair) = segments.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
        let at = Position { segment: pair[0] + 1, offset: 0 };
        return Err(JournalError::Damaged { at, after: Seq(0), flaw: Flaw::Missing });
    }
    let Some(&last) = segments.last() else { return Ok(begin(1, 0)) };
    let (flaw, len) = match load(storage, last)? {
        Loaded::Whole(found) => return Ok(found.done(0)),
        Loaded::Torn(found, len) => {
            let at = Position { segment: last, offset: found.end.offset };
            move_aside(storage, at, len)?;
            return Ok(found.done(len - at.offset));
        }
        Loaded::NoOpening(flaw, len) => (flaw, len),
    };
    // The process died while it began this segment: go on from the one before.
    let at = Position { segment: last, offset: 0 };
    match segments.len().checked_sub(2).and_then(|index| segments.get(index)) {
        None if last == 1 => {
            move_aside(storage, at, len)?;
            Ok(begin(1, len))
        }
        None => Err(JournalError::Damaged { at, after: Seq(0), flaw }),
        Some(&sealed) => match load(storage, sealed)? {
            Loaded::Whole(mut found) => {
                move_aside(storage, at, len)?;
                (found.end.segment, found.end.offset, found.end.used) = (last, 0, false);
                Ok(found.done(len))
            }
            Loaded::Torn(found, _) => {
                let at = Position { segment: sealed, offset: found.end.offset };
                let after = Seq(found.end.ledger.next().0 - 1);
                Err(JournalError::Damaged { at, after, flaw: Flaw::PayloadCut })
            }
            Loaded::NoOpening(flaw, _) => {
                let at = Position { segment: sealed, offset: 0 };
                Err(JournalError::Damaged { at, after: Seq(0), flaw })
            }
        },
    }
}

fn begin(segment: u64, torn_bytes: u64) -> (End, Recovery) {
    let end = End {
        segment,
        offset: 0,
        used: false,
        frames: 0,
        digest: Digest::default(),
        last_time: None,
        ledger: Ledger::empty(),
        format: None,
    };
    Found { end, clean: torn_bytes == 0 }.done(torn_bytes)
}

struct Found {
    end: End,
    clean: bool,
}

impl Found {
    fn done(self, torn_bytes: u64) -> (End, Recovery) {
        let ledger = &self.end.ledger;
        let recovery = Recovery {
            next_seq: ledger.next(),
            open: ledger.open().iter().collect(),
            unsettled: ledger.unsettled().iter().collect(),
            torn_bytes,
            clean: self.clean && torn_bytes == 0,
            last_time: self.end.last_time,
        };
        (self.end, recovery)
    }
}

enum Loaded {
    /// Every frame up to the end of the file is good.
    Whole(Found),
    /// A crash tore the end; with the length of the file.
    Torn(Found, u64),
    /// A crash tore the opening; with the length of the file.
    NoOpening(Flaw, u64),
}

/// Reads a segment to its end.
fn load(storage: &dyn Storage, segment: u64) -> Result<Loaded, JournalError> {
    let name = file_name(segment);
    let failed = |error| io_error("read", &name)(error);
    let file = storage.read(&name).map_err(io_error("open", &name))?;
    let (mut scan, carry, opening) = match Scan::open(file.clone(), segment).map_err(failed)? {
        Ok(opened) => opened,
        Err(BadOpening { flaw, format }) => {
            return match crash_possible(&*file, format.as_ref(), 0, &flaw).map_err(failed)? {
                CrashPossible::Yes => Ok(Loaded::NoOpening(flaw, file.len().map_err(failed)?)),
                CrashPossible::No => {
                    Err(JournalError::Damaged { at: Position { segment, offset: 0 }, after: Seq(0), flaw })
                }
            };
        }
    };
    let mut found = opened(*scan.format(), carry, &opening);
    loop {
        let damaged = |scan: &Scan, flaw| {
            let after = Seq(scan.next_seq().0 - 1);
            Err(JournalError::Damaged { at: scan.position(), after, flaw })
        };
        match scan.step().map_err(failed)? {
            Step::Frame(frame) => {
                if let Err(flaw) = take(&mut found, &frame) {
                    return Err(JournalError::Damaged { at: frame.at, after: Seq(frame.first.0 - 1), flaw });
                }
            }
            Step::End => return Ok(Loaded::Whole(found)),
            Step::Bad(flaw) => match scan.crash_possible(&flaw).map_err(failed)? {
                CrashPossible::Yes => return Ok(Loaded::Torn(found, scan.file_len().map_err(failed)?)),
                CrashPossible::No => return damaged(&scan, flaw),
            },
        }
    }
}

fn opened(format: Format, carry: Carry, opening: &Frame) -> Found {
    let ledger = Ledger::carried(opening.first, carry.open, carry.unsettled);
    let end = End {
        segment: opening.at.segment,
        offset: opening.next.offset,
        used: false,
        frames: carry.frames + 1,
        digest: opening.digest,
        last_time: carry.last_time,
        ledger,
        format: Some(format),
    };
    Found { end, clean: false }
}

fn take(found: &mut Found, frame: &Frame) -> Result<(), Flaw> {
    let end = &mut found.end;
    found.clean = matches!(frame.items.as_slice(), [Item::End]);
    for item in &frame.items {
        let Some(entry) = item.entry() else { continue };
        end.ledger.apply(entry).map_err(Flaw::Ledger)?;
        if let Entry::Record(record) = entry {
            end.last_time = Some(record.time);
        }
    }
    end.ledger.keep();
    (end.offset, end.digest, end.used) = (frame.next.offset, frame.digest, true);
    end.frames += 1;
    Ok(())
}

/// Reads a segment as the disk holds it, past what the system remembers of it: it must be whole up to
/// `end`, where the journal's digest is `digest`.
pub(super) fn read_back(storage: &dyn Storage, end: Position, digest: Digest) -> Result<(), JournalError> {
    let name = file_name(end.segment);
    let failed = |error| io_error("read back", &name)(error);
    let file = storage.read_back(&name).map_err(failed)?;
    let lost = |at, after, flaw| Err(JournalError::Lost { at, after, flaw });
    let mut scan = match Scan::open(file, end.segment).map_err(failed)? {
        Ok((scan, ..)) => scan,
        Err(BadOpening { flaw, .. }) => return lost(Position { offset: 0, ..end }, Seq(0), flaw),
    };
    while scan.position() < end {
        let (at, after) = (scan.position(), Seq(scan.next_seq().0 - 1));
        match scan.step().map_err(failed)? {
            Step::Frame(_) => {}
            Step::End => return lost(at, after, Flaw::PayloadCut),
            Step::Bad(flaw) => return lost(at, after, flaw),
        }
    }
    let (at, after) = (scan.position(), Seq(scan.next_seq().0 - 1));
    if at == end && scan.digest() == digest {
        Ok(())
    } else {
        lost(at, after, Flaw::Link { expected: digest })
    }
}

/// Copies everything from `at` to a file of its own, then cuts it off.
fn move_aside(storage: &dyn Storage, at: Position, len: u64) -> Result<(), JournalError> {
    let name = file_name(at.segment);
    if len > at.offset {
        copy_aside(storage, &name, at)?;
    }
    let file = storage.append(&name).map_err(io_error("open", &name))?;
    file.truncate(at.offset).map_err(io_error("cut", &name))?;
    file.sync().map_err(io_error("sync", &name))
}

fn copy_aside(storage: &dyn Storage, name: &str, at: Position) -> Result<(), JournalError> {
    let names = storage.list().map_err(io_error("list", "the journal's directory"))?;
    let aside = (0..u32::MAX).map(|attempt| torn_name(at, attempt)).find(|aside| !names.contains(aside));
    let aside = aside.unwrap_or_else(|| torn_name(at, u32::MAX));
    let from = storage.read(name).map_err(io_error("open", name))?;
    let to = storage.append(&aside).map_err(io_error("create", &aside))?;
    let mut chunk = vec![0; CHUNK];
    let mut offset = at.offset;
    loop {
        let count = from.read_at(offset, &mut chunk).map_err(io_error("read", name))?;
        let bytes = chunk.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        to.write(bytes).map_err(io_error("write", &aside))?;
        offset += count as u64;
    }
    to.sync().map_err(io_error("sync", &aside))?;
    storage.sync_names().map_err(io_error("sync", "the journal's directory"))
}
