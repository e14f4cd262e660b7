//! The journal: an append-only, checksummed, hash-chained log in segment files. The truth.
//!
//! [`Journal`] is its only writer, [`Reader`] follows it (live or offline), [`Archive`] reads it by place, [`SyncTask`] makes what
//! was written durable without holding the writer. None of them overwrites or deletes what was written:
//! bytes torn by a crash are copied aside before they are cut off, and damage stops it with a name. Only
//! [`Rewrite`] takes values out of a segment that is complete, for [`crate::retention`].
//! It has no clock, no tasks, and knows nothing of search.
//!
//! Version 2 of the format is written: what records share stands once in a segment (a session, a
//! statement without its literals), a frame says where, so that a frame is read with the help of few
//! others. Version 1 stays readable; version 3 is a segment that was rewritten.
//!
//! Limits: one frame holds at most 64 MiB, a segment less than 2 GiB; of shared values some 16,000 of
//! a kind are remembered, others are written again; one settlement names at most 4 Mi records; what
//! is open is kept as ranges, at most 4 Mi of them.

mod archive;
mod crash;
mod cut;
mod decode;
mod encode;
mod error;
mod fields;
mod find;
mod frame;
mod generations;
mod head;
mod ledger;
mod partitions;
mod payload;
mod random;
mod reader;
mod recovery;
mod reserve;
mod rewrite;
mod scan;
mod segment;
mod seqs;
mod v1;
mod wire;
mod writer;

pub use archive::{Archive, StoredFrame};
pub use error::{Flaw, JournalError};
pub use head::{Head, NotReadable, Position};
pub use ledger::LedgerFault;
pub use partitions::Partition;
pub use reader::{ReadFrame, Reader};
pub use rewrite::{Erasure, Rewrite, Values};
pub use writer::{Appended, Journal, Options, Recovery, SyncTask};

pub(crate) use crash::crash_possible;
pub(crate) use decode::Item;
pub(crate) use error::{CrashPossible, io_error};
pub(crate) use fields::Carry;
pub(crate) use head::time_text;
pub(crate) use ledger::Ledger;
pub(crate) use rewrite::{hashes, next as next_sealed, open as open_sealed};
pub(crate) use scan::{BadOpening, Frame, Scan, Step};
pub(crate) use segment::{Format, file_name, is_torn_name, segment_of};
pub(crate) use seqs::SeqSet;
