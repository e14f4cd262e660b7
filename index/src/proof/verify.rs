//! Reads the whole journal and believes nothing: checksums, chain, numbers, promises, segments.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::explained::Explained;
use super::leaf::Place;
use super::note::{Note, VerifierKey};
use super::report::{Broken, HeadCheck, Report, Torn};
use super::store::TileStore;
use super::tree_check::{Begins, TreeCheck};
use super::writer::TreeError;
use crate::journal::{
    BadOpening, Carry, CrashPossible, Flaw, Format, Frame, Head, Item, JournalError, Ledger, Partition,
    Position, Scan, SeqSet, Step, crash_possible, file_name, io_error, is_torn_name, segment_of, time_text,
};
use crate::record::{Completion, Digest, Entry, Event, Record, Seq, Timestamp, TxnOutcome};
use crate::storage::{ReadFile, Storage};

/// Bytes looked at once when the rest of a file may be nothing but zeros.
const CHUNK: usize = 256 << 10;

/// What the journal is checked against, beyond itself and what lies beside it.
#[derive(Default)]
pub struct Against {
    /// Only records in it are counted, and segments wholly before it are not read, unless a head or a
    /// checkpoint is given.
    pub range: Option<(Seq, Seq)>,
    /// A head that was kept elsewhere: the journal must contain it.
    pub head: Option<Head>,
    /// A checkpoint that was kept elsewhere: the journal must continue it.
    pub checkpoint: Option<Note>,
    /// The key that checkpoints must be signed with; else the one beside them is taken.
    pub key: Option<VerifierKey>,
    /// Where the whole log is written to for other tools, as c2sp.org/tlog-tiles has it: every tile, every
    /// entry bundle, the last checkpoint. The whole journal is read.
    pub export: Option<TileStore>,
}

/// Checks the journal in `storage`, counting a `range`, comparing with a `head`; see [`Against`].
///
/// # Errors
/// Reading failed. What is broken is in the report.
pub fn verify(
    storage: &dyn Storage,
    range: Option<(Seq, Seq)>,
    head: Option<Head>,
) -> Result<Report, TreeError> {
    verify_against(storage, Against { range, head, ..Against::default() })
}

/// Checks the journal in `storage`, and the tree beside it.
///
/// # Errors
/// Reading failed, or the export could not be written. What is broken is in the report.
pub fn verify_against(storage: &dyn Storage, against: Against) -> Result<Report, TreeError> {
    let Against { range, head, checkpoint, key, export } = against;
    let names = storage.list().map_err(io_error("list", "the journal's directory"))?;
    let segments: Vec<u64> = names.iter().filter_map(|name| segment_of(name)).collect();
    let whole = head.is_some() || checkpoint.is_some() || export.is_some();
    let floor = segments.first().copied().unwrap_or(1);
    let first = match range {
        Some((from, _)) if !whole => last_before(storage, &segments, from)?,
        _ => floor,
    };
    let begins = if first == floor { Begins::WithTheJournal } else { Begins::Within };
    let tree = TreeCheck::open(storage, first, begins, checkpoint.as_ref(), key, export)?;
    let mut walk = Walk::new(storage, range, head, first, tree);
    if floor > 1 {
        walk.floor = Partition::read(storage, floor).map_or(Seq(1), |partition| partition.first);
    }
    if let Some(&last) = segments.last() {
        for segment in first..=last {
            if !walk.segment(segment, last)? {
                break;
            }
        }
    }
    walk.finish_tree()?;
    walk.explain(floor);
    let set_aside = names.into_iter().filter(|name| is_torn_name(name)).collect();
    Ok(walk.report(set_aside))
}

/// The last segment that begins at or before record `from`; the first there is if unsure.
fn last_before(storage: &dyn Storage, segments: &[u64], from: Seq) -> Result<u64, JournalError> {
    for &segment in segments.iter().rev() {
        let name = file_name(segment);
        let file = storage.read(&name).map_err(io_error("open", &name))?;
        match Scan::open(file, segment).map_err(io_error("read", &name))? {
            Ok((_, _, opening)) if opening.first <= from => return Ok(segment),
            Ok(_) => {}
            Err(_) if Some(&segment) == segments.last() => {}
            Err(_) => break,
        }
    }
    Ok(segments.first().copied().unwrap_or(1))
}

