//! Sessions that an administrator ends.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use serde_json::{Value, json};

use super::support::gateway::{Settings, TestGateway};
use super::support::wire::{Wire, error_code, succeeded};

/// A gateway that asks the provider about logins all the time.
async fn curious() -> TestGateway {
    let change = |config: &mut pgwitness::config::Config| {
        config.oidc.refresh_every = std::time::Duration::from_millis(200);
    };
    TestGateway::with(Settings { change: Box::new(change), ..Settings::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_whom_the_provider_disables_loses_their_sessions_and_their_secret() {
    let gateway = curious().await;
    let mut wire = Wire::open(&gateway).await;
    let secret = "0123456789abcdef0123456789abcdef";
    let paired = gateway.try_connect("ann@example.com", secret).await.unwrap();
    paired.batch_execute("SELECT 1").await.unwrap();
    gateway.provider().disable("ann@example.com");
    assert_eq!(end_of(&mut wire).await, ("E".to_owned(), "57P01".to_owned()));
    gateway.records("event:login.revoked user:ann", 2).await;
    let _anew = gateway.try_connect("ann@example.com", secret).await.unwrap();
    gateway.records("event:login.prompted", 3).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_leaves_a_group_loses_the_sessions_that_it_gave() {
    let gateway = curious().await;
    let mut wire = Wire::open(&gateway).await;
    assert!(succeeded(&wire.run("SELECT 1").await));
    gateway.provider().regroup("ann@example.com", &["nobody"]);
    assert_eq!(end_of(&mut wire).await, ("E".to_owned(), "57P01".to_owned()));
    let told = gateway.records("event:login.refreshed user:ann", 1).await.remove(0);
    assert_eq!(told["groups"], json!(["nobody"]));
    gateway.stop().await;
}

async fn start() -> TestGateway {
    let change =
        |config: &mut pgwitness::config::Config| config.access.admin = vec!["group:security".to_owned()];
    TestGateway::with(Settings { change: Box::new(change), ..Settings::default() }).await
}

async fn terminate(gateway: &TestGateway, session: &str, scope: &str) -> Value {
    let path = format!("/api/v1/sessions/{session}/terminate");
    gateway.post(&path, &json!({ "scope": scope })).await
}

/// Everything up to the end of the connection, as tags; and the code of the error at its end.
async fn end_of(wire: &mut Wire) -> (String, String) {
    let last = wire.rest().await;
    let tags = last.iter().map(|(tag, _)| char::from(*tag)).collect();
    let error = last.iter().rfind(|(tag, _)| *tag == b'E').map(|(_, body)| error_code(body));
    (tags, error.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_at_rest_ends_at_once_and_one_in_a_transaction_is_warned_and_ends_behind_it() {
    let gateway = start().await;
    let (mut idle, mut busy) = (Wire::open(&gateway).await, Wire::open(&gateway).await);
    assert!(succeeded(&busy.run("BEGIN").await));
    assert!(succeeded(&busy.run("SELECT 'inside' FROM customers LIMIT 1").await));
    for session in gateway.sessions().await {
        assert_eq!(
            terminate(&gateway, session["session"].as_str().unwrap(), "session").await,
            json!({ "ended": 1 })
        );
    }
    assert_eq!(end_of(&mut idle).await, ("E".to_owned(), "57P01".to_owned()));
    assert_eq!(busy.next().await.unwrap().0, b'N', "a warning");
    busy.send(&super::support::wire::query("COMMIT")).await;
    assert_eq!(end_of(&mut busy).await, ("CZE".to_owned(), "57P01".to_owned()));
    let record = gateway.records("event:query sql:inside", 1).await.remove(0);
    assert_eq!(record["txn_outcome"], "committed");
    let ended = gateway.records("event:cancel", 2).await;
    assert!(ended.iter().all(|record| record["user"] == "carol@example.com"), "{ended:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_login_loses_its_sessions_and_its_paired_secret() {
    let gateway = start().await;
    let secret = "0123456789abcdef0123456789abcdef";
    let _first = gateway.try_connect("ann@example.com", secret).await.unwrap();
    let _second = gateway.try_connect("ann@example.com", secret).await.unwrap();
    gateway.records("event:login.prompted", 1).await;
    let session = gateway.sessions().await[0]["session"].as_str().unwrap().to_owned();
    assert_eq!(terminate(&gateway, &session, "login").await, json!({ "ended": 2 }));
    let _third = gateway.try_connect("ann@example.com", secret).await.unwrap();
    gateway.records("event:login.prompted", 2).await;
    gateway.records("event:login.revoked user:carol", 1).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_loses_all_that_its_person_has_open_there_and_nobody_elses() {
    let gateway = start().await;
    let (one, two) = ("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210");
    let _first = gateway.try_connect("ann@example.com", one).await.unwrap();
    let _second = gateway.try_connect("ann@example.com", two).await.unwrap();
    let bob = gateway.try_connect("bob@example.com", "another secret of somebody else").await.unwrap();
    gateway.records("event:login.prompted", 3).await;
    let sessions = gateway.sessions().await;
    let of_ann = sessions.iter().find(|session| session["user"] == "ann@example.com").unwrap();
    let id = of_ann["session"].as_str().unwrap();
    assert_eq!(terminate(&gateway, id, "device").await, json!({ "ended": 2 }));
    bob.batch_execute("SELECT 1").await.unwrap();
    let _third = gateway.try_connect("ann@example.com", one).await.unwrap();
    let _fourth = gateway.try_connect("ann@example.com", two).await.unwrap();
    gateway.records("event:login.prompted", 5).await;
    let revoked = gateway.records("event:login.revoked user:carol", 1).await.remove(0);
    assert!(revoked["detail"].as_str().unwrap().starts_with("ended device "), "{revoked}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_one_login_however_often_it_is_shown_and_opens_nothing_once_that_was_ended() {
    let gateway = start().await;
    let (jwt, other) = (gateway.jwt().await, gateway.jwt().await);
    let _first = gateway.try_connect("app_read", &jwt).await.unwrap();
    let _second = gateway.try_connect("app_read", &jwt).await.unwrap();
    let _third = gateway.try_connect("app_read", &other).await.unwrap();
    let sessions = gateway.sessions().await;
    let first = sessions.iter().min_by_key(|session| session["since_us"].as_i64()).unwrap();
    let id = first["session"].as_str().unwrap();
    assert_eq!(terminate(&gateway, id, "login").await, json!({ "ended": 2 }));
    let error = gateway.try_connect("app_read", &jwt).await.expect_err("the token was revoked");
    let text = error.as_db_error().unwrap().message().to_owned();
    assert!(text.contains("this login was ended"), "{text}");
    gateway.try_connect("app_read", &other).await.unwrap();
    gateway.stop().await;
}
