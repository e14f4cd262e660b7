//! Walks over the frames of one segment: the only code that reads them, used by recovery, readers
//! and verification. It checks checksums, the chain and the numbers; it does not know promises.

use std::io;
use std::sync::Arc;

use super::Position;
use super::crash::crash_possible;
use super::decode::{Definitions, Item, Origin, Payload};
use super::error::{CrashPossible, Flaw};
use super::fields::Carry;
use super::frame::{self, Fields, Salt, Was};
use super::payload::{FromFile, ReadError, Unpacker};
use super::segment::{Format, HEADER_LEN_V3, read_header};
use super::v1;
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
    pub(crate) salt: Option<Salt>,
    pub(crate) items: Vec<Item>,
    /// Bytes of it in the file.
    pub(crate) len: u64,
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

/// What is at the present place, before it is checked.
enum Here {
    /// A frame: its fields, where it begins in the buffer, and its length.
    Frame(Fields, usize, usize),
    End,
    Bad(Flaw),
}

/// A place in a segment.
pub(crate) struct Scan {
    file: Arc<dyn ReadFile>,
    segment: u64,
    format: Format,
    /// Where the next frame is in the file.
    offset: u64,
    /// Its place: the same, or in a rewritten segment where it was before.
    place: u64,
    /// Digest of the last frame of the segment before, as the header has it.
    began_after: Digest,
    began_with: Seq,
    digest: Digest,
    next: Seq,
    decoder: Decoder,
    buffer: Vec<u8>,
    buffer_at: u64,
}

/// What the segment has defined so far.
enum Decoder {
    V1(v1::Definitions),
    V2(Definitions, Unpacker),
}

/// Why a segment could not be opened.
pub(crate) struct BadOpening {
    pub(crate) flaw: Flaw,
    /// How its frames are written, if the header could be read.
    pub(crate) format: Option<Format>,
}

impl From<Flaw> for BadOpening {
    fn from(flaw: Flaw) -> Self {
        Self { flaw, format: None }
    }
}

impl Scan {
    /// Reads the opening of a segment: its header and its first frame, which carries what is open.
    pub(crate) fn open(
        file: Arc<dyn ReadFile>,
        segment: u64,
    ) -> io::Result<Result<(Self, Carry, Frame), BadOpening>> {
        let mut header = [0; HEADER_LEN_V3];
        let count = file.read_at(0, &mut header)?;
        let (digest, format) = match read_header(header.get(..count).unwrap_or_default(), segment) {
            Ok(read) => read,
            Err(flaw) => return Ok(Err(flaw.into())),
        };
        let mut scan = Self {
            file,
            segment,
            format,
            offset: format.header_len(),
            place: format.begins_at(),
            began_after: digest,
            began_with: Seq(0),
            digest,
            next: Seq(0),
            decoder: match format {
                Format::V1 => Decoder::V1(v1::Definitions::default()),
                Format::V2(_) | Format::V3(..) => Decoder::V2(Definitions::new(), Unpacker::default()),
            },
            buffer: Vec::new(),
            buffer_at: 0,
        };
        let flaw = match scan.step()? {
            Step::Frame(frame) => match frame.items.as_slice() {
                [Item::Carry(carry)] if carry.fits(frame.first) && scan.begins_as_announced(frame.first) => {
                    let carry = carry.clone();
                    scan.began_with = frame.first;
                    return Ok(Ok((scan, carry, frame)));
                }
                _ => Flaw::Malformed("the segment does not begin with what is open"),
            },
            Step::End => Flaw::FrameHeaderCut,
            Step::Bad(flaw) => flaw,
        };
        Ok(Err(BadOpening { flaw, format: Some(format) }))
    }

    fn begins_as_announced(&self, first: Seq) -> bool {
        self.format.base().is_none_or(|base| base.first == first)
    }

    /// How the frames of the segment are written.
    pub(crate) fn format(&self) -> &Format {
        &self.format
    }

