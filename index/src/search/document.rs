//! Documents of records.
//!
//! A plain statement has a small one: what it shares with others is defined in the
//! [`dictionary`](super::dictionary), and the document has numbers, and the words of its values.
//! Statements that differ in nothing but values, numbers and times, and that are near to each other,
//! are one document, a run: each number column has a value for each of its records, in their order,
//! and each word stands at the position of its record. Everything else has a document of its merged
//! view, with all in it.

use std::collections::HashMap;
use std::sync::Arc;

use rustc_hash::FxBuildHasher;
use tantivy::TantivyDocument;
use tantivy::schema::Field as Column;

use super::dictionary::{Dictionary, How};
use super::draft::{Draft, Plain};
use super::field::Field;
use super::matches;
use super::schema::{Columns, DOCUMENT_BYTES, OWN_ID, Parts};
use super::words::{self, Fields, NEXT_RECORD};
use crate::journal::Position;
use crate::record::{Outcome, Param, Record, Sql, TxnOutcome};
use crate::view;

/// Most records of one document.
pub(crate) const RUN_MAX: u32 = 64;
/// The newest record of a document is less than this far from its oldest.
pub(crate) const SPAN: u64 = 1_024;

/// How the records of a document ended, as one number of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) txn_outcome: TxnOutcome,
    /// Its end is still to come.
    pub(crate) running: bool,
    /// The numbers in the columns are all that is to be said of it.
    pub(crate) well: bool,
}

impl Ended {
    fn code(self) -> u64 {
        u64::from(self.running)
            | u64::from(self.well) << 1
            | u64::from(self.outcome.code()) << 2
            | u64::from(self.txn_outcome.code()) << 10
    }

    pub(crate) fn from_code(code: u64) -> Option<Ended> {
        let byte = |shift: u32| u8::try_from(code >> shift & 0xff).ok();
        Some(Ended {
            running: code & 1 == 1,
            well: code & 2 == 2,
            outcome: Outcome::from_code(byte(2)?)?,
            txn_outcome: TxnOutcome::from_code(byte(10)?)?,
        })
    }
}

/// A place in the journal as one number of a column.
pub(crate) fn place_code(at: Position) -> u64 {
    at.segment << 32 | at.offset
}

pub(crate) fn place_from_code(code: u64) -> Position {
    Position { segment: code >> 32, offset: code & u64::from(u32::MAX) }
}

/// Whether an id can be told from the time, as far as it is not random.
pub(crate) fn is_id_of_time(record: &Record) -> bool {
    let millis = u64::try_from(record.time.0).map(|time| time / 1_000);
    view::clamped(record.time) == record.time
        && millis.is_ok_and(|millis| u128::from(millis) == record.id.as_u128() >> 80)
}

/// Makes documents of records.
pub(crate) struct Documents {
    columns: Arc<Columns>,
    pub(crate) dictionary: Dictionary,
    /// In the order of their newest records, newest first.
    documents: Vec<Begun>,
    /// Those that more records may join, by what they refer to.
    open: HashMap<[u64; 3], usize, FxBuildHasher>,
}

/// A document that more records may join.
struct Begun {
    document: TantivyDocument,
    refers: [u64; 3],
    last: u64,
    records: u32,
    literals: String,
    params: String,
}

impl Documents {
    pub(crate) fn new(columns: Arc<Columns>, dictionary: Dictionary) -> Documents {
        Documents { columns, dictionary, documents: Vec::new(), open: HashMap::default() }
    }

    /// Adds a record; they come in the order of their numbers, newest first.
    pub(crate) fn add(&mut self, seq: u64, draft: &Draft) {
        match draft.plain() {
            Some(plain) => self.add_plain(seq, draft, &plain),
            None => self.add_whole(seq, draft),
        }
    }

    /// The documents of the records that were added, and the definitions to which they refer.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = TantivyDocument> + use<> {
        self.open.clear();
        let columns = Arc::clone(&self.columns);
        let begun = std::mem::take(&mut self.documents).into_iter();
        self.dictionary.take().into_iter().chain(begun.map(move |begun| begun.end(&columns)))
    }

    fn add_whole(&mut self, seq: u64, draft: &Draft) {
        let Parts { values, has } = self.columns.parts(&draft.view(seq));
        let mut document = TantivyDocument::with_capacity(DOCUMENT_BYTES);
        Parts { values, has }.add_to(&mut document);
        document.add_text(self.columns.has, has.text());
        let begun = Begun::new(document, seq, [0; 3]);
        self.begin(begun, draft, false);
    }

    fn add_plain(&mut self, seq: u64, draft: &Draft, plain: &Plain<'_>) {
        let who = self.dictionary.who(&plain.record.who, seq);
        let (what, shares_text) = self.dictionary.what(plain.shape, plain.sql, seq);
        let is = plain.is();
        let mut has = own_fields(plain, &is);
        has.join(who.has);
        has.join(what.has);
        let how = How { outcome: plain.end.outcome, txn_outcome: plain.txn_outcome, is, has };
        let refers = [who.number, what.number, self.dictionary.how(how, seq)];
        let well = plain.ended_well();
        let joins = well && shares_text && !draft.is_open() && is_id_of_time(plain.record);
        if joins
            && let Some(index) = self.open.get(&refers)
            && let Some(begun) = self.documents.get_mut(*index)
            && begun.records < RUN_MAX
            && begun.last - seq < SPAN
        {
            begun.records += 1;
            begun.literals.push(NEXT_RECORD);
            begun.params.push(NEXT_RECORD);
            begun.add(&self.columns, seq, plain, true);
            begun.add_place(&self.columns, draft);
            return;
        }
        let mut begun = Begun::new(TantivyDocument::with_capacity(DOCUMENT_BYTES), seq, refers);
        begun.add(&self.columns, seq, plain, shares_text);
        if joins {
            self.open.insert(refers, self.documents.len());
        }
        self.begin(begun, draft, well);
    }

    /// Adds what the first record alone says.
    fn begin(&mut self, mut begun: Begun, draft: &Draft, well: bool) {
        let columns = &*self.columns;
        begun.add_place(columns, draft);
        let ended = Ended {
            outcome: draft.end().map_or(Outcome::Unknown, |end| end.outcome),
            txn_outcome: draft.txn_outcome(),
            running: draft.is_running(),
            well,
        };
        begun.document.add_u64(columns.how, ended.code());
        if let Some(at) = draft.end_at().filter(|_| !well) {
            begun.document.add_u64(columns.end, place_code(at));
        }
        if let Some(id) = columns.of(Field::Id).filter(|_| !is_id_of_time(draft.record())) {
            let mut buffer = uuid::Uuid::encode_buffer();
            begun.document.add_text(id, draft.record().id.hyphenated().encode_lower(&mut buffer));
            begun.document.add_text(id, OWN_ID);
        }
        self.documents.push(begun);
    }
}

