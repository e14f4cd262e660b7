//! Relations that only the session sees: its temporary ones, and those that its open transaction has made, changed or
//! dropped. What a statement does to them is read from its text, so that the next one can be read before the server
//! has told anybody else.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::catalog::{Relation, Schema, quoted};

/// Oids from here on are ours: no server gives them before it has given four billion others.
const OIDS: u32 = 0xFFF0_0000;

/// What a name means to the session alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Becomes {
    /// This relation.
    Known(Arc<Relation>),
    /// A relation whose columns are not known.
    Opaque,
    /// Nothing: it was dropped, moved or renamed.
    Gone,
}

/// What a statement gives a name to mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The schema; `pg_temp` for temporary relations.
    pub schema: String,
    /// The relation; empty for the schema itself.
    pub name: String,
    /// What it is afterwards.
    pub becomes: Becomes,
    /// Only until the transaction ends: everybody sees it then, or nobody.
    pub until_commit: bool,
}

/// The relations that only one session sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Own {
    found: BTreeMap<(String, String), (Becomes, bool)>,
}

impl Own {
    /// How many names mean something of their own here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Applies what a statement did.
    pub fn apply(&mut self, change: &Change) {
        let place = (change.schema.clone(), change.name.clone());
        if change.becomes == Becomes::Gone && change.schema == TEMP {
            self.found.remove(&place);
        } else {
            self.found.insert(place, (change.becomes.clone(), change.until_commit));
        }
    }

    /// The transaction ended: forgets what was for it alone.
    pub fn end_transaction(&mut self) {
        self.found.retain(|_, (_, until_commit)| !*until_commit);
    }

    /// Whether something is for the open transaction alone.
    #[must_use]
    pub fn ends_with_transaction(&self) -> bool {
        self.found.values().any(|(_, until_commit)| *until_commit)
    }

    /// Forgets the temporary relations.
    pub fn discard_temporary(&mut self) {
        self.found.retain(|(schema, _), _| schema != TEMP);
    }

    /// Whether a schema is known by what the session made: it, or something in it.
    #[must_use]
    pub fn has_schema(&self, schema: &str) -> bool {
        let all = self.found.range((schema.to_owned(), String::new())..);
        all.take_while(|((known, _), _)| known == schema).any(|(_, (becomes, _))| *becomes != Becomes::Gone)
    }

    /// Whether a relation that others may see is gone for the session.
    #[must_use]
    pub fn is_gone(&self, schema: &str, name: &str) -> bool {
        matches!(self.get(schema, name), Some((Becomes::Gone, _)))
    }

    /// Those whose columns are known.
    pub(crate) fn relations(&self) -> impl Iterator<Item = &Relation> {
        self.found.values().filter_map(|(becomes, _)| match becomes {
            Becomes::Known(relation) => Some(&**relation),
            _ => None,
        })
    }

    /// Everything that a reading may depend on, as bytes that differ when it differs.
    pub fn digest(&self, mut take: impl FnMut(&[u8])) {
        for ((schema, name), (becomes, until_commit)) in &self.found {
            let kind = match becomes {
                Becomes::Known(_) => 0,
                Becomes::Opaque => 1,
                Becomes::Gone => 2,
            };
            take(&[0xFF, kind, u8::from(*until_commit)]);
            let mut part = |text: &str| {
                take(&(text.len() as u64).to_le_bytes());
                take(text.as_bytes());
            };
            part(schema);
            part(name);
            if let Becomes::Known(relation) = becomes {
                part(&format!("{:?} {:?} {:?}", relation.oid, relation.kind, relation.bases));
                part(&format!("{:?}", relation.origins));
                part(&format!("{:?} {:?} {:?}", relation.parents, relation.triggers, relation.policies));
                part(&format!("{:?} {:?} {:?}", relation.constraints, relation.rules, relation.calls));
                relation.columns.iter().for_each(|column| part(&column.name));
            }
        }
    }

    fn get(&self, schema: &str, name: &str) -> Option<&(Becomes, bool)> {
        if self.found.is_empty() {
            return None;
        }
        self.found.get(&(schema.to_owned(), name.to_owned()))
    }

    fn by_oid(&self, oid: u32) -> Option<&Relation> {
        self.relations().find(|relation| relation.oid == oid)
    }

    /// The name of a column of one of them.
    #[must_use]
    pub fn column(&self, oid: u32, number: i16) -> Option<String> {
        let relation = self.by_oid(oid)?;
        Some(format!("{}.{}", relation.full_name(), quoted(relation.column_name(number)?)))
    }

    /// An oid for a new relation.
    fn free_oid(&self) -> u32 {
        let taken = self.found.values().filter_map(|(becomes, _)| match becomes {
            Becomes::Known(relation) if relation.oid >= OIDS => Some(relation.oid),
            _ => None,
        });
        taken.max().map_or(OIDS, |last| last.saturating_add(1))
    }
}

/// The schema of temporary relations, by the name that every session calls its own.
pub(crate) const TEMP: &str = "pg_temp";

/// A relation by name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Seen<'a> {
    Known(&'a Relation),
    /// One of the session's own, of which the columns are not known.
    Opaque {
        schema: &'a str,
    },
}

/// What names mean to a session: the database's catalog, its path, and what only it sees.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) path: &'a [String],
    pub(crate) own: &'a Own,
    /// Who asks; row security depends on it.
    pub(crate) role: Option<&'a str>,
    /// Whether triggers and rules are those of a replica.
    pub(crate) replica: bool,
}

impl<'a> Names<'a> {
    /// The relation that a possibly qualified name means.
    pub(crate) fn find(&self, name: &[String]) -> Option<Seen<'a>> {
        match name {
            [name] => lookup_order(self.path).find_map(|schema| self.inside(schema, name)),
            [schema, name] | [_, schema, name] => self.inside(schema, name),
            _ => None,
        }
    }

    /// The relation that a name means, when its columns are known.
    pub(crate) fn relation(&self, name: &[String]) -> Option<&'a Relation> {
        match self.find(name) {
            Some(Seen::Known(relation)) => Some(relation),
            _ => None,
        }
    }

    fn inside(&self, schema: &str, name: &str) -> Option<Seen<'a>> {
        let own = (!self.own.is_empty())
            .then(|| self.own.found.get_key_value(&(schema.to_owned(), name.to_owned())))
            .flatten();
        match own {
            Some((_, (Becomes::Known(relation), _))) => Some(Seen::Known(relation)),
            Some(((schema, _), (Becomes::Opaque, _))) => Some(Seen::Opaque { schema }),
            Some((_, (Becomes::Gone, _))) => None,
            None => self.schema.relation(schema, name).map(Seen::Known),
        }
    }

    pub(crate) fn by_oid(&self, oid: u32) -> Option<&'a Relation> {
        self.own.by_oid(oid).or_else(|| self.schema.by_oid(oid))
    }

    /// Whether a relation of the session's own has this name, and ends with its transaction.
    pub(crate) fn ends(&self, schema: &str, name: &str) -> bool {
        match self.own.get(schema, name) {
            Some((_, until_commit)) => *until_commit,
            None => true,
        }
    }

    pub(crate) fn free_oid(&self) -> u32 {
        self.own.free_oid()
    }
}

/// The schemas in which an unqualified relation is looked up, in order.
pub(crate) fn lookup_order(path: &[String]) -> impl Iterator<Item = &str> {
    let named = |name: &str| path.iter().any(|known| known == name);
    let temp = (!named(TEMP)).then_some(TEMP);
    let system = (!named("pg_catalog")).then_some("pg_catalog");
    temp.into_iter().chain(system).chain(path.iter().map(String::as_str))
}
