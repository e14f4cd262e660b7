//! What a statement touches, collected while its names are resolved, and written out at the end.

use std::collections::BTreeSet;

use crate::catalog::{Change, Relation, RelationKind, quoted};

use super::bodies::Body;
use super::own::{Names, Seen};

/// A column: the relation's oid and the column's number.
pub(crate) type Col = (u32, i16);

/// The most notes that one analysis carries.
const NOTES_MAX: usize = 16;
/// How deep views may stand on views.
const VIEW_DEPTH_MAX: usize = 32;

/// Everything found so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Touched {
    /// Relations named, or reached by name resolution.
    pub(crate) tables: BTreeSet<u32>,
    /// Every column looked at.
    pub(crate) seen: BTreeSet<Col>,
    /// Those whose value reaches the result or another table.
    pub(crate) reads: BTreeSet<Col>,
    pub(crate) writes: BTreeSet<Col>,
    /// Relations that are changed.
    pub(crate) changed: BTreeSet<u32>,
    /// Relations that rows are taken from.
    pub(crate) sources: BTreeSet<u32>,
    /// How rows of them are changed, where rules apply.
    pub(crate) events: BTreeSet<(u32, Change)>,
    pub(crate) functions: BTreeSet<String>,
    pub(crate) notes: Vec<String>,
    /// Something may have been touched that is not listed.
    pub(crate) incomplete: bool,
    /// The names of the columns that the query shows are not all known.
    pub(crate) shapeless: bool,
    /// How many doubts there are, and how many of them are about columns.
    pub(crate) doubts: (usize, usize),
    /// Names of relations whose columns are not known.
    pub(crate) opaque: BTreeSet<String>,
    /// Parameters may be set out of sight.
    pub(crate) unsettling: bool,
    /// A function was called that may do anything.
    pub(crate) volatile: bool,
    /// A function of somebody's own was called.
    pub(crate) own_functions: bool,
    /// `set_config` calls: the parameter, its value when it is a constant, whether until the transaction's end.
    pub(crate) settings: Vec<(Option<String>, Option<String>, Option<bool>)>,
}

/// What lies below a view that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    All,
    /// The table that its rows are of.
    Own,
    Nothing,
}

/// The lists of names as they are recorded.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) tables: Vec<String>,
    pub(crate) reads: Vec<String>,
    pub(crate) filters: Vec<String>,
    pub(crate) writes: Vec<String>,
    pub(crate) via: Vec<String>,
}

impl Touched {
    /// Adds what something inside of the statement touches.
    pub(crate) fn absorb(&mut self, inner: Self) {
        self.tables.extend(inner.tables);
        self.seen.extend(inner.seen);
        self.reads.extend(inner.reads);
        self.writes.extend(inner.writes);
        self.changed.extend(inner.changed);
        self.sources.extend(inner.sources);
        self.events.extend(inner.events);
        self.functions.extend(inner.functions);
        self.opaque.extend(inner.opaque);
        inner.notes.into_iter().for_each(|note| self.note(note));
        self.settings.extend(inner.settings);
        self.incomplete |= inner.incomplete;
        self.doubts = (self.doubts.0 + inner.doubts.0, self.doubts.1 + inner.doubts.1);
        self.unsettling |= inner.unsettling;
        self.volatile |= inner.volatile;
        self.own_functions |= inner.own_functions;
    }

    /// Says what is not known; the analysis is then at most partial.
    pub(crate) fn doubt(&mut self, note: String) {
        self.incomplete = true;
        self.doubts.0 += 1;
        self.note(note);
    }

    /// A relation whose columns are not known: one of the session's own, or none.
    pub(crate) fn missing(&mut self, name: &[String], seen: Option<Seen<'_>>) {
        match (seen, name.last()) {
            (Some(Seen::Opaque { schema }), Some(only)) => {
                let full = format!("{}.{}", quoted(schema), quoted(only));
                self.doubt(format!("{full} is known to this session alone, and its columns are not listed"));
                self.opaque.insert(full);
            }
            _ => self.doubt(format!("unknown relation {}", name.join("."))),
        }
    }

    /// A column that nothing in scope has.
    pub(crate) fn doubt_column(&mut self, note: String) {
        self.doubts.1 += 1;
        self.doubt(note);
    }

