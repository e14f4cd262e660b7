//! One moment of the log: what the index holds, and what memory answers for beside it.
//!
//! Both are taken together, so that every answer counts each record once, in one state.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};
use std::sync::Arc;

use rustc_hash::FxBuildHasher;
use tantivy::fastfield::AliveBitSet;
use tantivy::query::{BooleanQuery, EnableScoring, Occur, Query, Scorer, TermQuery, Weight};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocAddress, DocId, DocSet as _, Searcher, TERMINATED};

use super::deciding::Deciding;
use super::dictionary::Kind;
use super::document::SPAN;
use super::draft::{Draft, End};
use super::lower::Asked;
use super::matches::Memo;
use super::page::SearchError;
use super::position::{Numbers, Told};
use super::query::Node;
use super::recall::{Lost, Recall};
use super::schema::{Columns, DEFINES};
use super::tail::{Held, Tail};
use crate::record::Completion;

/// A moment of the log.
pub(crate) struct Moment {
    pub(crate) searcher: Searcher,
    /// The one with the newest record first.
    segments: Arc<[Segment]>,
    pub(crate) tail: Tail,
    /// The newest record there is.
    pub(crate) newest: u64,
    recall: Arc<Recall>,
}

#[derive(Clone)]
struct Segment {
    ordinal: u32,
    /// No record is older.
    first: u64,
    last: u64,
    numbers: Numbers,
}

/// A record that has a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) seq: u64,
    pub(crate) at: DocAddress,
    /// Which of the document's records it is.
    pub(crate) record: u32,
}

impl Moment {
    pub(crate) fn new(
        searcher: Searcher,
        tail: Tail,
        newest: u64,
        recall: Arc<Recall>,
    ) -> tantivy::Result<Moment> {
        let mut segments = Vec::new();
        for (ordinal, reader) in (0..).zip(searcher.segment_readers()) {
            let numbers = Numbers::of(reader)?;
            if let Some((first, last)) = numbers.extent() {
                segments.push(Segment { ordinal, first, last, numbers });
            }
        }
        segments.sort_by_key(|segment| std::cmp::Reverse(segment.last));
        Ok(Moment { searcher, segments: segments.into(), tail, newest, recall })
    }

    /// The same index with another memory.
    pub(crate) fn with(&self, tail: Tail, newest: u64) -> Moment {
        let (searcher, segments) = (self.searcher.clone(), Arc::clone(&self.segments));
        Moment { searcher, segments, tail, newest, recall: Arc::clone(&self.recall) }
    }

    pub(crate) fn recall(&self) -> Arc<Recall> {
        Arc::clone(&self.recall)
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

    /// The segments by the newest record of each, newest first.
    pub(crate) fn ordinals(&self) -> impl Iterator<Item = u32> + '_ {
        self.segments.iter().map(|segment| segment.ordinal)
    }

    /// The numbers of a segment.
    pub(crate) fn numbers(&self, ordinal: u32) -> Option<&Numbers> {
        self.segments.iter().find(|segment| segment.ordinal == ordinal).map(|segment| &segment.numbers)
    }

    /// What the index says of a record.
    pub(crate) fn told(&self, at: DocAddress, record: u32) -> Option<Told> {
        self.numbers(at.segment_ord)?.told(at.doc_id, record)
    }

    /// The record of a document, and its number; read from the journal.
    pub(crate) fn draft(&self, ordinal: u32, doc: DocId, record: u32) -> Result<(u64, Draft), Lost> {
        let told = self.told(DocAddress::new(ordinal, doc), record).ok_or(Lost::Gone)?;
        self.recalled(&told).map(|draft| (told.seq, draft))
    }

    /// A record as it was indexed.
    pub(crate) fn recalled(&self, told: &Told) -> Result<Draft, Lost> {
        let record = self.recall.record(told.at, told.seq)?;
        let end = match (told.end, told.ended.well) {
            (Some(at), _) => Some(End { completion: self.recall.completion(at, told.seq)?, at }),
            (None, true) => {
                let mut completion = Completion::new(told.ended.outcome, told.ended.txn_outcome);
                (completion.rows, completion.bytes) = (told.rows, told.bytes.unwrap_or(0));
                completion.duration_us = told.duration_us.unwrap_or(0);
                // Only who has more to tell than numbers is asked where.
                Some(End { completion, at: told.at })
            }
            (None, false) => None,
        };
        Ok(Draft::again(record, told.at, end, told.ended.txn_outcome))
    }

    /// The records in memory that answer, of those before `before`, newest first.
    pub(crate) fn remembered(&self, wanted: &Node, before: Option<u64>) -> impl Iterator<Item = Held> + '_ {
        // The tree's own places are the keys of what is remembered of it.
        let wanted = Box::new(wanted.clone());
        let mut memo = Memo::default();
        let earlier = move |held: &Held| before.is_none_or(|before| held.seq < before);
        self.tail.newest_first().filter(move |held| earlier(held) && held.matches(&wanted, &mut memo))
    }

    /// The records that have documents and answer, of those before `before`, newest first.
    pub(crate) fn walk(self: &Arc<Moment>, asked: &Arc<Asked>, before: Option<u64>) -> tantivy::Result<Walk> {
        let weight = asked.query.weight(EnableScoring::disabled_from_searcher(&self.searcher))?;
        Ok(Walk {
            moment: Arc::clone(self),
            asked: Arc::clone(asked),
            weight,
            opened: 0,
            open: BinaryHeap::new(),
            ready: BinaryHeap::new(),
            before,
        })
    }

    /// The document of a record.
    pub(crate) fn find(&self, seq: u64) -> Option<Found> {
        let near = self.segments.iter().filter(|segment| (segment.first..=segment.last).contains(&seq));
        near.into_iter().find_map(|segment| {
            let alive = self.alive(segment.ordinal);
            let (doc, record) = segment.numbers.having(seq).find(|(doc, _)| is_alive(alive, *doc))?;
            Some(Found { seq, at: DocAddress::new(segment.ordinal, doc), record })
        })
    }

    fn alive(&self, ordinal: u32) -> Option<&AliveBitSet> {
        self.searcher.segment_reader(ordinal).alive_bitset()
    }
}

