//! The thread that signs the log: it follows the journal as far as it is durable, grows the tree, and
//! publishes a signed head each second or 4,096 records, and at the end.
//!
//! What contradicts an earlier head is never signed: that is told in the log, in `status` and as a record
//! of its own, and recording goes on.

mod anchor;
mod key;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pgwitness_index::proof::note::{SignerKey, VerifierKey};
use pgwitness_index::proof::{Latest, Opened, TreeError, TreeReader, TreeWriter};
use pgwitness_index::storage::Storage;
use serde_json::{Value, json};

use crate::config;
use crate::recorder::{Recorder, alert};

pub(crate) use anchor::Anchors;
pub use key::KeyError;

/// Between two looks at a journal that has nothing new.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A head is signed at least this often while there is something to sign.
const SIGN_EVERY: Duration = Duration::from_secs(1);
/// So many entries are signed at once, whatever the time.
const SIGN_ENTRIES: u64 = 4096;
/// Entries taken between two looks at the clock.
const STEP: usize = 2048;
/// One head is kept for later this often, and at the end.
const KEEP_EVERY: Duration = Duration::from_secs(3600);
/// After an error, before the tree is opened again.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// The same, where only people can help: opening reads a whole segment.
const RETRY_AFTER_ALARM: Duration = Duration::from_secs(60);
/// At a stop the tree takes what the journal still holds for at most this long.
const CATCH_UP_AT_STOP: Duration = Duration::from_secs(3);
/// People's statements come first.
const NICENESS: i32 = 5;

/// What others may know of the signed log. Cheap to clone.
#[derive(Clone)]
pub struct Proofs {
    reader: TreeReader,
    key: VerifierKey,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Proofs {
    /// Proofs about a journal whose heads are in `latest`, signed with `key`.
    pub fn new(storage: Arc<dyn Storage>, latest: Latest, key: VerifierKey) -> Self {
        Self { reader: TreeReader::new(storage, latest), key, trouble: Arc::default() }
    }

    /// Makes proofs.
    pub fn reader(&self) -> &TreeReader {
        &self.reader
    }

    /// What signatures are checked with.
    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// How far the log is signed, with which key, and why no further, if so.
    pub fn status(&self) -> Value {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        json!({
            "key": self.key.to_string(),
            "entries": self.reader.published().map(|published| published.tree.size),
            "trouble": trouble,
        })
    }

    /// Whether there was trouble before.
    fn set_trouble(&self, trouble: Option<String>) -> bool {
        let mut known = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *known, trouble).is_some()
    }
}

/// The running thread.
pub(crate) struct Proving {
    stop: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

/// Why the log cannot be signed at all.
#[derive(Debug, thiserror::Error)]
pub enum ProvingError {
    /// No key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key is not the one that signed before.
    #[error(transparent)]
    OtherKey(TreeError),
    /// The thread could not be started.
    #[error("could not start the thread that signs the log: {0}")]
    Thread(std::io::Error),
}

struct Work {
    storage: Arc<dyn Storage>,
    recorder: Recorder,
    key: SignerKey,
    latest: Latest,
    proofs: Proofs,
    stop: Arc<AtomicBool>,
}

impl Proving {
    /// Reads or makes the key, and begins to follow the journal. `host` names a new key.
    ///
    /// # Errors
    /// There is no key, or another one signed what was published.
    pub(crate) fn start(
        config: &config::Log,
        host: &str,
        storage: Arc<dyn Storage>,
        recorder: Recorder,
    ) -> Result<(Self, Proofs), ProvingError> {
        let path: &PathBuf = &config.sign_key_file;
        let key = key::open(path, &config.dir, &*storage, host)?;
        let latest = Latest::default();
        let proofs = Proofs::new(Arc::clone(&storage), latest.clone(), key.public().clone());
        let stop = Arc::new(AtomicBool::new(false));
        let work = Work { storage, recorder, key, latest, proofs: proofs.clone(), stop: Arc::clone(&stop) };
        // Another key is a mistake of the configuration; everything else may pass, and is tried again.
        let first = match work.open() {
            Err(error @ TreeError::OtherKey(_)) => return Err(ProvingError::OtherKey(error)),
            first => first,
        };
        let handle = thread::Builder::new()
            .name("proof".into())
            .spawn(move || {
                if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
                    tracing::debug!(%error, "the proof runs at the priority of everything else");
                }
                work.run(first);
            })
            .map_err(ProvingError::Thread)?;
        Ok((Self { stop, handle }, proofs))
    }

    /// Takes what the journal still holds, for at most [`CATCH_UP_AT_STOP`], signs it, and ends.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.handle.thread().unpark();
        if self.handle.join().is_err() {
            tracing::error!("the thread that signs the log panicked");
        }
    }
}

impl Work {
    fn open(&self) -> Result<TreeWriter, TreeError> {
        let writer = TreeWriter::open(Arc::clone(&self.storage), self.key.public(), self.latest.clone())?;
        match writer.opened() {
            Opened::Resumed => {}
            Opened::Anew(why) => tracing::debug!(%why, "the tree over the log is made from its beginning"),
        }
        Ok(writer)
    }

    fn run(&self, first: Result<TreeWriter, TreeError>) {
        let (mut writer, mut told) = (first, None);
        loop {
            let Err(error) = writer.and_then(|writer| self.follow(writer)) else { return };
            // What stands against it may grow with the journal, and is the same trouble.
            let kind = std::mem::discriminant(&error);
            let goes_on = self.proofs.set_trouble(Some(error.to_string())) && told == Some(kind);
            if !goes_on {
                self.tell(&error);
            }
            told = Some(kind);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            thread::park_timeout(if is_alarm(&error) { RETRY_AFTER_ALARM } else { RETRY_AFTER });
            writer = self.open();
        }
    }

    fn follow(&self, mut writer: TreeWriter) -> Result<(), TreeError> {
        let (mut signed, mut kept) = (None::<Instant>, Instant::now());
        let mut last_moment = None;
        loop {
            // Read before the look: what was written before the stop is still taken.
            let stopping = self.stop.load(Ordering::Acquire);
            let all = writer.step(self.recorder.durable_to(), STEP)?;
            let now = Instant::now();
            let ends = stopping && (all || now >= *last_moment.get_or_insert(now + CATCH_UP_AT_STOP));
            let due = all && signed.is_none_or(|signed| now >= signed + SIGN_EVERY);
            if due || ends || writer.unpublished() >= SIGN_ENTRIES {
                writer.publish(&self.key)?;
                signed = Some(now);
                if self.proofs.set_trouble(None) {
                    tracing::info!("the log is signed again");
                }
            }
            if ends || now >= kept + KEEP_EVERY {
                writer.keep()?;
                kept = now;
            }
            if ends {
                return Ok(());
            }
            if all {
                thread::park_timeout(LOOK_EVERY);
            }
        }
    }

    /// Tells what stands against signing, in the log, and in a record where only people can help.
    fn tell(&self, error: &TreeError) {
        tracing::error!(%error, "the log is not signed");
        if is_alarm(error)
            && let Err(error) = self.recorder.note(alert(error.to_string()))
        {
            tracing::error!(%error, "could not record that the log is not signed");
        }
    }
}

/// Whether the journal is not the one that was signed.
fn is_alarm(error: &TreeError) -> bool {
    use TreeError::{Behind, Contradicts, NoBeginning, OtherKey};
    matches!(error, Behind { .. } | Contradicts { .. } | NoBeginning { .. } | OtherKey(_))
}
