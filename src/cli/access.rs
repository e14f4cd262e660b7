//! `pgwitness access`: which tables a person touched, how often, since when.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;
use url::form_urlencoded::byte_serialize;

use super::client::{Client, ClientError, Connection, finish};
use super::search::{Range, short_time};
use super::table::{Table, cell, json_line, width};

/// Most tables shown.
const TABLES_MAX: &str = "100";

/// `pgwitness access`
#[derive(Debug, Args)]
pub struct AccessArgs {
    /// The person, as records name them
    #[arg(value_name = "USER")]
    pub user: String,
    /// Not older than this
    #[arg(long, value_name = "AGE", default_value = "30d")]
    pub since: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: Connection,
}

/// Prints tables. Ends with 1 if there are no records of that person for us.
pub async fn run(args: AccessArgs) -> anyhow::Result<ExitCode> {
    Ok(finish(access(&args).await))
}

async fn access(args: &AccessArgs) -> Result<ExitCode, ClientError> {
    let client = Client::find(&args.connection)?;
    let from = Range { since: Some(args.since.clone()), ..Range::default() }.from();
    // In a path, a blank is not a plus.
    let user: String = byte_serialize(args.user.as_bytes()).collect::<String>().replace('+', "%20");
    let path = format!("/api/v1/users/{user}/access");
    let answer = client.get(&path, &[("from", from.as_deref()), ("limit", Some(TABLES_MAX))]).await?;
    let text = if args.json { json_line(&answer) + "\n" } else { table(&answer).text(width()) };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(ClientError::local("write the output"))?;
    Ok(ExitCode::SUCCESS)
}

fn table(answer: &Value) -> Table {
    let line = |item: &Value| {
        let time = |name: &str| short_time(&cell(item.get(name)));
        vec![cell(item.get("name")), cell(item.get("count")), time("first"), time("last")]
    };
    Table {
        heads: ["TABLE", "TIMES", "FIRST (UTC)", "LAST (UTC)"].map(str::to_owned).to_vec(),
        right: vec![false, true],
        lines: answer["tables"].as_array().into_iter().flatten().map(line).collect(),
    }
}
