//! Who gets in, who does not, and what is written down of both.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use std::time::Duration;

use serde_json::json;

use super::support::gateway::{Settings, TestGateway};

async fn refused(gateway: &TestGateway, user: &str, password: &str) -> (String, String) {
    let error = gateway.try_connect(user, password).await.expect_err("nobody is let in");
    let error = error.as_db_error().unwrap_or_else(|| panic!("not the gateway's word: {error}")).clone();
    (error.code().code().to_owned(), error.message().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_and_its_session_are_recorded_from_prompt_to_end() {
    let gateway = TestGateway::start().await;
    let client = gateway.connect("ann@example.com").await;
    client.batch_execute("SELECT 1").await.unwrap();
    drop(client);
    let records = gateway.records("app:psql", 5).await;
    let events: Vec<_> = records.iter().map(|record| record["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["login.prompted", "login.ok", "session.start", "query", "session.end"]);
    assert_eq!(records[1]["user"], "ann@example.com");
    assert_eq!(records[0]["user"], json!(null), "nobody is named before the login is verified");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_nobody_granted_is_refused_and_recorded_under_the_verified_name() {
    let gateway = TestGateway::start().await;
    let (code, message) = refused(&gateway, "analyst", gateway.auditor_token()).await;
    assert_eq!(code, "28000");
    assert!(message.contains("carol@example.com may not use role \"analyst\""), "{message}");
    let records = gateway.records("event:role.denied", 1).await;
    assert_eq!(
        (&records[0]["user"], &records[0]["outcome"]),
        (&json!("carol@example.com"), &json!("denied"))
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_password_is_refused_with_the_way_to_make_a_good_one() {
    let gateway = TestGateway::start().await;
    let (code, message) = refused(&gateway, "bob@example.com", "too short").await;
    assert_eq!(code, "28000");
    assert!(message.contains("22"), "{message}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_refused_and_recorded() {
    let gateway = TestGateway::start().await;
    let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.AAAA";
    let (code, message) = refused(&gateway, "ann@example.com", token).await;
    assert_eq!(code, "28000");
    assert!(!message.contains("eyJ"), "{message}");
    let records = gateway.records("event:login.failed", 1).await;
    assert_eq!(records[0]["outcome"], "denied");
    assert!(!records[0].to_string().contains(token));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_approval_opens_every_connection_with_the_same_secret() {
    let gateway = TestGateway::start().await;
    let secret = "b7f3e2a1c4d59687aa01bc23de45f678";
    let connections = (0..20).map(|_| gateway.try_connect("ann@example.com", secret));
    let clients = futures_util::future::join_all(connections).await;
    assert!(clients.iter().all(Result::is_ok), "{:?}", clients.iter().find_map(|c| c.as_ref().err()));
    gateway.records("event:login.prompted app:psql", 1).await;
    gateway.records("event:login.ok app:psql", 20).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_nobody_approves_ends_with_a_clear_error() {
    let settings =
        Settings { auto_approve: false, login_timeout: Duration::from_secs(2), ..Settings::default() };
    let gateway = TestGateway::with(settings).await;
    let (code, message) = refused(&gateway, "ann@example.com", "").await;
    assert_eq!(code, "28000");
    assert!(message.contains("not approved in time"), "{message}");
    gateway.records("event:login.expired", 1).await;
    gateway.stop().await;
}
