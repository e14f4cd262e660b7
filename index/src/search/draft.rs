//! A record on its way into the index, and the short way to its document.
//!
//! A statement is mostly what it shares with many others: who, what is touched, often its text. These
//! are defined in the [`dictionary`](super::dictionary), and its document refers to them and has what is
//! the record's own. Everything that is not a plain statement with a plain end has a document of its
//! merged view, with all in it.

use std::io::Write as _;
use std::sync::Arc;

use serde_json::Value;
use tantivy::TantivyDocument;
use tantivy::schema::Field as Column;

use super::dictionary::{Beside, Dictionary, Shared};
use super::field::Field;
use super::schema::{Columns, DOCUMENT_BYTES};
use super::words::Fields;
use crate::record::{Certainty, Class, Completion, Event, Outcome, Param, Record, Seq, Shape, TxnOutcome};
use crate::view::{self, View};

/// A record and what is known of its end.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    record: Arc<Record>,
    completion: Option<Completion>,
    txn_outcome: TxnOutcome,
}

impl Draft {
    pub(crate) fn new(record: Record) -> Draft {
        let txn_outcome = record.done.as_ref().map_or(TxnOutcome::Open, |done| done.txn_outcome);
        Draft { record: Arc::new(record), completion: None, txn_outcome }
    }

    /// How the execution ended; counts once only.
    pub(crate) fn complete(&mut self, completion: Completion) {
        if self.is_running() {
            self.txn_outcome = completion.txn_outcome;
            self.completion = Some(completion);
        }
    }

    /// How the transaction ended, if it was still open.
    pub(crate) fn settle(&mut self, txn_outcome: TxnOutcome) {
        if self.txn_outcome == TxnOutcome::Open {
            self.txn_outcome = txn_outcome;
        }
    }

    /// Whether the end, or that of its transaction, is still to come.
    pub(crate) fn is_open(&self) -> bool {
        self.is_running() || self.txn_outcome == TxnOutcome::Open
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// How the execution ended, if that is known.
    pub(crate) fn end(&self) -> Option<&Completion> {
        self.record.done.as_ref().or(self.completion.as_ref())
    }

    pub(crate) fn txn_outcome(&self) -> TxnOutcome {
        self.txn_outcome
    }

    pub(crate) fn is_statement(&self) -> bool {
        view::is_statement(&self.record)
    }

    fn is_running(&self) -> bool {
        self.record.done.is_none() && self.completion.is_none()
    }

    /// About how many bytes it holds in memory.
    pub(crate) fn weight(&self) -> usize {
        const FIELDS: usize = 1_024;
        let params: usize = self.record.params.iter().map(param_weight).sum();
        FIELDS + params + self.record.sql.as_ref().map_or(0, |sql| sql.as_bytes().len())
    }

    pub(crate) fn view(&self, seq: u64) -> View {
        let mut view = view::merged(&self.record, Seq(seq), self.completion.as_ref(), None);
        view::settle(&mut view, self.txn_outcome);
        view
    }

    fn plain(&self) -> Option<Plain<'_>> {
        let record = &*self.record;
        let end = self.completion.as_ref().filter(|end| end.notes.is_empty())?;
        let shape = record.shape.as_ref().filter(|shape| !shape.command.is_empty())?;
        let sql = std::str::from_utf8(record.sql.as_ref()?.as_bytes()).ok()?;
        (record.event == Event::Query).then_some(Plain {
            record,
            sql,
            shape,
            end,
            txn_outcome: self.txn_outcome,
        })
    }
}

fn param_weight(param: &Param) -> usize {
    const VALUE: usize = 32;
    match param {
        Param::Text(text) => VALUE + text.len(),
        Param::Bytes(bytes) => VALUE + bytes.len(),
        _ => VALUE,
    }
}

/// A statement that can go the short way.
struct Plain<'a> {
    record: &'a Record,
    sql: &'a str,
    shape: &'a Arc<Shape>,
    end: &'a Completion,
    txn_outcome: TxnOutcome,
}

impl Plain<'_> {
    fn is(&self) -> Vec<&'static str> {
        let facts = view::Facts {
            failed: self.end.outcome == Outcome::Error,
            denied: self.end.outcome == Outcome::Denied,
            ddl: self.shape.class.contains(&Class::Ddl),
            write: self.shape.class.contains(&Class::Write),
            rows: self.end.rows.unwrap_or(0),
            tagged: !self.shape.tags.is_empty(),
            unparsed: self.shape.analysis == Certainty::Unresolved,
        };
        facts.is().collect()
    }
}

/// Makes documents of drafts.
pub(crate) struct Drafts {
    columns: Arc<Columns>,
    dictionary: Dictionary,
    /// The stored object of the present document.
    json: Vec<u8>,
}

impl Drafts {
    pub(crate) fn new(columns: Arc<Columns>, dictionary: Dictionary) -> Drafts {
        Drafts { columns, dictionary, json: Vec::new() }
    }

    pub(crate) fn dictionary(&mut self) -> &mut Dictionary {
        &mut self.dictionary
    }

    pub(crate) fn document(&mut self, seq: u64, draft: &Draft) -> TantivyDocument {
        match draft.plain() {
            Some(plain) => self.plain(seq, &plain),
            None => self.columns.document(seq, &draft.view(seq)),
        }
    }

