//! Writing a segment anew without values that have to go.
//!
//! The new file is written aside, synced, and read beside the old one: frame for frame at the same place, with
//! the same numbers and the same digest in the chain, entry for entry with the same leaf. Only then it may take
//! the place of the old one, which is one rename. So whatever ends this in between, the segment is one or the
//! other, and whoever follows the journal by places and digests notices nothing.
//!
//! Never the last segment: its writer would not know.

use std::fmt;
use std::sync::Arc;

use super::Item;
use super::decode::Origin;
use super::encode::{Dictionary, item, put_single};
use super::error::{Flaw, JournalError, io_error};
use super::frame::{self, FIELDS_LEN_V2, New, PAYLOAD_MAX, Salt, Was};
use super::payload::Packer;
use super::random::Random;
use super::scan::{BadOpening, Frame, Scan, Step};
use super::segment::{Base, HEADER_LEN_V3, Rewritten, file_name, is_rewritten_name, rewritten_name};
use crate::proof::leaf::{Erasable, Leaves, Place, commitment};
use crate::record::{Digest, Entry, Seal, Seals, Seq, Timestamp};
use crate::storage::{AppendFile, Storage};

/// Bytes written at once.
const CHUNK: usize = 1 << 20;

/// Some of the values of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Values(u8);

impl Values {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// These.
    pub fn of(values: &[Erasable]) -> Self {
        Self(values.iter().fold(0, |bits, value| bits | 1 << *value as u8))
    }

    /// Whether it is among them.
    pub fn has(self, value: Erasable) -> bool {
        self.0 >> value as u8 & 1 == 1
    }

    /// Those that are wanted.
    pub fn chosen(wanted: impl Fn(Erasable) -> bool) -> Self {
        let bit = |value: Erasable| if wanted(value) { 1 << value as u8 } else { 0 };
        Self(Erasable::ALL.into_iter().fold(0, |bits, value| bits | bit(value)))
    }

    /// Those that an entry has.
    pub fn in_entry(self, entry: &Entry) -> Self {
        Self::chosen(|value| self.has(value) && value.is_in(entry))
    }

    /// These and others.
    pub fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These without others.
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// As `sql, params`.
impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = Erasable::ALL.into_iter().filter(|value| self.has(*value)).map(Erasable::as_str);
        f.write_str(&words.collect::<Vec<_>>().join(", "))
    }
}

/// What is to be erased of a segment.
pub struct Erasure<'a> {
    /// Which segment.
    pub segment: u64,
    /// The record that says why: it is in the journal before anything is erased.
    pub by: Seq,
    /// Entries that will still have something of their full text.
    pub texts: u64,
    /// What of an entry has to go. A completion has no number of its own.
    pub choose: &'a mut dyn FnMut(Option<Seq>, &Entry) -> Values,
}

/// A file that is whole, durable and checked, and not yet in place.
#[must_use = "the segment is as it was until this takes its place"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrite {
    segment: u64,
    /// Values that it does not have any more.
    pub erased: u64,
}

impl Rewrite {
    /// Writes a segment aside without some values.
    ///
    /// # Errors
    /// The disk, or a segment that is damaged; nothing is changed then.
    pub fn prepare(storage: &Arc<dyn Storage>, erasure: &mut Erasure<'_>) -> Result<Self, JournalError> {
        let prepared = Self::write(storage, erasure);
        if prepared.is_err() {
            // It may be what fills the disk. If it stays, the next try empties it.
            let _ = storage.remove(&rewritten_name(erasure.segment));
        }
        prepared
    }

    fn write(storage: &Arc<dyn Storage>, erasure: &mut Erasure<'_>) -> Result<Self, JournalError> {
        let name = rewritten_name(erasure.segment);
        let (mut scan, opening) = open(&**storage, erasure.segment, &file_name(erasure.segment))?;
        let file = storage.append(&name).map_err(io_error("create", &name))?;
        file.truncate(0).map_err(io_error("empty", &name))?;
        let mut pen = Pen::new(&scan, &opening, file, name.clone(), erasure)?;
        pen.put(&opening, erasure)?;
        while let Some(frame) = next(&mut scan)? {
            pen.put(&frame, erasure)?;
        }
        let erased = pen.finish()?;
        check(&**storage, erasure.segment)?;
        Ok(Self { segment: erasure.segment, erased })
    }

    /// Puts the file in the place of the segment. Durable when this returns.
    ///
    /// # Errors
    /// The disk. The segment is one or the other.
    pub fn put_in_place(self, storage: &dyn Storage) -> Result<(), JournalError> {
        let name = file_name(self.segment);
        storage.rename(&rewritten_name(self.segment), &name).map_err(io_error("replace", name))
    }

