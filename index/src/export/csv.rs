//! Merged records as CSV (RFC 4180).
//!
//! Pure: an object in, text out. It is written for spreadsheets: a cell that one of them would take
//! for a formula is preceded by an apostrophe, because names and statements come from people we do
//! not trust.

use serde_json::Value;

use crate::view::View;

/// The columns of a CSV export when nobody asks for others.
pub const CSV_FIELDS: &[&str] = &[
    "seq",
    "time",
    "event",
    "outcome",
    "txn_outcome",
    "user",
    "role",
    "db",
    "ip",
    "app",
    "session",
    "command",
    "tables",
    "columns",
    "rows",
    "bytes",
    "duration_us",
    "sqlstate",
    "error",
    "tags",
    "analysis",
    "sql",
    "params",
    "id",
];

/// The first line of a CSV export.
pub fn csv_header(fields: &[&str]) -> String {
    line(fields.iter().map(|field| (*field).to_owned()))
}

/// One record as a line of CSV (RFC 4180, CRLF): lists are joined by spaces, other structures are JSON.
pub fn csv_row(view: &View, fields: &[&str]) -> String {
    line(fields.iter().map(|field| view.get(*field).map_or_else(String::new, cell)))
}

fn json(value: &impl serde::Serialize) -> String {
    // Objects of strings, numbers and lists always have a text form.
    serde_json::to_string(value).unwrap_or_default()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => defused(text),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let words: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            defused(&words.join(" "))
        }
        other => json(other),
    }
}

/// A spreadsheet takes a cell for a formula by its first character, some after skipping blanks.
fn defused(text: &str) -> String {
    let first = text.trim_start_matches([' ', '\u{a0}']).chars().next();
    let risky = matches!(
        first,
        Some('=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '|' | '%' | '＝' | '＋' | '－' | '＠')
    );
    if risky { format!("'{text}") } else { text.to_owned() }
}

fn line(cells: impl Iterator<Item = String>) -> String {
    let mut out = String::new();
    for (index, cell) in cells.enumerate() {
        if index > 0 {
            out.push(',');
        }
        if cell.contains(['"', ',', '\r', '\n', ';', '\t', '\''])
            || cell.starts_with(' ')
            || cell.ends_with(' ')
        {
            out.push('"');
            out.push_str(&cell.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(&cell);
        }
    }
    out.push_str("\r\n");
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(value: Value, cell: &str) {
        let view = View::from_iter([("x".to_owned(), value)]);
        assert_eq!(csv_row(&view, &["x"]), format!("{cell}\r\n"));
    }

    #[test]
    fn cells_cannot_become_formulas_or_break_their_row() {
        check(json!("plain"), "plain");
        check(json!("=cmd|' /C calc'!A0"), "\"'=cmd|' /C calc'!A0\"");
        check(json!("+1"), "\"'+1\"");
        check(json!("-- comment"), "\"'-- comment\"");
        check(json!("@sum(a)"), "\"'@sum(a)\"");
        check(json!("  =1"), "\"'  =1\"");
        check(json!("\t=1"), "\"'\t=1\"");
        check(json!("\r=1"), "\"'\r=1\"");
        check(json!("a,\"b\"\r\nc"), "\"a,\"\"b\"\"\r\nc\"");
        check(json!("＝1"), "\"'＝1\"");
        check(json!(["=a", "b"]), "\"'=a b\"");
    }

    #[test]
    fn numbers_lists_and_structures_stay_what_they_are() {
        check(json!(null), "");
        check(json!(-5), "-5");
        check(json!(["public.a", "public.b"]), "public.a public.b");
        check(json!([1, null, "=x"]), "\"[1,null,\"\"=x\"\"]\"");
        assert_eq!(csv_row(&View::new(), &["x", "y"]), ",\r\n");
        assert_eq!(csv_header(&["seq", "time"]), "seq,time\r\n");
    }
}
