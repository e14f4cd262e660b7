//! Walks over the frames of one segment: the only code that reads them, used by recovery, readers
//! and verification. It checks checksums, the chain and the numbers; it does not know promises.

use std::io;
use std::sync::Arc;

use super::Position;
use super::decode::{Definitions, Item};
use super::encode::Carry;
use super::error::{CrashPossible, Flaw};
use super::segment::{
    FRAME_HEADER_LEN, FRAME_MAGIC, FrameHeader, SEGMENT_HEADER_LEN, frame_digest, read_segment_header,
};
use crate::record::{Digest, Entry, Seq};
use crate::storage::ReadFile;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;
/// A buffer larger than this is given back after the large frame was read.
const BUFFER_KEEP_MAX: usize = 1 << 20;

/// A whole, checked frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) at: Position,
    pub(crate) next: Position,
    pub(crate) first: Seq,
    pub(crate) digest: Digest,
    /// Random bytes of the frame; version 1 has none.
    pub(crate) salt: Option<[u8; 16]>,
    pub(crate) items: Vec<Item>,
}

/// What is at the present place.
#[derive(Debug)]
pub(crate) enum Step {
    Frame(Frame),
    /// The file ends exactly here.
    End,
    /// No whole frame. The scan has not moved.
    Bad(Flaw),
}

/// A place in a segment.
pub(crate) struct Scan {
    file: Arc<dyn ReadFile>,
    segment: u64,
    offset: u64,
    /// Digest of the last frame of the segment before, as the header has it.
    began_after: Digest,
    began_with: Seq,
    digest: Digest,
    next: Seq,
    definitions: Definitions,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl Scan {
    /// Reads the opening of a segment: its header and its first frame, which carries what is open.
    pub(crate) fn open(
        file: Arc<dyn ReadFile>,
        segment: u64,
    ) -> io::Result<Result<(Self, Carry, Frame), Flaw>> {
        let mut header = [0; SEGMENT_HEADER_LEN];
        let count = file.read_at(0, &mut header)?;
        let digest = match read_segment_header(header.get(..count).unwrap_or_default(), segment) {
            Ok(digest) => digest,
            Err(flaw) => return Ok(Err(flaw)),
        };
        let offset = SEGMENT_HEADER_LEN as u64;
        let mut scan = Self {
            file,
            segment,
            offset,
            began_after: digest,
            began_with: Seq(0),
            digest,
            next: Seq(0),
            definitions: Definitions::default(),
            buffer: Vec::new(),
            buffer_at: 0,
        };
        Ok(match scan.step()? {
            Step::Frame(frame) => match frame.items.as_slice() {
                [Item::Carry(carry)] if carry.fits(frame.first) => {
                    let carry = carry.clone();
                    scan.began_with = frame.first;
                    Ok((scan, carry, frame))
                }
                _ => Err(Flaw::Malformed("the segment does not begin with what is open")),
            },
            Step::End => Err(Flaw::FrameHeaderCut),
            Step::Bad(flaw) => Err(flaw),
        })
    }

    /// Where the next frame begins.
    pub(crate) fn position(&self) -> Position {
        Position { segment: self.segment, offset: self.offset }
    }

    /// Digest of the last frame read.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// The number that the next record will have.
    pub(crate) fn next_seq(&self) -> Seq {
        self.next
    }

    /// Digest of the frame before the segment, as its header has it.
    pub(crate) fn began_after(&self) -> Digest {
        self.began_after
    }

    /// Whether this segment begins where `before` is now.
    pub(crate) fn follows(&self, before: &Scan) -> bool {
        self.began_after == before.digest && self.began_with == before.next
    }

    /// How many of each kind the segment has defined.
    pub(crate) fn defined(&self) -> [u64; 3] {
        self.definitions.defined()
    }

    pub(crate) fn file_len(&self) -> io::Result<u64> {
        self.file.len()
    }

    /// Reads the next frame.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        let step = self.step_buffered()?;
        if matches!(step, Step::Frame(_)) || self.buffer.is_empty() {
            return Ok(step);
        }
        // The buffer may be older than the file: the writer was in the middle of this frame.
        self.buffer.clear();
        self.step_buffered()
    }

    fn step_buffered(&mut self) -> io::Result<Step> {
        let start = match self.fill(FRAME_HEADER_LEN)? {
            Some(start) => start,
            None if self.file.len()? == self.offset => return Ok(Step::End),
            None => return Ok(Step::Bad(Flaw::FrameHeaderCut)),
        };
        let Some(fields) = self.buffer.get(start..).and_then(|rest| rest.first_chunk()) else {
            return Ok(Step::Bad(Flaw::FrameHeaderCut));
        };
        let header = match FrameHeader::read(fields) {
            Ok(header) => header,
            Err(flaw) => return Ok(Step::Bad(flaw)),
        };
        let frame_len = FRAME_HEADER_LEN + header.payload_len as usize;
        if self.offset + frame_len as u64 > self.file.len()? {
            return Ok(Step::Bad(Flaw::PayloadCut));
        }
        let Some(start) = self.fill(frame_len)? else { return Ok(Step::Bad(Flaw::PayloadCut)) };
        Ok(match self.frame(&header, start, frame_len) {
            Ok(frame) => Step::Frame(frame),
            Err(flaw) => Step::Bad(flaw),
        })
    }

