//! The demo, as its user runs it.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use std::io::{BufRead as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const STARTED_WITHIN: Duration = Duration::from_secs(120);

fn run(program: &str, args: &[&str]) -> (bool, String) {
    let out = Command::new(program).args(args).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    (out.status.success(), text)
}

#[test]
fn the_demo_serves_is_found_by_the_other_verbs_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready.json");
    let own = env!("CARGO_BIN_EXE_pgwitness");
    let mut demo = Command::new(own)
        .args(["demo", "--auto-approve", "--no-seed", "--port-base", "16432", "--ready-file"])
        .arg(&ready)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env("XDG_RUNTIME_DIR", folder.path())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !ready.exists() {
        assert!(started.elapsed() < STARTED_WITHIN && demo.try_wait().unwrap().is_none(), "it starts");
        std::thread::sleep(Duration::from_millis(50));
    }
    let told: Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
    let port = told["postgres"]["port"].to_string();
    let target = format!("host=127.0.0.1 port={port} dbname=shop user=ann@example.com");
    let (ok, text) = run("psql", &[&target, "-c", "select * from customers limit 3"]);
    assert!(ok && text.contains("to log in, open http://127.0.0.1:"), "{text}");
    let (found, mut text) = (Instant::now(), String::new());
    while found.elapsed() < Duration::from_secs(10) && !text.contains("customers") {
        let out = Command::new(own)
            .args(["search", "column:customers.email", "--format", "jsonl"])
            .env("XDG_RUNTIME_DIR", folder.path())
            .output()
            .unwrap();
        text = String::from_utf8_lossy(&out.stdout).into_owned();
    }
    let record: Value = serde_json::from_str(text.lines().next().unwrap_or("null")).unwrap();
    assert_eq!((record["user"].as_str(), record["rows"].as_u64()), (Some("ann@example.com"), Some(3)));
    let dir = told["dir"].as_str().unwrap();
    let (ok, text) = run(own, &["verify", "--dir", dir]);
    assert!(ok, "{text}");
    let (ok, _) = run("kill", &["-TERM", &demo.id().to_string()]);
    assert!(ok && demo.wait().unwrap().success());
    assert!(!std::path::Path::new(dir).exists(), "the journal is gone");
}

#[test]
fn the_demos_own_page_is_where_psql_sends_and_a_code_alone_is_enough_for_approve() {
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready.json");
    let own = env!("CARGO_BIN_EXE_pgwitness");
    let mut demo = Command::new(own)
        .args(["demo", "--no-seed", "--port-base", "18432", "--ready-file"])
        .arg(&ready)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .env("XDG_RUNTIME_DIR", folder.path())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !ready.exists() {
        assert!(started.elapsed() < STARTED_WITHIN && demo.try_wait().unwrap().is_none(), "it starts");
        std::thread::sleep(Duration::from_millis(50));
    }
    let told: Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
    let (port, page) = (told["postgres"]["port"].to_string(), told["http"]["url"].as_str().unwrap());
    let target = format!("host=127.0.0.1 port={port} dbname=shop user=ann@example.com");
    let mut psql = Command::new("psql")
        .args([&target, "-X", "-A", "-t", "-c", "select current_user"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = String::new();
    std::io::BufReader::new(psql.stderr.take().unwrap()).read_line(&mut shown).unwrap();
    let (link, code) = shown.split_once("open ").unwrap().1.split_once(" and enter the code ").unwrap();
    assert!(link.starts_with(&format!("{page}/device/")), "{shown}");
    let approve = |code: &str| {
        let mut approve = Command::new(own);
        approve.args(["approve", code, "--as", "ann"]);
        let out = approve.env("XDG_RUNTIME_DIR", folder.path()).output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    };
    assert!(!approve("BBBB-BBBB").0);
    let (ok, text) = approve(code.trim());
    assert!(ok && text.contains("approved as ann@example.com"), "{text}");
    let out = psql.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "app_write");
    assert!(!approve(code.trim()).0, "one use");
    assert!(run("kill", &["-TERM", &demo.id().to_string()]).0 && demo.wait().unwrap().success());
}

#[test]
fn explain_says_what_would_be_recorded_by_the_databases_own_catalog() {
    let server = super::support::postgres::server();
    let out = Command::new(env!("CARGO_BIN_EXE_pgwitness"))
        .args(["explain", "SELECT name FROM customers WHERE email = 'x'", "--database"])
        .arg(server.superuser_url("shop"))
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&out.stderr)));
    assert_eq!(told["reads"], serde_json::json!(["public.customers.name"]));
    assert_eq!(told["filters"], serde_json::json!(["public.customers.email"]));
    assert_eq!(told["analysis"], "exact");
}

#[test]
fn explain_reads_lines_as_one_session_until_another_begins() {
    let server = super::support::postgres::server();
    let lines = [
        (
            1,
            "CREATE TEMP TABLE picked AS SELECT id, email FROM customers",
            "exact",
            "public.customers.email public.customers.id",
        ),
        (1, "SELECT email FROM picked", "exact", "pg_temp.picked.email"),
        (1, "BEGIN", "exact", ""),
        (1, "CREATE TABLE made (a int, b text)", "exact", ""),
        (1, "PREPARE ask(int) AS SELECT b FROM made WHERE a = $1", "exact", "public.made.b"),
        (1, "EXECUTE ask(1)", "exact", "public.made.b"),
        (1, "COMMIT", "exact", ""),
        (1, "SELECT a FROM made", "exact", "public.made.a"),
        (1, "SET search_path = nowhere", "exact", ""),
        // Nobody could have run it after that: what the database says alone.
        (1, "SELECT email FROM customers", "exact", "public.customers.email"),
        (2, "SELECT email FROM picked", "partial", ""),
        (2, "BEGIN", "exact", ""),
        (2, "CREATE TABLE made (c int)", "exact", ""),
        (2, "ROLLBACK", "exact", ""),
        (2, "SELECT c FROM made", "partial", ""),
        (3, "BEGIN", "exact", ""),
        (3, "CREATE SCHEMA other", "exact", ""),
        (3, "CREATE TABLE other.customers (email text)", "exact", ""),
        (3, "PREPARE ask AS SELECT email FROM customers", "exact", "public.customers.email"),
        (3, "EXECUTE ask", "exact", "public.customers.email"),
        (3, "SET LOCAL search_path = other", "exact", ""),
        (3, "EXECUTE ask", "exact", "other.customers.email"),
        (3, "ROLLBACK", "exact", ""),
        (3, "EXECUTE ask", "exact", "public.customers.email"),
    ];
    let mut explain = Command::new(env!("CARGO_BIN_EXE_pgwitness"))
        .args(["explain", "--lines", "--database"])
        .arg(server.superuser_url("shop"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = explain.stdin.take().unwrap();
    for (session, statement, ..) in lines {
        writeln!(input, "{}", serde_json::json!({ "session": session, "statement": statement })).unwrap();
    }
    drop(input);
    let out = explain.wait_with_output().unwrap();
    let answers = String::from_utf8(out.stdout).unwrap();
    assert_eq!(answers.lines().count(), lines.len());
    for (answer, (_, statement, analysis, reads)) in answers.lines().zip(lines) {
        let told: Value = serde_json::from_str(answer).unwrap();
        let found: Vec<_> = told["reads"].as_array().unwrap().iter().map(|r| r.as_str().unwrap()).collect();
        assert_eq!(
            (told["analysis"].as_str().unwrap(), &*found.join(" ")),
            (analysis, reads),
            "{statement}: {told}"
        );
    }
}
