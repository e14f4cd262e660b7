//! Catalogs by upstream and database. Bounded; the caller loads, this only remembers.

use std::sync::Arc;
use std::time::Duration;

use super::Schema;

/// Which database a catalog describes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The upstream's configured name.
    pub upstream: Box<str>,
    /// The database in it.
    pub database: Box<str>,
}

/// Catalogs of the databases in use.
#[derive(Debug, Clone)]
pub struct Cache {
    known: moka::sync::Cache<Place, Arc<Schema>>,
}

impl Cache {
    /// Remembers at most `databases` catalogs, each for at most `refresh` after it was put in.
    #[must_use]
    pub fn new(databases: u64, refresh: Duration) -> Self {
        let known = moka::sync::Cache::builder().max_capacity(databases).time_to_live(refresh).build();
        Self { known }
    }

    /// The catalog of a database, if it is still fresh.
    #[must_use]
    pub fn get(&self, place: &Place) -> Option<Arc<Schema>> {
        self.known.get(place)
    }

    /// Puts a newly loaded catalog in. An unchanged one keeps its old value, so that what hangs on it stays valid.
    pub fn put(&self, place: Place, schema: Schema) -> Arc<Schema> {
        let old = self.known.get(&place).filter(|old| old.digest() == schema.digest());
        let kept = old.unwrap_or_else(|| Arc::new(schema));
        self.known.insert(place, Arc::clone(&kept));
        kept
    }

    /// Forgets a catalog, because the database has changed.
    pub fn forget(&self, place: &Place) {
        self.known.invalidate(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_catalog_keeps_its_value_and_a_forgotten_one_is_gone() {
        let cache = Cache::new(2, Duration::from_secs(60));
        let place = Place { upstream: "main".into(), database: "shop".into() };
        assert!(cache.get(&place).is_none());
        let first = cache.put(place.clone(), Schema::default());
        let second = cache.put(place.clone(), Schema::default());
        assert!(Arc::ptr_eq(&first, &second));
        cache.forget(&place);
        assert!(cache.get(&place).is_none());
    }
}
