//! The threads that keep the search true to the journal: one reads, so that a record is found soon after
//! its end, the other writes what was read to the index on disk.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pgwitness_index::search::{IndexError, Indexer, Opened, Options, Part, Search, Writing, Written};
use pgwitness_index::storage::Storage;

use crate::config;
use again::Again;

mod again;

/// Between two looks at a journal that has nothing new.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Records taken before they are shown.
const STEP: usize = 2_000;

/// So many records in memory are written even before it is time.
const WRITE_AT: usize = 16_384;

/// Writing may take one part in this many of the time, while not too many records wait: commits are
/// fewer and larger under load, because what they cost depends little on how much they carry.
const COMMIT_SHARE: u32 = 20;

/// However long a commit takes, the next is not put off longer than this.
const COMMIT_WAIT_MAX: Duration = Duration::from_secs(10);

/// Niceness of the thread and of Tantivy's, which inherit it: people's statements come first, and
/// where the processor is fully used the index still gets about a tenth of a share.
const NICENESS: i32 = 10;

/// At a stop the index takes what the journal still holds for at most this long: it goes on where it
/// stood when the gateway starts again.
const CATCH_UP_AT_STOP: Duration = Duration::from_secs(3);

/// After an error, before the index is opened again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Beside the index, while texts that it has are being dropped from the journal.
const FORGET_SUFFIX: &str = ".forget";

/// What is done about the index.
pub(crate) enum Indexing {
    /// The running thread.
    Follows {
        /// Tells it to end.
        stop: Arc<AtomicBool>,
        /// Its end.
        handle: JoinHandle<()>,
        /// Tells it what to forget.
        forgetting: Arc<Forgetting>,
    },
    /// Nothing: it stays as it was found.
    Paused(Arc<Forgetting>),
}

/// Has the index forget what the journal does not have any more: it is built again from what is left, beside the
/// one that answers until then. The file beside it says so to the next process, should this one end in between.
pub(crate) struct Forgetting {
    /// Something was dropped since the index was begun.
    wanted: AtomicBool,
    /// How often texts are about to be dropped. While it is held, the marker stays as it is.
    announced: Mutex<u32>,
    marker: PathBuf,
    /// For an index that nobody follows.
    paused: Option<(Work, Search)>,
}

impl Forgetting {
    fn new(work: &Work) -> Self {
        Self {
            wanted: AtomicBool::new(false),
            announced: Mutex::default(),
            marker: work.marker(),
            paused: None,
        }
    }

    /// Texts are about to be dropped.
    pub(crate) fn announce(&self) -> io::Result<()> {
        let mut announced = self.announced();
        *announced += 1;
        let marked = self.mark();
        if marked.is_err() {
            *announced -= 1;
        }
        marked
    }

