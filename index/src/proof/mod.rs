//! The proof over the journal: what somebody who trusts nobody can check.
//!
//! [`verify`] reads every byte offline, needs no lock, and writes nothing. It finds what was edited,
//! reordered, removed or replaced within the journal (what a signed record says was dropped is not there, and
//! that is no fault); only a [`Head`](crate::journal::Head) or a checkpoint
//! kept elsewhere shows that the end was cut off, or that everything was written anew.
//!
//! Beside the journal's chain stands a Merkle tree over its entries, as transparency logs have it, so that
//! one record can be proven to somebody who does not have the others:
//!
//! - pure: [`merkle`] (RFC 6962), [`tile`], [`note`], [`checkpoint`], [`inclusion`] (C2SP's formats),
//!   [`leaf`] (what of an entry is hashed);
//! - in files: [`TreeWriter`] follows the journal and publishes signed heads, [`TreeReader`] makes proofs,
//!   [`TileStore`] is the folder in between.

pub mod checkpoint;
pub mod edge;
mod explained;
pub mod inclusion;
pub mod leaf;
pub mod merkle;
pub mod note;
mod prove;
mod report;
mod store;
pub mod tile;
mod tree_check;
mod verify;
mod waypoints;
mod writer;

pub use prove::{ConsistencyProof, LeafKind, LeafProof, Opening, RecordProof, TreeReader};
pub use report::{Broken, Classes, HeadCheck, Report, Torn, TreeReport};
pub use store::{FOLDER, Mark, StoreError, TileStore};
pub use verify::{Against, verify, verify_against};
pub use writer::{Latest, Opened, Published, TreeError, TreeWriter};
