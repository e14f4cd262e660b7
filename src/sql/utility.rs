//! Every other statement, read from its tokens: what it names, and what is analysed inside it.

use crate::catalog::{Relation, RelationKind, Schema, When};

use super::Settings;
use super::analysis::{Class, Draft, Effect};
use super::bodies::Body;
use super::lex::Kind;
use super::own::Names;
use super::resolve::Resolver;
use super::reword::Words;
use super::scope::{Item, Rel, Shape};
use super::tree::{self as t, Name};

/// One statement and what its names are looked up in.
pub(crate) struct Statement<'a> {
    pub(crate) words: &'a Words<'a>,
    pub(crate) schema: &'a Schema,
    pub(crate) settings: &'a Settings<'a>,
}

impl<'a> Statement<'a> {
    /// Analyses the statement from one token to before another.
    pub(crate) fn analyze(&self, from: usize, to: usize, draft: &mut Draft) {
        const ROWS: &[&str] = &["select", "insert", "update", "delete", "merge", "values", "with", "table"];
        let words = self.words;
        if words.is_any(from, ROWS) || words.mark(from, "(") {
            return self.rows(from, to, draft);
        }
        match words.raw(from).to_ascii_lowercase().as_str() {
            "explain" => self.explain(from, to, draft),
            "copy" => self.copy(from, to, draft),
            "declare" => self.declare(from, to, draft),
            "prepare" if !words.is(from + 1, "transaction") => self.prepare(from, to, draft),
            "create" => self.create(from, to, draft),
            "refresh" => self.refresh(from, draft),
            "truncate" => {
                draft.is("TRUNCATE TABLE", Class::Write);
                self.table_list(self.skip(from + 1, &["table"]), true, draft);
            }
            "lock" => {
                draft.is("LOCK TABLE", Class::Misc);
                self.table_list(self.skip(from + 1, &["table"]), false, draft);
            }
            "vacuum" | "analyze" | "analyse" | "cluster" => self.maintenance(from, draft),
            "alter" | "drop" | "comment" | "reindex" | "grant" | "revoke" | "security" | "import"
            | "reassign" => {
                self.change_objects(from, to, draft);
            }
            "do" | "call" => self.hidden(from, to, draft),
            "" => draft.is("EMPTY", Class::Misc),
            _ => {
                if !self.session(from, to, draft) {
                    self.name_command(draft);
                    self.guess(from, to, "not understood: unknown kind of statement", draft);
                }
            }
        }
    }

    /// The command of a statement that is not looked into.
    pub(crate) fn name_command(&self, draft: &mut Draft) {
        let first: String = self.words.raw(0).chars().take(63).collect();
        draft.is(&first.to_ascii_uppercase(), Class::Misc);
        draft.touched.volatile = true;
    }

    /// The relations that a statement seems to name, when it could not be read.
    pub(crate) fn guess(&self, from: usize, to: usize, note: &str, draft: &mut Draft) {
        const BEFORE: &[&str] =
            &["from", "join", "into", "update", "using", "table", "only", "on", "copy", "view"];
        draft.unread = true;
        draft.touched.doubt(note.to_owned());
        let mut at = from;
        while at < to {
            let opens = at > from
                && (self.words.is_any(at - 1, BEFORE)
                    || self.words.mark(at - 1, ",")
                    || self.words.mark(at - 1, "("));
            match self.name_at(at) {
                Some((name, next)) if opens || at == from => {
                    if let Some(relation) = self.relation(&name) {
                        draft.touched.tables.insert(relation.oid);
                    }
                    at = next;
                }
                _ => at += 1,
            }
        }
        if !draft.touched.tables.is_empty() {
            draft.touched.note("tables were found by their names alone; columns are not known".to_owned());
        }
    }

    /// Skips any of the words.
    pub(crate) fn skip(&self, mut at: usize, words: &[&str]) -> usize {
        while self.words.is_any(at, words) {
            at += 1;
        }
        at
    }

