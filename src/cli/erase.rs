//! `pgwitness erase`: erases values of one record, for administrators.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use uuid::Uuid;

use super::client::{Client, ClientError, Connection, finish};

/// `pgwitness erase`
#[derive(Debug, Args)]
pub struct EraseArgs {
    /// The record's id, or its position
    #[arg(value_name = "ID")]
    pub id: String,
    /// What is erased: sql, params, error, detail
    #[arg(long, value_delimiter = ',', required = true)]
    pub fields: Vec<String>,
    /// Why; it is recorded
    #[arg(long)]
    pub reason: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: Connection,
}

/// Erases, and says which record tells of it.
pub async fn run(args: EraseArgs) -> anyhow::Result<ExitCode> {
    Ok(finish(erase(&args).await))
}

async fn erase(args: &EraseArgs) -> Result<ExitCode, ClientError> {
    let id = match (Uuid::parse_str(&args.id), args.id.parse::<u64>()) {
        (Ok(id), _) => id.to_string(),
        (_, Ok(seq)) => seq.to_string(),
        _ => {
            return Err(ClientError::Usage(format!(
                "{:?} is neither a record's id nor its position",
                args.id
            )));
        }
    };
    let body = json!({ "fields": args.fields, "reason": args.reason });
    let asked = Client::find(&args.connection)?.post(&format!("/api/v1/events/{id}/erase"), &body).await;
    let answer = asked.map_err(|error| match error {
        // The gateway does not tell those who may not erase what there is.
        ClientError::NotFound(_) => ClientError::NotFound(
            "there is no such record, or you may not erase: that is for administrators (access.admin)"
                .to_owned(),
        ),
        error => error,
    })?;
    if args.json {
        // A JSON value in memory can always be written as text.
        println!("{answer:#}");
    } else {
        println!("erased from record {}, as record {} says", answer["seq"], answer["erased_by"]);
    }
    Ok(ExitCode::SUCCESS)
}
