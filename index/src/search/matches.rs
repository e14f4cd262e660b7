//! Whether one merged record answers a query: the plain reading of the syntax tree.
//!
//! What the index answers for all records, this answers for one (a live tail, an alert rule), and
//! the tests compare the two.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use rustc_hash::FxBuildHasher;
use serde_json::Value;

use super::facts::Facts;
use super::field::{Field, Kind};
use super::query::{Leaf, Node, Text};
use super::{value, words};
use crate::view::{self, View};

/// What the conditions said of values that records share, so that each is asked once. Good for one
/// query and for as long as the records live.
#[derive(Default)]
pub(crate) struct Memo(HashMap<(usize, usize), bool, FxBuildHasher>);

impl Memo {
    /// The records that were asked do not live any more.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }

    fn ask(&mut self, leaf: &Leaf, shared: Option<usize>, answer: impl FnOnce() -> bool) -> bool {
        match shared {
            None => answer(),
            Some(shared) => *self.0.entry((std::ptr::from_ref(leaf).addr(), shared)).or_insert_with(answer),
        }
    }
}

pub(crate) fn matches(node: &Node, record: &dyn Facts, memo: &mut Memo) -> bool {
    match node {
        Node::All => true,
        Node::And(nodes) => nodes.iter().all(|node| matches(node, record, memo)),
        Node::Or(nodes) => nodes.iter().any(|node| matches(node, record, memo)),
        Node::Not(node) => !matches(node, record, memo),
        Node::Leaf(leaf) => leaf_matches(leaf, record, memo),
    }
}

fn leaf_matches(leaf: &Leaf, record: &dyn Facts, memo: &mut Memo) -> bool {
    match leaf {
        Leaf::Exists(field) => memo.ask(leaf, record.shared(*field), || exists(*field, record)),
        Leaf::Owner { iss, sub } => {
            let is = |field, wanted: &str| {
                !wanted.is_empty() && record.any_text(field, &mut |text| text == wanted)
            };
            memo.ask(leaf, record.shared(Field::Sub), || is(Field::Iss, iss) && is(Field::Sub, sub))
        }
        Leaf::Word { field, value, prefix } => memo.ask(leaf, record.shared(*field), || {
            record.any_text(*field, &mut |text| match field.kind() {
                Kind::Person => words::person(text).iter().any(|form| same(form, value, *prefix)),
                _ => same(&text.to_lowercase(), value, *prefix),
            })
        }),
        Leaf::Object { field, tail, prefix } => {
            memo.ask(leaf, record.shared(*field), || object(record, *field, tail, *prefix))
        }
        Leaf::Text { field, text } => record.any_text(*field, &mut |value| text_matches(text, value)),
        Leaf::Free { text, object: named } => {
            let named = memo.ask(leaf, record.shared(Field::Tables), || {
                name_matches(text, record)
                    || named.as_ref().is_some_and(|(tail, prefix)| {
                        NAMES.into_iter().any(|field| object(record, field, tail, *prefix))
                    })
            });
            named
                || [Field::Sql, Field::Params, Field::Error]
                    .into_iter()
                    .any(|field| record.any_text(field, &mut |value| text_matches(text, value)))
        }
        Leaf::Part { fields, letters } => fields
            .iter()
            .any(|field| record.any_text(*field, &mut |text| words::folded(text).contains(letters.as_str()))),
        Leaf::Number { field, min, max } => {
            record.number(*field).is_some_and(|value| (*min..=*max).contains(&value))
        }
        Leaf::Time { min, max } => record.time().is_some_and(|at| (*min..=*max).contains(&at)),
        Leaf::Ip { min, max } => memo.ask(leaf, record.shared(Field::Ip), || {
            record.ip().is_some_and(|ip| (*min..=*max).contains(&ip))
        }),
    }
}

/// Fields of objects' names; a record has all of them from one shared value or none.
const NAMES: [Field; 3] = [Field::Tables, Field::Columns, Field::Via];

