//! Reading the journal by place: one frame, or the record of a number, without what is before it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Position;
use super::decode::{Definitions, Origin, Payload};
use super::error::{Flaw, JournalError, io_error};
use super::find;
use super::frame::{Fields, Was};
use super::generations::{Bounds, Generations};
use super::payload::{FromFile, ReadError, Unpacker, read_frame};
use super::reader::entries_of;
use super::recovery::segments;
use super::scan::{BadOpening, Scan, Step};
use super::segment::{Base, Format, HEADER_LEN_V3, file_name, read_header};
use crate::record::{Entry, Record, Seals, Seq};
use crate::storage::{ReadFile, Storage};

/// Files kept open at one time, twice.
const FILES: Bounds = Bounds { values: 64, bytes: usize::MAX };
/// Frames kept at one time, twice, as bytes of their payloads.
const FRAMES: Bounds = Bounds { values: 4096, bytes: 2 << 20 };
/// Segments of which the first record is remembered.
const FIRSTS_MAX: usize = 1 << 16;

/// One frame of the journal, read by its place.
#[derive(Debug, PartialEq)]
pub struct StoredFrame {
    /// Where it begins.
    pub at: Position,
    /// Where the next one begins.
    pub next: Position,
    /// The entries in their order; records with their numbers.
    pub entries: Vec<(Option<Seq>, Entry)>,
    /// Random bytes of this frame alone; format version 1 has none.
    pub salt: Option<[u8; 16]>,
    /// In a rewritten segment, the seals of each entry that has some of its own; else empty.
    pub seals: Vec<Option<Box<Seals>>>,
}

/// Reads the journal by place, from any thread, also while it is written.
///
/// A frame of format version 2 is read with the help of those that define what it names: a few reads
/// of some kilobytes. A frame of version 1 needs its segment to be read from the beginning; frames in
/// ascending order need that once. What was read last is remembered: open files (at most 128), frames
/// (at most 4 MiB of payloads) and definitions (at most 16 MiB).
///
/// Checksums are checked, the chain is not: that is what [`crate::proof::verify`] is for.
pub struct Archive {
    storage: Arc<dyn Storage>,
    known: Mutex<Known>,
}

struct Known {
    files: Generations<u64, Arc<Segment>>,
    frames: Generations<Position, Arc<StoredFrame>>,
    definitions: Definitions,
    unpacker: Unpacker,
    /// Number of the first record of segments that were looked at.
    firsts: BTreeMap<u64, Seq>,
    /// A walk through a segment of version 1.
    walk: Option<Scan>,
    /// [`Storage::renames`] when all of it was read.
    renames: u64,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            files: Generations::new(FILES),
            frames: Generations::new(FRAMES),
            definitions: Definitions::new(),
            unpacker: Unpacker::default(),
            firsts: BTreeMap::new(),
            walk: None,
            renames: 0,
        }
    }
}

/// What was read of a frame.
struct Decoded<T> {
    fields: Fields,
    value: T,
    /// Bytes of the plain payload.
    size: usize,
    /// Bytes of the frame, in a rewritten segment as it was before.
    len: u64,
}

/// An open segment.
struct Segment {
    file: Arc<dyn ReadFile>,
    format: Format,
    /// [`Storage::renames`] before it was opened: another file may have its name since.
    renames: u64,
}

