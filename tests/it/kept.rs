//! What opens sessions after a restart of the gateway, and what does not.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::support::gateway::{Settings, TestGateway};

const SECRET: &str = "b7f3e2a1c4d59687aa01bc23de45f678";

/// The first gateway on a folder: somebody approves what asks for it.
async fn first(dir: &Path) -> TestGateway {
    TestGateway::with(Settings { dir: Some(dir.to_owned()), ..Settings::default() }).await
}

/// A later one before the same database: nobody approves anything.
async fn later(dir: &Path, database: &str) -> TestGateway {
    let settings = Settings {
        auto_approve: false,
        login_timeout: Duration::from_secs(2),
        dir: Some(dir.to_owned()),
        database: Some(database.to_owned()),
        ..Settings::default()
    };
    TestGateway::with(settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paired_secret_and_a_token_open_sessions_after_a_restart_without_a_prompt() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = first(dir.path()).await;
    let database = gateway.database().to_owned();
    gateway.try_connect("ann@example.com", SECRET).await.unwrap();
    let token = gateway.post("/api/v1/tokens", &json!({ "name": "kept" })).await;
    let token = token["token"].as_str().unwrap().to_owned();
    gateway.stop().await;

    let gateway = later(dir.path(), &database).await;
    let client = gateway.try_connect("ann@example.com", SECRET).await.unwrap();
    client.batch_execute("SELECT 'after'").await.unwrap();
    let record = gateway.records("event:query sql:after", 1).await.remove(0);
    assert_eq!((&record["user"], &record["auth"]["mode"]), (&json!("ann@example.com"), &json!("pairing")));
    gateway.try_connect("carol@example.com", &token).await.unwrap();
    // Ended means ended, also after the next restart.
    let id = token.split('_').nth(1).unwrap();
    let http = reqwest::Client::new();
    let revoke = http.post(format!("{}/api/v1/logins/{id}/revoke", gateway.http)).bearer_auth(&token);
    assert!(revoke.json(&json!({})).send().await.unwrap().status().is_success());
    assert!(gateway.try_connect("carol@example.com", &token).await.is_err());
    gateway.stop().await;

    let gateway = later(dir.path(), &database).await;
    assert!(gateway.try_connect("carol@example.com", &token).await.is_err());
    gateway.try_connect("ann@example.com", SECRET).await.unwrap();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_of_logins_is_told_of_and_everybody_approves_anew() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = first(dir.path()).await;
    let database = gateway.database().to_owned();
    gateway.try_connect("ann@example.com", SECRET).await.unwrap();
    gateway.stop().await;
    let file = dir.path().join("journal").join("logins");
    let mut bytes = std::fs::read(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!String::from_utf8_lossy(&bytes).contains(SECRET));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();

    let gateway = later(dir.path(), &database).await;
    let error = gateway.try_connect("ann@example.com", SECRET).await.unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("to log in, open"), "{error}");
    let record = gateway.records("event:login.revoked", 1).await.remove(0);
    assert_eq!(record["outcome"], "error");
    assert!(record["error"].as_str().unwrap().contains("damaged"), "{record}");
    assert!(dir.path().join("journal").join("logins.refused").exists());
    gateway.stop().await;
}
