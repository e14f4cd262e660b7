//! A set of sequence numbers, kept as ranges: long transactions and bursts cost a few bytes.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::wire::{Input, Malformed, put_u64};
use crate::record::Seq;

/// Sorted ranges that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SeqSet {
    /// First to last, both included.
    ranges: BTreeMap<u64, u64>,
}

impl SeqSet {
    /// Adds `seq`; whether it was new.
    pub(crate) fn insert(&mut self, seq: Seq) -> bool {
        let seq = seq.0;
        let before = self.ranges.range(..=seq).next_back().map(|(&first, &last)| (first, last));
        if before.is_some_and(|(_, last)| last >= seq) {
            return false;
        }
        let first = match before {
            Some((first, last)) if last + 1 == seq => first,
            _ => seq,
        };
        let last = seq.checked_add(1).and_then(|next| self.ranges.remove(&next)).unwrap_or(seq);
        self.ranges.insert(first, last);
        true
    }

    /// Removes `seq`; whether it was there.
    pub(crate) fn remove(&mut self, seq: Seq) -> bool {
        let seq = seq.0;
        let Some((&first, &last)) = self.ranges.range(..=seq).next_back().filter(|(_, last)| **last >= seq)
        else {
            return false;
        };
        if first < seq {
            self.ranges.insert(first, seq - 1);
        } else {
            self.ranges.remove(&first);
        }
        if seq < last {
            self.ranges.insert(seq + 1, last);
        }
        true
    }

    /// How many ranges: what the set costs.
    pub(crate) fn range_count(&self) -> usize {
        self.ranges.len()
    }

    pub(crate) fn contains(&self, seq: Seq) -> bool {
        self.ranges.range(..=seq.0).next_back().is_some_and(|(_, last)| *last >= seq.0)
    }

    /// How many of the numbers lie in `range`.
    pub(crate) fn count_within(&self, range: &RangeInclusive<Seq>) -> u64 {
        let (from, to) = (range.start().0, range.end().0);
        let within = |(&first, &last): (&u64, &u64)| (last.min(to) + 1).saturating_sub(first.max(from));
        self.ranges.range(..=to).map(within).sum()
    }

    pub(crate) fn last(&self) -> Option<Seq> {
        self.ranges.last_key_value().map(|(_, &last)| Seq(last))
    }

    /// Every number, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Seq> {
        self.ranges.iter().flat_map(|(&first, &last)| (first..=last).map(Seq))
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_u64(out, self.ranges.len() as u64);
        let mut end = 0;
        for (&first, &last) in &self.ranges {
            put_u64(out, first - end);
            put_u64(out, last - first);
            end = last;
        }
    }

    pub(crate) fn get(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let wrong = Malformed("a set of record numbers is out of order");
        let mut ranges = BTreeMap::new();
        let mut end = 0_u64;
        for index in 0..input.count()? {
            let gap = input.u64()?;
            let first = end.checked_add(gap).ok_or(wrong)?;
            end = first.checked_add(input.u64()?).ok_or(wrong)?;
            if gap == 0 || (index > 0 && gap == 1) {
                return Err(wrong);
            }
            ranges.insert(first, end);
        }
        Ok(Self { ranges })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_set_behaves_like_a_set_of_numbers(steps in prop::collection::vec((any::<bool>(), 1_u64..40), 0..200)) {
            let (mut ours, mut model) = (SeqSet::default(), BTreeSet::new());
            for (add, seq) in steps {
                let changed = if add { ours.insert(Seq(seq)) } else { ours.remove(Seq(seq)) };
                let expected = if add { model.insert(seq) } else { model.remove(&seq) };
                prop_assert_eq!(changed, expected);
            }
            prop_assert_eq!(ours.iter().map(|seq| seq.0).collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(ours.count_within(&(Seq(5)..=Seq(20))), model.range(5..=20).count() as u64);
            prop_assert!((1..40).all(|seq| ours.contains(Seq(seq)) == model.contains(&seq)));
            let mut bytes = Vec::new();
            ours.put(&mut bytes);
            let mut input = Input(&bytes);
            prop_assert_eq!(SeqSet::get(&mut input), Ok(ours));
            prop_assert!(input.is_empty());
        }
    }
}
