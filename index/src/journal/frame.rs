//! The format of a frame: its fields, then its payload.
//!
//! ```text
//! version 1   magic 4 | payload length u32 | first seq u64 | records u32 | synced u64
//!             | digest of the frame before 32 | crc32 of the payload u32 | crc32 of the fields u32
//! version 2   mark 4 | payload length u32 | first seq u32 | synced u32
//!             | link 8 | salt 16 | crc32 of the payload u32 | crc32 of the fields u32
//! ```
//! All numbers are little endian. `synced` is the length of the segment that was known to be durable
//! when the frame was written; a frame that says so proves that what lies before was not lost in a
//! crash but damaged later.
//!
//! Version 1: the digest of a frame is SHA-256 over its fields up to and including the digest of the
//! frame before, then its payload: a chain through all segments.
//!
//! Version 2: `first seq` is counted from the segment's first record. The top bit of the length says
//! that the payload is compressed: its plain length u32, then a zstd frame (RFC 8878). `link` is the
//! beginning of the digest of the frame before: enough to find a wrong neighbour at once, while the
//! digest itself covers all of that digest: SHA-256 over the digest of the frame before, in the
//! segment's first frame the segment's header, the fields up to and including the salt, and the
//! payload as it is in the file. `salt` is random.
//!
//! Version 3: fields as in version 2, but for three. `synced` is the place of the frame in the file before
//! it was rewritten. `salt` is zero once something of the frame was erased: it would open the commitments to
//! what is gone. The payload, as it is before it is compressed, begins with what the frame was:
//! `digest 32 | length u32`; that digest continues the chain.

use sha2::{Digest as _, Sha256};

use super::error::Flaw;
use super::segment::{Base, Format, digest_at, u32_at, u64_at};
use crate::record::{Digest, Seq};

/// Most bytes of one frame's payload, plain.
pub(crate) const PAYLOAD_MAX: usize = 64 << 20;
/// Bytes of a frame's fields in version 1.
pub(crate) const FIELDS_LEN_V1: usize = 68;
/// Bytes of a frame's fields in version 2.
pub(crate) const FIELDS_LEN_V2: usize = 48;
/// How each frame of version 1 begins.
const MAGIC_V1: [u8; 4] = *b"PGWf";
/// The fields that the digest covers: all but the two checksums.
const HASHED_LEN_V1: usize = 60;
const HASHED_LEN_V2: usize = 40;
/// The bit of the payload length that says that it is compressed.
const COMPRESSED: u32 = 1 << 31;

/// Random bytes of a frame.
pub(crate) type Salt = [u8; 16];

/// The fields of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fields {
    /// Bytes of the fields themselves.
    pub(crate) len: usize,
    pub(crate) payload_len: u32,
    pub(crate) compressed: bool,
    pub(crate) first: Seq,
    /// How many records; only version 1 says it.
    pub(crate) records: Option<u32>,
    pub(crate) synced: u64,
    pub(crate) salt: Option<Salt>,
    previous: Previous,
    payload_crc: u32,
}

/// What a frame says of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Previous {
    Digest(Digest),
    Link([u8; 8]),
}

impl Fields {
    /// Bytes that must be there to read the fields.
    pub(crate) fn len_in(format: &Format) -> usize {
        match format {
            Format::V1 => FIELDS_LEN_V1,
            Format::V2(_) | Format::V3(..) => FIELDS_LEN_V2,
        }
    }

    /// Reads the fields at the beginning of `bytes`, if their checksum is right.
    pub(crate) fn read(format: &Format, bytes: &[u8]) -> Result<Self, Flaw> {
        let fields = match format {
            Format::V1 => Self::read_v1(bytes),
            Format::V2(base) | Format::V3(base, _) => Self::read_v2(bytes, Some(base.mark), base.first),
        };
        fields.ok_or(Flaw::FrameHeader)
    }

    fn read_v1(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; FIELDS_LEN_V1] = bytes.first_chunk()?;
        let payload_len = u32_at(bytes, 4);
        let whole = bytes[..4] == MAGIC_V1
            && payload_len as usize <= PAYLOAD_MAX
            && crc32fast::hash(&bytes[..64]) == u32_at(bytes, 64);
        whole.then(|| Self {
            len: FIELDS_LEN_V1,
            payload_len,
            compressed: false,
            first: Seq(u64_at(bytes, 8)),
            records: Some(u32_at(bytes, 16)),
            synced: u64_at(bytes, 20),
            salt: None,
            previous: Previous::Digest(digest_at(bytes, 28)),
            payload_crc: u32_at(bytes, 60),
        })
    }

    /// With any mark if it is not known.
    fn read_v2(bytes: &[u8], mark: Option<[u8; 4]>, base: Seq) -> Option<Self> {
        let bytes: &[u8; FIELDS_LEN_V2] = bytes.first_chunk()?;
        let (mask, lens) = (u32_at(bytes, 4), u64_at(bytes, 8));
        let payload_len = mask & !COMPRESSED;
        let whole = mark.is_none_or(|mark| bytes[..4] == mark)
            && payload_len as usize <= PAYLOAD_MAX
            && crc32fast::hash(&bytes[..44]) == u32_at(bytes, 44);
        whole.then(|| Self {
            len: FIELDS_LEN_V2,
            payload_len,
            compressed: mask & COMPRESSED != 0,
            first: Seq(base.0.saturating_add(lens & u64::from(u32::MAX))),
            records: None,
            synced: lens >> 32,
            salt: bytes[24..].first_chunk().copied(),
            previous: Previous::Link(bytes[16..].first_chunk().copied().unwrap_or_default()),
            payload_crc: u32_at(bytes, 40),
        })
    }

    /// Reads the fields of a frame of any version and segment: for files whose header is damaged.
    pub(crate) fn read_any(bytes: &[u8]) -> Option<Self> {
        Self::read_v1(bytes).or_else(|| Self::read_v2(bytes, None, Seq(0)))
    }

    /// Bytes of the whole frame.
    pub(crate) fn frame_len(&self) -> u64 {
        self.len as u64 + u64::from(self.payload_len)
    }

    pub(crate) fn payload_is_whole(&self, payload: &[u8]) -> bool {
        crc32fast::hash(payload) == self.payload_crc
    }

    /// Whether the frame names `digest` as the one before it.
    pub(crate) fn continues(&self, digest: Digest) -> Result<(), Flaw> {
        match self.previous {
            Previous::Digest(found) if found != digest => Err(Flaw::Chain { expected: digest, found }),
            Previous::Link(found) if digest.0[..8] != found => Err(Flaw::Link { expected: digest }),
            _ => Ok(()),
        }
    }
}

