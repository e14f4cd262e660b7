//! Whether one merged record answers a query: the plain reading of the syntax tree.
//!
//! What the index answers for all records, this answers for one (a live tail, an alert rule), and
//! the tests compare the two.

use std::net::Ipv6Addr;

use serde_json::Value;

use super::field::{Field, Kind};
use super::query::{Leaf, Node, Text};
use super::{value, words};
use crate::view::{self, View};

pub(crate) fn matches(node: &Node, view: &View) -> bool {
    match node {
        Node::All => true,
        Node::And(nodes) => nodes.iter().all(|node| matches(node, view)),
        Node::Or(nodes) => nodes.iter().any(|node| matches(node, view)),
        Node::Not(node) => !matches(node, view),
        Node::Leaf(leaf) => leaf_matches(leaf, view),
    }
}

fn leaf_matches(leaf: &Leaf, view: &View) -> bool {
    match leaf {
        Leaf::Exists(field) => exists(*field, view),
        Leaf::Word { field, value, prefix } => strings(view, *field).any(|text| match field.kind() {
            Kind::Person => words::person(text).iter().any(|form| same(form, value, *prefix)),
            _ => same(&text.to_lowercase(), value, *prefix),
        }),
        Leaf::Object { field, tail, prefix } => object(view, *field, tail, *prefix),
        Leaf::Text { field, text } => texts(view, *field).iter().any(|value| text_matches(text, value)),
        Leaf::Free { text, object: named } => {
            [Field::Sql, Field::Params, Field::Error]
                .into_iter()
                .any(|field| texts(view, field).iter().any(|value| text_matches(text, value)))
                || name_matches(text, view)
                || named.as_ref().is_some_and(|(tail, prefix)| {
                    [Field::Tables, Field::Via, Field::Columns]
                        .into_iter()
                        .any(|field| object(view, field, tail, *prefix))
                })
        }
        Leaf::Number { field, min, max } => {
            view.get(field.name()).and_then(Value::as_u64).is_some_and(|value| (*min..=*max).contains(&value))
        }
        Leaf::Time { min, max } => time(view).is_some_and(|at| (*min..=*max).contains(&at)),
        Leaf::Ip { min, max } => ip(view).is_some_and(|ip| (*min..=*max).contains(&ip)),
    }
}

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
    [Field::Tables, Field::Columns, Field::Via].into_iter().flat_map(|field| strings(view, field))
}

pub(crate) fn exists(field: Field, view: &View) -> bool {
    match field.kind() {
        Kind::Count | Kind::Duration => view.get(field.name()).is_some_and(Value::is_u64),
        Kind::Time => time(view).is_some(),
        Kind::Ip => ip(view).is_some(),
        Kind::Text => !texts(view, field).is_empty(),
        Kind::Keyword | Kind::Person | Kind::Object => strings(view, field).next().is_some(),
    }
}

pub(crate) fn time(view: &View) -> Option<i64> {
    view.get(Field::Time.name()).and_then(Value::as_str).and_then(view::parse_time).map(|at| at.0)
}

pub(crate) fn ip(view: &View) -> Option<Ipv6Addr> {
    view.get(Field::Ip.name()).and_then(Value::as_str).and_then(value::address)
}

fn object(view: &View, field: Field, tail: &str, prefix: bool) -> bool {
    strings(view, field).any(|name| words::tails(name).iter().any(|form| same(form, tail, prefix)))
}

fn same(have: &str, want: &str, prefix: bool) -> bool {
    if prefix { have.starts_with(want) } else { have == want }
}

fn name_matches(text: &Text, view: &View) -> bool {
    let names = words::name_words(names(view));
    let wanted = text.whole.iter().chain(text.phrase.first().filter(|_| text.phrase.len() == 1));
    wanted.into_iter().any(|wanted| names.iter().any(|name| same(name, wanted, text.prefix)))
}

fn text_matches(text: &Text, value: &str) -> bool {
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
