//! Documents that meet one of a few conditions.
//!
//! Tantivy's own union looks at thousands of documents ahead, which costs much where each has to be
//! asked, or where few are wanted. This one looks at what it is asked for.

use tantivy::query::{ConstScorer, EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::{DocId, DocSet, Score, SeekDangerResult, SegmentReader, TERMINATED};

/// The documents of several queries.
#[derive(Debug)]
pub(crate) struct Any(pub(crate) Vec<Box<dyn Query>>);

impl Clone for Any {
    fn clone(&self) -> Any {
        Any(self.0.iter().map(|query| query.box_clone()).collect())
    }
}

impl Query for Any {
    fn weight(&self, scoring: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        let weights = self.0.iter().map(|query| query.weight(scoring)).collect::<tantivy::Result<_>>()?;
        Ok(Box::new(AnyWeight(weights)))
    }
}

struct AnyWeight(Vec<Box<dyn Weight>>);

impl Weight for AnyWeight {
    fn scorer(&self, segment: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let mut sides = Vec::with_capacity(self.0.len());
        for weight in &self.0 {
            let side = Side::new(weight.scorer(segment, boost)?);
            // Most words are not in most columns.
            if side.next != TERMINATED {
                sides.push(side);
            }
        }
        if sides.len() == 1
            && let Some(only) = sides.pop()
        {
            return Ok(only.scorer);
        }
        Ok(Box::new(ConstScorer::new(OneOf::new(sides), boost)))
    }

    fn explain(&self, _: &SegmentReader, _: DocId) -> tantivy::Result<Explanation> {
        Ok(Explanation::new("one of several", 1.0))
    }
}

/// One of the sets.
struct Side {
    scorer: Box<dyn Scorer>,
    /// Its next document; if it is not known to stand there, no document is before.
    next: DocId,
    stands: bool,
}

impl Side {
    fn new(scorer: Box<dyn Scorer>) -> Side {
        Side { next: scorer.doc(), scorer, stands: true }
    }

    /// Stands at the first document from `target` on.
    fn seek(&mut self, target: DocId) -> DocId {
        if self.stands {
            if self.next < target {
                self.next = self.scorer.seek(target);
            }
            return self.next;
        }
        self.next = self.next.max(target);
        while self.next < TERMINATED && !self.ask(self.next) {}
        self.next
    }

    /// Whether it has `target`.
    fn has(&mut self, target: DocId) -> bool {
        match self.next {
            next if next > target => false,
            next if next == target && self.stands => true,
            _ => self.ask(target),
        }
    }

    fn ask(&mut self, target: DocId) -> bool {
        match self.scorer.seek_danger(target) {
            SeekDangerResult::Found => (self.next, self.stands) = (target, true),
            SeekDangerResult::SeekLowerBound(next) => (self.next, self.stands) = (next, false),
        }
        self.stands
    }
}

struct OneOf {
    sides: Vec<Side>,
    doc: DocId,
}

impl OneOf {
    fn new(sides: Vec<Side>) -> OneOf {
        let doc = sides.iter().map(|side| side.next).min().unwrap_or(TERMINATED);
        OneOf { sides, doc }
    }
}

impl DocSet for OneOf {
    fn advance(&mut self) -> DocId {
        if self.doc == TERMINATED { TERMINATED } else { self.seek(self.doc + 1) }
    }

    fn seek(&mut self, target: DocId) -> DocId {
        if self.doc < target {
            self.doc = self.sides.iter_mut().map(|side| side.seek(target)).min().unwrap_or(TERMINATED);
        }
        self.doc
    }

    fn seek_danger(&mut self, target: DocId) -> SeekDangerResult {
        if target >= TERMINATED {
            return SeekDangerResult::SeekLowerBound(target);
        }
        self.doc = target;
        let mut next = TERMINATED;
        for side in &mut self.sides {
            if side.has(target) {
                return SeekDangerResult::Found;
            }
            next = next.min(side.next);
        }
        SeekDangerResult::SeekLowerBound(next)
    }

    fn doc(&self) -> DocId {
        self.doc
    }

    fn size_hint(&self) -> u32 {
        self.sides.iter().fold(0, |sum, side| sum.saturating_add(side.scorer.size_hint()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Some documents, of which it says no more than it must where it does not find one.
    struct Listed(Vec<DocId>, usize, bool);

    impl DocSet for Listed {
        fn advance(&mut self) -> DocId {
            assert!(self.2, "it does not stand anywhere");
            self.1 += 1;
            self.doc()
        }

        fn seek_danger(&mut self, target: DocId) -> SeekDangerResult {
            self.1 = self.0.partition_point(|doc| *doc < target);
            self.2 = self.0.get(self.1) == Some(&target);
            match self.2 {
                true => SeekDangerResult::Found,
                false => {
                    SeekDangerResult::SeekLowerBound(self.0.get(self.1).map_or(TERMINATED, |_| target + 1))
                }
            }
        }

        fn doc(&self) -> DocId {
            self.0.get(self.1).copied().unwrap_or(TERMINATED)
        }

        fn size_hint(&self) -> u32 {
            0
        }
    }

    proptest! {
        #[test]
        fn all_documents_of_all_sets_are_found_however_they_are_looked_for(
            sets in prop::collection::vec(prop::collection::btree_set(0..60_u32, 0..20), 0..5),
            steps in prop::collection::vec((0..3_u8, 1..9_u32), 0..40),
        ) {
            let all: std::collections::BTreeSet<DocId> = sets.iter().flatten().copied().collect();
            let from = |at: DocId| all.range(at..).next().copied().unwrap_or(TERMINATED);
            let sides = sets.iter().map(|set| {
                let some = Listed(set.iter().copied().collect(), 0, true);
                Side::new(Box::new(ConstScorer::new(some, 1.0)))
            });
            let mut any = OneOf::new(sides.collect());
            let (mut at, mut stands) = (from(0), true);
            prop_assert_eq!(any.doc(), at);
            for (step, by) in steps {
                if at >= 60 {
                    break;
                }
                if stands && step == 0 {
                    prop_assert_eq!(any.advance(), from(at + 1));
                    at = from(at + 1);
                } else if stands && step == 1 {
                    prop_assert_eq!(any.seek(at + by), from(at + by));
                    at = from(at + by);
                } else {
                    at += by;
                    stands = all.contains(&at);
                    match any.seek_danger(at) {
                        SeekDangerResult::Found => prop_assert!(stands),
                        SeekDangerResult::SeekLowerBound(next) => {
                            prop_assert!(!stands && at < next && next <= from(at));
                        }
                    }
                }
            }
        }
    }
}
