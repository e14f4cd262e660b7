//! What CREATE, ALTER and DROP make of a relation, read from the text: so that a session's next statement can be read
//! before the catalog tells of it. What the text alone does not tell becomes a relation whose columns are not known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::catalog::{Base, Column, Constraint, Origin, Relation, RelationKind, quoted};

use super::analysis::Draft;
use super::hooks;
use super::own::{Becomes, Change, Seen, TEMP};
use super::query;
use super::touched::Col;
use super::tree as t;
use super::utility::Statement;

/// Words that begin a constraint of a table, not a column; EXCLUDE may be a column's name.
const CONSTRAINTS: &[&str] = &["constraint", "primary", "unique", "check", "foreign"];
/// Columns of a sequence.
const SEQUENCE: [&str; 3] = ["last_value", "log_cnt", "is_called"];
/// First words of what ALTER may do to a relation without a change of its columns.
const HARMLESS: &[&str] = &[
    "alter", "attach", "cluster", "detach", "disable", "force", "inherit", "no", "owner", "replica", "reset",
    "set", "validate",
];

/// A relation that comes into being.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) kind: RelationKind,
    pub(crate) temporary: bool,
    /// IF NOT EXISTS.
    pub(crate) optional: bool,
    /// ON COMMIT DROP.
    pub(crate) until_commit: bool,
    /// None when the text does not tell them.
    pub(crate) columns: Option<Vec<String>>,
    /// What a view reads.
    pub(crate) bases: Vec<Base>,
    /// Where the columns of a simple view go.
    pub(crate) origins: Vec<Origin>,
    /// What a table inherits from.
    pub(crate) parents: Vec<u32>,
    /// Its named unique and primary key constraints: name and columns.
    pub(crate) keys: Vec<(String, Vec<String>)>,
}

impl Default for Made {
    fn default() -> Self {
        Self {
            kind: RelationKind::Table,
            temporary: false,
            optional: false,
            until_commit: false,
            columns: None,
            bases: Vec::new(),
            origins: Vec::new(),
            parents: Vec::new(),
            keys: Vec::new(),
        }
    }
}

/// The columns that a view's query looks at, by relation.
pub(crate) fn bases(seen: &BTreeSet<Col>) -> Vec<Base> {
    let mut found: BTreeMap<u32, Vec<i16>> = BTreeMap::new();
    for (oid, column) in seen {
        found.entry(*oid).or_default().push(*column);
    }
    found.into_iter().map(|(oid, columns)| Base { oid, columns: columns.into() }).collect()
}

impl<'a> Statement<'a> {
    /// A relation that comes into being, for all or for this session.
    pub(crate) fn made(&self, name: &[String], made: Made, draft: &mut Draft) {
        let Some((schema, only)) = self.place_of(name, made.temporary) else { return };
        if let Some(Seen::Known(known)) = self.names().find(&[schema.clone(), only.clone()]) {
            draft.touched.tables.insert(known.oid);
            if made.optional {
                draft.followed = true;
                return;
            }
        } else {
            draft.created = Some(format!("{}.{}", quoted(&schema), quoted(&only)));
        }
        let becomes = match made.columns {
            Some(columns) => {
                let mut relation = Relation::new(self.names().free_oid(), &schema, &only, made.kind, columns);
                relation.bases = made.bases;
                relation.origins = made.origins;
                relation.parents = made.parents;
                made.keys.into_iter().for_each(|key| add_key(&mut relation, key));
                Becomes::Known(Arc::new(relation))
            }
            None => Becomes::Opaque,
        };
        let until_commit = made.until_commit || schema != TEMP;
        draft.changes.push(Change { schema, name: only, becomes, until_commit });
        draft.followed = true;
    }

    /// The schema and name of a relation that is made.
    fn place_of(&self, name: &[String], temporary: bool) -> Option<(String, String)> {
        let only = name.last()?.clone();
        let path = self.settings.search_path;
        let schema = match name {
            [_] if temporary => TEMP.to_owned(),
            [_] => path.iter().find(|space| *space != "pg_catalog" && self.exists(space))?.clone(),
            [schema, _] | [_, schema, _] => schema.clone(),
            _ => return None,
        };
        Some((schema, only))
    }

