//! `pgwitness logins`: paired secrets and minted tokens, and ending them.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::client::{Client, ClientError, Connection, finish};
use super::table::{cell, json_pretty};

/// `pgwitness logins`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct LoginsArgs {
    #[command(subcommand)]
    verb: Option<LoginsVerb>,
    #[command(flatten)]
    connection: Connection,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum LoginsVerb {
    /// End one: your own, as administrator any
    Revoke {
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
        /// What ends with it
        #[arg(long, value_enum, default_value_t = Ends::Secret)]
        scope: Ends,
        #[command(flatten)]
        connection: Connection,
    },
}

/// `--scope`
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Ends {
    /// It alone: it opens nothing any more
    Secret,
    /// Its login: all its secrets, and its sessions
    Login,
    /// All logins of its person
    Person,
}

pub(super) async fn run(args: LoginsArgs) -> anyhow::Result<ExitCode> {
    Ok(finish(match &args.verb {
        Some(LoginsVerb::Revoke { id, scope, connection }) => revoke(connection, id, *scope).await,
        None => list(&args).await,
    }))
}

async fn list(args: &LoginsArgs) -> Result<ExitCode, ClientError> {
    let answer = Client::find(&args.connection)?.get("/api/v1/logins", &[]).await?;
    if args.json {
        println!("{}", json_pretty(&answer));
        return Ok(ExitCode::SUCCESS);
    }
    let items = answer["items"].as_array().map_or(&[][..], Vec::as_slice);
    for item in items {
        println!("{}", line(item));
    }
    if items.is_empty() {
        eprintln!("no paired secret and no token is alive");
        return Ok(ExitCode::from(super::client::NOTHING));
    }
    Ok(ExitCode::SUCCESS)
}

fn line(item: &Value) -> String {
    let field = |name: &str| cell(item.get(name));
    let target = match (field("role"), field("db")) {
        (role, db) if role.is_empty() && db.is_empty() => "any role and database".to_owned(),
        (role, db) => format!("{role} in {db}"),
    };
    let name = match field("name") {
        name if name.is_empty() => String::new(),
        name => format!(" \"{name}\""),
    };
    format!(
        "{} {} {}{name} for {target}, from {} with {}, since {}, until {}",
        field("id"),
        field("kind"),
        field("user"),
        field("ip"),
        field("app"),
        field("since"),
        field("until")
    )
}

async fn revoke(connection: &Connection, id: &str, scope: Ends) -> Result<ExitCode, ClientError> {
    if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(ClientError::Usage(format!("{id:?} is not an id. See: pgwitness logins")));
    }
    let scope = match scope {
        Ends::Secret => "secret",
        Ends::Login => "login",
        Ends::Person => "person",
    };
    let path = format!("/api/v1/logins/{id}/revoke");
    let answer = Client::find(connection)?.post(&path, &json!({ "scope": scope })).await?;
    println!("ended, and {} sessions", answer["ended"]);
    Ok(ExitCode::SUCCESS)
}
