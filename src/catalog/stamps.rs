//! What has changed since a load, asked cheaply: a stamp for each object that moves when a row of it does.

use std::collections::HashMap;

use super::load::CatalogError;

/// More changed objects than this are not worth asking for one by one.
const CHANGED_MAX: usize = 2_000;

/// The state of a catalog's objects at one moment, without what they are.
///
/// A stamp is made of the transactions that wrote the object's rows (`xmin`), and how many rows there are. Rows that
/// come later have a later transaction, so a stamp stays the same only if no row came or went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamps {
    relations: HashMap<u32, Box<str>>,
    functions: HashMap<u32, Box<str>>,
    namespaces: HashMap<u32, Box<str>>,
    settings: HashMap<Box<str>, Box<str>>,
}

/// Which objects changed, came, and went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Relations that are new or changed, by oid.
    pub relations: Vec<u32>,
    /// Functions that are new or changed.
    pub functions: Vec<u32>,
    /// Relations that are gone.
    pub dropped_relations: Vec<u32>,
    /// Functions that are gone.
    pub dropped_functions: Vec<u32>,
    /// Settings at login or names of schemas are not the same.
    pub others: bool,
}

impl Stamps {
    /// A SQL statement, for a simple query as any role: what [`Stamps::read`] reads. It takes no locks, as
    /// [`super::statement`].
    #[must_use]
    pub fn statement() -> &'static str {
        include_str!("stamps.sql")
    }

    /// Reads the rows that the statement returned.
    ///
    /// # Errors
    /// When a row has another shape than the statement gives it.
    pub fn read(rows: &[Vec<Option<String>>]) -> Result<Self, CatalogError> {
        let mut stamps = Self::default();
        for (at, row) in rows.iter().enumerate() {
            let wrong = |what| CatalogError::Row { row: at, what };
            let [Some(kind), Some(name), Some(stamp)] = row.as_slice() else {
                return Err(wrong("a stamp"));
            };
            let oid = || name.parse::<u32>().map_err(|_| wrong("the oid of a stamp"));
            let stamp = stamp.as_str().into();
            match kind.as_str() {
                "relation" => stamps.relations.insert(oid()?, stamp),
                "function" => stamps.functions.insert(oid()?, stamp),
                "namespace" => stamps.namespaces.insert(oid()?, stamp),
                "setting" => stamps.settings.insert(name.as_str().into(), stamp),
                _ => return Err(wrong("the kind of a stamp")),
            };
        }
        Ok(stamps)
    }

    /// What is not as it was. `None`: so much, or a schema has another name, that everything is to be loaded.
    #[must_use]
    pub fn since(&self, older: &Self) -> Option<Changes> {
        if older.namespaces.iter().any(|(oid, name)| self.namespaces.get(oid) != Some(name)) {
            return None;
        }
        let (relations, dropped_relations) = differences(&self.relations, &older.relations);
        let (functions, dropped_functions) = differences(&self.functions, &older.functions);
        let others = self.settings != older.settings || self.namespaces != older.namespaces;
        let few = relations.len() + functions.len() <= CHANGED_MAX;
        few.then_some(Changes { relations, functions, dropped_relations, dropped_functions, others })
    }
}

impl Changes {
    /// Whether nothing has changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Oids that are new or have another stamp, and those that are gone; sorted.
fn differences(now: &HashMap<u32, Box<str>>, then: &HashMap<u32, Box<str>>) -> (Vec<u32>, Vec<u32>) {
    let mut changed: Vec<u32> =
        now.iter().filter(|(oid, stamp)| then.get(oid) != Some(stamp)).map(|(oid, _)| *oid).collect();
    let mut gone: Vec<u32> = then.keys().filter(|oid| !now.contains_key(oid)).copied().collect();
    changed.sort_unstable();
    gone.sort_unstable();
    (changed, gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamps(rows: &[[&str; 3]]) -> Stamps {
        let rows: Vec<Vec<Option<String>>> =
            rows.iter().map(|row| row.iter().map(|field| Some((*field).to_owned())).collect()).collect();
        Stamps::read(&rows).unwrap()
    }

    #[test]
    fn what_came_changed_and_went_is_told_apart() {
        let before = stamps(&[
            ["namespace", "2200", "public"],
            ["relation", "16390", "700 2/1400"],
            ["relation", "16391", "701 2/1402"],
            ["function", "16400", "702"],
        ]);
        let after = stamps(&[
            ["namespace", "2200", "public"],
            ["relation", "16390", "700 3/2110"],
            ["relation", "16395", "711 1/711"],
            ["function", "16400", "702"],
        ]);
        let changes = after.since(&before).unwrap();
        assert_eq!((changes.relations, changes.dropped_relations), (vec![16390, 16395], vec![16391]));
        assert_eq!((changes.functions, changes.dropped_functions), (vec![], vec![]));
        assert!(after.since(&after).unwrap().is_empty());
    }

    #[test]
    fn a_schema_of_another_name_asks_for_everything_and_a_new_one_does_not() {
        let before = stamps(&[["namespace", "2200", "public"]]);
        assert_eq!(stamps(&[["namespace", "2200", "old"]]).since(&before), None);
        assert_eq!(stamps(&[]).since(&before), None);
        let more = stamps(&[["namespace", "2200", "public"], ["namespace", "16400", "shop"]]);
        assert!(more.since(&before).unwrap().others);
    }

    #[test]
    fn a_row_of_another_shape_is_an_error() {
        let rows = |fields: &[&str]| vec![fields.iter().map(|field| Some((*field).to_owned())).collect()];
        assert!(Stamps::read(&rows(&["relation", "x", "1"])).is_err());
        assert!(Stamps::read(&rows(&["surprise", "1", "1"])).is_err());
        assert!(Stamps::read(&rows(&["relation", "1"])).is_err());
    }
}