    fn exists(&self, schema: &str) -> bool {
        schema == TEMP || self.schema.has_schema(schema) || self.settings.own.has_schema(schema)
    }

    /// `CREATE SCHEMA name [AUTHORIZATION role]` and `CREATE TYPE name AS (…)`, from the name on: what is named by it can
    /// be used at once.
    pub(crate) fn place_made(&self, kind: &str, at: usize, to: usize, draft: &mut Draft) {
        if kind == "SCHEMA" {
            let by_role = usize::from(self.words.is(at, "authorization"));
            let Some(name) = self.words.name(at + by_role) else { return };
            let end = at + by_role + 1;
            let end = if self.words.is(end, "authorization") { end + 2 } else { end };
            // Its elements, if any, are read by the server alone.
            draft.followed = end >= to;
            let becomes = Becomes::Opaque;
            draft.changes.push(Change { schema: name, name: String::new(), becomes, until_commit: true });
            return;
        }
        let Some((name, next)) = self.name_at(at) else { return };
        let columns =
            self.words.is(next, "as").then(|| self.defined_columns(RelationKind::Composite, next + 1, to));
        let (Some(columns), Some((schema, name))) = (columns.flatten(), self.place_of(&name, false)) else {
            return;
        };
        let composite =
            Relation::new(self.names().free_oid(), &schema, &name, RelationKind::Composite, columns);
        let becomes = Becomes::Known(Arc::new(composite));
        draft.changes.push(Change { schema, name, becomes, until_commit: true });
    }

    /// The columns of a CREATE without a query, from behind the name.
    pub(crate) fn defined_columns(&self, kind: RelationKind, at: usize, to: usize) -> Option<Vec<String>> {
        if kind == RelationKind::Sequence {
            return Some(SEQUENCE.map(str::to_owned).to_vec());
        }
        if self.words.is(at, "partition") || self.words.is(at, "of") {
            let at = self.skip(at, &["partition", "of"]);
            return self.columns_of(at);
        }
        if !self.words.mark(at, "(") {
            return None;
        }
        let end = self.skip_group(at);
        let mut columns = Vec::new();
        if let Some(parents) = (end..to).find(|at| self.words.is(*at, "inherits")) {
            for (from, _) in self.parts(parents + 2, self.skip_group(parents + 1).saturating_sub(1)) {
                add_new(&mut columns, self.columns_of(from)?);
            }
        }
        for (from, _) in self.parts(at + 1, end.saturating_sub(1)) {
            if self.words.is(from, "like") {
                add_new(&mut columns, self.columns_of(from + 1)?);
            } else if !self.is_constraint(from) {
                add_new(&mut columns, vec![self.words.name(from)?]);
            }
        }
        Some(columns)
    }

    /// The named keys of a CREATE TABLE, from behind the name.
    pub(crate) fn defined_keys(&self, at: usize) -> Vec<(String, Vec<String>)> {
        let elements = if self.words.mark(at, "(") { self.skip_group(at).saturating_sub(1) } else { at };
        self.parts(at + 1, elements).into_iter().filter_map(|(from, to)| self.key_in(from, to)).collect()
    }

    /// A named key among the words of a column or constraint.
    fn key_in(&self, from: usize, to: usize) -> Option<(String, Vec<String>)> {
        let words = self.words;
        let is_key =
            |at: usize| words.is(at, "unique") || (words.is(at, "primary") && words.is(at + 1, "key"));
        let at = (from..to).find(|at| words.is(*at, "constraint") && is_key(at + 2))?;
        let name = words.name(at + 1)?;
        if at > from {
            return Some((name, vec![words.name(from)?]));
        }
        let columns = (at + 3..to).find(|at| words.mark(*at, "(")).map(|at| self.column_list(at))?;
        Some((name, columns))
    }

