//! Where a statement's text names what was found in it.

use std::collections::{BTreeMap, BTreeSet};

use super::analysis::Analysis;
use super::reword::Words;
use super::{TEXT_MAX, TOKENS_MAX};

/// A word of a statement, and what it may stand for: by name, so it may be several things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The first character, from 0.
    pub start: usize,
    /// Behind the last.
    pub end: usize,
    /// Tables, columns and functions of that name, in full.
    pub names: Vec<String>,
}

/// The words of `text` that name something of its analysis, in order.
#[must_use]
pub fn spans(text: &str, analysis: &Analysis, standard_conforming_strings: bool) -> Vec<Span> {
    let words = if text.len() <= TEXT_MAX {
        Words::read(text, standard_conforming_strings, TOKENS_MAX)
    } else {
        None
    };
    let Some(words) = words else { return Vec::new() };
    let lists = [&analysis.tables, &analysis.reads, &analysis.filters, &analysis.writes, &analysis.functions];
    let mut known: BTreeMap<String, BTreeSet<&String>> = BTreeMap::new();
    for name in lists.into_iter().flatten() {
        known.entry(last_part(name)).or_default().insert(name);
    }
    let (mut found, mut counted, mut characters) = (Vec::new(), 0, 0);
    for at in 0..words.len() {
        let Some(token) = words.token(at) else { break };
        let Some(names) = words.name(at).and_then(|name| known.get(&name)) else { continue };
        let count = |from: usize, to: usize| text.get(from..to).map_or(0, |part| part.chars().count());
        characters += count(counted, token.start);
        counted = token.start;
        found.push(Span {
            start: characters,
            end: characters + count(token.start, token.end),
            names: names.iter().map(|name| (*name).clone()).collect(),
        });
    }
    found
}

/// The last part of a full name, without quotes.
fn last_part(name: &str) -> String {
    match name.strip_suffix('"').and_then(|rest| Some((rest, rest.rfind(".\"")?))) {
        Some((rest, at)) => rest.get(at + 2..).unwrap_or_default().replace("\"\"", "\""),
        None => name.rsplit('.').next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_where_it_is_written_and_not_inside_strings() {
        let mut analysis = super::super::analysis::unresolved("", "");
        analysis.tables = vec!["public.customers".to_owned(), "public.\"Odd Name\"".to_owned()];
        analysis.reads = vec!["public.customers.email".to_owned()];
        let text = "select 'é email', Email from customers, \"Odd Name\"";
        let found = spans(text, &analysis, true);
        let shown: Vec<(String, &str)> = found
            .iter()
            .map(|span| {
                (text.chars().skip(span.start).take(span.end - span.start).collect(), &*span.names[0])
            })
            .collect();
        let pairs = [
            ("Email", "public.customers.email"),
            ("customers", "public.customers"),
            ("\"Odd Name\"", "public.\"Odd Name\""),
        ];
        assert_eq!(shown, pairs.map(|(word, name)| (word.to_owned(), name)));
    }
}
