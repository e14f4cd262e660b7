//! The answers: pages newest first, single records, histograms, facets.
//!
//! Every answer is of one moment: what was committed last when it was asked for. It sees what its
//! [`Scope`] allows and nothing else; a record out of scope is as if it were not there.
//!
//! Limits: [`MAX_LIMIT`] records a page, [`MAX_BUCKETS`], [`MAX_TOP`], and counting stops at
//! [`COUNT_CAP`] unless an exact count is asked for.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest as _, Sha256};
use tantivy::collector::{Collector, Count as CountAll, SegmentCollector, TopDocs};
use tantivy::columnar::{Column, StrColumn};
use tantivy::query::{EnableScoring, Query as TantivyQuery};
use tantivy::schema::{IndexRecordOption, Value as _};
use tantivy::{
    DocAddress, DocId, DocSet, IndexReader, Order, Score, Searcher, SegmentReader, TERMINATED,
    TantivyDocument,
};
use thiserror::Error;
use uuid::Uuid;

use super::field::Field;
use super::lower::lower;
use super::query::{Leaf, Node, Query};
use super::schema::{self, Columns};
use crate::record::{Seq, Timestamp};
use crate::view::View;

/// Most records on a page.
pub const MAX_LIMIT: usize = 1000;
/// Most bars of a histogram.
pub const MAX_BUCKETS: usize = 1000;
/// Most values of a facet.
pub const MAX_TOP: usize = 1000;
/// Where [`Count::Capped`] stops.
pub const COUNT_CAP: u64 = 10_000;

/// The fields whose values can be counted by [`Search::facets`].
pub const FACETS: &[Field] = &[
    Field::Event,
    Field::Outcome,
    Field::User,
    Field::Role,
    Field::Db,
    Field::App,
    Field::Command,
    Field::Class,
    Field::Tables,
    Field::Tags,
    Field::Analysis,
];

/// What the caller may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every record.
    All,
    /// The records of one person.
    Own {
        /// The provider.
        iss: String,
        /// The provider's id of the person.
        sub: String,
    },
}

/// The time asked for: from the first instant, up to and without the second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
}

/// Whether to count all that match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Not at all.
    None,
    /// Up to [`COUNT_CAP`].
    Capped,
    /// All.
    Exact,
}

/// Where a page ended, for one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    before: u64,
    query: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.before, self.query)
    }
}

impl FromStr for Cursor {
    type Err = SearchError;

    fn from_str(text: &str) -> Result<Cursor, SearchError> {
        let half = |range| {
            text.get(range)
                .filter(|half: &&str| half.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .and_then(|half| u64::from_str_radix(half, 16).ok())
        };
        match (text.len(), half(0..16), half(16..32)) {
            (32, Some(before), Some(query)) => Ok(Cursor { before, query }),
            _ => Err(SearchError::BadCursor),
        }
    }
}

/// Records that answer a query, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Merged views.
    pub items: Vec<View>,
    /// Where the next page begins, if there is one.
    pub next_cursor: Option<Cursor>,
    /// Up to which record the answer is complete.
    pub indexed_seq: Seq,
    /// How many match in all, if asked.
    pub total: Option<u64>,
    /// Whether `total` stopped counting.
    pub total_is_capped: bool,
}

/// How many matches fall into each part of a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// Where the first bar begins.
    pub from: Timestamp,
    /// Where the last bar ends, itself not included.
    pub to: Timestamp,
    /// Width of a bar, in microseconds.
    pub step_us: u64,
    /// Matches in each bar.
    pub counts: Vec<u64>,
}

/// The commonest values of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facet {
    /// Which field.
    pub field: Field,
    /// Values and how many matches have them, commonest first.
    pub values: Vec<(String, u64)>,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum SearchError {
    /// The text is not a cursor.
    #[error("the cursor is not one of ours. Start again without it")]
    BadCursor,
    /// It is a cursor of another query.
    #[error("the cursor belongs to another query. Start again without it")]
    OtherCursor,
    /// The values of this field are not counted.
    #[error("the values of {} cannot be counted", .0.name())]
    NoFacet(Field),
    /// A stored record could not be read back.
    #[error("record {0} could not be read from the index. Rebuild the index")]
    Damaged(Seq),
    /// The index failed.
    #[error("the index could not answer: {0}")]
    Index(#[from] tantivy::TantivyError),
}

/// The index, as those who ask see it. Cheap to clone, shared between threads.
#[derive(Clone)]
pub struct Search {
    /// Another one once the index had to be opened again.
    reader: Arc<RwLock<IndexReader>>,
    columns: Arc<Columns>,
    indexed: Arc<AtomicU64>,
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Search").field("newest", &self.newest()).finish_non_exhaustive()
    }
}