struct Walk<'a> {
    storage: &'a dyn Storage,
    given: Option<Head>,
    given_check: Option<HeadCheck>,
    /// `None` until the first segment, if that is not segment 1.
    ledger: Option<Ledger>,
    head: Head,
    tally: Tally,
    segments: u64,
    bytes: u64,
    torn: Option<Torn>,
    broken: Option<Broken>,
    clean_end: bool,
    tree: Option<TreeCheck>,
    /// Where the tree was first seen to be another than what was published, and the last record before.
    contradicted: Option<(Position, Seq)>,
    /// Where reading is.
    at: Position,
    explained: Explained,
    /// The first record of the first segment there is.
    floor: Seq,
    /// Frames before that segment.
    frames_before: u64,
}

impl<'a> Walk<'a> {
    fn new(
        storage: &'a dyn Storage,
        range: Option<(Seq, Seq)>,
        given: Option<Head>,
        first: u64,
        tree: Option<TreeCheck>,
    ) -> Self {
        let (from, to) = range.unwrap_or((Seq(1), Seq(u64::MAX)));
        Self {
            storage,
            given,
            given_check: given.filter(|head| head.frames == 0).map(|_| HeadCheck::Found),
            ledger: (first == 1).then(Ledger::empty),
            head: Head { seq: Seq(0), frames: 0, digest: Digest::default(), time: None },
            tally: Tally::new(from..=to),
            segments: 0,
            bytes: 0,
            torn: None,
            broken: None,
            clean_end: false,
            tree,
            contradicted: None,
            at: Position { segment: first, offset: 0 },
            explained: Explained::default(),
            floor: Seq(1),
            frames_before: 0,
        }
    }