    /// Removes files that were written aside and never put in place.
    ///
    /// # Errors
    /// The disk.
    pub fn clear(storage: &dyn Storage) -> Result<(), JournalError> {
        let names = storage.list().map_err(io_error("list", "the journal's directory"))?;
        for name in names.iter().filter(|name| is_rewritten_name(name)) {
            storage.remove(name).map_err(io_error("remove", name))?;
        }
        Ok(())
    }
}

/// Writes the new file.
struct Pen {
    file: Arc<dyn AppendFile>,
    name: String,
    base: Base,
    /// Digest of the frame before, as it was.
    previous: Digest,
    offset: u64,
    waiting: Vec<u8>,
    dictionary: Dictionary,
    packer: Packer,
    erased: u64,
}

impl Pen {
    fn new(
        scan: &Scan,
        opening: &Frame,
        file: Arc<dyn AppendFile>,
        name: String,
        erasure: &Erasure<'_>,
    ) -> Result<Self, JournalError> {
        let segment = erasure.segment;
        let mark = Random::new().take().map_err(io_error("draw", "random bytes"))?;
        let time = scan.format().base().map_or(Timestamp(0), |base| base.time);
        let base = Base::new(segment, scan.began_after(), mark, opening.first, time);
        // Headers of all versions are far shorter than this can say.
        let began_at = u32::try_from(opening.at.offset).unwrap_or(u32::MAX);
        let rewritten = Rewritten { began_at, texts: erasure.texts };
        let header = base.rewritten(segment, scan.began_after(), rewritten);
        Ok(Self {
            file,
            name,
            base,
            previous: scan.began_after(),
            offset: HEADER_LEN_V3 as u64,
            waiting: header.to_vec(),
            dictionary: Dictionary::new(),
            packer: Packer::new(),
            erased: 0,
        })
    }

