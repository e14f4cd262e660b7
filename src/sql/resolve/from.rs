//! FROM: tables, sub-selects, functions, joins.

use super::super::scope::{Flow, Found, Item, Out, Rel, Scope, Shape};
use super::super::tree as t;
use super::{Resolver, rename, tidy};

impl<'s, 't> Resolver<'s, 't> {
    pub(super) fn all_from(&mut self, from: &'t [t::From]) -> Vec<Rel<'s>> {
        let mut before = Vec::with_capacity(from.len());
        for item in from {
            let rel = self.from(item, &mut before);
            before.push(rel);
        }
        before
    }

    /// One item; those before it are visible where it is lateral.
    pub(super) fn from(&mut self, from: &'t t::From, before: &mut Vec<Rel<'s>>) -> Rel<'s> {
        match from {
            t::From::Table { name, alias, sample } => {
                for part in sample {
                    self.discard(part);
                }
                self.table(name, alias)
            }
            t::From::Subquery { query, lateral, alias } => {
                let mut columns = if *lateral {
                    self.lateral(before, |resolver| resolver.query(query))
                } else {
                    self.query(query)
                };
                rename(&mut columns, &alias.columns);
                derived(alias.name.clone().unwrap_or_default(), columns)
            }
            t::From::Function { calls, columns, ordinality, alias } => {
                let found =
                    self.lateral(before, |resolver| resolver.functions(calls, columns, *ordinality, alias));
                Rel::Item(found)
            }
            t::From::Join(join) => self.join(join, before),
        }
    }

    fn lateral<R>(&mut self, before: &mut Vec<Rel<'s>>, work: impl FnOnce(&mut Self) -> R) -> R {
        self.scopes.push(Scope { rels: std::mem::take(before) });
        let result = work(self);
        *before = self.scopes.pop().map(|scope| scope.rels).unwrap_or_default();
        result
    }

