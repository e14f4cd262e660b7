//! Summaries of all records that answer: histograms and the commonest values.
//!
//! Of one moment and within the caller's scope, like pages. Segments are counted in parallel.
//!
//! Limits: [`MAX_BUCKETS`], [`MAX_TOP`].

use std::collections::HashMap;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;
use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::{Column, StrColumn};
use tantivy::query::Weight;
use tantivy::schema::IndexRecordOption;
use tantivy::{DocId, DocSet, Score, SegmentReader, TERMINATED};

use super::deciding::Deciding;
use super::dictionary::Kind;
use super::facts::Facts as _;
use super::field::Field;
use super::lower::Asked;
use super::moment::{Moment, is_alive};
use super::page::{Scope, Search, SearchError, Window, wanted};
use super::position::Numbers;
use super::query::{Node, Query};
use super::schema::DEFINES;
use super::tail::Held;
use crate::record::Timestamp;

/// Most bars of a histogram.
pub const MAX_BUCKETS: usize = 1000;
/// Most values of a facet.
pub const MAX_TOP: usize = 1000;

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

impl Search {
    /// How the matches spread over time. Without an end of `window`, the matches themselves set it.
    pub fn histogram(
        &self,
        query: &Query,
        scope: &Scope,
        window: &Window,
        buckets: usize,
    ) -> Result<Histogram, SearchError> {
        let moment = self.moment();
        // All that is in the window, so that only times are looked at.
        let everything = matches!(query.root(), Node::All) && *scope == Scope::All;
        let wanted = wanted(query, scope, window);
        let held = moment.remembered(&wanted, None).filter_map(|held| held.facts().time());
        let held: Vec<i64> = held.collect();
        let asked = self.lowered(&moment, wanted)?;
        let (from, to) = match (window.from, window.to) {
            (Some(from), Some(to)) => (from.0, to.0),
            (from, to) => {
                let extent =
                    each(&moment, &asked, Extent { everything: everything && *window == Window::default() })?;
                let all = extent.into_iter().chain(held.iter().map(|at| (*at, *at)));
                let (first, last) = all.reduce(wider).unwrap_or((0, 0));
                let from = from.map_or(first, |from| from.0);
                (from, to.map_or(last.saturating_add(1), |to| to.0).max(from))
            }
        };
        let buckets = buckets.clamp(1, MAX_BUCKETS);
        let width = u64::try_from(to.saturating_sub(from)).unwrap_or(0);
        let step_us = width.div_ceil(buckets as u64).max(1);
        let bars = usize::try_from(width.div_ceil(step_us)).unwrap_or(0);
        let bars = Bars { from, to, step_us, bars, everything };
        let mut counts = each(&moment, &asked, bars)?;
        held.iter().for_each(|at| bars.add(&mut counts, *at));
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
        let moment = self.moment();
        let wanted = wanted(query, scope, window);
        let held: Vec<Held> = moment.remembered(&wanted, None).collect();
        let asked = self.lowered(&moment, wanted)?;
        let (mut counted, references) = each(&moment, &asked, Values { fields: fields.to_vec() })?;
        self.add_shared(&moment, fields, &references, &mut counted)?;
        for held in held {
            for (field, counts) in fields.iter().zip(&mut counted) {
                held.facts().any_text(*field, &mut |value| count_one(counts, value));
            }
        }
        let facets = fields.iter().zip(counted).map(|(field, counts)| {
            let mut values: Vec<(String, u64)> = counts.into_iter().collect();
            values.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            values.truncate(top.clamp(1, MAX_TOP));
            Facet { field: *field, values }
        });
        Ok(facets.collect())
    }
}

/// How many records answer.
pub(crate) fn count(moment: &Arc<Moment>, asked: &Arc<Asked>) -> Result<u64, SearchError> {
    each(moment, asked, CountAll)
}

/// What is to be learned of all records that answer.
trait Learn: Send + Sync {
    type Learned: Send + 'static;
    /// What is learned of one segment.
    type OfSegment: OfSegment<Learned = Self::Learned>;

    fn segment(&self, segment: &SegmentReader) -> tantivy::Result<Self::OfSegment>;

