//! The index's fields and how a merged record becomes a document.
//!
//! Tantivy sees each field under the name users know, and beside them: `has` (which fields have a
//! value), `owner` (issuer and subject, exactly, for the caller's scope), `names` (words of object
//! names, for bare words) and `view` (the whole record, stored).

use serde_json::Value;
use tantivy::schema::{
    BytesOptions, Field as Column, IndexRecordOption, IpAddrOptions, NumericOptions, Schema,
    TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::{TextAnalyzer, TokenizerManager};
use tantivy::{TantivyDocument, Term};

use super::field::{Field, Kind};
use super::matches;
use super::words::Cut;
use crate::view::View;

/// Raised whenever documents or their fields change; an index of another version is rebuilt.
pub(crate) const VERSION: u32 = 1;

/// The columns of the index.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    pub(crate) schema: Schema,
    of: Vec<Option<Column>>,
    pub(crate) seq: Column,
    pub(crate) has: Column,
    pub(crate) owner: Column,
    pub(crate) names: Column,
    pub(crate) view: Column,
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
                Kind::Count if *field == Field::Seq => {
                    Some(builder.add_u64_field(name, number.clone().set_indexed()))
                }
                Kind::Count | Kind::Duration => Some(builder.add_u64_field(name, number.clone())),
                Kind::Time => Some(builder.add_i64_field(name, number.clone())),
                Kind::Ip => Some(builder.add_ip_addr_field(name, IpAddrOptions::default().set_fast())),
            });
        }
        let has = builder.add_text_field("has", exact("raw"));
        let owner = builder.add_text_field("owner", exact("raw"));
        let names = builder.add_text_field("names", exact(Cut::Names.name()));
        let view = builder.add_bytes_field("view", BytesOptions::default().set_stored());
        let schema = builder.build();
        let seq = of[Field::Seq as usize].expect("seq is a column of its own");
        Columns { schema, of, seq, has, owner, names, view }
    }

    /// The column of a field; `None` for `columns`, which is asked as its three parts.
    pub(crate) fn of(&self, field: Field) -> Option<Column> {
        self.of[field as usize]
    }

    /// The document of a merged record.
    pub(crate) fn document(&self, seq: u64, view: &View) -> TantivyDocument {
        let mut document = TantivyDocument::default();
        for field in Field::ALL {
            if matches::exists(*field, view) {
                document.add_text(self.has, field.name());
                self.add(&mut document, *field, view);
            }
        }
        // Not from the view: this is the key by which the document is replaced.
        document.add_u64(self.seq, seq);
        if let Some(owner) =
            matches::strings(view, Field::Iss).next().zip(matches::strings(view, Field::Sub).next())
        {
            document.add_text(self.owner, owner_key(owner.0, owner.1));
        }
        for name in matches::names(view) {
            document.add_text(self.names, name);
        }
        document.add_bytes(self.view, &encode(view));
        document
    }

    fn add(&self, document: &mut TantivyDocument, field: Field, view: &View) {
        let Some(column) = self.of(field) else {
            return;
        };
        match field.kind() {
            Kind::Text => {
                matches::texts(view, field).into_iter().for_each(|text| document.add_text(column, text))
            }
            Kind::Keyword | Kind::Person | Kind::Object => {
                matches::strings(view, field).for_each(|text| document.add_text(column, text));
            }
            Kind::Count | Kind::Duration => {
                if let Some(value) =
                    view.get(field.name()).and_then(Value::as_u64).filter(|_| field != Field::Seq)
                {
                    document.add_u64(column, value);
                }
            }
            Kind::Time => matches::time(view).into_iter().for_each(|at| document.add_i64(column, at)),
            Kind::Ip => matches::ip(view).into_iter().for_each(|ip| document.add_ip_addr(column, ip)),
        }
    }

    pub(crate) fn seq_term(&self, seq: u64) -> Term {
        Term::from_field_u64(self.seq, seq)
    }
}

/// The stored form of a view.
pub(crate) fn encode(view: &View) -> Vec<u8> {
    // Objects of strings, numbers and lists always have a text form.
    serde_json::to_vec(view).unwrap_or_default()
}

/// The view in its stored form, if it is one.
pub(crate) fn decode(bytes: &[u8]) -> Option<View> {
    serde_json::from_slice(bytes).ok()
}

/// Issuer and subject as one word, in which neither can pass for a part of the other.
pub(crate) fn owner_key(iss: &str, sub: &str) -> String {
    format!("{}:{iss}{sub}", iss.len())
}

/// The tokenizers the schema names.
pub(crate) fn tokenizers() -> TokenizerManager {
    let manager = TokenizerManager::default();
    for cut in Cut::ALL {
        manager.register(cut.name(), TextAnalyzer::from(cut));
    }
    manager
}

fn text_options(field: Field) -> Option<TextOptions> {
    let cut = match field.kind() {
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