/// The fields of a statement that are not shared.
fn own_fields(plain: &Plain<'_>, is: &[&str]) -> Fields {
    let mut has = Fields::default();
    let always = [
        Field::Id,
        Field::Seq,
        Field::Time,
        Field::Event,
        Field::Outcome,
        Field::TxnOutcome,
        Field::Bytes,
        Field::Duration,
    ];
    always.into_iter().for_each(|field| has.insert(field));
    let end = plain.end;
    let rest = [
        (Field::Sql, !plain.text.is_empty()),
        (Field::Params, plain.record.params.iter().any(|param| *param != Param::Null)),
        (Field::Rows, end.rows.is_some()),
        (Field::Sqlstate, !end.sqlstate.is_empty()),
        (Field::Error, !end.error.is_empty()),
        (Field::Is, !is.is_empty()),
    ];
    rest.into_iter().filter(|(_, there)| *there).for_each(|(field, _)| has.insert(field));
    has
}

impl Begun {
    fn new(document: TantivyDocument, last: u64, refers: [u64; 3]) -> Begun {
        Begun { document, refers, last, records: 1, literals: String::new(), params: String::new() }
    }

    fn add_place(&mut self, columns: &Columns, draft: &Draft) {
        self.document.add_u64(columns.at, place_code(draft.at()));
    }

    /// Adds what each record has of its own.
    fn add(&mut self, columns: &Columns, seq: u64, plain: &Plain<'_>, shares_text: bool) {
        let end = plain.end;
        self.document.add_u64(columns.seq, seq);
        let number = |document: &mut TantivyDocument, field, add: &dyn Fn(&mut TantivyDocument, Column)| {
            columns.of(field).into_iter().for_each(|column| add(document, column));
        };
        let at = view::clamped(plain.record.time).0;
        number(&mut self.document, Field::Time, &|document, column| document.add_i64(column, at));
        let counts = [
            (Field::Rows, end.rows),
            (Field::Bytes, Some(end.bytes)),
            (Field::Duration, Some(end.duration_us)),
        ];
        for (field, count) in counts.into_iter().filter_map(|(field, count)| Some((field, count?))) {
            number(&mut self.document, field, &|document, column| document.add_u64(column, count));
        }
        let text = |document: &mut TantivyDocument, field, text: &str| {
            if let Some(column) = columns.of(field).filter(|_| !text.is_empty()) {
                document.add_text(column, text);
            }
        };
        text(&mut self.document, Field::Sqlstate, &end.sqlstate);
        text(&mut self.document, Field::Error, &end.error);
        if !shares_text {
            text(&mut self.document, Field::Sql, plain.text);
        } else if let Sql::Spliced(spliced) = plain.sql {
            for value in spliced.values() {
                // The text is whole letters, and so is what is cut out of it between such.
                words::push_values(&mut self.literals, std::str::from_utf8(value).unwrap_or_default());
            }
        }
        for param in &plain.record.params {
            match param {
                Param::Null => {}
                Param::Text(text) => words::push_values(&mut self.params, text),
                other => {
                    let text = matches::param(&view::param(other)).unwrap_or_default();
                    words::push_values(&mut self.params, &text);
                }
            }
        }
    }

    fn end(mut self, columns: &Columns) -> TantivyDocument {
        let (literals, params) = match self.records {
            1 => (columns.literals, columns.params),
            _ => {
                columns.mark_run(&mut self.document);
                (columns.run_literals, columns.run_params)
            }
        };
        let has_words = |words: &str| words.contains(|c| c != NEXT_RECORD);
        if has_words(&self.literals) {
            self.document.add_text(literals, &self.literals);
        }
        if has_words(&self.params) {
            self.document.add_text(params, &self.params);
        }
        columns.complete(&mut self.document, self.last, self.refers);
        self.document
    }
}
