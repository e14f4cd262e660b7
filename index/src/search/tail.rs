//! The records that memory answers for: those the index does not hold yet, and those that changed
//! since it was written. For all others the index answers, so a record has one answer at any time.
//!
//! A clone is a snapshot: cheap, and not touched by what comes later.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::draft::Draft;
use super::facts::{Facts, Numbered};
use super::matches::{self, Memo};
use super::query::Node;
use crate::record::{Completion, TxnOutcome};
use crate::view::{self, View};

/// Most records in memory: those after the index, and those changed since.
pub(crate) const MAX_RECORDS: usize = 32_768;
/// Most bytes of such records.
pub(crate) const MAX_BYTES: usize = 64 << 20;
/// Records kept together, and copied together when a snapshot still has them.
const CHUNK: usize = 256;

/// A record and what is known of its end.
#[derive(Debug, Clone)]
pub(crate) enum Kept {
    /// As the journal gave it.
    Draft(Draft),
    /// As the index had it, changed since.
    Stored(View),
}

impl Kept {
    pub(crate) fn complete(&mut self, completion: Completion) {
        match self {
            Kept::Draft(draft) => draft.complete(completion),
            Kept::Stored(view) => view::complete(view, &completion),
        }
    }

    pub(crate) fn settle(&mut self, txn_outcome: TxnOutcome) {
        match self {
            Kept::Draft(draft) => draft.settle(txn_outcome),
            Kept::Stored(view) => view::settle(view, txn_outcome),
        }
    }

    /// Whether the end, or that of its transaction, is still to come.
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Kept::Draft(draft) => draft.is_open(),
            Kept::Stored(view) => view::is_running(view) || view::is_open(view),
        }
    }

    /// About how many bytes it holds in memory.
    fn weight(&self) -> usize {
        const FIELDS: usize = 4_096;
        match self {
            Kept::Draft(draft) => draft.weight(),
            Kept::Stored(view) => FIELDS + view.get("sql").and_then(Value::as_str).map_or(0, str::len),
        }
    }
}

/// A record in memory, and its number.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) seq: u64,
    pub(crate) kept: Arc<Kept>,
}

impl Held {
    pub(crate) fn view(&self) -> View {
        match &*self.kept {
            Kept::Draft(draft) => draft.view(self.seq),
            Kept::Stored(view) => view.clone(),
        }
    }

    pub(crate) fn matches(&self, node: &Node, memo: &mut Memo) -> bool {
        self.with_facts(|facts| matches::matches(node, facts, memo))
    }

    pub(crate) fn with_facts<T>(&self, look: impl FnOnce(&dyn Facts) -> T) -> T {
        match &*self.kept {
            Kept::Draft(draft) => look(&Numbered(self.seq, draft)),
            Kept::Stored(view) => look(view),
        }
    }

    fn has_id(&self, id: Uuid) -> bool {
        match &*self.kept {
            Kept::Draft(draft) => draft.record().id == id,
            Kept::Stored(view) => {
                view.get("id").and_then(Value::as_str).and_then(|text| text.parse().ok()) == Some(id)
            }
        }
    }
}

/// The records in memory, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail {
    /// Those after the index.
    fresh: VecDeque<Arc<Vec<Held>>>,
    /// Those that the index holds in an older state.
    late: Arc<BTreeMap<u64, Arc<Kept>>>,
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
        let held = Held { seq, kept: Arc::new(Kept::Draft(draft)) };
        self.bytes += held.kept.weight();
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
    pub(crate) fn insert_late(&mut self, seq: u64, kept: Kept) {
        self.bytes += kept.weight();
        self.len += 1;
        Arc::make_mut(&mut self.late).insert(seq, Arc::new(kept));
    }

    /// Changes a record; whether it is here.
    pub(crate) fn change(&mut self, seq: u64, change: &mut dyn FnMut(&mut Kept)) -> bool {
        if self.late.contains_key(&seq) {
            let late = Arc::make_mut(&mut self.late);
            late.get_mut(&seq).into_iter().for_each(|kept| change(Arc::make_mut(kept)));
            return true;
        }
        let Some((chunk, index)) = self.find(seq) else { return false };
        let held = self.fresh.get_mut(chunk).and_then(|chunk| Arc::make_mut(chunk).get_mut(index));
        held.into_iter().for_each(|held| change(Arc::make_mut(&mut held.kept)));
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
        if let Some(kept) = self.late.get(&seq) {
            return Some(Held { seq, kept: Arc::clone(kept) });
        }
        let (chunk, index) = self.find(seq)?;
        self.fresh.get(chunk)?.get(index).cloned()
    }

    pub(crate) fn get_id(&self, id: Uuid) -> Option<Held> {
        self.newest_first().find(|held| held.has_id(id))
    }

    /// All, newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = Held> + '_ {
        let fresh = self.fresh.iter().rev().flat_map(|chunk| chunk.iter().rev().cloned());
        fresh.chain(self.late.iter().rev().map(|(seq, kept)| Held { seq: *seq, kept: Arc::clone(kept) }))
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
        let ended = held.enumerate().take_while(|(index, held)| *index < old || !held.kept.is_open());
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
                Some(now) if !Arc::ptr_eq(&now.kept, &held.kept) => _ = late.insert(now.seq, now.kept),
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
        let weights = self.newest_first().map(|held| held.kept.weight());
        (self.len, self.bytes) = weights.fold((0, 0), |(len, bytes), weight| (len + 1, bytes + weight));
    }
}
