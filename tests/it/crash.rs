//! The gateway ends without warning, and starts again.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use std::sync::Arc;

use pgwitness_index::journal::{Journal, Options, Reader};
use pgwitness_index::proof;
use pgwitness_index::record::{Entry, Event, Record, Timestamp, Who};
use pgwitness_index::storage::{DirStorage, Storage};
use serde_json::json;

use super::support::gateway::{Settings, TestGateway};

/// A journal as a killed gateway leaves it: a statement without an end, and no clean close.
fn killed(dir: &std::path::Path) {
    let storage: Arc<dyn Storage> = Arc::new(DirStorage::create(dir.join("journal")).unwrap());
    let (mut journal, _) = Journal::open(storage, Options::default()).unwrap();
    let time = Timestamp(1_763_769_600_000_000);
    let record = Record {
        id: uuid::Uuid::from_u128(7),
        time,
        event: Event::Query,
        who: Arc::new(Who { user: "ann@example.com".into(), ..Who::default() }),
        sql: Some(pgwitness_index::record::Sql::Once(b"SELECT interrupted".as_slice().into())),
        shape: None,
        params: Vec::new(),
        detail: String::new(),
        done: None,
    };
    journal.append(&[Entry::Record(Box::new(record))]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_whose_end_was_not_seen_is_unknown_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    killed(folder.path());
    let settings = Settings { dir: Some(folder.path().to_owned()), ..Settings::default() };
    let gateway = TestGateway::with(settings).await;
    let records = gateway.records("sql:interrupted", 1).await;
    assert_eq!(records[0]["outcome"], "unknown");
    assert_eq!(records[0]["txn_outcome"], "unknown");
    let gaps = gateway.records("event:gap", 1).await;
    assert_eq!(gaps[0]["seq"], json!(2));
    gateway.stop().await;
    let storage = DirStorage::open(folder.path().join("journal")).unwrap();
    let report = proof::verify(&storage, None, None).unwrap();
    assert!(report.intact, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_index_says_so_and_catches_up_when_it_is_on_again() {
    let folder = tempfile::tempdir().unwrap();
    let settings =
        |index_paused| Settings { dir: Some(folder.path().to_owned()), index_paused, ..Settings::default() };
    let gateway = TestGateway::with(settings(true)).await;
    let client = gateway.connect("ann@example.com").await;
    client.batch_execute("SELECT 'unseen'").await.unwrap();
    drop(client);
    let page = gateway.get("/api/v1/events").await;
    assert_eq!(page["items"], json!([]));
    assert_eq!(page["warnings"], json!(["the search index is paused: newer records are missing"]));
    assert!(page["as_of"]["log_seq"].as_u64() > page["as_of"]["indexed_seq"].as_u64(), "{page}");
    gateway.stop().await;
    let gateway = TestGateway::with(settings(false)).await;
    let found = gateway.records("sql:unseen", 1).await;
    assert_eq!(found[0]["outcome"], "ok");
    let page = gateway.get("/api/v1/events").await;
    assert_eq!(page["warnings"], json!([]));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_leaves_no_gap_and_the_index_can_be_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let settings = || Settings { dir: Some(folder.path().to_owned()), ..Settings::default() };
    let gateway = TestGateway::with(settings()).await;
    let client = gateway.connect("ann@example.com").await;
    client.batch_execute("SELECT 'remembered'").await.unwrap();
    drop(client);
    gateway.records("event:session.end", 1).await;
    gateway.stop().await;
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    let gateway = TestGateway::with(settings()).await;
    gateway.records("sql:remembered", 1).await;
    gateway.records("event:gap", 0).await;
    gateway.stop().await;
    let storage: Arc<dyn Storage> = Arc::new(DirStorage::open(folder.path().join("journal")).unwrap());
    let mut reader = Reader::open(storage, None).unwrap();
    let mut next = 1;
    while let Some(frame) = reader.next_frame().unwrap() {
        for seq in frame.entries.iter().filter_map(|(seq, _)| *seq) {
            assert_eq!(seq.0, next, "seq is contiguous");
            next += 1;
        }
    }
}
