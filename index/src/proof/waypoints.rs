//! Places in the journal whose place in the tree is known, so that a proof does not read a segment from its
//! beginning. In memory alone: whoever follows the journal, or reads through it, leaves them behind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::journal::Position;

/// Leaves between two of them.
const EVERY: u64 = 1024;
/// Most of them at one time: beyond, all are forgotten, and are left behind again.
const WAYPOINTS_MAX: usize = 1 << 16;

/// A boundary between frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waypoint {
    pub(super) at: Position,
    /// Leaves before it.
    pub(super) leaf: u64,
    /// The first record behind it has at least this number.
    pub(super) seq: u64,
}

/// Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Waypoints(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    by_leaf: BTreeMap<u64, Waypoint>,
    /// Leaves, by the record behind.
    by_seq: BTreeMap<u64, u64>,
}

impl Waypoints {
    /// Leaves one behind, if none is near.
    pub(super) fn pass(&self, waypoint: Waypoint) {
        let mut known = self.known();
        let near = known.by_leaf.range(..=waypoint.leaf).next_back().map(|(leaf, _)| *leaf);
        if near.is_some_and(|near| waypoint.leaf - near < EVERY) {
            return;
        }
        if known.by_leaf.len() >= WAYPOINTS_MAX {
            *known = Known::default();
        }
        known.by_seq.insert(waypoint.seq, waypoint.leaf);
        known.by_leaf.insert(waypoint.leaf, waypoint);
    }

    /// The last one at or before a leaf.
    pub(super) fn before_leaf(&self, leaf: u64) -> Option<Waypoint> {
        self.known().by_leaf.range(..=leaf).next_back().map(|(_, waypoint)| *waypoint)
    }

    /// The last one before a record.
    pub(super) fn before_record(&self, seq: u64) -> Option<Waypoint> {
        let known = self.known();
        let (_, leaf) = known.by_seq.range(..=seq).next_back()?;
        known.by_leaf.get(leaf).copied()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Both maps are of use alone.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
