//! Which role somebody gets, by which rule, until when; and programs that show a token of their platform.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pgwitness::config::{ClaimRule, Config, LoginMode, LoginRule, RoleMapping, Workload};
use pgwitness::demo::shop::CAROL;
use serde_json::json;

use super::support::gateway::{Settings, TestGateway};

async fn start(change: impl FnOnce(&mut Config) + Send + 'static) -> TestGateway {
    let change = move |config: &mut Config| {
        let (databases, users, addresses) = Default::default();
        config.login =
            vec![LoginRule { databases, users, addresses, mode: LoginMode::Token, pin_address: false }];
        change(config);
    };
    TestGateway::with(Settings { change: Box::new(change), ..Settings::default() }).await
}

fn own(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

async fn refused(gateway: &TestGateway, user: &str) -> (String, String) {
    let error = gateway.try_connect(user, &gateway.jwt().await).await.expect_err("nobody is let in");
    let error = error.as_db_error().unwrap_or_else(|| panic!("not the gateway's word: {error}")).clone();
    (error.message().to_owned(), error.hint().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_says_which_rule_gave_the_role_and_a_refused_one_is_an_event_of_its_own() {
    let gateway = start(|config| {
        let rule = RoleMapping { users: own(&["dan"]), roles: own(&["dba"]), ..RoleMapping::default() };
        config.role_map.insert(0, rule);
    })
    .await;
    let client = gateway.try_connect("app_read", &gateway.jwt().await).await.unwrap();
    client.batch_execute("SELECT 'byrule'").await.unwrap();
    let record = gateway.records("event:query sql:byrule", 1).await.remove(0);
    // Before Carol's rule stand those of Dan, Ann and Bob.
    assert_eq!(
        (&record["auth"]["rule"], &record["auth"]["email"]),
        (&json!("role_map 4"), &json!(CAROL.email))
    );
    assert_eq!(
        (&record["groups"], &record["auth"]["groups_sha256"]),
        // printf 'security\n' | sha256sum
        (&json!(["security"]), &json!("d5412ba2881932dc58ee856fca78a38d863b758736a2357eb466c1c6cc8cd6ba"))
    );
    let (text, hint) = refused(&gateway, "dba").await;
    assert!(text.starts_with("carol@example.com may not use role \"dba\" in database "), "{text}");
    assert!(hint.contains("role_map"), "{hint}");
    let record = gateway.records("event:role.denied is:denied", 1).await.remove(0);
    assert_eq!((&record["user"], &record["outcome"]), (&json!(CAROL.email), &json!("denied")));
    assert!(record["error"].as_str().unwrap().contains("Connect as one of: app_read"), "{record}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_asks_for_a_stronger_login_refuses_a_weaker_one_and_says_what_is_needed() {
    let gateway = start(|config| {
        let (groups, roles, require_acr) = (own(CAROL.groups), own(&["app_read"]), own(&["phr", "phrh"]));
        config.role_map.insert(0, RoleMapping { groups, roles, require_acr, ..RoleMapping::default() });
    })
    .await;
    let (text, hint) = refused(&gateway, "app_read").await;
    assert!(text.starts_with("carol@example.com may not use role \"app_read\""), "{text}");
    assert_eq!(hint, "A stronger login is needed there (acr phr or phrh).");
    gateway.records("event:role.denied", 1).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_given_until_a_time_ends_its_sessions_then() {
    let gateway = start(|config| {
        let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(4);
        let (groups, roles) = (own(CAROL.groups), own(&["app_read"]));
        let expires = i64::try_from(soon.as_secs()).ok();
        config.role_map.insert(0, RoleMapping { groups, roles, expires, ..RoleMapping::default() });
        config.role_map.truncate(1);
    })
    .await;
    let client = gateway.try_connect("app_read", &gateway.jwt().await).await.unwrap();
    client.batch_execute("SELECT 1").await.unwrap();
    let ended = async { while client.batch_execute("SELECT pg_sleep(0.1)").await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the session outlived its role");
    gateway.records("event:session.end", 1).await;
    let (text, _) = refused(&gateway, "app_read").await;
    assert!(text.starts_with("carol@example.com may not use role"), "{text}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_logs_in_with_the_token_of_its_platform_and_is_recorded_under_its_rules_name() {
    let gateway = start(|config| {
        let claims = vec![ClaimRule { claim: "email".to_owned(), values: own(&["carol@*"]) }];
        config.workloads = vec![Workload {
            name: "nightly".to_owned(),
            issuer: config.oidc.issuer.clone(),
            audience: config.oidc.audience.clone(),
            claims,
            groups: own(&["batch"]),
            max_life: Duration::from_secs(600),
        }];
        let (groups, roles) = (own(&["batch"]), own(&["app_write"]));
        config.role_map.insert(0, RoleMapping { groups, roles, ..RoleMapping::default() });
    })
    .await;
    // By its own name it gets the first role of its rule.
    let client = gateway.try_connect("nightly", &gateway.jwt().await).await.unwrap();
    client.batch_execute("SELECT 'byworkload'").await.unwrap();
    let record = gateway.records("event:query user:\"workload:nightly\" sql:byworkload", 1).await.remove(0);
    assert_eq!((&record["role"], &record["groups"]), (&json!("app_write"), &json!(["batch"])));
    let auth = &record["auth"];
    assert_eq!((&auth["mode"], &auth["claim.email"]), (&json!("token"), &json!(CAROL.email)));
    gateway.stop().await;
}
