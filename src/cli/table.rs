//! Records as text in a terminal. Pure. Records hold text from anywhere: characters that steer a
//! terminal or hide text are shown as escapes, in every format.

use serde_json::Value;

/// Widest cell except the last, characters.
const CELL_MAX: usize = 40;
/// Narrowest last column: below that, lines wrap.
const LAST_MIN: usize = 12;
/// Between two columns.
const GAP: &str = "  ";

/// A table: heads and cells, of which the last takes the rest of the line.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Names of the columns.
    pub(super) heads: Vec<String>,
    /// Which columns hold numbers.
    pub(super) right: Vec<bool>,
    /// Lines of as many cells as there are heads.
    pub(super) lines: Vec<Vec<String>>,
}

impl Table {
    /// The table as text, with a line of heads; lines are cut to `width` if there is one.
    pub(super) fn text(&self, width: Option<usize>) -> String {
        self.aligned(width, &mut Vec::new())
    }

    /// The same, with columns no narrower than in the tables before it.
    pub(super) fn aligned(&self, width: Option<usize>, least: &mut Vec<usize>) -> String {
        let last = self.heads.len().saturating_sub(1);
        let all = || std::iter::once(&self.heads).chain(&self.lines);
        let widths: Vec<usize> = (0..last)
            .map(|column| {
                all().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .enumerate()
            .map(|(column, widest)| widest.min(CELL_MAX).max(least.get(column).copied().unwrap_or(0)))
            .collect();
        least.clone_from(&widths);
        let used: usize = widths.iter().map(|width| width + GAP.len()).sum();
        let rest = width.map(|width| width.saturating_sub(used).max(LAST_MIN));
        let mut text = String::new();
        for line in all() {
            let mut row = String::new();
            for (column, cell) in line.iter().enumerate() {
                let Some(&wide) = widths.get(column) else {
                    row.push_str(&rest.map_or_else(|| cell.clone(), |rest| cut(cell, rest)));
                    continue;
                };
                let cell = cut(cell, wide);
                match self.right.get(column) {
                    Some(true) => row.push_str(&format!("{cell:>wide$}{GAP}")),
                    _ => row.push_str(&format!("{cell:<wide$}{GAP}")),
                }
            }
            text.push_str(row.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Columns of a terminal; none if the output is not one.
pub(super) fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|&columns| columns > 0)
}

/// One line of printable text: white space becomes one blank, other control and hidden characters
/// become escapes.
pub(super) fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.trim().chars() {
        if c.is_whitespace() && c != '\u{2028}' && c != '\u{2029}' && c != '\u{85}' {
            if !line.ends_with(' ') {
                line.push(' ');
            }
        } else if is_hidden(c) {
            line.extend(c.escape_unicode());
        } else {
            line.push(c);
        }
    }
    line
}

/// Text of several lines, with everything else that steers a terminal as escapes.
pub(super) fn printable_lines(text: &str) -> String {
    let mut lines = String::with_capacity(text.len());
    for c in text.replace("\r\n", "\n").chars() {
        if is_hidden(c) && c != '\n' && c != '\t' { lines.extend(c.escape_unicode()) } else { lines.push(c) }
    }
    lines
}

/// JSON whose hidden characters are JSON's own escapes: the same value, safe to show.
pub(super) fn json_line(value: &Value) -> String {
    escaped_json(&value.to_string())
}

/// The same over several lines.
pub(super) fn json_pretty(value: &Value) -> String {
    escaped_json(&serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string()))
}

fn escaped_json(json: &str) -> String {
    // In JSON text, these characters can stand only inside strings (line ends are not theirs).
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if is_hidden(c) && c != '\n' {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Controls of both sets, marks of direction, and characters without width.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A value in a cell: lists by commas, nothing for null.
pub(super) fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => printable(text),
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            let words: Vec<String> = items.iter().filter_map(Value::as_str).map(printable).collect();
            words.join(",")
        }
        Some(other) => printable(&other.to_string()),
    }
}

/// Microseconds as people read them.
pub(super) fn duration(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        1_000_000..60_000_000 => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
        _ => format!("{}m{:02}s", us / 60_000_000, us % 60_000_000 / 1_000_000),
    }
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_steers_a_terminal_is_shown_and_not_obeyed() {
        assert_eq!(printable("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(printable("a\u{9b}2J"), "a\\u{9b}2J");
        assert_eq!(printable("evil\u{202e}txt"), "evil\\u{202e}txt");
        assert_eq!(printable("  select\n\t 1 \r\n"), "select 1");
        assert_eq!(printable_lines("a\r\n\tb\u{7}"), "a\n\tb\\u{7}");
    }

    #[test]
    fn json_stays_the_same_value_with_its_hidden_characters_escaped() {
        let value = serde_json::json!({ "sql": "a\u{1b}[2J\u{9b}\u{202e}\u{e0041}é\n" });
        let line = json_line(&value);
        assert!(!line.chars().any(is_hidden), "{line:?}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
    }

    #[test]
    fn a_table_fits_the_terminal_and_is_whole_elsewhere() {
        let table = Table {
            heads: vec!["PERSON".into(), "ROWS".into(), "STATEMENT".into()],
            right: vec![false, true, false],
            lines: vec![vec!["maria".into(), "12".into(), "select * from customers where id = 1".into()]],
        };
        assert_eq!(table.text(Some(34)), "PERSON  ROWS  STATEMENT\nmaria     12  select * from custo…\n");
        assert!(table.text(None).ends_with("where id = 1\n"));
    }

    #[test]
    fn durations_have_the_unit_that_fits() {
        assert_eq!(
            [0, 999, 1_500, 2_340_000, 61_000_000].map(duration),
            ["0 us", "999 us", "1.5 ms", "2.34 s", "1m01s"]
        );
    }
}
