//! CREATE and DROP of what hangs on a relation, read from the text: rules, triggers and policies, so that a session's
//! next statement is read with them before the catalog tells of them. What the text does not tell is said to be unknown.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::catalog::{Change, Fires, Policy, Relation, Rule, Touch, Trigger};

use super::analysis::Draft;
use super::own::{Becomes, lookup_order};
use super::query;
use super::resolve::Resolver;
use super::scope::{Item, Rel, Shape};
use super::touched::Touched;
use super::utility::Statement;

/// `pg_trigger.tgtype`: TRIGGER_TYPE_INSERT, _DELETE, _UPDATE, _TRUNCATE, _INSTEAD.
const BITS: [(&str, u32); 5] =
    [("insert", 4), ("delete", 8), ("update", 16), ("truncate", 32), ("instead", 64)];
const INSTEAD: u32 = 64;
/// No function has this oid.
const NO_FUNCTION: u32 = 0;
/// The row of NEW and OLD: of no relation that is told of.
const ROW: u32 = u32::MAX;

impl Statement<'_> {
    /// `CREATE TRIGGER`, `RULE` or `POLICY`, from its name on.
    pub(crate) fn hooked(&self, kind: &str, at: usize, to: usize, draft: &mut Draft) {
        for oid in draft.touched.tables.clone() {
            let Some(relation) = self.names().by_oid(oid) else { continue };
            let mut after = relation.clone();
            match kind {
                "POLICY" => after.policies.push(unknown_policy()),
                "TRIGGER" => after.triggers.push(self.trigger(at, to)),
                _ => match self.rule(relation, at, to) {
                    Some(rule) => {
                        after.rules.retain(|known| known.name != rule.name);
                        after.rules.push(rule);
                    }
                    None => after.triggers.push(unknown_trigger()),
                },
            }
            after.has_instead_triggers |= after.triggers.iter().any(|trigger| is_instead(trigger.bits));
            self.change(relation, Becomes::Known(Arc::new(after)), draft);
        }
    }

    /// `DROP RULE`, from its name on: triggers and policies stay, for what was not read of them.
    pub(crate) fn unhooked(&self, kind: &str, at: usize, draft: &mut Draft) {
        let Some(name) = self.words.name(at).filter(|_| kind == "RULE") else { return };
        for oid in draft.touched.tables.clone() {
            let Some(relation) = self.names().by_oid(oid) else { continue };
            let mut after = relation.clone();
            after.rules.retain(|known| *known.name != *name);
            self.change(relation, Becomes::Known(Arc::new(after)), draft);
        }
    }

    fn trigger(&self, at: usize, to: usize) -> Trigger {
        let words = self.words;
        let execute = (at..to)
            .rev()
            .find(|at| words.is(*at, "execute") && words.is_any(at + 1, &["function", "procedure"]));
        let on = (at..to).find(|at| words.is(*at, "on"));
        let (Some(execute), Some(on)) = (execute, on) else { return unknown_trigger() };
        let Some((name, _)) = self.name_at(execute + 2) else { return unknown_trigger() };
        let is = |word: &str| (at + 1..on).any(|at| words.is(at, word));
        let bits = BITS.iter().filter(|(word, _)| is(word)).fold(0, |all, (_, bit)| all | bit);
        if bits == 0 {
            return unknown_trigger();
        }
        let function = match name.as_slice() {
            [only] => lookup_order(self.settings.search_path)
                .find_map(|schema| self.schema.functions(schema, only).next()),
            [schema, only] | [_, schema, only] => self.schema.functions(schema, only).next(),
            _ => None,
        };
        Trigger { function: function.map_or(NO_FUNCTION, |found| found.oid), bits, fires: Fires::Origin }
    }

    /// What a rule does, when all of it can be read: `name AS ON event TO table [WHERE …] DO [ALSO | INSTEAD] …`.
    fn rule(&self, relation: &Relation, at: usize, to: usize) -> Option<Rule> {
        let words = self.words;
        let name = words.name(at)?;
        let on = (at + 1..to).find(|at| words.is(*at, "on"))?;
        let event = match words.raw(on + 1).to_ascii_lowercase().as_str() {
            "insert" => Change::Insert,
            "update" => Change::Update,
            "delete" => Change::Delete,
            _ => return None,
        };
        let (_, after) = self.name_at(on + 3)?;
        let action = self.outside(after, to).find(|at| words.is(*at, "do"))?;
        let mut all = Touched::default();
        let conditional = words.is(after, "where");
        if conditional {
            all.absorb(self.of_row(relation, &format!("SELECT WHERE {}", words.between(after + 1, action)))?);
        }
        let instead = words.is(action + 1, "instead");
        let mut begin = action + 1 + usize::from(instead || words.is(action + 1, "also"));
        let mut end = to;
        if words.mark(begin, "(") && self.skip_group(begin) == to {
            (begin, end) = (begin + 1, to - 1);
        }
        let nothing = words.is(begin, "nothing");
        if !nothing && !words.is(begin, "notify") {
            let mut from = begin;
            let marks: Vec<usize> = self.outside(begin, end).filter(|at| words.mark(*at, ";")).collect();
            for stop in marks.into_iter().chain(Some(end)) {
                if stop > from {
                    all.absorb(self.of_row(relation, words.between(from, stop))?);
                }
                from = stop + 1;
            }
        }
        let mut touches = touches(&all);
        let row: BTreeSet<i16> =
            all.seen.union(&all.reads).filter(|(oid, _)| *oid == ROW).map(|(_, column)| *column).collect();
        // What a condition looks at beside an action that never is counts for nothing, as in `pg_rewrite`.
        if !nothing && !row.is_empty() {
            let selected = row.into_iter().collect();
            touches.push(Touch { oid: relation.oid, selected, written: Box::default(), changed: None });
        }
        let instead = instead && !conditional;
        Some(Rule { name: name.into(), event, instead, touches, fires: Fires::Origin })
    }

    /// Tokens that stand in no parentheses.
    fn outside(&self, from: usize, to: usize) -> impl Iterator<Item = usize> {
        let mut at = from;
        std::iter::from_fn(move || {
            let here = at;
            at = if self.words.mark(at, "(") { self.skip_group(at) } else { at + 1 };
            (here < to).then_some(here)
        })
    }

    /// What a statement touches that may name NEW and OLD; nothing when it cannot be said for sure.
    fn of_row(&self, relation: &Relation, text: &str) -> Option<Touched> {
        let mut row = relation.clone();
        row.oid = ROW;
        let parsed = query::read(text, self.settings).ok()?;
        let rows = ["new", "old"].map(|name| {
            let shape = Shape::Table { relation: &row, renamed: Vec::new() };
            Rel::Item(Item { name: name.to_owned(), aliased: true, shape })
        });
        let mut resolver = Resolver::new(self.schema, self.settings);
        resolver.statement_over(rows.into(), &parsed);
        let touched = resolver.touched;
        (!touched.incomplete && touched.settings.is_empty()).then_some(touched)
    }
}