    /// Checks and decodes the frame in the buffer, and moves behind it.
    fn frame(&mut self, header: &FrameHeader, start: usize, frame_len: usize) -> Result<Frame, Flaw> {
        let bytes = self.buffer.get(start..start + frame_len).ok_or(Flaw::PayloadCut)?;
        let (fields, payload) = bytes.split_at(FRAME_HEADER_LEN);
        let end = self.offset + frame_len as u64;
        if !header.payload_is_whole(payload) {
            return Err(Flaw::Payload { end });
        }
        if header.previous != self.digest {
            return Err(Flaw::Chain { expected: self.digest, found: header.previous });
        }
        let opening = self.offset == SEGMENT_HEADER_LEN as u64;
        if !opening && header.first != self.next {
            return Err(Flaw::Numbers { expected: self.next, found: header.first });
        }
        let items = self.definitions.items(payload).map_err(|malformed| Flaw::Malformed(malformed.0))?;
        let records = items.iter().filter(|item| matches!(item, Item::Entry(Entry::Record(_)))).count();
        if records as u64 != u64::from(header.records) {
            return Err(Flaw::Malformed("the number of records is not as announced"));
        }
        if !opening && items.iter().any(|item| matches!(item, Item::Carry(_))) {
            return Err(Flaw::Malformed("what is open is repeated within a segment"));
        }
        let next = header.first.0.checked_add(records as u64);
        self.next = next.map(Seq).ok_or(Flaw::Malformed("the record numbers are too large"))?;
        self.digest = frame_digest(fields, payload);
        let at = self.position();
        self.offset = end;
        Ok(Frame { at, next: self.position(), first: header.first, digest: self.digest, salt: None, items })
    }

    /// Makes `count` bytes from the present place available; where they begin in the buffer.
    fn fill(&mut self, count: usize) -> io::Result<Option<usize>> {
        let start = self.offset.checked_sub(self.buffer_at).and_then(|start| usize::try_from(start).ok());
        if let Some(start) = start.filter(|start| start + count <= self.buffer.len()) {
            return Ok(Some(start));
        }
        let left = self.file.len()?.saturating_sub(self.offset);
        if left < count as u64 {
            return Ok(None);
        }
        if self.buffer.capacity() > BUFFER_KEEP_MAX {
            self.buffer = Vec::new();
        }
        self.buffer.clear();
        let size = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        self.buffer.resize(count.max(size), 0);
        self.buffer_at = self.offset;
        let filled = self.file.read_at(self.offset, &mut self.buffer)?;
        self.buffer.truncate(filled);
        Ok(if filled >= count { Some(0) } else { None })
    }

    /// Whether a crash can have left `flaw` at the present place of the last segment.
    pub(crate) fn crash_possible(&self, flaw: &Flaw) -> io::Result<CrashPossible> {
        crash_possible(&*self.file, self.offset, flaw)
    }
}

/// Whether a crash can have left `flaw` at `bad`. It cannot if a whole frame behind says that the
/// bad bytes were durable before.
pub(crate) fn crash_possible(file: &dyn ReadFile, bad: u64, flaw: &Flaw) -> io::Result<CrashPossible> {
    let mut from = match flaw.look_from(bad) {
        Ok(from) => from,
        Err(answer) => return Ok(answer),
    };
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = file.read_at(from, &mut chunk)?;
        let bytes = chunk.get(..count).unwrap_or_default();
        for (index, window) in bytes.windows(FRAME_MAGIC.len()).enumerate() {
            if window == FRAME_MAGIC && proves_durable(file, from + index as u64, bad)? {
                return Ok(CrashPossible::No);
            }
        }
        if count < CHUNK {
            return Ok(CrashPossible::Yes);
        }
        from += (CHUNK - FRAME_MAGIC.len() + 1) as u64;
    }
}

/// Whether a whole frame at `offset` says that more than `bad` bytes were durable.
fn proves_durable(file: &dyn ReadFile, offset: u64, bad: u64) -> io::Result<bool> {
    let mut fields = [0; FRAME_HEADER_LEN];
    if file.read_at(offset, &mut fields)? < FRAME_HEADER_LEN {
        return Ok(false);
    }
    let Ok(header) = FrameHeader::read(&fields) else { return Ok(false) };
    if header.synced <= bad || offset + header.frame_len() > file.len()? {
        return Ok(false);
    }
    let mut payload = vec![0; header.payload_len as usize];
    let count = file.read_at(offset + FRAME_HEADER_LEN as u64, &mut payload)?;
    Ok(count == payload.len() && header.payload_is_whole(&payload))
}
