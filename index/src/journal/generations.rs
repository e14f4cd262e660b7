//! A bounded map that forgets what was not asked for lately: two generations, the older of which is
//! dropped when the younger is full.

use std::collections::HashMap;
use std::hash::Hash;

use rustc_hash::FxBuildHasher;

/// How much one generation holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Most values.
    pub(super) values: usize,
    /// Most bytes, as told by whoever puts values in.
    pub(super) bytes: usize,
}

/// For what segments define.
pub(super) const DEFINITIONS: Bounds = Bounds { values: 8192, bytes: 8 << 20 };

/// See the module's description. Keys must not be of an outsider's choice: their hash has no secret.
pub(super) struct Generations<K, V> {
    bounds: Bounds,
    young: HashMap<K, (V, usize), FxBuildHasher>,
    old: HashMap<K, (V, usize), FxBuildHasher>,
    bytes: usize,
}

impl<K: Eq + Hash, V> Generations<K, V> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, young: HashMap::default(), old: HashMap::default(), bytes: 0 }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<&mut V> {
        if !self.young.contains_key(key) {
            let (key, (value, bytes)) = self.old.remove_entry(key)?;
            self.insert(key, value, bytes);
        }
        self.young.get_mut(key).map(|(value, _)| value)
    }

    pub(super) fn insert(&mut self, key: K, value: V, bytes: usize) {
        if self.young.len() >= self.bounds.values || self.bytes >= self.bounds.bytes {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.young.insert(key, (value, bytes));
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.bounds);
    }
}
