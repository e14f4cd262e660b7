//! Functions that may change what the session has set, or make temporary tables: found by the words of their
//! bodies, and of the bodies that call them.
//!
//! It errs to one side: a word in a comment or a column called `role` may raise a doubt that is none. Not looked
//! into: functions in C, and those that only operators, casts, defaults, policies and views call.

use std::collections::HashSet;

use super::{Function, Volatility};

/// Whoever sets one of these, or runs a text that is put together, may change how later statements are read.
const SET: &[&str] = &[
    "role",
    "session",
    "local",
    "search_path",
    "schema",
    "names",
    "client_encoding",
    "standard_conforming_strings",
];
const ALONE: &[&str] = &["set_config", "execute", "discard", "temp", "temporary", "pg_temp"];
const RESET: &[&str] =
    &["role", "session", "search_path", "all", "client_encoding", "standard_conforming_strings"];

/// Bodies are loaded up to this length; beyond, anything may stand.
const BODY_MAX: usize = 65_536;

/// Whether a text sets anything of the session, or makes temporary tables, in its own words; or names one of the
/// functions that do.
pub(super) fn unsettles(text: &str, known: &HashSet<Box<str>>) -> bool {
    let text = text.to_ascii_lowercase();
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let mut before = "";
    text.split(|c| !is_part(c)).filter(|word| !word.is_empty()).any(|word| {
        let last = std::mem::replace(&mut before, word);
        ALONE.contains(&word)
            || (last == "set" && SET.contains(&word))
            || (last == "reset" && RESET.contains(&word))
            || known.contains(word)
    })
}

/// The names of all functions that may.
pub(super) fn names(functions: &[&Function]) -> HashSet<Box<str>> {
    let mut known: HashSet<Box<str>> = HashSet::new();
    loop {
        let found: Vec<Box<str>> = functions
            .iter()
            .filter(|function| !known.contains(&*function.name.to_ascii_lowercase()) && may(function, &known))
            .map(|function| function.name.to_ascii_lowercase().into())
            .collect();
        if found.is_empty() {
            return known;
        }
        known.extend(found);
    }
}

fn may(function: &Function, known: &HashSet<Box<str>>) -> bool {
    if matches!(&*function.schema, "pg_catalog" | "information_schema") || function.kind == 'a' {
        return false;
    }
    match &*function.language {
        "c" | "internal" => false,
        "sql" | "plpgsql" => {
            function.body.as_deref().is_some_and(|body| body.len() >= BODY_MAX || unsettles(body, known))
        }
        _ => function.volatility == Volatility::Volatile,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: bool) {
        assert_eq!(unsettles(text, &HashSet::from(["hop".into()])), expected, "{text}");
    }

    #[test]
    fn what_sets_or_may_set_is_found_by_its_words() {
        check("BEGIN PERFORM set_config('a', 'b', false); END", true);
        check("begin set local Role x; end", true);
        check("SET search_path=billing", true);
        check("RESET ALL", true);
        check("EXECUTE 'SET' || ' ROLE x'", true);
        check("create temp table t (a int)", true);
        check("SELECT hop()", true);
        check("UPDATE t SET name = 'x' WHERE id = 1", false);
        check("SELECT whop(), role FROM users", false);
        check("", false);
    }
}
