//! CREATE, ALTER, DROP, GRANT and their kin: which relations they name.

use crate::catalog::RelationKind;

use super::analysis::{Class, Draft, Effect};
use super::define::{Made, bases};
use super::own::TEMP;
use super::utility::Statement;

/// Words between CREATE and the kind of object.
const MODIFIERS: &[&str] = &[
    "or",
    "replace",
    "temp",
    "temporary",
    "unlogged",
    "global",
    "local",
    "unique",
    "recursive",
    "constraint",
    "trusted",
    "procedural",
    "default",
];

/// What makes a relation the session's own.
pub(crate) const TEMPORARY: &[&str] = &["temp", "temporary"];

/// Kinds of objects of more than one word.
const LONG_KINDS: &[&[&str]] = &[
    &["materialized", "view"],
    &["foreign", "table"],
    &["foreign", "data", "wrapper"],
    &["event", "trigger"],
    &["access", "method"],
    &["operator", "class"],
    &["operator", "family"],
    &["text", "search", "configuration"],
    &["text", "search", "dictionary"],
    &["text", "search", "parser"],
    &["text", "search", "template"],
    &["user", "mapping"],
    &["default", "privileges"],
    &["large", "object"],
];

/// Kinds that are relations themselves.
const RELATIONS: &[&str] = &["TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "SEQUENCE"];
/// Kinds that hang on a relation named after ON.
const ON_RELATION: &[&str] = &["INDEX", "TRIGGER", "RULE", "POLICY", "STATISTICS"];
/// Kinds that give no relation, column or function a new meaning.
const NO_NAMES: &[&str] =
    &["COLLATION", "DATABASE", "DOMAIN", "GROUP", "PUBLICATION", "ROLE", "TABLESPACE", "USER"];
const ROLES: &[&str] = &["ROLE", "USER", "GROUP"];

impl Statement<'_> {
    /// The kind of object from a token on, and the token behind it.
    fn kind(&self, at: usize) -> (String, usize) {
        for long in LONG_KINDS {
            if long.iter().enumerate().all(|(more, word)| self.words.is(at + more, word)) {
                return (long.join(" ").to_ascii_uppercase(), at + long.len());
            }
        }
        (self.words.raw(at).to_ascii_uppercase(), at + 1)
    }

    pub(crate) fn create(&self, from: usize, to: usize, draft: &mut Draft) {
        let (kind, at) = self.kind(self.skip(from + 1, MODIFIERS));
        let role = ROLES.contains(&kind.as_str());
        draft.is(&format!("CREATE {kind}"), if role { Class::Role } else { Class::Ddl });
        let optional = self.words.is(at, "if");
        let at = self.skip(at, &["concurrently", "if", "not", "exists"]);
        if RELATIONS.contains(&kind.as_str()) {
            let temporary = (from..at).any(|at| self.words.is_any(at, TEMPORARY));
            self.create_relation(&kind, (temporary, optional), at, to, draft);
        } else if matches!(kind.as_str(), "SCHEMA" | "TYPE") {
            draft.followed = kind == "TYPE";
            self.place_made(&kind, at, to, draft);
        } else if NO_NAMES.contains(&kind.as_str()) {
            draft.followed = true;
        } else if ON_RELATION.contains(&kind.as_str()) {
            self.on_relation(at, to, draft);
            if matches!(kind.as_str(), "TRIGGER" | "RULE" | "POLICY") {
                self.hooked(&kind, at, to, draft);
            }
        }
        draft.effect = Effect::Ddl;
    }

    fn create_relation(
        &self,
        kind: &str,
        (temporary, optional): (bool, bool),
        at: usize,
        to: usize,
        draft: &mut Draft,
    ) {
        let Some((name, next)) = self.name_at(at) else { return };
        let until_commit = (next..to).any(|at| self.words.is(at, "drop") && self.words.is(at - 1, "commit"));
        let kind_made = match kind {
            "VIEW" => RelationKind::View,
            "MATERIALIZED VIEW" => RelationKind::MaterializedView,
            "FOREIGN TABLE" => RelationKind::Foreign,
            "SEQUENCE" => RelationKind::Sequence,
            _ => RelationKind::Table,
        };
        let mut made = Made { kind: kind_made, temporary, optional, until_commit, ..Made::default() };
        let query = matches!(kind, "TABLE" | "VIEW" | "MATERIALIZED VIEW");
        let Some(body) = self.query_after_as(next, to).filter(|_| query) else {
            self.parents(next, to, draft);
            made.columns = self.defined_columns(kind_made, next, to);
            made.parents = self.defined_parents(next, to);
            made.keys = self.defined_keys(next);
            return self.made(&name, made, draft);
        };
        let (class, command) = (draft.class.clone(), draft.command.clone());
        let (end, empty) = self.without_data(to);
        if self.words.is(body, "execute") {
            draft.touched.doubt("what the prepared statement reads is not known here".to_owned());
        } else {
            let end = self.before_check_option(end);
            self.analyze(body, end, draft);
            let named = self.column_list(next);
            made.columns = draft.outs.take().map(|mut outs| {
                outs.iter_mut().zip(named).for_each(|(out, name)| *out = name);
                outs
            });
            if kind == "VIEW" {
                made.bases = bases(&draft.touched.seen);
                made.origins = self.defined_origins(body, end);
                // PostgreSQL makes a view over temporary tables temporary.
                let temporary =
                    |oid: &u32| self.names().by_oid(*oid).is_some_and(|base| &*base.schema == TEMP);
                made.temporary |= draft.touched.tables.iter().any(temporary);
            }
        }
        draft.class = class;
        draft.command = if kind == "TABLE" { "CREATE TABLE AS".to_owned() } else { command };
        if kind == "VIEW" || empty {
            draft.touched.settings.clear();
            draft.touched.volatile = false;
            draft.touched.unsettling = false;
            draft.touched.note("defined only: no rows were read".to_owned());
        } else {
            draft.class.push(Class::Read);
        }
        self.made(&name, made, draft);
    }

    /// The query of `… AS query`, outside parentheses.
    fn query_after_as(&self, mut at: usize, to: usize) -> Option<usize> {
        const QUERY: &[&str] = &["select", "with", "values", "table", "execute"];
        while at < to {
            if self.words.is(at, "as") && (self.words.is_any(at + 1, QUERY) || self.words.mark(at + 1, "(")) {
                return Some(at + 1);
            }
            at = self.skip_group(at).max(at + 1);
        }
        None
    }

    /// Takes `WITH [NO] DATA` off the end.
    fn without_data(&self, to: usize) -> (usize, bool) {
        let word = |back: usize, word| to >= back && self.words.is(to - back, word);
        match (word(1, "data"), word(2, "no"), word(3, "with"), word(2, "with")) {
            (true, true, true, _) => (to - 3, true),
            (true, false, _, true) => (to - 2, false),
            _ => (to, false),
        }
    }

    /// Takes `WITH [CASCADED | LOCAL] CHECK OPTION` off the end.
    fn before_check_option(&self, to: usize) -> usize {
        let word = |back: usize, word| to >= back && self.words.is(to - back, word);
        if !(word(1, "option") && word(2, "check")) {
            return to;
        }
        if word(3, "with") { to - 3 } else { to.saturating_sub(4) }
    }

    /// Tables that a new table refers to: parents, templates, foreign keys.
    fn parents(&self, from: usize, to: usize, draft: &mut Draft) {
        for at in from..to {
            let opens = self.words.is_any(at, &["references", "like"])
                || (self.words.is(at, "of") && self.words.is(at.saturating_sub(1), "partition"))
                || (self.words.mark(at, "(") && self.words.is(at.saturating_sub(1), "inherits"));
            if opens
                && let Some((name, _)) = self.name_at(at + 1)
                && let Some(relation) = self.relation(&name)
            {
                draft.touched.tables.insert(relation.oid);
            }
        }
    }

    fn on_relation(&self, from: usize, to: usize, draft: &mut Draft) {
        let Some(on) = (from..to).find(|at| self.words.is(*at, "on")) else { return };
        // A rule names its event after ON, and the relation after TO; statistics have their columns before FROM.
        let rule = self.words.is_any(on + 1, &["select", "insert", "update", "delete"])
            && self.words.is(on + 2, "to");
        let at = self.skip(if rule { on + 3 } else { on + 1 }, &["only"]);
        self.mention(at, draft);
    }

    /// A relation by name, if it is one.
    fn mention(&self, at: usize, draft: &mut Draft) -> Option<usize> {
        let (name, next) = self.name_at(at)?;
        match self.relation(&name) {
            Some(relation) => {
                draft.touched.tables.insert(relation.oid);
            }
            None => match self.names().find(&name) {
                Some(seen) => draft.touched.missing(&name, Some(seen)),
                None => draft.touched.note(format!("unknown relation {}", name.join("."))),
            },
        }
        Some(next)
    }

    fn mention_list(&self, mut at: usize, draft: &mut Draft) {
        while let Some(next) = self.mention(at, draft) {
            let next = next + usize::from(self.words.mark(next, "*"));
            if !self.words.mark(next, ",") {
                return;
            }
            at = next + 1;
        }
    }

    pub(crate) fn change_objects(&self, from: usize, to: usize, draft: &mut Draft) {
        match self.words.raw(from).to_ascii_lowercase().as_str() {
            "grant" | "revoke" => self.grant(from, to, draft),
            "comment" => self.comment(from, draft),
            "reindex" => {
                draft.is("REINDEX", Class::Ddl);
                let at = self.skip_group(from + 1);
                let table = self.words.is(at, "table");
                let at = self.skip(at, &["table", "index", "schema", "database", "system", "concurrently"]);
                if table {
                    self.mention(at, draft);
                }
            }
            "security" => {
                draft.is("SECURITY LABEL", Class::Ddl);
                if let Some(on) = (from..to).find(|at| self.words.is(*at, "on")) {
                    self.commented(on + 1, draft);
                }
            }
            "import" => draft.is("IMPORT FOREIGN SCHEMA", Class::Ddl),
            "reassign" => draft.is("REASSIGN OWNED", Class::Role),
            _ => self.alter_or_drop(from, to, draft),
        }
        draft.effect = Effect::Ddl;
    }

    fn alter_or_drop(&self, from: usize, to: usize, draft: &mut Draft) {
        let (kind, at) = self.kind(from + 1);
        let verb = self.words.raw(from).to_ascii_uppercase();
        let role = ROLES.contains(&kind.as_str()) || kind == "OWNED" || kind == "DEFAULT PRIVILEGES";
        draft.is(&format!("{verb} {kind}"), if role { Class::Role } else { Class::Ddl });
        let at = self.skip(at, &["concurrently", "if", "exists", "only"]);
        if RELATIONS.contains(&kind.as_str()) {
            self.follow(&verb, at, to, draft);
            self.mention_list(at, draft);
            if verb == "ALTER" {
                self.parents(at, to, draft);
            }
        } else if matches!(kind.as_str(), "TRIGGER" | "RULE" | "POLICY") {
            self.on_relation(at, to, draft);
            if verb == "DROP" {
                self.unhooked(&kind, at, draft);
            }
        } else if verb == "DROP" && (at..to).any(|at| self.words.is(at, "cascade")) {
            self.cascaded(draft);
        }
    }

    fn grant(&self, from: usize, to: usize, draft: &mut Draft) {
        const OTHERS: &[&str] = &[
            "function",
            "procedure",
            "routine",
            "schema",
            "database",
            "language",
            "type",
            "domain",
            "all",
            "foreign",
            "large",
            "parameter",
            "tablespace",
        ];
        draft.is(&self.words.raw(from).to_ascii_uppercase(), Class::Role);
        let Some(on) = (from..to).find(|at| self.words.is(*at, "on")) else { return };
        if !self.words.is_any(on + 1, OTHERS) {
            self.mention_list(self.skip(on + 1, &["table", "sequence"]), draft);
        }
    }

    fn comment(&self, from: usize, draft: &mut Draft) {
        draft.is("COMMENT", Class::Ddl);
        self.commented(from + 2, draft);
    }

    fn commented(&self, at: usize, draft: &mut Draft) {
        let (kind, next) = self.kind(at);
        if RELATIONS.contains(&kind.as_str()) {
            self.mention(next, draft);
        } else if kind == "COLUMN"
            && let Some((mut name, _)) = self.name_at(next)
        {
            name.pop();
            if let Some(relation) = self.relation(&name) {
                draft.touched.tables.insert(relation.oid);
            }
        }
    }
}