    fn put(&mut self, frame: &Frame, erasure: &mut Erasure<'_>) -> Result<(), JournalError> {
        let mut buffer = Vec::new();
        frame::begin(&mut buffer);
        let len = u32::try_from(frame.next.offset - frame.at.offset).map_err(|_| too_large(&buffer))?;
        Was { digest: frame.digest, len }.put(&mut buffer);
        let salt = match frame.items.as_slice() {
            [Item::Carry(carry)] => {
                put_single(&mut buffer, item::CARRY, |out| carry.put(out));
                frame.salt
            }
            [Item::End] => {
                put_single(&mut buffer, item::END, |_| {});
                frame.salt
            }
            _ => self.entries(frame, erasure, &mut buffer)?,
        };
        if buffer.len() > FIELDS_LEN_V2 + PAYLOAD_MAX {
            return Err(too_large(&buffer));
        }
        let compressed = self.packer.pack(&mut buffer, FIELDS_LEN_V2, frame.items.len());
        let new = New {
            base: &self.base,
            opening: self.offset == HEADER_LEN_V3 as u64,
            compressed,
            first: frame.first,
            synced: frame.at.offset,
            previous: self.previous,
            salt: salt.unwrap_or_default(),
        };
        frame::put_fields(&mut buffer, &new).ok_or_else(|| too_large(&buffer))?;
        self.previous = frame.digest;
        self.offset += buffer.len() as u64;
        self.waiting.append(&mut buffer);
        if self.waiting.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    /// Puts the entries of a frame; the salt that it may keep.
    fn entries(
        &mut self,
        frame: &Frame,
        erasure: &mut Erasure<'_>,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<Salt>, JournalError> {
        let offset = u32::try_from(self.offset).map_err(|_| too_large(buffer))?;
        self.dictionary.begin(offset);
        let origin = Origin { first: frame.first, time: self.base.time };
        let (mut seq, mut chosen) = (frame.first, Vec::with_capacity(frame.items.len()));
        for entry in frame.items.iter().filter_map(Item::entry) {
            let own = matches!(entry, Entry::Record(_)).then_some(seq);
            seq.0 += u64::from(own.is_some());
            chosen.push((erasure.choose)(own, entry).in_entry(entry));
        }
        let was_sealed = frame.items.iter().any(|item| item.seals().is_some());
        let seals = was_sealed || chosen.iter().any(|values| !values.is_empty());
        for (index, (item, values)) in (0..).zip(frame.items.iter().zip(&chosen)) {
            let Some(entry) = item.entry() else { continue };
            if !seals {
                self.dictionary.put_entry(entry, origin);
                continue;
            }
            let place = Place { salt: frame.salt, index, seals: item.seals() };
            let sealed = sealed(entry, &place, *values, erasure.by);
            if values.is_empty() {
                self.dictionary.put_sealed(entry, Some(&sealed), origin);
            } else {
                let mut rest = entry.clone();
                Erasable::ALL.into_iter().filter(|value| values.has(*value)).for_each(|value| {
                    self.erased += 1;
                    erase(value, &mut rest);
                });
                self.dictionary.put_sealed(&rest, Some(&sealed), origin);
            }
        }
        self.dictionary.finish(buffer, origin);
        Ok(frame.salt.filter(|_| !seals))
    }

    fn flush(&mut self) -> Result<(), JournalError> {
        self.file.write(&self.waiting).map_err(io_error("write", &self.name))?;
        self.waiting.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<u64, JournalError> {
        self.flush()?;
        self.file.sync().map_err(io_error("sync", &self.name))?;
        Ok(self.erased)
    }
}

/// The seals of an entry once some of its values are erased.
fn sealed(entry: &Entry, place: &Place<'_>, values: Values, by: Seq) -> Seals {
    let mut seals = place.seals.copied().unwrap_or_default();
    for (value, seal) in Erasable::ALL.into_iter().zip(&mut seals.0) {
        let Some((salt, bytes)) = place.salt(value).zip(value.value(entry)) else { continue };
        *seal = match values.has(value) {
            true => Seal::Erased { commitment: commitment(&salt, &bytes), by },
            false => Seal::Kept(salt),
        };
    }
    seals
}

fn erase(value: Erasable, entry: &mut Entry) {
    let (record, end) = match entry {
        Entry::Record(record) => {
            let record = &mut **record;
            match value {
                Erasable::Sql => record.sql = None,
                Erasable::Params => record.params = Vec::new(),
                Erasable::Detail => record.detail = String::new(),
                _ => {}
            }
            (true, record.done.as_mut())
        }
        Entry::Completion(end) => (false, Some(end)),
        Entry::Settlement(_) => (false, None),
    };
    debug_assert!(value != Erasable::Who || !record, "who did it is what the log is for");
    match (value, end) {
        (Erasable::Error, Some(end)) => end.error = String::new(),
        (Erasable::Notes, Some(end)) => end.notes = Vec::new(),
        _ => {}
    }
}

/// Reads the new file beside the old one.
fn check(storage: &dyn Storage, segment: u64) -> Result<(), JournalError> {
    let other = |scan: &Scan, why| JournalError::Damaged {
        at: scan.position(),
        after: Seq(scan.next_seq().0 - 1),
        flaw: Flaw::Malformed(why),
    };
    let (mut old, mut before) = open(storage, segment, &file_name(segment))?;
    let (mut new, mut after) = open(storage, segment, &rewritten_name(segment))?;
    if new.began_after() != old.began_after() || before.items != after.items {
        return Err(other(&old, "the rewritten segment begins differently"));
    }
    let (mut old_leaves, mut new_leaves) = (Leaves::new(), Leaves::new());
    loop {
        let same = (before.at, before.next, before.first, before.digest)
            == (after.at, after.next, after.first, after.digest);
        if !same || hashes(&mut old_leaves, &before) != hashes(&mut new_leaves, &after) {
            return Err(other(&old, "the rewritten segment says something else"));
        }
        match (next(&mut old)?, next(&mut new)?) {
            (None, None) => return Ok(()),
            (Some(one), Some(two)) => (before, after) = (one, two),
            _ => return Err(other(&old, "the rewritten segment is of another length")),
        }
    }
}

/// The hashes of the leaves of a frame.
pub(crate) fn hashes(leaves: &mut Leaves, frame: &Frame) -> Vec<Digest> {
    let mut seq = frame.first;
    let entries = frame.items.iter().filter_map(|item| Some((item.entry()?, item.seals())));
    let mut all = Vec::with_capacity(frame.items.len());
    for (index, (entry, seals)) in (0..).zip(entries) {
        let own = matches!(entry, Entry::Record(_)).then_some(seq);
        seq.0 += u64::from(own.is_some());
        all.push(leaves.hash(own, entry, &Place { salt: frame.salt, index, seals }));
    }
    all
}

/// Opens a file of a sealed segment.
pub(crate) fn open(storage: &dyn Storage, segment: u64, name: &str) -> Result<(Scan, Frame), JournalError> {
    let file = storage.read(name).map_err(io_error("open", name))?;
    match Scan::open(file, segment).map_err(io_error("read", name))? {
        Ok((scan, _, opening)) => Ok((scan, opening)),
        Err(BadOpening { flaw, .. }) => {
            let at = super::Position { segment, offset: 0 };
            Err(JournalError::Damaged { at, after: Seq(0), flaw })
        }
    }
}

/// The next frame of a sealed segment; none at its end.
pub(crate) fn next(scan: &mut Scan) -> Result<Option<Frame>, JournalError> {
    let (at, after) = (scan.position(), Seq(scan.next_seq().0 - 1));
    match scan.step().map_err(io_error("read", file_name(at.segment)))? {
        Step::Frame(frame) => Ok(Some(frame)),
        Step::End => Ok(None),
        Step::Bad(flaw) => Err(JournalError::Damaged { at, after, flaw }),
    }
}

fn too_large(buffer: &[u8]) -> JournalError {
    JournalError::TooLarge { size: buffer.len(), unit: "bytes of a rewritten segment", max: PAYLOAD_MAX }
}