    fn announced(&self) -> MutexGuard<'_, u32> {
        // A number is whole at any time.
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self) -> io::Result<()> {
        let file = File::create(&self.marker)?;
        file.sync_all()?;
        match self.marker.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }

    /// They were.
    pub(crate) fn forget(&self) {
        self.wanted.store(true, Ordering::Release);
        let mut announced = self.announced();
        *announced = announced.saturating_sub(1);
        drop(announced);
        if let Some((work, search)) = &self.paused
            && let Err(error) = work.reopen(search)
        {
            tracing::error!(%error, "the paused search index could not forget what was dropped");
        }
    }

    /// Everything is forgotten, unless more was dropped meanwhile, or is about to be.
    fn unmark(&self) -> io::Result<()> {
        let announced = self.announced();
        if *announced > 0 || self.wanted.load(Ordering::Acquire) {
            return Ok(());
        }
        match fs::remove_file(&self.marker) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

#[derive(Clone)]
struct Work {
    dir: PathBuf,
    storage: Arc<dyn Storage>,
    options: Options,
    commit_every: Duration,
    stop: Arc<AtomicBool>,
}

impl Indexing {
    /// Opens the index, or rebuilds it in the background if it is missing or of no use.
    pub(crate) fn start(
        config: &config::Index,
        storage: Arc<dyn Storage>,
    ) -> Result<(Self, Search), IndexError> {
        let stop = Arc::new(AtomicBool::new(false));
        let work = Work {
            dir: config.dir.clone(),
            storage,
            options: Options { memory_bytes: config.memory },
            commit_every: config.commit_every,
            stop: stop.clone(),
        };
        let mut forgetting = Forgetting::new(&work);
        if config.paused {
            tracing::warn!("the search index is paused: what is recorded from now on is not found");
            let (_, search) = work.open()?;
            forgetting.paused = Some((work, search.clone()));
            return Ok((Self::Paused(Arc::new(forgetting)), search));
        }
        let forgetting = Arc::new(forgetting);
        let wanted = Arc::clone(&forgetting);
        let ended = |source| IndexError::Directory { path: config.dir.clone(), source };
        let (opened, opening) = mpsc::sync_channel(1);
        let handle = thread::Builder::new()
            .name("index".into())
            .spawn(move || {
                step_back();
                match work.open() {
                    Ok((indexer, search)) => {
                        if opened.send(Ok(search.clone())).is_ok() {
                            work.run(indexer, &search, &wanted);
                        }
                    }
                    Err(error) => _ = opened.send(Err(error)),
                }
            })
            .map_err(ended)?;
        let search = opening.recv().map_err(|_| ended(io::Error::other("the index thread ended")))??;
        Ok((Self::Follows { stop, handle, forgetting }, search))
    }

    /// Takes what the journal still holds, for at most [`CATCH_UP_AT_STOP`], commits, and ends.
    pub(crate) fn stop(self) {
        let Self::Follows { stop, handle, .. } = self else { return };
        stop.store(true, Ordering::Release);
        if handle.join().is_err() {
            tracing::error!("the index thread panicked");
        }
    }

    /// Has it forget.
    pub(crate) fn forgetting(&self) -> Arc<Forgetting> {
        match self {
            Self::Follows { forgetting, .. } | Self::Paused(forgetting) => Arc::clone(forgetting),
        }
    }

    /// What searches must say about their answers.
    pub(crate) fn warnings(&self) -> Vec<String> {
        match self {
            Self::Follows { .. } => Vec::new(),
            Self::Paused(_) => vec!["the search index is paused: newer records are missing".into()],
        }
    }
}

/// Lowers the priority of this thread and of those it will start.
fn step_back() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "the index runs at the priority of everything else");
    }
}

impl Work {
    /// The file that says that the index has texts that the journal has not.
    fn marker(&self) -> PathBuf {
        let mut path = self.dir.clone().into_os_string();
        path.push(FORGET_SUFFIX);
        path.into()
    }

    /// Removes the index if it has to forget something.
    fn forget(&self) -> Result<(), IndexError> {
        if self.marker().exists() && self.dir.exists() { Indexer::erase(&self.dir) } else { Ok(()) }
    }

