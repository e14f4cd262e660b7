//! `pgwitness token`: a short-lived password for programs, printed or put into a passfile.
//!
//! The gateway gives it out to whoever is logged in, records that, and forgets it when the login ends.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::client::{Client, ClientError, Connection, finish, write_private};
use super::connect_info::{OPTION, Target};
use super::table::printable;

/// Largest passfile read, bytes.
const PASSFILE_BYTES_MAX: u64 = 1 << 20;

/// `pgwitness token`
#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Plain)]
    format: Format,
    /// Put it into this passfile instead of printing it [default: $PGPASSFILE, ~/.pgpass]
    #[arg(long, value_name = "FILE")]
    passfile: Option<Option<PathBuf>>,
    /// How long it lives; it ends with your login in any case
    #[arg(long, value_name = "DURATION", default_value = "8h", value_parser = duration)]
    life: Duration,
    /// What it is for, as lists show it
    #[arg(long, default_value = "")]
    name: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The token
    Plain,
    /// Lines for a shell: eval "$(pgwitness token --format env)"
    Env,
    /// A line for ~/.pgpass
    Pgpass,
}

pub(super) async fn run(args: TokenArgs) -> anyhow::Result<ExitCode> {
    Ok(finish(token(&args).await))
}

async fn token(args: &TokenArgs) -> Result<ExitCode, ClientError> {
    let client = Client::find(&args.connection)?;
    // Where it is for goes first: a token that cannot be put anywhere is not asked for.
    let target = match (args.format, &args.passfile) {
        (Format::Pgpass, _) | (_, Some(_)) => Some(Target::of(&client).await?),
        _ => None,
    };
    let wish = json!({ "life": args.life.as_secs(), "name": args.name });
    let given = client.post("/api/v1/tokens", &wish).await?;
    let no_token = || ClientError::Unreachable(format!("{} gave out no token", client.base()));
    let token = given["token"].as_str().filter(|token| is_token(token)).ok_or_else(no_token)?;
    let until = printable(given["expires"].as_str().unwrap_or("its login ends"));
    if let (Some(file), Some(target)) = (&args.passfile, &target) {
        let file = passfile(file.as_deref())?;
        put(&file, &target.pgpass(""), token)
            .map_err(ClientError::local(format!("write {}", file.display())))?;
        eprintln!("put into {}, until {until}", file.display());
        return Ok(ExitCode::SUCCESS);
    }
    let text = match (args.format, &target) {
        (Format::Pgpass, Some(target)) => format!("{}\n", target.pgpass(token)),
        (Format::Env, _) => format!("export PGPASSWORD='{token}'\nexport PGOPTIONS='-c {OPTION}'\n"),
        _ => format!("{token}\n"),
    };
    io::stdout().lock().write_all(text.as_bytes()).map_err(ClientError::local("write the output"))?;
    eprintln!("until {until}");
    Ok(ExitCode::SUCCESS)
}

/// What may stand in a shell's quotes and in a passfile without more thought.
fn is_token(text: &str) -> bool {
    text.starts_with("pgw_") && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

fn duration(text: &str) -> Result<Duration, String> {
    let whole = crate::config::duration(text).filter(|life| life.as_secs() > 0);
    whole.ok_or_else(|| "write for example 30m or 8h".to_owned())
}

fn passfile(named: Option<&Path>) -> Result<PathBuf, ClientError> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    of("PGPASSFILE").or_else(|| of("HOME").map(|home| home.join(".pgpass"))).ok_or_else(|| {
        ClientError::Usage("neither PGPASSFILE nor HOME is set. Name the file: --passfile FILE".to_owned())
    })
}

/// Replaces the file by one whose first line is ours, and which has no other token of ours for there.
fn put(file: &Path, prefix: &str, token: &str) -> io::Result<()> {
    let mut text = format!("{prefix}{token}\n");
    match fs::File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(known) => {
            let mut old = String::new();
            known.take(PASSFILE_BYTES_MAX + 1).read_to_string(&mut old)?;
            if old.len() as u64 > PASSFILE_BYTES_MAX {
                return Err(io::Error::other("it is too large for a passfile"));
            }
            let ours = |line: &&str| line.strip_prefix(prefix).is_some_and(is_token);
            for line in old.lines().filter(|line| !ours(line)) {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    let file = if file.is_absolute() { file.to_owned() } else { std::env::current_dir()?.join(file) };
    write_private(&file, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_passfile_keeps_its_other_lines_and_gets_ours_first_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pgpass");
        put(&file, "gw:6432:*:*:", "pgw_a_1").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "gw:6432:*:*:pgw_a_1\n");
        fs::write(&file, "# mine\ndb:5432:*:me:x\ngw:6432:*:*:pgw_a_1\ngw:6432:shop:me:own\n").unwrap();
        put(&file, "gw:6432:*:*:", "pgw_b_2").unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text, "gw:6432:*:*:pgw_b_2\n# mine\ndb:5432:*:me:x\ngw:6432:shop:me:own\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn what_is_no_token_is_not_printed_into_a_shell() {
        assert!(is_token("pgw_0af_Ab-_9"));
        for bad in ["", "pgw", "pgw_'; rm -rf", "pgw_a\nb", "x"] {
            assert!(!is_token(bad), "{bad}");
        }
    }
}
