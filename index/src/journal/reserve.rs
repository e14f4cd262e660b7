//! Space that is set aside on the disk, so that even when it is full a few last things can be written:
//! above all that statements were refused.

use std::io;
use std::sync::Arc;

use super::random::Random;
use crate::storage::{AppendFile, Storage};

/// Bytes set aside: some thousand refusals.
const BYTES: u64 = 1 << 20;
/// Space is taken and given back in pieces of this size, a multiple of the blocks of file systems.
const PIECE: u64 = 4 << 10;
/// The file that takes the space.
const NAME: &str = "journal.reserve";

/// See the module's description.
#[derive(Default)]
pub(super) struct Reserve {
    file: Option<Arc<dyn AppendFile>>,
    len: u64,
}

impl Reserve {
    /// Sets space aside, as far as there is some; whether the reserve is whole.
    pub(super) fn refill(&mut self, storage: &dyn Storage, random: &mut Random) -> io::Result<bool> {
        let file = match &self.file {
            Some(file) => file,
            None => {
                let file = storage.append(NAME)?;
                self.len = file.len()?;
                self.file.insert(file)
            }
        };
        if self.len >= BYTES {
            return Ok(true);
        }
        // Bytes that no file system compresses.
        let piece: Vec<u8> = random.take::<1024>()?.repeat(PIECE as usize / 1024);
        while self.len < BYTES {
            if let Err(error) = file.write(&piece) {
                file.truncate(self.len)?;
                let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
                return if full { Ok(false) } else { Err(error) };
            }
            self.len += PIECE;
        }
        file.sync()?;
        Ok(true)
    }

    /// Gives space back to the disk, at least `bytes` of it; whether there was some.
    pub(super) fn give(&mut self, bytes: u64) -> io::Result<bool> {
        let Some(file) = self.file.as_ref().filter(|_| self.len > 0) else { return Ok(false) };
        let pieces = bytes.div_ceil(PIECE) + 1;
        self.len = self.len.saturating_sub(pieces.saturating_mul(PIECE));
        file.truncate(self.len)?;
        // Some file systems free blocks only when the change of the length is durable.
        file.sync()?;
        Ok(true)
    }
}
