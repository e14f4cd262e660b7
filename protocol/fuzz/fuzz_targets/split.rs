//! Where we believe the statements of a query string begin and end, against PostgreSQL's own grammar.
//!
//! Wherever libpg_query reads the text, the statements must be the same; wherever its scanner reads it,
//! the semicolons must be.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The product's own files.
#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../../../src/sql/fingerprint.rs"]
mod fingerprint;
#[allow(dead_code, unreachable_pub)]
#[path = "../../../src/sql/lex.rs"]
mod lex;
#[allow(dead_code, unreachable_pub)]
#[path = "../../../src/sql/scan.rs"]
mod scan;
#[allow(dead_code, unreachable_pub)]
#[path = "../../../src/sql/split.rs"]
mod split;

/// Pieces of which texts are made that the grammar accepts often.
const PIECES: [&str; 64] = [
    "select 1", "select ", ";", "; ", "'a'", "'a''b'", "E'a\\'b'", "'a\\'", "\"b\"", "$a$", "$$", "$a$;$a$", "$$;$$",
    "/*", "*/", "/* ; */", "--", "-- ;\n", "\n", "\r", "\t", " ", "create function f() returns int ",
    "create or replace procedure p() ", "language sql ", "begin atomic ", "end", " end", "case when true then 1 end",
    "create rule r as on insert to t do also (", "create rule r as on delete to t do instead ", ")", "(",
    "delete from t", "insert into t values (1)", "begin", "commit", "U&'\\0041'", "U&\"d\"", "uescape '!'", "B'1'", "X'f'",
    "N'x'", "$1", "a$b$c", "1.5e3", "||", "+-", "@-", "::int", ":=", "as ", "atomic", "return 1", "select case ",
    "create table t (a int)", "create view v as ", "copy t from stdin", "\"a;b\"", "explain ", "declare c cursor for ",
    "do $x$ begin; end $x$", "prepare s as ", "e''\n'b;'",
];

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let text = match kind % 4 {
        0 => match std::str::from_utf8(rest) {
            Ok(text) if !text.contains('\0') => text.to_owned(),
            _ => return,
        },
        _ => rest.iter().map(|byte| piece(*byte)).collect::<String>(),
    };
    if goes_on_after_a_comment(&text) {
        return;
    }
    semicolons(&text);
    statements(&text);
});

/// `'a' -- comment`, a newline, `'b'` is one string to PostgreSQL. libpg_query, which was changed to
/// return comments as tokens, sees two.
fn goes_on_after_a_comment(text: &str) -> bool {
    lex::Lexer::new(text.as_bytes(), true)
        .filter(|token| token.kind.is_string() && token.kind != lex::Kind::Dollar)
        .any(|token| text.as_bytes()[token.start..token.end].windows(2).any(|pair| pair == b"--"))
}

fn piece(byte: u8) -> &'static str {
    PIECES[usize::from(byte) % PIECES.len()]
}

fn semicolons(text: &str) {
    let Ok(scanned) = pg_query::scan(text) else { return };
    let theirs: Vec<usize> = scanned
        .tokens
        .iter()
        .filter(|token| text.get(token.start as usize..token.end as usize) == Some(";"))
        .map(|token| token.start as usize)
        .collect();
    let ours: Vec<usize> = lex::Lexer::new(text.as_bytes(), true)
        .filter(|token| token.kind == lex::Kind::Punct(b';'))
        .map(|token| token.start)
        .collect();
    assert_eq!(ours, theirs, "semicolons of {text:?}");
}

fn statements(text: &str) {
    let Ok(parsed) = pg_query::parse(text) else { return };
    let theirs: Vec<&str> = parsed
        .protobuf
        .stmts
        .iter()
        .map(|stmt| {
            let start = stmt.stmt_location as usize;
            let end = if stmt.stmt_len == 0 { text.len() } else { start + stmt.stmt_len as usize };
            trim(&text[start..end])
        })
        .collect();
    let ours: Vec<&str> = split::split(text.as_bytes(), true).into_iter().map(|range| trim(&text[range])).collect();
    let scanned = scan::Scan::new(text.as_bytes(), true);
    let relayed: Vec<&str> = scanned.iter().map(|(range, _)| trim(&text[range])).collect();
    assert_eq!(relayed, ours, "the relay's own cut of {text:?}");
    assert_eq!(ours, theirs, "statements of {text:?}");
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c'])
}
