//! Two digests of a statement, made by the lexer alone.
//!
//! `shape` leaves every constant out and is shown to people; `key` names an analysis in the cache, so it keeps the
//! constants that change what a statement touches. Neither parses; neither keeps text.

use std::ops::Range;

use sha2::{Digest, Sha256};

use super::lex::{Kind, Lexer, Token};

/// What two statements share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// The same for statements that differ only in constants, blanks, comments and letter case.
    pub shape: u64,
    /// The same only for statements that must have the same analysis under the same catalog and path.
    pub key: u128,
}

impl Fingerprint {
    /// The shape as people see it: 16 hexadecimal digits.
    #[must_use]
    pub fn shape_hex(&self) -> String {
        format!("{:016x}", self.shape)
    }
}

/// Functions whose string arguments decide what a statement does.
const TELLING: &[&str] = &[
    "currval",
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "dblink",
    "dblink_exec",
    "dblink_open",
    "dblink_send_query",
    "has_column_privilege",
    "has_table_privilege",
    "lastval",
    "lo_export",
    "lo_import",
    "nextval",
    "pg_get_serial_sequence",
    "pg_logical_emit_message",
    "pg_ls_dir",
    "pg_read_binary_file",
    "pg_read_file",
    "pg_stat_file",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "set_config",
    "setval",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "table_to_xmlschema",
    "to_regclass",
    "ts_stat",
    "ts_rewrite",
];

/// Statements whose constants are mostly data; of every other statement the key keeps everything.
const DATA: &[&str] = &["select", "insert", "update", "delete", "with", "values", "merge", "table"];

/// Words after which a bare integer no longer names an output column.
const AFTER_BY: &[&str] = &["limit", "offset", "fetch", "where", "select", "values", "having", "set"];

/// Computes both digests of one statement.
#[must_use]
pub fn fingerprint(text: &[u8], standard_conforming_strings: bool) -> Fingerprint {
    let mut printer = Printer::new(text, standard_conforming_strings);
    printer.shape = Some(Vec::with_capacity(printer.key.capacity()));
    for token in Lexer::new(text, standard_conforming_strings) {
        printer.push(token);
    }
    let shape = head(&Sha256::digest(printer.shape.as_deref().unwrap_or_default()));
    Fingerprint { shape: u64::try_from(shape >> 64).unwrap_or(0), key: key_digest(&printer.key) }
}

/// The digest that [`Fingerprint::key`] is, of a key as [`Printer`] writes it.
pub(super) fn key_digest(key: &[u8]) -> u128 {
    head(&Sha256::digest(key))
}

fn head(digest: &[u8]) -> u128 {
    digest.first_chunk().map_or(0, |half| u128::from_be_bytes(*half))
}

/// Writes the keys of statements, one behind the other, and the shape if it is wanted.
pub(super) struct Printer<'a> {
    text: &'a [u8],
    standard: bool,
    /// What was written so far.
    pub(super) key: Vec<u8>,
    shape: Option<Vec<u8>>,
    state: State,
}

/// What is known of the statement that is being written.
struct State {
    utility: Option<bool>,
    after_by: bool,
    depth: usize,
    telling_from: Option<usize>,
    /// Where in the key the last token stands, when it is a name that could be called.
    name: Range<usize>,
    uescape: bool,
    hole: Hole,
}

/// Where the shape stands in a list of constants, which it writes as one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hole {
    No,
    Constant,
    Comma,
}

impl State {
    fn new() -> Self {
        Self {
            utility: None,
            after_by: false,
            depth: 0,
            telling_from: None,
            name: 0..0,
            uescape: false,
            hole: Hole::No,
        }
    }
}

impl<'a> Printer<'a> {
    /// A printer at the beginning of the first statement of `text`.
    pub(super) fn new(text: &'a [u8], standard: bool) -> Self {
        let key = Vec::with_capacity(text.len().min(1 << 16) + 16);
        let mut printer = Self { text, standard, key, shape: None, state: State::new() };
        printer.begin();
        printer
    }

    /// Begins another statement.
    pub(super) fn begin(&mut self) {
        self.key.push(u8::from(self.standard));
        self.state = State::new();
    }

    /// Takes the statement's next token.
    pub(super) fn push(&mut self, token: Token) {
        let bytes = self.text.get(token.range()).unwrap_or_default();
        if token.kind == Kind::Punct(b';') {
            return;
        }
        if self.state.utility.is_none() && token.kind != Kind::Punct(b'(') {
            self.state.utility = Some(token.kind != Kind::Word || !listed(bytes, DATA));
        }
        if token.kind == Kind::UnicodeQuoted {
            // It may spell any name, so every constant from here on counts.
            self.state.utility = Some(true);
        }
        match token.kind {
            Kind::Word => self.word(bytes),
            Kind::Number | Kind::Param => self.constant(token.kind, bytes),
            kind if kind.is_string() => self.constant(kind, bytes),
            kind => self.other(kind, bytes),
        }
    }

