//! Search: an index built from the journal, and the questions it answers.
//!
//! ```text
//! journal frames ─ indexer ─ records in memory ─────────────┬─ page, summary ─ merged views
//!                               └ writing ─ documents ─ Tantivy, on disk │
//! text ─ parse ─ Query (+ scope, window) ┬─ matches ────────┘            │
//!                                        └─ lower ──────────────────────┘
//! ```
//!
//! A document is of one record, or of several that differ in little; it has no text of theirs. What
//! documents alone cannot tell is decided record by record, and a record that is shown is read from
//! the journal.
//!
//! Derived: delete the directory and it is built again. The documents and the place in the journal
//! from which it must be read again are committed together, so a crash repeats work and never skips
//! any. What is not written yet, or changed since, is answered from memory: every answer is of one
//! [`Moment`](moment::Moment) and knows both. Documents lie in the order of answers, newest first, so
//! a page reads no more than it shows. The caller's [`Scope`] is a part of the query tree, never of
//! its text. No threads but Tantivy's, and no clock.

mod any;
mod complement;
mod containing;
mod deciding;
mod dictionary;
mod document;
mod draft;
mod facts;
mod field;
mod files;
mod having;
mod indexer;
mod lower;
mod matches;
mod merge;
mod moment;
mod page;
mod parse;
mod plan;
mod position;
mod query;
mod recall;
mod referring;
mod schema;
mod state;
mod summary;
mod tail;
#[cfg(test)]
mod tests;
mod value;
mod words;
mod writing;

pub use field::{Field, IS, Kind};
pub use indexer::{IndexError, Indexer, Opened, Options, Part, Progress};
pub use page::{COUNT_CAP, Count, Cursor, MAX_LIMIT, Page, Scope, Search, SearchError, Window};
pub use query::{MAX_BYTES, MAX_CLAUSES, MAX_DEPTH, Query, QueryError};
pub use summary::{FACETS, Facet, Histogram, MAX_BUCKETS, MAX_TOP};
pub use value::parse_instant;
pub use writing::{Writing, Written};