    /// Where the next frame begins.
    pub(crate) fn position(&self) -> Position {
        Position { segment: self.segment, offset: self.place }
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

    /// Passes over frames that end before `offset`, checking their checksums and the chain but not
    /// what they hold. Stops before the first that cannot be passed so; [`Scan::step`] tells why.
    pub(crate) fn pass(&mut self, offset: u64) -> io::Result<()> {
        // What version 1 defines must be read, and what a rewritten frame says of itself.
        while matches!(self.format, Format::V2(_)) {
            let Here::Frame(fields, start, frame_len) = self.look()? else { return Ok(()) };
            // The number after this frame is told by the next, or by what this one holds.
            self.next = fields.first;
            let Some(bytes) = self.buffer.get(start..start + frame_len) else { return Ok(()) };
            let (head, payload) = bytes.split_at(fields.len);
            let end = self.offset + frame_len as u64;
            let good = fields.payload_is_whole(payload) && fields.continues(self.digest).is_ok();
            if end >= offset || !good {
                return Ok(());
            }
            self.digest = frame::digest(&self.format, false, self.digest, head, payload);
            (self.offset, self.place) = (end, end);
        }
        Ok(())
    }

    fn step_buffered(&mut self) -> io::Result<Step> {
        let (fields, start, frame_len) = match self.look()? {
            Here::Frame(fields, start, frame_len) => (fields, start, frame_len),
            Here::End => return Ok(Step::End),
            Here::Bad(flaw) => return Ok(Step::Bad(flaw)),
        };
        match self.frame(&fields, start, frame_len) {
            Ok(frame) => Ok(Step::Frame(frame)),
            Err(ReadError::Flaw(flaw)) => Ok(Step::Bad(flaw)),
            Err(ReadError::Io(error)) => Err(error),
        }
    }

    /// Brings the frame at the present place into the buffer.
    fn look(&mut self) -> io::Result<Here> {
        let fields_len = Fields::len_in(&self.format);
        let start = match self.fill(fields_len)? {
            Some(start) => start,
            None if self.file.len()? == self.offset => return Ok(Here::End),
            None => return Ok(Here::Bad(Flaw::FrameHeaderCut)),
        };
        let fields = match Fields::read(&self.format, self.buffer.get(start..).unwrap_or_default()) {
            Ok(fields) => fields,
            Err(flaw) => return Ok(Here::Bad(flaw)),
        };
        if self.offset + fields.frame_len() > self.file.len()? {
            return Ok(Here::Bad(Flaw::PayloadCut));
        }
        let frame_len = fields_len + fields.payload_len as usize;
        Ok(match self.fill(frame_len)? {
            Some(start) => Here::Frame(fields, start, frame_len),
            None => Here::Bad(Flaw::PayloadCut),
        })
    }

    /// Checks and decodes the frame in the buffer, and moves behind it.
    fn frame(&mut self, fields: &Fields, start: usize, frame_len: usize) -> Result<Frame, ReadError> {
        let bytes = self.buffer.get(start..start + frame_len).ok_or(Flaw::PayloadCut)?;
        let (head, payload) = bytes.split_at(fields.len);
        let end = self.offset + frame_len as u64;
        if !fields.payload_is_whole(payload) {
            return Err(Flaw::Payload { end }.into());
        }
        fields.continues(self.digest)?;
        let opening = self.offset == self.format.header_len();
        if !opening && fields.first != self.next {
            return Err(Flaw::Numbers { expected: self.next, found: fields.first }.into());
        }
        let (items, was) = match (&mut self.decoder, self.format.base()) {
            (Decoder::V2(definitions, unpacker), Some(base)) => {
                let offset =
                    u32::try_from(self.offset).map_err(|_| Flaw::Malformed("the segment is too large"))?;
                let payload = unpacker.plain(fields, payload)?;
                let (was, payload) = match &self.format {
                    Format::V3(..) => Was::split(&payload).map(|(was, rest)| (Some(was), rest))?,
                    _ => (None, &*payload),
                };
                let origin = Origin { first: fields.first, time: base.time };
                let mut from = FromFile { file: &*self.file, format: &self.format, unpacker };
                let items =
                    Payload::read(payload, offset, origin)?.items(self.segment, definitions, &mut from)?;
                (items, was)
            }
            (Decoder::V1(definitions), _) => (definitions.items(payload)?, None),
            (Decoder::V2(..), None) => return Err(Flaw::SegmentHeader.into()),
        };
        if was.is_some() && fields.synced != self.place {
            return Err(Flaw::Malformed("a rewritten entry is not where it was").into());
        }
        let records =
            items.iter().filter(|item| matches!(item.entry(), Some(Entry::Record(_)))).count() as u64;
        if fields.records.is_some_and(|announced| u64::from(announced) != records) {
            return Err(Flaw::Malformed("the number of records is not as announced").into());
        }
        if !opening && items.iter().any(|item| matches!(item, Item::Carry(_))) {
            return Err(Flaw::Malformed("what is open is repeated within a segment").into());
        }
        let next = fields.first.0.checked_add(records);
        self.next = next.map(Seq).ok_or(Flaw::Malformed("the record numbers are too large"))?;
        self.digest = match was {
            Some(was) => was.digest,
            None => frame::digest(&self.format, opening, self.digest, head, payload),
        };
        let (at, len) = (self.position(), frame_len as u64);
        self.offset = end;
        self.place += was.map_or(len, |was| u64::from(was.len));
        let (next, first, digest) = (self.position(), fields.first, self.digest);
        Ok(Frame { at, next, first, digest, salt: fields.salt, items, len })
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
        match self.format {
            // It was complete before it was rewritten, and whole before it took its place.
            Format::V3(..) => Ok(CrashPossible::No),
            _ => crash_possible(&*self.file, Some(&self.format), self.offset, flaw),
        }
    }
}
