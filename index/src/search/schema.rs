//! The index's fields and how a merged record becomes a document.
//!
//! Nothing is stored: a record is read from the journal. Tantivy sees each field under the name users
//! know. Beside them are what only documents have:
//! - `has`: which fields have a value, and what kind of document it is;
//! - `owner`: issuer and subject, exactly, for the caller's scope;
//! - `names`: words of object names, for bare words;
//! - `pieces`: the words of a definition's text, which has no literals;
//! - `literals`, `params`: the words of a record's values, and [`Columns::run_literals`],
//!   [`Columns::run_params`] those of the records of a run, each at the position of its record;
//! - `_last`: the newest record of the document, by which documents are ordered;
//! - `_at`: where the journal has its records;
//! - `_how`, `_end`: how they ended, and where the journal tells more of that;
//! - the columns of the [`dictionary`].

use std::net::Ipv6Addr;

use serde_json::Value;
use tantivy::schema::{
    Field as Column, IndexRecordOption, IpAddrOptions, NumericOptions, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::{TextAnalyzer, TokenizerManager};
use tantivy::{TantivyDocument, Term};

use super::dictionary;
use super::field::{Field, Kind};
use super::matches;
use super::words::{self, Cut, Cutter, Fields};
use crate::view::View;

/// Raised whenever documents or their fields change; an index of another version is rebuilt.
pub(crate) const VERSION: u32 = 5;

/// About how many bytes a document has, to begin with.
pub(crate) const DOCUMENT_BYTES: usize = 512;

/// The column of the number that a document defines.
pub(crate) const DEFINES: &str = "_defines";
/// The column of the newest record of a document.
pub(crate) const LAST: &str = "_last";
/// The column of where the journal has the records of a document.
pub(crate) const AT: &str = "_at";
/// The column of how the records of a document ended.
pub(crate) const HOW: &str = "_how";
/// The column of where the journal tells how the record of a document ended.
pub(crate) const END: &str = "_end";
/// Marks documents of more than one record.
const RUN: &str = "_run";
/// Among the ids: the document has its record's id, because it cannot be told from the time.
pub(crate) const OWN_ID: &str = "!";

/// The columns of the index.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    pub(crate) schema: Schema,
    of: Vec<Option<Column>>,
    pub(crate) seq: Column,
    pub(crate) last: Column,
    pub(crate) at: Column,
    pub(crate) how: Column,
    pub(crate) end: Column,
    pub(crate) has: Column,
    pub(crate) owner: Column,
    pub(crate) names: Column,
    /// Words of a definition's text without its literals.
    pub(crate) pieces: Column,
    /// Words of the literals in a statement's text.
    pub(crate) literals: Column,
    pub(crate) run_literals: Column,
    pub(crate) params: Column,
    pub(crate) run_params: Column,
    /// The number that a document defines; 0 in those of records.
    defines: Column,
    /// The numbers that a document refers to, by [`Kind`](dictionary::Kind); 0 if it has all itself.
    refers: [Column; 3],
}

impl Columns {
    pub(crate) fn new() -> Columns {
        let mut builder = Schema::builder();
        let number = NumericOptions::default().set_fast();
        let mut of = Vec::with_capacity(Field::ALL.len());
        for field in Field::ALL {
            let name = field.name();
            of.push(match field.kind() {
                Kind::Keyword | Kind::Person | Kind::Object | Kind::Text => {
                    text_options(*field).map(|options| builder.add_text_field(name, options))
                }
                Kind::Count | Kind::Duration => Some(builder.add_u64_field(name, number.clone())),
                Kind::Time => Some(builder.add_i64_field(name, number.clone())),
                Kind::Ip => Some(builder.add_ip_addr_field(name, IpAddrOptions::default().set_fast())),
            });
        }
        let seq = of[Field::Seq as usize].expect("seq is a column of its own");
        let params = of[Field::Params as usize].expect("params are a column of their own");
        let has = builder.add_text_field("has", exact("raw"));
        let owner = builder.add_text_field("owner", exact("raw"));
        let names = builder.add_text_field("names", exact("raw"));
        let pieces = builder.add_text_field("pieces", exact(Cut::Values.name()));
        let literals = builder.add_text_field("literals", exact(Cut::Values.name()));
        let in_run = || {
            let indexing = TextFieldIndexing::default()
                .set_tokenizer(Cut::Values.name())
                .set_index_option(IndexRecordOption::WithFreqsAndPositions)
                .set_fieldnorms(false);
            TextOptions::default().set_indexing_options(indexing)
        };
        let run_literals = builder.add_text_field("_literals", in_run());
        let run_params = builder.add_text_field("_params", in_run());
        let [last, at, how, end, defines] =
            [LAST, AT, HOW, END, DEFINES].map(|name| builder.add_u64_field(name, number.clone()));
        let key = || number.clone().set_indexed();
        let refers = dictionary::Kind::ALL.map(|kind| builder.add_u64_field(kind.name(), key()));
        let schema = builder.build();
        Columns {
            schema,
            of,
            seq,
            last,
            at,
            how,
            end,
            has,
            owner,
            names,
            pieces,
            literals,
            run_literals,
            params,
            run_params,
            defines,
            refers,
        }
    }

    /// The column of a field; `None` for `columns`, which is asked as its three parts.
    pub(crate) fn of(&self, field: Field) -> Option<Column> {
        self.of[field as usize]
    }

