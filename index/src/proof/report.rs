//! What verification found, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::journal::Head;

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Nothing is broken, and a given head was found.
    pub intact: bool,
    /// The first place that is not as it was written.
    pub broken: Option<Broken>,
    /// Whether a given head is part of the journal.
    pub given_head: Option<HeadCheck>,
    /// The end of what was read.
    pub head: Head,
    /// Records (in the range, if one was given, as all counts of records are).
    pub records: u64,
    /// In which class they are kept.
    pub classes: Classes,
    /// First and last of them.
    pub first_seq: Option<u64>,
    /// The last of them.
    pub last_seq: Option<u64>,
    /// Time of the first, RFC 3339.
    pub first_time: Option<String>,
    /// Time of the last, RFC 3339.
    pub last_time: Option<String>,
    /// Records by event.
    pub events: BTreeMap<&'static str, u64>,
    /// Records of statements.
    pub executions: u64,
    /// Executions by outcome; those without an end are not among them.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Executions by the outcome of their transaction; those without are not among them.
    pub transactions: BTreeMap<&'static str, u64>,
    /// Records whose end was not written (yet).
    pub open: u64,
    /// Records whose transaction's end was not written (yet).
    pub unsettled: u64,
    /// Segment files read.
    pub segments: u64,
    /// Frames read.
    pub frames: u64,
    /// Bytes read.
    pub bytes: u64,
    /// An unfinished write at the end.
    pub torn: Option<Torn>,
    /// Files that keep what earlier starts moved aside.
    pub set_aside: Vec<String>,
    /// Whether the last run ended cleanly.
    pub clean_end: bool,
    /// The tree over the entries; none if reading began behind a segment whose place in it is not known.
    pub tree: Option<TreeReport>,
}

/// The tree that follows from the journal, and what it was compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TreeReport {
    /// Leaves: one for each entry of the journal.
    pub size: u64,
    /// The root, base64.
    pub root: String,
    /// The key that the checkpoints are signed with; none if there is none.
    pub key: Option<String>,
    /// Checkpoints whose signatures and roots are right.
    pub checkpoints: u64,
    /// Tiles that are right.
    pub tiles: u64,
}

/// How many records are kept in which class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Classes {
    /// With everything that was recorded.
    pub full: u64,
    /// Without the full text, by the rule of retention.
    pub metadata: u64,
    /// Without values that somebody had erased.
    pub erased: u64,
    /// Not any more, by the rule: all before the first that is left, whatever the range.
    pub dropped: u64,
}

/// The first bad place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Number of the segment.
    pub segment: u64,
    /// Byte in its file.
    pub offset: u64,
    /// The last good record before it.
    pub after_seq: u64,
    /// What is wrong, in a sentence.
    pub reason: String,
}

/// Whether a head that was kept elsewhere is part of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadCheck {
    /// It is: nothing before it was changed.
    Found,
    /// At its place the journal is another one.
    Differs,
    /// The journal ends before it: the end was cut off, or replaced by an older copy.
    EndsBefore,
    /// The journal is broken before it.
    NotReached,
    /// A checkpoint that was not signed with the key.
    Forged,
    /// The records up to it were dropped, and with them what it could be compared with.
    Dropped,
}

/// An unfinished write at the end, as a crash (or a writer at work) leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Torn {
    /// Number of the segment.
    pub segment: u64,
    /// Byte in its file.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.intact { "the journal is intact" } else { "THE JOURNAL IS BROKEN" };
        writeln!(f, "{verdict}")?;
        if let Some(Broken { segment, offset, after_seq, reason }) = &self.broken {
            writeln!(f, "  where        segment {segment}, byte {offset}, after record {after_seq}")?;
            writeln!(f, "  what         {reason}")?;
        }
        if let Some(check) = self.given_head {
            writeln!(f, "  given head   {check}")?;
        }
        write!(f, "  records      {}", self.records)?;
        if let (Some(first), Some(last)) = (self.first_seq, self.last_seq) {
            write!(f, " (seq {first} to {last}")?;
            if let (Some(from), Some(to)) = (&self.first_time, &self.last_time) {
                write!(f, ", {from} to {to}")?;
            }
            write!(f, ")")?;
        }
        writeln!(f)?;
        let Classes { full, metadata, erased, dropped } = self.classes;
        if metadata + erased + dropped > 0 {
            writeln!(
                f,
                "  kept         {full} whole, {metadata} without their text, {erased} with values erased; {dropped} \
                 before them were dropped"
            )?;
        }
        writeln!(f, "  executions   {}{}", self.executions, Counts(&self.outcomes))?;
        if !self.transactions.is_empty() {
            writeln!(f, "  transactions{}", Counts(&self.transactions))?;
        }
        if self.open + self.unsettled > 0 {
            writeln!(
                f,
                "  not ended    {} records, and {} whose transaction has not ended",
                self.open, self.unsettled
            )?;
        }
        writeln!(
            f,
            "  read         {} segments, {} frames, {} bytes",
            self.segments, self.frames, self.bytes
        )?;
        if let Some(Torn { segment, offset, bytes }) = self.torn {
            writeln!(
                f,
                "  unfinished   {bytes} bytes at the end (segment {segment}, byte {offset}), as a crash or a \
                 running gateway leaves them"
            )?;
        }
        for name in &self.set_aside {
            writeln!(f, "  set aside    {name}, from an unfinished write before an earlier start")?;
        }
        if let Some(TreeReport { size, root, key, checkpoints, tiles }) = &self.tree {
            writeln!(
                f,
                "  tree         {size} entries, root {root}; {checkpoints} checkpoints, {tiles} tiles"
            )?;
            if let Some(key) = key {
                writeln!(f, "  signed by    {key}")?;
            }
        }
        write!(f, "  head         {}", self.head.digest)
    }
}

impl fmt::Display for HeadCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeadCheck::Found => "found: nothing before it was changed",
            HeadCheck::Differs => "at its place the journal is another one: it was written anew or replaced",
            HeadCheck::EndsBefore => {
                "the journal ends before it: the end was cut off or replaced by an older copy"
            }
            HeadCheck::NotReached => "not reached: the journal is broken before it",
            HeadCheck::Dropped => {
                "the records up to it were dropped by the rule of retention; a checkpoint could still be checked"
            }
            HeadCheck::Forged => "not signed with the key: it was changed, or is another log's",
        })
    }
}

struct Counts<'a>(&'a BTreeMap<&'static str, u64>);

impl fmt::Display for Counts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(word, count)| write!(f, "  {word} {count}"))
    }
}