    /// Reads one segment; whether to go on.
    fn segment(&mut self, segment: u64, last: u64) -> Result<bool, TreeError> {
        let name = file_name(segment);
        let failed = |error| io_error("read", &name)(error);
        let start = Position { segment, offset: 0 };
        let file = match self.storage.read(&name) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(self.stop(start, &Flaw::Missing));
            }
            file => file.map_err(io_error("open", &name))?,
        };
        self.segments += 1;
        let (mut scan, carry, opening) = match Scan::open(file.clone(), segment).map_err(failed)? {
            Ok(opened) => opened,
            Err(BadOpening { flaw, format }) => {
                let ended = self.bad(&*file, format.as_ref(), start, &flaw, segment == last);
                return Ok(ended.map_err(failed)?);
            }
        };
        if let Err(flaw) = self.opening(&scan, &carry, &opening) {
            return Ok(self.stop(start, &flaw));
        }
        self.bytes += scan.format().header_len() + opening.len;
        loop {
            match scan.step().map_err(failed)? {
                Step::Frame(frame) => {
                    if let Err(flaw) = self.frame(&frame) {
                        return Ok(self.stop(frame.at, &flaw));
                    }
                    self.frame_in_tree(&frame)?;
                }
                Step::End => return Ok(true),
                Step::Bad(flaw) => {
                    let (format, at) = (Some(scan.format()), scan.position());
                    return Ok(self.bad(&*file, format, at, &flaw, segment == last).map_err(failed)?);
                }
            }
        }
    }

    fn opening(&mut self, scan: &Scan, carry: &Carry, opening: &Frame) -> Result<(), Flaw> {
        match &self.ledger {
            Some(ledger) => {
                let found = scan.began_after();
                if found != self.head.digest {
                    return Err(Flaw::Chain { expected: self.head.digest, found });
                }
                if ledger.next() != opening.first {
                    return Err(Flaw::Numbers { expected: ledger.next(), found: opening.first });
                }
                let same = ledger.agrees(&carry.open, &carry.unsettled);
                if !same || carry.frames != self.head.frames || carry.last_time != self.head.time {
                    return Err(Flaw::Carry);
                }
            }
            None => {
                let ledger = Ledger::carried(opening.first, carry.open.clone(), carry.unsettled.clone());
                self.head.seq = Seq(opening.first.0 - 1);
                (self.head.frames, self.head.time) = (carry.frames, carry.last_time);
                self.frames_before = carry.frames;
                self.ledger = Some(ledger);
            }
        }
        self.passed(opening);
        Ok(())
    }

    fn frame(&mut self, frame: &Frame) -> Result<(), Flaw> {
        let Some(ledger) = &mut self.ledger else { return Err(Flaw::Carry) };
        for item in &frame.items {
            let Some(entry) = item.entry() else { continue };
            let seq = ledger.next();
            if let Some(seals) = item.seals() {
                let about = if let Entry::Completion(end) = entry { end.seq } else { seq };
                let counts = self.tally.range.contains(&about);
                self.explained.sealed(frame.at.segment, about, entry, seals, counts);
            }
            ledger.apply(entry).map_err(Flaw::Ledger)?;
            if let Entry::Record(record) = entry {
                (self.head.seq, self.head.time) = (seq, Some(record.time));
            }
            self.tally.entry(seq, entry);
        }
        ledger.keep();
        self.bytes += frame.len;
        self.clean_end = matches!(frame.items.as_slice(), [Item::End]);
        self.passed(frame);
        Ok(())
    }

    /// Adds the entries of a good frame to the tree. What contradicts it does not end the walk: the chain
    /// may name a better place.
    fn frame_in_tree(&mut self, frame: &Frame) -> Result<(), TreeError> {
        let agreed = self.tree.as_ref().is_some_and(|tree| tree.fault().is_none());
        let Some(tree) = &mut self.tree else { return Ok(()) };
        let entries = frame.items.iter().filter_map(|item| Some((item.entry()?, item.seals())));
        let mut next = frame.first;
        for (index, (entry, seals)) in (0..).zip(entries) {
            let seq = matches!(entry, Entry::Record(_)).then_some(next);
            next.0 += u64::from(seq.is_some());
            if let (Some(seq), Entry::Record(record)) = (seq, entry) {
                self.explained.record(seq, record, Some(tree.size()));
            }
            tree.entry(seq, entry, &Place { salt: frame.salt, index, seals })?;
        }
        if agreed && tree.fault().is_some() {
            self.contradicted = Some((frame.at, Seq(frame.first.0 - 1)));
        }
        Ok(())
    }

    fn finish_tree(&mut self) -> Result<(), TreeError> {
        let Some(tree) = &mut self.tree else { return Ok(()) };
        tree.finish(self.broken.is_none())?;
        if let Some(fault) = tree.fault().filter(|_| self.broken.is_none()) {
            let (at, after) = self.contradicted.unwrap_or((self.at, self.head.seq));
            self.broken = Some(Broken {
                segment: at.segment,
                offset: at.offset,
                after_seq: after.0,
                reason: fault.to_owned(),
            });
        }
        Ok(())
    }

    /// What is not there any more must be said by a signed record.
    fn explain(&mut self, floor: u64) {
        let signed = self.tree.as_ref().map_or(0, TreeCheck::signed);
        if floor > 1 && !self.explained.explains_floor(floor, self.floor, signed) {
            let lost = self.tree.as_ref().filter(|tree| tree.signed() == 0).and_then(TreeCheck::fault);
            let mut reason = format!("{}, and no signed record says that it was dropped", Flaw::Missing);
            if let Some(lost) = lost {
                reason.push_str(&format!(": {lost}"));
            }
            self.broken = Some(Broken { segment: 1, offset: 0, after_seq: 0, reason });
            return;
        }
        if self.broken.is_none()
            && let Some((segment, seq, reason)) = self.explained.unexplained(signed)
        {
            self.broken = Some(Broken { segment, offset: 0, after_seq: seq.0.saturating_sub(1), reason });
        }
    }

    fn passed(&mut self, frame: &Frame) {
        self.at = frame.next;
        (self.head.frames, self.head.digest) = (self.head.frames + 1, frame.digest);
        if let Some(given) = self.given.filter(|given| given.frames == self.head.frames) {
            let same = given == self.head;
            self.given_check = Some(if same { HeadCheck::Found } else { HeadCheck::Differs });
        }
    }

    /// Something bad: the torn end of the last segment is no fault, everything else is.
    fn bad(
        &mut self,
        file: &dyn ReadFile,
        format: Option<&Format>,
        at: Position,
        flaw: &Flaw,
        last: bool,
    ) -> std::io::Result<bool> {
        // Recovery may cut off more than we call torn: here, a whole entry that is wrong is a fault.
        let cut = flaw.look_from(at.offset) == Err(CrashPossible::Yes);
        let crash = crash_possible(file, format, at.offset, flaw)? == CrashPossible::Yes;
        if last && crash && (cut || all_zero(file, at.offset)?) {
            self.clean_end = false;
            let bytes = file.len()?.saturating_sub(at.offset);
            self.torn = (bytes > 0).then_some(Torn { segment: at.segment, offset: at.offset, bytes });
            return Ok(false);
        }
        Ok(self.stop(at, flaw))
    }

    fn stop(&mut self, at: Position, flaw: &Flaw) -> bool {
        self.broken = Some(Broken {
            segment: at.segment,
            offset: at.offset,
            after_seq: self.head.seq.0,
            reason: flaw.to_string(),
        });
        false
    }

    fn report(self, set_aside: Vec<String>) -> Report {
        let given_head = self.given.map(|given| match (self.given_check, &self.broken) {
            (Some(check), _) => check,
            (None, None) if given.frames <= self.frames_before => HeadCheck::Dropped,
            (None, Some(_)) => HeadCheck::NotReached,
            (None, None) => HeadCheck::EndsBefore,
        });
        // One file is given: a head, or a checkpoint, or both of one time.
        let given_head = given_head
            .filter(|check| *check != HeadCheck::Dropped)
            .or_else(|| self.tree.as_ref().and_then(TreeCheck::given))
            .or(given_head);
        let waiting = |set: fn(&Ledger) -> &SeqSet| {
            self.ledger.as_ref().map_or(0, |ledger| set(ledger).count_within(&self.tally.range))
        };
        Report {
            intact: self.broken.is_none() && given_head.is_none_or(|check| check == HeadCheck::Found),
            open: waiting(Ledger::open),
            unsettled: waiting(Ledger::unsettled),
            broken: self.broken,
            given_head,
            head: self.head,
            records: self.tally.records,
            classes: self.explained.classes(self.tally.records, self.floor),
            first_seq: self.tally.first.map(|(seq, _)| seq.0),
            last_seq: self.tally.last.map(|(seq, _)| seq.0),
            first_time: self.tally.first.map(|(_, time)| time_text(time)),
            last_time: self.tally.last.map(|(_, time)| time_text(time)),
            events: self.tally.events,
            executions: self.tally.executions,
            outcomes: self.tally.outcomes,
            transactions: self.tally.transactions,
            segments: self.segments,
            frames: self.head.frames,
            bytes: self.bytes,
            torn: self.torn,
            set_aside,
            clean_end: self.clean_end,
            tree: self.tree.as_ref().map(TreeCheck::report),
        }
    }
}

