//! What `[capture]` leaves out of the record.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use pgwitness::config::{CaptureParameters, CaptureSql, Secret};
use serde_json::{Value, json};

use super::support::gateway::{Settings, TestGateway};

const SECRET: &str = "swordfish77";

async fn start(sql: CaptureSql, parameters: CaptureParameters) -> TestGateway {
    let change = move |config: &mut pgwitness::config::Config| {
        (config.capture.sql, config.capture.parameters) = (sql, parameters);
    };
    TestGateway::with(Settings { change: Box::new(change), ..Settings::default() }).await
}

/// Statements that hold the secret in all the ways in which it could get into the record.
async fn say_secrets(gateway: &TestGateway) -> Vec<Value> {
    let client = gateway.connect("ann@example.com").await;
    for text in [
        format!("SELECT 'one', name FROM customers /* {SECRET} */ WHERE email = '{SECRET}'"),
        format!("SELECT '{SECRET}'::int"),
        format!("SELECT 1 FROM customers WHERE email = '{SECRET}' '{SECRET}' FROM"),
        format!("DO $$BEGIN RAISE EXCEPTION '{SECRET}'; END$$"),
    ] {
        let _ = client.batch_execute(&text).await;
    }
    let statement = client.prepare("SELECT name FROM customers WHERE email = $1 OR id = $2").await.unwrap();
    for value in [Some(SECRET), Some(SECRET), None] {
        client.query(&statement, &[&value, &1]).await.unwrap();
    }
    gateway.records("event:query app:psql", 7).await
}

#[tokio::test(flavor = "multi_thread")]
async fn redacted_texts_hold_no_constant_and_hashed_parameters_only_tell_which_are_equal() {
    let key = Secret::new("a key of at least thirty-two bytes");
    let gateway = start(CaptureSql::Redacted, CaptureParameters::Hmac(key)).await;
    let records = say_secrets(&gateway).await;
    let all = serde_json::to_string(&records).unwrap();
    assert!(!all.contains(SECRET), "{all}");
    assert_eq!(records[0]["sql"], "SELECT ?, name FROM customers WHERE email = ?");
    assert_eq!(records[0]["filters"], json!(["public.customers.email"]), "it was read before");
    assert_eq!(records[1]["sqlstate"], "22P02");
    let params: Vec<&Value> = records[4..].iter().map(|record| &record["params"]).collect();
    assert!(params[0][0].as_str().unwrap().starts_with("hmac:"), "{params:?}");
    assert_eq!((params[0], &params[2][0]), (params[1], &Value::Null));
    assert_ne!(params[0][0], params[0][1]);
    let found = gateway.records(&format!("params:{SECRET}"), 2).await;
    assert_eq!(found, records[4..6], "who knows the value finds it");
    let by_word = gateway.records(&format!("event:query {SECRET}"), 2).await;
    assert_eq!(by_word, found);
    let files: Vec<u8> = std::fs::read_dir(gateway.dir().join("journal"))
        .unwrap()
        .flat_map(|file| std::fs::read(file.unwrap().path()))
        .flatten()
        .collect();
    assert!(!files.windows(SECRET.len()).any(|bytes| bytes == SECRET.as_bytes()));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_fingerprints_are_kept_there_is_no_text_and_tables_and_columns_all_the_same() {
    let gateway = start(CaptureSql::Fingerprint, CaptureParameters::Off).await;
    let records = say_secrets(&gateway).await;
    assert!(!serde_json::to_string(&records).unwrap().contains(SECRET));
    assert!(records.iter().all(|record| record.get("sql").is_none_or(Value::is_null)), "{records:?}");
    assert_eq!(records[0]["filters"], json!(["public.customers.email"]));
    assert_eq!(records[4]["fingerprint"], records[5]["fingerprint"]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_statement_could_not_be_read_for_repeats_none_of_its_constants() {
    let gateway = start(CaptureSql::Full, CaptureParameters::Full).await;
    let records = say_secrets(&gateway).await;
    let notes = records[2]["analysis_notes"].to_string();
    assert!(notes.contains("not understood") && !notes.contains(SECRET), "{notes}");
    assert_eq!(records[4]["params"], json!([SECRET, 1]));
    gateway.stop().await;
}
