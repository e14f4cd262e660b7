//! What may go, and what must stay provable.
//!
//! Two classes of data are kept for different times. The **full text** of an entry is the statement, its
//! parameters and the server's message (and of a reading of the log, what was asked). The **metadata** are all
//! the rest: who, when, from where, which tables and columns, the outcome. After its time the full text of a
//! whole segment is dropped ([`Deed::Texts`]); after theirs, so are the records of all segments up to one
//! ([`Deed::Records`]). Somebody may also have values of one record erased ([`Deed::Values`]).
//!
//! Each of these is a record of the journal before it is done, and is done only once a signed head covers
//! that record and the segment. So a text or a file that is missing without a signed record that says why is a
//! broken journal, and the leaves of everything stay, so that every head and every proof still holds.
//!
//! What a [`Holds`] names keeps its full text, and its segment.
//!
//! No clock and no tasks: who calls says what time it is, and waits for heads.

mod deed;
mod due;
mod holds;
mod survey;

pub use deed::{Deed, NotADeed};
pub use due::{Ages, Distrust, Trust, ages, newest};
pub use holds::{HoldError, Holds};
pub use survey::{Survey, full_text};

use std::sync::Arc;

use crate::journal::{
    Erasure, JournalError, Partition, Position, Reader, Rewrite, Values, file_name, hashes, io_error,
    next_sealed, open_sealed,
};
use crate::proof::edge::Edge;
use crate::proof::leaf::Leaves;
use crate::proof::{Mark, Published, StoreError, TileStore};
use crate::record::{Digest, Entry, Record, Seq};
use crate::storage::Storage;

/// Why nothing was dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetentionError {
    /// The journal could not be read or rewritten.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The tree's files could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A segment is not what was signed.
    #[error(
        "the entries of segment {segment} are not those of the signed tree. Nothing of it is dropped. \
         Run `pgwitness verify`"
    )]
    Contradicts {
        /// Which.
        segment: u64,
    },
    /// No signed head covers it.
    #[error("no signed head covers {what} yet. Try again in a second")]
    Unproven {
        /// What.
        what: String,
    },
    /// A legal hold covers it.
    #[error("record {0} is under a legal hold")]
    Held(Seq),
    /// There is no such record.
    #[error("there is no record {0}")]
    NoRecord(Seq),
    /// The segment is still written.
    #[error("record {0} lies in the segment that is being written")]
    NotSealed(Seq),
}

/// Where a complete segment lies in a signed tree; none if no head covers all of it.
pub fn proven(published: &Published, partition: &Partition) -> Option<(Mark, Mark)> {
    let marks = published.marks();
    let at = marks.iter().position(|mark| mark.segment == partition.segment)?;
    let (own, behind) = (marks.get(at)?, marks.get(at + 1)?);
    let whole = behind.segment == partition.segment + 1
        && behind.size <= published.tree.size
        && own.seq == partition.first.0
        && partition.end.is_some_and(|end| end.0 == behind.seq);
    whole.then_some((*own, *behind))
}

/// Drops the full text of a segment, but for what is held. The record `by` says so and is signed.
///
/// # Errors
/// The disk, or a segment that is not as it was signed. The segment is as it was, or without the texts.
pub fn drop_texts(
    storage: &Arc<dyn Storage>,
    published: &Published,
    partition: &Partition,
    survey: &Survey,
    by: Seq,
) -> Result<u64, RetentionError> {
    check_signed(storage, published, partition, by, |_| {})?;
    let mut choose = |own: Option<Seq>, entry: &Entry| match survey.holds(own, entry) {
        true => Values::NONE,
        false => full_text(entry),
    };
    let mut erasure =
        Erasure { segment: partition.segment, by, texts: survey.held_texts, choose: &mut choose };
    let rewrite = Rewrite::prepare(storage, &mut erasure)?;
    rewrite.put_in_place(&**storage)?;
    Ok(rewrite.erased)
}

/// Drops the records of a segment, the first that is left. Its leaves stay.
///
/// # Errors
/// The disk, or a segment that is not as it was signed. The segment is there, or gone with its leaves kept.
pub fn drop_records(
    storage: &Arc<dyn Storage>,
    published: &Published,
    partition: &Partition,
    by: Seq,
) -> Result<(), RetentionError> {
    let mut leaves = Vec::new();
    let mark = check_signed(storage, published, partition, by, |leaf| leaves.push(leaf))?;
    let store = TileStore::create(&**storage)?;
    store.write_leaves(&mark, &leaves)?;
    // What was written is what proofs will be made of.
    if store.leaves(mark.segment, 0, u64::MAX)?.as_ref() != Some(&leaves) {
        return Err(RetentionError::Contradicts { segment: mark.segment });
    }
    let name = file_name(partition.segment);
    storage.remove(&name).map_err(io_error("remove", &name))?;
    storage.sync_names().map_err(io_error("sync", "the journal's directory"))?;
    Ok(())
}

