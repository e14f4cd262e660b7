//! The index's files: opened as they were left, made, or removed.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tantivy::directory::{Directory, INDEX_WRITER_LOCK, MmapDirectory};
use tantivy::indexer::{IndexWriterOptions, NoMergePolicy};
use tantivy::{
    Index, IndexReader, IndexSettings, IndexSortByField, IndexWriter, Order, ReloadPolicy, TantivyDocument,
    TantivyError,
};

use super::indexer::{IndexError, Options};
use super::schema::{self, Columns, LAST};
use super::state::State;
use crate::journal::{JournalError, Reader};
use crate::storage::Storage;

/// Least and most memory for documents on their way to disk.
const MEMORY_BYTES: std::ops::RangeInclusive<usize> = 15_000_000..=2_000_000_000;
/// Most threads that search segments in parallel.
const MAX_THREADS: usize = 8;
pub(crate) const META: &str = "meta.json";

/// An index and the journal after what it holds.
pub(crate) struct Found {
    pub(crate) index: Index,
    pub(crate) state: State,
    pub(crate) journal: Reader,
}

/// Takes up an index where it was left, or says why it is of no use.
pub(crate) fn resume(dir: &Path, storage: &Arc<dyn Storage>, columns: &Columns) -> Result<Found, String> {
    let mut index = Index::open_in_dir(dir).map_err(|error| format!("it could not be opened: {error}"))?;
    if index.schema() != columns.schema {
        return Err("its fields are of another version".to_owned());
    }
    if index.settings() != &settings() {
        return Err("its documents are in another order".to_owned());
    }
    prepare(&mut index).map_err(|error| format!("it could not be prepared: {error}"))?;
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

pub(crate) fn create(dir: &Path, columns: &Columns) -> Result<Index, IndexError> {
    let directory = MmapDirectory::open(dir).map_err(TantivyError::from)?;
    // Nobody else may be writing what is about to be removed.
    let lock = directory.acquire_lock(&INDEX_WRITER_LOCK).map_err(|_| IndexError::Locked(dir.to_owned()))?;
    erase(dir).map_err(|source| IndexError::Directory { path: dir.to_owned(), source })?;
    drop(lock);
    let mut index = Index::create(directory, columns.schema.clone(), settings())?;
    prepare(&mut index)?;
    Ok(index)
}

/// Documents are in the order of answers, newest first: in each segment, and after each merge.
fn settings() -> IndexSettings {
    let order = IndexSortByField { field: LAST.to_owned(), order: Order::Desc };
    IndexSettings {
        sort_by_field: Some(order),
        docstore_compress_dedicated_thread: false,
        ..IndexSettings::default()
    }
}

fn prepare(index: &mut Index) -> Result<(), TantivyError> {
    index.set_tokenizers(schema::tokenizers());
    match std::thread::available_parallelism().map_or(1, |threads| threads.get().min(MAX_THREADS)) {
        1 => Ok(()),
        threads => index.set_multithread_executor(threads),
    }
}

pub(crate) fn read(index: &Index) -> Result<IndexReader, TantivyError> {
    index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()
}

pub(crate) fn write(
    index: &Index,
    options: Options,
    dir: &Path,
) -> Result<IndexWriter<TantivyDocument>, IndexError> {
    let memory = options.memory_bytes.clamp(*MEMORY_BYTES.start(), *MEMORY_BYTES.end());
    let options = IndexWriterOptions::builder()
        .num_worker_threads(1)
        .num_merge_threads(1)
        .memory_budget_per_thread(memory)
        .build();
    let writer = index.writer_with_options(options).map_err(|error| match error {
        TantivyError::LockFailure(..) => IndexError::Locked(dir.to_owned()),
        other => IndexError::Write(other),
    })?;
    // What is merged, and when, is decided in `merge`: neighbours only.
    writer.set_merge_policy(Box::new(NoMergePolicy));
    Ok(writer)
}

/// Removes Tantivy's files and no others: the directory comes from a configuration.
pub(crate) fn erase(dir: &Path) -> io::Result<()> {
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
