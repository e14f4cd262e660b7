//! `pgwitness search`: records that answer a query, newest first.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::client::{Client, ClientError, Connection, NOTHING, finish};
use super::table::{Table, cell, duration, json_line, printable, printable_lines, width};

/// Most records the API gives at once.
pub(super) const PAGE_MAX: usize = 1_000;
/// Most records of one search; an export has no such bound.
const RECORDS_MAX: usize = 100_000;
/// From this width on, the table has room for the database and the tables.
const WIDE: usize = 130;

/// `pgwitness search`
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// What to look for, such as table:users NOT outcome:ok [default: everything]
    #[arg(value_name = "QUERY")]
    pub query: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub range: Range,
    /// At most this many records
    #[arg(short = 'n', long = "limit", value_name = "N", default_value_t = 100)]
    pub limit: usize,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub shape: Shape,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: Connection,
}

/// The time range of a search.
#[derive(Debug, Clone, Default, Args)]
pub struct Range {
    /// Not older than this, such as 15m, 24h, 7d, or a time
    #[arg(long, value_name = "AGE", conflicts_with = "from")]
    pub since: Option<String>,
    /// From this time on: 2026-11-21T08:00:00Z, 2026-11-21, today, now-1h
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// Until this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub to: Option<String>,
}

impl Range {
    /// As the API's `from`.
    pub(super) fn from(&self) -> Option<String> {
        let age = |since: &String| match since.starts_with(|c: char| c.is_ascii_digit()) {
            true if !since.contains('-') => format!("-{since}"),
            _ => since.clone(),
        };
        self.since.as_ref().map(age).or_else(|| self.from.clone())
    }
}

/// How records are shown.
#[derive(Debug, Clone, Args)]
pub struct Shape {
    /// Only these fields, in this order
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub fields: Vec<String>,
    /// How to show them
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// The same as --format jsonl
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

impl Shape {
    pub(super) fn format(&self) -> Format {
        if self.json { Format::Jsonl } else { self.format }
    }
}

/// `--format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns, cut to the terminal
    Table,
    /// One JSON object a line
    Jsonl,
    /// For spreadsheets
    Csv,
}

/// Searches and prints. Ends with 1 if nothing was found.
pub async fn run(args: SearchArgs) -> anyhow::Result<ExitCode> {
    Ok(finish(search(&args).await))
}

async fn search(args: &SearchArgs) -> Result<ExitCode, ClientError> {
    if args.limit == 0 || args.limit > RECORDS_MAX {
        return Err(ClientError::Usage(format!(
            "-n must be from 1 to {RECORDS_MAX}. For more, use: pgwitness export"
        )));
    }
    let client = Client::find(&args.connection)?;
    let mut question = Question::new(&args.query, &args.range, &args.shape.fields);
    let mut printer = Printer::new(&args.shape);
    let mut left = args.limit;
    let mut found = 0;
    loop {
        let page = question.ask(&client, left.min(PAGE_MAX)).await?;
        if found == 0 {
            page.say_warnings();
        }
        found += page.items.len();
        left = left.saturating_sub(page.items.len());
        printer.print(&page.items)?;
        match page.next_cursor {
            Some(cursor) if left > 0 && !page.items.is_empty() => question.cursor = Some(cursor),
            more => {
                if more.is_some() && left == 0 {
                    eprintln!(
                        "{found} shown, more match: ask for more with -n, or for all with pgwitness export"
                    );
                }
                break;
            }
        }
    }
    if found == 0 {
        eprintln!("nothing found");
        return Ok(ExitCode::from(NOTHING));
    }
    Ok(ExitCode::SUCCESS)
}

/// A search to be asked page by page.
pub(super) struct Question {
    path: String,
    query: String,
    from: Option<String>,
    to: Option<String>,
    fields: Option<String>,
    /// Only records after this position.
    pub(super) after: Option<u64>,
    /// Where to go on.
    pub(super) cursor: Option<String>,
}

/// One answer.
pub(super) struct Answer {
    /// Records, newest first.
    pub(super) items: Vec<Map<String, Value>>,
    /// Where to go on, if there is more.
    pub(super) next_cursor: Option<String>,
    /// Everything up to here can be found.
    pub(super) indexed_seq: u64,
    /// What the answer says against itself.
    pub(super) warnings: Vec<String>,
}

