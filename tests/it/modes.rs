//! The modes of login that a rule chooses: SCRAM for accounts, OAUTHBEARER, and which passwords are taken.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use pgwitness::config::{Config, LoginMode, LoginRule, Proof, RoleMapping, Secret, Service};
use serde_json::{Value, json};

use super::support::gateway::{Settings, TestGateway};
use super::support::wire::{Wire, error_code, error_text, message, startup};

const PASSWORD: &str = "a password that nobody guesses";

async fn start(mode: LoginMode, change: impl FnOnce(&mut Config) + Send + 'static) -> TestGateway {
    let change = move |config: &mut Config| {
        let rule = LoginRule {
            databases: Vec::new(),
            users: Vec::new(),
            addresses: Vec::new(),
            mode,
            pin_address: false,
        };
        config.login = vec![rule];
        change(config);
    };
    TestGateway::with(Settings { change: Box::new(change), ..Settings::default() }).await
}

fn batch(config: &mut Config) {
    let service = |name: &str, break_glass, expires| Service {
        name: name.to_owned(),
        proof: Proof::Password(Secret::new(PASSWORD)),
        databases: Vec::new(),
        addresses: Vec::new(),
        expires,
        break_glass,
    };
    config.services =
        vec![service("batch", false, None), service("rescue", true, None), service("past", false, Some(1))];
    let users = ["batch", "rescue", "past"].map(|name| format!("service:{name}")).to_vec();
    let roles = vec!["app_read".to_owned()];
    config.role_map.push(RoleMapping {
        groups: Vec::new(),
        users,
        databases: Vec::new(),
        roles,
        ..RoleMapping::default()
    });
}

