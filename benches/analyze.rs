//! How often our reading of statements equals PostgreSQL's, and how long it takes.
//!
//! `PGWITNESS_SQL_TRUTH=<folder> cargo bench --bench analyze [-- corpus …]`. The folder holds
//! `<corpus>/schema.sql` and `<corpus>/statements.jsonl`, each line `{"statement", "truth": {"reads", "writes",
//! "relations", "functions", "expanded": …}}`. A private PostgreSQL is started in a temporary folder (as user postgres
//! when this runs as root) and stopped at the end; `PGWITNESS_PG_BIN` names its programs. Without the variable it says
//! so and ends. `PGWITNESS_SQL_PATH` names another schema than public to look names up in.
//!
//! Prints one line a corpus, every miss, whether the analysis had flagged it, and the time of each stage.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use pgwitness::catalog::{self, Schema};
use pgwitness::sql::{self, Analysis, Certainty, First, Grammar, InProcess, Own, Scan, Settings};
use serde_json::Value;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let Ok(truth) = std::env::var("PGWITNESS_SQL_TRUTH") else {
        println!("skipped: set PGWITNESS_SQL_TRUTH to a folder of corpora to score against");
        return Ok(());
    };
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let server = Server::start()?;
    let mut corpora: Vec<PathBuf> =
        std::fs::read_dir(truth)?.map(|entry| entry.map(|found| found.path())).collect::<Result<_, _>>()?;
    corpora.sort();
    for corpus in corpora.iter().filter(|path| path.join("statements.jsonl").is_file()) {
        let name = corpus.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if wanted.is_empty() || wanted.contains(&name) {
            score(&server, corpus, &name)?;
        }
    }
    Ok(())
}

/// A private server, stopped when dropped.
struct Server {
    dir: tempfile::TempDir,
    bin: PathBuf,
}