impl Search {
    pub(crate) fn new(reader: IndexReader, columns: Arc<Columns>, indexed: u64) -> Search {
        let reader = Arc::new(RwLock::new(reader));
        Search { reader, columns, indexed: Arc::new(AtomicU64::new(indexed)) }
    }

    /// Looks from now on, with all its clones, into the index that `newer` looks into.
    pub(crate) fn follow(&self, newer: &Search) {
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = newer.reader();
        self.indexed.store(newer.newest().0, Ordering::Release);
    }

    fn reader(&self) -> IndexReader {
        self.reader.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows what was committed last.
    pub(crate) fn reload(&self, indexed: u64) -> Result<(), tantivy::TantivyError> {
        self.reader().reload()?;
        self.indexed.store(indexed, Ordering::Release);
        Ok(())
    }

    pub(crate) fn searcher(&self) -> Searcher {
        self.reader().searcher()
    }

    /// The newest record that can be found.
    pub fn newest(&self) -> Seq {
        Seq(self.indexed.load(Ordering::Acquire))
    }

    /// One page of the records that answer `query`. `limit` is kept within 1 and [`MAX_LIMIT`].
    pub fn page(
        &self,
        query: &Query,
        scope: &Scope,
        window: &Window,
        limit: usize,
        cursor: Option<&Cursor>,
        count: Count,
    ) -> Result<Page, SearchError> {
        let hash = query_hash(query);
        if cursor.is_some_and(|cursor| cursor.query != hash) {
            return Err(SearchError::OtherCursor);
        }
        let limit = limit.clamp(1, MAX_LIMIT);
        // Before the searcher, so that the answer holds at least what this says.
        let indexed_seq = self.newest();
        let searcher = self.searcher();
        let before = cursor.map(|cursor| cursor.before);
        let lowered = lower(&self.columns, query.root(), scope, window, before);
        let top = TopDocs::with_limit(limit + 1).order_by_u64_field(Field::Seq.name(), Order::Desc);
        let mut hits = searcher.search(&*lowered, &top)?;
        let more = hits.len() > limit;
        hits.truncate(limit);
        let mut items = Vec::with_capacity(hits.len());
        for (seq, address) in &hits {
            items.push(self.view(&searcher, *address, seq.unwrap_or(0))?);
        }
        let last = hits.last().and_then(|(seq, _)| *seq);
        let next_cursor = last.filter(|_| more).map(|before| Cursor { before, query: hash });
        let everything = lower(&self.columns, query.root(), scope, window, None);
        let total = match count {
            Count::None => None,
            Count::Capped => Some(count_capped(&searcher, &*everything)?),
            Count::Exact => Some(searcher.search(&*everything, &CountAll)? as u64),
        };
        let total_is_capped = count == Count::Capped && total == Some(COUNT_CAP);
        Ok(Page { items, next_cursor, indexed_seq, total, total_is_capped })
    }

    /// The record with an id, if it exists and the caller may see it.
    pub fn get(&self, id: Uuid, scope: &Scope) -> Result<Option<View>, SearchError> {
        self.one(Leaf::Word { field: Field::Id, value: id.to_string(), prefix: false }, scope)
    }

    /// The record at a position, if it exists and the caller may see it.
    pub fn get_seq(&self, seq: Seq, scope: &Scope) -> Result<Option<View>, SearchError> {
        self.one(Leaf::Number { field: Field::Seq, min: seq.0, max: seq.0 }, scope)
    }

    fn one(&self, leaf: Leaf, scope: &Scope) -> Result<Option<View>, SearchError> {
        let searcher = self.searcher();
        let lowered = lower(&self.columns, &Node::Leaf(leaf), scope, &Window::default(), None);
        let top = TopDocs::with_limit(1).order_by_u64_field(Field::Seq.name(), Order::Desc);
        let hits = searcher.search(&*lowered, &top)?;
        hits.first().map(|(seq, address)| self.view(&searcher, *address, seq.unwrap_or(0))).transpose()
    }

    /// How the matches spread over time. Without an end of `window`, the matches themselves set it.
    pub fn histogram(
        &self,
        query: &Query,
        scope: &Scope,
        window: &Window,
        buckets: usize,
    ) -> Result<Histogram, SearchError> {
        let searcher = self.searcher();
        let lowered = lower(&self.columns, query.root(), scope, window, None);
        let (from, to) = match (window.from, window.to) {
            (Some(from), Some(to)) => (from.0, to.0),
            (from, to) => {
                let extent = searcher.search(&*lowered, &Extent)?;
                let (first, last) = extent.unwrap_or((0, 0));
                let from = from.map_or(first, |from| from.0);
                (from, to.map_or(last.saturating_add(1), |to| to.0).max(from))
            }
        };
        let buckets = buckets.clamp(1, MAX_BUCKETS);
        let width = u64::try_from(to.saturating_sub(from)).unwrap_or(0);
        let step_us = width.div_ceil(buckets as u64).max(1);
        let bars = usize::try_from(width.div_ceil(step_us)).unwrap_or(0);
        let counts = searcher.search(&*lowered, &Bars { from, step_us, bars })?;
        Ok(Histogram { from: Timestamp(from), to: Timestamp(to.max(from)), step_us, counts })
    }

    /// The commonest values of each field among the matches. Fields are some of [`FACETS`].
    pub fn facets(
        &self,
        query: &Query,
        scope: &Scope,
        window: &Window,
        fields: &[Field],
        top: usize,
    ) -> Result<Vec<Facet>, SearchError> {
        if let Some(field) = fields.iter().find(|field| !FACETS.contains(field)) {
            return Err(SearchError::NoFacet(*field));
        }
        let lowered = lower(&self.columns, query.root(), scope, window, None);
        let counted = self.searcher().search(&*lowered, &Values { fields: fields.to_vec() })?;
        let facets = fields.iter().zip(counted).map(|(field, counts)| {
            let mut values: Vec<(String, u64)> = counts.into_iter().collect();
            values.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            values.truncate(top.clamp(1, MAX_TOP));
            Facet { field: *field, values }
        });
        Ok(facets.collect())
    }

    pub(crate) fn view(&self, searcher: &Searcher, at: DocAddress, seq: u64) -> Result<View, SearchError> {
        let document: TantivyDocument = searcher.doc(at)?;
        let stored = document.get_first(self.columns.view).and_then(|value| value.as_bytes());
        stored.and_then(schema::decode).ok_or(SearchError::Damaged(Seq(seq)))
    }

    /// The committed record at a position.
    pub(crate) fn stored(&self, searcher: &Searcher, seq: u64) -> Result<Option<View>, SearchError> {
        let term = self.columns.seq_term(seq);
        for (ordinal, segment) in (0u32..).zip(searcher.segment_readers()) {
            let inverted = segment.inverted_index(self.columns.seq)?;
            let Some(mut postings) = inverted
                .read_postings(&term, IndexRecordOption::Basic)
                .map_err(tantivy::TantivyError::from)?
            else {
                continue;
            };
            while postings.doc() != TERMINATED {
                if alive(segment, postings.doc()) {
                    return self.view(searcher, DocAddress::new(ordinal, postings.doc()), seq).map(Some);
                }
                postings.advance();
            }
        }
        Ok(None)
    }
}

fn query_hash(query: &Query) -> u64 {
    let digest = Sha256::digest(query.source().as_bytes());
    digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

fn alive(segment: &SegmentReader, doc: DocId) -> bool {
    segment.alive_bitset().is_none_or(|alive| alive.is_alive(doc))
}

fn count_capped(searcher: &Searcher, query: &dyn TantivyQuery) -> Result<u64, SearchError> {
    let weight = query.weight(EnableScoring::disabled_from_searcher(searcher))?;
    let mut count = 0;
    for segment in searcher.segment_readers() {
        let mut scorer = weight.scorer(segment, 1.0)?;
        while scorer.doc() != TERMINATED {
            count += u64::from(alive(segment, scorer.doc()));
            if count >= COUNT_CAP {
                return Ok(COUNT_CAP);
            }
            scorer.advance();
        }
    }
    Ok(count)
}

/// Collects into `state`, seeing the documents of one segment.
struct Each<S, F> {
    state: S,
    see: F,
}

impl<S: Send + Clone + 'static, F: Fn(&mut S, DocId) + 'static> SegmentCollector for Each<S, F> {
    type Fruit = S;

    fn collect(&mut self, doc: DocId, _score: Score) {
        (self.see)(&mut self.state, doc);
    }

    fn harvest(self) -> S {
        self.state
    }
}

type See<S> = Each<S, Box<dyn Fn(&mut S, DocId)>>;

fn times(segment: &SegmentReader) -> tantivy::Result<Column<i64>> {
    segment.fast_fields().i64(Field::Time.name())
}

/// The first and last time among the matches.
struct Extent;

impl Collector for Extent {
    type Fruit = Option<(i64, i64)>;
    type Child = See<Option<(i64, i64)>>;

    fn for_segment(&self, _ordinal: u32, segment: &SegmentReader) -> tantivy::Result<Self::Child> {
        let times = times(segment)?;
        let see = move |extent: &mut Self::Fruit, doc| {
            if let Some(at) = times.first(doc) {
                let (first, last) = extent.unwrap_or((at, at));
                *extent = Some((first.min(at), last.max(at)));
            }
        };
        Ok(Each { state: None, see: Box::new(see) })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, fruits: Vec<Self::Fruit>) -> tantivy::Result<Self::Fruit> {
        Ok(fruits.into_iter().flatten().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))))
    }
}

