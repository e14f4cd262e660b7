//! The answer: what a statement touches, how sure we are, and what the session must know after it succeeded.

use std::ops::Range;

use super::lex::{Kind, Lexer};
use super::own::{Change, Names};
use super::touched::Touched;

/// pgaudit's classes of statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// SELECT, and COPY to the client.
    Read,
    /// INSERT, UPDATE, DELETE, MERGE, TRUNCATE, and COPY from the client.
    Write,
    /// Calls of functions that are not built in, CALL, DO.
    Function,
    /// GRANT, REVOKE, and changes of roles.
    Role,
    /// Any other change of objects.
    Ddl,
    /// Everything else.
    Misc,
}

/// How sure the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Certainty {
    /// Everything the text names is listed.
    Exact,
    /// What is listed is right, but there may be more; the notes say why.
    Partial,
    /// Nothing is known.
    Unresolved,
}

/// What one statement touches.
///
/// Names are `schema.table` and `schema.table.column`, quoted where SQL would need it, sorted, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analysis {
    /// What kind of statement it is, as in its command tag: `SELECT`, `CREATE TABLE`.
    pub command: String,
    /// Its classes, sorted.
    pub class: Vec<Class>,
    /// Relations named, and the base tables of views among them.
    pub tables: Vec<String>,
    /// Columns whose values reach the result, or are stored elsewhere.
    pub reads: Vec<String>,
    /// Columns that only choose, join, group or order rows.
    pub filters: Vec<String>,
    /// Columns that are written.
    pub writes: Vec<String>,
    /// Views through which base tables were reached.
    pub via: Vec<String>,
    /// Functions that the text calls.
    pub functions: Vec<String>,
    /// How sure the answer is.
    pub certainty: Certainty,
    /// What is not known, and why.
    pub notes: Vec<String>,
    /// What the session must know after success.
    pub effect: Effect,
    /// Parameters may be set, and temporary tables made, out of sight: by a function, a block, a trigger.
    pub unsettling: bool,
    /// What it does, in sight, to relations that only the session sees, or only it does until it commits.
    pub changes: Vec<Change>,
    /// All that it may do to relations is among the changes.
    pub followed: bool,
}

/// One parameter that a statement sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sets {
    /// The parameter in lower case; `role` and `session_authorization` among them. None when it is computed.
    pub name: Option<String>,
    /// The value.
    pub value: What,
    /// Whether it ends with the transaction (`SET LOCAL`); none when that is computed.
    pub local: Option<bool>,
}

/// What a parameter is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// This text, as `SHOW` would tell it; lists are written as lists (see [`search_path_items`]).
    Text(String),
    /// What it was at login.
    Default,
    /// A value that only the server knows.
    Unknown,
}

/// What the session must know after a statement succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Effect {
    /// Nothing.
    #[default]
    None,
    /// Objects were created, changed or dropped.
    Ddl,
    /// Anything may have happened: DO, CALL, a function that is not built in and volatile.
    MayHideDdl,
    /// A transaction block begins.
    Begin,
    /// It ends.
    Commit {
        /// Another begins at once.
        chain: bool,
    },
    /// It is undone.
    Rollback {
        /// Another begins at once.
        chain: bool,
    },
    /// A savepoint is set.
    Savepoint {
        /// Its name.
        name: String,
    },
    /// A savepoint and those after it are forgotten.
    Release {
        /// Its name.
        name: String,
    },
    /// Everything after a savepoint is undone.
    RollbackTo {
        /// Its name.
        name: String,
    },
    /// The transaction leaves the session: `PREPARE TRANSACTION`.
    PrepareTransaction,
    /// `SET TRANSACTION` and its kin: must be the transaction's first statement.
    TransactionModes,
    /// Parameters are set, by SET or `set_config`, in order.
    Set(Vec<Sets>),
    /// A parameter returns to its value at login.
    Reset {
        /// The parameter in lower case.
        name: String,
    },
    /// All parameters but `role` and `session_authorization` return to their values at login.
    ResetAll,
    /// `DISCARD ALL`: parameters, role, prepared statements, cursors, temporary tables.
    DiscardAll,
    /// `DISCARD TEMP`.
    DiscardTemp,
    /// A prepared statement is made.
    Prepare {
        /// Its name.
        name: String,
        /// Where its text stands in the statement.
        text: Range<usize>,
    },
    /// A prepared statement runs; what it touches was told when it was prepared.
    ExecutePrepared {
        /// Its name.
        name: String,
    },
    /// A prepared statement is forgotten.
    Deallocate {
        /// Its name; none for all.
        name: Option<String>,
    },
    /// A cursor is opened; what it touches is this analysis.
    Declare {
        /// Its name.
        cursor: String,
        /// Whether it outlives its transaction.
        hold: bool,
    },
    /// Rows of a cursor are fetched.
    Fetch {
        /// Its name.
        cursor: String,
    },
    /// A cursor is moved; no rows are returned.
    Move {
        /// Its name.
        cursor: String,
    },
    /// A cursor is closed.
    CloseCursor {
        /// Its name; none for all.
        cursor: Option<String>,
    },
    /// Rows come from the client.
    CopyFromStdin,
    /// Rows go to the client.
    CopyToStdout,
    /// Rows come from or go to a file or program of the server.
    CopyServerSide,
}

