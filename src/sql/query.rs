//! SELECT, INSERT, UPDATE, DELETE, MERGE, VALUES, TABLE: parse, lower, resolve.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::analysis::{Class, Draft, Effect};
use super::define::Made;
use super::lower;
use super::objects::TEMPORARY;
use super::raw;
use super::resolve::Resolver;
use super::reword::Words;
use super::touched::Touched;
use super::tree as t;
use super::utility::Statement;
use super::{Settings, TOKENS_MAX};

/// How deep the parser may recurse.
const PARSER_DEPTH_MAX: usize = 200;

/// The most comments of a statement that the second reader gets.
const COMMENTS_MAX: usize = 1000;

/// Who read a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    First,
    Second,
}

/// Parses one statement, in the plain spelling of `reword`.
pub(crate) fn parse(text: &str) -> Result<t::Statement, String> {
    let dialect = PostgreSqlDialect {};
    let parser = Parser::new(&dialect).with_recursion_limit(PARSER_DEPTH_MAX);
    let mut parsed = parser
        .try_with_sql(text)
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error| format!("not understood: {}", clip(&error.to_string())))?;
    match (parsed.pop(), parsed.is_empty()) {
        (Some(one), true) => lower::statement(one).map_err(|what| format!("not understood: {}", what.0)),
        _ => Err("not understood: not one statement".to_owned()),
    }
}

/// Asks PostgreSQL's own grammar.
pub(crate) fn read_raw(text: &str, settings: &Settings<'_>) -> Result<t::Statement, String> {
    // Nested comments cost the parser the square of their depth.
    if text.matches("/*").count() > COMMENTS_MAX || text.contains('\0') {
        return Err("not understood: too many comments".to_owned());
    }
    raw::statement(&settings.grammar.raw_tree(text, settings.standard_conforming_strings)?)
}

/// Reads one statement, which stands alone, with the first reader that understands it.
pub(crate) fn read(text: &str, settings: &Settings<'_>) -> Result<t::Statement, String> {
    let words = Words::read(text, settings.standard_conforming_strings, TOKENS_MAX)
        .ok_or_else(|| "not understood: too many tokens".to_owned())?;
    parse(&words.reworded(0, words.len())).or_else(|first| read_raw(text, settings).map_err(|_| first))
}

/// What the parser expected. What it found is left out: a constant is data, and another's, once the reading is cached.
fn clip(message: &str) -> String {
    let expected = message.split(", found").next().unwrap_or_default();
    let plain = !expected.contains(['\'', '"', '`']) && !expected.contains(|c: char| c.is_ascii_digit());
    let told = if plain { expected } else { "the parser expected something else" };
    told.chars().take(120).collect()
}

impl<'a> Statement<'a> {
    /// A statement that reads or writes rows, from one token to before another.
    pub(crate) fn rows(&self, from: usize, to: usize, draft: &mut Draft) {
        // Of which tables makes no difference but to their row security.
        let locks =
            |at| self.words.is(at, "for") && self.words.is_any(at + 1, &["update", "no", "share", "key"]);
        draft.touched.locks |= (from..to).any(locks);
        match self.read_rows(from, to) {
            Ok((parsed, reader)) => {
                let before = draft.touched.clone();
                self.resolved(&parsed, draft);
                if reader == Reader::First && draft.touched.doubts.1 > before.doubts.1 {
                    self.resolved_anew(from, to, before, draft);
                }
            }
            Err(note) => {
                self.name_rows(from, draft);
                self.guess(from, to, &note, draft);
            }
        }
    }

    /// By the first reader that understands it; what the first one said if none does.
    fn read_rows(&self, from: usize, to: usize) -> Result<(t::Statement, Reader), String> {
        let second = || read_raw(self.words.between(from, to), self.settings);
        if self.settings.grammar.is_first()
            && let Ok(parsed) = second()
        {
            return Ok((parsed, Reader::Second));
        }
        if self.has_expressions_as_arbiter(from, to) {
            return second().map(|parsed| (parsed, Reader::Second));
        }
        match parse(&self.words.reworded(from, to)) {
            Ok(parsed) => Ok((parsed, Reader::First)),
            Err(note) => second().map(|parsed| (parsed, Reader::Second)).map_err(|_| note),
        }
    }

