//! The memory of pgwitness: an append-only journal, the proof over it, and the search built from it.
//!
//! Files only: no network, no tasks, no clock (time is an argument). The journal is the truth; the
//! search is derived from it and can be rebuilt at any time. The disk is reached through
//! [`storage::Storage`], Tantivy through its own `Directory`.

pub mod export;
pub mod journal;
pub mod proof;
pub mod record;
pub mod retention;
pub mod search;
pub mod storage;
pub mod view;
