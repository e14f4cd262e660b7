//! What a running gateway drops after its time, keeps under a legal hold, and erases when it is told to.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use std::path::Path;
use std::time::{Duration, Instant};

use pgwitness_index::proof::{Against, HeadCheck, Report, note::Note, verify_against};
use pgwitness_index::storage::DirStorage;
use serde_json::{Value, json};

use super::support::gateway::{Settings, TestGateway};

const PATIENCE: Duration = Duration::from_secs(90);
/// Nothing is dropped in a test that waits for this.
const LONG: u64 = 1_000_000;

async fn gateway(full: u64, metadata: u64, holds: &[&str]) -> TestGateway {
    let holds: Vec<String> = holds.iter().map(|hold| (*hold).to_owned()).collect();
    TestGateway::with(Settings {
        change: Box::new(move |config| {
            config.retention.full = Duration::from_secs(full);
            config.retention.metadata = Duration::from_secs(metadata);
            config.retention.full_rule = format!("retention.full = {full}s");
            config.retention.metadata_rule = format!("retention.metadata = {metadata}s");
            config.retention.legal_hold = holds;
            config.access.admin = config.access.auditor.clone();
        }),
        ..Settings::default()
    })
    .await
}

fn report(dir: &Path, checkpoint: &str) -> Report {
    let checkpoint = Some(Note::parse(checkpoint.as_bytes()).unwrap());
    let storage = DirStorage::open(dir.join("journal")).unwrap();
    verify_against(&storage, Against { checkpoint, ..Against::default() }).unwrap()
}

async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// An answer that needs a signed head.
async fn signed(gateway: &TestGateway, path: &str) -> Value {
    let ask = reqwest::Client::new();
    until("a signed head", async || {
        let asked = ask.get(format!("{}{path}", gateway.http)).bearer_auth(gateway.auditor_token());
        let answer = asked.send().await.unwrap();
        if !answer.status().is_success() {
            return None;
        }
        serde_json::from_str::<Value>(&answer.text().await.unwrap())
            .ok()
            .filter(|answer| !answer["checkpoint"].is_null())
    })
    .await
}

