//! Documents by the numbers of their records. Segments are sorted by the newest record of each
//! document, newest first, so a range of numbers is a range of documents and one number is found by
//! halving.

use std::ops::RangeInclusive;
use std::sync::Arc;

use tantivy::columnar::{Column, ColumnValues};
use tantivy::query::{ConstScorer, EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::{DocId, DocSet, Score, SegmentReader, TERMINATED};

use super::document::{Ended, SPAN, place_from_code};
use super::field::Field;
use super::schema::{AT, DEFINES, END, HOW, LAST};
use crate::journal::Position;

/// The numbers of one segment's documents.
#[derive(Clone)]
pub(crate) struct Numbers {
    last: Arc<dyn ColumnValues<u64>>,
    defines: Arc<dyn ColumnValues<u64>>,
    seq: Option<Column<u64>>,
    time: Option<Column<i64>>,
    counts: [Option<Column<u64>>; 3],
    at: Option<Column<u64>>,
    how: Option<Column<u64>>,
    end: Option<Column<u64>>,
    documents: DocId,
}

/// The fields of counts, in their order.
const COUNTS: [Field; 3] = [Field::Rows, Field::Bytes, Field::Duration];

/// Values of one number of a record.
pub(crate) enum Range {
    Number(Field, RangeInclusive<u64>),
    Time(RangeInclusive<i64>),
}

/// What the columns say of one record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) seq: u64,
    pub(crate) time: i64,
    /// The frame of the journal that has it.
    pub(crate) at: Position,
    pub(crate) rows: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) duration_us: Option<u64>,
    pub(crate) ended: Ended,
    /// The frame that tells how it ended, where that is not in the columns.
    pub(crate) end: Option<Position>,
}

impl Numbers {
    pub(crate) fn of(segment: &SegmentReader) -> tantivy::Result<Numbers> {
        let fast = segment.fast_fields();
        let of = |field: Field| fast.column_opt::<u64>(field.name());
        Ok(Numbers {
            last: fast.u64(LAST)?.values,
            defines: fast.u64(DEFINES)?.values,
            seq: of(Field::Seq)?,
            time: fast.column_opt::<i64>(Field::Time.name())?,
            counts: [of(COUNTS[0])?, of(COUNTS[1])?, of(COUNTS[2])?],
            at: fast.column_opt(AT)?,
            how: fast.column_opt(HOW)?,
            end: fast.column_opt(END)?,
            documents: segment.max_doc(),
        })
    }

    /// The number of the newest record of a document.
    pub(crate) fn at(&self, doc: DocId) -> u64 {
        self.last.get_val(doc)
    }

    /// How many records a document has; a definition has none.
    pub(crate) fn count(&self, doc: DocId) -> u32 {
        self.seq.as_ref().map_or(0, |seq| seq.index.value_row_ids(doc).len() as u32)
    }

    /// The numbers of a document's records, newest first.
    pub(crate) fn seqs(&self, doc: DocId) -> impl Iterator<Item = u64> + '_ {
        self.seq.iter().flat_map(move |seq| seq.values_for_doc(doc))
    }

    /// The times of a document's records, in their order.
    pub(crate) fn times(&self, doc: DocId) -> impl Iterator<Item = i64> + '_ {
        self.time.iter().flat_map(move |time| time.values_for_doc(doc))
    }

    /// The times of all records.
    pub(crate) fn all_times(&self) -> impl Iterator<Item = i64> + '_ {
        self.time.iter().flat_map(|time| time.values.iter())
    }

    /// What the columns say of a record of a document.
    pub(crate) fn told(&self, doc: DocId, record: u32) -> Option<Told> {
        let record = record as usize;
        let [rows, bytes, duration_us] =
            self.counts.each_ref().map(|count| count.as_ref()?.values_for_doc(doc).nth(record));
        Some(Told {
            seq: self.seqs(doc).nth(record)?,
            time: self.times(doc).nth(record)?,
            at: place_from_code(self.at.as_ref()?.values_for_doc(doc).nth(record)?),
            rows,
            bytes,
            duration_us,
            ended: Ended::from_code(self.how.as_ref()?.first(doc)?)?,
            end: self.end.as_ref().and_then(|end| end.first(doc)).map(place_from_code),
        })
    }

    /// The records of a document that have a value in a range, as a set.
    pub(crate) fn within(&self, doc: DocId, range: &Range) -> u64 {
        fn set<T: PartialOrd>(values: impl Iterator<Item = T>, range: &RangeInclusive<T>) -> u64 {
            let bits = values.take(u64::BITS as usize).enumerate();
            bits.fold(0, |set, (record, value)| set | u64::from(range.contains(&value)) << record)
        }
        match range {
            Range::Time(range) => set(self.times(doc), range),
            Range::Number(Field::Seq, range) => set(self.seqs(doc), range),
            Range::Number(field, range) => {
                let column = COUNTS.iter().zip(&self.counts).find(|(count, _)| *count == field);
                let values = column.into_iter().flat_map(|(_, column)| column.iter());
                set(values.flat_map(|column| column.values_for_doc(doc)), range)
            }
        }
    }

    /// The first and last number; none in an empty segment.
    pub(crate) fn extent(&self) -> Option<(u64, u64)> {
        let last = self.documents.checked_sub(1)?;
        Some((self.at(last).saturating_sub(SPAN), self.at(0)))
    }

    /// The first document whose number is below `seq`.
    pub(crate) fn below(&self, seq: u64) -> DocId {
        let (mut from, mut to) = (0, self.documents);
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

    /// The documents of the record with a number alone; several while a replaced one is still there.
    /// What was defined beside it is not among them.
    pub(crate) fn with(&self, seq: u64) -> impl Iterator<Item = DocId> + '_ {
        let after = seq.checked_add(1).map_or(0, |next| self.below(next));
        (after..self.below(seq)).filter(|doc| self.defines.get_val(*doc) == 0)
    }

    /// The documents that have the record with a number, and which of theirs it is.
    pub(crate) fn having(&self, seq: u64) -> impl Iterator<Item = (DocId, u32)> + '_ {
        let oldest = self.below(seq);
        let newest = self.below(seq.saturating_add(SPAN));
        (newest..oldest).rev().filter_map(move |doc| {
            let record = self.seqs(doc).position(|number| number == seq)?;
            Some((doc, u32::try_from(record).ok()?))
        })
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