/// An analysis being made.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) command: String,
    pub(crate) class: Vec<Class>,
    pub(crate) touched: Touched,
    pub(crate) effect: Effect,
    /// A relation that comes into being.
    pub(crate) created: Option<String>,
    /// The text could not be read at all.
    pub(crate) unread: bool,
    /// The names of the columns that a query shows, when all are known.
    pub(crate) outs: Option<Vec<String>>,
    pub(crate) changes: Vec<Change>,
    pub(crate) followed: bool,
}

impl Draft {
    pub(crate) fn is(&mut self, command: &str, class: Class) {
        command.clone_into(&mut self.command);
        self.class.push(class);
    }

    pub(crate) fn finish(mut self, names: Names<'_>) -> Analysis {
        let mut written = self.touched.write(names);
        if let Some(created) = self.created.take()
            && let Err(at) = written.tables.binary_search(&created)
        {
            written.tables.insert(at, created);
        }
        if self.touched.own_functions {
            self.class.push(Class::Function);
        }
        self.class.sort_unstable();
        self.class.dedup();
        self.settings();
        // Set by what runs inside of a statement of another kind.
        self.touched.unsettling |= !self.touched.settings.is_empty();
        if self.touched.volatile && self.effect == Effect::None {
            self.effect = Effect::MayHideDdl;
        }
        let certainty = match (self.unread && written.tables.is_empty(), self.touched.incomplete) {
            (true, _) => Certainty::Unresolved,
            (false, true) => Certainty::Partial,
            (false, false) => Certainty::Exact,
        };
        Analysis {
            command: self.command,
            class: self.class,
            tables: written.tables,
            reads: written.reads,
            filters: written.filters,
            writes: written.writes,
            via: written.via,
            functions: self.touched.functions.into_iter().collect(),
            certainty,
            notes: self.touched.notes,
            effect: self.effect,
            unsettling: self.touched.unsettling,
            changes: self.changes,
            followed: self.followed,
        }
    }

    /// `set_config` in a query sets parameters as SET does.
    fn settings(&mut self) {
        if self.effect != Effect::None || self.touched.settings.is_empty() {
            return;
        }
        let sets = self.touched.settings.drain(..).map(|(name, value, local)| Sets {
            name: name.map(|name| name.to_ascii_lowercase()),
            value: value.map_or(What::Unknown, What::Text),
            local,
        });
        self.effect = Effect::Set(sets.collect());
    }
}

/// The answer when a statement is beyond the limits.
pub(crate) fn unresolved(text: &str, note: &str) -> Analysis {
    let first = Lexer::new(text.as_bytes(), true).find(|token| token.kind != Kind::Punct(b'('));
    let first = first.and_then(|token| text.get(token.range())).unwrap_or_default();
    Analysis {
        command: first.chars().take(63).collect::<String>().to_ascii_uppercase(),
        class: vec![Class::Misc],
        tables: Vec::new(),
        reads: Vec::new(),
        filters: Vec::new(),
        writes: Vec::new(),
        via: Vec::new(),
        functions: Vec::new(),
        certainty: Certainty::Unresolved,
        notes: vec![note.to_owned()],
        effect: Effect::MayHideDdl,
        unsettling: true,
        changes: Vec::new(),
        followed: false,
    }
}

/// The schemas of a `search_path` as `SHOW` tells it, in order; quotes are taken off, `"$user"` is left as it is.
#[must_use]
pub fn search_path_items(path: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut rest = path.trim_start();
    while !rest.is_empty() {
        let (item, after) =
            if let Some(quoted) = rest.strip_prefix('"') { quoted_item(quoted) } else { plain_item(rest) };
        if !item.is_empty() {
            items.push(super::reword::cut_name(item));
        }
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    items
}

fn quoted_item(rest: &str) -> (String, &str) {
    let mut item = String::new();
    let mut letters = rest.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        if letter != '"' {
            item.push(letter);
        } else if letters.peek().is_some_and(|(_, next)| *next == '"') {
            item.push('"');
            letters.next();
        } else {
            return (item, rest.get(at + 1..).unwrap_or_default());
        }
    }
    (item, "")
}

fn plain_item(rest: &str) -> (String, &str) {
    let (item, after) = rest.split_once(',').unwrap_or((rest, ""));
    (item.trim().to_ascii_lowercase(), after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_path_is_read_as_the_server_writes_it() {
        assert_eq!(search_path_items("\"$user\", public"), ["$user", "public"]);
        assert_eq!(search_path_items("A,\"B\"\"c, d\" ,e"), ["a", "B\"c, d", "e"]);
        assert_eq!(search_path_items(""), Vec::<String>::new());
    }
}
