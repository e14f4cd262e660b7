//! Finding the frame of a record in a segment of format version 2, by bisection: frames tell the
//! number of their first record, and are found from any byte by the segment's mark.

use std::io;

use super::frame::{Fields, begins_with};
use super::payload::{ReadError, read_frame};
use super::segment::Format;
use crate::record::Seq;
use crate::storage::ReadFile;

/// Bytes read at once.
const CHUNK: usize = 16 << 10;
/// A part of the file of this size is walked through rather than halved.
const WALK_MAX: u64 = 64 << 10;

/// Where the frame begins in which record `seq` must be, if the segment has it: the last one that
/// begins at or before it.
pub(super) fn frame_of(file: &dyn ReadFile, format: &Format, seq: Seq) -> io::Result<Option<u64>> {
    last_frame(file, format, |fields| fields.first <= seq)
}

/// Where a frame of a rewritten segment is now, by where it was before.
pub(super) fn frame_at(file: &dyn ReadFile, format: &Format, place: u64) -> io::Result<Option<u64>> {
    last_frame(file, format, |fields| fields.synced <= place)
}

/// The last frame that is `before` something, as all frames in front of it are.
fn last_frame(
    file: &dyn ReadFile,
    format: &Format,
    before: impl Fn(&Fields) -> bool,
) -> io::Result<Option<u64>> {
    // A frame begins at `low` that is `before`; no frame from `high` on is.
    let (mut low, mut high) = (format.header_len(), file.len()?);
    while high.saturating_sub(low) > WALK_MAX {
        let middle = low + (high - low) / 2;
        match next_frame(file, format, middle, high)? {
            Some((at, fields)) if before(&fields) => low = at,
            _ => high = middle,
        }
    }
    walk(file, format, low, before)
}

/// From the frame at `at` on.
fn walk(
    file: &dyn ReadFile,
    format: &Format,
    at: u64,
    before: impl Fn(&Fields) -> bool,
) -> io::Result<Option<u64>> {
    let (mut window, mut next, mut found) = (Window::new(file), at, None);
    loop {
        let bytes = window.at(next, Fields::len_in(format))?;
        match Fields::read(format, bytes) {
            Ok(fields) if before(&fields) => {
                found = Some(next);
                next += fields.frame_len();
            }
            _ => return Ok(found),
        }
    }
}

/// The first whole frame that begins at `from` or behind, and before `end`.
fn next_frame(
    file: &dyn ReadFile,
    format: &Format,
    from: u64,
    end: u64,
) -> io::Result<Option<(u64, Fields)>> {
    let Some(mark) = begins_with(Some(format)) else { return Ok(None) };
    let (mut window, mut at) = (Window::new(file), from);
    while at < end {
        let bytes = window.at(at, CHUNK)?;
        let fields_len = Fields::len_in(format);
        if bytes.len() < fields_len {
            return Ok(None);
        }
        let starts = bytes.len() - fields_len + 1;
        let places = bytes.windows(mark.len()).take(starts).enumerate().filter(|(_, bytes)| *bytes == mark);
        for place in places.map(|(index, _)| at + index as u64).take_while(|place| *place < end) {
            match read_frame(file, format, place) {
                Ok((fields, _)) => return Ok(Some((place, fields))),
                Err(ReadError::Io(error)) => return Err(error),
                Err(ReadError::Flaw(_)) => {}
            }
        }
        at += starts as u64;
    }
    Ok(None)
}

/// A part of the file.
struct Window<'a> {
    file: &'a dyn ReadFile,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn ReadFile) -> Self {
        Self { file, start: 0, bytes: Vec::new() }
    }

    /// The bytes from `at` on: at least `count` (at most [`CHUNK`]), if the file has them.
    fn at(&mut self, at: u64, count: usize) -> io::Result<&[u8]> {
        let have = |start: u64, len: usize| {
            let skip = usize::try_from(at.checked_sub(start)?).ok()?;
            (skip + count <= len).then_some(skip)
        };
        if have(self.start, self.bytes.len()).is_none() {
            self.bytes.resize(CHUNK, 0);
            let filled = self.file.read_at(at, &mut self.bytes)?;
            self.bytes.truncate(filled);
            self.start = at;
        }
        let skip = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        Ok(self.bytes.get(skip..).unwrap_or_default())
    }
}