impl Archive {
    /// Reads the journal in `storage`.
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage, known: Mutex::default() }
    }

    /// The frame that begins at `at`, as [`super::ReadFrame::at`] told it.
    ///
    /// # Errors
    /// No frame begins there, it is damaged, or reading failed.
    pub fn frame(&self, at: Position) -> Result<Arc<StoredFrame>, JournalError> {
        if let Some(frame) = self.known().frames.get(&at) {
            return Ok(frame.clone());
        }
        let segment = self.segment(at.segment)?;
        let (frame, size) = match segment.format.base() {
            None => self.walk_to(at)?,
            Some(base) => self.read(&segment, base, at)?,
        };
        let frame = Arc::new(frame);
        self.remember(&segment, |known| known.frames.insert(at, frame.clone(), size));
        Ok(frame)
    }

    /// One entry of the frame that begins at `at`, by its index in [`super::ReadFrame::entries`]; a
    /// record with its number. Reads no more than what the entry names.
    ///
    /// # Errors
    /// There is no such entry, it is damaged, or reading failed.
    pub fn entry(&self, at: Position, index: usize) -> Result<(Option<Seq>, Entry), JournalError> {
        let none = JournalError::NoSuchPosition { at, why: "its frame has not so many entries" };
        if let Some(frame) = self.known().frames.get(&at) {
            return frame.entries.get(index).cloned().ok_or(none);
        }
        let segment = self.segment(at.segment)?;
        let Some(base) = segment.format.base() else {
            return self.frame(at)?.entries.get(index).cloned().ok_or(none);
        };
        let Decoded { fields, value, .. } =
            self.decode(&segment, base, at, |payload, definitions, from| {
                payload.item(index, at.segment, definitions, from)
            })?;
        match value.and_then(|(item, before)| Some((item.into_entry()?, before))) {
            Some(((entry, _), before)) => {
                let seq = Seq(fields.first.0.saturating_add(before));
                Ok((matches!(entry, Entry::Record(_)).then_some(seq), entry))
            }
            None => Err(none),
        }
    }

    /// Record `seq` of the frame that begins at `at`; `None` if it is not there. Reads no more than what
    /// the record names.
    ///
    /// # Errors
    /// No frame begins there, it is damaged, or reading failed.
    pub fn record(&self, at: Position, seq: Seq) -> Result<Option<Record>, JournalError> {
        let known = self.known().frames.get(&at).cloned();
        let segment = self.segment(at.segment)?;
        let (Some(base), None) = (segment.format.base(), &known) else {
            let frame = known.map_or_else(|| self.frame(at), Ok)?;
            return Ok(frame.entries.iter().find_map(|(number, entry)| match entry {
                Entry::Record(record) if *number == Some(seq) => Some(Record::clone(record)),
                _ => None,
            }));
        };
        let Decoded { value, .. } = self.decode(&segment, base, at, |payload, definitions, from| {
            let Some(index) = payload.index_of(seq)? else { return Ok(None) };
            payload.item(index, at.segment, definitions, from)
        })?;
        Ok(value.and_then(|(item, _)| match item.into_entry() {
            Some((Entry::Record(record), _)) => Some(*record),
            _ => None,
        }))
    }

    /// The frame of record `seq`, and its index among the frame's entries; `None` if there is no such
    /// record (yet).
    ///
    /// # Errors
    /// The journal is damaged there, or reading failed.
    pub fn find(&self, seq: Seq) -> Result<Option<(Position, usize)>, JournalError> {
        let Some(number) = self.segment_of(seq)? else { return Ok(None) };
        let segment = self.segment(number)?;
        let Some(base) = segment.format.base() else { return self.walk_for(number, seq) };
        let found = find::frame_of(&*segment.file, &segment.format, seq);
        let Some(offset) = found.map_err(io_error("read", file_name(number)))? else { return Ok(None) };
        let here = Position { segment: number, offset };
        match self.decode_here(&segment, base, here, |payload, _, _| Ok(payload.index_of(seq)?)) {
            Ok(Decoded { fields, value, .. }) => {
                let at = match segment.format {
                    Format::V3(..) => Position { offset: fields.synced, ..here },
                    _ => here,
                };
                Ok(value.map(|index| (at, index)))
            }
            // The last frame is still being written.
            Err(JournalError::NoSuchPosition { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // What is remembered is whole at any time: values are moved in, not edited.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let renames = self.storage.renames();
        if known.renames != renames {
            // A segment was rewritten: nothing of what was dropped may be answered from memory.
            *known = Known { renames, ..Known::default() };
        }
        known
    }

    fn segment(&self, number: u64) -> Result<Arc<Segment>, JournalError> {
        if let Some(segment) = self.known().files.get(&number) {
            return Ok(segment.clone());
        }
        let name = file_name(number);
        let start = Position { segment: number, offset: 0 };
        let renames = self.storage.renames();
        let file = match self.storage.read(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(JournalError::NoSuchPosition { at: start, why: "there is no such segment" });
            }
            file => file.map_err(io_error("open", &name))?,
        };
        let mut header = [0; HEADER_LEN_V3];
        let count = file.read_at(0, &mut header).map_err(io_error("read", &name))?;
        let header = read_header(header.get(..count).unwrap_or_default(), number);
        let (_, format) = header.map_err(|flaw| damaged(start, Seq(0), flaw))?;
        let segment = Arc::new(Segment { file, format, renames });
        self.remember(&segment, |known| known.files.insert(number, segment.clone(), 0));
        Ok(segment)
    }

    /// Remembers something of a segment, unless a segment was rewritten since it was opened.
    fn remember(&self, segment: &Segment, remember: impl FnOnce(&mut Known)) {
        let mut known = self.known();
        if known.renames == segment.renames {
            remember(&mut known);
        }
    }

    /// Reads and decodes a frame of version 2; also the bytes of its payload.
    fn read(
        &self,
        segment: &Segment,
        base: &Base,
        at: Position,
    ) -> Result<(StoredFrame, usize), JournalError> {
        let read = self.decode(segment, base, at, |payload, definitions, from| {
            payload.items(at.segment, definitions, from)
        })?;
        let Decoded { fields, value: items, size, len } = read;
        let next = Position { offset: at.offset + len, ..at };
        // The opening of a segment, and a clean end, have no entries.
        let (entries, seals) = entries_of(fields.first, items);
        Ok((StoredFrame { at, next, entries, salt: fields.salt, seals }, size))
    }

    /// Reads the frame of version 2 or 3 whose place is `at`, and what is wanted of its payload.
    fn decode<T>(
        &self,
        segment: &Segment,
        base: &Base,
        at: Position,
        wanted: impl FnOnce(&Payload<'_>, &mut Definitions, &mut FromFile<'_>) -> Result<T, ReadError>,
    ) -> Result<Decoded<T>, JournalError> {
        let Format::V3(..) = segment.format else { return self.decode_here(segment, base, at, wanted) };
        let found = find::frame_at(&*segment.file, &segment.format, at.offset);
        let none = JournalError::NoSuchPosition { at, why: "no whole entry begins there" };
        let offset = found.map_err(io_error("read", file_name(at.segment)))?.ok_or(none)?;
        let read = self.decode_here(segment, base, Position { offset, ..at }, wanted)?;
        match read.fields.synced == at.offset {
            true => Ok(read),
            false => Err(JournalError::NoSuchPosition { at, why: "it lies within an entry" }),
        }
    }

    /// The same by where it is in the file.
    fn decode_here<T>(
        &self,
        segment: &Segment,
        base: &Base,
        at: Position,
        wanted: impl FnOnce(&Payload<'_>, &mut Definitions, &mut FromFile<'_>) -> Result<T, ReadError>,
    ) -> Result<Decoded<T>, JournalError> {
        let missing = |why| JournalError::NoSuchPosition { at, why };
        let offset = u32::try_from(at.offset).map_err(|_| missing("it is beyond what a segment holds"))?;
        let (fields, bytes) = match read_frame(&*segment.file, &segment.format, at.offset) {
            Err(ReadError::Flaw(Flaw::FrameHeader | Flaw::FrameHeaderCut | Flaw::PayloadCut)) => {
                return Err(missing("no whole entry begins there"));
            }
            read => read.map_err(|error| failed(error, at, Seq(0)))?,
        };
        let mut known = self.known();
        let mut own = Definitions::new();
        let current = known.renames == segment.renames;
        let Known { definitions, unpacker, .. } = &mut *known;
        // What another file of this name defines may be elsewhere in it.
        let definitions = if current { definitions } else { &mut own };
        let decode = || -> Result<Decoded<T>, ReadError> {
            let plain = unpacker.plain(&fields, bytes.get(fields.len..).unwrap_or_default())?;
            let (len, rest) = match segment.format {
                Format::V3(..) => Was::split(&plain).map(|(was, rest)| (u64::from(was.len), rest))?,
                _ => (fields.frame_len(), &*plain),
            };
            let payload = Payload::read(rest, offset, Origin { first: fields.first, time: base.time })?;
            let mut from = FromFile { file: &*segment.file, format: &segment.format, unpacker };
            Ok(Decoded { fields, value: wanted(&payload, definitions, &mut from)?, size: plain.len(), len })
        };
        let after = Seq(fields.first.0.saturating_sub(1));
        decode().map_err(|error| failed(error, at, after))
    }

    /// Walks through a segment of version 1 until `at`.
    fn walk_to(&self, at: Position) -> Result<(StoredFrame, usize), JournalError> {
        let found = self.walk(at.segment, Some(at), |frame| frame.at >= at)?;
        found
            .filter(|(frame, _)| frame.at == at)
            .ok_or(JournalError::NoSuchPosition { at, why: "no whole entry begins there" })
    }

    fn walk_for(&self, segment: u64, seq: Seq) -> Result<Option<(Position, usize)>, JournalError> {
        let is_it = |(number, _): &(Option<Seq>, Entry)| *number == Some(seq);
        let found = self.walk(segment, None, |frame| frame.entries.iter().any(is_it))?;
        Ok(found.and_then(|(frame, _)| Some((frame.at, frame.entries.iter().position(is_it)?))))
    }

    /// The first frame that is wanted; from where the last walk stands, if that is not behind `from`.
    fn walk(
        &self,
        segment: u64,
        from: Option<Position>,
        wanted: impl Fn(&StoredFrame) -> bool,
    ) -> Result<Option<(StoredFrame, usize)>, JournalError> {
        let opened = self.segment(segment)?;
        let mut known = self.known();
        let current = known.renames == opened.renames;
        let name = file_name(segment);
        let before = |scan: &Scan| {
            scan.position().segment == segment && from.is_some_and(|from| scan.position() <= from)
        };
        let mut scan = match known.walk.take().filter(before) {
            Some(scan) => scan,
            None => match Scan::open(opened.file.clone(), segment).map_err(io_error("read", &name))? {
                Ok((scan, ..)) => scan,
                Err(BadOpening { flaw, .. }) => {
                    return Err(damaged(Position { segment, offset: 0 }, Seq(0), flaw));
                }
            },
        };
        loop {
            let frame = match scan.step().map_err(io_error("read", &name))? {
                Step::Frame(frame) => frame,
                Step::End => return Ok(None),
                Step::Bad(flaw) => return Err(damaged(scan.position(), Seq(scan.next_seq().0 - 1), flaw)),
            };
            let size = usize::try_from(frame.next.offset - frame.at.offset).unwrap_or(usize::MAX);
            let (entries, seals) = entries_of(frame.first, frame.items);
            let frame = StoredFrame { at: frame.at, next: frame.next, entries, salt: frame.salt, seals };
            if wanted(&frame) {
                known.walk = Some(scan).filter(|_| current);
                return Ok(Some((frame, size)));
            }
        }
    }

    /// The last segment that begins at or before record `seq`.
    fn segment_of(&self, seq: Seq) -> Result<Option<u64>, JournalError> {
        let all = segments(&*self.storage)?;
        let (mut low, mut high) = (0, all.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let number = all.get(middle).copied().unwrap_or_default();
            match self.first_of(number) {
                Ok(first) if first <= seq => low = middle + 1,
                Ok(_) => high = middle,
                // The last one may still be on its way to its opening.
                Err(_) if middle + 1 == all.len() => high = middle,
                Err(error) => return Err(error),
            }
        }
        Ok(low.checked_sub(1).and_then(|index| all.get(index)).copied())
    }

    fn first_of(&self, number: u64) -> Result<Seq, JournalError> {
        if let Some(first) = self.known().firsts.get(&number) {
            return Ok(*first);
        }
        let segment = self.segment(number)?;
        let first = match segment.format.base() {
            Some(base) => base.first,
            None => match Scan::open(segment.file.clone(), number) {
                Ok(Ok((_, _, opening))) => opening.first,
                Ok(Err(BadOpening { flaw, .. })) => {
                    return Err(damaged(Position { segment: number, offset: 0 }, Seq(0), flaw));
                }
                Err(error) => return Err(io_error("read", file_name(number))(error)),
            },
        };
        self.remember(&segment, |known| {
            if known.firsts.len() >= FIRSTS_MAX {
                known.firsts.clear();
            }
            known.firsts.insert(number, first);
        });
        Ok(first)
    }
}

fn damaged(at: Position, after: Seq, flaw: Flaw) -> JournalError {
    JournalError::Damaged { at, after, flaw }
}

fn failed(error: ReadError, at: Position, after: Seq) -> JournalError {
    match error {
        ReadError::Io(error) => io_error("read", file_name(at.segment))(error),
        ReadError::Flaw(flaw) => damaged(at, after, flaw),
    }
}