    /// What is learned of a segment of which all records may answer; `None` if they are to be seen.
    fn all(&self, _: &Numbers) -> Option<Self::Learned> {
        None
    }

    fn join(&self, learned: impl Iterator<Item = Self::Learned>) -> Self::Learned;
}

trait OfSegment: 'static {
    type Learned: Send + 'static;

    /// Sees the records of a document that answer, as a set.
    fn see(&mut self, numbers: &Numbers, doc: DocId, records: u64);

    fn end(self) -> tantivy::Result<Self::Learned>;
}

/// Learns of all records that answer, of the segments in parallel.
fn each<L: Learn>(moment: &Arc<Moment>, asked: &Arc<Asked>, learn: L) -> Result<L::Learned, SearchError> {
    let all = Each { moment, asked, learn };
    let learned = moment.searcher.search(&*asked.query, &all)??;
    if asked.is_exhausted() { Err(SearchError::TooMany) } else { Ok(learned) }
}

struct Each<'a, L> {
    moment: &'a Arc<Moment>,
    asked: &'a Arc<Asked>,
    learn: L,
}

struct EachOfSegment<S> {
    numbers: Option<Numbers>,
    deciding: Deciding,
    learned: Result<S, SearchError>,
}

impl<L: Learn> Collector for Each<'_, L> {
    type Fruit = Result<L::Learned, SearchError>;
    type Child = EachOfSegment<L::OfSegment>;

    fn for_segment(&self, ordinal: u32, segment: &SegmentReader) -> tantivy::Result<Self::Child> {
        let numbers = self.moment.numbers(ordinal).cloned();
        let deciding = Deciding::new(Arc::clone(self.moment), Arc::clone(self.asked), ordinal);
        Ok(EachOfSegment { numbers, deciding, learned: Ok(self.learn.segment(segment)?) })
    }

    fn collect_segment(
        &self,
        weight: &dyn Weight,
        ordinal: u32,
        segment: &SegmentReader,
    ) -> tantivy::Result<Self::Fruit> {
        // Where no document is replaced, and none is about to be, the columns are all there is.
        if segment.alive_bitset().is_none()
            && self.moment.tail.late().is_empty()
            && let Some(learned) = self.moment.numbers(ordinal).and_then(|numbers| self.learn.all(numbers))
        {
            return Ok(Ok(learned));
        }
        let mut child = self.for_segment(ordinal, segment)?;
        let alive = segment.alive_bitset();
        weight.for_each_no_score(segment, &mut |docs| {
            let live = docs.iter().filter(|doc| is_alive(alive, **doc));
            live.for_each(|doc| child.collect(*doc, 0.0));
        })?;
        Ok(child.harvest())
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, fruits: Vec<Self::Fruit>) -> tantivy::Result<Self::Fruit> {
        let fruits = fruits.into_iter().collect::<Result<Vec<_>, _>>();
        Ok(fruits.map(|fruits| self.learn.join(fruits.into_iter())))
    }
}

impl<S: OfSegment> SegmentCollector for EachOfSegment<S> {
    type Fruit = Result<S::Learned, SearchError>;

    fn collect(&mut self, doc: DocId, _score: Score) {
        let (Ok(learned), Some(numbers)) = (&mut self.learned, &self.numbers) else { return };
        match self.deciding.records(numbers, doc) {
            Ok(0) => {}
            Ok(records) => learned.see(numbers, doc, records),
            Err(error) => self.learned = Err(error),
        }
    }

    fn harvest(self) -> Self::Fruit {
        Ok(self.learned?.end()?)
    }
}

/// The values of the records of a set.
fn of_records<T>(values: impl Iterator<Item = T>, records: u64) -> impl Iterator<Item = T> {
    values
        .take(u64::BITS as usize)
        .enumerate()
        .filter_map(move |(record, value)| (records >> record & 1 == 1).then_some(value))
}

struct CountAll;

impl Learn for CountAll {
    type Learned = u64;
    type OfSegment = u64;

    fn segment(&self, _: &SegmentReader) -> tantivy::Result<u64> {
        Ok(0)
    }

