//! Logins that are approved at the gateway's own page, and how many may wait.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use pgwitness::config::Limits;
use serde_json::{Value, json};

use super::support::gateway::{Settings, TestGateway};
use super::support::wire::{Wire, error_code, error_text, startup};

/// A gateway whose page approves logins; nobody approves them by themselves unless told so.
async fn start(auto_approve: bool) -> TestGateway {
    TestGateway::with(Settings { auto_approve, change: Box::new(with_page), ..Settings::default() }).await
}

fn with_page(config: &mut pgwitness::config::Config) {
    config.http.public_url = format!("http://{}", config.http.address).parse().ok();
}

/// A psql that waits: the link and the code that it shows.
async fn prompted(gateway: &TestGateway, user: &str, database: &str) -> (Wire, String, String) {
    let mut wire = Wire::silent(gateway).await;
    let asked = [("user", user), ("database", database), ("application_name", "psql")];
    wire.send(&startup(0, &asked)).await;
    assert_eq!(wire.next().await.unwrap(), (b'R', vec![0, 0, 0, 0]));
    let (tag, notice) = wire.next().await.unwrap();
    assert_eq!(tag, b'N');
    let text = error_text(&notice);
    let (_, rest) = text.split_once("to log in, open ").unwrap_or_else(|| panic!("{text}"));
    let (link, code) = rest.split_once(" and enter the code ").unwrap_or_else(|| panic!("{text}"));
    assert!(link.starts_with(&format!("{}/device/", gateway.http)), "{link}");
    gateway.provider().point(code, link);
    (wire, link.to_owned(), code.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_approved_at_our_page_is_recorded_with_where_the_browser_was_and_the_device() {
    let gateway = start(true).await;
    let client = gateway.connect("ann@example.com").await;
    client.batch_execute("SELECT 'paged'").await.unwrap();
    let record = gateway.records("event:query sql:paged", 1).await.remove(0);
    assert_eq!((&record["user"], &record["auth"]["mode"]), (&json!("ann@example.com"), &json!("device")));
    assert_eq!(record["auth"]["approved_from"], "127.0.0.1");
    let device = record["device"].as_str().unwrap().to_owned();
    assert_eq!(device.len(), 16);
    let again = gateway.connect("ann@example.com").await;
    again.batch_execute("SELECT 'paged'").await.unwrap();
    let records = gateway.records("event:query sql:paged", 2).await;
    assert!(records.iter().all(|record| record["device"] == *device), "the same device, another login");
    assert_ne!(records[0]["login"], records[1]["login"]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_approval_at_our_page_opens_every_connection_with_the_same_secret() {
    let gateway = start(true).await;
    let secret = "b7f3e2a1c4d59687aa01bc23de45f678";
    let connections = (0..20).map(|_| gateway.try_connect("ann@example.com", secret));
    let clients = futures_util::future::join_all(connections).await;
    assert!(clients.iter().all(Result::is_ok), "{:?}", clients.iter().find_map(|c| c.as_ref().err()));
    gateway.records("event:login.prompted app:psql", 1).await;
    let records = gateway.records("event:login.ok app:psql", 20).await;
    assert!(records.iter().all(|record| record["auth"]["approved_from"] == "127.0.0.1"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_denies_at_our_page_stands_in_the_record_and_the_client_is_told() {
    let gateway = start(false).await;
    let (mut wire, _, code) = prompted(&gateway, "ann@example.com", gateway.database()).await;
    gateway.provider().deny_anywhere(&code, "bob@example.com").await.unwrap();
    let (tag, error) = wire.next().await.unwrap();
    assert_eq!((tag, error_code(&error).as_str()), (b'E', "28000"));
    assert!(error_text(&error).contains("denied") && !error_text(&error).contains("bob"));
    let records = gateway.records("event:login.denied", 2).await;
    assert_eq!(records[0]["user"], "bob@example.com", "the no itself, by whoever said it");
    assert_eq!(records[1]["user"], Value::Null, "the end of the login, of which nobody is known");
    assert_eq!(records[1]["error"], "the login was denied by bob@example.com");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_client_is_gone_says_so() {
    let gateway = start(false).await;
    let (wire, link, code) = prompted(&gateway, "ann@example.com", gateway.database()).await;
    let page = async || {
        let answer = reqwest::Client::new().get(&link).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, shown) = page().await;
    assert_eq!(status, 200);
    assert!(
        shown.contains("psql") && shown.contains("ann@example.com") && shown.contains(gateway.database())
    );
    drop(wire);
    gateway.records("event:login.failed outcome:canceled", 1).await;
    let (status, shown) = page().await;
    assert_eq!(status, 410);
    assert!(shown.contains("The client left"), "{shown}");
    assert!(gateway.provider().approve_anywhere(&code, "ann@example.com").await.is_err());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_learns_which_roles_and_databases_there_are_before_they_log_in() {
    let gateway = start(false).await;
    let mut shown = Vec::new();
    for (user, database) in [
        ("app_read", gateway.database()),
        ("no_such_role", gateway.database()),
        ("app_read", "no_such_database"),
        ("postgres", "no_such_database"),
    ] {
        let (_wire, link, code) = prompted(&gateway, user, database).await;
        shown.push((link.len(), code.len()));
    }
    shown.dedup();
    assert_eq!(shown.len(), 1);
    // Nor does whoever may not have it: the answer is the same whether it exists or not.
    let mut told = Vec::new();
    for (user, database) in [("app_write", gateway.database()), ("no_such_role", gateway.database())] {
        let (mut wire, _, code) = prompted(&gateway, user, database).await;
        gateway.provider().approve_anywhere(&code, "carol@example.com").await.unwrap();
        let (_, error) = wire.next().await.unwrap();
        told.push((error_code(&error), error_text(&error).replace(user, "ROLE").replace(database, "DB")));
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_that_wait_are_bounded_and_what_is_beyond_is_told_and_recorded() {
    let limits = Limits { max_pending_logins: (100, 2), ..Settings::default().limits };
    let settings =
        Settings { auto_approve: false, limits, change: Box::new(with_page), ..Settings::default() };
    let gateway = TestGateway::with(settings).await;
    let first = prompted(&gateway, "ann@example.com", gateway.database()).await;
    let _second = prompted(&gateway, "ann@example.com", gateway.database()).await;
    let refused = async || {
        let mut wire = Wire::silent(&gateway).await;
        wire.send(&startup(0, &[("user", "ann@example.com"), ("database", gateway.database())])).await;
        assert_eq!(wire.next().await.unwrap().0, b'R');
        let (tag, error) = wire.next().await.unwrap();
        assert_eq!((tag, error_code(&error).as_str()), (b'E', "53300"));
        assert!(error_text(&error).contains("too many logins waiting"), "{}", error_text(&error));
    };
    for _ in 0..3 {
        refused().await;
    }
    let records = gateway.records("event:login.failed", 3).await;
    assert!(records.iter().all(|record| record["ip"] == "127.0.0.1" && record["outcome"] == "denied"));
    drop(first);
    gateway.records("event:login.failed outcome:canceled", 1).await;
    prompted(&gateway, "ann@example.com", gateway.database()).await;
    gateway.stop().await;
}