    /// A table, view or CTE by name.
    pub(super) fn table(&mut self, name: &t::Name, alias: &t::Alias) -> Rel<'s> {
        let own = name.last().cloned().unwrap_or_default();
        let shown = alias.name.clone().unwrap_or(own);
        if let [only] = name.as_slice()
            && let Some(mut columns) = self.cte_named(only)
        {
            rename(&mut columns, &alias.columns);
            return derived(shown, columns);
        }
        let aliased = alias.name.is_some();
        let Some(relation) = self.relation(name) else {
            self.touched.missing(name, self.names.find(name));
            return Rel::Item(Item { name: shown, aliased, shape: Shape::Unknown });
        };
        self.touched.tables.insert(relation.oid);
        self.touched.sources.insert(relation.oid);
        let shape = Shape::Table { relation, renamed: alias.columns.clone() };
        Rel::Item(Item { name: shown, aliased, shape })
    }

    fn functions(
        &mut self,
        calls: &'t [t::Expr],
        known: &[Vec<String>],
        ordinality: bool,
        alias: &t::Alias,
    ) -> Item<'s> {
        let mut columns = Vec::new();
        let mut open = false;
        let mut own = None;
        for (at, call) in calls.iter().enumerate() {
            let known = known.get(at).map(Vec::as_slice).unwrap_or_default();
            let mut flow = Flow::new();
            self.expr(call, &mut flow);
            tidy(&mut flow);
            let scalar = match (call, &alias.name) {
                (t::Expr::Call(call), _) if alias.name.is_none() || calls.len() > 1 => {
                    call.name.last().cloned().unwrap_or_default()
                }
                (_, Some(name)) => name.clone(),
                _ => super::expr::output_name(call),
            };
            own.get_or_insert_with(|| scalar.clone());
            let names = if known.is_empty() {
                // The alias names the ordinality too, and the columns of all calls.
                let own = alias.columns.len().saturating_sub(usize::from(ordinality));
                let own = if calls.len() > 1 { 0 } else { own };
                self.function_columns(call, scalar, alias.columns.get(..own).unwrap_or_default())
            } else {
                Some(known.to_vec())
            };
            open |= names.is_none();
            columns.extend(names.into_iter().flatten().map(|name| Out { name, flow: flow.clone() }));
        }
        if ordinality {
            columns.push(Out { name: "ordinality".to_owned(), flow: Flow::new() });
        }
        rename(&mut columns, &alias.columns);
        let shape = if open { Shape::Unknown } else { Shape::Derived { columns } };
        let name = alias.name.clone().or(own).unwrap_or_default();
        Item { name, aliased: alias.name.is_some(), shape }
    }

    /// The columns that a function in FROM shows; none when they cannot be known.
    fn function_columns(&self, call: &t::Expr, scalar: String, named: &[String]) -> Option<Vec<String>> {
        let t::Expr::Call(call) = call else { return Some(vec![scalar]) };
        if call.name.last().is_some_and(|name| name == "unnest")
            && (call.arguments.len() > 1 || named.len() == 1)
        {
            // In FROM each array is a column. A text search vector would be three: nobody names one of them only.
            return Some(vec!["unnest".to_owned(); call.arguments.len()]);
        }
        let found = self.function(&call.name, call.arguments.len());
        let Some(function) = found else {
            return Some(if named.len() > 1 { named.to_vec() } else { vec![scalar] });
        };
        if let Some(oid) = function.returns_row_of {
            let relation = self.names.schema.by_oid(oid)?;
            return Some(relation.columns.iter().map(|column| column.name.to_string()).collect());
        }
        if !function.outputs.is_empty() {
            return Some(function.outputs.iter().map(|name| name.to_string()).collect());
        }
        Some(if named.len() > 1 { named.to_vec() } else { vec![scalar] })
    }

    fn join(&mut self, join: &'t t::Join, before: &mut Vec<Rel<'s>>) -> Rel<'s> {
        let left = self.from(&join.left, before);
        before.push(left);
        let right = self.from(&join.right, before);
        let Some(left) = before.pop() else { return right };
        let names = match &join.on {
            t::On::Using(names) => names.clone(),
            t::On::Natural => {
                let (left, right) = (left.star(), right.star());
                let shared = left.iter().filter(|column| right.iter().any(|other| other.name == column.name));
                shared.map(|column| column.name.clone()).collect()
            }
            t::On::Nothing | t::On::Expr(_) => Vec::new(),
        };
        let merged: Vec<_> = names.into_iter().map(|name| self.merged(name, &left, &right)).collect();
        let named = join.using_alias.as_ref().map(|name| Item {
            name: name.clone(),
            aliased: true,
            shape: Shape::Derived { columns: merged.clone() },
        });
        let mut rel = Rel::Join { merged, named, left: Box::new(left), right: Box::new(right) };
        if let t::On::Expr(on) = &join.on {
            self.scopes.push(Scope { rels: vec![rel] });
            self.discard(on);
            rel = match self.scopes.pop().and_then(|mut scope| scope.rels.pop()) {
                Some(rel) => rel,
                None => derived(String::new(), Vec::new()),
            };
        }
        match &join.alias.name {
            None => rel,
            Some(name) => {
                let mut columns = rel.star();
                rename(&mut columns, &join.alias.columns);
                derived(name.clone(), columns)
            }
        }
    }

    /// A column of USING or NATURAL: both sides are compared, and either may be shown.
    fn merged(&mut self, name: String, left: &Rel<'s>, right: &Rel<'s>) -> Out {
        let mut flow = Flow::new();
        for side in [left, right] {
            if side.column(&name, &mut flow) == Found::No {
                self.touched.doubt(format!("unknown column {name} in USING"));
            }
        }
        self.see(&flow);
        Out { name, flow }
    }
}

fn derived<'s>(name: String, columns: Vec<Out>) -> Rel<'s> {
    Rel::Item(Item { name, aliased: true, shape: Shape::Derived { columns } })
}