    fn join(&self, learned: impl Iterator<Item = u64>) -> u64 {
        learned.sum()
    }
}

impl OfSegment for u64 {
    type Learned = u64;

    fn see(&mut self, _: &Numbers, _: DocId, records: u64) {
        *self += u64::from(records.count_ones());
    }

    fn end(self) -> tantivy::Result<u64> {
        Ok(self)
    }
}

/// The first and last time among the matches.
struct Extent {
    everything: bool,
}

impl Learn for Extent {
    type Learned = Option<(i64, i64)>;
    type OfSegment = Option<(i64, i64)>;

    fn segment(&self, _: &SegmentReader) -> tantivy::Result<Self::OfSegment> {
        Ok(None)
    }

    fn all(&self, numbers: &Numbers) -> Option<Self::Learned> {
        self.everything.then(|| numbers.all_times().map(|at| (at, at)).reduce(wider))
    }

    fn join(&self, learned: impl Iterator<Item = Self::Learned>) -> Self::Learned {
        learned.flatten().reduce(wider)
    }
}

impl OfSegment for Option<(i64, i64)> {
    type Learned = Option<(i64, i64)>;

    fn see(&mut self, numbers: &Numbers, doc: DocId, records: u64) {
        let times = of_records(numbers.times(doc), records).map(|at| (at, at));
        *self = self.iter().copied().chain(times).reduce(wider);
    }

    fn end(self) -> tantivy::Result<Self::Learned> {
        Ok(self)
    }
}

fn wider(a: (i64, i64), b: (i64, i64)) -> (i64, i64) {
    (a.0.min(b.0), a.1.max(b.1))
}

/// Matches in each bar of a histogram.
#[derive(Clone, Copy)]
struct Bars {
    from: i64,
    /// Not included.
    to: i64,
    step_us: u64,
    bars: usize,
    everything: bool,
}

impl Bars {
    fn add(self, counts: &mut [u64], at: i64) {
        let Ok(offset) = u64::try_from(at.saturating_sub(self.from)) else { return };
        let bar = usize::try_from(offset / self.step_us).ok().and_then(|bar| counts.get_mut(bar));
        bar.into_iter().for_each(|count| *count += 1);
    }
}

impl Learn for Bars {
    type Learned = Vec<u64>;
    type OfSegment = BarsOfSegment;

    fn segment(&self, _: &SegmentReader) -> tantivy::Result<BarsOfSegment> {
        Ok(BarsOfSegment { bars: *self, counts: vec![0; self.bars] })
    }

    fn all(&self, numbers: &Numbers) -> Option<Vec<u64>> {
        self.everything.then(|| {
            let mut counts = vec![0; self.bars];
            let within = numbers.all_times().filter(|at| *at < self.to);
            within.for_each(|at| self.add(&mut counts, at));
            counts
        })
    }

    fn join(&self, learned: impl Iterator<Item = Vec<u64>>) -> Vec<u64> {
        learned.fold(vec![0; self.bars], |mut sum, counts| {
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            sum
        })
    }
}

struct BarsOfSegment {
    bars: Bars,
    counts: Vec<u64>,
}

impl OfSegment for BarsOfSegment {
    type Learned = Vec<u64>;

    fn see(&mut self, numbers: &Numbers, doc: DocId, records: u64) {
        of_records(numbers.times(doc), records).for_each(|at| self.bars.add(&mut self.counts, at));
    }

    fn end(self) -> tantivy::Result<Vec<u64>> {
        Ok(self.counts)
    }
}

type Counts = HashMap<String, u64>;

/// Adds one; there are more to see.
fn count_one(counts: &mut Counts, value: &str) -> bool {
    match counts.get_mut(value) {
        Some(count) => *count += 1,
        None => _ = counts.insert(value.to_owned(), 1),
    }
    false
}

/// How often a definition is referred to.
type References = HashMap<u64, u64, FxBuildHasher>;

/// How often each value of some fields occurs in documents themselves, and how often they refer to
/// definitions that may have values of these fields.
struct Values {
    fields: Vec<Field>,
}

