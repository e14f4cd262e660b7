//! Names to relations and columns, as PostgreSQL's parse analysis does it.
//!
//! It walks our tree once. Every column met is *seen*; what a value is made of flows with it (through sub-selects,
//! CTEs and set operations), and only what reaches the result, or is stored by a change, is *read*. It never asks the
//! server and never fails: what it cannot resolve becomes a note, and the analysis is partial.

mod change;
mod expr;
mod from;

use crate::catalog::{Relation, Schema};

use super::own::Names;
use super::scope::{Flow, Found, Out, Rel, Scope};
use super::touched::{Col, Touched};
use super::tree as t;
use super::{Grammar, Settings};

/// How deep sub-selects, CTEs and functions may nest.
const DEPTH_MAX: usize = 256;

/// One analysis in progress.
pub(crate) struct Resolver<'s, 't> {
    names: Names<'s>,
    grammar: &'s dyn Grammar,
    pub(crate) touched: Touched,
    scopes: Vec<Scope<'s>>,
    frames: Vec<Frame<'t>>,
    depth: usize,
    /// This resolves a function's body, and looks into no others.
    in_body: bool,
}

/// The CTEs of one WITH.
struct Frame<'t> {
    /// How many scopes enclosed the WITH.
    scopes: usize,
    recursive: bool,
    tables: Vec<(&'t t::Cte, Known)>,
}

/// What is known of a CTE.
enum Known {
    Pending,
    /// Being resolved; a recursive one shows the columns of its first branch.
    Open(Option<Vec<Out>>),
    Done(Vec<Out>),
}

impl<'s, 't> Resolver<'s, 't> {
    pub(crate) fn new(schema: &'s Schema, settings: &Settings<'s>) -> Self {
        Self {
            names: Names {
                schema,
                path: settings.search_path,
                own: settings.own,
                role: settings.role,
                replica: settings.replica,
            },
            grammar: settings.grammar,
            touched: Touched::default(),
            scopes: Vec::new(),
            frames: Vec::new(),
            depth: 0,
            in_body: false,
        }
    }

    /// Resolves a whole statement; what it returns to the client is read.
    pub(crate) fn statement(&mut self, statement: &'t t::Statement) -> Vec<Out> {
        let outs = self.nested_statement(statement);
        for out in &outs {
            self.touched.read_all(&out.flow);
        }
        outs
    }

    /// A statement that sees rows from outside (NEW and OLD of a rule).
    pub(crate) fn statement_over(&mut self, rows: Vec<Rel<'s>>, statement: &'t t::Statement) {
        self.scopes.push(Scope { rels: rows });
        self.statement(statement);
        self.scopes.pop();
    }

    /// An expression that stands alone, over one table (`COPY … WHERE`).
    pub(crate) fn predicate(&mut self, table: Option<Rel<'s>>, expr: &'t t::Expr) {
        self.scopes.push(Scope { rels: table.into_iter().collect() });
        self.discard(expr);
        self.scopes.pop();
    }

    fn nested_statement(&mut self, statement: &'t t::Statement) -> Vec<Out> {
        match statement {
            t::Statement::Query(query) => self.query(query),
            t::Statement::Insert(found) => self.insert(found),
            t::Statement::Update(found) => self.update(found),
            t::Statement::Delete(found) => self.delete(found),
            t::Statement::Merge(found) => self.merge(found),
        }
    }

    fn query(&mut self, query: &'t t::Query) -> Vec<Out> {
        self.query_ordered(query, &[])
    }