/// What was disabled was not read: it may be anything. Policies are loaded only where row security is on.
pub(crate) fn enabled(relation: &mut Relation, policies: bool) {
    if policies {
        relation.policies.push(unknown_policy());
    } else {
        relation.triggers.push(unknown_trigger());
    }
}

fn touches(all: &Touched) -> Vec<Touch> {
    let changes = [Change::Insert, Change::Update, Change::Delete];
    let of = |oid: u32, columns: &mut dyn Iterator<Item = &(u32, i16)>| -> Box<[i16]> {
        columns.filter(|(known, _)| *known == oid).map(|(_, number)| *number).collect()
    };
    let touch = |oid: &u32| Touch {
        oid: *oid,
        selected: of(*oid, &mut all.seen.union(&all.reads)),
        written: of(*oid, &mut all.writes.iter()),
        changed: changes.into_iter().find(|change| all.events.contains(&(*oid, *change))),
    };
    all.tables.iter().map(touch).collect()
}

fn is_instead(bits: u32) -> bool {
    bits != u32::MAX && bits & INSTEAD != 0
}

fn unknown_trigger() -> Trigger {
    Trigger { function: NO_FUNCTION, bits: u32::MAX, fires: Fires::Always }
}

fn unknown_policy() -> Policy {
    Policy {
        name: "of this session".into(),
        command: '*',
        roles: vec![0],
        looks: Vec::new(),
        checks: Vec::new(),
        functions: "what is not known".into(),
    }
}