/// How frames of a segment begin; `None` if the segment's header is not known.
pub(crate) fn begins_with(format: Option<&Format>) -> Option<[u8; 4]> {
    format.map(|format| match format {
        Format::V1 => MAGIC_V1,
        Format::V2(base) | Format::V3(base, _) => base.mark,
    })
}

/// The digest of a frame as it was written. `opening`: it is the first of its segment. (A rewritten frame
/// says what its digest was.)
pub(crate) fn digest(
    format: &Format,
    opening: bool,
    previous: Digest,
    fields: &[u8],
    payload: &[u8],
) -> Digest {
    let mut hash = Sha256::new();
    match format {
        Format::V1 => hash.update(&fields[..HASHED_LEN_V1]),
        Format::V2(base) => {
            hash.update(previous.0);
            if opening {
                hash.update(base.header);
            }
            hash.update(&fields[..HASHED_LEN_V2]);
        }
        Format::V3(..) => hash.update(&fields[..HASHED_LEN_V2]),
    }
    hash.update(payload);
    Digest(hash.finalize().into())
}

/// Makes room for a frame's fields at the end of `buffer`; the payload is appended after them.
pub(crate) fn begin(buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(&[0; FIELDS_LEN_V2]);
}

/// What the fields of a new frame say.
pub(crate) struct New<'a> {
    pub(crate) base: &'a Base,
    /// It is the first frame of its segment.
    pub(crate) opening: bool,
    pub(crate) compressed: bool,
    pub(crate) first: Seq,
    pub(crate) synced: u64,
    pub(crate) previous: Digest,
    pub(crate) salt: Salt,
}

/// Fills the fields of the frame that is the whole of `frame`; returns its digest. `None` if the
/// payload is too large, or the segment.
pub(crate) fn finish(frame: &mut [u8], new: &New<'_>) -> Option<Digest> {
    put_fields(frame, new)?;
    let (fields, payload) = frame.split_at(FIELDS_LEN_V2);
    Some(digest(&Format::V2(*new.base), new.opening, new.previous, fields, payload))
}

/// Fills the fields alone.
pub(crate) fn put_fields(frame: &mut [u8], new: &New<'_>) -> Option<()> {
    let (fields, payload) = frame.split_at_mut_checked(FIELDS_LEN_V2)?;
    if payload.len() > PAYLOAD_MAX {
        return None;
    }
    let first = u32::try_from(new.first.0.checked_sub(new.base.first.0)?).ok()?;
    let synced = u32::try_from(new.synced).ok()?;
    let len = payload.len() as u32 | if new.compressed { COMPRESSED } else { 0 };
    fields[..4].copy_from_slice(&new.base.mark);
    fields[4..8].copy_from_slice(&len.to_le_bytes());
    fields[8..12].copy_from_slice(&first.to_le_bytes());
    fields[12..16].copy_from_slice(&synced.to_le_bytes());
    fields[16..24].copy_from_slice(&new.previous.0[..8]);
    fields[24..40].copy_from_slice(&new.salt);
    fields[40..44].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
    let crc = crc32fast::hash(&fields[..44]);
    fields[44..].copy_from_slice(&crc.to_le_bytes());
    Some(())
}

/// What a rewritten frame says of itself as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Was {
    pub(crate) digest: Digest,
    /// Bytes of the whole frame.
    pub(crate) len: u32,
}

/// Bytes of [`Was`].
const WAS_LEN: usize = 36;

impl Was {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.digest.0);
        out.extend_from_slice(&self.len.to_le_bytes());
    }

    /// What the plain payload begins with, and the rest of it.
    pub(crate) fn split(payload: &[u8]) -> Result<(Self, &[u8]), Flaw> {
        let (was, rest) =
            payload.split_at_checked(WAS_LEN).ok_or(Flaw::Malformed("a rewritten entry is too short"))?;
        Ok((Self { digest: digest_at(was, 0), len: u32_at(was, 32) }, rest))
    }
}