    fn query_ordered(&mut self, query: &'t t::Query, extra: &[&'t t::Expr]) -> Vec<Out> {
        if self.depth >= DEPTH_MAX {
            self.touched.doubt("nested too deeply".to_owned());
            return Vec::new();
        }
        self.depth += 1;
        self.push_with(query.with.as_ref());
        let order: Vec<&'t t::Expr> = query.order_by.iter().chain(extra.iter().copied()).collect();
        let outs = self.body(&query.body, &order);
        for bound in &query.bounds {
            self.discard(bound);
        }
        self.pop_with(query.with.as_ref());
        self.depth -= 1;
        outs
    }

    fn body(&mut self, body: &'t t::Body, order: &[&'t t::Expr]) -> Vec<Out> {
        match body {
            t::Body::Select(select) => self.select(select, order),
            t::Body::Query(query) => self.query_ordered(query, order),
            t::Body::Change(statement) => self.nested_statement(statement),
            t::Body::Set(branches) => {
                let mut branches = branches.iter();
                let mut outs = branches.next().map(|first| self.body(first, &[])).unwrap_or_default();
                for branch in branches {
                    let more = self.body(branch, &[]);
                    merge_flows(&mut outs, more);
                }
                outs
            }
            t::Body::Values(rows) => self.values(rows),
            t::Body::Table(name) => {
                let rel = self.table(name, &t::Alias::default());
                let outs = rel.star();
                self.see_outs(&outs);
                outs
            }
        }
    }

    fn values(&mut self, rows: &'t [Vec<t::Expr>]) -> Vec<Out> {
        let mut outs: Vec<Out> = Vec::new();
        for row in rows {
            let mut at = 0;
            for value in row {
                let mut flow = Flow::new();
                self.expr(value, &mut flow);
                // `t.*` is as many values as `t` has columns.
                for _ in 0..self.width(value) {
                    if outs.len() <= at {
                        outs.push(Out { name: format!("column{}", at + 1), flow: Flow::new() });
                    }
                    if let Some(out) = outs.get_mut(at) {
                        out.flow.extend(flow.iter().copied());
                    }
                    at += 1;
                }
            }
        }
        outs
    }

    /// How many values an element of a list of values is.
    fn width(&self, value: &t::Expr) -> usize {
        match value {
            t::Expr::Row(name) => self.item_named(name).map_or(1, |item| item.columns().len().max(1)),
            _ => 1,
        }
    }

    fn select(&mut self, select: &'t t::Select, order: &[&'t t::Expr]) -> Vec<Out> {
        let rels = self.all_from(&select.from);
        self.scopes.push(Scope { rels });
        let outs = self.items(&select.items);
        self.discard_all(select.filter.iter());
        for group in &select.group_by {
            self.grouped(group, &outs);
        }
        self.discard_all(select.having.iter().chain(&select.windows));
        for item in order.iter().copied().chain(&select.distinct_on) {
            self.ordered(item, &outs);
        }
        self.scopes.pop();
        outs
    }

    /// ORDER BY and DISTINCT ON: an output name or position first, else an expression over the input.
    fn ordered(&mut self, item: &'t t::Expr, outs: &[Out]) {
        match item {
            t::Expr::Integer => {}
            t::Expr::Name(name) if is_output(name, outs) => {}
            _ => self.discard(item),
        }
    }

    /// GROUP BY: an input column first, then an output name.
    fn grouped(&mut self, item: &'t t::Expr, outs: &[Out]) {
        match item {
            t::Expr::Integer => {}
            t::Expr::Name(name) if is_output(name, outs) && !self.is_input(name) => {}
            t::Expr::Parts(parts) => {
                for part in parts {
                    self.grouped(part, outs);
                }
            }
            t::Expr::Named(inner, "row") => self.grouped(inner, outs),
            _ => self.discard(item),
        }
    }

    fn is_input(&self, name: &t::Name) -> bool {
        let [column] = name.as_slice() else { return true };
        self.scopes.last().is_some_and(|scope| scope.column(column, &mut Flow::new()) == Found::Yes)
    }

    fn items(&mut self, items: &'t [t::Item]) -> Vec<Out> {
        let mut outs = Vec::new();
        for item in items {
            match item {
                t::Item::Expr(expr, alias) => {
                    let mut flow = Flow::new();
                    self.expr(expr, &mut flow);
                    tidy(&mut flow);
                    let name = alias.clone().unwrap_or_else(|| expr::output_name(expr));
                    outs.push(Out { name, flow });
                }
                t::Item::Star => {
                    let scope = self.scopes.last();
                    let all: Vec<Out> = scope.into_iter().flat_map(|s| &s.rels).flat_map(Rel::star).collect();
                    let unknown = scope.is_some_and(|scope| scope.rels.iter().any(Rel::unknown));
                    self.star(all, unknown, &mut outs);
                }
                t::Item::TableStar(name) => {
                    let (all, unknown) = match self.item_named(name) {
                        Some(item) => (item.columns(), matches!(item.shape, super::scope::Shape::Unknown)),
                        None => {
                            // `(composite column).*` written without parentheses does not exist: the name is wrong.
                            self.touched.doubt(format!("unknown table {}", name.join(".")));
                            (Vec::new(), false)
                        }
                    };
                    self.star(all, unknown, &mut outs);
                }
                t::Item::ExprStar(expr) => self.expr_star(expr, &mut outs),
            }
        }
        outs
    }

    fn expr_star(&mut self, expr: &'t t::Expr, outs: &mut Vec<Out>) {
        if let t::Expr::Name(name) = expr
            && let Some(item) = self.item_named(name)
        {
            let all = item.columns();
            return self.star(all, false, outs);
        }
        let mut flow = Flow::new();
        self.expr(expr, &mut flow);
        tidy(&mut flow);
        let mut fields = self.fields_of(expr);
        if fields.is_empty() {
            self.touched.shapeless = true;
            self.touched.doubt("the fields of a value are not known".to_owned());
            fields.push("?column?".to_owned());
        }
        outs.extend(fields.into_iter().map(|name| Out { name, flow: flow.clone() }));
    }

    fn star(&mut self, all: Vec<Out>, unknown: bool, outs: &mut Vec<Out>) {
        if unknown {
            self.touched.shapeless = true;
            self.touched.doubt("`*` of a relation that is not known".to_owned());
        }
        self.see_outs(&all);
        outs.extend(all);
    }

    fn see_outs(&mut self, outs: &[Out]) {
        for out in outs {
            self.touched.seen.extend(out.flow.iter().copied());
        }
    }

    fn see(&mut self, flow: &[Col]) {
        self.touched.seen.extend(flow.iter().copied());
    }

    fn push_with(&mut self, with: Option<&'t t::With>) {
        let Some(with) = with else { return };
        let (scopes, recursive) = (self.scopes.len(), with.recursive);
        self.frames.push(Frame { scopes, recursive, tables: Vec::with_capacity(with.tables.len()) });
        let frame = self.frames.len() - 1;
        if recursive {
            if let Some(last) = self.frames.last_mut() {
                last.tables = with.tables.iter().map(|cte| (cte, Known::Pending)).collect();
            }
            for at in 0..with.tables.len() {
                self.cte(frame, at);
            }
            return;
        }
        for cte in &with.tables {
            let outs = self.cte_query(cte);
            if let Some(last) = self.frames.last_mut() {
                last.tables.push((cte, Known::Done(outs)));
            }
        }
    }

    fn pop_with(&mut self, with: Option<&'t t::With>) {
        if with.is_some() {
            self.frames.pop();
        }
    }

    fn cte_query(&mut self, cte: &'t t::Cte) -> Vec<Out> {
        let mut outs = self.query(&cte.query);
        rename(&mut outs, &cte.columns);
        add_columns(&mut outs, cte);
        outs
    }

    /// The columns of a CTE of a frame; resolves it first if nobody has, as it may be used before its turn.
    fn cte(&mut self, frame: usize, at: usize) -> Option<Vec<Out>> {
        let known = self.frames.get_mut(frame)?;
        let (scopes, recursive) = (known.scopes, known.recursive);
        let (cte, state) = known.tables.get_mut(at)?;
        let cte: &'t t::Cte = cte;
        match state {
            Known::Done(outs) => return Some(outs.clone()),
            Known::Open(outs) => return Some(outs.clone().unwrap_or_default()),
            Known::Pending => *state = Known::Open(None),
        }
        // A CTE sees only what enclosed its WITH.
        let inner_scopes = self.scopes.split_off(scopes.min(self.scopes.len()));
        let inner_frames = self.frames.split_off(frame + 1);
        let outs = if recursive { self.recursive(cte, frame, at) } else { self.cte_query(cte) };
        self.frames.extend(inner_frames);
        self.scopes.extend(inner_scopes);
        self.set_known(frame, at, Known::Done(outs.clone()));
        Some(outs)
    }

    fn set_known(&mut self, frame: usize, at: usize, known: Known) {
        if let Some((_, state)) = self.frames.get_mut(frame).and_then(|frame| frame.tables.get_mut(at)) {
            *state = known;
        }
    }

    /// The first branch names the columns; the other branches see them.
    fn recursive(&mut self, cte: &'t t::Cte, frame: usize, at: usize) -> Vec<Out> {
        let (t::Body::Set(branches), None) = (&cte.query.body, &cte.query.with) else {
            return self.cte_query(cte);
        };
        let mut outs = Vec::new();
        for (turn, branch) in branches.iter().enumerate() {
            let more = self.body(branch, &[]);
            if turn == 0 {
                outs = more;
                rename(&mut outs, &cte.columns);
            } else {
                merge_flows(&mut outs, more);
            }
            self.set_known(frame, at, Known::Open(Some(outs.clone())));
        }
        // Once more: what the recursive branch adds may flow from one column into another.
        if branches.len() == 2
            && self.depth < 4
            && let Some(branch) = branches.last()
        {
            let more = self.body(branch, &[]);
            merge_flows(&mut outs, more);
        }
        for bound in cte.query.bounds.iter() {
            self.discard(bound);
        }
        add_columns(&mut outs, cte);
        outs
    }

    /// The columns of a CTE of that name, innermost first.
    fn cte_named(&mut self, name: &str) -> Option<Vec<Out>> {
        for frame in (0..self.frames.len()).rev() {
            let tables = self.frames.get(frame).map(|frame| &frame.tables)?;
            if let Some(at) = tables.iter().position(|(cte, _)| cte.name == name) {
                return self.cte(frame, at);
            }
        }
        None
    }

    /// The relation that a name means on the session's path.
    pub(crate) fn relation(&self, name: &[String]) -> Option<&'s Relation> {
        self.names.relation(name).filter(|relation| relation.holds_rows())
    }
}

fn is_output(name: &t::Name, outs: &[Out]) -> bool {
    matches!(name.as_slice(), [name] if outs.iter().any(|out| out.name == *name))
}

fn merge_flows(outs: &mut Vec<Out>, more: Vec<Out>) {
    for (at, column) in more.into_iter().enumerate() {
        match outs.get_mut(at) {
            Some(out) => {
                out.flow.extend(column.flow);
                tidy(&mut out.flow);
            }
            None => outs.push(column),
        }
    }
}

fn rename(outs: &mut [Out], names: &[String]) {
    for (out, name) in outs.iter_mut().zip(names) {
        out.name.clone_from(name);
    }
}

/// The columns of SEARCH and CYCLE.
fn add_columns(outs: &mut Vec<Out>, cte: &t::Cte) {
    for added in &cte.added {
        let from = outs.iter().filter(|out| added.from.contains(&out.name));
        let flow = from.flat_map(|out| out.flow.iter().copied()).collect();
        outs.push(Out { name: added.name.clone(), flow });
    }
}

fn tidy(flow: &mut Flow) {
    flow.sort_unstable();
    flow.dedup();
}
