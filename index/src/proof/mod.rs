//! The proof over the journal: what somebody who trusts nobody can check.
//!
//! [`verify`] reads every byte offline, needs no lock, and writes nothing. It finds what was edited,
//! reordered, removed or replaced within the journal; only a [`Head`](crate::journal::Head) kept
//! elsewhere shows that the end was cut off, or that everything was written anew.

pub mod checkpoint;
pub mod inclusion;
pub mod leaf;
pub mod merkle;
pub mod note;
mod report;
pub mod tile;
mod verify;

pub use report::{Broken, HeadCheck, Report, Torn};
pub use verify::verify;
