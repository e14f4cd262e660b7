//! `pgwitness status` and `pgwitness sessions`: how the gateway is doing, and who is connected.

use std::process::ExitCode;

use clap::Args;

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
pub(super) struct SessionsArgs {
    #[command(flatten)]
    connection: Connection,
    /// Print JSON (it is always JSON)
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let _ = args.json;
    Ok(finish(print(&args.connection, "/api/v1/status").await))
}

pub(super) async fn run_sessions(args: SessionsArgs) -> anyhow::Result<ExitCode> {
    let _ = args.json;
    Ok(finish(print(&args.connection, "/api/v1/sessions").await))
}

async fn print(connection: &Connection, path: &str) -> Result<ExitCode, ClientError> {
    let answer = Client::find(connection)?.get(path, &[]).await?;
    // A JSON value in memory can always be written as text.
    println!("{answer:#}");
    Ok(ExitCode::SUCCESS)
}
