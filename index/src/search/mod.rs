//! Search: an index built from the journal, and the questions it answers.
//!
//! ```text
//! journal frames ─ indexer ─ merged views ─ documents ─┐ (schema)
//!                                                      ├─ Tantivy, on disk
//! text ─ parse ─ Query ─ lower (+ scope, window) ──────┘ ─ page ─ merged views
//! ```
//!
//! Derived: delete the directory and it is built again. The documents and the place in the journal
//! up to which they are true are committed together, so a crash repeats work and never skips any.
//! The caller's [`Scope`] is a part of the query tree, never of its text. No threads but Tantivy's,
//! and no clock.

mod complement;
mod draft;
mod field;
mod indexer;
mod lower;
mod matches;
mod page;
mod parse;
mod query;
mod schema;
#[cfg(test)]
mod tests;
mod value;
mod words;

pub use field::{Field, IS, Kind};
pub use indexer::{IndexError, Indexer, Opened, Options, Progress};
pub use page::{
    COUNT_CAP, Count, Cursor, FACETS, Facet, Histogram, MAX_BUCKETS, MAX_LIMIT, MAX_TOP, Page, Scope, Search,
    SearchError, Window,
};
pub use query::{MAX_BYTES, MAX_CLAUSES, MAX_DEPTH, Query, QueryError};
pub use value::parse_instant;
