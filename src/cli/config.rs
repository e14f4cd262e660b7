//! `pgwitness config`: check a configuration file and say what it decides, print what is written, the default one, its
//! schema.

mod asked;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::config::file::{self, ConfigError, Origin};
use asked::Asked;

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
    /// Say whether a configuration can be used, and every mistake in it; of a person, which rules decide
    Check {
        /// The configuration
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        asked: Asked,
    },
    /// Print what is written, key by key, with the environment's overrides and without secrets
    Show {
        /// The configuration
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Also where each value stands
        #[arg(long)]
        origin: bool,
    },
    /// Print a configuration to start from, with every key explained
    Default,
    /// Print the form of the file as JSON Schema, for editors
    Schema,
}

pub(super) fn run(args: ConfigArgs) -> anyhow::Result<ExitCode> {
    match args.verb {
        Verb::Default => print!("{DEFAULT}"),
        Verb::Schema => println!("{}", file::schema()),
        Verb::Check { file, asked } => match file::read(&file, std::env::vars()) {
            Ok(config) if asked.is_about_somebody() => return asked.answer(&config),
            Ok(_) => println!("{} is fine", file.display()),
            Err(error) => return Ok(unusable(&file, &error)),
        },
        Verb::Show { file, origin } => match file::written(&file, std::env::vars()) {
            Ok(keys) => {
                for key in keys {
                    match (&key.origin, origin) {
                        (_, false) => println!("{} = {}", key.key, key.value),
                        (Origin::File, true) => println!("{} = {}  # {}", key.key, key.value, file.display()),
                        (Origin::Variable(name), true) => println!("{} = {}  # {name}", key.key, key.value),
                    }
                }
                eprintln!("Keys that are not shown have the defaults of: pgwitness config default");
            }
            Err(error) => return Ok(unusable(&file, &error)),
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn unusable(file: &std::path::Path, error: &ConfigError) -> ExitCode {
    eprintln!("pgwitness: {} cannot be used:\n{error}", file.display());
    ExitCode::FAILURE
}
