//! What a statement touches, collected while its names are resolved, and written out at the end.

use std::collections::BTreeSet;

use crate::catalog::{Change, Relation, RelationKind, Rule, Trigger, Volatility, When, quoted};

use super::bodies::{Body, body_touches_nothing, is_closed, touches_nothing};
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
    /// Views that the server refuses to look into for this statement.
    pub(crate) refused: BTreeSet<u32>,
    /// How rows of them are changed, where rules apply.
    pub(crate) events: BTreeSet<(u32, Change)>,
    pub(crate) functions: BTreeSet<String>,
    /// What bodies of functions touch: no part of what a view or table made of this would be made of.
    pub(crate) within: Vec<Touched>,
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
    /// Functions that views, defaults, checks and rules call, and that may touch more.
    pub(crate) through: BTreeSet<String>,
    /// Rows are locked (FOR UPDATE, FOR SHARE).
    pub(crate) locks: bool,
    /// DEFAULT is given as a value.
    pub(crate) defaults: bool,
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
        self.refused.extend(inner.refused);
        self.events.extend(inner.events);
        self.functions.extend(inner.functions);
        self.within.extend(inner.within);
        self.opaque.extend(inner.opaque);
        inner.notes.into_iter().for_each(|note| self.note(note));
        self.settings.extend(inner.settings);
        self.incomplete |= inner.incomplete;
        self.doubts = (self.doubts.0 + inner.doubts.0, self.doubts.1 + inner.doubts.1);
        self.unsettling |= inner.unsettling;
        self.volatile |= inner.volatile;
        self.own_functions |= inner.own_functions;
        self.defaults |= inner.defaults;
        self.locks |= inner.locks;
        self.through.extend(inner.through);
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
            let reach = self.reach(view, names);
            if reach == Reach::All {
                self.called(names, view, |when| when == When::Looked);
            }
            for base in &view.bases {
                if !reaches(reach, view, base.oid) {
                    continue;
                }
                let fresh = self.tables.insert(base.oid);
                self.read_base(names, base.oid, &base.columns, result);
                if fresh || depth == 0 {
                    open.push((base.oid, depth + 1));
                }
            }
            self.write_through(view, names);
        }
    }

    /// How far a statement goes into a view. Where rows are only put into it, its conditions do not apply.
    fn reach(&self, view: &Relation, names: Names<'_>) -> Reach {
        let does = |change| self.events.contains(&(view.oid, change));
        if self.refused.contains(&view.oid) {
            return Reach::Nothing;
        }
        let only_inserts = does(Change::Insert) && !does(Change::Update) && !does(Change::Delete);
        if !only_inserts || self.sources.contains(&view.oid) {
            return Reach::All;
        }
        match (replaced(view, Change::Insert, names), view.is_checked) {
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

    fn write_through(&mut self, view: &Relation, names: Names<'_>) {
        let mut events = self.events_of(view.oid).into_iter();
        let elsewhere = view.has_instead_triggers || events.any(|event| replaced(view, event, names));
        if !self.changed.contains(&view.oid) || elsewhere {
            return;
        }
        for origin in &view.origins {
            self.changed.insert(origin.base);
            if self.writes.contains(&(view.oid, origin.column)) {
                self.writes.insert((origin.base, origin.base_column));
            }
        }
    }

    fn follow_changes(&mut self, names: Names<'_>, via: &mut Vec<String>) {
        for oid in self.changed.clone() {
            let Some(relation) = names.by_oid(oid) else { continue };
            let view = relation.kind == RelationKind::View && relation.origins.is_empty();
            if view && relation.rules.is_empty() && relation.triggers.is_empty() {
                self.doubt(format!("what is changed below {} is not known", relation.full_name()));
            }
            let known = self.events_of(oid);
            let fires = |trigger: &&Trigger| {
                let on = known.is_empty() || known.iter().any(|change| trigger.is_on(*change));
                on && trigger.fires.in_session(names.replica)
            };
            for trigger in relation.triggers.iter().filter(fires) {
                self.triggered(names, relation, trigger.function, via);
            }
            self.calls_of_change(names, relation);
        }
    }

    /// A trigger's function runs.
    fn triggered(&mut self, names: Names<'_>, relation: &Relation, function: u32, via: &mut Vec<String>) {
        let full = relation.full_name();
        let Some(function) = names.schema.function_by_oid(function) else {
            if names.schema.builtin_by_oid(function).is_none() {
                self.doubt(format!("triggers of {full} run a function, which may touch more"));
            }
            return;
        };
        let name = format!("{}.{}", quoted(&function.schema), quoted(&function.name));
        via.push(name.clone());
        self.unsettling |= names.schema.is_unsettling(&function.name);
        if body_touches_nothing(function, names) {
            return;
        }
        let body = function.body.as_deref().map(|body| Body::read(body, names)).unwrap_or_default();
        self.doubt(format!("triggers of {full} run {name}, which may touch more{}", body.said(names)));
        self.tables.extend(body.relations);
    }

    /// Functions that a relation calls by itself run.
    pub(crate) fn called(&mut self, names: Names<'_>, relation: &Relation, is: impl Fn(When) -> bool) {
        for call in relation.calls.iter().filter(|call| is(call.when)) {
            let full = relation.full_name();
            let Some(function) = names.schema.function_by_oid(call.function) else {
                self.doubt(format!("{full} calls a function, which may touch more"));
                continue;
            };
            if is_closed(function) || touches_nothing(function, names) {
                continue;
            }
            let body = function.body.as_deref().map(|body| Body::read(body, names)).unwrap_or_default();
            let name = format!("{}.{}", quoted(&function.schema), quoted(&function.name));
            self.doubt(format!("{full} calls {name}, which may touch more{}", body.said(names)));
            self.through.insert(name);
            self.tables.extend(body.relations);
            self.volatile |= function.volatility == Volatility::Volatile;
            self.unsettling |= names.schema.is_unsettling(&function.name);
        }
    }

    /// What a change of rows makes a relation call.
    fn calls_of_change(&mut self, names: Names<'_>, relation: &Relation) {
        if relation.calls.is_empty() {
            return;
        }
        let events = self.events_of(relation.oid);
        let columns = (relation.oid, i16::MIN)..=(relation.oid, i16::MAX);
        // MERGE names no event; what changes no rows writes no columns.
        let merges = events.is_empty() && self.writes.range(columns).next().is_some();
        let inserts = merges || events.contains(&Change::Insert);
        let updates = merges || events.contains(&Change::Update);
        let given: BTreeSet<i16> =
            if self.defaults { BTreeSet::new() } else { self.written(relation.oid).collect() };
        let by_keyword = updates && self.defaults;
        self.called(names, relation, |when| match when {
            When::Looked | When::Ruled(_) => false,
            When::Default(column) => (inserts && !given.contains(&column)) || by_keyword,
            When::Checked => inserts || updates,
            When::Triggered => merges || !events.is_empty(),
        });
    }

    fn written(&self, oid: u32) -> impl Iterator<Item = i16> {
        self.writes.range((oid, i16::MIN)..=(oid, i16::MAX)).map(|(_, column)| *column)
    }

    /// What changes do beyond their own relation: rules add what they touch or do it instead, views hand a change on
    /// to the table below.
    fn follow_events(&mut self, names: Names<'_>) {
        let mut open: Vec<(u32, Change)> = self.events.iter().copied().collect();
        let mut done = BTreeSet::new();
        while let Some((oid, event)) = open.pop() {
            if !done.insert((oid, event)) {
                continue;
            }
            let Some(relation) = names.by_oid(oid) else { continue };
            if active(relation, event, names).next().is_some() {
                self.called(names, relation, |when| when == When::Ruled(event));
            }
            for rule in active(relation, event, names) {
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
            if relation.kind == RelationKind::View && !replaced(relation, event, names) {
                for base in relation.origins.iter().map(|origin| origin.base) {
                    self.changed.insert(base);
                    self.events.insert((base, event));
                    open.push((base, event));
                }
            }
        }
    }

    /// How rows of a relation are changed; nothing for MERGE and for what is no change of rows.
    fn events_of(&self, oid: u32) -> Vec<Change> {
        let all = [Change::Insert, Change::Update, Change::Delete];
        all.into_iter().filter(|change| self.events.contains(&(oid, *change))).collect()
    }

    /// Row security may look elsewhere. Whose it is depends on the way there: what a view or a rule touches is touched
    /// by its owner.
    fn follow_policies(&mut self, names: Names<'_>, direct: &BTreeSet<u32>) {
        if !names.schema.has_policies() && names.own.is_empty() {
            return;
        }
        let asking = names.role.and_then(|role| names.schema.role(role)).map(|role| role.oid);
        let mut open: Vec<(u32, Option<u32>, bool)> =
            direct.iter().map(|oid| (*oid, asking, false)).collect();
        let mut done = BTreeSet::new();
        while let Some((oid, role, shown)) = open.pop() {
            if !done.insert((oid, role, shown)) {
                continue;
            }
            let Some(relation) = names.by_oid(oid) else { continue };
            let owner = Some(relation.owner);
            let rules = self.events_of(oid).into_iter().flat_map(|event| active(relation, event, names));
            open.extend(rules.flat_map(|rule| &rule.touches).map(|touch| (touch.oid, owner, false)));
            let reach = self.reach(relation, names);
            let bases = relation.bases.iter().filter(|base| reaches(reach, relation, base.oid));
            let below = if relation.is_invoker { asking } else { owner };
            if relation.kind == RelationKind::View {
                open.extend(bases.map(|base| (base.oid, below, reach == Reach::All)));
            }
            open.extend(self.secured(names, relation, role, shown).into_iter().map(|oid| (oid, role, false)));
        }
    }

    /// Adds what the policies of one relation touch when a role comes to it, through a view that shows it or not.
    fn secured(&mut self, names: Names<'_>, relation: &Relation, role: Option<u32>, shown: bool) -> Vec<u32> {
        let full = relation.full_name();
        let Some(role) = role else {
            for policy in &relation.policies {
                let name = quoted(&policy.name);
                self.doubt(format!(
                    "row security policy {name} of {full} may touch more: the role is not known"
                ));
            }
            return Vec::new();
        };
        let changed = self.changed.contains(&relation.oid);
        let events = self.events_of(relation.oid);
        // MERGE names no event, and the policies of all commands are put in.
        let does = |change| events.contains(&change) || (changed && events.is_empty());
        let (inserts, updates, deletes) = (does(Change::Insert), does(Change::Update), does(Change::Delete));
        let columns = (relation.oid, i16::MIN)..=(relation.oid, i16::MAX);
        let reads = shown
            || !changed
            || self.sources.contains(&relation.oid)
            || self.seen.range(columns.clone()).next().is_some()
            || self.reads.range(columns).next().is_some();
        let mut found = Vec::new();
        for policy in names.schema.policies_for(relation, role) {
            let is = |command| policy.command == command || policy.command == '*';
            let looks = (is('r') && reads) || (is('w') && (updates || self.locks)) || (is('d') && deletes);
            let checks =
                (is('a') && inserts) || (is('w') && updates) || (is('r') && reads && (inserts || updates));
            if (looks || checks) && !policy.functions.is_empty() {
                let name = quoted(&policy.name);
                self.doubt(format!(
                    "row security policy {name} of {full} calls {}, which may touch more",
                    policy.functions
                ));
            }
            let looked = policy.looks.iter().filter(|_| looks);
            for touch in looked.chain(policy.checks.iter().filter(|_| checks)) {
                self.tables.insert(touch.oid);
                self.read_base(names, touch.oid, &touch.selected, false);
                found.push(touch.oid);
            }
        }
        found
    }

    /// Follows views and writes every list out, sorted.
    pub(crate) fn write(&mut self, names: Names<'_>) -> Written {
        let mut via = BTreeSet::new();
        std::mem::take(&mut self.within).into_iter().for_each(|inner| self.absorb(inner));
        let direct = self.tables.clone();
        self.follow_events(names);
        self.follow_policies(names, &direct);
        self.follow_views(names, &mut via);
        let mut triggered = Vec::new();
        self.follow_changes(names, &mut triggered);
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
            via: sorted(&via)
                .into_iter()
                .chain(triggered)
                .chain(std::mem::take(&mut self.through))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
        }
    }
}

/// The rules that an event of a relation fires.
fn active<'r>(relation: &'r Relation, event: Change, names: Names<'_>) -> impl Iterator<Item = &'r Rule> {
    let replica = names.replica;
    relation.rules.iter().filter(move |rule| rule.event == event && rule.fires.in_session(replica))
}

/// Whether rules or triggers do something else instead.
fn replaced(view: &Relation, event: Change, names: Names<'_>) -> bool {
    view.has_instead_triggers || active(view, event, names).any(|rule| rule.instead)
}

fn reaches(reach: Reach, view: &Relation, base: u32) -> bool {
    match reach {
        Reach::All => true,
        Reach::Own => view.origins.iter().any(|origin| origin.base == base),
        Reach::Nothing => false,
    }
}

fn column_name(names: Names<'_>, (oid, number): Col) -> Option<String> {
    let relation = names.by_oid(oid)?;
    Some(format!("{}.{}", relation.full_name(), quoted(relation.column_name(number)?)))
}