/// Matches in each bar of a histogram.
struct Bars {
    from: i64,
    step_us: u64,
    bars: usize,
}

impl Collector for Bars {
    type Fruit = Vec<u64>;
    type Child = See<Vec<u64>>;

    fn for_segment(&self, _ordinal: u32, segment: &SegmentReader) -> tantivy::Result<Self::Child> {
        let times = times(segment)?;
        let (from, step_us) = (self.from, self.step_us);
        let see = move |counts: &mut Vec<u64>, doc| {
            let Some(offset) = times.first(doc).and_then(|at| u64::try_from(at.saturating_sub(from)).ok())
            else {
                return;
            };
            let bar = usize::try_from(offset / step_us).ok().and_then(|bar| counts.get_mut(bar));
            if let Some(count) = bar {
                *count += 1;
            }
        };
        Ok(Each { state: vec![0; self.bars], see: Box::new(see) })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, fruits: Vec<Vec<u64>>) -> tantivy::Result<Vec<u64>> {
        let mut sum = vec![0; self.bars];
        for fruit in fruits {
            sum.iter_mut().zip(fruit).for_each(|(sum, count)| *sum += count);
        }
        Ok(sum)
    }
}

type Counts = HashMap<String, u64>;

/// How often each value of some fields occurs.
struct Values {
    fields: Vec<Field>,
}

