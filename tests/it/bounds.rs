//! Bounds: each says what it is, and none of them is a limit on patience.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use std::time::Duration;

use pgwitness::config::Limits;
use pgwitness_index::record::Outcome;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::support::gateway::{Settings, TestGateway};
use super::support::wire::{Wire, bind, close, error_code, execute, message, parse, query, rows, sync};

async fn limited(change: impl FnOnce(&mut Limits)) -> TestGateway {
    let mut settings = Settings::default();
    change(&mut settings.limits);
    TestGateway::with(settings).await
}

/// The last words before the end: code and the whole text.
async fn last_words(wire: &mut Wire) -> (String, String) {
    let last = wire.rest().await.pop().expect("the gateway says why");
    assert_eq!(last.0, b'E');
    (error_code(&last.1), String::from_utf8_lossy(&last.1).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_beyond_the_limit_is_refused_by_its_header_with_the_key_to_change() {
    let gateway = limited(|limits| limits.max_message = 10_000).await;
    let mut wire = Wire::open(&gateway).await;
    let fits = format!("SELECT length('{}')", "x".repeat(9_000));
    assert_eq!(rows(&wire.run(&fits).await), [[Some("9000".to_owned())]]);
    // A gigabyte is announced; nothing of it needs to come.
    wire.send(&[b"Q".as_slice(), &(1u32 << 30).to_be_bytes()].concat()).await;
    let (code, text) = last_words(&mut wire).await;
    assert_eq!(code, "54000");
    assert!(text.contains("10000") && text.contains("limits.max_message"), "{text}");
    // COPY data is not held, so it has no such limit.
    let mut wire = Wire::open(&gateway).await;
    wire.run("CREATE TEMP TABLE t (a text)").await;
    let line = format!("{}\n", "y".repeat(100_000));
    wire.send(&[query("COPY t FROM STDIN"), message(b'd', line.as_bytes()), message(b'c', b"")].concat())
        .await;
    assert_eq!(wire.tags().await, "GCZ");
    let refused = gateway.records("event:denied", 1).await;
    assert_eq!(refused[0]["user"], "ann@example.com");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_and_portals_beyond_the_limit_are_refused_with_the_key_to_change() {
    let gateway = limited(|limits| limits.max_statements = 3).await;
    let mut wire = Wire::open(&gateway).await;
    // Closed ones leave their place to others.
    for _ in 0..5 {
        let three: Vec<u8> = (0..3).flat_map(|at| parse(&format!("s{at}"), "SELECT 1")).collect();
        let gone: Vec<u8> = (0..3).flat_map(|at| close('S', &format!("s{at}"))).collect();
        wire.send(&[three, gone, sync()].concat()).await;
        assert_eq!(wire.tags().await, "111333Z");
    }
    let four: Vec<u8> = (0..4).flat_map(|at| parse(&format!("s{at}"), "SELECT 1")).collect();
    wire.send(&[four, sync()].concat()).await;
    let (code, text) = last_words(&mut wire).await;
    assert_eq!(code, "54000");
    assert!(text.contains("prepared statements") && text.contains("limits.max_statements"), "{text}");
    let mut wire = Wire::open(&gateway).await;
    let four: Vec<u8> = (0..4).flat_map(|at| bind(&format!("p{at}"), "", &[])).collect();
    wire.send(&[parse("", "SELECT 1"), four, sync()].concat()).await;
    let (code, text) = last_words(&mut wire).await;
    assert_eq!(code, "54000");
    assert!(text.contains("portals") && text.contains("limits.max_statements"), "{text}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_and_values_kept_for_later_are_bounded_in_bytes() {
    let gateway = limited(|limits| limits.max_statement_memory = 1 << 20).await;
    let mut wire = Wire::open(&gateway).await;
    let big = format!("SELECT '{}'", "x".repeat(300_000));
    // The unnamed statement is replaced, so it may be parsed again and again.
    for _ in 0..10 {
        wire.send(&[parse("", &big), bind("", "", &[]), execute(""), sync()].concat()).await;
        assert_eq!(wire.tags().await, "12DCZ");
    }
    let named: Vec<u8> = (0..5).flat_map(|at| parse(&format!("s{at}"), &big)).collect();
    wire.send(&[named, sync()].concat()).await;
    let (code, text) = last_words(&mut wire).await;
    assert_eq!(code, "54000");
    assert!(text.contains("limits.max_statement_memory"), "{text}");
    // One that is larger than all that may be kept passes, if it is alone.
    let mut wire = Wire::open(&gateway).await;
    let huge = format!("SELECT length('{}')", "x".repeat(3 << 20));
    wire.send(&[parse("", &huge), bind("", "", &[]), execute(""), sync()].concat()).await;
    assert_eq!(rows(&wire.ready().await), [[Some((3 << 20).to_string())]]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_beyond_the_limit_waits_and_is_no_error() {
    // The least that may be: as much as PostgreSQL answers before it speaks.
    let gateway = limited(|limits| limits.max_pipeline = 1).await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&[parse("s", "SELECT 'piped'"), sync()].concat()).await;
    wire.ready().await;
    let one = [bind("", "s", &[]), execute("")].concat();
    let (mut read, mut write) = tokio::io::split(wire.stream);
    let sent = async {
        for _ in 0..20 {
            write.write_all(&one.repeat(1000)).await.unwrap();
        }
        write.write_all(&sync()).await.unwrap();
    };
    let heard = async {
        use tokio::io::AsyncReadExt;
        let mut answer = Vec::new();
        while !answer.ends_with(b"Z\0\0\0\x05I") {
            read.read_buf(&mut answer).await.unwrap();
        }
        answer.windows(9).filter(|nine| *nine == b"SELECT 1\0").count()
    };
    let ((), heard) =
        tokio::time::timeout(Duration::from_secs(120), async { tokio::join!(sent, heard) }).await.unwrap();
    assert_eq!(heard, 20_000);
    let found = gateway.stop_and_read("piped").await;
    assert_eq!(found.iter().filter(|(_, outcome, _)| *outcome == Outcome::Ok).count(), 20_000);
}

/// `VmHWM` of this process, which holds the gateway, kB.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Bytes that a slow reader lets lie: it asks for a lot, and reads nothing until it is told to.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_slows_the_server_down_and_costs_no_memory() {
    const ROWS: usize = 300_000;
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    let mut bystander = Wire::open(&gateway).await;
    let pid = rows(&wire.run("SELECT pg_backend_pid()").await)[0][0].clone().unwrap();
    let before = most_memory();
    wire.send(&query(&format!("SELECT repeat('x', 1000) FROM generate_series(1, {ROWS})"))).await;
    // It waits for whoever reads its answers: that is what backpressure looks like from the other end.
    let waits =
        format!("SELECT wait_event FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'ClientWrite'");
    let started = std::time::Instant::now();
    while rows(&bystander.run(&waits).await).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(60), "the server never had to wait");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut seen = 0;
    loop {
        match wire.next().await.unwrap() {
            (b'D', _) => seen += 1,
            (b'Z', _) => break,
            _ => {}
        }
    }
    assert_eq!(seen, ROWS);
    let grown = most_memory().saturating_sub(before);
    assert!(grown < 128 * 1024, "{grown} kB for 300 MB of results");
    gateway.records("event:query rows:300000", 1).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_cancels_at_its_deadline_what_still_runs_and_records_it() {
    let gateway = limited(|limits| limits.drain_timeout = Duration::from_millis(500)).await;
    let dir = tempfile::tempdir().unwrap();
    gateway.stop().await;
    let mut settings = Settings { dir: Some(dir.path().to_owned()), ..Settings::default() };
    settings.limits.drain_timeout = Duration::from_millis(500);
    let gateway = TestGateway::with(settings).await;
    let mut wire = Wire::open(&gateway).await;
    let mut idle = Wire::open(&gateway).await;
    wire.send(&query("SELECT 'overdue' FROM pg_sleep(300)")).await;
    super::death::running(&gateway, "overdue", 1).await;
    let database = gateway.database().to_owned();
    let (answer, at_rest, ()) = tokio::join!(wire.rest(), idle.rest(), gateway.stop());
    assert_eq!(error_code(&answer.last().unwrap().1), "57P01");
    assert_eq!(error_code(&at_rest.last().unwrap().1), "57P01");
    super::death::gone(&database, "overdue").await;
    let gateway =
        TestGateway::with(Settings { dir: Some(dir.path().to_owned()), ..Settings::default() }).await;
    let records = gateway.records("event:query sql:overdue", 1).await;
    assert_eq!(
        (&records[0]["outcome"], &records[0]["txn_outcome"]),
        (&json!("canceled"), &json!("rolled_back"))
    );
    gateway.records("event:gap", 0).await;
    gateway.stop().await;
}
