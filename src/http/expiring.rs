//! A bounded map of secrets to values that end by themselves.
//!
//! Secrets are kept as SHA-256, so a copy of our memory signs nobody in, and a lookup's time says
//! nothing about a secret. At the bound, the value that would end first makes room.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

type Key = [u8; 32];

/// See the module.
pub(super) struct Expiring<V> {
    values: Mutex<HashMap<Key, (Instant, V)>>,
    max: usize,
}

impl<V: Clone> Expiring<V> {
    /// Keeps at most `max` values.
    pub(super) fn new(max: usize) -> Self {
        Self { values: Mutex::new(HashMap::new()), max }
    }

    /// Keeps a value for `life`.
    pub(super) fn insert(&self, secret: &str, value: V, life: Duration) {
        let now = Instant::now();
        let mut values = self.lock();
        if values.len() >= self.max {
            values.retain(|_, (end, _)| *end > now);
        }
        if values.len() >= self.max
            && let Some(first) = values.iter().min_by_key(|(_, (end, _))| *end).map(|(key, _)| *key)
        {
            values.remove(&first);
        }
        values.insert(key(secret), (now + life, value));
    }

    /// The value, if it has not ended.
    pub(super) fn get(&self, secret: &str) -> Option<V> {
        let values = self.lock();
        values.get(&key(secret)).filter(|(end, _)| *end > Instant::now()).map(|(_, value)| value.clone())
    }

    /// The value, if it has not ended; nobody gets it again.
    pub(super) fn take(&self, secret: &str) -> Option<V> {
        let (end, value) = self.lock().remove(&key(secret))?;
        (end > Instant::now()).then_some(value)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, (Instant, V)>> {
        // No code that holds the lock can leave the map half changed.
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(secret: &str) -> Key {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn a_value_is_found_until_taken_or_ended() {
        let map = Expiring::new(4);
        map.insert("a", 1, LONG);
        map.insert("b", 2, Duration::ZERO);
        assert_eq!((map.get("a"), map.get("b")), (Some(1), None));
        assert_eq!((map.take("a"), map.take("a")), (Some(1), None));
    }

    #[test]
    fn at_the_bound_the_first_to_end_makes_room() {
        let map = Expiring::new(2);
        map.insert("long", 1, LONG);
        map.insert("short", 2, Duration::from_secs(60));
        map.insert("new", 3, LONG);
        assert_eq!((map.get("long"), map.get("short"), map.get("new")), (Some(1), None, Some(3)));
    }
}
