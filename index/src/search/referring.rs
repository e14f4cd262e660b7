//! Documents that refer to one of some definitions.

use std::collections::HashSet;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;
use tantivy::columnar::ColumnValues;
use tantivy::query::{ConstScorer, EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::schema::{Field as Column, IndexRecordOption};
use tantivy::{DocId, DocSet, Score, SeekDangerResult, SegmentReader, TERMINATED, Term};

use super::dictionary::Kind;
use super::having::Together;

/// Up to so many definitions have their documents listed; of more, documents are asked one by one.
const LISTED_MAX: usize = 16;

/// The documents that refer to one of the numbers.
#[derive(Debug, Clone)]
pub(crate) struct Referring {
    pub(crate) kind: Kind,
    pub(crate) column: Column,
    pub(crate) numbers: Arc<HashSet<u64, FxBuildHasher>>,
}

impl Query for Referring {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(self.clone()))
    }
}

impl Weight for Referring {
    fn scorer(&self, segment: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        if self.numbers.len() > LISTED_MAX {
            let values = segment.fast_fields().u64(self.kind.name())?.values;
            let mut asked =
                Asked { values, numbers: Arc::clone(&self.numbers), doc: 0, end: segment.max_doc() };
            asked.settle();
            return Ok(Box::new(ConstScorer::new(asked, boost)));
        }
        let inverted = segment.inverted_index(self.column)?;
        let mut lists = Vec::new();
        for number in self.numbers.iter() {
            let term = Term::from_field_u64(self.column, *number);
            lists.extend(inverted.read_postings(&term, IndexRecordOption::Basic)?);
        }
        Ok(Box::new(ConstScorer::new(Together::new(lists), boost)))
    }

    fn explain(&self, _: &SegmentReader, _: DocId) -> tantivy::Result<Explanation> {
        Ok(Explanation::new("referring to a definition", 1.0))
    }
}

/// Asks one document after the other.
struct Asked {
    values: Arc<dyn ColumnValues<u64>>,
    numbers: Arc<HashSet<u64, FxBuildHasher>>,
    doc: DocId,
    end: DocId,
}

impl Asked {
    fn holds(&self, doc: DocId) -> bool {
        self.numbers.contains(&self.values.get_val(doc))
    }

    fn settle(&mut self) -> DocId {
        while self.doc < self.end && !self.holds(self.doc) {
            self.doc += 1;
        }
        if self.doc >= self.end {
            self.doc = TERMINATED;
        }
        self.doc
    }
}

impl DocSet for Asked {
    fn advance(&mut self) -> DocId {
        if self.doc != TERMINATED {
            self.doc += 1;
            self.settle();
        }
        self.doc
    }

    fn seek(&mut self, target: DocId) -> DocId {
        if self.doc < target {
            self.doc = target;
            self.settle();
        }
        self.doc
    }

    /// Looks at this document only, not for the next.
    fn seek_danger(&mut self, target: DocId) -> SeekDangerResult {
        if target >= self.end {
            self.doc = TERMINATED;
            return SeekDangerResult::SeekLowerBound(TERMINATED);
        }
        self.doc = target;
        if self.holds(target) {
            SeekDangerResult::Found
        } else {
            SeekDangerResult::SeekLowerBound(target + 1)
        }
    }

    fn doc(&self) -> DocId {
        self.doc
    }

    fn size_hint(&self) -> u32 {
        self.end
    }
}
