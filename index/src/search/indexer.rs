//! Follows the journal and keeps the index true to it.
//!
//! A record is one document, keyed by its `seq`. One whose end, or whose transaction's end, is
//! still to come is indexed as it stands and replaced later: its stored view is all the state there
//! is, so nothing open is held in memory between commits, however long a transaction lasts. A
//! commit carries the place in the journal up to which its documents are true; after a crash
//! reading goes on from there, and later entries find the stored views they belong to. So replay
//! makes neither doubles nor holes, wherever it was cut.
//!
//! An index that is missing, damaged, of another version, or of another journal is built again.
//! After an error from [`Indexer::step`] or [`Indexer::commit`] the indexer is of no more use: drop
//! it and open it again.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tantivy::directory::{Directory, INDEX_WRITER_LOCK, MmapDirectory};
use tantivy::indexer::IndexWriterOptions;
use tantivy::{Index, IndexReader, IndexSettings, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError};
use thiserror::Error;

use super::draft::{Draft, Drafts};
use super::page::{Search, SearchError};
use super::schema::{self, Columns, VERSION};
use crate::journal::{JournalError, Position, ReadFrame, Reader};
use crate::record::{Completion, Digest, Entry, Seq, TxnOutcome};
use crate::storage::Storage;
use crate::view::{self, View};

/// Most records in memory, or written again, between two commits.
const MAX_PENDING: usize = 16_384;
/// Most bytes of such records' texts.
const MAX_PENDING_BYTES: usize = 64 << 20;
/// Least and most memory for documents on their way to disk.
const MEMORY_BYTES: std::ops::RangeInclusive<usize> = 15_000_000..=2_000_000_000;
const META: &str = "meta.json";

/// Settings of the index.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Memory for documents on their way to disk, in bytes.
    pub memory_bytes: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { memory_bytes: 128 << 20 }
    }
}

/// How the index was found when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// As it was left, true up to this record.
    Resumed(Seq),
    /// There was none.
    Created,
    /// It was of no use, for this reason, and is built again from the journal.
    Rebuilt(String),
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// New records taken.
    pub records: usize,
    /// Whether the end of the journal was reached.
    pub caught_up: bool,
    /// The newest record that can be found (committed).
    pub indexed_seq: Seq,
}