struct ValuesOfSegment {
    columns: Vec<(Option<StrColumn>, HashMap<u64, u64>)>,
}

impl SegmentCollector for ValuesOfSegment {
    type Fruit = std::io::Result<Vec<Counts>>;

    fn collect(&mut self, doc: DocId, _score: Score) {
        for (column, counts) in &mut self.columns {
            for value in column.iter().flat_map(|column| column.term_ords(doc)) {
                *counts.entry(value).or_default() += 1;
            }
        }
    }

    fn harvest(self) -> Self::Fruit {
        let named = |(column, counts): (Option<StrColumn>, HashMap<u64, u64>)| {
            let mut named = Counts::with_capacity(counts.len());
            for (value, count) in counts {
                let mut name = String::new();
                if let Some(column) = &column
                    && column.ord_to_str(value, &mut name)?
                {
                    named.insert(name, count);
                }
            }
            Ok(named)
        };
        self.columns.into_iter().map(named).collect()
    }
}

impl Collector for Values {
    type Fruit = Vec<Counts>;
    type Child = ValuesOfSegment;

    fn for_segment(&self, _ordinal: u32, segment: &SegmentReader) -> tantivy::Result<ValuesOfSegment> {
        let column = |field: &Field| Ok((segment.fast_fields().str(field.name())?, HashMap::new()));
        Ok(ValuesOfSegment { columns: self.fields.iter().map(column).collect::<tantivy::Result<_>>()? })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, fruits: Vec<std::io::Result<Vec<Counts>>>) -> tantivy::Result<Vec<Counts>> {
        let mut sums = vec![Counts::new(); self.fields.len()];
        for fruit in fruits {
            for (sum, counts) in sums.iter_mut().zip(fruit?) {
                counts.into_iter().for_each(|(name, count)| *sum.entry(name).or_default() += count);
            }
        }
        Ok(sums)
    }
}