    /// The first reader found columns that nothing has: the second may see what they are.
    fn resolved_anew(&self, from: usize, to: usize, before: Touched, draft: &mut Draft) {
        let Ok(parsed) = read_raw(self.words.between(from, to), self.settings) else { return };
        let (touched, outs) = self.resolve(&parsed, before);
        if touched.doubts.1 < draft.touched.doubts.1 {
            (draft.touched, draft.outs) = (touched, outs);
        }
    }

    /// `ON CONFLICT (…) [WHERE …]` with more than plain names, which the first reader does not take.
    fn has_expressions_as_arbiter(&self, from: usize, to: usize) -> bool {
        let words = self.words;
        let opens =
            |at: &usize| words.mark(*at, "(") && words.is(at - 1, "conflict") && words.is(at - 2, "on");
        let Some(open) = (from + 2..to).find(opens) else { return false };
        let close = self.skip_group(open);
        let plain = |at: usize| words.name(at).is_some() || words.mark(at, ",");
        !words.is(close, "do") || !(open + 1..close.saturating_sub(1)).all(plain)
    }

    fn resolved(&self, parsed: &t::Statement, draft: &mut Draft) {
        (draft.touched, draft.outs) = self.resolve(parsed, std::mem::take(&mut draft.touched));
        self.classify(parsed, draft);
    }

    /// What a statement touches besides what is known, and the names of the columns that it shows when all are known.
    fn resolve(&self, parsed: &t::Statement, touched: Touched) -> (Touched, Option<Vec<String>>) {
        let mut resolver = Resolver::new(self.schema, self.settings);
        resolver.touched = touched;
        let outs = resolver.statement(parsed);
        let touched = resolver.touched;
        let outs = (!touched.shapeless).then(|| outs.into_iter().map(|out| out.name).collect());
        (touched, outs)
    }

    fn classify(&self, parsed: &t::Statement, draft: &mut Draft) {
        match parsed {
            t::Statement::Query(query) => {
                match &query.body {
                    t::Body::Change(inner) => self.classify(inner, draft),
                    _ => draft.is("SELECT", Class::Read),
                }
                if let Some(target) = into(&query.body) {
                    draft.is("SELECT INTO", Class::Ddl);
                    draft.effect = Effect::Ddl;
                    // INTO [LOCAL | GLOBAL] TEMP name
                    let temporary = (2..self.words.len()).any(|at| {
                        let into = self.words.is(at - 1, "into") || self.words.is(at - 2, "into");
                        into && self.words.is_any(at, TEMPORARY)
                    });
                    let columns = draft.outs.take();
                    self.made(target, Made { temporary, columns, ..Made::default() }, draft);
                }
                self.classify_ctes(query, draft);
            }
            t::Statement::Insert(_) => draft.is("INSERT", Class::Write),
            t::Statement::Update(_) => draft.is("UPDATE", Class::Write),
            t::Statement::Delete(_) => draft.is("DELETE", Class::Write),
            t::Statement::Merge(_) => draft.is("MERGE", Class::Write),
        }
    }

    fn classify_ctes(&self, query: &t::Query, draft: &mut Draft) {
        let tables = query.with.iter().flat_map(|with| &with.tables);
        for cte in tables {
            if matches!(cte.query.body, t::Body::Change(_)) {
                draft.class.push(Class::Write);
            }
        }
    }

    fn name_rows(&self, from: usize, draft: &mut Draft) {
        let mut at = from;
        while self.words.mark(at, "(") {
            at += 1;
        }
        let command =
            ["insert", "update", "delete", "merge"].into_iter().find(|word| self.words.is(at, word));
        match command {
            Some(command) => draft.is(&command.to_ascii_uppercase(), Class::Write),
            None => draft.is("SELECT", Class::Read),
        }
        let writes = |at: usize| self.words.is_any(at, &["insert", "update", "delete", "merge"]);
        if self.words.is(at, "with") && (at..self.words.len()).any(writes) {
            draft.class.push(Class::Write);
        }
        draft.touched.volatile = true;
    }
}

fn into(body: &t::Body) -> Option<&t::Name> {
    match body {
        t::Body::Select(select) => select.into.as_ref(),
        t::Body::Set(branches) => branches.first().and_then(into),
        t::Body::Query(query) => into(&query.body),
        _ => None,
    }
}
