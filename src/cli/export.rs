//! `pgwitness export`: all records that answer a query, into a file that is whole or not there.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use reqwest::Response;

use super::client::{Client, ClientError, Connection, finish, unreachable};
use super::search::Range;

/// `pgwitness export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// What to export [default: everything]
    #[arg(value_name = "QUERY")]
    pub query: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub range: Range,
    /// How to write records
    #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl)]
    pub format: ExportFormat,
    /// Only these fields, in this order
    #[arg(long, value_name = "A,B")]
    pub fields: Option<String>,
    /// The file to write; - is the standard output
    #[arg(short = 'o', long = "output", value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: Connection,
}

/// `--format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// For spreadsheets
    Csv,
    /// One JSON object a line
    Jsonl,
}

/// Writes the export.
pub async fn run(args: ExportArgs) -> anyhow::Result<ExitCode> {
    Ok(finish(export(&args).await))
}

async fn export(args: &ExportArgs) -> Result<ExitCode, ClientError> {
    let client = Client::find(&args.connection)?;
    let (query, from) = (args.query.join(" "), args.range.from());
    let format = match args.format {
        ExportFormat::Csv => "csv",
        ExportFormat::Jsonl => "jsonl",
    };
    let params = [
        ("q", Some(query.as_str())),
        ("from", from.as_deref()),
        ("to", args.range.to.as_deref()),
        ("fields", args.fields.as_deref()),
        ("format", Some(format)),
    ];
    let response = client.send("/api/v1/export", &params).await?;
    if args.output == Path::new("-") {
        copy(response, &mut io::stdout().lock()).await?;
    } else {
        to_file(response, &args.output).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes beside the file and puts it in place when all of it has come.
async fn to_file(response: Response, path: &Path) -> Result<(), ClientError> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".part");
    let draft = PathBuf::from(draft);
    let what = || format!("write {}", draft.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .map_err(ClientError::local(what()))?;
    let written = copy(response, &mut file).await;
    let placed = match written {
        Ok(()) => file
            .sync_all()
            .and_then(|()| std::fs::rename(&draft, path))
            .map_err(ClientError::local(format!("write {}", path.display()))),
        Err(error) => Err(error),
    };
    if placed.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&draft);
    }
    placed
}

async fn copy(mut response: Response, out: &mut impl Write) -> Result<(), ClientError> {
    let url = response.url().clone();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&url, &error))? {
        out.write_all(&chunk).map_err(ClientError::local("write the export"))?;
    }
    out.flush().map_err(ClientError::local("write the export"))
}