async fn refused(gateway: &TestGateway, user: &str, password: &str) -> (String, String) {
    let error = gateway.try_connect(user, password).await.expect_err("nobody is let in");
    let error = error.as_db_error().unwrap_or_else(|| panic!("not the gateway's word: {error}")).clone();
    (error.code().code().to_owned(), error.message().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_logs_in_by_scram_and_stands_in_the_record_as_what_it_is() {
    let gateway = start(LoginMode::Scram, batch).await;
    let client = gateway.try_connect("batch", PASSWORD).await.unwrap();
    client.batch_execute("SELECT 'bybatch', name FROM products").await.unwrap();
    let record = gateway.records("event:query sql:bybatch", 1).await.remove(0);
    assert_eq!(
        (&record["user"], &record["iss"], &record["role"]),
        (&json!("service:batch"), &json!("pgwitness"), &json!("app_read"))
    );
    assert_eq!((&record["auth"]["mode"], record["auth"].get("break_glass")), (&json!("scram"), None));
    let rescue = gateway.try_connect("rescue", PASSWORD).await.unwrap();
    rescue.batch_execute("SELECT 'byrescue'").await.unwrap();
    let record = gateway.records("event:query sql:byrescue", 1).await.remove(0);
    assert_eq!(record["auth"]["break_glass"], "true");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_an_unknown_account_and_one_that_is_over_are_told_the_same() {
    let gateway = start(LoginMode::Scram, batch).await;
    for (user, password) in [("batch", "wrong"), ("nobody", PASSWORD), ("past", PASSWORD)] {
        let (code, text) = refused(&gateway, user, password).await;
        assert_eq!(
            (code.as_str(), text),
            ("28P01", format!("password authentication failed for user \"{user}\""))
        );
    }
    let records = gateway.records("event:login.failed", 3).await;
    assert!(records.iter().all(|record| record["user"] == Value::Null), "nobody is named who proved nothing");
    gateway.stop().await;
}

/// Begins a connection by SASL: the first answer to what the client says first.
async fn sasl(gateway: &TestGateway, first: &[u8]) -> (Wire, (u8, Vec<u8>)) {
    let mut wire = Wire::silent(gateway).await;
    wire.send(&startup(0, &[("user", "app_read"), ("database", gateway.database())])).await;
    let offered = wire.next().await.unwrap();
    assert_eq!(offered, (b'R', b"\0\0\0\x0aOAUTHBEARER\0\0".to_vec()));
    let length = u32::try_from(first.len()).unwrap().to_be_bytes();
    wire.send(&message(b'p', &[b"OAUTHBEARER\0", &length[..], first].concat())).await;
    let answer = wire.next().await.unwrap();
    (wire, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_oauthbearer_without_a_token_is_told_where_to_get_one() {
    let gateway = start(LoginMode::Oauth, |_| {}).await;
    let (mut wire, (tag, body)) = sasl(&gateway, b"n,,\x01auth=\x01\x01").await;
    assert_eq!((tag, body.get(..4)), (b'R', Some(&[0, 0, 0, 11][..])));
    let told: Value = serde_json::from_slice(&body[4..]).unwrap();
    let me = gateway.get("/.well-known/oauth-protected-resource").await;
    let issuer = me["authorization_servers"][0].as_str().unwrap().trim_end_matches('/');
    assert_eq!(told["openid-configuration"], format!("{issuer}/.well-known/openid-configuration"));
    assert_eq!(told["status"], "invalid_token");
    assert!(told["scope"].as_str().unwrap().split(' ').any(|scope| scope == "openid"), "{told}");
    wire.send(&message(b'p', b"\x01")).await;
    let (tag, body) = wire.next().await.unwrap();
    assert_eq!((tag, error_code(&body).as_str()), (b'E', "28000"));
    assert!(wire.next().await.is_none());
    gateway.records("event:login.prompted", 1).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_by_oauthbearer_opens_a_session_and_a_bad_one_is_answered_as_none() {
    let gateway = start(LoginMode::Oauth, |_| {}).await;
    let first = format!("n,,\u{1}auth=Bearer {}\u{1}\u{1}", gateway.jwt().await);
    let (mut wire, answer) = sasl(&gateway, first.as_bytes()).await;
    assert_eq!(answer, (b'R', vec![0, 0, 0, 0]), "AuthenticationOk, and no AuthenticationSASLFinal");
    wire.ready().await;
    wire.run("SELECT 'byoauth'").await;
    let record = gateway.records("event:query sql:byoauth", 1).await.remove(0);
    assert_eq!((&record["user"], &record["auth"]["mode"]), (&json!("carol@example.com"), &json!("oauth")));

    let (mut wire, (tag, body)) =
        sasl(&gateway, b"n,,\x01auth=Bearer eyJhbGciOiJub25lIn0.e30.AAAA\x01\x01").await;
    assert_eq!((tag, body.get(..4)), (b'R', Some(&[0, 0, 0, 11][..])));
    wire.send(&message(b'p', b"\x01")).await;
    let (_, body) = wire.next().await.unwrap();
    assert!(error_text(&body).starts_with("login failed: "), "{}", error_text(&body));

    let (_, (tag, body)) = sasl(&gateway, b"n,a=bob,\x01auth=Bearer x\x01\x01").await;
    assert_eq!((tag, error_code(&body).as_str()), (b'E', "28000"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_takes_only_the_kind_of_password_that_it_names() {
    let gateway = start(LoginMode::Token, |_| {}).await;
    let (code, text) = refused(&gateway, "app_read", "0123456789abcdef0123456789abcdef").await;
    assert_eq!(
        (code.as_str(), text.as_str()),
        ("28P01", "login failed: this kind of password is not taken here")
    );
    gateway.try_connect("app_read", &gateway.jwt().await).await.unwrap();
    gateway.stop().await;
    let gateway = start(LoginMode::Minted, |_| {}).await;
    let jwt = gateway.jwt().await;
    assert_eq!(refused(&gateway, "app_read", &jwt).await.0, "28P01");
    gateway.try_connect("app_read", gateway.auditor_token()).await.unwrap();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fifth_wrong_password_locks_the_account_for_that_address_and_says_so() {
    let gateway = start(LoginMode::Scram, batch).await;
    for _ in 0..5 {
        assert_eq!(refused(&gateway, "batch", "guess").await.0, "28P01");
    }
    let (code, text) = refused(&gateway, "batch", PASSWORD).await;
    assert!(code == "28000" && text.starts_with("too many failed logins. Try again in "), "{code} {text}");
    gateway.records("event:login.locked", 1).await;
    gateway.try_connect("rescue", PASSWORD).await.unwrap();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_two_persons_claim_is_refused_to_the_second_and_raises_an_alarm() {
    let gateway = start(LoginMode::Paired, |_| {}).await;
    let secret = "0123456789abcdef0123456789abcdef";
    gateway.try_connect("ann@example.com", secret).await.unwrap();
    let (code, text) = refused(&gateway, "bob@example.com", secret).await;
    assert!(code == "28000" && text.contains("already stands for another person"), "{code} {text}");
    let alarm = gateway.records("event:alert", 1).await.remove(0);
    assert_eq!((&alarm["outcome"], &alarm["detail"]), (&json!("denied"), &json!("bob@example.com")));
    assert!(alarm["error"].as_str().unwrap().contains("claimed by two persons"), "{alarm}");
    gateway.stop().await;
}