    /// Where the columns of a view over one table go, by its query: writes pass through them. Of a view that cannot be
    /// written through, it does not matter what is said.
    pub(crate) fn defined_origins(&self, from: usize, to: usize) -> Vec<Origin> {
        let parsed = query::read(self.words.between(from, to), self.settings);
        let Ok(t::Statement::Query(t::Query { with: None, body: t::Body::Select(select), .. })) = parsed
        else {
            return Vec::new();
        };
        let [t::From::Table { name, .. }] = select.from.as_slice() else { return Vec::new() };
        let Some(base) = self.relation(name) else { return Vec::new() };
        let mut found: Vec<Option<i16>> = Vec::new();
        for item in &select.items {
            match item {
                t::Item::Star | t::Item::TableStar(_) => {
                    found.extend(base.columns.iter().map(|column| Some(column.number)));
                }
                t::Item::Expr(t::Expr::Name(name), _) => {
                    let column = name.last().and_then(|name| base.column(name));
                    found.push(column.map(|column| column.number));
                }
                t::Item::Expr(..) => found.push(None),
                t::Item::ExprStar(_) => return Vec::new(),
            }
        }
        let columns = (1..).zip(found);
        let known = columns.filter_map(|(column, found)| Some((column, found?)));
        known.map(|(column, base_column)| Origin { column, base: base.oid, base_column }).collect()
    }

    /// What a CREATE without a query inherits from, from behind the name.
    pub(crate) fn defined_parents(&self, at: usize, to: usize) -> Vec<u32> {
        let oid = |at: usize| self.relation(&self.name_at(at)?.0).map(|relation| relation.oid);
        if self.words.is(at, "partition") {
            return oid(self.skip(at, &["partition", "of"])).into_iter().collect();
        }
        let end = self.skip_group(at);
        let Some(parents) = (end..to).find(|at| self.words.is(*at, "inherits")) else { return Vec::new() };
        let parents = self.parts(parents + 2, self.skip_group(parents + 1).saturating_sub(1));
        parents.into_iter().filter_map(|(from, _)| oid(from)).collect()
    }

    fn is_constraint(&self, at: usize) -> bool {
        self.words.is_any(at, CONSTRAINTS)
            || (self.words.is(at, "exclude")
                && (self.words.is(at + 1, "using") || self.words.mark(at + 1, "(")))
    }

    fn columns_of(&self, at: usize) -> Option<Vec<String>> {
        let (name, _) = self.name_at(at)?;
        let relation = self.relation(&name)?;
        Some(relation.columns.iter().map(|column| column.name.to_string()).collect())
    }

