//! Random bytes of the operating system, fetched many at once: one call serves 256 frames.

use std::io;

/// Bytes fetched at once.
const FETCH: usize = 4 << 10;

/// Bytes that were fetched and not given out.
pub(super) struct Random {
    bytes: Box<[u8; FETCH]>,
    used: usize,
}

impl Random {
    pub(super) fn new() -> Self {
        Self { bytes: Box::new([0; FETCH]), used: FETCH }
    }

    /// So many random bytes, given out once.
    pub(super) fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        const { assert!(N <= FETCH, "more than is fetched at once") }
        if self.used + N > FETCH {
            getrandom::fill(&mut self.bytes[..]).map_err(io::Error::from)?;
            self.used = 0;
        }
        let mut taken = [0; N];
        taken.copy_from_slice(&self.bytes[self.used..self.used + N]);
        self.used += N;
        Ok(taken)
    }
}
