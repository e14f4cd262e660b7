//! `pgwitness play`: what one session did, in order, like a transcript.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value};

use super::client::{Client, ClientError, Connection, finish};
use super::search::{PAGE_MAX, Question, Range, short_time};
use super::table::{cell, duration, json_line, printable_lines};

/// Most records of one transcript.
const RECORDS_MAX: usize = 100_000;
/// Length of a whole session id, characters.
const ID_CHARS: usize = 36;
/// Before each line of a statement.
const INDENT: &str = "    ";

/// `pgwitness play`
#[derive(Debug, Args)]
pub struct PlayArgs {
    /// The session's id, or its beginning as pg_stat_activity shows it
    #[arg(value_name = "SESSION")]
    pub session: String,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: Connection,
}

/// Prints the transcript. Ends with 1 if there is no such session for us.
pub async fn run(args: PlayArgs) -> anyhow::Result<ExitCode> {
    Ok(finish(play(&args).await))
}

async fn play(args: &PlayArgs) -> Result<ExitCode, ClientError> {
    let client = Client::find(&args.connection)?;
    let id = whole_id(&client, &args.session).await?;
    let about = client.get(&format!("/api/v1/sessions/{id}"), &[]).await?;
    let mut question = Question::of_session(&id);
    let mut records = Vec::new();
    loop {
        let page = question.ask(&client, PAGE_MAX).await?;
        records.extend(page.items);
        match page.next_cursor {
            Some(_) if records.len() >= RECORDS_MAX => {
                eprintln!(
                    "only the newest {} records are shown. For all: pgwitness export session:{id}",
                    records.len()
                );
                break;
            }
            Some(cursor) => question.cursor = Some(cursor),
            None => break,
        }
    }
    records.reverse();
    let text: String = if args.json {
        records.into_iter().map(|record| json_line(&Value::Object(record)) + "\n").collect()
    } else {
        heading(&about) + &records.iter().map(entry).collect::<String>()
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(ClientError::local("write the output"))?;
    Ok(ExitCode::SUCCESS)
}

/// The id that begins so.
async fn whole_id(client: &Client, text: &str) -> Result<String, ClientError> {
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
        return Err(ClientError::Usage(format!("{text:?} is not a session's id")));
    }
    if text.len() >= ID_CHARS {
        return Ok(text.to_owned());
    }
    let question = Question::new(&[format!("session:{text}*")], &Range::default(), &["session".to_owned()]);
    let found = question.ask(client, PAGE_MAX).await?.items;
    let ids: BTreeSet<&str> =
        found.iter().filter_map(|item| item.get("session").and_then(Value::as_str)).collect();
    match (ids.first(), ids.len()) {
        (Some(id), 1) => Ok((*id).to_owned()),
        (None, _) => Err(ClientError::NotFound(format!("there is no session {text}… that you may see"))),
        _ => Err(ClientError::Usage(format!("{} sessions begin with {text}. Write more of it", ids.len()))),
    }
}

fn heading(about: &Value) -> String {
    let text = |name: &str| cell(about.get(name));
    let records = about["records"].as_u64().unwrap_or(0);
    let open = if about["open"] == true { "open" } else { "ended" };
    format!(
        "session {}\n{} as {}@{}, {} from {}\n{} to {} (UTC), {records} records, {open}\n\n",
        text("session"),
        text("user"),
        text("role"),
        text("db"),
        Some(text("app"))
            .filter(|app| !app.is_empty())
            .unwrap_or_else(|| "a program without a name".to_owned()),
        text("ip"),
        short_time(&text("first")),
        short_time(&text("last")),
    )
}

fn counted(rows: u64) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }
}

/// One record: time and how it ended, then what was said.
fn entry(record: &Map<String, Value>) -> String {
    let text = |name: &str| cell(record.get(name));
    let running = record.get("running").and_then(Value::as_bool).unwrap_or(false);
    let mut facts = vec![short_time(&text("time"))];
    let statement = record.get("sql").and_then(Value::as_str);
    match statement {
        Some(_) => {
            facts.push(if running { "running".to_owned() } else { text("outcome") });
            facts.extend(
                Some(text("txn_outcome"))
                    .filter(|end| matches!(end.as_str(), "rolled_back" | "open" | "unknown")),
            );
            facts.extend(record.get("rows").and_then(Value::as_u64).map(counted));
            facts
                .extend(record.get("duration_us").and_then(Value::as_u64).filter(|_| !running).map(duration));
        }
        None => facts.extend([text("event"), text("detail")].into_iter().filter(|fact| !fact.is_empty())),
    }
    let mut entry = facts.join("  ") + "\n";
    if let Some(sql) = statement {
        entry.extend(printable_lines(sql.trim_end()).lines().map(|line| format!("{INDENT}{line}\n")));
    }
    let params = record.get("params").and_then(Value::as_array).into_iter().flatten();
    let params: Vec<String> = params
        .enumerate()
        .map(|(index, value)| format!("${}={}", index + 1, cell(Some(&value.to_string().into()))))
        .collect();
    if !params.is_empty() {
        entry.push_str(&format!("{INDENT}-- {}\n", params.join(" ")));
    }
    let error = text("error");
    if !error.is_empty() {
        entry.push_str(&format!("{INDENT}-- {} {error}\n", text("sqlstate")));
    }
    entry
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_statement_is_shown_with_how_it_ended_and_nothing_steers() {
        let record = json!({
            "time": "2026-11-21T08:00:00.123456Z", "event": "query", "outcome": "error", "txn_outcome": "rolled_back",
            "duration_us": 1500, "sql": "select *\n from users where id = $1 -- \u{1b}[31m", "params": ["a\u{1b}", null],
            "sqlstate": "42P01", "error": "relation \"users\" does not exist"
        });
        assert_eq!(
            entry(record.as_object().unwrap()),
            "11-21 08:00:00.123  error  rolled_back  1.5 ms\n    select *\n     from users where id = $1 -- \\u{1b}[31m\n    \
             -- $1=\"a\\u001b\" $2=null\n    -- 42P01 relation \"users\" does not exist\n"
        );
        let login = json!({ "time": "2026-11-21T08:00:00.1Z", "event": "session.start", "outcome": "ok", "detail": "began" });
        assert_eq!(entry(login.as_object().unwrap()), "2026-11-21T08:00:00.1Z  session.start  began\n");
    }
}
