//! `pgwitness index`: how far the search index is, and building it again from the journal.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use clap::{Args, Subcommand};
use pgwitness_index::search::{Indexer, Options};
use pgwitness_index::storage::{DirStorage, Storage};
use serde_json::json;

use super::client::{Client, ClientError, Connection, finish};
use crate::config::{Config, file};

/// Records taken between two messages.
const STEP: usize = 20_000;

/// `pgwitness index`
#[derive(Debug, Args)]
pub(super) struct IndexArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// How many records the log holds, and how many of them can be found
    Stats {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Remove the index and build it again from the journal; the gateway must not run
    Rebuild {
        /// The gateway's configuration, which says where journal and index are
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

pub(super) async fn run(args: IndexArgs) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Stats { json, connection } => Ok(finish(stats(&connection, json).await)),
        Verb::Rebuild { config } => match file::read(&config, std::env::vars()) {
            Ok(config) => tokio::task::spawn_blocking(move || rebuild(&config)).await?,
            Err(error) => {
                eprintln!("pgwitness: {} cannot be used:\n{error}", config.display());
                Ok(ExitCode::FAILURE)
            }
        },
    }
}

async fn stats(connection: &Connection, as_json: bool) -> Result<ExitCode, ClientError> {
    let status = Client::find(connection)?.get("/api/v1/status", &[]).await?;
    let (log, indexed) =
        (status["log_seq"].as_u64().unwrap_or(0), status["indexed_seq"].as_u64().unwrap_or(0));
    let behind = log.saturating_sub(indexed);
    if as_json {
        println!("{}", json!({ "log_seq": log, "indexed_seq": indexed, "behind": behind }));
    } else {
        println!("{log} records in the log, {indexed} can be found, {behind} to come");
    }
    Ok(ExitCode::SUCCESS)
}

fn rebuild(config: &Config) -> anyhow::Result<ExitCode> {
    let dir = &config.log.dir;
    let storage =
        DirStorage::open(dir).with_context(|| format!("could not open the journal in {}", dir.display()))?;
    // Whoever writes the journal also writes the index.
    let _alone = storage
        .lock()
        .with_context(|| format!("the journal in {} is in use. Stop the gateway first", dir.display()))?;
    let began = Instant::now();
    Indexer::erase(&config.index.dir)?;
    let options = Options { memory_bytes: config.index.memory };
    let (mut indexer, search) = Indexer::open(&config.index.dir, Arc::new(storage), options)?;
    let mut told = 0;
    loop {
        let progress = indexer.step(STEP)?;
        if progress.caught_up {
            break;
        }
        told += progress.records;
        eprintln!("{told} records");
    }
    indexer.commit()?;
    println!("{} records can be found, after {:.1} s", search.newest(), began.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}
