//! Tells all sessions to come to an end.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// A token with a flag beside it, which costs nothing to look at between two messages.
#[derive(Debug, Default)]
pub(super) struct Drain {
    begun: AtomicBool,
    token: CancellationToken,
}

impl Drain {
    /// Wakes every session.
    pub(super) fn begin(&self) {
        // The flag first: whoever is woken finds it set.
        self.begun.store(true, Ordering::Release);
        self.token.cancel();
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Ends when it has begun.
    pub(super) fn begun(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }
}
