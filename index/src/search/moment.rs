//! One moment of the log: what the index holds, and what memory answers for beside it.
//!
//! Both are taken together, so that every answer counts each record once, in one state.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxBuildHasher;
use tantivy::fastfield::AliveBitSet;
use tantivy::query::{BooleanQuery, EnableScoring, Occur, Query, Scorer, TermQuery, Weight};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocAddress, DocId, DocSet as _, Searcher, TERMINATED};

use super::dictionary::Kind;
use super::matches::Memo;
use super::position::Numbers;
use super::query::Node;
use super::schema::{Columns, DEFINES};
use super::tail::{Held, Tail};
use crate::view::View;

/// A moment of the log.
pub(crate) struct Moment {
    pub(crate) searcher: Searcher,
    /// The one with the newest record first.
    segments: Vec<Segment>,
    pub(crate) tail: Tail,
    /// The newest record there is.
    pub(crate) newest: u64,
    definitions: Arc<Definitions>,
}

/// Definitions that were read, by their numbers. The same for all moments of one index.
#[derive(Default)]
pub(crate) struct Definitions(Mutex<HashMap<u64, Arc<View>, FxBuildHasher>>);

/// Most definitions that are remembered; beyond, all are read again.
const MAX_DEFINITIONS: usize = 8_192;

#[derive(Clone)]
struct Segment {
    ordinal: u32,
    first: u64,
    last: u64,
    numbers: Numbers,
}

impl Moment {
    pub(crate) fn new(
        searcher: Searcher,
        tail: Tail,
        newest: u64,
        definitions: Arc<Definitions>,
    ) -> tantivy::Result<Moment> {
        let mut segments = Vec::new();
        for (ordinal, reader) in (0..).zip(searcher.segment_readers()) {
            let numbers = Numbers::of(reader)?;
            if let Some((first, last)) = numbers.extent() {
                segments.push(Segment { ordinal, first, last, numbers });
            }
        }
        segments.sort_by_key(|segment| std::cmp::Reverse(segment.last));
        Ok(Moment { searcher, segments, tail, newest, definitions })
    }

    /// The same index with another memory.
    pub(crate) fn with(&self, tail: Tail, newest: u64) -> Moment {
        let (searcher, segments) = (self.searcher.clone(), self.segments.clone());
        Moment { searcher, segments, tail, newest, definitions: Arc::clone(&self.definitions) }
    }

    pub(crate) fn definitions(&self) -> Arc<Definitions> {
        Arc::clone(&self.definitions)
    }

    /// The numbers of the definitions of a kind that answer.
    pub(crate) fn defined(
        &self,
        columns: &Columns,
        kind: Kind,
        wanted: Box<dyn Query>,
    ) -> tantivy::Result<HashSet<u64, FxBuildHasher>> {
        let marked = TermQuery::new(columns.definitions(kind), IndexRecordOption::Basic);
        let both = BooleanQuery::new(vec![(Occur::Must, Box::new(marked)), (Occur::Must, wanted)]);
        let weight = both.weight(EnableScoring::disabled_from_searcher(&self.searcher))?;
        let mut numbers = HashSet::default();
        for segment in self.searcher.segment_readers() {
            let defines = segment.fast_fields().u64(DEFINES)?;
            weight.for_each_no_score(segment, &mut |docs| {
                numbers.extend(docs.iter().map(|doc| defines.values.get_val(*doc)));
            })?;
        }
        Ok(numbers)
    }

    /// The numbers that a document refers to, or zeros.
    pub(crate) fn references(&self, at: DocAddress) -> tantivy::Result<[u64; 3]> {
        let fast = self.searcher.segment_reader(at.segment_ord).fast_fields();
        let mut numbers = [0; 3];
        for (number, kind) in numbers.iter_mut().zip(Kind::ALL) {
            *number = fast.u64(kind.name())?.values.get_val(at.doc_id);
        }
        Ok(numbers)
    }

    /// What a number stands for; `None` if its definition is missing or damaged.
    pub(crate) fn definition(&self, columns: &Columns, number: u64) -> tantivy::Result<Option<Arc<View>>> {
        let known = || self.definitions.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = known().get(&number) {
            return Ok(Some(Arc::clone(view)));
        }
        let term = columns.defining(number);
        for ordinal in self.ordinals() {
            let inverted = self.searcher.segment_reader(ordinal).inverted_index(term.field())?;
            let postings = inverted.read_postings(&term, IndexRecordOption::Basic)?;
            let Some(doc) = postings.map(|postings| postings.doc()).filter(|doc| *doc != TERMINATED) else {
                continue;
            };
            let view = columns.stored(&self.searcher.doc(DocAddress::new(ordinal, doc))?).map(Arc::new);
            if let Some(view) = &view {
                let mut known = known();
                if known.len() >= MAX_DEFINITIONS {
                    known.clear();
                }
                known.insert(number, Arc::clone(view));
            }
            return Ok(view);
        }
        Ok(None)
    }

