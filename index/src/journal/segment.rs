//! The format of a segment file: a header, then frames (their format is in [`super::frame`]).
//!
//! ```text
//! version 1   magic 8 | version u32 | segment u64 | digest of the frame before 32 | crc32 u32
//! version 2   magic 8 | version u32 | segment u64 | digest of the frame before 32 | mark 4
//!             | first seq u64 | time i64 | crc32 u32
//! version 3   as version 2, and behind time: header length before u32 | texts u64 | crc32 u32
//! ```
//! All numbers are little endian. `mark` is random: each frame begins with it, so that nobody who
//! only sends statements can write bytes that look like a frame. Record numbers and times in the
//! segment are counted from `first seq` and `time`. The digest of the segment's first frame covers
//! the header of version 2.
//!
//! Version 3 is a segment that was rewritten because something of it had to go (see [`super::rewrite`]). It
//! is never written to otherwise. Places in it are still those of the file before: `header length before`
//! is where its first frame was. `texts` counts the entries that still have something of their full text.

use super::Position;
use super::error::Flaw;
use crate::record::{Digest, Seq, Timestamp};

/// The newest format version: the one that is written.
pub(crate) const VERSION: u32 = 2;
/// The version of a segment that was rewritten.
pub(crate) const VERSION_REWRITTEN: u32 = 3;
/// Bytes of a segment's header of version 1.
pub(crate) const HEADER_LEN_V1: usize = 56;
/// Bytes of a segment's header of version 2.
pub(crate) const HEADER_LEN_V2: usize = 76;
/// Bytes of a segment's header of version 3.
pub(crate) const HEADER_LEN_V3: usize = 88;

const SEGMENT_MAGIC: [u8; 8] = *b"PGWjrnl\n";
const FILE_SUFFIX: &str = ".journal";
const TORN_SUFFIX: &str = ".torn";
/// Digits of a segment's number in its file name: sorting names sorts numbers.
const NAME_DIGITS: usize = 20;
/// Ending of the file that is to take a segment's place.
const REWRITTEN_SUFFIX: &str = ".rewritten";

/// Name of the file of a segment.
pub(crate) fn file_name(segment: u64) -> String {
    format!("{segment:0NAME_DIGITS$}{FILE_SUFFIX}")
}

/// The segment of a file name, if it is one.
pub(crate) fn segment_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(FILE_SUFFIX)?;
    let plain = digits.len() == NAME_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// Name of the file that keeps what was cut off at `at`; `attempt` makes it unique.
pub(crate) fn torn_name(at: Position, attempt: u32) -> String {
    format!("{:0NAME_DIGITS$}-{}.{attempt}{TORN_SUFFIX}", at.segment, at.offset)
}

/// Name of the file that is to take a segment's place, until it does.
pub(crate) fn rewritten_name(segment: u64) -> String {
    format!("{}{REWRITTEN_SUFFIX}", file_name(segment))
}

/// Whether a file is to take a segment's place.
pub(crate) fn is_rewritten_name(name: &str) -> bool {
    name.ends_with(REWRITTEN_SUFFIX)
}

/// Whether a file keeps what was cut off.
pub(crate) fn is_torn_name(name: &str) -> bool {
    name.ends_with(TORN_SUFFIX)
}

/// How the frames of a segment are written, as its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    V1,
    V2(Base),
    V3(Base, Rewritten),
}

/// What the header of a rewritten segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rewritten {
    /// Where the first frame was in the file before.
    pub(crate) began_at: u32,
    /// Entries that still have something of their full text.
    pub(crate) texts: u64,
}

/// What frames of version 2 refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Base {
    /// How each frame begins.
    pub(crate) mark: [u8; 4],
    /// Number of the segment's first record.
    pub(crate) first: Seq,
    /// Times are counted from here.
    pub(crate) time: Timestamp,
    /// The whole header, which the digest of the first frame covers.
    pub(crate) header: [u8; HEADER_LEN_V2],
}

impl Format {
    /// Bytes of the segment's header: where the first frame begins.
    pub(crate) fn header_len(&self) -> u64 {
        match self {
            Self::V1 => HEADER_LEN_V1 as u64,
            Self::V2(_) => HEADER_LEN_V2 as u64,
            Self::V3(..) => HEADER_LEN_V3 as u64,
        }
    }

    /// The place of the first frame: where it is, or where it was before the segment was rewritten.
    pub(crate) fn begins_at(&self) -> u64 {
        match self {
            Self::V3(_, rewritten) => u64::from(rewritten.began_at),
            _ => self.header_len(),
        }
    }

    /// What frames refer to, in a format that has it.
    pub(crate) fn base(&self) -> Option<&Base> {
        match self {
            Self::V1 => None,
            Self::V2(base) | Self::V3(base, _) => Some(base),
        }
    }
}

