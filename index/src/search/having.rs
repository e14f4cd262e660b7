//! Documents whose record has a value in a field.
//!
//! Each document has its set of fields as one term, and there are few different sets: so the sets that
//! contain the field are looked up, and their documents taken together.

use tantivy::postings::SegmentPostings;
use tantivy::query::{ConstScorer, EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::schema::{Field as Column, IndexRecordOption};
use tantivy::{DocId, DocSet, Score, SegmentReader};

use super::field::Field;
use super::words::Fields;

/// The documents that have a field, by the column of their sets.
#[derive(Debug, Clone)]
pub(crate) struct Having {
    pub(crate) column: Column,
    pub(crate) field: Field,
}

impl Query for Having {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(self.clone()))
    }
}

impl Weight for Having {
    fn scorer(&self, segment: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let inverted = segment.inverted_index(self.column)?;
        let mut sets = Vec::new();
        let mut terms = inverted.terms().stream()?;
        while terms.advance() {
            if std::str::from_utf8(terms.key()).is_ok_and(|text| Fields::read(text).contains(self.field)) {
                sets.push(inverted.read_postings_from_terminfo(terms.value(), IndexRecordOption::Basic)?);
            }
        }
        Ok(Box::new(ConstScorer::new(Together::new(sets), boost)))
    }

    fn explain(&self, _: &SegmentReader, _: DocId) -> tantivy::Result<Explanation> {
        Ok(Explanation::new("having a field", 1.0))
    }
}

/// The documents of several lists, each of which has others.
pub(crate) struct Together {
    lists: Vec<SegmentPostings>,
    doc: DocId,
}

impl Together {
    pub(crate) fn new(lists: Vec<SegmentPostings>) -> Together {
        let mut together = Together { lists, doc: 0 };
        together.settle();
        together
    }

    fn settle(&mut self) -> DocId {
        self.doc = self.lists.iter().map(|list| list.doc()).min().unwrap_or(tantivy::TERMINATED);
        self.doc
    }
}

impl DocSet for Together {
    fn advance(&mut self) -> DocId {
        let passed = self.doc;
        self.lists.iter_mut().filter(|list| list.doc() == passed).for_each(|list| _ = list.advance());
        self.settle()
    }

    fn seek(&mut self, target: DocId) -> DocId {
        self.lists.iter_mut().filter(|list| list.doc() < target).for_each(|list| _ = list.seek(target));
        self.settle()
    }

    fn doc(&self) -> DocId {
        self.doc
    }

    fn size_hint(&self) -> u32 {
        self.lists.iter().map(|list| list.size_hint()).sum()
    }
}
