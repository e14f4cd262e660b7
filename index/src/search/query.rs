//! What is asked: the query language's syntax tree, and whether a record answers it.
//!
//! ```text
//! query  = any ; any = all { OR all } ; all = unary { [AND] unary }
//! unary  = ( NOT | "-" ) unary | "(" any ")" | field ":" value { "," value } | field ":(" any ")"
//!        | field ( ">" | ">=" | "<" | "<=" ) value | "phrase" | word [ "*" ]
//! value  = word [ "*" ] | "*" part "*" | "*" | "phrase" | from ".." to | comparison value
//! ```
//!
//! Pure: no index, no clock. [`Query::matches`] says for one merged record what the index says for
//! all of them; a property test holds the two together.
//!
//! Limits: [`MAX_BYTES`], [`MAX_CLAUSES`], [`MAX_DEPTH`].

use std::net::Ipv6Addr;
use std::ops::Range;

use thiserror::Error;

use super::field::Field;
use super::{matches, parse, words};
use crate::record::{Seq, Timestamp};
use crate::view::View;

/// Longest query, in bytes.
pub const MAX_BYTES: usize = 4096;
/// Most single conditions in one query.
pub const MAX_CLAUSES: usize = 64;
/// Deepest nesting of parentheses and negations.
pub const MAX_DEPTH: usize = 32;

/// A query, understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    source: String,
    root: Node,
}

/// Why a query was not understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct QueryError {
    /// A sentence for people.
    pub message: String,
    /// Which bytes of the query.
    pub span: Range<usize>,
    /// What may have been meant, to stand in place of the span.
    pub suggestion: Option<String>,
}

impl Query {
    /// Understands a query; relative times count from `now`.
    pub fn parse(text: &str, now: Timestamp) -> Result<Query, QueryError> {
        Ok(Query { source: text.to_owned(), root: parse::parse(text, now, None)? })
    }

    /// The same where parameters are kept in another form (as keyed hashes): `kept_as` makes it of a value, and what
    /// asks for a parameter, or for any word, finds both.
    pub fn parse_kept(
        text: &str,
        now: Timestamp,
        kept_as: &dyn Fn(&str) -> String,
    ) -> Result<Query, QueryError> {
        Ok(Query { source: text.to_owned(), root: parse::parse(text, now, Some(kept_as))? })
    }

    /// The query that every record answers.
    pub fn all() -> Query {
        Query { source: String::new(), root: Node::All }
    }

    /// What answers both.
    pub fn and(self, other: Query) -> Query {
        let source = format!("({}) ({})", self.source, other.source);
        Query { source, root: Node::And(vec![self.root, other.root]) }
    }

    /// What answers at least one.
    pub fn or(self, other: Query) -> Query {
        let source = format!("({}) OR ({})", self.source, other.source);
        Query { source, root: Node::Or(vec![self.root, other.root]) }
    }

    /// The records at these positions, both ends included.
    pub fn between(first: Seq, last: Seq) -> Query {
        let root = Node::Leaf(Leaf::Number { field: Field::Seq, min: first.0, max: last.0 });
        Query { source: format!("seq:{first}..{last}"), root }
    }

    /// The text as it was asked.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether a merged record answers the query.
    pub fn matches(&self, view: &View) -> bool {
        matches::matches(&self.root, view, &mut matches::Memo::default())
    }

    pub(crate) fn root(&self) -> &Node {
        &self.root
    }
}

/// The syntax tree.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    All,
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Leaf(Leaf),
}

impl Node {}

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Leaf {
    /// The field has a value.
    Exists(Field),
    /// Issuer and subject, exactly; nobody if one is empty. Not a part of the language.
    Owner { iss: String, sub: String },
    /// A keyword or person, lower-cased.
    Word { field: Field, value: String, prefix: bool },
    /// The tail of an object name, as [`super::words::tails`] writes it.
    Object { field: Field, tail: String, prefix: bool },
    /// Words in one text field.
    Text { field: Field, text: Text },
    /// Words in any text or object name.
    Free { text: Text, object: Option<(String, bool)> },
    /// Letters in a row, anywhere in one of some text fields; as [`super::words::folded`] writes them.
    Part { fields: &'static [Field], letters: String },
    /// Inclusive; empty if `min > max`.
    Number { field: Field, min: u64, max: u64 },
    /// Microseconds, inclusive; empty if `min > max`.
    Time { min: i64, max: i64 },
    /// Inclusive.
    Ip { min: Ipv6Addr, max: Ipv6Addr },
}

/// Words to be found in a text: the whole as one word, or its smallest words in a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Text {
    pub(crate) whole: Option<String>,
    pub(crate) phrase: Vec<String>,
    /// The last word may go on.
    pub(crate) prefix: bool,
}

impl Text {
    /// Whether it is the beginning of a name or compound before its first word (`__*`): no word finds it.
    pub(crate) fn has_no_word(&self) -> bool {
        self.prefix && self.whole.as_deref().is_some_and(|whole| words::parts(whole).is_empty())
    }
}
