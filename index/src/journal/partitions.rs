//! What the journal consists of: its segments, by what their openings say.

use std::io;
use std::sync::Arc;

use super::Position;
use super::error::{Flaw, JournalError, io_error};
use super::recovery::segments;
use super::rewrite::open;
use super::segment::{Format, HEADER_LEN_V3, file_name, read_header};
use crate::record::{Seq, Timestamp};
use crate::storage::Storage;

/// One segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub segment: u64,
    /// Its first record, or the next one if it has none.
    pub first: Seq,
    /// The first record behind it; none if it is still written.
    pub end: Option<Seq>,
    /// The time of the last record before it.
    pub after: Option<Timestamp>,
    /// The time of the last record before its end; none if it is still written.
    pub last: Option<Timestamp>,
    /// Entries that still have something of their full text, as far as it was rewritten; else all have theirs.
    pub texts: Option<u64>,
}

impl Partition {
    /// All segments, in order.
    ///
    /// # Errors
    /// The disk, or a segment whose opening is damaged. An opening at the end that is still being written is
    /// left out.
    pub fn all(storage: &Arc<dyn Storage>) -> Result<Vec<Self>, JournalError> {
        let numbers = segments(&**storage)?;
        let mut all: Vec<Self> = Vec::with_capacity(numbers.len());
        for (index, &segment) in numbers.iter().enumerate() {
            let read = match Self::read(&**storage, segment) {
                Err(_) if index > 0 && index + 1 == numbers.len() => break,
                read => read?,
            };
            if let Some(before) = all.last_mut() {
                (before.end, before.last) = (Some(read.first), read.after);
            }
            all.push(read);
        }
        Ok(all)
    }

    /// Whether the file of a segment is there.
    pub(crate) fn exists(storage: &dyn Storage, segment: u64) -> Result<bool, JournalError> {
        let name = file_name(segment);
        match storage.read(&name) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("open", name)(error)),
        }
    }

    /// One segment, as if it were the last.
    pub(crate) fn read(storage: &dyn Storage, segment: u64) -> Result<Self, JournalError> {
        let name = file_name(segment);
        let file = storage.read(&name).map_err(io_error("open", &name))?;
        let mut header = [0; HEADER_LEN_V3];
        let count = file.read_at(0, &mut header).map_err(io_error("read", &name))?;
        let damaged =
            |flaw: Flaw| JournalError::Damaged { at: Position { segment, offset: 0 }, after: Seq(0), flaw };
        let (_, format) = read_header(header.get(..count).unwrap_or_default(), segment).map_err(damaged)?;
        let (first, after, texts) = match format {
            // The first segment of a journal begins at no time.
            Format::V2(base) => (base.first, Some(base.time).filter(|time| time.0 != 0), None),
            Format::V3(base, rewritten) => {
                (base.first, Some(base.time).filter(|time| time.0 != 0), Some(rewritten.texts))
            }
            Format::V1 => {
                let (_, opening) = open(storage, segment, &name)?;
                let carried = opening.items.iter().find_map(|item| match item {
                    super::Item::Carry(carry) => Some(carry.last_time),
                    _ => None,
                });
                (opening.first, carried.flatten(), None)
            }
        };
        Ok(Self { segment, first, end: None, after, last: None, texts })
    }
}