/// The texts of a field: of parameters, the text form of each.
pub(crate) fn texts(view: &View, field: Field) -> Vec<String> {
    if field != Field::Params {
        return strings(view, field).map(str::to_owned).collect();
    }
    let params = view.get(field.name()).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    params.iter().filter_map(param).collect()
}

/// The text form of a parameter.
pub(crate) fn param(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Array(_) => None,
        Value::Object(object) => object.get("hex").and_then(Value::as_str).map(str::to_owned),
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
    }
}

/// The strings of a field, which may be one or a list.
pub(crate) fn strings(view: &View, field: Field) -> impl Iterator<Item = &str> {
    let value = view.get(field.name());
    let one = value.and_then(Value::as_str);
    let many = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    one.into_iter().chain(many.iter().filter_map(Value::as_str)).filter(|text| !text.is_empty())
}

/// Names of objects, for bare words.
pub(crate) fn names(view: &View) -> impl Iterator<Item = &str> {
    NAMES.into_iter().flat_map(|field| strings(view, field))
}

pub(crate) fn exists(field: Field, record: &dyn Facts) -> bool {
    match field.kind() {
        Kind::Count | Kind::Duration => record.number(field).is_some(),
        Kind::Time => record.time().is_some(),
        Kind::Ip => record.ip().is_some(),
        Kind::Text | Kind::Keyword | Kind::Person | Kind::Object => record.any_text(field, &mut |_| true),
    }
}

pub(crate) fn time(view: &View) -> Option<i64> {
    view.get(Field::Time.name()).and_then(Value::as_str).and_then(view::parse_time).map(|at| at.0)
}

pub(crate) fn ip(view: &View) -> Option<Ipv6Addr> {
    view.get(Field::Ip.name()).and_then(Value::as_str).and_then(value::address)
}

fn object(record: &dyn Facts, field: Field, tail: &str, prefix: bool) -> bool {
    record.any_text(field, &mut |name| words::tails(name).iter().any(|form| same(form, tail, prefix)))
}

fn same(have: &str, want: &str, prefix: bool) -> bool {
    if prefix { have.starts_with(want) } else { have == want }
}

fn name_matches(text: &Text, record: &dyn Facts) -> bool {
    let wanted = text.whole.iter().chain(text.phrase.first().filter(|_| text.phrase.len() == 1));
    let wanted: Vec<&String> = wanted.collect();
    NAMES.into_iter().any(|field| {
        record.any_text(field, &mut |name| {
            let words = words::name_words(std::iter::once(name));
            wanted.iter().any(|wanted| words.iter().any(|word| same(word, wanted, text.prefix)))
        })
    })
}

fn text_matches(text: &Text, value: &str) -> bool {
    if !may_match(text, value) {
        return false;
    }
    let words = words::words(value);
    let at = |position: usize, wanted: &str, prefix: bool| {
        words.iter().any(|word| word.position == position && same(&word.text, wanted, prefix))
    };
    if let Some(whole) = &text.whole
        && words.iter().any(|word| same(&word.text, whole, text.prefix))
    {
        return true;
    }
    let Some((last, head)) = text.phrase.split_last() else {
        return false;
    };
    words.iter().any(|start| {
        head.iter().enumerate().all(|(index, wanted)| at(start.position + index, wanted, false))
            && at(start.position + head.len(), last, text.prefix)
    })
}

/// Whether the letters are there at all, which is far quicker to see than the words. Outside ASCII
/// a letter's lower case may depend on its neighbours, so there the words decide.
fn may_match(text: &Text, value: &str) -> bool {
    if !value.is_ascii() {
        return true;
    }
    let value = value.to_ascii_lowercase();
    text.whole.as_ref().is_some_and(|whole| value.contains(whole.as_str()))
        || !text.phrase.is_empty() && text.phrase.iter().all(|word| value.contains(word.as_str()))
}