/// Counts what lies in the range.
struct Tally {
    range: RangeInclusive<Seq>,
    records: u64,
    first: Option<(Seq, Timestamp)>,
    last: Option<(Seq, Timestamp)>,
    events: BTreeMap<&'static str, u64>,
    executions: u64,
    outcomes: BTreeMap<&'static str, u64>,
    transactions: BTreeMap<&'static str, u64>,
    /// Executions that have not ended, or whose transaction has not.
    pending: SeqSet,
}

impl Tally {
    fn new(range: RangeInclusive<Seq>) -> Self {
        Self {
            range,
            records: 0,
            first: None,
            last: None,
            events: BTreeMap::new(),
            executions: 0,
            outcomes: BTreeMap::new(),
            transactions: BTreeMap::new(),
            pending: SeqSet::default(),
        }
    }

    /// Counts an entry that the ledger accepted; `seq` is its number if it is a record.
    fn entry(&mut self, seq: Seq, entry: &Entry) {
        match entry {
            Entry::Record(record) => self.record(seq, record),
            Entry::Completion(completion) => self.ended(completion.seq, completion),
            Entry::Settlement(settlement) => {
                for &seq in &settlement.seqs {
                    self.settled(seq, settlement.txn_outcome);
                }
            }
        }
    }

    fn record(&mut self, seq: Seq, record: &Record) {
        if !self.range.contains(&seq) {
            return;
        }
        self.records += 1;
        self.first.get_or_insert((seq, record.time));
        self.last = Some((seq, record.time));
        count(&mut self.events, record.event.as_str());
        if record.event != Event::Query {
            return;
        }
        self.executions += 1;
        self.pending.insert(seq);
        if let Some(done) = &record.done {
            self.ended(seq, done);
        }
    }

    fn ended(&mut self, seq: Seq, end: &Completion) {
        if self.pending.contains(seq) {
            count(&mut self.outcomes, end.outcome.as_str());
            if end.txn_outcome != TxnOutcome::Open {
                self.settled(seq, end.txn_outcome);
            }
        }
    }

    fn settled(&mut self, seq: Seq, txn: TxnOutcome) {
        if self.pending.remove(seq) {
            count(&mut self.transactions, txn.as_str());
        }
    }
}

fn count(counts: &mut BTreeMap<&'static str, u64>, word: &'static str) {
    *counts.entry(word).or_default() += 1;
}

fn all_zero(file: &dyn ReadFile, from: u64) -> std::io::Result<bool> {
    let mut chunk = vec![0; CHUNK];
    let mut offset = from;
    loop {
        let read = file.read_at(offset, &mut chunk)?;
        if chunk.iter().take(read).any(|byte| *byte != 0) {
            return Ok(false);
        }
        if read < CHUNK {
            return Ok(true);
        }
        offset += read as u64;
    }
}