/// Why the index could not follow.
#[derive(Debug, Error)]
pub enum IndexError {
    /// Another process writes it.
    #[error("the index in {} is in use by another process. Stop it first", .0.display())]
    Locked(PathBuf),
    /// The directory could not be made or cleared.
    #[error("the index directory {} could not be prepared: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The journal could not be read.
    #[error("the journal could not be read for the index: {0}")]
    Journal(#[from] JournalError),
    /// Tantivy failed.
    #[error("the index could not be written: {0}")]
    Write(#[from] TantivyError),
    /// A stored record could not be read back.
    #[error(transparent)]
    Search(#[from] SearchError),
}

/// Builds the index. One at a time; driven by its owner through [`Indexer::step`] and
/// [`Indexer::commit`].
pub struct Indexer {
    journal: Reader,
    writer: IndexWriter<TantivyDocument>,
    search: Search,
    columns: Arc<Columns>,
    opened: Opened,
    /// Up to where frames were applied.
    place: Option<Place>,
    /// The last record applied.
    seq: u64,
    /// Records up to here may be in the index.
    committed_seq: u64,
    drafts: Drafts,
    /// Records to be written at the next commit, because more is expected of them.
    pending: BTreeMap<u64, Pending>,
    pending_bytes: usize,
    /// Committed records replaced since: what is stored of them is old.
    replaced: HashSet<u64>,
    changed: bool,
}

impl Indexer {
    /// Opens the index in `dir`, or builds it again from the journal in `storage`.
    pub fn open(
        dir: &Path,
        storage: Arc<dyn Storage>,
        options: Options,
    ) -> Result<(Indexer, Search), IndexError> {
        let directory = |source| IndexError::Directory { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(directory)?;
        let columns = Arc::new(Columns::new());
        let (found, opened) = match resume(dir, &storage, &columns) {
            Ok(found) => {
                let opened = Opened::Resumed(Seq(found.state.seq));
                (found, opened)
            }
            Err(why) => {
                // Read the journal first: without it nothing may be thrown away.
                let journal = Reader::open(storage, None)?;
                let opened = if dir.join(META).exists() { Opened::Rebuilt(why) } else { Opened::Created };
                (Found { index: create(dir, &columns)?, state: State::default(), journal }, opened)
            }
        };
        let writer = write(&found.index, options, dir)?;
        let search = Search::new(read(&found.index)?, Arc::clone(&columns), found.state.seq);
        let indexer = Indexer {
            journal: found.journal,
            writer,
            search: search.clone(),
            drafts: Drafts::new(Arc::clone(&columns)),
            columns,
            opened,
            place: found.state.place,
            seq: found.state.seq,
            committed_seq: found.state.seq,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            replaced: HashSet::new(),
            changed: false,
        };
        Ok((indexer, search))
    }

    /// Opens the index again after an error; those who hold `search` see what this indexer commits.
    pub fn reopen(
        dir: &Path,
        storage: Arc<dyn Storage>,
        options: Options,
        search: &Search,
    ) -> Result<Indexer, IndexError> {
        let (mut indexer, newer) = Self::open(dir, storage, options)?;
        search.follow(&newer);
        indexer.search = search.clone();
        Ok(indexer)
    }

    /// Removes the index in `dir`, so that opening builds it again. Touches no other file.
    pub fn erase(dir: &Path) -> Result<(), IndexError> {
        erase(dir).map_err(|source| IndexError::Directory { path: dir.to_owned(), source })
    }

    /// How the index was found.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Reads on, frame by frame, until about `max_records` are taken or the journal ends. Commits by
    /// itself only when too much would stay in memory.
    pub fn step(&mut self, max_records: usize) -> Result<Progress, IndexError> {
        let mut records = 0;
        let mut caught_up = false;
        while records < max_records.max(1) {
            let Some(frame) = self.journal.next_frame()? else {
                caught_up = true;
                break;
            };
            self.place = Some(Place::of(&frame));
            self.changed = true;
            for (seq, entry) in frame.entries {
                records += usize::from(seq.is_some());
                self.apply(seq, entry)?;
            }
            if self.pending.len() + self.replaced.len() > MAX_PENDING
                || self.pending_bytes > MAX_PENDING_BYTES
            {
                self.commit()?;
            }
        }
        Ok(Progress { records, caught_up, indexed_seq: self.search.newest() })
    }

    /// Makes everything read so far findable, together with the place reached. Does nothing if
    /// nothing was read.
    pub fn commit(&mut self) -> Result<(), IndexError> {
        if !self.changed {
            return Ok(());
        }
        for (seq, pending) in std::mem::take(&mut self.pending) {
            self.write(seq, &pending)?;
        }
        self.pending_bytes = 0;
        let state = State { place: self.place, seq: self.seq };
        let mut commit = self.writer.prepare_commit()?;
        commit.set_payload(&state.to_text());
        commit.commit()?;
        self.committed_seq = self.seq;
        self.replaced.clear();
        self.changed = false;
        self.search.reload(self.seq)?;
        Ok(())
    }

    fn apply(&mut self, seq: Option<Seq>, entry: Entry) -> Result<(), IndexError> {
        match (entry, seq) {
            (Entry::Record(record), Some(seq)) => {
                self.seq = self.seq.max(seq.0);
                self.keep_or_write(seq.0, Pending::Draft(Draft::new(record)))
            }
            // The journal numbers every record.
            (Entry::Record(_), None) => Ok(()),
            (Entry::Completion(completion), _) => {
                self.change(completion.seq.0, |pending| pending.complete(completion))
            }
            (Entry::Settlement(settlement), _) => {
                for seq in &settlement.seqs {
                    self.change(seq.0, |pending| pending.settle(settlement.txn_outcome))?;
                }
                Ok(())
            }
        }
    }

    /// Changes an earlier record, wherever it is.
    fn change(&mut self, seq: u64, change: impl FnOnce(&mut Pending)) -> Result<(), IndexError> {
        let pending = match self.pending.remove(&seq) {
            Some(pending) => {
                self.pending_bytes = self.pending_bytes.saturating_sub(pending.weight());
                Some(pending)
            }
            None => self.stored(seq)?.map(Pending::Stored),
        };
        let Some(mut pending) = pending else {
            return Ok(());
        };
        change(&mut pending);
        self.keep_or_write(seq, pending)
    }

    /// A committed view that is still as it was committed.
    fn stored(&self, seq: u64) -> Result<Option<View>, IndexError> {
        if seq > self.committed_seq || self.replaced.contains(&seq) {
            return Ok(None);
        }
        Ok(self.search.stored(&self.search.searcher(), seq)?)
    }

    fn keep_or_write(&mut self, seq: u64, pending: Pending) -> Result<(), IndexError> {
        if pending.is_open() {
            self.pending_bytes += pending.weight();
            self.pending.insert(seq, pending);
            return Ok(());
        }
        self.write(seq, &pending)
    }

    fn write(&mut self, seq: u64, pending: &Pending) -> Result<(), IndexError> {
        if seq <= self.committed_seq {
            self.writer.delete_term(self.columns.seq_term(seq));
            self.replaced.insert(seq);
        }
        let document = match pending {
            Pending::Draft(draft) => self.drafts.document(seq, draft),
            Pending::Stored(view) => self.columns.document(seq, view),
        };
        self.writer.add_document(document)?;
        Ok(())
    }
}

/// A record of which more is expected.
enum Pending {
    /// As the journal gave it.
    Draft(Draft),
    /// As an earlier commit stored it.
    Stored(View),
}

impl Pending {
    fn complete(&mut self, completion: Completion) {
        match self {
            Pending::Draft(draft) => draft.complete(completion),
            Pending::Stored(view) => view::complete(view, &completion),
        }
    }

    fn settle(&mut self, txn_outcome: TxnOutcome) {
        match self {
            Pending::Draft(draft) => draft.settle(txn_outcome),
            Pending::Stored(view) => view::settle(view, txn_outcome),
        }
    }

    fn is_open(&self) -> bool {
        match self {
            Pending::Draft(draft) => draft.is_open(),
            Pending::Stored(view) => view::is_running(view) || view::is_open(view),
        }
    }

    /// About how many bytes it holds in memory.
    fn weight(&self) -> usize {
        const FIELDS: usize = 4_096;
        match self {
            Pending::Draft(draft) => draft.weight(),
            Pending::Stored(view) => FIELDS + view.get("sql").and_then(Value::as_str).map_or(0, str::len),
        }
    }
}

/// Up to where the journal's frames are in the documents of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    next: Position,
    digest: Digest,
}

impl Place {
    fn of(frame: &ReadFrame) -> Place {
        Place { next: frame.next, digest: frame.digest }
    }
}

/// What a commit carries beside its documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct State {
    place: Option<Place>,
    seq: u64,
}

impl State {
    fn to_text(self) -> String {
        let position = |at: Position| json!([at.segment, at.offset]);
        let place = self
            .place
            .map(|place| json!({ "next": position(place.next), "digest": place.digest.to_string() }));
        json!({ "version": VERSION, "seq": self.seq, "place": place }).to_string()
    }

    fn from_text(text: &str) -> Option<State> {
        let value: Value = serde_json::from_str(text).ok()?;
        if value.get("version")?.as_u64()? != u64::from(VERSION) {
            return None;
        }
        let position = |value: &Value| {
            let pair = value.as_array().filter(|pair| pair.len() == 2)?;
            Some(Position { segment: pair[0].as_u64()?, offset: pair[1].as_u64()? })
        };
        let place = match value.get("place")? {
            Value::Null => None,
            place => Some(Place {
                next: position(place.get("next")?)?,
                digest: digest(place.get("digest")?.as_str()?)?,
            }),
        };
        Some(State { place, seq: value.get("seq")?.as_u64()? })
    }
}

fn digest(hex: &str) -> Option<Digest> {
    let mut digest = [0; 32];
    if hex.len() != digest.len() * 2 {
        return None;
    }
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(Digest(digest))
}

struct Found {
    index: Index,
    state: State,
    journal: Reader,
}

/// Takes up an index where it was left, or says why it is of no use.
fn resume(dir: &Path, storage: &Arc<dyn Storage>, columns: &Columns) -> Result<Found, String> {
    let mut index = Index::open_in_dir(dir).map_err(|error| format!("it could not be opened: {error}"))?;
    if index.schema() != columns.schema {
        return Err("its fields are of another version".to_owned());
    }
    index.set_tokenizers(schema::tokenizers());
    let meta = index.load_metas().map_err(|error| format!("its list of files could not be read: {error}"))?;
    let state = match &meta.payload {
        // Made, and cut off before its first commit.
        None if meta.segments.is_empty() => Some(State::default()),
        payload => payload.as_deref().and_then(State::from_text),
    };
    let state =
        state.ok_or("it does not say which part of the journal it holds, or is of another version")?;
    read(&index).map_err(|error| format!("its files could not be opened: {error}"))?;
    let journal = reach(storage, &state)?;
    Ok(Found { index, state, journal })
}

/// The journal after the last frame indexed, if that frame is still the one that was indexed.
fn reach(storage: &Arc<dyn Storage>, state: &State) -> Result<Reader, String> {
    let lost = |error: JournalError| format!("its place in the journal could not be read: {error}");
    let journal = Reader::open(Arc::clone(storage), state.place.map(|place| place.next)).map_err(lost)?;
    if let Some(place) = state.place
        && journal.digest() != Some(place.digest)
    {
        return Err("it was built from another journal, or from an end that the journal has lost".to_owned());
    }
    Ok(journal)
}

fn create(dir: &Path, columns: &Columns) -> Result<Index, IndexError> {
    let directory = MmapDirectory::open(dir).map_err(TantivyError::from)?;
    // Nobody else may be writing what is about to be removed.
    let lock = directory.acquire_lock(&INDEX_WRITER_LOCK).map_err(|_| IndexError::Locked(dir.to_owned()))?;
    Indexer::erase(dir)?;
    drop(lock);
    let settings = IndexSettings { docstore_compress_dedicated_thread: false, ..IndexSettings::default() };
    let mut index = Index::create(directory, columns.schema.clone(), settings)?;
    index.set_tokenizers(schema::tokenizers());
    Ok(index)
}

fn read(index: &Index) -> Result<IndexReader, TantivyError> {
    index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()
}

fn write(index: &Index, options: Options, dir: &Path) -> Result<IndexWriter<TantivyDocument>, IndexError> {
    let memory = options.memory_bytes.clamp(*MEMORY_BYTES.start(), *MEMORY_BYTES.end());
    let options = IndexWriterOptions::builder()
        .num_worker_threads(1)
        .num_merge_threads(1)
        .memory_budget_per_thread(memory)
        .build();
    index.writer_with_options(options).map_err(|error| match error {
        TantivyError::LockFailure(..) => IndexError::Locked(dir.to_owned()),
        other => IndexError::Write(other),
    })
}

/// Removes Tantivy's files and no others: the directory comes from a configuration.
fn erase(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let stem = name.split('.').next().unwrap_or("");
        let segment = stem.len() == 32 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
        if (segment || name == META || name == ".managed.json") && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
