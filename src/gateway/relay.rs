//! The gate: bytes of a client go to the database only as harmless, or against a receipt.
//! ([`crate::recorder`] proves that nobody else can make one.)

use pgwitness_protocol::frame::FrameBuffer;

use crate::recorder::{Batch, Receipt};

/// Bytes from the client, looked at and waiting for their permission.
#[derive(Debug, Default)]
pub(super) struct Gate {
    pub(super) buffer: FrameBuffer,
    /// Bytes at the front that may be written to the database.
    permitted: usize,
}

/// Says that none of the messages looked at executes anything.
#[derive(Debug)]
pub(super) struct Harmless(());

impl Harmless {
    /// Only for messages of which the conversation said `Ask::Pass` (or the orderly end): with the
    /// records of the batch as a witness that there are none.
    pub(super) fn no_records(batch: &Batch) -> Option<Self> {
        batch.is_empty().then_some(Self(()))
    }
}

impl Gate {
    pub(super) fn new(buffer: FrameBuffer) -> Self {
        Self { buffer, permitted: 0 }
    }

    /// Everything looked at is recorded: it may go.
    pub(super) fn forward(&mut self, _receipt: &Receipt) {
        self.permitted = self.buffer.cleared().len();
    }

    /// Everything looked at executes nothing: it may go.
    pub(super) fn pass(&mut self, _harmless: &Harmless) {
        self.permitted = self.buffer.cleared().len();
    }

    /// What may be written to the database.
    pub(super) fn permitted(&self) -> &[u8] {
        self.buffer.cleared().get(..self.permitted).unwrap_or_default()
    }

    /// `count` permitted bytes were written.
    pub(super) fn passed(&mut self, count: usize) {
        self.buffer.passed(count);
        self.permitted -= count;
    }

    /// Throws away what was looked at and not permitted.
    pub(super) fn discard(&mut self) {
        debug_assert_eq!(self.permitted, 0);
        let count = self.buffer.cleared().len();
        self.buffer.passed(count);
    }
}
