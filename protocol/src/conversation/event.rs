//! What the server's answers say.

use std::borrow::Cow;

use super::{ExecId, Tally};
use crate::backend::{Origin, Report, Status};

/// Something that the server's answers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An execution ended.
    Finished(ExecId, End),
    /// The server completed a statement that nobody announced: its command words.
    Unannounced(End),
    /// The transaction failed outside of any execution: a Parse or Bind was turned down, or the
    /// commit at Sync (a deferred constraint).
    TransactionFailed(Report),
    /// The server is ready for the next query.
    Ready(Status),
    /// A parameter has a new value.
    Parameter {
        /// Its name.
        name: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// The server is ending the session.
    Fatal(Report),
}

/// How one execution ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Outcome.
    pub how: How,
    /// Words of the command tag.
    pub command: Cow<'static, str>,
    /// Rows of the command tag, or rows seen if it names none.
    pub rows: Option<u64>,
    /// Bytes of DataRow and CopyData bodies.
    pub bytes: u64,
    /// Where its result columns come from, if the server has described them for this execution.
    pub origins: Vec<Origin>,
    /// The server's error, if there was one.
    pub report: Option<Box<Report>>,
}

/// Outcome of one execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Completed.
    Ok,
    /// The server reported an error.
    Error,
    /// It never ran, since something before it failed.
    Skipped,
    /// Its end was not seen.
    Lost,
}

impl End {
    pub(super) fn new(how: How, tally: Tally) -> Self {
        Self {
            how,
            command: Cow::default(),
            rows: None,
            bytes: tally.bytes,
            origins: Vec::new(),
            report: None,
        }
    }
}
