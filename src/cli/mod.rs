//! The command line: one command, one file. Data goes to stdout, messages to stderr.
//!
//! Exit codes: 0 ok, 1 negative answer, 2 usage, 3 cannot connect or authenticate, 78 bad
//! configuration at `run`.

pub mod access;
#[cfg(feature = "demo")]
mod approve;
pub mod client;
mod config;
mod connect_info;
mod database;
#[cfg(feature = "demo")]
mod demo;
pub mod erase;
mod explain;
pub mod export;
mod index;
pub mod login;
mod logins;
mod loopback;
pub mod play;
mod proof;
mod run;
pub mod search;
pub mod show;
mod status;
mod table;
pub mod tail;
mod token;
mod verify;
pub mod who;

#[cfg(all(test, feature = "demo"))]
mod tests;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use tracing_subscriber::EnvFilter;

/// Names the filter of the gateway's own log, in `tracing` syntax.
const LOG_ENV: &str = "PGWITNESS_LOG";

/// A PostgreSQL access gateway that knows who accessed what, and proves it
#[derive(Debug, Parser)]
#[command(name = "pgwitness", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try it: a private PostgreSQL, an identity provider, the gateway and the page
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// Serve
    Run(run::RunArgs),
    /// Check a configuration, or print the default one
    Config(config::ConfigArgs),
    /// Log in, for the verbs that read the log
    Login(login::LoginArgs),
    /// Forget the login
    Logout(login::LogoutArgs),
    /// Who am I, and what may I read
    Whoami(login::WhoamiArgs),
    /// Make a short-lived password for programs
    Token(token::TokenArgs),
    /// How programs connect: URI, service file, JDBC, Django
    ConnectInfo(connect_info::ConnectInfoArgs),
    /// What opens sessions without a prompt: paired secrets and tokens
    Logins(logins::LoginsArgs),
    /// Approve a login of the demo
    #[cfg(feature = "demo")]
    Approve(approve::ApproveArgs),
    /// Search the log
    Search(search::SearchArgs),
    /// Follow the log
    Tail(tail::TailArgs),
    /// Show one record
    Show(show::ShowArgs),
    /// Who touched a table or column
    Who(who::WhoArgs),
    /// What one session did, in order
    Play(play::PlayArgs),
    /// Which tables a person touched
    Access(access::AccessArgs),
    /// Export records
    Export(export::ExportArgs),
    /// Erase values of one record, for administrators; its proofs still hold
    Erase(erase::EraseArgs),
    /// Which tables and columns would be recorded for a statement
    Explain(explain::ExplainArgs),
    /// Verify the journal, offline
    Verify(verify::VerifyArgs),
    /// The search index
    Index(index::IndexArgs),
    /// How the gateway is doing
    Status(status::StatusArgs),
    /// The sessions that are open now
    Sessions(status::SessionsArgs),
    /// Print a script that completes commands and options in a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the version
    Version,
    /// Read statements by PostgreSQL's own grammar, for the gateway
    #[command(hide = true)]
    Grammar,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::Grammar) {
        return crate::grammar::serve().unwrap_or(ExitCode::FAILURE);
    }
    start_log();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("pgwitness: could not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(run_command(cli.command));
    // Nothing is left that must be waited for: what must end in order has ended.
    runtime.shutdown_background();
    ended.unwrap_or_else(|error| {
        eprintln!("pgwitness: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run_command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        #[cfg(feature = "demo")]
        Command::Demo(args) => demo::run(args).await,
        Command::Run(args) => run::run(args).await,
        Command::Config(args) => config::run(args),
        Command::Login(args) => login::run(args).await,
        Command::Logout(args) => login::run_logout(args).await,
        Command::Whoami(args) => login::run_whoami(args).await,
        Command::Token(args) => token::run(args).await,
        Command::ConnectInfo(args) => connect_info::run(args).await,
        Command::Logins(args) => logins::run(args).await,
        #[cfg(feature = "demo")]
        Command::Approve(args) => approve::run(args).await,
        Command::Search(args) => search::run(args).await,
        Command::Tail(args) => tail::run(args).await,
        Command::Show(args) => show::run(args).await,
        Command::Who(args) => who::run(args).await,
        Command::Play(args) => play::run(args).await,
        Command::Access(args) => access::run(args).await,
        Command::Export(args) => export::run(args).await,
        Command::Erase(args) => erase::run(args).await,
        Command::Index(args) => index::run(args).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "pgwitness", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Explain(args) => explain::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Sessions(args) => status::run_sessions(args).await,
        // Answered before the log and the runtime start.
        Command::Grammar => Ok(ExitCode::FAILURE),
        Command::Version => {
            println!("pgwitness {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn start_log() {
    let filter = EnvFilter::try_from_env(LOG_ENV).unwrap_or_else(|_| EnvFilter::new("warn,pgwitness=info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // The log's own failure to start is no reason not to serve.
    let started = match std::env::var("PGWITNESS_LOG_FORMAT").as_deref() {
        Ok("json") => log.json().try_init(),
        _ => log.with_ansi(false).try_init(),
    };
    if let Err(error) = started {
        eprintln!("pgwitness: no log: {error}");
    }
}