impl Answer {
    pub(super) fn say_warnings(&self) {
        self.warnings.iter().for_each(|warning| eprintln!("pgwitness: {warning}"));
    }
}

impl Question {
    pub(super) fn new(words: &[String], range: &Range, fields: &[String]) -> Self {
        Self {
            path: "/api/v1/events".to_owned(),
            query: words.join(" "),
            from: range.from(),
            to: range.to.clone(),
            fields: (!fields.is_empty()).then(|| fields.join(",")),
            after: None,
            cursor: None,
        }
    }

    /// All of one session.
    pub(super) fn of_session(id: &str) -> Self {
        let path = format!("/api/v1/sessions/{id}/events");
        Self { path, ..Self::new(&[], &Range::default(), &[]) }
    }

    /// One page of the answer.
    pub(super) async fn ask(&self, client: &Client, limit: usize) -> Result<Answer, ClientError> {
        let (limit, after) = (limit.to_string(), self.after.map(|after| after.to_string()));
        let params = [
            ("q", Some(self.query.as_str())),
            ("from", self.from.as_deref()),
            ("to", self.to.as_deref()),
            ("fields", self.fields.as_deref()),
            ("after", after.as_deref()),
            ("cursor", self.cursor.as_deref()),
            ("limit", Some(&limit)),
        ];
        let mut answer = client.get(&self.path, &params).await?;
        let Value::Array(items) = answer["items"].take() else {
            return Err(ClientError::Unreachable(format!(
                "what answers at {} is not a pgwitness API",
                client.base()
            )));
        };
        let objects = items.into_iter().filter_map(|item| match item {
            Value::Object(object) => Some(object),
            _ => None,
        });
        Ok(Answer {
            items: objects.collect(),
            next_cursor: answer["next_cursor"].as_str().map(str::to_owned),
            indexed_seq: answer["as_of"]["indexed_seq"].as_u64().unwrap_or(0),
            warnings: texts(&answer["warnings"]),
        })
    }
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Prints records page by page in one format.
pub(super) struct Printer {
    format: Format,
    fields: Vec<String>,
    width: Option<usize>,
    headed: bool,
    widths: Vec<usize>,
}

impl Printer {
    pub(super) fn new(shape: &Shape) -> Self {
        Self {
            format: shape.format(),
            fields: shape.fields.clone(),
            width: width(),
            headed: false,
            widths: Vec::new(),
        }
    }

    /// Prints some records; heads once.
    pub(super) fn print(&mut self, items: &[Map<String, Value>]) -> Result<(), ClientError> {
        if items.is_empty() {
            return Ok(());
        }
        let text = match self.format {
            Format::Jsonl => {
                items.iter().map(|item| json_line(&Value::Object(item.clone())) + "\n").collect()
            }
            Format::Csv => self.csv(items),
            Format::Table => {
                let text = self.table(items).aligned(self.width, &mut self.widths);
                if self.headed {
                    text.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_owned())
                } else {
                    text
                }
            }
        };
        self.headed = true;
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(ClientError::local("write the output"))
    }

    fn csv(&self, items: &[Map<String, Value>]) -> String {
        use pgwitness_index::export::{CSV_FIELDS, csv_header, csv_row};
        let fields: Vec<&str> = match self.fields.is_empty() {
            true => CSV_FIELDS.to_vec(),
            false => self.fields.iter().map(String::as_str).collect(),
        };
        let mut text = if self.headed { String::new() } else { csv_header(&fields) };
        text.extend(items.iter().map(|item| csv_row(item, &fields)));
        // A file gets the exact text; a terminal must not be steered by it.
        if self.width.is_some() { printable_lines(&text) } else { text }
    }

    fn table(&self, items: &[Map<String, Value>]) -> Table {
        if !self.fields.is_empty() {
            return Table {
                heads: self.fields.iter().map(|name| printable(name).to_uppercase()).collect(),
                right: Vec::new(),
                lines: items
                    .iter()
                    .map(|item| self.fields.iter().map(|name| cell(item.get(name))).collect())
                    .collect(),
            };
        }
        let wide = self.width.is_none_or(|width| width >= WIDE);
        let mut heads = vec!["TIME (UTC)", "PERSON"];
        heads.extend(wide.then_some("ROLE@DB"));
        heads.extend(["OUTCOME", "ROWS", "TOOK"]);
        heads.extend(wide.then_some("TABLES"));
        heads.push("STATEMENT");
        Table {
            right: heads.iter().map(|head| matches!(*head, "ROWS" | "TOOK")).collect(),
            heads: heads.into_iter().map(str::to_owned).collect(),
            lines: items.iter().map(|item| line(item, wide)).collect(),
        }
    }
}

