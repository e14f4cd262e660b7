//! `pgwitness config`: check a configuration file, print the default one.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::config::file;

/// The shipped example, which is also the documentation of all keys.
const DEFAULT: &str = include_str!("../config/default.toml");

/// `pgwitness config`
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say whether a configuration can be used, and every mistake in it
    Check {
        /// The configuration
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print a configuration to start from, with every key explained
    Default,
}

pub(super) fn run(args: ConfigArgs) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Default => {
            print!("{DEFAULT}");
            Ok(ExitCode::SUCCESS)
        }
        Verb::Check { file } => match file::read(&file, std::env::vars()) {
            Ok(_) => {
                println!("{} is fine", file.display());
                Ok(ExitCode::SUCCESS)
            }
            Err(error) => {
                eprintln!("pgwitness: {} cannot be used:\n{error}", file.display());
                Ok(ExitCode::FAILURE)
            }
        },
    }
}
