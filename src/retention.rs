//! The thread that drops what is due: full texts after their time, records after theirs, and single values
//! when an administrator has them erased. What may go, and how, is told in [`pgwitness_index::retention`].
//!
//! It looks at the start and then once an hour, give or take; it works beside the journal's writer, on segments
//! that are complete, one at a time. Each deed is a record first, and waits until a signed head covers it.
//!
//! What stands against it (a clock that cannot be believed, a segment that is not what was signed, a disk that
//! fails) is told in the log and in `status`; nothing is dropped then.

mod desk;
mod status;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

use pgwitness_index::record::Timestamp;
use pgwitness_index::retention::{HoldError, Holds};
use pgwitness_index::storage::Storage;

use crate::clock;
use crate::config;
use crate::proving::Proofs;
use crate::recorder::Recorder;

use desk::Order;
pub(crate) use desk::{Desk, Erase, NotErased};
use status::Shared;
use work::Work;

/// People's statements come first.
const NICENESS: i32 = 10;
/// Orders that wait; beyond, whoever orders is told to try again.
const ORDERS_MAX: usize = 16;

/// Who must forget what the journal does not have any more.
pub(crate) trait Forget: Send + Sync {
    /// Texts are about to be dropped: if this process ends before [`Forget::forget`], the next one forgets.
    ///
    /// # Errors
    /// It could not be noted. Nothing is dropped then.
    fn announce(&self) -> std::io::Result<()>;
    /// They were dropped.
    fn forget(&self);
}

/// What is kept of a parameter's value.
pub(crate) type KeptAs = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// What the thread works with.
pub(crate) struct Parts {
    pub(crate) config: config::Retention,
    /// How a parameter's value is written where only keyed hashes are kept.
    pub(crate) kept_as: Option<KeptAs>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) recorder: Recorder,
    pub(crate) proofs: Proofs,
    pub(crate) forget: Arc<dyn Forget>,
    /// The newest record when the journal was opened, before this process wrote any.
    pub(crate) newest: Option<Timestamp>,
}

/// The running thread.
pub(crate) struct Retaining {
    stop: Arc<AtomicBool>,
    orders: SyncSender<Order>,
    handle: JoinHandle<()>,
}

/// Why it could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RetainingError {
    /// A legal hold that cannot be read.
    #[error("retention.legal_hold: {0}")]
    Hold(#[from] HoldError),
    /// The thread could not be started.
    #[error("could not start the thread that drops what is due: {0}")]
    Thread(#[from] std::io::Error),
}

impl Retaining {
    /// Begins to look.
    ///
    /// # Errors
    /// A hold that cannot be read, or the system.
    pub(crate) fn start(parts: Parts) -> Result<(Self, Desk), RetainingError> {
        let holds = Holds::parse(
            &parts.config.legal_hold,
            clock::now(),
            parts.kept_as.as_ref().map(|kept_as| &**kept_as as &dyn Fn(&str) -> String),
        )?;
        let stop = Arc::new(AtomicBool::new(false));
        let (orders, ordered) = mpsc::sync_channel(ORDERS_MAX);
        let shared = Arc::new(Shared::new(&parts.config));
        let desk = Desk::new(orders.clone(), Arc::clone(&parts.storage), Arc::clone(&shared));
        let work = Work::new(parts, holds, shared, Arc::clone(&stop));
        let handle = thread::Builder::new().name("retention".into()).spawn(move || {
            if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
                tracing::debug!(%error, "retention runs at the priority of everything else");
            }
            work.run(&ordered);
        })?;
        Ok((Self { stop, orders, handle }, desk))
    }

    /// Ends after the step under way.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        // If orders wait, it is awake already.
        let _ = self.orders.try_send(Order::Wake);
        if self.handle.join().is_err() {
            tracing::error!("the thread that drops what is due panicked");
        }
    }
}