    /// The document that defines a number for what records near `beside` share.
    pub(crate) fn definition(
        &self,
        kind: dictionary::Kind,
        number: u64,
        beside: u64,
        view: &View,
    ) -> TantivyDocument {
        let parts = self.parts(view);
        let mut document = TantivyDocument::with_capacity(DOCUMENT_BYTES);
        parts.add_to(&mut document);
        document.add_text(self.has, kind.name());
        document.add_u64(self.last, beside);
        document.add_u64(self.defines, number);
        self.refers.iter().for_each(|column| document.add_u64(*column, 0));
        document
    }

    /// Adds what a document of records has once: its place, and what it refers to.
    pub(crate) fn complete(&self, document: &mut TantivyDocument, last: u64, refers: [u64; 3]) {
        document.add_u64(self.last, last);
        document.add_u64(self.defines, 0);
        self.refers.iter().zip(refers).for_each(|(column, number)| document.add_u64(*column, number));
    }

    /// Marks a document of more than one record.
    pub(crate) fn mark_run(&self, document: &mut TantivyDocument) {
        document.add_text(self.has, RUN);
    }

    /// The term of all documents of more than one record.
    pub(crate) fn runs(&self) -> Term {
        Term::from_field_text(self.has, RUN)
    }

    /// The term of all definitions of a kind.
    pub(crate) fn definitions(&self, kind: dictionary::Kind) -> Term {
        Term::from_field_text(self.has, kind.name())
    }

    /// The column of what a document refers to.
    pub(crate) fn refers(&self, kind: dictionary::Kind) -> Column {
        self.refers[kind as usize]
    }

    /// What a merged record, or a part of one, puts into its document. Issuer and subject must not
    /// be in different parts.
    pub(crate) fn parts(&self, view: &View) -> Parts {
        let mut parts = Parts::default();
        for field in Field::ALL {
            if matches::exists(*field, view) {
                parts.has.insert(*field);
                self.add(&mut parts.values, *field, view);
            }
        }
        if let Some(owner) =
            matches::strings(view, Field::Iss).next().zip(matches::strings(view, Field::Sub).next())
        {
            parts.values.push((self.owner, Part::Text(owner_key(owner.0, owner.1))));
        }
        let names = words::name_words(matches::names(view));
        parts.values.extend(names.into_iter().map(|word| (self.names, Part::Text(word))));
        parts
    }

    fn add(&self, values: &mut Vec<(Column, Part)>, field: Field, view: &View) {
        let Some(column) = self.of(field) else {
            return;
        };
        match field {
            Field::Id => {}
            Field::Params => {
                let mut tokens = String::new();
                matches::texts(view, field).iter().for_each(|text| words::push_values(&mut tokens, text));
                values.push((column, Part::Text(tokens)));
            }
            _ => match field.kind() {
                Kind::Text | Kind::Keyword | Kind::Person | Kind::Object => {
                    let texts = matches::strings(view, field);
                    values.extend(texts.map(|text| (column, Part::Text(text.to_owned()))));
                }
                Kind::Count | Kind::Duration => {
                    let value = view.get(field.name()).and_then(Value::as_u64);
                    values.extend(value.map(|value| (column, Part::Number(value))));
                }
                Kind::Time => values.extend(matches::time(view).map(|at| (column, Part::Time(at)))),
                Kind::Ip => values.extend(matches::ip(view).map(|ip| (column, Part::Ip(ip)))),
            },
        }
    }
}

/// What a merged record, or a part of one, puts into its document.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Parts {
    pub(crate) values: Vec<(Column, Part)>,
    pub(crate) has: Fields,
}

/// One value of one column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Part {
    Text(String),
    Number(u64),
    Time(i64),
    Ip(Ipv6Addr),
}

impl Parts {
    pub(crate) fn add_to(&self, document: &mut TantivyDocument) {
        for (column, part) in &self.values {
            match part {
                Part::Text(text) => document.add_text(*column, text),
                Part::Number(number) => document.add_u64(*column, *number),
                Part::Time(at) => document.add_i64(*column, *at),
                Part::Ip(ip) => document.add_ip_addr(*column, *ip),
            }
        }
    }
}

/// Issuer and subject as one word, in which neither can pass for a part of the other.
pub(crate) fn owner_key(iss: &str, sub: &str) -> String {
    format!("{}:{iss}{sub}", iss.len())
}

/// The tokenizers the schema names.
pub(crate) fn tokenizers() -> TokenizerManager {
    let manager = TokenizerManager::default();
    for cut in Cut::ALL {
        manager.register(cut.name(), TextAnalyzer::from(Cutter::from(cut)));
    }
    manager
}

fn text_options(field: Field) -> Option<TextOptions> {
    let cut = match field.kind() {
        Kind::Text if field == Field::Params => Cut::Values,
        Kind::Text => {
            let indexing = TextFieldIndexing::default()
                .set_tokenizer(Cut::Text.name())
                .set_index_option(IndexRecordOption::WithFreqsAndPositions)
                .set_fieldnorms(false);
            return Some(TextOptions::default().set_indexing_options(indexing));
        }
        Kind::Person => Cut::Person,
        Kind::Object if field == Field::Columns => return None,
        Kind::Object => Cut::Tails,
        _ => Cut::Keyword,
    };
    let options = exact(cut.name());
    Some(if super::FACETS.contains(&field) { options.set_fast("raw") } else { options })
}

fn exact(tokenizer: &str) -> TextOptions {
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(tokenizer)
        .set_index_option(IndexRecordOption::Basic)
        .set_fieldnorms(false);
    TextOptions::default().set_indexing_options(indexing)
}
