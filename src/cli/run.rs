//! `pgwitness run`: serves by a configuration file. It has no path to any part of the demo.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::file;
use crate::service::{Doors, Service};

/// sysexits' EX_CONFIG.
const BAD_CONFIG: u8 = 78;

/// `pgwitness run`
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only check it
    #[arg(long)]
    check: bool,
}

pub(super) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let config = match file::read(&args.config, std::env::vars()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("pgwitness: {} cannot be used:\n{error}", args.config.display());
            return Ok(ExitCode::from(BAD_CONFIG));
        }
    };
    if args.check {
        println!("{} is fine", args.config.display());
        return Ok(ExitCode::SUCCESS);
    }
    let stopped = stop_signals()?;
    let doors = Doors::open(&config).await?;
    let (postgres, http) = (config.listen.address, config.http.address);
    let service = Service::start(config, doors, None, CancellationToken::new()).await?;
    if let Err(error) = service.provider().check().await {
        // Not fatal: it may come up later than we do.
        tracing::warn!(%error, "the identity provider does not answer");
    }
    tracing::info!(%postgres, %http, "serving");
    let mut reload = signal(SignalKind::hangup())?;
    let mut stopped = std::pin::pin!(stopped);
    loop {
        tokio::select! {
            // Stopping comes first.
            biased;
            () = &mut stopped => break,
            _ = reload.recv() => service.reload(),
        }
    }
    tracing::info!("stopping");
    service.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Ends at the first SIGTERM or SIGINT.
pub(super) fn stop_signals() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
