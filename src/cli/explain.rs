//! `pgwitness explain`: which tables and columns would be recorded for a statement, by a database's
//! own catalog. Nothing is executed there but the reading of the catalog.

use std::io::{BufRead, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::database::Database;
use crate::gateway::{self, Explaining};
use crate::sql::{self, Analysis, Certainty};

const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;

/// `pgwitness explain`
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The statement
    #[arg(value_name = "SQL", required_unless_present = "lines", conflicts_with = "lines")]
    sql: Option<String>,
    /// Read JSON lines {"statement": "…"} from stdin, answer each with one line. They are read as one session: what SET,
    /// transactions, temporary tables and DDL change counts for the lines after them. A line with another value of
    /// "session" than the line before begins a new one
    #[arg(long)]
    lines: bool,
    /// Whose catalog: postgres://ROLE:PASSWORD@HOST:PORT/DATABASE
    #[arg(long, value_name = "URL")]
    database: String,
    /// Print JSON (it is always JSON)
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize)]
struct Line {
    statement: String,
    #[serde(default)]
    session: Value,
}

pub(super) async fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let _ = args.json;
    let database = match Database::read(&args.database, "--database") {
        Ok(database) => database,
        Err(error) => {
            eprintln!("pgwitness: {error}");
            return Ok(ExitCode::from(USAGE));
        }
    };
    let looked = match gateway::look_up(database.upstream, &database.role, &database.name).await {
        Ok(looked) => looked,
        Err(error) => {
            eprintln!("pgwitness: could not read the catalog: {error}");
            return Ok(ExitCode::from(UNREACHABLE));
        }
    };
    let mut explaining = Explaining::new(looked);
    if let Some(text) = &args.sql {
        let answers: Vec<_> =
            statements(text).map(|statement| explain_with_spans(statement, &mut explaining)).collect();
        let Some(first) = answers.first() else { bail!("there is no statement in the text") };
        let all = Value::Array(answers.clone());
        println!("{:#}", if answers.len() == 1 { first } else { &all });
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    let mut session = Value::Null;
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line.context("could not read stdin")?;
        if line.trim().is_empty() {
            continue;
        }
        let line: Line = serde_json::from_str(&line)
            .with_context(|| format!("line {} is no JSON object with a statement", number + 1))?;
        if line.session != session {
            explaining.restart();
            session = line.session;
        }
        writeln!(out, "{}", show(explaining.statement(&line.statement))).context("could not print")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn statements(text: &str) -> impl Iterator<Item = &str> {
    sql::split(text.as_bytes(), true).into_iter().filter_map(|range| text.get(range))
}

fn explain_with_spans(statement: &str, explaining: &mut Explaining) -> Value {
    let strings_standard = explaining.strings_standard();
    let analysis = explaining.statement(statement);
    let span = |span: sql::Span| json!({ "start": span.start, "end": span.end, "names": span.names });
    let spans: Vec<Value> =
        sql::spans(statement, &analysis, strings_standard).into_iter().map(span).collect();
    let mut shown = show(analysis);
    if let Value::Object(fields) = &mut shown {
        fields.insert("spans".to_owned(), spans.into());
    }
    shown
}

fn show(analysis: Analysis) -> Value {
    let certainty = match analysis.certainty {
        Certainty::Exact => "exact",
        Certainty::Partial => "partial",
        Certainty::Unresolved => "unresolved",
    };
    json!({
        "command": analysis.command,
        "tables": analysis.tables,
        "reads": analysis.reads,
        "filters": analysis.filters,
        "writes": analysis.writes,
        "via": analysis.via,
        "functions": analysis.functions,
        "analysis": certainty,
        "notes": analysis.notes,
    })
}
