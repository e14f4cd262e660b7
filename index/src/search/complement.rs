//! All documents that another query does not match.
//!
//! Tantivy's own exclusion asks the excluded side about documents it has already passed, which its
//! phrase queries do not allow. Here the excluded side only ever moves forward.

use tantivy::query::{EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::{DocId, DocSet, Score, SegmentReader, TERMINATED};

/// The complement of a query.
#[derive(Debug)]
pub(crate) struct Complement(pub(crate) Box<dyn Query>);

impl Clone for Complement {
    fn clone(&self) -> Complement {
        Complement(self.0.box_clone())
    }
}

impl Query for Complement {
    fn weight(&self, enable_scoring: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(ComplementWeight(self.0.weight(enable_scoring)?)))
    }
}

struct ComplementWeight(Box<dyn Weight>);

impl Weight for ComplementWeight {
    fn scorer(&self, reader: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let mut scorer =
            ComplementScorer { excluded: self.0.scorer(reader, boost)?, doc: 0, end: reader.max_doc() };
        scorer.settle();
        Ok(Box::new(scorer))
    }

    fn explain(&self, _reader: &SegmentReader, _doc: DocId) -> tantivy::Result<Explanation> {
        Ok(Explanation::new("complement", 1.0))
    }
}

struct ComplementScorer {
    excluded: Box<dyn Scorer>,
    doc: DocId,
    end: DocId,
}

impl ComplementScorer {
    /// Moves on from `doc` to the next document that is not excluded.
    fn settle(&mut self) {
        while self.doc < self.end {
            if self.excluded.doc() < self.doc {
                self.excluded.seek(self.doc);
            }
            if self.excluded.doc() != self.doc {
                return;
            }
            self.doc += 1;
        }
        self.doc = TERMINATED;
    }
}

impl DocSet for ComplementScorer {
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

    fn doc(&self) -> DocId {
        self.doc
    }

    fn size_hint(&self) -> u32 {
        self.end.saturating_sub(self.excluded.size_hint())
    }
}

impl Scorer for ComplementScorer {
    fn score(&mut self) -> Score {
        1.0
    }
}
