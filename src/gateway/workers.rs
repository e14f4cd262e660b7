//! The threads that carry sessions.
//!
//! Each worker is a scheduler with one thread of its own. A session stays on the worker that it
//! was given to, so no other thread is woken for it, and what several sessions have to do at one
//! moment is done in one round: under load that halves what a scheduler over all processors
//! costs. Logins, the API and the catalogs' refresh run wherever they are called.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle, Runtime};

/// See the module's description. Ends its threads when it is dropped; sessions must have ended.
pub struct Workers {
    workers: Vec<Worker>,
}

struct Worker {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    handle: Handle,
    sessions: Arc<AtomicUsize>,
}

/// A place on a worker, taken by one session for its life.
pub(super) struct Seat {
    pub(super) handle: Handle,
    sessions: Arc<AtomicUsize>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("count", &self.workers.len()).finish()
    }
}

impl Workers {
    /// Starts so many threads.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn start(count: NonZeroUsize) -> io::Result<Self> {
        let workers = (0..count.get()).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Self { workers })
    }

    /// A place on the worker that has the fewest sessions.
    pub(super) fn seat(&self) -> Seat {
        let least = self.workers.iter().min_by_key(|worker| worker.sessions.load(Ordering::Relaxed));
        let worker = least.expect("there is at least one worker: the count is not zero");
        worker.sessions.fetch_add(1, Ordering::Relaxed);
        Seat { handle: worker.handle.clone(), sessions: worker.sessions.clone() }
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        // Not `new_current_thread`: a long analysis must be able to hand the others on (`block_in_place`).
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(format!("relay-{number}"))
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Self { runtime: Some(runtime), handle, sessions: Arc::default() })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Dropping it would wait, which a task must not.
            runtime.shutdown_background();
        }
    }
}