    /// The pieces between commas, outside parentheses: first token, and token behind the last.
    fn parts(&self, from: usize, to: usize) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let (mut start, mut at) = (from, from);
        while at < to {
            if self.words.mark(at, ",") {
                found.push((start, at));
                start = at + 1;
            }
            at = self.skip_group(at).max(at + 1);
        }
        if start < to {
            found.push((start, to));
        }
        found
    }

    /// `DROP … CASCADE` of something that is no relation may take columns and views along.
    pub(crate) fn cascaded(&self, draft: &mut Draft) {
        for relation in self.settings.own.relations() {
            self.change(relation, Becomes::Opaque, draft);
        }
    }

    /// What ALTER and DROP do to relations, from the first name on.
    pub(crate) fn follow(&self, verb: &str, at: usize, to: usize, draft: &mut Draft) {
        draft.followed =
            if verb == "DROP" { self.dropped(at, to, draft) } else { self.altered(at, to, draft) };
    }

    fn dropped(&self, at: usize, to: usize, draft: &mut Draft) -> bool {
        for (from, _) in self.parts(at, to) {
            let Some((name, _)) = self.name_at(from) else { return false };
            match self.names().find(&name) {
                Some(Seen::Known(relation)) => self.change(relation, Becomes::Gone, draft),
                Some(Seen::Opaque { schema }) => {
                    let name = name.last().cloned().unwrap_or_default();
                    let schema = schema.to_owned();
                    draft.changes.push(Change { schema, name, becomes: Becomes::Gone, until_commit: true });
                }
                None => {}
            }
        }
        true
    }

    fn altered(&self, at: usize, to: usize, draft: &mut Draft) -> bool {
        let Some((name, mut next)) = self.name_at(at) else { return false };
        next += usize::from(self.words.mark(next, "*"));
        let Some(Seen::Known(relation)) = self.names().find(&name) else { return false };
        let has_children = || self.schema.relations().any(|child| child.parents.contains(&relation.oid));
        let mut after = relation.clone();
        for (from, end) in self.parts(next, to) {
            if !self.alter_one(&mut after, from) {
                self.change(relation, Becomes::Opaque, draft);
                return true;
            }
            if let Some(key) = self.key_in(from + 1, end).filter(|_| self.words.is(from, "add")) {
                add_key(&mut after, key);
            }
        }
        if after == *relation {
            return true;
        }
        if &*relation.schema != TEMP && has_children() {
            return false;
        }
        if (&after.schema, &after.name) != (&relation.schema, &relation.name) {
            self.change(relation, Becomes::Gone, draft);
        }
        let until_commit = self.names().ends(&relation.schema, &relation.name);
        let (schema, name) = (after.schema.to_string(), after.name.to_string());
        draft.changes.push(Change { schema, name, becomes: Becomes::Known(Arc::new(after)), until_commit });
        for child in self.settings.own.relations().filter(|child| child.parents.contains(&relation.oid)) {
            let mut after = child.clone();
            let known = self.parts(next, to).into_iter().all(|(from, _)| {
                self.words.is(from, "set")
                    || (self.words.is(from, "rename") && self.words.is(from + 1, "to"))
                    || self.alter_one(&mut after, from)
            });
            let becomes = if known { Becomes::Known(Arc::new(after)) } else { Becomes::Opaque };
            self.change(child, becomes, draft);
        }
        true
    }

    /// One action of ALTER; false when it is not known what it does to columns.
    fn alter_one(&self, relation: &mut Relation, at: usize) -> bool {
        let words = self.words;
        if words.is(at, "rename") {
            return self.rename(relation, at + 1);
        }
        if words.is(at, "set") && words.is(at + 1, "schema") {
            let Some(schema) = words.name(at + 2) else { return false };
            *relation = relation.renamed(&schema, &relation.name);
            return true;
        }
        let column = words.is(at + 1, "column");
        let named = self.skip(at + 1, &["column", "if", "not", "exists"]);
        if words.is(at, "add") {
            if !column && self.is_constraint(named) {
                return true;
            }
            let Some(name) = words.name(named) else { return false };
            if relation.column(&name).is_none() {
                let number = relation.columns.iter().map(|column| column.number).max().unwrap_or(0) + 1;
                let name = name.into();
                relation.columns.push(Column { number, name, generated: false });
            }
            return true;
        }
        if words.is(at, "drop") {
            if let Some(name) = words.name(named).filter(|_| column || !words.is(at + 1, "constraint")) {
                relation.columns.retain(|column| *column.name != *name);
            }
            return true;
        }
        if words.is(at, "enable") {
            hooks::enabled(relation, words.is(at + 1, "row"));
            return true;
        }
        words.is_any(at, HARMLESS)
    }

    fn rename(&self, relation: &mut Relation, at: usize) -> bool {
        let words = self.words;
        if words.is(at, "constraint") {
            return true;
        }
        if words.is(at, "to") {
            let Some(name) = words.name(at + 1) else { return false };
            *relation = relation.renamed(&relation.schema, &name);
            return true;
        }
        let at = self.skip(at, &["column"]);
        let (Some(from), Some(to)) = (words.name(at), words.name(at + 2)) else { return false };
        if let Some(column) = relation.columns.iter_mut().find(|column| *column.name == *from) {
            column.name = to.into();
        }
        true
    }

    pub(crate) fn change(&self, relation: &Relation, becomes: Becomes, draft: &mut Draft) {
        let until_commit = self.names().ends(&relation.schema, &relation.name);
        let (schema, name) = (relation.schema.to_string(), relation.name.to_string());
        draft.changes.push(Change { schema, name, becomes, until_commit });
    }
}

fn add_key(relation: &mut Relation, (name, columns): (String, Vec<String>)) {
    let columns: Option<Box<[i16]>> =
        columns.iter().map(|name| relation.column(name).map(|column| column.number)).collect();
    if let Some(columns) = columns {
        relation.constraints.push(Constraint { name: name.into(), columns });
    }
}

fn add_new(columns: &mut Vec<String>, more: Vec<String>) {
    for name in more {
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
}