impl Base {
    /// The header of a new segment.
    pub(crate) fn new(segment: u64, previous: Digest, mark: [u8; 4], first: Seq, time: Timestamp) -> Self {
        let mut header = [0; HEADER_LEN_V2];
        put_common(&mut header, VERSION, segment, previous);
        header[52..56].copy_from_slice(&mark);
        header[56..64].copy_from_slice(&first.0.to_le_bytes());
        header[64..72].copy_from_slice(&time.0.to_le_bytes());
        let crc = crc32fast::hash(&header[..72]);
        header[72..].copy_from_slice(&crc.to_le_bytes());
        Self { mark, first, time, header }
    }

    /// The header of the same segment once it is rewritten; `mark` is another one.
    pub(crate) fn rewritten(
        &self,
        segment: u64,
        previous: Digest,
        rewritten: Rewritten,
    ) -> [u8; HEADER_LEN_V3] {
        let mut header = [0; HEADER_LEN_V3];
        put_common(&mut header, VERSION_REWRITTEN, segment, previous);
        header[52..56].copy_from_slice(&self.mark);
        header[56..64].copy_from_slice(&self.first.0.to_le_bytes());
        header[64..72].copy_from_slice(&self.time.0.to_le_bytes());
        header[72..76].copy_from_slice(&rewritten.began_at.to_le_bytes());
        header[76..84].copy_from_slice(&rewritten.texts.to_le_bytes());
        let crc = crc32fast::hash(&header[..84]);
        header[84..].copy_from_slice(&crc.to_le_bytes());
        header
    }
}

/// What the headers of all versions begin with.
fn put_common(header: &mut [u8], version: u32, segment: u64, previous: Digest) {
    header[..8].copy_from_slice(&SEGMENT_MAGIC);
    header[8..12].copy_from_slice(&version.to_le_bytes());
    header[12..20].copy_from_slice(&segment.to_le_bytes());
    header[20..52].copy_from_slice(&previous.0);
}

/// Reads a segment's header from the beginning of its file: the digest of the frame before it, and
/// how its frames are written.
pub(crate) fn read_header(bytes: &[u8], segment: u64) -> Result<(Digest, Format), Flaw> {
    let cut = || Flaw::SegmentHeaderCut { bytes: bytes.len() as u64 };
    let v1: &[u8; HEADER_LEN_V1] = bytes.first_chunk().ok_or_else(cut)?;
    if v1[..8] != SEGMENT_MAGIC {
        return Err(Flaw::SegmentHeader);
    }
    let (crc, format) = match u32_at(v1, 8) {
        1 => (crc32fast::hash(&v1[..52]) == u32_at(v1, 52), Format::V1),
        2 => {
            let header: &[u8; HEADER_LEN_V2] = bytes.first_chunk().ok_or_else(cut)?;
            let mark = header[52..].first_chunk().copied().unwrap_or_default();
            let (first, time) = (Seq(u64_at(header, 56)), Timestamp(u64_at(header, 64) as i64));
            let base = Base { mark, first, time, header: *header };
            (crc32fast::hash(&header[..72]) == u32_at(header, 72), Format::V2(base))
        }
        VERSION_REWRITTEN => {
            let header: &[u8; HEADER_LEN_V3] = bytes.first_chunk().ok_or_else(cut)?;
            let mark = header[52..].first_chunk().copied().unwrap_or_default();
            let (first, time) = (Seq(u64_at(header, 56)), Timestamp(u64_at(header, 64) as i64));
            // The digests of its frames are not computed from its header.
            let base = Base { mark, first, time, header: [0; HEADER_LEN_V2] };
            let rewritten = Rewritten { began_at: u32_at(header, 72), texts: u64_at(header, 76) };
            (crc32fast::hash(&header[..84]) == u32_at(header, 84), Format::V3(base, rewritten))
        }
        found => {
            // A version that we do not know, unless the bytes are damaged: a later header may be
            // longer, but its first fields stay where they are.
            return Err(if found > VERSION_REWRITTEN && found < 1 << 16 {
                Flaw::Version { found }
            } else {
                Flaw::SegmentHeader
            });
        }
    };
    if !crc {
        return Err(Flaw::SegmentHeader);
    }
    match u64_at(v1, 12) {
        found if found == segment => Ok((digest_at(v1, 20), format)),
        found => Err(Flaw::OtherSegment { found }),
    }
}

// The offsets below are constants inside arrays of known length.

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

pub(super) fn digest_at(bytes: &[u8], at: usize) -> Digest {
    bytes[at..].first_chunk().map_or_else(Digest::default, |chunk| Digest(*chunk))
}