    /// From `(` to behind its `)`; anything else stays where it is.
    pub(crate) fn skip_group(&self, at: usize) -> usize {
        if !self.words.mark(at, "(") {
            return at;
        }
        let mut depth = 0usize;
        for here in at..self.words.len() {
            if self.words.mark(here, "(") {
                depth += 1;
            } else if self.words.mark(here, ")") {
                depth -= 1;
                if depth == 0 {
                    return here + 1;
                }
            }
        }
        self.words.len()
    }

    /// A possibly qualified name, and the token behind it.
    pub(crate) fn name_at(&self, mut at: usize) -> Option<(Name, usize)> {
        let mut name = vec![self.words.name(at)?];
        at = self.behind_name(at);
        while self.words.mark(at, ".") {
            name.push(self.words.name(at + 1)?);
            at = self.behind_name(at + 1);
        }
        Some((name, at))
    }

    fn behind_name(&self, at: usize) -> usize {
        let unicode = self.words.token(at).is_some_and(|token| token.kind == Kind::UnicodeQuoted);
        if unicode && self.words.is(at + 1, "uescape") { at + 3 } else { at + 1 }
    }

    pub(crate) fn names(&self) -> Names<'a> {
        Names {
            schema: self.schema,
            path: self.settings.search_path,
            own: self.settings.own,
            role: self.settings.role,
            replica: self.settings.replica,
        }
    }

    pub(crate) fn relation(&self, name: &[String]) -> Option<&'a Relation> {
        self.names().relation(name)
    }

    /// `[ONLY] name [*], …`
    fn table_list(&self, mut at: usize, changes: bool, draft: &mut Draft) {
        loop {
            at = self.skip(at, &["only"]);
            let parenthesised = usize::from(self.words.mark(at, "("));
            let Some((name, next)) = self.name_at(at + parenthesised) else { return };
            self.named(&name, changes, draft);
            at = next + parenthesised;
            at += usize::from(self.words.mark(at, "*"));
            if !self.words.mark(at, ",") {
                return;
            }
            at += 1;
        }
    }

    fn named(&self, name: &[String], changes: bool, draft: &mut Draft) {
        match self.relation(name) {
            Some(relation) => {
                draft.touched.tables.insert(relation.oid);
                if changes {
                    draft.touched.changed.insert(relation.oid);
                }
            }
            None => draft.touched.missing(name, self.names().find(name)),
        }
    }

    fn explain(&self, from: usize, to: usize, draft: &mut Draft) {
        let mut at = from + 1;
        let mut runs = false;
        // A query may begin with a parenthesis too.
        let query =
            self.words.is_any(at + 1, &["select", "with", "values", "table"]) || self.words.mark(at + 1, "(");
        if self.words.mark(at, "(") && !query {
            let end = self.skip_group(at);
            runs = self.runs(at, end);
            at = end;
        } else {
            while self.words.is_any(at, &["analyze", "analyse", "verbose"]) {
                runs |= self.words.is_any(at, &["analyze", "analyse"]);
                at += 1;
            }
        }
        self.analyze(at, to, draft);
        "EXPLAIN".clone_into(&mut draft.command);
        if !runs {
            draft.class = vec![Class::Misc];
            draft.effect = Effect::None;
            draft.created = None;
            draft.touched.settings.clear();
            draft.touched.volatile = false;
            draft.touched.unsettling = false;
            draft.changes.clear();
            draft.touched.note("planned only: no rows were read or written".to_owned());
        }
    }

    /// Whether an option list says ANALYZE, in any spelling of true; the last one counts.
    fn runs(&self, from: usize, to: usize) -> bool {
        let mut runs = false;
        for at in from + 1..to {
            let opens = self.words.mark(at - 1, "(") || self.words.mark(at - 1, ",");
            if opens && self.words.is_any(at, &["analyze", "analyse"]) {
                let value = self.words.string(at + 1).unwrap_or_else(|| self.words.raw(at + 1).to_owned());
                let off = ["off", "false", "0", "f", "no", "n", "of", "fa", "fal", "fals"];
                runs = !off.contains(&value.to_ascii_lowercase().as_str());
            }
        }
        runs
    }

    fn declare(&self, from: usize, to: usize, draft: &mut Draft) {
        let cursor = self.words.name(from + 1).unwrap_or_default();
        let body = (from..to).find(|at| self.words.is(*at, "for")).unwrap_or(to);
        let hold = (from..body).any(|at| self.words.is(at, "hold") && self.words.is(at - 1, "with"));
        self.analyze(body + 1, to, draft);
        "DECLARE CURSOR".clone_into(&mut draft.command);
        draft.effect = Effect::Declare { cursor, hold };
    }

    fn prepare(&self, from: usize, to: usize, draft: &mut Draft) {
        let name = self.words.name(from + 1).unwrap_or_default();
        let at = self.skip_group(from + 2) + 1;
        self.analyze(at, to, draft);
        "PREPARE".clone_into(&mut draft.command);
        draft.class = vec![Class::Misc];
        draft.touched.settings.clear();
        draft.touched.volatile = false;
        draft.touched.unsettling = false;
        draft.changes.clear();
        draft.touched.note("prepared only: nothing was run".to_owned());
        let start = self.words.token(at).map_or(0, |token| token.start);
        let end = to.checked_sub(1).and_then(|last| self.words.token(last)).map_or(start, |token| token.end);
        draft.effect = Effect::Prepare { name, text: start..end.max(start) };
    }

    fn refresh(&self, from: usize, draft: &mut Draft) {
        draft.is("REFRESH MATERIALIZED VIEW", Class::Ddl);
        draft.effect = Effect::None;
        let at = self.skip(from + 1, &["materialized", "view", "concurrently"]);
        let Some((name, next)) = self.name_at(at) else { return };
        self.named(&name, true, draft);
        if self.words.is(next, "with") && self.words.is(next + 1, "no") {
            return;
        }
        let Some(view) = self.relation(&name).filter(|found| found.kind == RelationKind::MaterializedView)
        else {
            return;
        };
        draft.touched.called(self.names(), view, |when| when == When::Looked);
        for base in &view.bases {
            draft.touched.tables.insert(base.oid);
            for column in &base.columns {
                draft.touched.seen.insert((base.oid, *column));
                draft.touched.reads.insert((base.oid, *column));
            }
        }
    }

    fn maintenance(&self, from: usize, draft: &mut Draft) {
        let command = self.words.raw(from).to_ascii_uppercase();
        draft.is(if command == "ANALYSE" { "ANALYZE" } else { &command }, Class::Misc);
        let mut at = self.skip_group(from + 1);
        at = self.skip(at, &["full", "freeze", "verbose", "analyze", "analyse"]);
        while let Some((name, next)) = self.name_at(at) {
            self.named(&name, false, draft);
            at = self.skip_group(next);
            if !self.words.mark(at, ",") {
                return;
            }
            at += 1;
        }
    }

    fn hidden(&self, from: usize, to: usize, draft: &mut Draft) {
        if self.words.is(from, "call") {
            // CALL f(…) evaluates its arguments as SELECT f(…) does.
            let text = format!("SELECT {}", self.words.reworded(from + 1, to));
            match super::query::parse(&text) {
                Ok(parsed) => {
                    let mut resolver = Resolver::new(self.schema, self.settings);
                    resolver.touched = std::mem::take(&mut draft.touched);
                    resolver.statement(&parsed);
                    draft.touched = resolver.touched;
                }
                Err(note) => draft.touched.doubt(note),
            }
            draft.is("CALL", Class::Function);
            draft.touched.doubt("the procedure may touch more".to_owned());
        } else {
            draft.is("DO", Class::Function);
            draft.unread = true;
            draft.touched.doubt("the block may touch anything".to_owned());
            draft.touched.unsettling |= self.block_unsettles(from, to);
            for body in (from + 1..to).filter_map(|at| self.words.string(at)) {
                draft.touched.tables.extend(Body::read(&body, self.names()).relations);
            }
        }
        draft.effect = Effect::MayHideDdl;
    }

    /// Whether what a DO block says may change what the session has set.
    fn block_unsettles(&self, from: usize, to: usize) -> bool {
        let mut language = false;
        (from + 1..to).any(|at| {
            let after = std::mem::replace(&mut language, self.words.is(at, "language"));
            if after {
                let name = self.words.string(at).or_else(|| self.words.name(at));
                return name.as_deref() != Some("plpgsql");
            }
            self.words.string(at).is_some_and(|body| self.schema.unsettles(&body))
        })
    }

    fn copy(&self, from: usize, to: usize, draft: &mut Draft) {
        let mut at = self.skip(from + 1, &["binary"]);
        if self.words.mark(at, "(") {
            let end = self.skip_group(at);
            self.analyze(at + 1, end.saturating_sub(1), draft);
            "COPY".clone_into(&mut draft.command);
            draft.effect = self.copy_place(end, draft);
            return;
        }
        let Some((name, next)) = self.name_at(at) else {
            draft.is("COPY", Class::Misc);
            return self.guess(from, to, "not understood: COPY without a table", draft);
        };
        at = next;
        let columns = self.column_list(at);
        at = self.skip_group(at);
        let reads = self.words.is(at, "to");
        draft.is("COPY", if reads { Class::Read } else { Class::Write });
        self.named(&name, !reads, draft);
        if let Some(relation) = self.relation(&name) {
            if relation.kind == RelationKind::View && reads {
                draft.touched.refused.insert(relation.oid);
            }
            self.copied(relation, &columns, reads, draft);
            if !reads {
                self.copy_filter(relation, at, to, draft);
            }
        }
        draft.effect = self.copy_place(at, draft);
    }

    pub(crate) fn column_list(&self, at: usize) -> Vec<String> {
        if !self.words.mark(at, "(") {
            return Vec::new();
        }
        (at + 1..self.skip_group(at)).filter_map(|at| self.words.name(at)).collect()
    }

    fn copied(&self, relation: &Relation, columns: &[String], reads: bool, draft: &mut Draft) {
        let mut numbers: Vec<i16> = Vec::new();
        if columns.is_empty() {
            numbers.extend(
                relation.columns.iter().filter(|column| !column.generated).map(|column| column.number),
            );
        }
        for name in columns {
            match relation.column(name) {
                Some(column) => numbers.push(column.number),
                None => draft.touched.doubt(format!("unknown column {name} of {}", relation.full_name())),
            }
        }
        let copied = numbers.iter().map(|number| (relation.oid, *number));
        if reads {
            draft.touched.reads.extend(copied.clone());
            draft.touched.seen.extend(copied);
        } else {
            draft.touched.writes.extend(copied);
        }
    }

    /// `COPY … FROM … WHERE condition`, parsed as that of a query.
    fn copy_filter(&self, relation: &'a Relation, from: usize, to: usize, draft: &mut Draft) {
        let Some(at) = (from..to).find(|at| self.words.is(*at, "where")) else { return };
        let text = format!("SELECT 1 {}", self.words.reworded(at, to));
        let parsed = super::query::parse(&text);
        let Ok(t::Statement::Query(t::Query { body: t::Body::Select(select), .. })) = &parsed else {
            return draft.touched.doubt("not understood: the condition of COPY".to_owned());
        };
        let Some(filter) = &select.filter else { return };
        let shape = Shape::Table { relation, renamed: Vec::new() };
        let item = Item { name: relation.name.to_string(), aliased: false, shape };
        let mut resolver = Resolver::new(self.schema, self.settings);
        resolver.touched = std::mem::take(&mut draft.touched);
        resolver.predicate(Some(Rel::Item(item)), filter);
        draft.touched = resolver.touched;
    }

    fn copy_place(&self, at: usize, draft: &mut Draft) -> Effect {
        match (self.words.is_any(at + 1, &["stdin", "stdout"]), self.words.is(at, "to")) {
            (true, true) => Effect::CopyToStdout,
            (true, false) => Effect::CopyFromStdin,
            (false, _) => {
                let program = self.words.is(at + 1, "program");
                let place = if program { "a program of the server" } else { "a file of the server" };
                draft.touched.note(format!("rows pass through {place}"));
                Effect::CopyServerSide
            }
        }
    }
}
