//! Statements about the session: transactions, parameters, prepared statements, cursors.

use super::analysis::{Class, Draft, Effect, Sets, What};
use super::lex::Kind;
use super::utility::Statement;

/// Parameters whose values are lists of names: the server quotes each element that SET gives it.
const NAME_LISTS: &[&str] = &[
    "search_path",
    "temp_tablespaces",
    "session_preload_libraries",
    "shared_preload_libraries",
    "local_preload_libraries",
    "unix_socket_directories",
];

impl Statement<'_> {
    /// Reads the statement if it is one of these.
    pub(crate) fn session(&self, from: usize, to: usize, draft: &mut Draft) -> bool {
        let Some((command, effect)) = self
            .transaction(from, to)
            .or_else(|| self.parameters(from, to))
            .or_else(|| self.handles(from, draft))
            .or_else(|| self.plain(from))
        else {
            return false;
        };
        draft.is(command, Class::Misc);
        draft.effect = effect;
        true
    }

    fn transaction(&self, from: usize, to: usize) -> Option<(&'static str, Effect)> {
        let words = self.words;
        let name = |at: usize| words.name(at).unwrap_or_default();
        let chain = (from..to).any(|at| words.is(at, "chain") && words.is(at - 1, "and"));
        let after = self.skip(from + 1, &["work", "transaction"]);
        Some(match words.raw(from).to_ascii_lowercase().as_str() {
            "begin" => ("BEGIN", Effect::Begin),
            "start" => ("START TRANSACTION", Effect::Begin),
            "commit" if words.is(from + 1, "prepared") => ("COMMIT PREPARED", Effect::Ddl),
            "commit" | "end" => ("COMMIT", Effect::Commit { chain }),
            "rollback" if words.is(from + 1, "prepared") => ("ROLLBACK PREPARED", Effect::None),
            "rollback" | "abort" if words.is(after, "to") => {
                let at = self.skip(after + 1, &["savepoint"]);
                ("ROLLBACK", Effect::RollbackTo { name: name(at.min(to.saturating_sub(1))) })
            }
            "rollback" | "abort" => ("ROLLBACK", Effect::Rollback { chain }),
            "savepoint" => ("SAVEPOINT", Effect::Savepoint { name: name(from + 1) }),
            "release" => {
                let at = if to > from + 2 { self.skip(from + 1, &["savepoint"]) } else { from + 1 };
                ("RELEASE", Effect::Release { name: name(at) })
            }
            "prepare" => ("PREPARE TRANSACTION", Effect::PrepareTransaction),
            _ => return None,
        })
    }

    fn parameters(&self, from: usize, to: usize) -> Option<(&'static str, Effect)> {
        let words = self.words;
        if words.is(from, "set") {
            return Some(self.set(from + 1, to));
        }
        if words.is(from, "discard") {
            let effect = match words.raw(from + 1).to_ascii_lowercase().as_str() {
                "all" => Effect::DiscardAll,
                "temp" | "temporary" => Effect::DiscardTemp,
                _ => Effect::None,
            };
            let command = match effect {
                Effect::DiscardAll => "DISCARD ALL",
                Effect::DiscardTemp => "DISCARD TEMP",
                _ => "DISCARD",
            };
            return Some((command, effect));
        }
        if !words.is(from, "reset") {
            return None;
        }
        let effect = match words.raw(from + 1).to_ascii_lowercase().as_str() {
            "all" => Effect::ResetAll,
            "session" if words.is(from + 2, "authorization") => {
                Effect::Reset { name: "session_authorization".to_owned() }
            }
            "time" if words.is(from + 2, "zone") => Effect::Reset { name: "timezone".to_owned() },
            "transaction" => Effect::TransactionModes,
            _ => Effect::Reset { name: self.parameter_at(from + 1).0 },
        };
        Some(("RESET", effect))
    }

    fn parameter_at(&self, at: usize) -> (String, usize) {
        let (name, next) = self.name_at(at).unwrap_or_default();
        (name.join(".").to_ascii_lowercase(), next)
    }

    fn set(&self, mut at: usize, to: usize) -> (&'static str, Effect) {
        let words = self.words;
        if words.is_any(at, &["transaction", "constraints"])
            || (words.is(at, "session") && words.is(at + 1, "characteristics"))
        {
            let command = if words.is(at, "constraints") { "SET CONSTRAINTS" } else { "SET" };
            return (command, Effect::TransactionModes);
        }
        let mut local = false;
        let authorization = words.is(at, "session") && words.is(at + 1, "authorization");
        if words.is_any(at, &["session", "local"]) && !authorization && !words.mark(at + 1, "=") {
            local = words.is(at, "local");
            at += 1;
        }
        let (name, value) = self.set_value(at, to);
        ("SET", Effect::Set(vec![Sets { name: Some(name), value, local: Some(local) }]))
    }

    /// The parameter and value of every spelling of SET.
    fn set_value(&self, at: usize, to: usize) -> (String, What) {
        let words = self.words;
        let own = |name: &str| name.to_owned();
        if words.is(at, "session") && words.is(at + 1, "authorization") {
            return (own("session_authorization"), self.role_value(at + 2));
        }
        if words.is(at, "time") && words.is(at + 1, "zone") {
            return (own("timezone"), self.values("timezone", at + 2, to));
        }
        if words.is(at, "xml") && words.is(at + 1, "option") {
            return (own("xmloption"), self.values("xmloption", at + 2, to));
        }
        let (name, next) = self.parameter_at(at);
        let assigned = words.is(next, "to") || words.mark(next, "=");
        match name.as_str() {
            "role" if !assigned => (name, self.role_value(next)),
            "names" if !assigned => (own("client_encoding"), self.values("client_encoding", next, to)),
            "schema" if !assigned => (own("search_path"), self.values("search_path", next, to)),
            "role" | "session_authorization" => (name, self.role_value(next + 1)),
            _ => {
                let value = self.values(&name, next + 1, to);
                (name, value)
            }
        }
    }

    fn role_value(&self, at: usize) -> What {
        if self.words.is(at, "default") {
            return What::Default;
        }
        self.words.string(at).or_else(|| self.words.name(at)).map_or(What::Unknown, What::Text)
    }

    fn values(&self, parameter: &str, from: usize, to: usize) -> What {
        let words = self.words;
        if words.is(from, "default") || (parameter == "timezone" && words.is(from, "local")) {
            return What::Default;
        }
        let list = NAME_LISTS.contains(&parameter);
        let mut text = String::new();
        let mut at = from;
        while at < to {
            let token = words.token(at);
            let value =
                words.string(at).or_else(|| words.name(at)).unwrap_or_else(|| words.raw(at).to_owned());
            let uescape = words.is(at + 1, "uescape");
            match token.map(|token| token.kind) {
                Some(Kind::Punct(b',')) => text.push_str(", "),
                Some(kind) if list && kind != Kind::Op => text.push_str(&crate::catalog::quoted(&value)),
                _ => text.push_str(&value),
            }
            at += if uescape { 3 } else { 1 };
        }
        What::Text(text)
    }

    /// Prepared statements and cursors by name.
    fn handles(&self, from: usize, draft: &mut Draft) -> Option<(&'static str, Effect)> {
        let words = self.words;
        let name = |at: usize| words.name(at).unwrap_or_default();
        Some(match words.raw(from).to_ascii_lowercase().as_str() {
            "execute" => {
                draft.touched.note("what it touches was told when it was prepared".to_owned());
                ("EXECUTE", Effect::ExecutePrepared { name: name(from + 1) })
            }
            "deallocate" => {
                let at = self.skip(from + 1, &["prepare"]);
                let all = words.is(at, "all");
                let command = if all { "DEALLOCATE ALL" } else { "DEALLOCATE" };
                (command, Effect::Deallocate { name: (!all).then(|| name(at)) })
            }
            "close" => {
                let all = words.is(from + 1, "all");
                let command = if all { "CLOSE CURSOR ALL" } else { "CLOSE CURSOR" };
                (command, Effect::CloseCursor { cursor: (!all).then(|| name(from + 1)) })
            }
            "fetch" => ("FETCH", Effect::Fetch { cursor: self.last_name(from) }),
            "move" => ("MOVE", Effect::Move { cursor: self.last_name(from) }),
            _ => return None,
        })
    }

    fn last_name(&self, from: usize) -> String {
        let last = (from + 1..self.words.len()).rev().find(|at| self.words.name(*at).is_some());
        last.and_then(|at| self.words.name(at)).unwrap_or_default()
    }

    fn plain(&self, from: usize) -> Option<(&'static str, Effect)> {
        const PLAIN: &[(&str, &str)] = &[
            ("show", "SHOW"),
            ("listen", "LISTEN"),
            ("unlisten", "UNLISTEN"),
            ("notify", "NOTIFY"),
            ("checkpoint", "CHECKPOINT"),
            ("load", "LOAD"),
        ];
        let found = PLAIN.iter().find(|(word, _)| self.words.is(from, word));
        found.map(|(_, command)| (*command, Effect::None))
    }
}
