//! Where PostgreSQL's server programs are on this machine. Looks at fixed places and runs nothing but
//! `pg_config --bindir`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names the folder of PostgreSQL's programs.
const VARIABLE: &str = "PGWITNESS_PG_BIN";

/// Folders that hold one folder per major version, and where its programs are inside.
const VERSIONED: &[(&str, &str, &str)] = &[
    // Folder, prefix of the version's folder, programs in it.
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

/// Folders without a version in their name.
const PLAIN: &[&str] =
    &["/opt/homebrew/opt/postgresql/bin", "/usr/local/opt/postgresql/bin", "/usr/local/pgsql/bin"];

/// A folder that holds at least `postgres` and `initdb`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgBin {
    dir: PathBuf,
}

impl PgBin {
    /// The folder, if it holds the server programs.
    fn at(dir: impl Into<PathBuf>) -> Option<Self> {
        let dir = dir.into();
        let complete = ["postgres", "initdb"].iter().all(|name| dir.join(name).is_file());
        complete.then_some(Self { dir })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of one of its programs, whether or not it is there.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// No PostgreSQL server programs where they were looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// Somebody named a folder, and it does not hold them.
    #[error(
        "{by} names {}, which does not hold both `postgres` and `initdb`. Name the folder of the PostgreSQL server's programs, for example /usr/lib/postgresql/17/bin", dir.display()
    )]
    Named {
        /// Who named it.
        by: &'static str,
        /// What was named.
        dir: PathBuf,
    },
    /// They are in none of the usual places.
    #[error(
        "no PostgreSQL server on this machine: install one with `{INSTALL}`, or name the folder of its programs in PGWITNESS_PG_BIN"
    )]
    Nowhere,
}

/// What installs PostgreSQL here.
const INSTALL: &str = if cfg!(target_os = "macos") {
    "brew install postgresql@17"
} else {
    "apt-get install postgresql` (Debian, Ubuntu) or `dnf install postgresql-server` (Fedora) or `apk add postgresql"
};

/// Finds the server programs: `explicit`, else `$PGWITNESS_PG_BIN` (both must be right if given), else
/// what `pg_config` says, the newest version in the usual places, and PATH.
pub fn find(explicit: Option<&Path>) -> Result<PgBin, NotFound> {
    if let Some(dir) = explicit {
        return PgBin::at(dir).ok_or_else(|| NotFound::Named { by: "the caller", dir: dir.to_owned() });
    }
    if let Some(dir) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        let dir = PathBuf::from(dir);
        return PgBin::at(&dir).ok_or(NotFound::Named { by: VARIABLE, dir });
    }
    pg_config().or_else(newest).or_else(plain).or_else(on_path).ok_or(NotFound::Nowhere)
}

/// What `pg_config` says, if it is there and the server is too: often only the client library is.
fn pg_config() -> Option<PgBin> {
    let output = Command::new("pg_config").arg("--bindir").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    PgBin::at(text.trim_end())
}

/// The newest version among the folders that carry one in their name.
fn newest() -> Option<PgBin> {
    VERSIONED
        .iter()
        .flat_map(|(folder, prefix, inside)| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.filter_map(move |entry| {
                let name = entry.file_name().into_string().ok()?;
                let version: f64 = name.strip_prefix(prefix)?.parse().ok()?;
                Some((version, PgBin::at(entry.path().join(inside))?))
            })
        })
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, bin)| bin)
}

fn plain() -> Option<PgBin> {
    PLAIN.iter().find_map(PgBin::at)
}

fn on_path() -> Option<PgBin> {
    std::env::split_paths(&std::env::var_os("PATH")?).find_map(PgBin::at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_named_must_hold_the_server() {
        let folder = tempfile::tempdir().unwrap();
        let refused = find(Some(folder.path())).unwrap_err();
        assert!(refused.to_string().contains("does not hold both `postgres` and `initdb`"), "{refused}");

        std::fs::write(folder.path().join("postgres"), "").unwrap();
        assert!(find(Some(folder.path())).is_err(), "initdb is still missing");
        std::fs::write(folder.path().join("initdb"), "").unwrap();
        assert_eq!(find(Some(folder.path())).unwrap().dir(), folder.path());
    }

    #[test]
    fn what_is_missing_is_said_with_the_command_that_installs_it() {
        let text = NotFound::Nowhere.to_string();
        assert!(text.contains("install") && text.contains(VARIABLE), "{text}");
        assert!(!text.contains('\n'), "one line: {text}");
    }
}