fn line(item: &Map<String, Value>, wide: bool) -> Vec<String> {
    let text = |name: &str| cell(item.get(name));
    let statement = item.get("sql").is_some_and(Value::is_string);
    let running = item.get("running").and_then(Value::as_bool).unwrap_or(false);
    let mut cells = vec![short_time(&text("time")), text("user")];
    if wide {
        let place: Vec<String> =
            [text("role"), text("db")].into_iter().filter(|part| !part.is_empty()).collect();
        cells.push(place.join("@"));
    }
    cells.push(if running { "running".to_owned() } else { text("outcome") });
    cells.push(text("rows"));
    let took = item.get("duration_us").and_then(Value::as_u64).filter(|_| statement && !running);
    cells.push(took.map(duration).unwrap_or_default());
    if wide {
        cells.push(text("tables"));
    }
    cells.push(match statement {
        true => text("sql"),
        false => [text("event"), text("detail")].join(" ").trim_end().to_owned(),
    });
    cells
}

/// `2026-11-21T08:00:00.123456Z` as `11-21 08:00:00.123`.
pub(super) fn short_time(time: &str) -> String {
    match (time.get(5..10), time.get(11..23)) {
        (Some(day), Some(clock)) => format!("{day} {clock}"),
        _ => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Vec<Map<String, Value>> {
        let query = serde_json::json!({
            "time": "2026-11-21T08:00:00.123456Z", "event": "query", "user": "maria@shop.example", "role": "app",
            "db": "shop", "outcome": "ok", "rows": 3, "duration_us": 1500, "tables": ["public.users"],
            "sql": "select *\n from users -- \u{1b}[31m"
        });
        let login = serde_json::json!({
            "time": "2026-11-21T08:00:00.000001Z", "event": "login.ok", "user": "maria@shop.example",
            "outcome": "ok", "duration_us": 0, "detail": "approved"
        });
        [query, login].into_iter().filter_map(|item| item.as_object().cloned()).collect()
    }

    fn printer(width: Option<usize>) -> Printer {
        Printer { format: Format::Table, fields: Vec::new(), width, headed: false, widths: Vec::new() }
    }

    #[test]
    fn options_after_the_query_are_options() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            search: SearchArgs,
        }
        let line = ["search", "table:users", "user:maria", "--since", "24h", "-n", "5", "--json"];
        let args = <Line as clap::Parser>::try_parse_from(line).unwrap().search;
        assert_eq!(args.query, ["table:users", "user:maria"]);
        assert_eq!((args.range.from().as_deref(), args.limit), (Some("-24h"), 5));
        assert_eq!(args.shape.format(), Format::Jsonl);
    }

    #[test]
    fn a_table_of_eighty_columns_has_no_longer_line() {
        let text = printer(Some(80)).table(&items()).text(Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(
            text.lines().nth(1).unwrap(),
            "11-21 08:00:00.123  maria@shop.example  ok          3  1.5 ms  select * from us…"
        );
        assert!(text.contains("login.ok appr"), "{text}");
    }

    #[test]
    fn outside_a_terminal_nothing_is_cut_and_nothing_steers() {
        let text = printer(None).table(&items()).text(None);
        assert!(text.contains("app@shop") && text.contains("public.users"), "{text}");
        assert!(text.contains("select * from users -- \\u{1b}[31m\n"), "{text}");
    }

    #[test]
    fn an_age_counts_back_from_now_and_a_time_stands_for_itself() {
        let since = |text: &str| Range { since: Some(text.to_owned()), ..Range::default() }.from();
        assert_eq!(since("24h").as_deref(), Some("-24h"));
        assert_eq!(since("2026-11-21").as_deref(), Some("2026-11-21"));
        assert_eq!(since("today").as_deref(), Some("today"));
        assert_eq!(since("-15m").as_deref(), Some("-15m"));
    }
}
