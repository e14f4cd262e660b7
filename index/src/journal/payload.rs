//! Payloads as they are in the file: plain, or compressed where that pays. And the reading of one
//! frame by its place.

use std::borrow::Cow;
use std::io;

use zstd::bulk::{Compressor, Decompressor};

use super::decode::Load;
use super::error::Flaw;
use super::frame::{Fields, PAYLOAD_MAX, Was};
use super::segment::Format;
use super::wire::Malformed;
use crate::storage::ReadFile;

/// Smaller payloads stay plain: one record is the common case, and gains nothing.
const COMPRESS_MIN: usize = 1 << 10;
/// Payloads with fewer bytes than this for each entry stay plain: what is left of slim records is
/// mostly random.
const COMPRESS_BYTES_PER_ENTRY: usize = 64;
/// The fastest of the levels that find what texts have in common.
const LEVEL: i32 = 1;
/// Bytes of the plain length.
const LENGTH_LEN: usize = 4;

/// Why a frame could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    Io(io::Error),
    Flaw(Flaw),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Flaw> for ReadError {
    fn from(flaw: Flaw) -> Self {
        Self::Flaw(flaw)
    }
}

impl From<Malformed> for ReadError {
    fn from(malformed: Malformed) -> Self {
        Self::Flaw(Flaw::Malformed(malformed.0))
    }
}

/// Compresses payloads.
pub(super) struct Packer {
    compressor: Option<Compressor<'static>>,
    buffer: Vec<u8>,
}

impl Packer {
    pub(super) fn new() -> Self {
        Self { compressor: None, buffer: Vec::new() }
    }

    /// Compresses the payload behind the fields in `buffer`, if that pays; whether it did. A payload
    /// that could not be compressed stays plain.
    pub(super) fn pack(&mut self, buffer: &mut Vec<u8>, fields_len: usize, entries: usize) -> bool {
        let plain = buffer.get(fields_len..).unwrap_or_default();
        let dense = plain.len() < entries.saturating_mul(COMPRESS_BYTES_PER_ENTRY);
        if plain.len() < COMPRESS_MIN || plain.len() > PAYLOAD_MAX || dense {
            return false;
        }
        if self.compressor.is_none() {
            self.compressor = Compressor::new(LEVEL).ok();
        }
        let Some(compressor) = &mut self.compressor else { return false };
        // No more room than what is worth it: beyond, compressing fails.
        let room = plain.len() - plain.len() / 8;
        self.buffer.resize(room, 0);
        let Ok(packed) = compressor.compress_to_buffer(plain, &mut self.buffer[..]) else { return false };
        let length = plain.len() as u32;
        buffer.truncate(fields_len);
        buffer.extend_from_slice(&length.to_le_bytes());
        buffer.extend_from_slice(self.buffer.get(..packed).unwrap_or_default());
        self.buffer.clear();
        self.buffer.shrink_to(PAYLOAD_MAX / 64);
        true
    }
}

/// Gives plain payloads back.
#[derive(Default)]
pub(super) struct Unpacker(Option<Decompressor<'static>>);

impl Unpacker {
    pub(super) fn plain<'a>(
        &mut self,
        fields: &Fields,
        payload: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, ReadError> {
        if !fields.compressed {
            return Ok(Cow::Borrowed(payload));
        }
        let (length, packed) = payload
            .split_first_chunk::<LENGTH_LEN>()
            .ok_or(Malformed("a compressed payload has no length"))?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > PAYLOAD_MAX {
            return Err(Malformed("a compressed payload is too large").into());
        }
        let decompressor = match &mut self.0 {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new()?),
        };
        let plain = decompressor.decompress(packed, length).ok().filter(|plain| plain.len() == length);
        Ok(Cow::Owned(plain.ok_or(Malformed("a compressed payload cannot be read"))?))
    }
}

/// Bytes read at first: a frame of this size needs one read.
const FIRST_READ: usize = 4 << 10;

/// Reads the frame at `offset`, without knowing what is before it: its fields, and all its bytes.
pub(super) fn read_frame(
    file: &dyn ReadFile,
    format: &Format,
    offset: u64,
) -> Result<(Fields, Vec<u8>), ReadError> {
    let mut bytes = vec![0; FIRST_READ];
    let count = file.read_at(offset, &mut bytes)?;
    bytes.truncate(count);
    if count < Fields::len_in(format) {
        return Err(Flaw::FrameHeaderCut.into());
    }
    let fields = Fields::read(format, &bytes)?;
    let frame_len = fields.frame_len();
    if offset + frame_len > file.len()? {
        return Err(Flaw::PayloadCut.into());
    }
    let have = bytes.len();
    bytes.resize(fields.len + fields.payload_len as usize, 0);
    if let Some(rest) = bytes.get_mut(have..).filter(|rest| !rest.is_empty())
        && file.read_at(offset + have as u64, rest)? < rest.len()
    {
        return Err(Flaw::PayloadCut.into());
    }
    if !fields.payload_is_whole(bytes.get(fields.len..).unwrap_or_default()) {
        return Err(Flaw::Payload { end: offset + frame_len }.into());
    }
    Ok((fields, bytes))
}

/// Loads definitions from the frames of one segment.
pub(super) struct FromFile<'a> {
    pub(super) file: &'a dyn ReadFile,
    pub(super) format: &'a Format,
    pub(super) unpacker: &'a mut Unpacker,
}

impl Load for FromFile<'_> {
    type Error = ReadError;

    fn load(&mut self, offset: u32) -> Result<Vec<u8>, ReadError> {
        let place = || Malformed("a definition is in an entry that cannot be read");
        let (fields, bytes) = match read_frame(self.file, self.format, u64::from(offset)) {
            Err(ReadError::Flaw(_)) => return Err(place().into()),
            read => read?,
        };
        let payload = bytes.get(fields.len..).unwrap_or_default();
        let plain = self.unpacker.plain(&fields, payload)?.into_owned();
        match self.format {
            Format::V3(..) => Ok(Was::split(&plain)?.1.to_vec()),
            _ => Ok(plain),
        }
    }
}