    /// The segments by the newest record of each, newest first.
    pub(crate) fn ordinals(&self) -> impl Iterator<Item = u32> + '_ {
        self.segments.iter().map(|segment| segment.ordinal)
    }

    /// The records in memory that answer, of those before `before`, newest first.
    pub(crate) fn remembered(&self, wanted: &Node, before: Option<u64>) -> impl Iterator<Item = Held> + '_ {
        // The tree's own places are the keys of what is remembered of it.
        let wanted = Box::new(wanted.clone());
        let mut memo = Memo::default();
        let earlier = move |held: &Held| before.is_none_or(|before| held.seq < before);
        self.tail.newest_first().filter(move |held| earlier(held) && held.matches(&wanted, &mut memo))
    }

    /// The documents that answer, of records before `before`, newest first.
    pub(crate) fn walk(&self, wanted: &dyn Query, before: Option<u64>) -> tantivy::Result<Walk<'_>> {
        let weight = wanted.weight(EnableScoring::disabled_from_searcher(&self.searcher))?;
        Ok(Walk { moment: self, weight, opened: 0, open: BinaryHeap::new(), before })
    }

    /// The document of a record.
    pub(crate) fn find(&self, seq: u64) -> Option<DocAddress> {
        let near = self.segments.iter().filter(|segment| (segment.first..=segment.last).contains(&seq));
        near.into_iter().find_map(|segment| {
            let alive = self.alive(segment.ordinal);
            let doc = segment.numbers.with(seq).find(|doc| is_alive(alive, *doc))?;
            Some(DocAddress::new(segment.ordinal, doc))
        })
    }

    fn alive(&self, ordinal: u32) -> Option<&AliveBitSet> {
        self.searcher.segment_reader(ordinal).alive_bitset()
    }
}

pub(crate) fn is_alive(alive: Option<&AliveBitSet>, doc: DocId) -> bool {
    alive.is_none_or(|alive| alive.is_alive(doc))
}

/// Goes back in time through the documents that answer. A segment is opened when its newest record
/// is next at the earliest, so old ones are never touched if enough is found before.
pub(crate) struct Walk<'a> {
    moment: &'a Moment,
    weight: Box<dyn Weight>,
    /// How many segments were opened.
    opened: usize,
    open: BinaryHeap<Open<'a>>,
    before: Option<u64>,
}

/// A segment that stands at a document that answers.
struct Open<'a> {
    seq: u64,
    segment: &'a Segment,
    alive: Option<&'a AliveBitSet>,
    scorer: Box<dyn Scorer>,
}

impl Walk<'_> {
    /// The next document, and the number of its record.
    pub(crate) fn next(&mut self) -> tantivy::Result<Option<(u64, DocAddress)>> {
        while let Some(segment) = self.moment.segments.get(self.opened)
            && self.open.peek().is_none_or(|open| open.seq < segment.last)
        {
            self.opened += 1;
            self.enter(segment)?;
        }
        let Some(mut open) = self.open.pop() else { return Ok(None) };
        let found = (open.seq, DocAddress::new(open.segment.ordinal, open.scorer.doc()));
        open.scorer.advance();
        self.stand(open);
        Ok(Some(found))
    }
}

impl<'a> Walk<'a> {
    /// The newest record that has a document, whether it answers or not.
    pub(crate) fn newest(&self) -> u64 {
        self.moment.segments.first().map_or(0, |segment| segment.last)
    }

    fn enter(&mut self, segment: &'a Segment) -> tantivy::Result<()> {
        if self.before.is_some_and(|before| segment.first >= before) {
            return Ok(());
        }
        let mut scorer = self.weight.scorer(self.moment.searcher.segment_reader(segment.ordinal), 1.0)?;
        let from = self.before.map_or(0, |before| segment.numbers.below(before));
        if scorer.doc() < from {
            scorer.seek(from);
        }
        let alive = self.moment.alive(segment.ordinal);
        self.stand(Open { seq: 0, segment, alive, scorer });
        Ok(())
    }

    fn stand(&mut self, mut open: Open<'a>) {
        while open.scorer.doc() != TERMINATED && !is_alive(open.alive, open.scorer.doc()) {
            open.scorer.advance();
        }
        if open.scorer.doc() != TERMINATED {
            open.seq = open.segment.numbers.at(open.scorer.doc());
            self.open.push(open);
        }
    }
}

impl PartialEq for Open<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq
    }
}

impl Eq for Open<'_> {}

impl PartialOrd for Open<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Open<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.seq.cmp(&other.seq)
    }
}
