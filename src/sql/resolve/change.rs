//! INSERT, UPDATE, DELETE, MERGE.

use crate::catalog::{Change, Relation};

use super::super::scope::{Flow, Item, Out, Rel, Scope, Shape};
use super::super::tree as t;
use super::Resolver;

impl<'s, 't> Resolver<'s, 't> {
    /// The table to change, as an item for the scope.
    fn target(
        &mut self,
        name: &t::Name,
        alias: Option<&String>,
        changes: impl IntoIterator<Item = Change>,
    ) -> (Option<&'s Relation>, Rel<'s>) {
        let own = name.last().cloned().unwrap_or_default();
        let shown = alias.cloned().unwrap_or(own);
        let aliased = alias.is_some();
        let relation = self.relation(name);
        let shape = match relation {
            Some(relation) => {
                self.touched.tables.insert(relation.oid);
                self.touched.changed.insert(relation.oid);
                self.touched.events.extend(changes.into_iter().map(|change| (relation.oid, change)));
                Shape::Table { relation, renamed: Vec::new() }
            }
            None => {
                self.touched.missing(name, self.names.find(name));
                Shape::Unknown
            }
        };
        (relation, Rel::Item(Item { name: shown, aliased, shape }))
    }

    pub(crate) fn write_columns(&mut self, relation: Option<&'s Relation>, columns: &[String]) {
        let Some(relation) = relation else { return };
        for name in columns {
            match relation.column(name) {
                Some(column) => {
                    self.touched.writes.insert((relation.oid, column.number));
                }
                None => self.touched.doubt(format!("unknown column {name} of {}", relation.full_name())),
            }
        }
    }

    /// The first columns, when a statement names none.
    fn write_first(&mut self, relation: Option<&'s Relation>, count: usize) {
        let Some(relation) = relation else { return };
        let first = relation.columns.iter().take(count).map(|column| (relation.oid, column.number));
        self.touched.writes.extend(first);
    }

    fn assign(&mut self, relation: Option<&'s Relation>, assignments: &'t [t::Assignment]) {
        for assignment in assignments {
            self.write_columns(relation, &assignment.columns);
            self.stored(&assignment.value);
        }
    }

    /// A value that is stored: what it is made of leaves its table.
    fn stored(&mut self, value: &'t t::Expr) {
        let mut flow = Flow::new();
        self.expr(value, &mut flow);
        self.touched.read_all(&flow);
    }

    pub(super) fn insert(&mut self, insert: &'t t::Insert) -> Vec<Out> {
        self.push_with(insert.with.as_ref());
        let (relation, target) = self.target(&insert.table, insert.alias.as_ref(), [Change::Insert]);
        let mut width = 0;
        if let Some(source) = &insert.source {
            let outs = self.query(source);
            width = outs.len();
            for out in &outs {
                self.touched.read_all(&out.flow);
            }
        }
        if insert.columns.is_empty() {
            self.write_first(relation, width);
        } else {
            self.write_columns(relation, &insert.columns);
        }
        self.scopes.push(Scope { rels: vec![target] });
        if let Some(conflict) = &insert.conflict {
            self.conflict(relation, conflict);
        }
        let outs = self.returning(relation, &insert.returning);
        self.scopes.pop();
        self.pop_with(insert.with.as_ref());
        outs
    }

    /// RETURNING sees the scope of the change, and the changed row before and after it (PostgreSQL 18).
    fn returning(&mut self, relation: Option<&'s Relation>, returning: &'t t::Returning) -> Vec<Out> {
        let mut rows = Vec::new();
        for (name, usual) in [(&returning.old, "old"), (&returning.new, "new")] {
            let name = name.as_deref().unwrap_or(usual);
            let shape =
                relation.map_or(Shape::Unknown, |relation| Shape::Table { relation, renamed: Vec::new() });
            rows.push(Rel::Item(Item { name: name.to_owned(), aliased: true, shape }));
        }
        // Below the scope of the change: a table of the same name hides them, and columns without a table are its own.
        let at = self.scopes.len().saturating_sub(1);
        self.scopes.insert(at, Scope { rels: rows });
        let outs = self.items(&returning.items);
        self.scopes.remove(at);
        outs
    }

    fn conflict(&mut self, relation: Option<&'s Relation>, conflict: &'t t::Conflict) {
        self.discard_all(conflict.arbiter.iter());
        if let (Some(name), Some(relation)) = (&conflict.constraint, relation) {
            match relation.constraint(name) {
                Some(known) => {
                    self.touched.seen.extend(known.columns.iter().map(|number| (relation.oid, *number)));
                }
                None => self.touched.doubt(format!("unknown constraint {name}")),
            }
        }
        let shape =
            relation.map_or(Shape::Unknown, |relation| Shape::Table { relation, renamed: Vec::new() });
        if let Some(relation) = relation.filter(|_| !conflict.assignments.is_empty()) {
            self.touched.events.insert((relation.oid, Change::Update));
        }
        let excluded = Item { name: "excluded".to_owned(), aliased: true, shape };
        self.scopes.push(Scope { rels: vec![Rel::Item(excluded)] });
        // `excluded` answers only to its name: unqualified columns are the table's, and those are the same ones.
        self.assign(relation, &conflict.assignments);
        self.discard_all(conflict.filter.iter());
        self.scopes.pop();
    }

    pub(super) fn update(&mut self, update: &'t t::Update) -> Vec<Out> {
        self.push_with(update.with.as_ref());
        let (relation, target) = self.target(&update.table, update.alias.name.as_ref(), [Change::Update]);
        let mut rels = vec![target];
        rels.extend(self.all_from(&update.from));
        self.scopes.push(Scope { rels });
        self.assign(relation, &update.assignments);
        self.discard_all(update.filter.iter());
        let outs = self.returning(relation, &update.returning);
        self.scopes.pop();
        self.pop_with(update.with.as_ref());
        outs
    }

    pub(super) fn delete(&mut self, delete: &'t t::Delete) -> Vec<Out> {
        self.push_with(delete.with.as_ref());
        let (relation, target) = self.target(&delete.table, delete.alias.name.as_ref(), [Change::Delete]);
        let mut rels = vec![target];
        rels.extend(self.all_from(&delete.using));
        self.scopes.push(Scope { rels });
        self.discard_all(delete.filter.iter());
        let outs = self.returning(relation, &delete.returning);
        self.scopes.pop();
        self.pop_with(delete.with.as_ref());
        outs
    }

    pub(super) fn merge(&mut self, merge: &'t t::Merge) -> Vec<Out> {
        self.push_with(merge.with.as_ref());
        let (relation, target) = self.target(&merge.table, merge.alias.name.as_ref(), []);
        let source = self.from(&merge.source, &mut Vec::new());
        self.scopes.push(Scope { rels: vec![source, target] });
        self.discard(&merge.on);
        for when in &merge.when {
            self.discard_all(when.condition.iter());
            match &when.action {
                t::Action::Nothing | t::Action::Delete => {}
                t::Action::Update(assignments) => self.assign(relation, assignments),
                t::Action::Insert { columns, values } => {
                    if columns.is_empty() {
                        let width = values.iter().map(|value| self.width(value)).sum();
                        self.write_first(relation, width);
                    } else {
                        self.write_columns(relation, columns);
                    }
                    for value in values {
                        self.stored(value);
                    }
                }
            }
        }
        let outs = self.returning(relation, &merge.returning);
        self.scopes.pop();
        self.pop_with(merge.with.as_ref());
        outs
    }
}
