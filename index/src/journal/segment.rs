//! The format of a segment file: a header, then frames.
//!
//! ```text
//! header   magic 8 | version u32 | segment u64 | digest of the frame before 32 | crc32 u32
//! frame    magic 4 | payload length u32 | first seq u64 | records u32 | synced u64
//!          | digest of the frame before 32 | crc32 of the payload u32 | crc32 of the fields u32 | payload
//! ```
//! All numbers are little endian. The digest of a frame is SHA-256 over its fields up to and
//! including the digest of the frame before, then its payload: a chain through all segments.
//! `synced` is the length of the segment that was known to be durable when the frame was written;
//! a frame that says so proves that what lies before was not lost in a crash but damaged later.

use sha2::{Digest as _, Sha256};

use super::Position;
use super::error::Flaw;
use crate::record::{Digest, Seq};

/// The only format version so far.
pub(crate) const VERSION: u32 = 1;
/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER_LEN: usize = 56;
/// Bytes of a frame before its payload.
pub(crate) const FRAME_HEADER_LEN: usize = 68;
/// Most bytes of one frame's payload.
pub(crate) const PAYLOAD_MAX: usize = 64 << 20;
/// How each frame begins.
pub(crate) const FRAME_MAGIC: [u8; 4] = *b"PGWf";

const SEGMENT_MAGIC: [u8; 8] = *b"PGWjrnl\n";
const FILE_SUFFIX: &str = ".journal";
const TORN_SUFFIX: &str = ".torn";
/// Digits of a segment's number in its file name: sorting names sorts numbers.
const NAME_DIGITS: usize = 20;
/// The fields that the digest covers: all but the two checksums.
const HASHED_LEN: usize = 60;

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

/// Whether a file keeps what was cut off.
pub(crate) fn is_torn_name(name: &str) -> bool {
    name.ends_with(TORN_SUFFIX)
}

/// A segment's header.
pub(crate) fn segment_header(segment: u64, previous: Digest) -> [u8; SEGMENT_HEADER_LEN] {
    let mut bytes = [0; SEGMENT_HEADER_LEN];
    bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..20].copy_from_slice(&segment.to_le_bytes());
    bytes[20..52].copy_from_slice(&previous.0);
    let crc = crc32fast::hash(&bytes[..52]);
    bytes[52..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads a segment's header: the digest of the frame before it.
pub(crate) fn read_segment_header(bytes: &[u8], segment: u64) -> Result<Digest, Flaw> {
    let bytes: &[u8; SEGMENT_HEADER_LEN] =
        bytes.first_chunk().ok_or(Flaw::SegmentHeaderCut { bytes: bytes.len() as u64 })?;
    let crc = crc32fast::hash(&bytes[..52]);
    if bytes[..8] != SEGMENT_MAGIC || bytes[52..] != crc.to_le_bytes() {
        return Err(Flaw::SegmentHeader);
    }
    let version = u32_at(bytes, 8);
    if version != VERSION {
        return Err(Flaw::Version { found: version });
    }
    match u64_at(bytes, 12) {
        found if found == segment => Ok(digest_at(bytes, 20)),
        found => Err(Flaw::OtherSegment { found }),
    }
}

/// The fields of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) payload_len: u32,
    pub(crate) first: Seq,
    pub(crate) records: u32,
    pub(crate) synced: u64,
    pub(crate) previous: Digest,
    payload_crc: u32,
}

impl FrameHeader {
    /// Reads the fields, if their checksum is right.
    pub(crate) fn read(bytes: &[u8; FRAME_HEADER_LEN]) -> Result<Self, Flaw> {
        let crc = crc32fast::hash(&bytes[..64]);
        let payload_len = u32_at(bytes, 4);
        if bytes[..4] != FRAME_MAGIC || bytes[64..] != crc.to_le_bytes() || payload_len as usize > PAYLOAD_MAX
        {
            return Err(Flaw::FrameHeader);
        }
        Ok(Self {
            payload_len,
            first: Seq(u64_at(bytes, 8)),
            records: u32_at(bytes, 16),
            synced: u64_at(bytes, 20),
            previous: digest_at(bytes, 28),
            payload_crc: u32_at(bytes, 60),
        })
    }

    /// Bytes of the whole frame.
    pub(crate) fn frame_len(&self) -> u64 {
        FRAME_HEADER_LEN as u64 + u64::from(self.payload_len)
    }

    pub(crate) fn payload_is_whole(&self, payload: &[u8]) -> bool {
        crc32fast::hash(payload) == self.payload_crc
    }
}

/// Makes room for a frame's fields at the end of `buffer`; the payload is appended after them.
pub(crate) fn begin_frame(buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(&[0; FRAME_HEADER_LEN]);
}

/// Fills the fields of the frame that is the whole of `frame`; returns its digest. `None` if the
/// payload is too large.
pub(crate) fn finish_frame(
    frame: &mut [u8],
    first: Seq,
    records: u32,
    synced: u64,
    previous: Digest,
) -> Option<Digest> {
    let (fields, payload) = frame.split_at_mut(FRAME_HEADER_LEN);
    if payload.len() > PAYLOAD_MAX {
        return None;
    }
    fields[..4].copy_from_slice(&FRAME_MAGIC);
    fields[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    fields[8..16].copy_from_slice(&first.0.to_le_bytes());
    fields[16..20].copy_from_slice(&records.to_le_bytes());
    fields[20..28].copy_from_slice(&synced.to_le_bytes());
    fields[28..60].copy_from_slice(&previous.0);
    fields[60..64].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
    let crc = crc32fast::hash(&fields[..64]);
    fields[64..].copy_from_slice(&crc.to_le_bytes());
    Some(frame_digest(fields, payload))
}

/// The digest of a frame.
pub(crate) fn frame_digest(fields: &[u8], payload: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(&fields[..HASHED_LEN]);
    hash.update(payload);
    Digest(hash.finalize().into())
}

// The offsets below are constants inside arrays of known length.

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

fn digest_at(bytes: &[u8], at: usize) -> Digest {
    bytes[at..].first_chunk().map_or_else(Digest::default, |chunk| Digest(*chunk))
}
