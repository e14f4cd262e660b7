//! An index that is built again beside the one that answers, and takes its place when it knows as much.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use pgwitness_index::search::{IndexError, Indexer};

use super::{STEP, WRITE_AT, Work, step_back};

/// Beside the index, while it is built again.
const NEXT_SUFFIX: &str = ".next";

/// The thread that builds. Dropped, it ends.
pub(super) struct Again {
    dir: PathBuf,
    stop: Arc<AtomicBool>,
    handle: Option<JoinHandle<Result<Built, IndexError>>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Built {
    Whole,
    Stopped,
}

impl Again {
    /// Begins to build from what the journal has now.
    pub(super) fn start(work: &Work) -> Result<Self, IndexError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (next, stopped) = (work.next(), Arc::clone(&stop));
        let dir = next.dir.clone();
        let handle = thread::Builder::new().name("index-again".into()).spawn(move || {
            step_back();
            build(&next, &stopped)
        });
        Ok(Self { dir, stop, handle: Some(handle.map_err(|source| work.thread(source))?) })
    }

    /// Whether it knows as much as the journal.
    ///
    /// # Errors
    /// It could not be built.
    pub(super) fn is_whole(&mut self) -> Result<bool, IndexError> {
        let Some(handle) = self.handle.take_if(|handle| handle.is_finished()) else { return Ok(false) };
        let panicked = |_| Err(self.failed());
        Ok(handle.join().unwrap_or_else(panicked)? == Built::Whole)
    }

    fn failed(&self) -> IndexError {
        let source = io::Error::other("the thread that builds the index again panicked");
        IndexError::Directory { path: self.dir.clone(), source }
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(handle) = self.handle.take()
            && handle.join().is_err()
        {
            tracing::error!("the thread that builds the index again panicked");
        }
    }
}

impl Work {
    /// The same for the folder beside.
    fn next(&self) -> Self {
        let mut dir = self.dir.clone().into_os_string();
        dir.push(NEXT_SUFFIX);
        Self { dir: dir.into(), ..self.clone() }
    }

    /// Puts what was built again in the place of the index, which nobody writes now. Whoever searches meanwhile
    /// goes on with the files that are open.
    pub(super) fn take_place(&self) -> Result<(), IndexError> {
        let next = self.next();
        Indexer::erase(&self.dir)?;
        let moved = || -> io::Result<()> {
            for entry in fs::read_dir(&next.dir)? {
                let entry = entry?;
                fs::rename(entry.path(), self.dir.join(entry.file_name()))?;
            }
            fs::remove_dir(&next.dir)
        };
        moved().map_err(|source| self.thread(source))
    }
}

fn build(next: &Work, stop: &AtomicBool) -> Result<Built, IndexError> {
    if next.dir.exists() {
        // Of an earlier try: it may know too much.
        Indexer::erase(&next.dir)?;
    }
    let (mut indexer, _) = Indexer::open(&next.dir, next.storage.clone(), next.options)?;
    loop {
        if stop.load(Ordering::Acquire) {
            return Ok(Built::Stopped);
        }
        let progress = indexer.step(STEP)?;
        if progress.caught_up || progress.waiting >= WRITE_AT {
            indexer.commit()?;
        }
        if progress.caught_up {
            return Ok(Built::Whole);
        }
    }
}