    /// The same when the process begins: nothing is being dropped now.
    fn forget_at_start(&self) -> Result<(), IndexError> {
        self.forget()?;
        match fs::remove_file(self.marker()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.thread(error)),
            _ => Ok(()),
        }
    }

    fn reopen(&self, search: &Search) -> Result<Indexer, IndexError> {
        self.forget()?;
        Indexer::reopen(&self.dir, self.storage.clone(), self.options, search)
    }

    fn open(&self) -> Result<(Indexer, Search), IndexError> {
        self.forget_at_start()?;
        let (indexer, search) = Indexer::open(&self.dir, self.storage.clone(), self.options)?;
        match indexer.opened() {
            Opened::Rebuilt(why) => tracing::warn!(%why, "the search index is built again from the journal"),
            opened => tracing::debug!(?opened, "search index"),
        }
        Ok((indexer, search))
    }

    /// Opens the index again after `ended`.
    fn open_after(
        &self,
        ended: &Result<Followed, IndexError>,
        search: &Search,
        forgetting: &Forgetting,
    ) -> Result<Indexer, IndexError> {
        if matches!(ended, Ok(Followed::Replaced)) {
            let unmark = || forgetting.unmark().map_err(|source| self.thread(source));
            match self.take_place().and_then(|()| unmark()) {
                Ok(()) => return Indexer::reopen(&self.dir, self.storage.clone(), self.options, search),
                Err(error) => tracing::error!(%error, "the search index is built again in its place"),
            }
            // What is left of both may know too much.
            Indexer::erase(&self.dir)?;
        }
        self.reopen(search)
    }

    /// `search` is what others hold: it follows when the index is opened again.
    fn run(&self, mut indexer: Indexer, search: &Search, forgetting: &Forgetting) {
        loop {
            let mut wait = RETRY_AFTER;
            let ended = self.follow(&mut indexer, forgetting);
            match &ended {
                Ok(Followed::Stopped) => return,
                Ok(Followed::Replaced) => wait = Duration::ZERO,
                Err(error) => tracing::error!(%error, "the search index fell behind and is opened again"),
            }
            // One that is broken, or knows too much, is of no more use.
            drop(indexer);
            indexer = loop {
                if self.stop.load(Ordering::Acquire) {
                    return;
                }
                thread::sleep(std::mem::replace(&mut wait, RETRY_AFTER));
                match self.open_after(&ended, search, forgetting) {
                    Ok(again) => break again,
                    Err(error) => tracing::error!(%error, "could not open the search index"),
                }
            };
        }
    }

    /// Follows the journal until the stop, an error, or until something is to be forgotten.
    fn follow(&self, indexer: &mut Indexer, forgetting: &Forgetting) -> Result<Followed, IndexError> {
        thread::scope(|scope| {
            let (give, taken) = mpsc::sync_channel::<Writing>(1);
            let (written, ended) = mpsc::sync_channel(1);
            let writer = thread::Builder::new().name("index-write".into()).spawn_scoped(scope, move || {
                while let Ok(writing) = taken.recv() {
                    if written.send(writing.run()).is_err() {
                        return;
                    }
                }
            });
            let writer = writer.map_err(|source| self.thread(source))?;
            let read = self.read(indexer, &Writer { give, ended }, forgetting);
            writer.join().map_err(|_| self.thread(io::Error::other("the thread that writes panicked")))?;
            read
        })
    }

    fn thread(&self, source: io::Error) -> IndexError {
        IndexError::Directory { path: self.dir.clone(), source }
    }

    fn read(
        &self,
        indexer: &mut Indexer,
        writer: &Writer,
        forgetting: &Forgetting,
    ) -> Result<Followed, IndexError> {
        let mut pace = Pace { every: self.commit_every, due: None, began: None };
        let (mut last_moment, mut again) = (None, None::<Again>);
        loop {
            // What is dropped while one is built is forgotten by the next.
            if again.is_none() && forgetting.wanted.swap(false, Ordering::AcqRel) {
                tracing::info!("the search index is built again, without what was dropped");
                again = Some(Again::start(self)?);
            }
            if again.as_mut().map(Again::is_whole).transpose()? == Some(true) {
                return Ok(Followed::Replaced);
            }
            // Read before the look: what was written before the stop is still taken.
            let stopping = self.stop.load(Ordering::Acquire);
            let progress = indexer.step(STEP)?;
            match writer.ended.try_recv() {
                Ok(written) => {
                    indexer.finish(written?)?;
                    pace.ended(self.commit_every);
                }
                Err(mpsc::TryRecvError::Empty) => {}
                Err(mpsc::TryRecvError::Disconnected) => {
                    return Err(self.thread(io::Error::other("the thread that writes ended")));
                }
            }
            let now = Instant::now();
            let ends =
                stopping && (progress.caught_up || now >= *last_moment.get_or_insert(now + CATCH_UP_AT_STOP));
            if ends {
                if pace.began.is_some()
                    && let Ok(written) = writer.ended.recv()
                {
                    indexer.finish(written?)?;
                }
                return indexer.commit().map(|()| Followed::Stopped);
            }
            if pace.wants(progress.waiting, now)
                && let Some(writing) = indexer.begin(Part::Ended)
                && writer.give.send(writing).is_ok()
            {
                pace.began = Some(now);
            }
            if progress.caught_up || progress.full {
                thread::sleep(LOOK_EVERY);
            }
        }
    }
}

/// Why the journal is not followed any more.
enum Followed {
    Stopped,
    /// Another, built again, is to take its place.
    Replaced,
}

/// The thread that writes.
struct Writer {
    give: mpsc::SyncSender<Writing>,
    ended: mpsc::Receiver<Result<Written, IndexError>>,
}

/// When to write next.
struct Pace {
    every: Duration,
    /// Nothing is due while nothing waits.
    due: Option<Instant>,
    /// When the writing under way began.
    began: Option<Instant>,
}

impl Pace {
    fn wants(&mut self, waiting: usize, now: Instant) -> bool {
        if waiting == 0 || self.began.is_some() {
            return false;
        }
        let due = *self.due.get_or_insert(now + self.every);
        let wants = now >= due || waiting >= WRITE_AT;
        if wants {
            self.due = None;
        }
        wants
    }

    fn ended(&mut self, least: Duration) {
        let took = self.began.take().map_or(Duration::ZERO, |began| began.elapsed());
        self.every = took.saturating_mul(COMMIT_SHARE).clamp(least, COMMIT_WAIT_MAX.max(least));
    }
}