    fn word(&mut self, bytes: &[u8]) {
        self.close_hole();
        let from = self.key.len();
        self.key.extend_from_slice(bytes);
        let folded = self.key.get_mut(from..).unwrap_or_default();
        folded.make_ascii_lowercase();
        let state = &mut self.state;
        state.uescape = folded == b"uescape";
        if folded == b"by" {
            state.after_by = true;
        } else if state.after_by && listed(folded, AFTER_BY) {
            state.after_by = false;
        }
        state.name = from..from + bytes.len();
        if let Some(shape) = &mut self.shape {
            shape.extend_from_slice(folded);
            shape.push(b' ');
        }
        self.key.push(0);
    }

    fn constant(&mut self, kind: Kind, bytes: &[u8]) {
        let state = &mut self.state;
        let keep = state.utility == Some(true)
            || state.uescape
            || kind == Kind::Param
            || state.after_by
            || state.telling_from.is_some();
        self.key.push(if kind == Kind::Number { 1 } else { 2 });
        if keep {
            self.key.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            self.key.extend_from_slice(bytes);
        }
        state.name = 0..0;
        state.uescape = false;
        if let (Some(shape), Hole::No) = (&mut self.shape, state.hole) {
            shape.push(b'?');
        }
        state.hole = Hole::Constant;
    }

    fn other(&mut self, kind: Kind, bytes: &[u8]) {
        let state = &mut self.state;
        match kind {
            Kind::Punct(b'(') => {
                state.depth += 1;
                let name = self.key.get(state.name.clone()).unwrap_or_default();
                if state.telling_from.is_none() && listed(name, TELLING) {
                    state.telling_from = Some(state.depth);
                }
            }
            Kind::Punct(b')') => {
                if state.telling_from == Some(state.depth) {
                    state.telling_from = None;
                }
                state.depth = state.depth.saturating_sub(1);
            }
            _ => {}
        }
        let from = self.key.len();
        self.key.extend_from_slice(bytes);
        self.key.push(0);
        if kind == Kind::Punct(b',') && state.hole == Hole::Constant {
            state.hole = Hole::Comma;
            return;
        }
        let quoted = kind == Kind::Quoted && bytes.len() > 2;
        state.name = if quoted { from + 1..from + bytes.len() - 1 } else { 0..0 };
        self.close_hole();
        if let Some(shape) = &mut self.shape {
            shape.extend_from_slice(bytes);
            shape.push(b' ');
        }
    }

    fn close_hole(&mut self) {
        if let (Some(shape), Hole::Comma) = (&mut self.shape, self.state.hole) {
            shape.push(b',');
        }
        self.state.hole = Hole::No;
    }
}

fn listed(word: &[u8], list: &[&str]) -> bool {
    list.iter().any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(a: &str, b: &str) -> (bool, bool) {
        let (a, b) = (fingerprint(a.as_bytes(), true), fingerprint(b.as_bytes(), true));
        (a.shape == b.shape, a.key == b.key)
    }

    #[test]
    fn constants_blanks_comments_and_case_do_not_change_a_statement() {
        assert_eq!(both("SELECT a FROM t WHERE b = 1", "select  a from T /* x */ where b=22"), (true, true));
        assert_eq!(both("select 'x'", "select E'y\\''"), (true, true));
        assert_eq!(
            both("select a from t where b in (1,2,3)", "select a from t where b in (4)"),
            (true, false)
        );
        assert_eq!(both("select a", "select \"A\""), (false, false));
    }

    #[test]
    fn constants_that_change_the_meaning_stay_in_the_key() {
        assert_eq!(both("select a, b from t order by 1", "select a, b from t order by 2"), (true, false));
        let path =
            ("select set_config('search_path', 'a', false)", "select set_config('search_path', 'b', false)");
        assert_eq!(both(path.0, path.1), (true, false));
        assert_eq!(
            both("select \"set_config\"('a', '', false)", "select \"set_config\"('b', '', false)"),
            (true, false)
        );
        assert_eq!(both("set search_path = 'a'", "set search_path = 'b'"), (true, false));
        assert_eq!(both("select $1, $2", "select $2, $1"), (true, false));
        assert_eq!(both("insert into t values (1)", "insert into t values (1, 2)"), (true, false));
        assert_eq!(both("select a from t limit 1", "select a from t limit 2"), (true, true));
    }

    #[test]
    fn the_reading_of_strings_is_part_of_the_key() {
        let text = b"select 'a'";
        assert_ne!(fingerprint(text, true).key, fingerprint(text, false).key);
    }
}
