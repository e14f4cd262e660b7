//! Whether a crash can have left what is wrong, or somebody changed it later.

use std::io;

use super::error::{CrashPossible, Flaw};
use super::frame::{FIELDS_LEN_V1, Fields, begins_with};
use super::segment::Format;
use crate::storage::ReadFile;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// Whether a crash can have left `flaw` at `bad`. It cannot if a whole frame behind says that the
/// bad bytes were durable before. `format` is `None` if the segment's header could not be read.
pub(crate) fn crash_possible(
    file: &dyn ReadFile,
    format: Option<&Format>,
    bad: u64,
    flaw: &Flaw,
) -> io::Result<CrashPossible> {
    let mut from = match flaw.look_from(bad) {
        Ok(from) => from,
        Err(answer) => return Ok(answer),
    };
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = file.read_at(from, &mut chunk)?;
        let bytes = chunk.get(..count).unwrap_or_default();
        for index in 0..bytes.len() {
            let rest = bytes.get(index..).unwrap_or_default();
            if may_begin(format, rest) && proves_durable(file, format, from + index as u64, bad)? {
                return Ok(CrashPossible::No);
            }
        }
        if count < CHUNK {
            return Ok(CrashPossible::Yes);
        }
        // Fields that are cut by the chunk's end are seen whole in the next.
        from += (CHUNK - FIELDS_LEN_V1 + 1) as u64;
    }
}

/// Whether a frame may begin here. Without a format, frames of any version and mark are found by
/// their checksum.
fn may_begin(format: Option<&Format>, bytes: &[u8]) -> bool {
    match begins_with(format) {
        Some(mark) => bytes.starts_with(&mark),
        None => Fields::read_any(bytes).is_some(),
    }
}

/// Whether a whole frame at `offset` says that more than `bad` bytes were durable.
fn proves_durable(file: &dyn ReadFile, format: Option<&Format>, offset: u64, bad: u64) -> io::Result<bool> {
    let mut fields = [0; FIELDS_LEN_V1];
    let count = file.read_at(offset, &mut fields)?;
    let bytes = fields.get(..count).unwrap_or_default();
    let read = match format {
        Some(format) => Fields::read(format, bytes).ok(),
        None => Fields::read_any(bytes),
    };
    let Some(fields) = read.filter(|fields| fields.synced > bad) else { return Ok(false) };
    if offset + fields.frame_len() > file.len()? {
        return Ok(false);
    }
    let mut payload = vec![0; fields.payload_len as usize];
    let count = file.read_at(offset + fields.len as u64, &mut payload)?;
    Ok(count == payload.len() && fields.payload_is_whole(&payload))
}
