//! `pgwitness status` and `pgwitness sessions`: how the gateway is doing, and who is connected.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::client::{Client, ClientError, Connection, finish};

/// `pgwitness status`
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    connection: Connection,
    /// Print JSON (it is always JSON)
    #[arg(long)]
    json: bool,
}

/// `pgwitness sessions`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct SessionsArgs {
    #[command(subcommand)]
    verb: Option<SessionsVerb>,
    #[command(flatten)]
    connection: Connection,
    /// Print JSON (it is always JSON)
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum SessionsVerb {
    /// End a session: your own, as administrator any
    Kill {
        /// The session's id
        #[arg(value_name = "ID")]
        id: String,
        /// What ends with it
        #[arg(long, value_enum, default_value_t = Ends::Session)]
        scope: Ends,
        #[command(flatten)]
        connection: Connection,
    },
}

/// `--scope`
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Ends {
    /// It alone
    Session,
    /// Its login: all its sessions, secrets and tokens
    Login,
    /// Its device: all sessions from there, and the logins in use there
    Device,
    /// All logins of its person
    Person,
}

pub(super) async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let _ = args.json;
    Ok(finish(print(&args.connection, "/api/v1/status").await))
}

pub(super) async fn run_sessions(args: SessionsArgs) -> anyhow::Result<ExitCode> {
    let _ = args.json;
    let done = match &args.verb {
        Some(SessionsVerb::Kill { id, scope, connection }) => kill(connection, id, *scope).await,
        None => print(&args.connection, "/api/v1/sessions").await,
    };
    Ok(finish(done))
}

async fn kill(connection: &Connection, id: &str, scope: Ends) -> Result<ExitCode, ClientError> {
    if !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(ClientError::Usage(format!("{id:?} is not a session's id")));
    }
    let scope = match scope {
        Ends::Session => "session",
        Ends::Login => "login",
        Ends::Device => "device",
        Ends::Person => "person",
    };
    let path = format!("/api/v1/sessions/{id}/terminate");
    let answer = Client::find(connection)?.post(&path, &json!({ "scope": scope })).await?;
    println!("{} sessions ended", answer["ended"]);
    Ok(ExitCode::SUCCESS)
}

async fn print(connection: &Connection, path: &str) -> Result<ExitCode, ClientError> {
    let answer = Client::find(connection)?.get(path, &[]).await?;
    // A JSON value in memory can always be written as text.
    println!("{answer:#}");
    Ok(ExitCode::SUCCESS)
}
