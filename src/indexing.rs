//! The thread that keeps the search index true to the journal.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pgwitness_index::search::{IndexError, Indexer, Opened, Options, Search};
use pgwitness_index::storage::Storage;

use crate::config;

/// Between two looks at a journal that has nothing new.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Records taken between two looks at the clock.
const STEP: usize = 2_000;

/// After an error, before the index is opened again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The running thread.
pub(crate) struct Indexing {
    stop: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

struct Work {
    dir: PathBuf,
    storage: Arc<dyn Storage>,
    options: Options,
    /// What others hold; it must follow when the index is opened again.
    search: Search,
    commit_every: Duration,
    stop: Arc<AtomicBool>,
}

impl Indexing {
    /// Opens the index, or rebuilds it in the background if it is missing or of no use.
    pub(crate) fn start(
        config: &config::Index,
        storage: Arc<dyn Storage>,
    ) -> Result<(Self, Search), IndexError> {
        let options = Options { memory_bytes: config.memory };
        let (indexer, search) = Indexer::open(&config.dir, storage.clone(), options)?;
        match indexer.opened() {
            Opened::Rebuilt(why) => tracing::warn!(%why, "the search index is built again from the journal"),
            opened => tracing::debug!(?opened, "search index"),
        }
        let stop = Arc::new(AtomicBool::new(false));
        let work = Work {
            dir: config.dir.clone(),
            storage,
            options,
            search: search.clone(),
            commit_every: config.commit_every,
            stop: stop.clone(),
        };
        let handle = thread::Builder::new()
            .name("index".into())
            .spawn(move || work.run(indexer))
            .map_err(|source| IndexError::Directory { path: config.dir.clone(), source })?;
        Ok((Self { stop, handle }, search))
    }

    /// Takes what the journal still holds, commits, and ends.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        if self.handle.join().is_err() {
            tracing::error!("the index thread panicked");
        }
    }
}

impl Work {
    fn run(&self, mut indexer: Indexer) {
        loop {
            match self.follow(&mut indexer) {
                Ok(()) => return,
                Err(error) => tracing::error!(%error, "the search index fell behind and is opened again"),
            }
            // A broken indexer is of no more use.
            drop(indexer);
            indexer = loop {
                if self.stop.load(Ordering::Acquire) {
                    return;
                }
                thread::sleep(RETRY_AFTER);
                match Indexer::reopen(&self.dir, self.storage.clone(), self.options, &self.search) {
                    Ok(again) => break again,
                    Err(error) => tracing::error!(%error, "could not open the search index"),
                }
            };
        }
    }

    fn follow(&self, indexer: &mut Indexer) -> Result<(), IndexError> {
        let mut due: Option<Instant> = None;
        loop {
            // Read before the look: what was written before the stop is still taken.
            let stopping = self.stop.load(Ordering::Acquire);
            let progress = indexer.step(STEP)?;
            if progress.records > 0 && due.is_none() {
                due = Some(Instant::now() + self.commit_every);
            }
            let now = Instant::now();
            if due.is_some_and(|due| now >= due) || (stopping && progress.caught_up) {
                indexer.commit()?;
                due = None;
            }
            if progress.caught_up {
                if stopping {
                    return Ok(());
                }
                let wait = due.map_or(LOOK_EVERY, |due| due.saturating_duration_since(now).min(LOOK_EVERY));
                thread::sleep(wait);
            }
        }
    }
}
