//! Where one statement of a simple Query string ends and the next begins, as PostgreSQL's grammar has it.
//!
//! A `;` ends a statement everywhere but inside a `BEGIN ATOMIC … END` routine body and inside the parenthesised
//! actions of `CREATE RULE`. Empty statements are left out.

use std::ops::Range;

use super::lex::{Kind, Lexer, Token};

/// The statements of `text`, in order: each is all that stands between two semicolons, its comments
/// included, trimmed of surrounding blanks.
#[must_use]
pub fn split(text: &[u8], standard_conforming_strings: bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut cutter = Cutter::new(text, 0);
    for token in Lexer::new(text, standard_conforming_strings) {
        if let Some(range) = cutter.push(token) {
            found.push(range);
        }
    }
    found.extend(cutter.finish(text.len(), text.len()));
    found
}

/// What the statement's first words promise about semicolons inside it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Still reading `CREATE [OR REPLACE]`.
    Opening,
    /// `CREATE FUNCTION` or `CREATE PROCEDURE`: a body may follow.
    Routine,
    /// Inside `BEGIN ATOMIC … END`.
    Body,
    /// `CREATE RULE`: parenthesised actions.
    Rule,
    /// Anything else.
    Plain,
}

pub(super) struct Cutter<'a> {
    text: &'a [u8],
    /// Behind the semicolon before.
    from: usize,
    /// Holds more than blanks and comments.
    begun: bool,
    words: usize,
    shape: Shape,
    depth: usize,
    previous: Option<Token>,
}

impl<'a> Cutter<'a> {
    pub(super) fn new(text: &'a [u8], from: usize) -> Self {
        Self { text, from, begun: false, words: 0, shape: Shape::Opening, depth: 0, previous: None }
    }

    /// Takes the next token; the statement that it ended, if it was one's end.
    pub(super) fn push(&mut self, token: Token) -> Option<Range<usize>> {
        if token.kind == Kind::Punct(b';') && !self.inside() {
            return self.finish(token.start, token.end);
        }
        self.begun = true;
        match token.kind {
            Kind::Punct(b'(') => self.depth += 1,
            Kind::Punct(b')') => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.learn(token);
        self.previous = Some(token);
        None
    }

    fn inside(&self) -> bool {
        self.shape == Shape::Body || (self.shape == Shape::Rule && self.depth > 0)
    }

    fn is(&self, token: Token, word: &str) -> bool {
        token.kind == Kind::Word
            && self.text.get(token.range()).is_some_and(|found| found.eq_ignore_ascii_case(word.as_bytes()))
    }

    fn was(&self, word: &str) -> bool {
        self.previous.is_some_and(|token| self.is(token, word))
    }

    fn learn(&mut self, token: Token) {
        match self.shape {
            Shape::Opening => self.shape = self.opening(token),
            Shape::Routine if self.is(token, "atomic") && self.was("begin") => self.shape = Shape::Body,
            Shape::Body if self.is(token, "end") => {
                let after_statement = self.previous.is_some_and(|before| before.kind == Kind::Punct(b';'));
                if after_statement || self.was("atomic") {
                    self.shape = Shape::Plain;
                }
            }
            _ => {}
        }
        self.words += 1;
    }

    fn opening(&self, token: Token) -> Shape {
        let expected = match self.words {
            0 => self.is(token, "create"),
            _ => self.is(token, "or") || self.is(token, "replace"),
        };
        if expected {
            Shape::Opening
        } else if self.words > 0 && (self.is(token, "function") || self.is(token, "procedure")) {
            Shape::Routine
        } else if self.words > 0 && self.is(token, "rule") {
            Shape::Rule
        } else {
            Shape::Plain
        }
    }

    /// What stands before `end`; the next statement begins at `next`.
    pub(super) fn finish(&mut self, end: usize, next: usize) -> Option<Range<usize>> {
        let done = std::mem::replace(self, Self::new(self.text, next));
        let own = self.text.get(done.from..end).filter(|_| done.begun)?;
        let start = done.from + (own.len() - own.trim_ascii_start().len());
        Some(start..start + own.trim_ascii().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, standard: bool, expect: &[&str]) {
        let found: Vec<_> = split(text.as_bytes(), standard).into_iter().map(|range| &text[range]).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn statements_end_at_top_level_semicolons() {
        check(" select 1 ; ; -- x\n; select ';' ;", true, &["select 1", "select ';'"]);
        check(
            "/* a ; */ select 1 /* b */; -- c\nselect 2 -- d",
            true,
            &["/* a ; */ select 1 /* b */", "-- c\nselect 2 -- d"],
        );
        check("", true, &[]);
        check("/* ; */ ;;", true, &[]);
        check("select $a$;$a$; select 2", true, &["select $a$;$a$", "select 2"]);
    }

    #[test]
    fn a_backslash_before_a_quote_hides_a_statement_only_when_strings_conform() {
        let text = r"select 'a\''; delete from t; --'";
        check(text, false, &[r"select 'a\''", "delete from t"]);
        check(text, true, &[r"select 'a\''; delete from t; --'"]);
    }

    #[test]
    fn routine_bodies_and_rule_actions_keep_their_semicolons() {
        let routine = "create or replace function f() returns int begin atomic select case when true then 1 end; select 2 as end; end";
        check(&format!("{routine}; select 3"), true, &[routine, "select 3"]);
        let rule = "create rule r as on insert to t do also (delete from a; delete from b)";
        check(&format!("{rule}; select 3"), true, &[rule, "select 3"]);
        check("begin; select 1; end; select 2", true, &["begin", "select 1", "end", "select 2"]);
    }
}
