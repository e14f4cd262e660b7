//! Follows the journal and keeps the answers true to it.
//!
//! A record is answered from memory as soon as it was read, and written to the index later, when its
//! end is known: in batches, in order, alone in a document or with others of its kind. One that stays
//! open for long does not hold up the others: it is written as it stands, alone, read back from the
//! journal when more is heard of it, and replaced.
//!
//! A commit carries the place in the journal from which everything that it does not hold can be read
//! again. What is read twice after a crash changes nothing the second time, so replay makes neither
//! doubles nor holes, wherever it was cut.
//!
//! Reading ([`Indexer::step`]) and writing ([`Indexer::begin`], [`Writing::run`],
//! [`Indexer::finish`]) can go on at the same time, so that writing does not delay what is found.
//!
//! An index that is missing, damaged, of another version, or of another journal is built again.
//! After an error the indexer is of no more use: drop it and open it again.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::vec;

use tantivy::TantivyError;
use thiserror::Error;

use super::dictionary::Dictionary;
use super::document::Documents;
use super::draft::{Draft, End};
use super::files::{self, Found, META};
use super::moment::Moment;
use super::page::{Search, SearchError};
use super::recall::Recall;
use super::schema::Columns;
use super::state::{Place, State};
use super::tail::Tail;
use super::writing::{Pen, Writing, Written};
use crate::journal::{JournalError, Position, Reader};
use crate::record::{Entry, Seq, Settlement, TxnOutcome};
use crate::storage::Storage;

/// An open record holds up so many later ones on their way to the index, and no more.
const PATIENCE: usize = 8_192;

/// So many changes of earlier records may be taken in place of one record.
const CHANGES: usize = 4;

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
    /// The newest record that can be found.
    pub indexed_seq: Seq,
    /// Records in memory, waiting to be written.
    pub waiting: usize,
    /// Whether memory is full and nothing more is taken before the [`Writing`] under way has ended.
    pub full: bool,
}

/// Which records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Those whose end is known, and those that have been open for long.
    Ended,
    /// All, as they stand.
    All,
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
/// [`Indexer::commit`], or the parts of the latter.
pub struct Indexer {
    journal: Reader,
    search: Search,
    opened: Opened,
    /// `None` while a [`Writing`] is under way.
    pen: Option<Pen>,
    /// What the last commit carried, or the one under way.
    state: State,
    /// The index that is shown holds the records up to here.
    written: u64,
    /// The last record read.
    seq: u64,
    /// The boundary before what is being read.
    place: Option<Place>,
    /// A frame that was read and not yet taken whole.
    frame: Option<Taking>,
    /// The first record of frames read, and the boundary before each.
    boundaries: VecDeque<(u64, Option<Place>)>,
    tail: Tail,
    /// Whether something was read that is not shown yet.
    unshown: bool,
}

/// A frame of which the rest is still to be taken.
struct Taking {
    entries: vec::IntoIter<(Option<Seq>, Entry)>,
    /// What is left of a settlement.
    settling: Option<(TxnOutcome, vec::IntoIter<Seq>)>,
    at: Position,
    after: Place,
}