impl Values {
    fn kinds(&self) -> impl Iterator<Item = Kind> + '_ {
        Kind::ALL.into_iter().filter(|kind| self.fields.iter().any(|field| Kind::of(*field) == Some(*kind)))
    }
}

struct ValuesOfSegment {
    columns: Vec<(Option<StrColumn>, HashMap<u64, u64, FxBuildHasher>)>,
    refers: Vec<Column<u64>>,
    references: References,
}

impl OfSegment for ValuesOfSegment {
    type Learned = (Vec<Counts>, References);

    fn see(&mut self, _: &Numbers, doc: DocId, records: u64) {
        let times = u64::from(records.count_ones());
        for (column, counts) in &mut self.columns {
            for value in column.iter().flat_map(|column| column.term_ords(doc)) {
                *counts.entry(value).or_default() += times;
            }
        }
        for refers in &self.refers {
            let number = refers.values.get_val(doc);
            if number != 0 {
                *self.references.entry(number).or_default() += times;
            }
        }
    }

    fn end(self) -> tantivy::Result<Self::Learned> {
        let named = |(column, counts): (Option<StrColumn>, HashMap<u64, u64, FxBuildHasher>)| {
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
        let counts = self.columns.into_iter().map(named).collect::<tantivy::Result<_>>()?;
        Ok((counts, self.references))
    }
}

impl Learn for Values {
    type Learned = (Vec<Counts>, References);
    type OfSegment = ValuesOfSegment;

    fn segment(&self, segment: &SegmentReader) -> tantivy::Result<ValuesOfSegment> {
        let fast = segment.fast_fields();
        let column = |field: &Field| Ok((fast.str(field.name())?, HashMap::default()));
        Ok(ValuesOfSegment {
            columns: self.fields.iter().map(column).collect::<tantivy::Result<_>>()?,
            refers: self.kinds().map(|kind| fast.u64(kind.name())).collect::<tantivy::Result<_>>()?,
            references: References::default(),
        })
    }

    fn join(&self, learned: impl Iterator<Item = Self::Learned>) -> Self::Learned {
        let mut sums = vec![Counts::new(); self.fields.len()];
        let mut references = References::default();
        for (counted, referred) in learned {
            for (sum, counts) in sums.iter_mut().zip(counted) {
                counts.into_iter().for_each(|(name, count)| *sum.entry(name).or_default() += count);
            }
            referred.into_iter().for_each(|(number, count)| *references.entry(number).or_default() += count);
        }
        (sums, references)
    }
}

impl Search {
    /// Adds the values of definitions, each as often as it is referred to.
    fn add_shared(
        &self,
        moment: &Moment,
        fields: &[Field],
        references: &References,
        counted: &mut [Counts],
    ) -> Result<(), SearchError> {
        if references.is_empty() {
            return Ok(());
        }
        for segment in moment.searcher.segment_readers() {
            let fast = segment.fast_fields();
            let defines = fast.u64(DEFINES)?.values;
            let columns = fields.iter().map(|field| fast.str(field.name()));
            let columns = columns.collect::<tantivy::Result<Vec<_>>>()?;
            for kind in (Values { fields: fields.to_vec() }).kinds() {
                let term = self.columns().definitions(kind);
                let inverted = segment.inverted_index(term.field())?;
                let postings = inverted.read_postings(&term, IndexRecordOption::Basic);
                let Some(mut definitions) = postings.map_err(tantivy::TantivyError::from)? else { continue };
                while definitions.doc() != TERMINATED {
                    if let Some(times) = references.get(&defines.get_val(definitions.doc())) {
                        add_values(&columns, definitions.doc(), *times, counted)?;
                    }
                    definitions.advance();
                }
            }
        }
        Ok(())
    }
}

/// Adds the values of one document, so many times.
fn add_values(
    columns: &[Option<StrColumn>],
    doc: DocId,
    times: u64,
    counted: &mut [Counts],
) -> tantivy::Result<()> {
    for (column, counts) in columns.iter().zip(counted) {
        let Some(column) = column else { continue };
        for value in column.term_ords(doc) {
            let mut name = String::new();
            if column.ord_to_str(value, &mut name)? {
                *counts.entry(name).or_default() += times;
            }
        }
    }
    Ok(())
}
