//! `pgwitness show`: one record in full.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::client::{Client, ClientError, Connection, finish};
use super::proof;
use super::search::{Question, Range};
use super::table::{cell, duration, json_pretty, printable, printable_lines};

/// Fields in the order people ask; others follow.
const ORDER: &[&str] = &[
    "id",
    "seq",
    "time",
    "event",
    "user",
    "groups",
    "role",
    "db",
    "upstream",
    "ip",
    "app",
    "session",
    "login",
    "command",
    "class",
    "tables",
    "reads",
    "filters",
    "writes",
    "via",
    "tags",
    "analysis",
    "analysis_notes",
    "outcome",
    "txn_outcome",
    "rows",
    "bytes",
    "duration_us",
    "sqlstate",
    "error",
];

/// `pgwitness show`
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The record's id, or its position
    #[arg(value_name = "ID")]
    pub id: String,
    /// Prove that the record is in the signed log, in place of showing it
    #[arg(long)]
    pub proof: bool,
    /// Write the proof there too, as files for other tools (c2sp.org/tlog-proof)
    #[arg(long, value_name = "DIR", requires = "proof")]
    pub proof_dir: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: Connection,
}

/// Prints one record. Ends with 1 if there is none for us.
pub async fn run(args: ShowArgs) -> anyhow::Result<ExitCode> {
    Ok(finish(show(&args).await))
}

async fn show(args: &ShowArgs) -> Result<ExitCode, ClientError> {
    let client = Client::find(&args.connection)?;
    let record = match (Uuid::parse_str(&args.id), args.id.parse::<u64>()) {
        (_, Ok(seq)) => by_position(&client, seq).await?,
        (Ok(id), _) => match client.get(&format!("/api/v1/events/{id}"), &[]).await? {
            Value::Object(record) => record,
            _ => return Err(ClientError::Unreachable("the answer is not a record".into())),
        },
        _ => {
            return Err(ClientError::Usage(format!(
                "{:?} is neither a record's id nor its position",
                args.id
            )));
        }
    };
    if args.proof {
        let id = record.get("id").and_then(Value::as_str).unwrap_or_default();
        let answer = proof::ask(&client, id).await?;
        let told = proof::tell(answer.clone(), args.proof_dir.as_deref())?;
        print(&if args.json { json_pretty(&answer) + "\n" } else { told })?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = if args.json { json_pretty(&Value::Object(record)) + "\n" } else { text(&record) };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> Result<(), ClientError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(ClientError::local("write the output"))
}

async fn by_position(client: &Client, seq: u64) -> Result<Map<String, Value>, ClientError> {
    let question = Question::new(&[format!("seq:{seq}")], &Range::default(), &[]);
    let found = question.ask(client, 1).await?.items.into_iter().next();
    found.ok_or_else(|| ClientError::NotFound(format!("there is no record {seq} that you may see")))
}

fn text(record: &Map<String, Value>) -> String {
    let mut text = String::new();
    let others = record.keys().map(String::as_str).filter(|name| !ORDER.contains(name));
    for name in ORDER.iter().copied().chain(others) {
        let value = match (name, record.get(name)) {
            ("sql" | "columns" | "params", _) => continue,
            ("duration_us", Some(Value::Number(us))) => us.as_u64().map(duration).unwrap_or_default(),
            ("auth", Some(Value::Object(auth))) => pairs(auth),
            ("erased", Some(Value::Array(erased))) => {
                erased.iter().map(|one| erased_line(one) + "\n").for_each(|line| text.push_str(&line));
                continue;
            }
            (_, value) => cell(value),
        };
        if !value.is_empty() {
            text.push_str(&format!("{name:<15} {value}\n"));
        }
    }
    for (index, param) in record.get("params").and_then(Value::as_array).into_iter().flatten().enumerate() {
        text.push_str(&format!("{:<15} {}\n", format!("${}", index + 1), printable(&param.to_string())));
    }
    if let Some(sql) = record.get("sql").and_then(Value::as_str) {
        text.push_str(&format!("\n{}\n", printable_lines(sql.trim_end())));
    }
    text
}

/// `erased          sql,params on 2026-11-21T12:00:00.000000Z by tom@shop.example: art. 17`
fn erased_line(erased: &Value) -> String {
    let of = |name: &str| cell(erased.get(name));
    format!("{:<15} {} on {} by {}: {}", "erased", of("fields"), of("time"), of("by"), of("reason"))
}

fn pairs(auth: &Map<String, Value>) -> String {
    auth.iter()
        .map(|(name, value)| format!("{}={}", printable(name), cell(Some(value))))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_shown_with_its_statement_last_and_nothing_empty() {
        let record = serde_json::json!({
            "sql": "select 1\n from \u{1b}t", "id": "x", "user": "maria", "error": null, "tables": ["a.b", "c.d"],
            "duration_us": 1500, "params": [null, "o'x"], "later": 1, "groups": []
        });
        let text = text(record.as_object().unwrap());
        assert_eq!(
            text,
            "id              x\nuser            maria\ntables          a.b,c.d\nduration_us     1.5 ms\nlater           1\n\
             $1              null\n$2              \"o'x\"\n\nselect 1\n from \\u{1b}t\n"
        );
    }
}
