//! The records that memory answers for: those the index does not hold yet, and those that changed
//! since it was written. For all others the index answers, so a record has one answer at any time.
//!
//! A clone is a snapshot: cheap, and not touched by what comes later.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use super::draft::Draft;
use super::facts::Numbered;
use super::matches::{self, Memo};
use super::query::Node;
use crate::view::View;

/// Most records in memory: those after the index, and those changed since.
pub(crate) const MAX_RECORDS: usize = 32_768;
/// Most bytes of such records.
pub(crate) const MAX_BYTES: usize = 64 << 20;
/// Records kept together, and copied together when a snapshot still has them.
const CHUNK: usize = 256;

/// A record in memory, and its number.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) seq: u64,
    pub(crate) draft: Arc<Draft>,
}

impl Held {
    pub(crate) fn view(&self) -> View {
        self.draft.view(self.seq)
    }

    pub(crate) fn matches(&self, node: &Node, memo: &mut Memo) -> bool {
        matches::matches(node, &self.facts(), memo)
    }

    pub(crate) fn facts(&self) -> Numbered<'_> {
        Numbered(self.seq, &self.draft)
    }
}

/// The records in memory, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail {
    /// Those after the index.
    fresh: VecDeque<Arc<Vec<Held>>>,
    /// Those that the index holds in an older state.
    late: Arc<BTreeMap<u64, Arc<Draft>>>,
    len: usize,
    bytes: usize,
}

impl Tail {
    pub(crate) fn is_full(&self) -> bool {
        self.len >= MAX_RECORDS || self.bytes >= MAX_BYTES
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a record after all others.
    pub(crate) fn push(&mut self, seq: u64, draft: Draft) {
        let held = Held { seq, draft: Arc::new(draft) };
        self.bytes += held.draft.weight();
        self.len += 1;
        match self.fresh.back_mut().filter(|chunk| chunk.len() < CHUNK) {
            Some(chunk) => Arc::make_mut(chunk).push(held),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(held);
                self.fresh.push_back(Arc::new(chunk));
            }
        }
    }

    /// Adds a record that the index holds in an older state.
    pub(crate) fn insert_late(&mut self, seq: u64, draft: Draft) {
        self.bytes += draft.weight();
        self.len += 1;
        Arc::make_mut(&mut self.late).insert(seq, Arc::new(draft));
    }

    /// Changes a record; whether it is here.
    pub(crate) fn change(&mut self, seq: u64, change: &mut dyn FnMut(&mut Draft)) -> bool {
        if self.late.contains_key(&seq) {
            let late = Arc::make_mut(&mut self.late);
            late.get_mut(&seq).into_iter().for_each(|draft| change(Arc::make_mut(draft)));
            return true;
        }
        let Some((chunk, index)) = self.find(seq) else { return false };
        let held = self.fresh.get_mut(chunk).and_then(|chunk| Arc::make_mut(chunk).get_mut(index));
        held.into_iter().for_each(|held| change(Arc::make_mut(&mut held.draft)));
        true
    }

    /// Where among the fresh ones.
    fn find(&self, seq: u64) -> Option<(usize, usize)> {
        let last = |chunk: &Arc<Vec<Held>>| chunk.last().map_or(0, |held| held.seq);
        let chunk = self.fresh.partition_point(|chunk| last(chunk) < seq);
        let index = self.fresh.get(chunk)?.binary_search_by_key(&seq, |held| held.seq).ok()?;
        Some((chunk, index))
    }

    pub(crate) fn get(&self, seq: u64) -> Option<Held> {
        if let Some(draft) = self.late.get(&seq) {
            return Some(Held { seq, draft: Arc::clone(draft) });
        }
        let (chunk, index) = self.find(seq)?;
        self.fresh.get(chunk)?.get(index).cloned()
    }

    pub(crate) fn get_id(&self, id: Uuid) -> Option<Held> {
        self.newest_first().find(|held| held.draft.record().id == id)
    }

    /// All, newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = Held> + '_ {
        let fresh = self.fresh.iter().rev().flat_map(|chunk| chunk.iter().rev().cloned());
        fresh.chain(self.late.iter().rev().map(|(seq, draft)| Held { seq: *seq, draft: Arc::clone(draft) }))
    }

    /// The numbers of those that the index holds in an older state, in order.
    pub(crate) fn late(&self) -> Vec<u64> {
        self.late.keys().copied().collect()
    }

    /// The last record before the first that is open, where an open one does not hold up more than
    /// `patience` later ones; `None` if there is none.
    pub(crate) fn ended(&self, patience: usize) -> Option<u64> {
        let old = self.fresh.iter().map(|chunk| chunk.len()).sum::<usize>().saturating_sub(patience);
        let held = self.fresh.iter().flat_map(|chunk| chunk.iter());
        let ended = held.enumerate().take_while(|(index, held)| *index < old || !held.draft.is_open());
        ended.last().map(|(_, held)| held.seq)
    }

    /// Those up to `last`, newest first.
    pub(crate) fn up_to(&self, last: u64) -> Vec<Held> {
        self.newest_first().skip_while(|held| held.seq > last).collect()
    }

    /// The first record after `last`.
    pub(crate) fn first_after(&self, last: u64) -> Option<u64> {
        let chunk = self.fresh.iter().find(|chunk| chunk.last().is_some_and(|held| held.seq > last))?;
        chunk.iter().map(|held| held.seq).find(|seq| *seq > last)
    }

    /// The index holds `written` now, and so all records up to `last`. What changed meanwhile stays.
    pub(crate) fn forget(&mut self, written: &[Held], last: u64) {
        let mut late = BTreeMap::clone(&self.late);
        for held in written {
            match self.get(held.seq) {
                Some(now) if !Arc::ptr_eq(&now.draft, &held.draft) => _ = late.insert(now.seq, now.draft),
                _ => _ = late.remove(&held.seq),
            }
        }
        self.late = Arc::new(late);
        while self.fresh.front().is_some_and(|chunk| chunk.last().is_some_and(|held| held.seq <= last)) {
            self.fresh.pop_front();
        }
        if let Some(chunk) = self.fresh.front_mut()
            && chunk.first().is_some_and(|held| held.seq <= last)
        {
            *chunk = Arc::new(chunk.iter().filter(|held| held.seq > last).cloned().collect());
        }
        let weights = self.newest_first().map(|held| held.draft.weight());
        (self.len, self.bytes) = weights.fold((0, 0), |(len, bytes), weight| (len + 1, bytes + weight));
    }
}