/// What was taken.
#[derive(PartialEq, Eq)]
enum Taken {
    Record,
    Other,
    /// There is nothing, for now.
    Nothing,
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
        let recall = Arc::new(Recall::new(Arc::clone(&storage)));
        let (found, opened) = match files::resume(dir, &storage, &columns) {
            Ok(found) => {
                let opened = Opened::Resumed(Seq(found.state.seq));
                (found, opened)
            }
            Err(why) => {
                // Read the journal first: without it nothing may be thrown away.
                let journal = Reader::open(storage, None)?;
                let opened = if dir.join(META).exists() { Opened::Rebuilt(why) } else { Opened::Created };
                (Found { index: files::create(dir, &columns)?, state: State::default(), journal }, opened)
            }
        };
        let Found { index, state, journal } = found;
        let reader = files::read(&index)?;
        let moment = Moment::new(reader.searcher(), Tail::default(), state.seq, recall)?;
        let dictionary = Dictionary::new(Arc::clone(&columns), state.number);
        let documents = Documents::new(Arc::clone(&columns), dictionary);
        let pen = Pen::new(files::write(&index, options, dir)?, reader, documents);
        let search = Search::new(moment, columns);
        let indexer = Indexer {
            journal,
            search: search.clone(),
            opened,
            pen: Some(pen),
            state,
            written: state.seq,
            seq: state.seq,
            place: state.place,
            frame: None,
            boundaries: VecDeque::new(),
            tail: Tail::default(),
            unshown: false,
        };
        Ok((indexer, search))
    }

    /// Opens the index again after an error; those who hold `search` see what this indexer shows.
    pub fn reopen(
        dir: &Path,
        storage: Arc<dyn Storage>,
        options: Options,
        search: &Search,
    ) -> Result<Indexer, IndexError> {
        let (mut indexer, newer) = Self::open(dir, storage, options)?;
        search.show(newer.moment());
        indexer.search = search.clone();
        Ok(indexer)
    }

    /// Removes the index in `dir`, so that opening builds it again. Touches no other file.
    pub fn erase(dir: &Path) -> Result<(), IndexError> {
        files::erase(dir).map_err(|source| IndexError::Directory { path: dir.to_owned(), source })
    }

    /// How the index was found.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Reads on until about `max_records` are taken, or a few times as many changes of earlier ones, or
    /// the journal ends, and shows them. If memory is full it commits first, or takes nothing while a
    /// [`Writing`] is under way.
    pub fn step(&mut self, max_records: usize) -> Result<Progress, IndexError> {
        let mut records = 0;
        let (mut caught_up, mut full) = (false, false);
        let mut left = max_records.max(1).saturating_mul(CHANGES);
        while records < max_records.max(1) && left > 0 {
            left -= 1;
            if self.tail.is_full() {
                full = self.pen.is_none();
                if full {
                    break;
                }
                self.commit()?;
            }
            match self.take()? {
                Taken::Record => records += 1,
                Taken::Other => {}
                Taken::Nothing => {
                    caught_up = true;
                    break;
                }
            }
        }
        if self.unshown {
            self.search.show(Arc::new(self.search.moment().with(self.tail.clone(), self.seq)));
            self.unshown = false;
        }
        Ok(Progress { records, caught_up, indexed_seq: Seq(self.seq), waiting: self.tail.len(), full })
    }

    /// Writes everything read so far to the index, together with the place reached. Does nothing if
    /// nothing was read.
    pub fn commit(&mut self) -> Result<(), IndexError> {
        match self.begin(Part::All) {
            Some(writing) => self.finish(writing.run()?),
            None => Ok(()),
        }
    }

    /// Begins to write a part of what was read; `None` if there is nothing to write, or a [`Writing`]
    /// is under way. Reading may go on meanwhile.
    pub fn begin(&mut self, part: Part) -> Option<Writing> {
        let pen = self.pen.take()?;
        let ended = || self.tail.ended(PATIENCE).unwrap_or(self.written);
        let last = if part == Part::All { self.seq } else { ended() };
        let place = self.boundary_before(self.tail.first_after(last));
        let state = State { place, seq: last, ..self.state };
        let held = self.tail.up_to(last);
        if held.is_empty() && state == self.state {
            self.pen = Some(pen);
            return None;
        }
        self.state = state;
        Some(Writing::new(pen, held, self.tail.late(), state))
    }

    /// Shows what was written, and forgets it.
    pub fn finish(&mut self, written: Written) -> Result<(), IndexError> {
        let Written { pen, held, state, searcher } = written;
        self.pen = Some(pen);
        self.state = state;
        self.written = state.seq;
        self.tail.forget(&held, state.seq);
        while self.boundaries.get(1).is_some_and(|(first, _)| *first <= state.seq + 1) {
            self.boundaries.pop_front();
        }
        let recall = self.search.moment().recall();
        self.search.show(Arc::new(Moment::new(searcher, self.tail.clone(), self.seq, recall)?));
        self.unshown = false;
        Ok(())
    }

    /// The last boundary before a record, or before what is still to be taken.
    fn boundary_before(&self, seq: Option<u64>) -> Option<Place> {
        let Some(seq) = seq else { return self.place };
        let after = self.boundaries.partition_point(|(first, _)| *first <= seq);
        let boundary = after.checked_sub(1).and_then(|index| self.boundaries.get(index));
        boundary.map_or(self.place, |(_, place)| *place)
    }

    /// Takes the next entry, or the next part of a settlement.
    fn take(&mut self) -> Result<Taken, IndexError> {
        let Some(frame) = &mut self.frame else { return self.next_frame() };
        if let Some((txn_outcome, seqs)) = &mut frame.settling {
            let txn_outcome = *txn_outcome;
            match seqs.next() {
                Some(seq) => self.change(seq.0, &mut |draft| draft.settle(txn_outcome))?,
                None => frame.settling = None,
            }
            return Ok(Taken::Other);
        }
        match frame.entries.next() {
            None => {
                self.place = Some(frame.after);
                self.frame = None;
                Ok(Taken::Other)
            }
            Some((Some(seq), Entry::Record(record))) if seq.0 > self.seq => {
                self.seq = seq.0;
                self.tail.push(seq.0, Draft::new(*record, frame.at));
                self.unshown = true;
                Ok(Taken::Record)
            }
            // It was read before, or is not numbered, which the journal does not do.
            Some((_, Entry::Record(_))) => Ok(Taken::Other),
            Some((_, Entry::Completion(completion))) => {
                let end = End { at: frame.at, completion };
                self.change(end.completion.seq.0, &mut |draft| draft.complete(end.clone()))?;
                Ok(Taken::Other)
            }
            Some((_, Entry::Settlement(Settlement { seqs, txn_outcome }))) => {
                frame.settling = Some((txn_outcome, seqs.into_iter()));
                Ok(Taken::Other)
            }
        }
    }

    fn next_frame(&mut self) -> Result<Taken, IndexError> {
        let Some(frame) = self.journal.next_frame()? else { return Ok(Taken::Nothing) };
        let after = Place::of(&frame);
        if let Some(first) = frame.entries.iter().find_map(|(seq, _)| *seq) {
            self.boundaries.push_back((first.0, self.place));
        }
        self.frame = Some(Taking { entries: frame.entries.into_iter(), settling: None, at: frame.at, after });
        Ok(Taken::Other)
    }

    /// Changes an earlier record, wherever it is.
    fn change(&mut self, seq: u64, change: &mut dyn FnMut(&mut Draft)) -> Result<(), IndexError> {
        if !self.tail.change(seq, change) {
            // One that is at its end was changed before, and is read again.
            let open = if seq <= self.written { self.search.open(seq)? } else { None };
            let Some(mut draft) = open else { return Ok(()) };
            change(&mut draft);
            self.tail.insert_late(seq, draft);
        }
        self.unshown = true;
        Ok(())
    }
}
