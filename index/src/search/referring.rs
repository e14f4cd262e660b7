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
const LISTED_MAX: usize = 64;

/// The documents that meet a condition themselves, or refer to one of the numbers.
#[derive(Debug)]
pub(crate) struct Referring {
    pub(crate) own: Box<dyn Query>,
    pub(crate) kind: Kind,
    pub(crate) column: Column,
    pub(crate) numbers: Arc<HashSet<u64, FxBuildHasher>>,
}

impl Clone for Referring {
    fn clone(&self) -> Referring {
        let numbers = Arc::clone(&self.numbers);
        Referring { own: self.own.box_clone(), kind: self.kind, column: self.column, numbers }
    }
}

impl Query for Referring {
    fn weight(&self, scoring: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        let (kind, column, numbers) = (self.kind, self.column, Arc::clone(&self.numbers));
        Ok(Box::new(ReferringWeight { own: self.own.weight(scoring)?, kind, column, numbers }))
    }
}

struct ReferringWeight {
    own: Box<dyn Weight>,
    kind: Kind,
    column: Column,
    numbers: Arc<HashSet<u64, FxBuildHasher>>,
}

impl Weight for ReferringWeight {
    fn scorer(&self, segment: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let refers: Box<dyn DocSet> = if self.numbers.len() > LISTED_MAX {
            let values = segment.fast_fields().u64(self.kind.name())?.values;
            let mut asked =
                Asked { values, numbers: Arc::clone(&self.numbers), doc: 0, end: segment.max_doc() };
            asked.settle();
            Box::new(asked)
        } else {
            let inverted = segment.inverted_index(self.column)?;
            let mut lists = Vec::new();
            for number in self.numbers.iter() {
                let term = Term::from_field_u64(self.column, *number);
                lists.extend(inverted.read_postings(&term, IndexRecordOption::Basic)?);
            }
            Box::new(Together::new(lists))
        };
        let own = self.own.scorer(segment, boost)?;
        let doc = own.doc().min(refers.doc());
        Ok(Box::new(ConstScorer::new(Either { own, refers, doc }, boost)))
    }

    fn explain(&self, _: &SegmentReader, _: DocId) -> tantivy::Result<Explanation> {
        Ok(Explanation::new("itself or by reference", 1.0))
    }
}

/// The documents of two sets. Tantivy's own union looks at thousands of documents ahead, which costs
/// much where each has to be asked; this one looks at what it is asked for.
struct Either {
    own: Box<dyn Scorer>,
    /// May stand behind `doc`.
    refers: Box<dyn DocSet>,
    doc: DocId,
}

impl DocSet for Either {
    fn advance(&mut self) -> DocId {
        if self.doc == TERMINATED { TERMINATED } else { self.seek(self.doc + 1) }
    }

    fn seek(&mut self, target: DocId) -> DocId {
        if self.doc < target {
            if self.own.doc() < target {
                self.own.seek(target);
            }
            if self.refers.doc() < target {
                self.refers.seek(target);
            }
            self.doc = self.own.doc().min(self.refers.doc());
        }
        self.doc
    }

    fn seek_danger(&mut self, target: DocId) -> SeekDangerResult {
        if target >= TERMINATED {
            return SeekDangerResult::SeekLowerBound(target);
        }
        if self.own.doc() < target {
            self.own.seek(target);
        }
        // Both kinds of references can be sought after this, whatever it found.
        let refers = match self.refers.doc() {
            doc if doc < target => self.refers.seek_danger(target),
            doc if doc == target => SeekDangerResult::Found,
            doc => SeekDangerResult::SeekLowerBound(doc),
        };
        self.doc = target;
        match refers {
            SeekDangerResult::SeekLowerBound(next) if self.own.doc() != target => {
                // Where nothing is left, this must say so: who aligns sets would count up to the last number.
                SeekDangerResult::SeekLowerBound(next.min(self.own.doc()))
            }
            _ => SeekDangerResult::Found,
        }
    }

    fn doc(&self) -> DocId {
        self.doc
    }

    fn size_hint(&self) -> u32 {
        self.own.size_hint().saturating_add(self.refers.size_hint())
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

#[cfg(test)]
mod tests {
    use tantivy::query::EmptyScorer;

    use super::*;

    #[test]
    fn where_nothing_is_left_the_next_document_is_none() {
        let refers = Box::new(Together::new(Vec::new()));
        let mut nothing = Either { own: Box::new(EmptyScorer), refers, doc: TERMINATED };
        assert_eq!(nothing.seek_danger(5), SeekDangerResult::SeekLowerBound(TERMINATED));
        assert_eq!(nothing.seek_danger(TERMINATED), SeekDangerResult::SeekLowerBound(TERMINATED));
    }
}
