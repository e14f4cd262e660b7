//! A query string cut into its statements, each with the key of its analysis, in one pass of the lexer.

use std::ops::Range;

use super::fingerprint::{Printer, key_digest};
use super::lex::Lexer;
use super::split::Cutter;

/// The statements of one string.
#[derive(Debug)]
pub struct Scan {
    keys: Vec<u8>,
    statements: Vec<(Range<usize>, Range<usize>)>,
}

/// Names an analysis under one context: the same bytes only for statements that must have the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a>(&'a [u8]);

impl Key<'_> {
    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0
    }

    /// How the statement's strings were read: the session's `standard_conforming_strings`.
    #[must_use]
    pub fn strings_standard(&self) -> bool {
        self.0.first() == Some(&1)
    }

    /// What [`super::Fingerprint::key`] is.
    #[must_use]
    pub fn digest(&self) -> u128 {
        key_digest(self.0)
    }
}

impl Scan {
    /// Cuts `text` as [`super::split`] does.
    #[must_use]
    pub fn new(text: &[u8], standard_conforming_strings: bool) -> Self {
        let mut statements = Vec::new();
        let (mut cutter, mut printer) =
            (Cutter::new(text, 0), Printer::new(text, standard_conforming_strings));
        let mut from = 0;
        let mut end = |range, printer: &mut Printer<'_>| {
            statements.push((range, from..printer.key.len()));
            from = printer.key.len();
            printer.begin();
        };
        for token in Lexer::new(text, standard_conforming_strings) {
            match cutter.push(token) {
                Some(range) => end(range, &mut printer),
                None => printer.push(token),
            }
        }
        if let Some(range) = cutter.finish(text.len(), text.len()) {
            end(range, &mut printer);
        }
        Self { keys: printer.key, statements }
    }

    /// One statement, which is all of `text`.
    #[must_use]
    pub fn whole(text: &[u8], standard_conforming_strings: bool) -> Self {
        let mut printer = Printer::new(text, standard_conforming_strings);
        Lexer::new(text, standard_conforming_strings).for_each(|token| printer.push(token));
        Self { statements: vec![(0..text.len(), 0..printer.key.len())], keys: printer.key }
    }

    /// How many statements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.statements.len()
    }

    /// Whether there is none: blanks, comments and semicolons only.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// Each statement's place and key, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Range<usize>, Key<'_>)> {
        let key = |range: &Range<usize>| Key(self.keys.get(range.clone()).unwrap_or_default());
        self.statements.iter().map(move |(range, place)| (range.clone(), key(place)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{fingerprint, split};

    #[test]
    fn one_pass_finds_what_cutting_and_fingerprinting_find() {
        let texts = [
            " select 1 ; ; -- x\n; select ';' ;",
            "select a from t where b = 1; select \"set_config\"('a', '', false); set x = 'y'",
            "create function f() returns int begin atomic select 1; select 2; end; select 3",
            "create rule r as on insert to t do also (delete from a; delete from b); select u&\"x\" from t",
            "select a from t order by 1 limit 2; insert into t values (1, 2), (3)",
            r"select 'a\''; delete from t; --'",
            "",
            ";;",
        ];
        for (text, standard) in texts.iter().flat_map(|text| [(text, true), (text, false)]) {
            let scan = Scan::new(text.as_bytes(), standard);
            let found: Vec<_> = scan.iter().map(|(range, key)| (range, key.digest())).collect();
            let expected: Vec<_> = split(text.as_bytes(), standard)
                .into_iter()
                .map(|range| (range.clone(), fingerprint(&text.as_bytes()[range], standard).key))
                .collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