impl Server {
    fn start() -> Result<Self, Failure> {
        let bin =
            std::env::var("PGWITNESS_PG_BIN").unwrap_or_else(|_| "/usr/lib/postgresql/15/bin".to_owned());
        let server = Self { dir: tempfile::tempdir()?, bin: bin.into() };
        let place = server.dir.path().display().to_string();
        run(Command::new("chmod").args(["777", &place]))?;
        server.program(
            "initdb",
            &["-D", &server.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
        )?;
        let options = format!("-c listen_addresses='' -c unix_socket_directories={place} -c fsync=off");
        let log = format!("{place}/log");
        server.program("pg_ctl", &["-D", &server.data(), "-w", "-l", &log, "-o", &options, "start"])?;
        Ok(server)
    }

    fn data(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    /// Servers refuse to run as root.
    fn program(&self, name: &str, arguments: &[&str]) -> Result<(), Failure> {
        let program = self.bin.join(name);
        let root = String::from_utf8(Command::new("id").arg("-u").output()?.stdout)?.trim() == "0";
        let mut command = if root {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        run(command.args(arguments).stdout(std::process::Stdio::null()))
    }

    fn psql(&self, database: &str) -> Command {
        let mut command = Command::new("psql");
        command.args(["-X", "-q", "-U", "postgres", "-h"]).arg(self.dir.path()).args(["-d", database]);
        command
    }

    fn create(&self, database: &str, schema: &Path) -> Result<(), Failure> {
        run(self
            .psql("postgres")
            .args(["-c", &format!("create database \"{database}\" template template0")]))?;
        run(self.psql(database).arg("-f").arg(schema).stdout(std::process::Stdio::null()))
    }

    fn load(&self, database: &str) -> Result<Schema, Failure> {
        let mut command = self.psql(database);
        let found = command
            .args([
                "-At",
                "-F\u{1f}",
                "-R\u{1e}",
                "-P",
                "null=\u{1}",
                "-c",
                &catalog::statement(catalog::Part::All),
            ])
            .output()?;
        if !found.status.success() {
            return Err(String::from_utf8_lossy(&found.stderr).into());
        }
        let text = String::from_utf8(found.stdout)?;
        let rows: Vec<Vec<Option<String>>> = text
            .trim_end_matches('\n')
            .split('\u{1e}')
            .map(|row| {
                row.split('\u{1f}').map(|field| (field != "\u{1}").then(|| field.to_owned())).collect()
            })
            .collect();
        Ok(catalog::read(&rows)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.program("pg_ctl", &["-D", &self.data(), "-m", "immediate", "stop"]) {
            eprintln!("could not stop the private server: {error}");
        }
    }
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed: {status}").into()) }
}

fn score(server: &Server, corpus: &Path, name: &str) -> Result<(), Failure> {
    server.create(name, &corpus.join("schema.sql"))?;
    let schema = server.load(name)?;
    let first = std::env::var("PGWITNESS_SQL_PATH").unwrap_or_else(|_| "public".to_owned());
    let path = ["pg_catalog".to_owned(), first];
    // PGWITNESS_SQL_READER=raw: PostgreSQL's own grammar is asked first.
    let raw = std::env::var("PGWITNESS_SQL_READER").is_ok_and(|reader| reader == "raw");
    let grammar: &dyn Grammar = if raw { &First } else { &InProcess };
    let own = Own::default();
    let settings = Settings::new(&path, &own, grammar);
    let (mut all, mut same, mut silent, mut functions) = (0, 0, 0, 0);
    let mut texts = Vec::new();
    for line in std::fs::read_to_string(corpus.join("statements.jsonl"))?.lines() {
        let line: Value = serde_json::from_str(line)?;
        let (Some(text), Some(truth)) = (line["statement"].as_str(), line.get("truth")) else { continue };
        if truth.get("error").is_some() {
            continue;
        }
        let found = sql::analyze(text, &schema, &settings);
        let misses = misses(&found, truth);
        all += 1;
        functions += usize::from(set(&truth["functions"]) == found.functions.iter().cloned().collect());
        if misses.is_empty() {
            same += 1;
        } else {
            silent += usize::from(found.certainty == Certainty::Exact);
            println!(
                "MISS {name} {:?} {:?}\n  {}\n  {}",
                found.certainty,
                found.notes,
                misses.join("\n  "),
                clip(text)
            );
        }
        if found.certainty != Certainty::Exact && misses.is_empty() {
            println!("FLAGGED {name} {:?}\n  {}", found.notes, clip(text));
        }
        texts.push(text.to_owned());
    }
    println!(
        "{name}: {same} of {all} as PostgreSQL, {silent} silent misses, {functions} with the same functions"
    );
    time(&texts, &schema, &settings);
    Ok(())
}

fn clip(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(400).collect()
}

fn set(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

fn misses(found: &Analysis, truth: &Value) -> Vec<String> {
    let expanded = truth.get("expanded").unwrap_or(truth);
    let relations = |value: &Value| -> BTreeSet<String> {
        let all = value["relations"].as_array().into_iter().flatten();
        all.filter_map(|relation| relation["rel"].as_str().map(str::to_owned)).collect()
    };
    let reads: BTreeSet<String> = found.reads.iter().chain(&found.filters).cloned().collect();
    let pairs = [
        ("tables", found.tables.iter().cloned().collect(), relations(expanded)),
        ("reads", reads, set(&expanded["reads"])),
        ("writes", found.writes.iter().cloned().collect(), set(&expanded["writes"])),
    ];
    let mut misses = Vec::new();
    for (what, ours, theirs) in pairs {
        let ours: BTreeSet<String> = ours;
        for missing in theirs.difference(&ours) {
            misses.push(format!("{what}: missing {missing}"));
        }
        for extra in ours.difference(&theirs) {
            misses.push(format!("{what}: extra {extra}"));
        }
    }
    misses
}

/// Microseconds of each statement, the best of a few rounds: the machine is shared.
fn time(texts: &[String], schema: &Schema, settings: &Settings<'_>) {
    let bytes: usize = texts.iter().map(String::len).sum();
    println!("  {} bytes a statement; us a statement, median / 99th percentile:", bytes / texts.len().max(1));
    let best = |work: &dyn Fn(&str)| {
        const ROUNDS: usize = 7;
        let once = |text: &String| {
            let start = Instant::now();
            work(text);
            start.elapsed().as_secs_f64() * 1e6
        };
        let best = |text: &String| (0..ROUNDS).map(|_| once(text)).fold(f64::INFINITY, f64::min);
        let mut all: Vec<f64> = texts.iter().map(best).collect();
        all.sort_by(f64::total_cmp);
        let at = |part: usize| all.get((all.len() * part / 100).min(all.len().saturating_sub(1)));
        [50, 99].map(|part| at(part).copied().unwrap_or_default())
    };
    let known = best(&|text| {
        let scan = Scan::new(text.as_bytes(), true);
        scan.iter().for_each(|(_, key)| {
            std::hint::black_box(key.digest());
        });
    });
    let first = best(&|text| {
        std::hint::black_box(sql::analyze(text, schema, settings));
    });
    for (what, [median, high]) in [("seen before, its key", known), ("first sight", first)] {
        println!("    {what}: {median:.1} / {high:.1}");
    }
}
