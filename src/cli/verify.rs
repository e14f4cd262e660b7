//! `pgwitness verify`: reads the journal's files, offline, and says whether anything is missing or
//! changed.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use pgwitness_index::journal::Head;
use pgwitness_index::proof;
use pgwitness_index::record::Seq;
use pgwitness_index::storage::DirStorage;

use super::client::DemoFile;

/// Exit code of a command line that asks for something that cannot be.
const USAGE: u8 = 2;

/// `pgwitness verify`
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Folder of the journal [default: the running demo's]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// First record to check
    #[arg(long, value_name = "SEQ", requires = "to")]
    from: Option<u64>,
    /// Last record to check
    #[arg(long, value_name = "SEQ", requires = "from")]
    to: Option<u64>,
    /// A head kept earlier (JSON, as from /api/v1/log/head): the journal must continue it
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let dir = match args.dir {
        Some(dir) => dir,
        None => match DemoFile::read().ok().flatten() {
            Some(demo) => demo.dir,
            None => {
                eprintln!("pgwitness: name the journal's folder with --dir (no demo is running)");
                return Ok(ExitCode::from(USAGE));
            }
        },
    };
    let head: Option<Head> = match &args.head {
        None => None,
        Some(file) => {
            let text = std::fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
            Some(serde_json::from_slice(&text).with_context(|| format!("{} holds no head", file.display()))?)
        }
    };
    let range = args.from.zip(args.to).map(|(from, to)| (Seq(from), Seq(to)));
    let report = tokio::task::spawn_blocking(move || {
        let storage = DirStorage::open(&dir).with_context(|| format!("could not open {}", dir.display()))?;
        proof::verify(&storage, range, head).context("could not verify the journal")
    })
    .await??;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(if report.intact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
