//! Writes records to the index: the slow part, which needs nothing of the indexer and may run on
//! another thread.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tantivy::index::SegmentId;
use tantivy::indexer::UserOperation;
use tantivy::{FutureResult, IndexReader, IndexWriter, Searcher, SegmentMeta, TantivyDocument, TantivyError};

use super::document::Documents;
use super::indexer::IndexError;
use super::merge::{self, Piece};
use super::position::{Among, Numbers};
use super::state::State;
use super::tail::Held;

/// Documents handed to Tantivy's thread at one time.
const TOGETHER: usize = 64;

/// What writes: one for each index.
pub(crate) struct Pen {
    writer: IndexWriter<TantivyDocument>,
    reader: IndexReader,
    documents: Documents,
    /// The lock is for the compiler: what is within may not be shared between threads.
    merging: Option<Mutex<FutureResult<Option<SegmentMeta>>>>,
}

impl Pen {
    pub(crate) fn new(
        writer: IndexWriter<TantivyDocument>,
        reader: IndexReader,
        documents: Documents,
    ) -> Pen {
        Pen { writer, reader, documents, merging: None }
    }

    /// Joins neighbours if enough of them have gathered, in the background, one merge at a time.
    fn merge(&mut self, searcher: &Searcher) -> Result<(), TantivyError> {
        if let Some(merging) = &mut self.merging {
            let merging = merging.get_mut().unwrap_or_else(PoisonError::into_inner);
            match Pin::new(merging).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => return Ok(()),
                // Segments that are gone already: what is there is looked at again.
                Poll::Ready(Ok(_) | Err(TantivyError::InvalidArgument(_))) => {}
                Poll::Ready(Err(error)) => return Err(error),
            }
            self.merging = None;
        }
        let mut pieces: Vec<Piece<SegmentId>> = Vec::new();
        for segment in searcher.segment_readers() {
            if let Some((_, last)) = Numbers::of(segment)?.extent() {
                pieces.push(Piece { id: segment.segment_id(), last, documents: segment.max_doc() });
            }
        }
        if let Some(ids) = merge::neighbours(pieces) {
            self.merging = Some(Mutex::new(self.writer.merge(&ids)));
        }
        Ok(())
    }
}

/// Records on their way to the index.
#[must_use = "nothing is written before it is run"]
pub struct Writing {
    pen: Pen,
    held: Vec<Held>,
    replaced: Vec<u64>,
    state: State,
}

/// Records that were written.
#[must_use = "give it to the indexer"]
pub struct Written {
    pub(crate) pen: Pen,
    pub(crate) held: Vec<Held>,
    pub(crate) state: State,
    pub(crate) searcher: Searcher,
}

impl Writing {
    pub(crate) fn new(pen: Pen, held: Vec<Held>, replaced: Vec<u64>, state: State) -> Writing {
        Writing { pen, held, replaced, state }
    }

    /// Writes the records and commits them together with the place in the journal.
    pub fn run(self) -> Result<Written, IndexError> {
        let Writing { mut pen, held, replaced, mut state } = self;
        if !replaced.is_empty() {
            pen.writer.delete_query(Box::new(Among(Arc::new(replaced))))?;
        }
        for held in &held {
            pen.documents.add(held.seq, &held.draft);
        }
        let mut documents = pen.documents.take().map(UserOperation::Add);
        loop {
            // Handing over costs as much as a small document.
            let some: Vec<_> = documents.by_ref().take(TOGETHER).collect();
            if some.is_empty() {
                break;
            }
            pen.writer.run(some)?;
        }
        state.number = pen.documents.dictionary.next();
        let mut commit = pen.writer.prepare_commit()?;
        commit.set_payload(&state.to_text());
        commit.commit()?;
        pen.reader.reload()?;
        let searcher = pen.reader.searcher();
        pen.merge(&searcher)?;
        Ok(Written { pen, held, state, searcher })
    }
}