pub(crate) fn is_alive(alive: Option<&AliveBitSet>, doc: DocId) -> bool {
    alive.is_none_or(|alive| alive.is_alive(doc))
}

/// Goes back in time through the records that answer. A segment is opened when its newest record
/// is next at the earliest, so old ones are never touched if enough is found before.
pub(crate) struct Walk {
    moment: Arc<Moment>,
    asked: Arc<Asked>,
    weight: Box<dyn Weight>,
    /// How many segments were opened.
    opened: usize,
    open: BinaryHeap<Open>,
    /// Records of documents that were passed: others may come before them.
    ready: BinaryHeap<Ready>,
    before: Option<u64>,
}

/// A segment that stands at a document of which a record may answer.
struct Open {
    last: u64,
    /// Among the moment's.
    segment: usize,
    scorer: Box<dyn Scorer>,
    deciding: Deciding,
}

/// A record that answers, in the order of numbers.
#[derive(PartialEq, Eq)]
struct Ready(Found);

impl Walk {
    /// The next record.
    pub(crate) fn next(&mut self) -> Result<Option<Found>, SearchError> {
        loop {
            let ready = self.ready.peek().map(|ready| ready.0.seq);
            let unopened = self.moment.segments.get(self.opened).map(|segment| segment.last);
            let standing = self.open.peek().map(|open| open.last);
            // Nothing newer can come: documents are in the order of their newest records.
            if ready.is_some() && ready >= unopened.max(standing) {
                return Ok(self.ready.pop().map(|ready| ready.0));
            }
            if unopened.is_some() && unopened >= standing {
                self.enter()?;
            } else if let Some(open) = self.open.pop() {
                self.pass(open)?;
            } else {
                return Ok(None);
            }
        }
    }

    /// The newest record that has a document, whether it answers or not.
    pub(crate) fn newest(&self) -> u64 {
        self.moment.segments.first().map_or(0, |segment| segment.last)
    }

    /// Opens the next segment.
    fn enter(&mut self) -> Result<(), SearchError> {
        let index = self.opened;
        self.opened += 1;
        let Some(segment) = self.moment.segments.get(index) else { return Ok(()) };
        if self.before.is_some_and(|before| segment.first >= before) {
            return Ok(());
        }
        let mut scorer = self.weight.scorer(self.moment.searcher.segment_reader(segment.ordinal), 1.0)?;
        let from = self.before.map_or(0, |before| segment.numbers.below(before.saturating_add(SPAN)));
        if scorer.doc() < from {
            scorer.seek(from);
        }
        let deciding = Deciding::new(Arc::clone(&self.moment), Arc::clone(&self.asked), segment.ordinal);
        self.stand(Open { last: 0, segment: index, scorer, deciding });
        Ok(())
    }

    /// Takes the records of the document at which a segment stands, and moves on.
    fn pass(&mut self, mut open: Open) -> Result<(), SearchError> {
        let moment = Arc::clone(&self.moment);
        if let Some(Segment { ordinal, numbers, .. }) = moment.segments.get(open.segment) {
            let doc = open.scorer.doc();
            let before = self.before;
            let earlier = |seq: u64| before.is_none_or(|before| seq < before);
            if numbers.seqs(doc).any(earlier) {
                let records = open.deciding.records(numbers, doc)?;
                let answers = (0..).zip(numbers.seqs(doc)).filter(|(record, seq)| {
                    *record < u64::BITS && records >> record & 1 == 1 && earlier(*seq)
                });
                let at = DocAddress::new(*ordinal, doc);
                self.ready.extend(answers.map(|(record, seq)| Ready(Found { seq, at, record })));
            }
            open.scorer.advance();
            self.stand(open);
        }
        Ok(())
    }

    fn stand(&mut self, mut open: Open) {
        let Some(segment) = self.moment.segments.get(open.segment) else { return };
        let alive = self.moment.alive(segment.ordinal);
        while open.scorer.doc() != TERMINATED && !is_alive(alive, open.scorer.doc()) {
            open.scorer.advance();
        }
        if open.scorer.doc() != TERMINATED {
            open.last = segment.numbers.at(open.scorer.doc());
            self.open.push(open);
        }
    }
}

impl Ord for Ready {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.seq.cmp(&other.0.seq)
    }
}

impl PartialOrd for Ready {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Open {
    fn eq(&self, other: &Self) -> bool {
        self.last == other.last
    }
}

impl Eq for Open {}

impl PartialOrd for Open {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Open {
    fn cmp(&self, other: &Self) -> Ordering {
        self.last.cmp(&other.last)
    }
}
