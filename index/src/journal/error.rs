//! What can go wrong, said so that somebody can act on it.

use std::io;

use super::ledger::LedgerFault;
use super::{Position, segment};
use crate::record::{Digest, Seq};

/// What is wrong with bytes on disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// The file ends within its header.
    #[error("the file ends after {bytes} bytes, within its header")]
    SegmentHeaderCut {
        /// Length of the file.
        bytes: u64,
    },
    /// The segment's header is not ours or not whole.
    #[error("the file's header is damaged")]
    SegmentHeader,
    /// The format is newer (or nonsense).
    #[error(
        "the file has format version {found}, this program reads versions up to {}",
        segment::VERSION_REWRITTEN
    )]
    Version {
        /// The version.
        found: u32,
    },
    /// The header names another segment.
    #[error("the file holds segment {found}: it was renamed or put in the place of another")]
    OtherSegment {
        /// The segment in the header.
        found: u64,
    },
    /// The file ends within a frame's fields.
    #[error("the file ends within the fields of an entry")]
    FrameHeaderCut,
    /// The file ends within a frame's payload.
    #[error("the file ends within an entry")]
    PayloadCut,
    /// A frame's fields have a wrong checksum.
    #[error("the fields of an entry are damaged")]
    FrameHeader,
    /// A frame's payload has a wrong checksum.
    #[error("the content of an entry is damaged")]
    Payload {
        /// Where the frame ends.
        end: u64,
    },
    /// A frame does not continue the chain.
    #[error("an entry does not continue the chain: expected digest {expected}, it names {found}")]
    Chain {
        /// Digest of the frame before.
        expected: Digest,
        /// Digest that the frame names.
        found: Digest,
    },
    /// A frame does not continue the chain; it names only the beginning of a digest.
    #[error("an entry does not continue the chain: it does not follow digest {expected}")]
    Link {
        /// Digest of the frame before.
        expected: Digest,
    },
    /// A frame has a wrong first number, or a wrong count.
    #[error("record {expected} was expected, the entry begins with {found}")]
    Numbers {
        /// The number due.
        expected: Seq,
        /// The number in the frame.
        found: Seq,
    },
    /// The payload is whole but cannot be read.
    #[error("the content of an entry cannot be read: {0}")]
    Malformed(&'static str),
    /// The payload contradicts what came before.
    #[error("an entry contradicts those before it: {0}")]
    Ledger(LedgerFault),
    /// The opening of a segment contradicts the segments before it.
    #[error("the beginning of the segment contradicts the segments before it")]
    Carry,
    /// A segment file is missing.
    #[error("the segment's file is missing")]
    Missing,
}

impl Flaw {
    /// What lies behind a bad frame may tell whether a crash or a damage made it: from where to look.
    /// `Err` says that no look is needed, and whether a crash can have made it.
    pub(crate) fn look_from(&self, bad: u64) -> Result<u64, CrashPossible> {
        match self {
            Flaw::SegmentHeaderCut { .. } | Flaw::FrameHeaderCut | Flaw::PayloadCut => {
                Err(CrashPossible::Yes)
            }
            Flaw::SegmentHeader | Flaw::FrameHeader => Ok(bad + 1),
            Flaw::Payload { end } => Ok(*end),
            _ => Err(CrashPossible::No),
        }
    }
}

/// Whether a crash in the middle of writing can have left a flaw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CrashPossible {
    Yes,
    No,
}

/// Why the journal could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another process writes this journal.
    #[error(
        "another process writes this journal. Stop the other gateway, or give this one a directory of its own"
    )]
    Locked,
    /// A file could not be read, made or listed.
    #[error("could not {action} {file}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// Entries could not be written. Nothing of them remains; trying again may succeed.
    #[error("could not write to segment {segment} of the journal: {source}. Nothing was kept of the entry")]
    Write {
        /// The segment.
        segment: u64,
        /// Why not.
        source: io::Error,
    },
    /// Bytes could not be made durable. Final, unless [`super::Journal::resume`] finds them on the disk.
    #[error(
        "could not sync segment {segment} of the journal: {source}. What is on disk is not known. \
         Check the disk, then restart the gateway"
    )]
    Sync {
        /// The segment.
        segment: u64,
        /// Why not.
        source: io::Error,
    },
    /// After a failed sync, what was written is not on the disk.
    #[error("a sync of the journal failed, and what was written to segment {} is missing on the disk from byte {} \
         on, after record {after}: {flaw}. Check the disk, then restart the gateway", at.segment, at.offset)]
    Lost {
        /// Where.
        at: Position,
        /// The last record before it.
        after: Seq,
        /// What is there.
        flaw: Flaw,
    },
    /// An earlier failure was final for this process.
    #[error("the journal takes no more entries: {why}. Check the disk, then restart the gateway")]
    Finished {
        /// The earlier failure.
        why: &'static str,
    },
    /// Bytes on disk are not what was written.
    #[error("the journal is damaged in segment {} at byte {}, after record {after}: {flaw}. \
         Run `pgwitness verify`, keep a copy of the directory, and restore the file", at.segment, at.offset)]
    Damaged {
        /// Where.
        at: Position,
        /// The last good record before it.
        after: Seq,
        /// What is wrong.
        flaw: Flaw,
    },
    /// A position that is not (or no longer) a boundary in this journal.
    #[error("the journal has no entry boundary at {at}: {why}. Start from the beginning")]
    NoSuchPosition {
        /// The position.
        at: Position,
        /// What is there instead.
        why: &'static str,
    },
    /// The caller's entries break a promise. Nothing was written.
    #[error("the entry was refused: {0}")]
    Refused(#[from] LedgerFault),
    /// The caller's entries are too large for one frame. Nothing was written.
    #[error("the entry was refused: {size} {unit} at once, the limit is {max}. Split it")]
    TooLarge {
        /// How many.
        size: usize,
        /// Of what.
        unit: &'static str,
        /// How many are allowed.
        max: usize,
    },
}

impl JournalError {
    /// Whether the process must end (or at least the journal be opened anew) before anything can be
    /// written again.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Sync { .. }
                | Self::Lost { .. }
                | Self::Finished { .. }
                | Self::Damaged { .. }
                | Self::Locked
        )
    }

    /// Whether the disk (or a quota) is full: writing may succeed later.
    pub fn is_disk_full(&self) -> bool {
        let (Self::Write { source, .. } | Self::Io { source, .. }) = self else { return false };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Whether the caller's entries were refused for what they say; trying again is useless.
    pub fn is_callers_fault(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::TooLarge { .. })
    }
}

/// Adds what was tried, and on what, to an error of the storage.
pub(crate) fn io_error(
    action: &'static str,
    file: impl Into<String>,
) -> impl FnOnce(io::Error) -> JournalError {
    let file = file.into();
    move |source| JournalError::Io { action, file, source }
}