async fn erase(gateway: &TestGateway, id: &str, body: Value) -> (u16, Value) {
    let path = format!("{}/api/v1/events/{id}/erase", gateway.http);
    let asked = reqwest::Client::new().post(path).bearer_auth(gateway.auditor_token()).json(&body);
    let answer = asked.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

async fn show(gateway: &TestGateway, record: &Value) -> Value {
    gateway.get(&format!("/api/v1/events/{}", record["id"].as_str().unwrap())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_go_after_their_time_and_are_neither_found_nor_shown_while_every_proof_holds() {
    let gateway = gateway(2, LONG, &["sql:keptword"]).await;
    let client = gateway.connect("bob").await;
    client.simple_query("select 'secretword' as keyword").await.unwrap();
    client.simple_query("select 'keptword'").await.unwrap();
    let record = gateway.records("sql:secretword", 1).await.remove(0);
    let kept = gateway.records("sql:keptword", 1).await.remove(0);
    let proof_path = format!("/api/v1/events/{}/proof", record["id"].as_str().unwrap());
    let before = signed(&gateway, &proof_path).await;
    let head = signed(&gateway, "/api/v1/log/head").await;

    let seq = format!("seq:{}", record["seq"]);
    until("its text to go", async || {
        assert_eq!(gateway.found(&seq).await.len(), 1, "it is found by everything else all the time");
        gateway.found("sql:secretword").await.is_empty().then_some(())
    })
    .await;
    let shown = show(&gateway, &record).await;
    assert_eq!((&shown["sql"], &shown["params"]), (&Value::Null, &json!([])));
    for same in ["user", "time", "fingerprint", "command", "outcome", "rows", "tables", "session"] {
        assert_eq!(shown[same], record[same], "{same}");
    }
    assert_eq!(shown["erased"][0]["fields"], json!(["sql"]), "{shown}");
    assert_eq!(
        (&shown["erased"][0]["by"], &shown["erased"][0]["reason"]),
        (&json!("retention"), &json!("retention.full = 2s"))
    );
    gateway.seen("sql:keptword", 1).await;
    assert_eq!(show(&gateway, &kept).await["sql"], kept["sql"]);

    let after = signed(&gateway, &proof_path).await;
    let leaf = |proof: &Value, name: &str| proof["leaves"][0][name].clone();
    for same in ["hash", "entry", "index"] {
        assert_eq!(leaf(&before, same), leaf(&after, same));
    }
    assert!(leaf(&before, "values")["sql"].is_object() && leaf(&after, "values")["sql"].is_null());
    assert!(leaf(&after, "erased")["sql"].is_u64());

    let status = gateway.get("/api/v1/status").await["retention"].clone();
    assert_eq!(status["legal_hold"], json!(["sql:keptword"]));
    assert_eq!(status["trouble"], Value::Null);
    assert!(status["next_run"].is_string() && status["oldest_record"].is_string(), "{status}");
    assert!(!gateway.found("event:retention").await.is_empty());

    let report = report(gateway.dir(), head["checkpoint"].as_str().unwrap());
    assert!(report.intact && report.given_head == Some(HeadCheck::Found), "{report}");
    assert!(report.classes.metadata > 0, "{report}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_after_their_time_and_an_old_head_still_continues() {
    let gateway = gateway(1, 3, &[]).await;
    let client = gateway.connect("bob").await;
    client.simple_query("select 'longgone'").await.unwrap();
    let record = gateway.records("sql:longgone", 1).await.remove(0);
    let head = signed(&gateway, "/api/v1/log/head").await;
    let seq = format!("seq:{}", record["seq"]);
    until("the record to go", async || gateway.found(&seq).await.is_empty().then_some(())).await;
    let first = gateway.dir().join("journal/00000000000000000001.journal");
    until("its file to go", async || (!first.exists()).then_some(())).await;
    let checkpoint = head["checkpoint"].as_str().unwrap();
    let size: u64 = checkpoint.lines().nth(1).unwrap().parse().unwrap();
    let proof = signed(&gateway, &format!("/api/v1/log/consistency?from={size}")).await;
    assert_eq!(proof["from_root"].as_str(), checkpoint.lines().nth(2));
    // A segment may go while its neighbours are read: what is seen then is not the whole.
    until("a quiet look", async || {
        let report = report(gateway.dir(), checkpoint);
        (report.intact && report.given_head == Some(HeadCheck::Found) && report.classes.dropped > 0)
            .then_some(())
    })
    .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_one_record_are_erased_by_an_administrator_who_says_why_and_not_under_a_hold() {
    let gateway = gateway(LONG, LONG, &["sql:keptword"]).await;
    let client = gateway.connect("bob").await;
    client.query("select $1::text as erasable", &[&"person@x.org"]).await.unwrap();
    client.simple_query("select 'keptword'").await.unwrap();
    let record = gateway.records("sql:erasable", 1).await.remove(0);
    let kept = gateway.records("sql:keptword", 1).await.remove(0);
    let id = |record: &Value| record["id"].as_str().unwrap().to_owned();
    let body = json!({ "fields": ["params"], "reason": "art. 17, case 4711" });

    assert_eq!(erase(&gateway, &id(&kept), body.clone()).await.0, 409);
    for (id, body, status) in [
        (id(&record), json!({ "fields": ["user"], "reason": "no" }), 400),
        (id(&record), json!({ "fields": [], "reason": "no" }), 400),
        (id(&record), json!({ "fields": ["params"], "reason": " " }), 400),
        (id(&record), json!({ "fields": ["error"], "reason": "there is none" }), 409),
        ("999999".to_owned(), body.clone(), 404),
    ] {
        assert_eq!(erase(&gateway, &id, body).await.0, status);
    }
    let (status, answer) = erase(&gateway, &id(&record), body.clone()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["seq"], record["seq"]);

    until("it to be forgotten", async || gateway.found("params:person@x.org").await.is_empty().then_some(()))
        .await;
    gateway.seen("sql:erasable", 1).await;
    let shown = show(&gateway, &record).await;
    assert_eq!((&shown["sql"], &shown["params"]), (&record["sql"], &json!([])));
    let told = &shown["erased"][0];
    assert_eq!((&told["fields"], &told["reason"]), (&json!(["params"]), &body["reason"]));
    assert_eq!((told["by"].as_str(), &told["seq"]), (Some("carol@example.com"), &answer["erased_by"]));
    gateway.seen("event:audit.erase", 1).await;
    assert_eq!(erase(&gateway, &id(&record), body).await.0, 409, "there is nothing left of it");
    let head = signed(&gateway, "/api/v1/log/head").await;
    let report = report(gateway.dir(), head["checkpoint"].as_str().unwrap());
    assert!(report.intact && report.classes.erased == 1, "{report}");
    gateway.stop().await;
}
