//! What is not there any more, and the signed records that say why.

use std::collections::BTreeMap;

use super::report::Classes;
use crate::journal::Values;
use crate::record::{Entry, Record, Seal, Seals, Seq};
use crate::retention::Deed;

/// What an erased value says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Gap {
    /// The record that is said to say why.
    by: Seq,
    segment: u64,
}

/// The records whose values are gone for one reason from one segment.
#[derive(Debug, Clone, Copy)]
struct Gone {
    first: Seq,
    last: Seq,
    values: Values,
}

/// Gathers both while the journal is read: a reason comes later than what it explains.
#[derive(Debug, Default)]
pub(super) struct Explained {
    gone: BTreeMap<Gap, Gone>,
    /// Records by the reasons for which some of their values are gone.
    records: BTreeMap<Vec<Seq>, u64>,
    /// What was done, with its place in the tree.
    deeds: BTreeMap<Seq, (Deed, u64)>,
}

impl Explained {
    /// An entry about record `seq` has seals of its own.
    pub(super) fn sealed(&mut self, segment: u64, seq: Seq, entry: &Entry, seals: &Seals, counts: bool) {
        let reasons = seals.reasons();
        for by in &reasons {
            let gone = self.gone.entry(Gap { by: *by, segment }).or_insert(Gone {
                first: seq,
                last: seq,
                values: Values::NONE,
            });
            (gone.first, gone.last) = (gone.first.min(seq), gone.last.max(seq));
            gone.values = gone.values.with(erased(seals, *by));
        }
        if counts && !reasons.is_empty() && matches!(entry, Entry::Record(_)) {
            *self.records.entry(reasons).or_default() += 1;
        }
    }

    /// A record that may say why; `leaf` is its place in the tree, if that is known.
    pub(super) fn record(&mut self, seq: Seq, record: &Record, leaf: Option<u64>) {
        if let (Ok(Some(deed)), Some(leaf)) = (Deed::of(record), leaf) {
            self.deeds.insert(seq, (deed, leaf));
        }
    }

    /// The first value that is gone without a record that says why and is among the first `signed` leaves:
    /// its segment, and a sentence.
    pub(super) fn unexplained(&self, signed: u64) -> Option<(u64, Seq, String)> {
        let unexplained = self.gone.iter().filter(|(gap, gone)| !self.explains(gap, gone, signed));
        let (gap, gone) = unexplained.min_by_key(|(gap, gone)| (gap.segment, gone.first))?;
        let reason = format!(
            "{} of records {} to {} are gone, and record {} does not say so, or is not signed",
            gone.values, gone.first, gone.last, gap.by
        );
        Some((gap.segment, gone.first, reason))
    }

    fn explains(&self, gap: &Gap, gone: &Gone, signed: u64) -> bool {
        match self.deeds.get(&gap.by).filter(|(_, leaf)| *leaf < signed) {
            Some((Deed::Texts { segment, .. }, _)) => *segment == gap.segment,
            Some((Deed::Values { seq, values, .. }, _)) => {
                (gone.first, gone.last) == (*seq, *seq) && gone.values.without(*values).is_empty()
            }
            _ => false,
        }
    }

    /// Whether a signed record says that the segments before `floor`, the first there is, were dropped; it
    /// begins with record `first`.
    pub(super) fn explains_floor(&self, floor: u64, first: Seq, signed: u64) -> bool {
        self.deeds.values().any(|(deed, leaf)| match deed {
            Deed::Records { through, last, .. } => {
                *leaf < signed && *through + 1 >= floor && last.0 + 1 >= first.0
            }
            _ => false,
        })
    }

    /// How many records are kept in which class; `all` were read, those before `first` were dropped.
    pub(super) fn classes(&self, all: u64, first: Seq) -> Classes {
        let texts = |by: &Seq| matches!(self.deeds.get(by), Some((Deed::Texts { .. }, _)));
        let by_rule = |reasons: &&Vec<Seq>| reasons.iter().any(texts);
        let count = |rule: bool| {
            let those = self.records.iter().filter(|(reasons, _)| by_rule(reasons) == rule);
            those.map(|(_, count)| count).sum::<u64>()
        };
        let (metadata, erased) = (count(true), count(false));
        Classes {
            full: all.saturating_sub(metadata + erased),
            metadata,
            erased,
            dropped: first.0.saturating_sub(1),
        }
    }
}

/// The values that are gone for one reason.
fn erased(seals: &Seals, by: Seq) -> Values {
    let gone = |seal: &Seal| matches!(seal, Seal::Erased { by: own, .. } if *own == by);
    Values::chosen(|value| seals.0.get(value as usize).is_some_and(gone))
}
