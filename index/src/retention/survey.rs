//! What a segment holds, by class and by hold.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Holds, RetentionError};
use crate::journal::{
    Archive, JournalError, Partition, Position, Reader, SeqSet, Values, file_name, next_sealed, open_sealed,
};
use crate::proof::leaf::Erasable;
use crate::record::{Completion, Entry, Event, Record, Seq, TxnOutcome};
use crate::storage::Storage;
use crate::view;

/// Ends are looked for in so many segments behind; what has not ended by then counts as held, for now.
const SEGMENTS_BEHIND: u64 = 4;

/// What was found in a complete segment.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// Entries that have something of their full text.
    pub texts: u64,
    /// Those of them that keep it.
    pub held_texts: u64,
    /// Records of the segment that a hold names.
    pub held_records: u64,
    /// Records that had not ended: they count as held, and are looked at again.
    pub undecided: u64,
    held: SeqSet,
}

impl Survey {
    /// Looks at a segment.
    ///
    /// # Errors
    /// It could not be read.
    pub fn of(
        storage: &Arc<dyn Storage>,
        archive: &Archive,
        partition: &Partition,
        holds: &Holds,
    ) -> Result<Self, RetentionError> {
        let mut survey = Self::default();
        if !holds.is_empty() {
            let mut open = Open {
                holds,
                archive,
                partition,
                records: HashMap::new(),
                held: SeqSet::default(),
                failed: None,
            };
            entries(storage, partition.segment, |own, entry| open.take(own, entry))?;
            open.look_behind(storage)?;
            survey.undecided = open.records.len() as u64;
            survey.held = open.finish()?;
        }
        if let Some(end) = partition.end.filter(|end| *end > partition.first) {
            survey.held_records = survey.held.count_within(&(partition.first..=Seq(end.0 - 1)));
        }
        let (mut texts, mut held_texts) = (0, 0);
        entries(storage, partition.segment, |own, entry| {
            let has = u64::from(!full_text(entry).in_entry(entry).is_empty());
            texts += has;
            held_texts += if survey.holds(own, entry) { has } else { 0 };
        })?;
        (survey.texts, survey.held_texts) = (texts, held_texts);
        Ok(survey)
    }

    /// Whether an entry is about a record that is held.
    pub fn holds(&self, own: Option<Seq>, entry: &Entry) -> bool {
        match entry {
            Entry::Record(_) => own.is_some_and(|own| self.held.contains(own)),
            Entry::Completion(end) => self.held.contains(end.seq),
            Entry::Settlement(_) => false,
        }
    }
}

/// Which of an entry's values are its full text.
pub fn full_text(entry: &Entry) -> Values {
    match entry {
        Entry::Record(record) => match record.event {
            // What somebody asked for is a text like a statement.
            Event::AuditSearch | Event::AuditExport => {
                Values::of(&[Erasable::Sql, Erasable::Params, Erasable::Detail])
            }
            // They say what was dropped, and why.
            Event::Retention | Event::AuditErase => Values::NONE,
            _ if view::is_statement(record) => {
                Values::of(&[Erasable::Sql, Erasable::Params, Erasable::Error])
            }
            // A login's or a refusal's error is our own sentence.
            _ => Values::of(&[Erasable::Sql, Erasable::Params]),
        },
        Entry::Completion(_) => Values::of(&[Erasable::Error]),
        Entry::Settlement(_) => Values::NONE,
    }
}

/// Shows every entry of a complete segment, records with their numbers.
pub(super) fn entries(
    storage: &Arc<dyn Storage>,
    segment: u64,
    mut see: impl FnMut(Option<Seq>, &Entry),
) -> Result<(), JournalError> {
    let (mut scan, _) = open_sealed(&**storage, segment, &file_name(segment))?;
    while let Some(frame) = next_sealed(&mut scan)? {
        let mut seq = frame.first;
        for entry in frame.items.iter().filter_map(crate::journal::Item::entry) {
            let own = matches!(entry, Entry::Record(_)).then_some(seq);
            seq.0 += u64::from(own.is_some());
            see(own, entry);
        }
    }
    Ok(())
}

/// Records that have not ended, while a segment is read: a hold may ask how they did.
struct Open<'a> {
    holds: &'a Holds,
    archive: &'a Archive,
    partition: &'a Partition,
    records: HashMap<Seq, (Record, Option<Completion>)>,
    held: SeqSet,
    /// What could not be read: without it nobody knows what is held.
    failed: Option<JournalError>,
}

impl Open<'_> {
    fn take(&mut self, own: Option<Seq>, entry: &Entry) {
        match entry {
            Entry::Record(record) => {
                let Some(seq) = own else { return };
                match record.done.as_ref().map(|done| done.txn_outcome) {
                    None | Some(TxnOutcome::Open) => _ = self.records.insert(seq, ((**record).clone(), None)),
                    Some(txn) => self.decide(seq, record, None, txn),
                }
            }
            Entry::Completion(end) => self.end(end),
            Entry::Settlement(settled) => {
                for seq in &settled.seqs {
                    if let Some((record, end)) = self.records.remove(seq) {
                        self.decide(*seq, &record, end.as_ref(), settled.txn_outcome);
                    }
                }
            }
        }
    }

    fn end(&mut self, end: &Completion) {
        let record = match self.records.remove(&end.seq) {
            Some((record, _)) => record,
            // Its record lies in a segment before.
            None if end.seq < self.partition.first => match self.earlier(end.seq) {
                Ok(Some(record)) => record,
                Ok(None) => return,
                Err(error) => {
                    self.failed.get_or_insert(error);
                    return;
                }
            },
            None => return,
        };
        if end.txn_outcome == TxnOutcome::Open {
            self.records.insert(end.seq, (record, Some(end.clone())));
        } else {
            self.decide(end.seq, &record, Some(end), end.txn_outcome);
        }
    }

    /// A record of a segment before; none if that was dropped, with everything that a hold could go by.
    fn earlier(&self, seq: Seq) -> Result<Option<Record>, JournalError> {
        let Some((at, index)) = self.archive.find(seq)? else { return Ok(None) };
        match self.archive.entry(at, index)? {
            (_, Entry::Record(record)) => Ok(Some(*record)),
            _ => Ok(None),
        }
    }

    fn decide(&mut self, seq: Seq, record: &Record, end: Option<&Completion>, txn: TxnOutcome) {
        let mut view = view::merged(record, seq, end, None);
        view::settle(&mut view, txn);
        if self.holds.hold(&view) {
            self.held.insert(seq);
        }
    }

    /// Looks for the ends of what is left, a few segments further.
    fn look_behind(&mut self, storage: &Arc<dyn Storage>) -> Result<(), JournalError> {
        if self.records.is_empty() {
            return Ok(());
        }
        let start = Position { segment: self.partition.segment + 1, offset: 0 };
        let mut reader = Reader::open(Arc::clone(storage), Some(start))?;
        while let Some(frame) = reader.next_frame()? {
            if self.records.is_empty() || frame.at.segment > self.partition.segment + SEGMENTS_BEHIND {
                break;
            }
            for (_, entry) in &frame.entries {
                match entry {
                    Entry::Completion(end) if self.records.contains_key(&end.seq) => self.end(end),
                    Entry::Settlement(_) => self.take(None, entry),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// What has not ended counts as held.
    fn finish(mut self) -> Result<SeqSet, JournalError> {
        for seq in self.records.keys() {
            self.held.insert(*seq);
        }
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.held),
        }
    }
}
