//! `pgwitness export`: all records that answer a query, into a file that is whole or not there, with
//! a manifest beside it.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use reqwest::Response;
use reqwest::header::LINK;
use sha2::{Digest, Sha256};

use super::client::{Client, ClientError, Connection, finish, unreachable};
use super::search::Range;
use super::table::json_pretty;

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
    /// The file to write, with FILE.manifest.json beside it; - is the standard output, without one
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
    /// Apache Parquet, for analysis
    Parquet,
    /// One OCSF 1.5.0 event a line, for security products
    Ocsf,
}

impl ExportFormat {
    fn word(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
            Self::Parquet => "parquet",
            Self::Ocsf => "ocsf",
        }
    }
}

/// Writes the export.
pub async fn run(args: ExportArgs) -> anyhow::Result<ExitCode> {
    Ok(finish(export(&args).await))
}

async fn export(args: &ExportArgs) -> Result<ExitCode, ClientError> {
    let to_stdout = args.output == Path::new("-");
    if to_stdout && args.format == ExportFormat::Parquet && io::stdout().is_terminal() {
        return Err(ClientError::Usage("Parquet is not for terminals. Name a file with -o".into()));
    }
    let client = Client::find(&args.connection)?;
    let (query, from) = (args.query.join(" "), args.range.from());
    let params = [
        ("q", Some(query.as_str())),
        ("from", from.as_deref()),
        ("to", args.range.to.as_deref()),
        ("fields", args.fields.as_deref()),
        ("format", Some(args.format.word())),
    ];
    let response = client.send("/api/v1/export", &params).await?;
    if to_stdout {
        copy(response, &mut io::stdout().lock()).await?;
    } else {
        to_file(&client, response, &args.output).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes file and manifest beside their places and puts them there when all of both has come and
/// the one describes the other.
async fn to_file(client: &Client, response: Response, path: &Path) -> Result<(), ClientError> {
    let (file, manifest) = (Draft::of(path)?, Draft::of(&beside(path, ".manifest.json"))?);
    let link = described_by(&response).ok_or_else(|| {
        ClientError::Unreachable(format!("what answers at {} names no manifest", client.base()))
    })?;
    let (bytes, sha256) = copy(response, &mut &file.file).await?;
    let mut text = client.get(&link, &[]).await?;
    if text["file"]["sha256"] != *sha256 || text["file"]["bytes"] != bytes {
        return Err(ClientError::Unreachable(
            "what came is not what the gateway sent: its SHA-256 differs. Export again".into(),
        ));
    }
    text["file"]["name"] = path.file_name().map(|name| name.to_string_lossy().into_owned()).into();
    (&manifest.file)
        .write_all((json_pretty(&text) + "\n").as_bytes())
        .map_err(ClientError::local(format!("write {}", manifest.path.display())))?;
    let rows = text["rows"].as_u64().unwrap_or(0);
    file.place()?;
    manifest.place()?;
    eprintln!("{rows} records, {bytes} bytes, SHA-256 {sha256}");
    Ok(())
}

/// A file for its owner alone that is removed unless it is put in its place.
struct Draft {
    file: File,
    draft: PathBuf,
    path: PathBuf,
}

impl Draft {
    fn of(path: &Path) -> Result<Self, ClientError> {
        let draft = beside(path, ".part");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft);
        let file = file.map_err(ClientError::local(format!("write {}", draft.display())))?;
        Ok(Self { file, draft, path: path.to_owned() })
    }

    fn place(self) -> Result<(), ClientError> {
        self.file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.draft, &self.path))
            .map_err(ClientError::local(format!("write {}", self.path.display())))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Gone already if it was put in its place.
        let _ = std::fs::remove_file(&self.draft);
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// The address in `Link: <…>; rel="describedby"` (RFC 8288), on the gateway itself.
fn described_by(response: &Response) -> Option<String> {
    let link = response.headers().get(LINK)?.to_str().ok()?;
    let (address, relation) = link.strip_prefix('<')?.split_once('>')?;
    (address.starts_with('/') && relation.contains("describedby")).then(|| address.to_owned())
}

/// Copies all that comes; returns its length and SHA-256.
async fn copy(mut response: Response, out: &mut impl Write) -> Result<(u64, String), ClientError> {
    let url = response.url().clone();
    let (mut bytes, mut hash) = (0, Sha256::new());
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&url, &error))? {
        out.write_all(&chunk).map_err(ClientError::local("write the export"))?;
        hash.update(&chunk);
        bytes += chunk.len() as u64;
    }
    out.flush().map_err(ClientError::local("write the export"))?;
    Ok((bytes, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}