/// Reads a segment and compares it with the signed tree; its mark. Each of its leaves is shown on the way.
fn check_signed(
    storage: &Arc<dyn Storage>,
    published: &Published,
    partition: &Partition,
    by: Seq,
    mut each: impl FnMut(Digest),
) -> Result<Mark, RetentionError> {
    let segment = partition.segment;
    let unproven = |what: String| RetentionError::Unproven { what };
    let (mark, behind) =
        proven(published, partition).ok_or_else(|| unproven(format!("segment {segment}")))?;
    if by.0 >= published.next_seq {
        return Err(unproven(format!("record {by}, which says what is dropped")));
    }
    let store = TileStore::create(&**storage)?;
    let edge = |mark: &Mark| Edge::resume(mark.size, |tile| store.tile(tile));
    let contradicts = RetentionError::Contradicts { segment };
    let (Some(mut grown), Some(after)) = (edge(&mark)?, edge(&behind)?) else { return Err(contradicts) };
    let (mut scan, _) = open_sealed(&**storage, segment, &file_name(segment))?;
    let mut made = Leaves::new();
    while let Some(frame) = next_sealed(&mut scan)? {
        for leaf in hashes(&mut made, &frame) {
            grown.push(leaf, |_, _| Ok::<_, StoreError>(()))?;
            each(leaf);
        }
    }
    if grown.head() != after.head() {
        return Err(contradicts);
    }
    Ok(mark)
}

/// Where the entries of one record are: what has to be rewritten to erase something of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The record.
    pub record: Record,
    /// The segments that hold something of it, in order; each once.
    pub segments: Vec<u64>,
    /// Whether its end, and that of its transaction, are among them.
    pub ended: bool,
}

/// Finds a record and its end.
///
/// # Errors
/// There is none, or the journal could not be read.
pub fn find(storage: &Arc<dyn Storage>, seq: Seq) -> Result<Found, RetentionError> {
    let partitions = Partition::all(storage)?;
    let none = || RetentionError::NoRecord(seq);
    let own = partitions.iter().rev().find(|partition| partition.first <= seq).ok_or_else(none)?;
    let start = Position { segment: own.segment, offset: 0 };
    let mut reader = Reader::open(Arc::clone(storage), Some(start))?;
    let mut found: Option<Found> = None;
    while let Some(frame) = reader.next_frame()? {
        for (own, entry) in frame.entries {
            match (entry, &mut found) {
                (Entry::Record(record), None) if own == Some(seq) => {
                    let ended = record.done.is_some();
                    found = Some(Found { record: *record, segments: vec![frame.at.segment], ended });
                }
                (Entry::Completion(end), Some(found)) if end.seq == seq => {
                    found.segments.push(frame.at.segment);
                    found.segments.dedup();
                    (found.ended, found.record.done) = (true, Some(end));
                }
                _ => {}
            }
        }
        match &found {
            Some(found) if found.ended => break,
            // Records are in the order of their numbers: it is not there.
            None if own.end.is_some_and(|_| frame.at.segment > own.segment) => break,
            _ => {}
        }
    }
    found.ok_or_else(none)
}

/// Erases values of one record from a complete segment that holds something of it.
///
/// # Errors
/// The disk, or a segment that is not as it was signed. The segment is as it was, or without the values.
pub fn erase_values(
    storage: &Arc<dyn Storage>,
    published: &Published,
    partition: &Partition,
    seq: Seq,
    values: Values,
    by: Seq,
) -> Result<u64, RetentionError> {
    check_signed(storage, published, partition, by, |_| {})?;
    let choose = |own: Option<Seq>, entry: &Entry| match (own, entry) {
        (own, Entry::Record(_)) if own == Some(seq) => values,
        (_, Entry::Completion(end)) if end.seq == seq => values,
        _ => Values::NONE,
    };
    let mut texts = 0;
    survey::entries(storage, partition.segment, |own, entry| {
        let erased = choose(own, entry).in_entry(entry);
        let left = full_text(entry).in_entry(entry).without(erased);
        texts += u64::from(!left.is_empty());
    })?;
    let mut choose = choose;
    let mut erasure = Erasure { segment: partition.segment, by, texts, choose: &mut choose };
    let rewrite = Rewrite::prepare(storage, &mut erasure)?;
    rewrite.put_in_place(&**storage)?;
    Ok(rewrite.erased)
}
