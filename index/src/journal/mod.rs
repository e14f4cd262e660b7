//! The journal: an append-only, checksummed, hash-chained log in segment files. The truth.
//!
//! [`Journal`] is its only writer, [`Reader`] follows it (live or offline), [`SyncTask`] makes what
//! was written durable without holding the writer. It never overwrites or deletes what was written:
//! bytes torn by a crash are copied aside before they are cut off, and damage stops it with a name.
//! It has no clock, no tasks, and knows nothing of search.
//!
//! Limits: one frame holds at most 64 MiB; shared values are remembered 4096 at a time; one
//! settlement names at most 4 Mi records; what is open is kept as ranges, at most 4 Mi of them.

mod decode;
mod encode;
mod error;
mod head;
mod ledger;
mod reader;
mod recovery;
mod scan;
mod segment;
mod seqs;
mod wire;
mod writer;

pub use error::{Flaw, JournalError};
pub use head::{Head, NotReadable, Position};
pub use ledger::LedgerFault;
pub use reader::{ReadFrame, Reader};
pub use writer::{Appended, Journal, Options, Recovery, SyncTask};

pub(crate) use decode::Item;
pub(crate) use encode::Carry;
pub(crate) use error::{CrashPossible, io_error};
pub(crate) use head::time_text;
pub(crate) use ledger::Ledger;
pub(crate) use scan::{Frame, Scan, Step, crash_possible};
pub(crate) use segment::{file_name, is_torn_name, segment_of};
pub(crate) use seqs::SeqSet;