    pub(crate) fn note(&mut self, note: String) {
        if self.notes.len() < NOTES_MAX && !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(crate) fn read_all(&mut self, flow: &[Col]) {
        self.reads.extend(flow.iter().copied());
    }

    /// Follows views down to their base tables.
    fn follow_views(&mut self, names: Names<'_>, via: &mut BTreeSet<u32>) {
        let mut open: Vec<(u32, usize)> = self.tables.iter().map(|oid| (*oid, 0)).collect();
        while let Some((oid, depth)) = open.pop() {
            let Some(view) = names.by_oid(oid).filter(|found| found.kind == RelationKind::View) else {
                continue;
            };
            let first = via.insert(oid);
            if depth > VIEW_DEPTH_MAX || (!first && depth > 0) {
                continue;
            }
            let result = self.reads.iter().any(|(relation, _)| *relation == oid);
            let reach = self.reach(view);
            for base in &view.bases {
                let own = view.origins.iter().any(|origin| origin.base == base.oid);
                if reach == Reach::Nothing || (reach == Reach::Own && !own) {
                    continue;
                }
                let fresh = self.tables.insert(base.oid);
                self.read_base(names, base.oid, &base.columns, result);
                if fresh || depth == 0 {
                    open.push((base.oid, depth + 1));
                }
            }
            self.write_through(view);
        }
    }

    /// How far a statement goes into a view. Where rows are only put into it, its conditions do not apply.
    fn reach(&self, view: &Relation) -> Reach {
        let does = |change| self.events.contains(&(view.oid, change));
        let only_inserts = does(Change::Insert) && !does(Change::Update) && !does(Change::Delete);
        if !only_inserts || self.sources.contains(&view.oid) {
            return Reach::All;
        }
        let ruled = view.rules.iter().any(|rule| rule.instead && rule.event == Change::Insert);
        match (ruled || view.has_instead_triggers, view.is_checked) {
            (true, _) => Reach::Nothing,
            (false, true) => Reach::All,
            (false, false) => Reach::Own,
        }
    }

    fn read_base(&mut self, names: Names<'_>, oid: u32, columns: &[i16], result: bool) {
        for column in columns {
            let whole = (*column == 0).then(|| names.by_oid(oid)).flatten();
            let all =
                whole.into_iter().flat_map(|relation| relation.columns.iter().map(|found| found.number));
            for number in all.chain(Some(*column).filter(|number| *number != 0)) {
                self.seen.insert((oid, number));
                if result {
                    self.reads.insert((oid, number));
                }
            }
        }
    }

    fn write_through(&mut self, view: &Relation) {
        let replaced =
            view.rules.iter().any(|rule| rule.instead && self.events.contains(&(view.oid, rule.event)));
        if !self.changed.contains(&view.oid) || replaced || view.has_instead_triggers {
            return;
        }
        for origin in &view.origins {
            self.changed.insert(origin.base);
            if self.writes.contains(&(view.oid, origin.column)) {
                self.writes.insert((origin.base, origin.base_column));
            }
        }
    }

    fn follow_changes(&mut self, names: Names<'_>) {
        for oid in self.changed.clone() {
            let Some(relation) = names.by_oid(oid) else { continue };
            let view = relation.kind == RelationKind::View && relation.origins.is_empty();
            if view && relation.rules.is_empty() && relation.triggers.is_empty() {
                self.doubt(format!("what is changed below {} is not known", relation.full_name()));
            }
            for function in &relation.triggers {
                let unsettles = names
                    .schema
                    .function_by_oid(*function)
                    .is_some_and(|found| names.schema.is_unsettling(&found.name));
                self.unsettling |= unsettles;
                let name = names
                    .schema
                    .function_by_oid(*function)
                    .map(|found| format!("{}.{}", found.schema, found.name));
                let name = name.as_deref().unwrap_or("a function");
                let body = names.schema.function_by_oid(*function).and_then(|found| found.body.as_deref());
                let said = body.map(|body| Body::read(body, names).said(names)).unwrap_or_default();
                let full = relation.full_name();
                self.doubt(format!("triggers of {full} run {name}, which may touch more{said}"));
            }
        }
    }

    /// Rules on the changes add what they touch, and rules on that.
    fn follow_rules(&mut self, names: Names<'_>) {
        let mut open: Vec<(u32, Change)> = self.events.iter().copied().collect();
        let mut done = BTreeSet::new();
        while let Some((oid, event)) = open.pop() {
            if !done.insert((oid, event)) {
                continue;
            }
            let Some(relation) = names.by_oid(oid) else { continue };
            for rule in relation.rules.iter().filter(|rule| rule.event == event) {
                self.note(format!("rule {} of {} applies", quoted(&rule.name), relation.full_name()));
                for touch in &rule.touches {
                    self.tables.insert(touch.oid);
                    self.read_base(names, touch.oid, &touch.selected, true);
                    self.writes.extend(touch.written.iter().map(|column| (touch.oid, *column)));
                    if let Some(change) = touch.changed {
                        self.changed.insert(touch.oid);
                        self.events.insert((touch.oid, change));
                        open.push((touch.oid, change));
                    }
                }
            }
        }
    }

    /// Row security may read more, depending on the role.
    fn follow_policies(&mut self, names: Names<'_>) {
        for oid in self.tables.clone() {
            let Some(relation) = names.by_oid(oid) else { continue };
            for policy in &relation.policies {
                let full = relation.full_name();
                self.doubt(format!(
                    "row security policy {} of {full} may touch {}",
                    policy.name, policy.names
                ));
            }
        }
    }

    /// Follows views and writes every list out, sorted.
    pub(crate) fn write(&mut self, names: Names<'_>) -> Written {
        let mut via = BTreeSet::new();
        self.follow_rules(names);
        self.follow_views(names, &mut via);
        self.follow_policies(names);
        self.follow_changes(names);
        let relation = |oid: &u32| names.by_oid(*oid).map(|found| found.full_name().to_owned());
        let columns = |set: &mut dyn Iterator<Item = &Col>| {
            let mut names: Vec<String> = set.filter_map(|col| column_name(names, *col)).collect();
            names.sort_unstable();
            names.dedup();
            names
        };
        let sorted = |set: &BTreeSet<u32>| {
            let mut names: Vec<String> = set.iter().filter_map(relation).collect();
            names.sort_unstable();
            names
        };
        let mut tables = sorted(&self.tables);
        tables.extend(std::mem::take(&mut self.opaque));
        tables.sort_unstable();
        Written {
            tables,
            reads: columns(&mut self.reads.iter()),
            filters: columns(&mut self.seen.difference(&self.reads)),
            writes: columns(&mut self.writes.iter()),
            via: sorted(&via),
        }
    }
}

fn column_name(names: Names<'_>, (oid, number): Col) -> Option<String> {
    let relation = names.by_oid(oid)?;
    Some(format!("{}.{}", relation.full_name(), quoted(relation.column_name(number)?)))
}