    fn plain(&mut self, seq: u64, plain: &Plain<'_>) -> TantivyDocument {
        let beside = Beside { seq, time: view::clamped(plain.record.time).0 };
        let who = self.dictionary.who(&plain.record.who, beside);
        let shape = self.dictionary.shape(plain.shape, beside);
        let text = self.dictionary.text(plain.sql, beside);
        let columns = &*self.columns;
        let mut own = Own {
            columns,
            document: TantivyDocument::with_capacity(DOCUMENT_BYTES),
            json: &mut self.json,
            has: Fields::default(),
        };
        own.json.clear();
        own.begin(seq, plain);
        own.statement(plain, text);
        own.end(plain);
        let Own { mut document, mut has, .. } = own;
        [Some(who), Some(shape), text].into_iter().flatten().for_each(|shared| has.join(shared.has));
        let refers = [who.number, shape.number, text.map_or(0, |text| text.number)];
        columns.complete(&mut document, seq, has, refers, &self.json);
        document
    }
}

/// The merged view of a record from its own part, as [`Drafts`] stored it, and what it refers to.
pub(crate) fn joined(own: View, who: &View, text: Option<&View>, shape: &View) -> View {
    let own_keys = own.len();
    let mut view = View::with_capacity(own_keys + who.len() + shape.len() + 1);
    let mut add = |part: &View| view.extend(part.iter().map(|(name, value)| (name.clone(), value.clone())));
    let mut after = View::new();
    let mut before = View::new();
    let mut statement = View::new();
    let mut place = &mut before;
    for (name, value) in own {
        let (is_sql, is_params) = (name == Field::Sql.name(), name == Field::Params.name());
        if is_sql || is_params {
            place = &mut statement;
        }
        place.insert(name, value);
        if is_params {
            place = &mut after;
        }
    }
    [Some(&before), Some(who), text, Some(&statement), Some(shape), Some(&after)]
        .into_iter()
        .flatten()
        .for_each(&mut add);
    view
}

/// A document that is being written, and its stored object.
struct Own<'a> {
    columns: &'a Columns,
    document: TantivyDocument,
    json: &'a mut Vec<u8>,
    has: Fields,
}

impl Own<'_> {
    fn begin(&mut self, seq: u64, plain: &Plain<'_>) {
        let record = plain.record;
        let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
        self.word(Field::Id, record.id.hyphenated().encode_lower(&mut id));
        self.key(Field::Seq.name());
        self.number(seq);
        self.has.insert(Field::Seq);
        self.key(Field::Time.name());
        self.string(&view::format_time(record.time));
        self.has.insert(Field::Time);
        self.column(Field::Time, |document, column| document.add_i64(column, view::clamped(record.time).0));
        self.word(Field::Event, record.event.as_str());
        self.word(Field::Outcome, plain.end.outcome.as_str());
        self.word(Field::TxnOutcome, plain.txn_outcome.as_str());
    }

    fn statement(&mut self, plain: &Plain<'_>, text: Option<Shared>) {
        if text.is_none() {
            self.key(Field::Sql.name());
            self.string(plain.sql);
            self.add_text(Field::Sql, plain.sql);
        }
        self.key(Field::Params.name());
        let params = plain.record.params.iter().map(view::param).collect::<Vec<Value>>();
        self.value(&params);
        for text in params.iter().filter_map(super::matches::param) {
            self.has.insert(Field::Params);
            self.column(Field::Params, |document, column| document.add_text(column, text));
        }
    }

    fn end(&mut self, plain: &Plain<'_>) {
        let end = plain.end;
        self.count(Field::Rows, end.rows);
        self.count(Field::Bytes, Some(end.bytes));
        self.count(Field::Duration, Some(end.duration_us));
        self.word(Field::Sqlstate, &end.sqlstate);
        self.word(Field::Error, &end.error);
        self.key("detail");
        self.text(&plain.record.detail);
        self.key(Field::Tags.name());
        self.value(&plain.shape.tags);
        plain.shape.tags.iter().for_each(|tag| self.add_text(Field::Tags, tag));
        let is = plain.is();
        self.key(Field::Is.name());
        self.value(&is);
        is.iter().for_each(|word| self.add_text(Field::Is, word));
        self.json.push(b'}');
    }

    /// A field of one text.
    fn word(&mut self, field: Field, text: &str) {
        self.key(field.name());
        self.text(text);
        self.add_text(field, text);
    }

    fn add_text(&mut self, field: Field, text: &str) {
        if !text.is_empty() {
            self.has.insert(field);
            self.column(field, |document, column| document.add_text(column, text));
        }
    }

    fn count(&mut self, field: Field, count: Option<u64>) {
        self.key(field.name());
        match count {
            None => self.json.extend_from_slice(b"null"),
            Some(count) => {
                self.number(count);
                self.has.insert(field);
                self.column(field, |document, column| document.add_u64(column, count));
            }
        }
    }

    fn column(&mut self, field: Field, add: impl FnOnce(&mut TantivyDocument, Column)) {
        if let Some(column) = self.columns.of(field) {
            add(&mut self.document, column);
        }
    }

    fn key(&mut self, name: &str) {
        self.json.push(if self.json.is_empty() { b'{' } else { b',' });
        self.string(name);
        self.json.push(b':');
    }

    /// A text, or nothing.
    fn text(&mut self, text: &str) {
        match text {
            "" => self.json.extend_from_slice(b"null"),
            text => self.string(text),
        }
    }

    fn string(&mut self, text: &str) {
        self.value(text);
    }

    fn number(&mut self, number: u64) {
        // Writing to memory does not fail.
        let _ = write!(self.json, "{number}");
    }

    fn value(&mut self, value: &(impl serde::Serialize + ?Sized)) {
        // Strings, numbers and lists always have a text form.
        let _ = serde_json::to_writer(&mut *self.json, value);
    }
}
