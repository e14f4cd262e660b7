//! What a statement touches: relations, columns read, compared and written, functions; and what it does to the session.
//!
//! [`analyze`] takes one statement and a [`Schema`] and answers with an [`Analysis`]; [`split`] cuts a simple Query
//! string into statements; [`fingerprint`] names a statement without its constants; [`Scan`] does both at once. All are pure: no server, no clock,
//! no state. They never panic and never guess silently: what cannot be resolved makes the answer partial or
//! unresolved, with a note.
//!
//! Two readers lower to one small tree. sqlparser is first: fast, memory-safe, in this thread; it does not know all of
//! PostgreSQL's grammar. libpg_query 18 ([`Grammar`]) knows it, and reads what the first does not understand, or where the
//! first finds columns that nothing has. The corpus is read by both, and both must give PostgreSQL's own answer. The
//! second costs 3.2 MB of the binary, 25 s of one core in a build (C, no libclang), and for a statement 0.8 to 3 times
//! the time of the first, and about 0.1 ms where it runs in a process of its own.
//!
//! Limits: [`TEXT_MAX`] bytes, [`TOKENS_MAX`] tokens, [`NESTING_MAX`] open parentheses, [`LINKS_MAX`] operators and
//! joining words. Beyond them a statement is unresolved. Work of more than [`INLINE_TEXT_MAX`] bytes takes
//! milliseconds and belongs on a thread that may block. Stack: deep statements get a stack of their own, so callers
//! may run on small ones.

mod analysis;
mod bodies;
#[cfg(test)]
mod corpus;
mod define;
mod fingerprint;
mod hooks;
mod lex;
mod lower;
mod objects;
mod own;
mod query;
mod raw;
mod redact;
mod resolve;
mod reword;
mod scan;
mod scope;
mod session;
mod spans;
mod split;
mod touched;
mod tree;
mod utility;

pub use analysis::{Analysis, Certainty, Class, Effect, Sets, What, search_path_items};
pub use fingerprint::{Fingerprint, fingerprint};
pub use own::{Becomes, Change, Own};
pub use raw::raw_tree;
pub use redact::{redact, without_constants};
pub use scan::{Key, Scan};
pub use spans::{Span, spans};
pub use split::split;

use crate::catalog::Schema;

use analysis::Draft;
use lex::Kind;
use own::Names;
use reword::Words;
use utility::Statement;

/// The longest statement that is analysed.
pub const TEXT_MAX: usize = 1 << 20;
/// Statements longer than this belong on a thread that may block.
pub const INLINE_TEXT_MAX: usize = 64 << 10;
/// The most tokens of a statement that is analysed.
pub const TOKENS_MAX: usize = 300_000;
/// The deepest nesting of parentheses and brackets that is analysed.
pub const NESTING_MAX: usize = 150;
/// The most operators and joining words of a statement that is analysed: each may deepen its tree by one.
pub const LINKS_MAX: usize = 20_000;

/// Statements with less nesting and fewer links than this need no stack of their own.
const SMALL_NESTING: usize = 12;
const SMALL_LINKS: usize = 64;
/// What a small statement needs.
const SMALL_STACK: usize = 1 << 20;
/// The stack of any other: room for the deepest tree that the limits allow.
const LARGE_STACK: usize = 128 << 20;

/// PostgreSQL's own grammar, asked where the first reader does not understand a statement.
pub trait Grammar: std::fmt::Debug + Sync {
    /// The raw parse tree of a text in libpg_query's encoding, as [`raw_tree`] makes it.
    ///
    /// # Errors
    /// What PostgreSQL says of a text that is not of its grammar, or that nothing answers.
    fn raw_tree(&self, text: &str, standard_conforming_strings: bool) -> Result<Vec<u8>, String>;

    /// Whether it is asked first, and the other reader only where it fails: to compare the two.
    fn is_first(&self) -> bool {
        false
    }
}

/// The grammar in this process: where an abort or a stall may be risked.
#[derive(Debug, Clone, Copy, Default)]
pub struct InProcess;

