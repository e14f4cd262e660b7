//! What the body of a function, trigger or block names: read word by word, since what runs depends on the way it takes.

use crate::catalog::{Function, Volatility};

use super::lex::Kind;
use super::own::Names;
use super::reword::Words;

/// The longest body that is looked into, bytes and tokens.
const BODY_MAX: usize = 32 << 10;
/// Words before a relation's name.
const BEFORE: &[&str] = &["from", "join", "into", "update", "table", "using", "truncate", "only"];
/// Words that may stand between.
const BETWEEN: &[&str] = &["only", "table", "if", "exists", "not"];

/// Words without which a body looks at no table: what is left are expressions of its own variables.
const TOUCHING: &[&str] = &[
    "alter", "analyze", "call", "cluster", "comment", "copy", "create", "cursor", "delete", "do", "drop",
    "execute", "fetch", "for", "foreach", "from", "grant", "import", "insert", "listen", "lock", "merge",
    "move", "notify", "open", "perform", "query", "refresh", "reindex", "reset", "revoke", "set", "table",
    "truncate", "update", "vacuum",
];
/// In PL/pgSQL, these begin or join queries; a body in SQL is nothing but a query.
const QUERYING: &[&str] = &["select", "union", "values", "with"];

/// Whether a function is not written in SQL or PL/pgSQL, and said not to be looked into.
pub(crate) fn is_closed(function: &Function) -> bool {
    matches!(&*function.language, "c" | "internal") || function.kind == 'a'
}

/// Whether a function is immutable, or its body looks at no table and calls nothing but functions that came with the
/// server. It errs to one side: a word in a name may hide that.
pub(crate) fn touches_nothing(function: &Function, names: Names<'_>) -> bool {
    function.volatility == Volatility::Immutable || body_touches_nothing(function, names)
}

/// The same without trusting what the function is declared to be.
pub(crate) fn body_touches_nothing(function: &Function, names: Names<'_>) -> bool {
    let querying = match &*function.language {
        "sql" => &[],
        "plpgsql" => QUERYING,
        _ => return false,
    };
    let Some(words) = function.body.as_deref().and_then(words_of) else { return false };
    let calls = |at| {
        words.mark(at + 1, "(") && words.name(at).is_some_and(|name| names.schema.has_own_function(&name))
    };
    !(0..words.len()).any(|at| words.is_any(at, TOUCHING) || words.is_any(at, querying) || calls(at))
}

fn words_of(text: &str) -> Option<Words<'_>> {
    if text.len() <= BODY_MAX { Words::read(text, true, BODY_MAX) } else { None }
}

/// What a body names.
#[derive(Debug, Default)]
pub(crate) struct Body {
    /// Oids of relations, each once, in order.
    pub(crate) relations: Vec<u32>,
    /// It runs text that is made when it runs, or was not looked into.
    pub(crate) is_open: bool,
}

impl Body {
    pub(crate) fn read(text: &str, names: Names<'_>) -> Self {
        let Some(words) = words_of(text) else { return Self { relations: Vec::new(), is_open: true } };
        let mut body = Self::default();
        for at in 0..words.len() {
            body.is_open |= words.is(at, "execute") && !words.is_any(at + 1, &["function", "procedure"]);
            if words.is_any(at, BEFORE)
                && let Some(relation) = relation_at(&words, at + 1, names)
                && !body.relations.contains(&relation)
            {
                body.relations.push(relation);
            }
        }
        body
    }

    /// For a note: `: its body names …`.
    pub(crate) fn said(&self, names: Names<'_>) -> String {
        let full = |oid: &u32| names.by_oid(*oid).map(|relation| relation.full_name().to_owned());
        let mut all: Vec<String> = self.relations.iter().filter_map(full).collect();
        all.sort_unstable();
        match (all.is_empty(), self.is_open) {
            (true, false) => String::new(),
            (true, true) => ": its body is dynamic".to_owned(),
            (false, false) => format!(": its body names {}", all.join(", ")),
            (false, true) => format!(": its body names {} and is dynamic", all.join(", ")),
        }
    }
}

fn relation_at(words: &Words<'_>, mut at: usize, names: Names<'_>) -> Option<u32> {
    while words.is_any(at, BETWEEN) {
        at += 1;
    }
    let mut name = vec![words.name(at)?];
    while words.mark(at + 1, ".") && words.token(at + 2).is_some_and(|token| token.kind != Kind::Op) {
        name.push(words.name(at + 2)?);
        at += 2;
    }
    names.relation(&name).map(|relation| relation.oid)
}
