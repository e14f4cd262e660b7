//! Documents by their number. Segments are sorted by it, newest first, so a range of numbers is a
//! range of documents and one number is found by halving.

use std::sync::Arc;

use tantivy::columnar::ColumnValues;
use tantivy::query::{ConstScorer, EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::{DocId, DocSet, Score, SegmentReader, TERMINATED};

use super::field::Field;
use super::schema::DEFINES;

/// The numbers of one segment's documents.
#[derive(Clone)]
pub(crate) struct Numbers {
    values: Arc<dyn ColumnValues<u64>>,
    defines: Arc<dyn ColumnValues<u64>>,
    count: DocId,
}

impl Numbers {
    pub(crate) fn of(segment: &SegmentReader) -> tantivy::Result<Numbers> {
        let column = segment.fast_fields().u64(Field::Seq.name())?;
        let defines = segment.fast_fields().u64(DEFINES)?;
        Ok(Numbers { count: segment.max_doc(), values: column.values, defines: defines.values })
    }

    pub(crate) fn at(&self, doc: DocId) -> u64 {
        self.values.get_val(doc)
    }

    /// The first and last number; none in an empty segment.
    pub(crate) fn extent(&self) -> Option<(u64, u64)> {
        let last = self.count.checked_sub(1)?;
        Some((self.at(last), self.at(0)))
    }

    /// The first document whose number is below `seq`.
    pub(crate) fn below(&self, seq: u64) -> DocId {
        let (mut from, mut to) = (0, self.count);
        while from < to {
            let middle = from + (to - from) / 2;
            if self.at(middle) >= seq {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        from
    }

    /// The documents of the record with a number; several while a replaced one is still there. What
    /// was defined beside it is not among them.
    pub(crate) fn with(&self, seq: u64) -> impl Iterator<Item = DocId> + '_ {
        let after = seq.checked_add(1).map_or(0, |next| self.below(next));
        (after..self.below(seq)).filter(|doc| self.defines.get_val(*doc) == 0)
    }
}

/// The documents with a number from `min` to `max`, both included.
#[derive(Debug, Clone)]
pub(crate) struct Between {
    pub(crate) min: u64,
    pub(crate) max: u64,
}

/// The documents with one of some numbers.
#[derive(Debug, Clone)]
pub(crate) struct Among(pub(crate) Arc<Vec<u64>>);

impl Query for Between {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(self.clone()))
    }
}

impl Query for Among {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(self.clone()))
    }
}

impl Weight for Between {
    fn scorer(&self, segment: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let numbers = Numbers::of(segment)?;
        let next = self.max.checked_add(1).map_or(0, |next| numbers.below(next));
        Ok(Box::new(ConstScorer::new(Span::new(next, numbers.below(self.min)), boost)))
    }

    fn explain(&self, _: &SegmentReader, _: DocId) -> tantivy::Result<Explanation> {
        Ok(Explanation::new("between two numbers", 1.0))
    }
}

impl Weight for Among {
    fn scorer(&self, segment: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let numbers = Numbers::of(segment)?;
        let mut docs = Vec::new();
        self.0.iter().for_each(|seq| docs.extend(numbers.with(*seq)));
        docs.sort_unstable();
        docs.dedup();
        Ok(Box::new(ConstScorer::new(Listed { docs, at: 0 }, boost)))
    }

    fn explain(&self, _: &SegmentReader, _: DocId) -> tantivy::Result<Explanation> {
        Ok(Explanation::new("among some numbers", 1.0))
    }
}

/// Documents one after the other.
struct Span {
    doc: DocId,
    end: DocId,
}

impl Span {
    fn new(from: DocId, to: DocId) -> Span {
        Span { doc: if from < to { from } else { TERMINATED }, end: to }
    }
}

impl DocSet for Span {
    fn advance(&mut self) -> DocId {
        self.seek(self.doc.saturating_add(1))
    }

    fn seek(&mut self, target: DocId) -> DocId {
        let doc = self.doc.max(target);
        self.doc = if doc < self.end { doc } else { TERMINATED };
        self.doc
    }

    fn doc(&self) -> DocId {
        self.doc
    }

    fn size_hint(&self) -> u32 {
        self.end.saturating_sub(self.doc)
    }
}

/// A few documents.
struct Listed {
    docs: Vec<DocId>,
    at: usize,
}

impl DocSet for Listed {
    fn advance(&mut self) -> DocId {
        self.at = self.docs.len().min(self.at + 1);
        self.doc()
    }

    fn doc(&self) -> DocId {
        self.docs.get(self.at).copied().unwrap_or(TERMINATED)
    }

    fn size_hint(&self) -> u32 {
        u32::try_from(self.docs.len()).unwrap_or(u32::MAX)
    }
}