impl Grammar for InProcess {
    fn raw_tree(&self, text: &str, standard_conforming_strings: bool) -> Result<Vec<u8>, String> {
        raw_tree(text, standard_conforming_strings)
    }
}

/// [`InProcess`], asked first.
#[derive(Debug, Clone, Copy, Default)]
pub struct First;

impl Grammar for First {
    fn raw_tree(&self, text: &str, standard_conforming_strings: bool) -> Result<Vec<u8>, String> {
        raw_tree(text, standard_conforming_strings)
    }

    fn is_first(&self) -> bool {
        true
    }
}

/// What the session says about how names and strings are read.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// The schemas searched, in order, as `current_schemas(true)` tells them.
    pub search_path: &'a [String],
    /// Whether a backslash in `'…'` is an ordinary character.
    pub standard_conforming_strings: bool,
    /// The relations that only the session sees.
    pub own: &'a Own,
    /// The session's current role, if it is known: row security depends on it.
    pub role: Option<&'a str>,
    /// Whether `session_replication_role` is `replica`: other triggers and rules fire.
    pub replica: bool,
    /// The second reader.
    pub grammar: &'a dyn Grammar,
}

impl<'a> Settings<'a> {
    /// Those of a session that has set nothing but its path, and of which the role is not known.
    #[must_use]
    pub fn new(search_path: &'a [String], own: &'a Own, grammar: &'a dyn Grammar) -> Self {
        Self { search_path, standard_conforming_strings: true, own, role: None, replica: false, grammar }
    }
}

/// Says what one statement touches and what it does to the session.
///
/// Bytes that are not UTF-8 cannot be given; `text` must be what the server will read, after any conversion from the
/// client's encoding.
#[must_use]
pub fn analyze(text: &str, schema: &Schema, settings: &Settings<'_>) -> Analysis {
    if text.len() > TEXT_MAX {
        return analysis::unresolved(text, &format!("longer than {TEXT_MAX} bytes"));
    }
    let Some(words) = Words::read(text, settings.standard_conforming_strings, TOKENS_MAX) else {
        return analysis::unresolved(text, &format!("more than {TOKENS_MAX} tokens"));
    };
    let size = Size::of(&words);
    let work = || {
        let mut draft = Draft::default();
        let statement = Statement { words: &words, schema, settings };
        match size.excess() {
            None => statement.analyze(0, words.len(), &mut draft),
            Some(note) => {
                statement.name_command(&mut draft);
                statement.guess(0, words.len(), note, &mut draft);
            }
        }
        draft.finish(Names {
            schema,
            path: settings.search_path,
            own: settings.own,
            role: settings.role,
            replica: settings.replica,
        })
    };
    if size.nesting <= SMALL_NESTING && size.links <= SMALL_LINKS {
        stacker::maybe_grow(SMALL_STACK, LARGE_STACK, work)
    } else {
        stacker::grow(LARGE_STACK, work)
    }
}

/// How deep a statement's tree may get.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    nesting: usize,
    links: usize,
}

impl Size {
    fn of(words: &Words<'_>) -> Self {
        const JOINING: &[&str] =
            &["and", "or", "not", "union", "except", "intersect", "join", "case", "natural", "cross"];
        let mut size = Self::default();
        let mut depth = 0usize;
        for (at, token) in words.tokens.iter().enumerate() {
            match token.kind {
                Kind::Punct(b'(' | b'[') => {
                    depth += 1;
                    size.nesting = size.nesting.max(depth);
                    size.links += usize::from(token.kind == Kind::Punct(b'['));
                }
                Kind::Punct(b')' | b']') => depth = depth.saturating_sub(1),
                Kind::Op => size.links += 1,
                Kind::Word if words.is_any(at, JOINING) => size.links += 1,
                _ => {}
            }
        }
        size
    }

    fn excess(self) -> Option<&'static str> {
        if self.nesting > NESTING_MAX {
            Some("nested too deeply")
        } else if self.links > LINKS_MAX {
            Some("too many operators")
        } else {
            None
        }
    }
}
