//! A bounded map that forgets what was not asked for lately: two generations, the older of which is
//! dropped when the younger is full.

use std::collections::HashMap;
use std::hash::Hash;

use rustc_hash::FxBuildHasher;

/// Most values of one generation.
const VALUES_MAX: usize = 8192;
/// Most bytes of one generation, as told by whoever puts values in.
const BYTES_MAX: usize = 8 << 20;

/// See the module's description. Keys must not be of an outsider's choice: their hash has no secret.
pub(super) struct Generations<K, V> {
    young: HashMap<K, (V, usize), FxBuildHasher>,
    old: HashMap<K, (V, usize), FxBuildHasher>,
    bytes: usize,
}

impl<K: Eq + Hash, V> Generations<K, V> {
    pub(super) fn new() -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), bytes: 0 }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<&mut V> {
        if !self.young.contains_key(key) {
            let (key, (value, bytes)) = self.old.remove_entry(key)?;
            self.insert(key, value, bytes);
        }
        self.young.get_mut(key).map(|(value, _)| value)
    }

    pub(super) fn insert(&mut self, key: K, value: V, bytes: usize) {
        if self.young.len() >= VALUES_MAX || self.bytes >= BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.young.insert(key, (value, bytes));
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }
}
