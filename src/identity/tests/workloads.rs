//! Tokens of the platforms that programs run on.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::super::{LoginError, Mode, Provider, TokenFault};
use super::script::{Script, now};
use super::{config, within};
use crate::config::{ClaimRule, Workload};

fn rule(name: &str, issuer: &str, claims: &[(&str, &[&str])]) -> Workload {
    let own = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
    Workload {
        name: name.to_owned(),
        issuer: issuer.to_owned(),
        audience: "witness".to_owned(),
        claims: claims
            .iter()
            .map(|(claim, values)| ClaimRule { claim: (*claim).to_owned(), values: own(values) })
            .collect(),
        groups: vec!["ci".to_owned()],
        max_life: Duration::from_secs(3600),
    }
}

fn job(platform: &Script) -> Value {
    json!({
        "iss": platform.issuer, "aud": "witness", "sub": "repo:acme/shop:ref:refs/heads/main", "iat": now(),
        "exp": now() + 300, "repository": "acme/shop", "ref": "refs/heads/main", "jti": "j1",
        "groups": ["dba"], "email": "ann@example.com", "email_verified": true,
        "kubernetes.io": {"namespace": "shop"},
    })
}

/// A platform publishes keys, and has no place where anybody could log in.
async fn platform() -> Script {
    let platform = Script::start().await;
    let discovery = json!({"issuer": platform.issuer, "jwks_uri": format!("{}/jwks", platform.issuer)});
    platform.always("/.well-known/openid-configuration", 200, &discovery);
    platform
}

fn provider(people: &Script, rules: &[Workload]) -> Provider {
    Provider::new(config(&people.issuer)).unwrap().with_workloads(rules).unwrap()
}

fn refused(fault: TokenFault) -> LoginError {
    LoginError::BadToken(fault)
}

#[tokio::test]
async fn a_job_is_the_program_of_the_first_rule_whose_claims_all_hold() {
    let (people, platform) = (Script::start().await, platform().await);
    let rules = [
        rule("other", &platform.issuer, &[("repository", &["acme/shop"]), ("ref", &["refs/tags/*"])]),
        rule("deploy", &platform.issuer, &[("repository", &["acme/shop"]), ("ref", &["x", "refs/heads/*"])]),
        rule("late", &platform.issuer, &[("repository", &["acme/*"])]),
    ];
    let provider = provider(&people, &rules);
    let program = within(provider.verify_token(&platform.sign(&job(&platform)))).await.unwrap();
    assert_eq!((program.user(), program.mode()), ("workload:deploy", Mode::Token));
    assert_eq!(program.configured_name(), Some("deploy"));
    assert_eq!((program.iss(), program.sub()), (&*platform.issuer, "repo:acme/shop:ref:refs/heads/main"));
    // What the token says of groups and addresses is its own affair.
    assert_eq!((program.groups(), program.verified_email()), (&["ci".to_owned()][..], None));
    assert!(program.expires() <= SystemTime::now() + Duration::from_secs(3600));
    let auth = program.auth();
    for (name, value) in [("claim.repository", "acme/shop"), ("claim.ref", "refs/heads/main"), ("jti", "j1")]
    {
        assert!(auth.contains(&(name.to_owned(), value.to_owned())), "{name} is missing in {auth:?}");
    }
    // People go on as before.
    let person = within(provider.verify_token(&people.sign(&people.claims()))).await.unwrap();
    assert_eq!(person.user(), "alice@example.com");
}

#[tokio::test]
async fn a_job_that_no_rule_fits_is_refused_whoever_it_says_that_it_is() {
    let (people, platform) = (Script::start().await, platform().await);
    let nested: &[(&str, &[&str])] =
        &[("repository", &["acme/shop"]), ("kubernetes.io.namespace", &["shop"])];
    let rules = [rule("deploy", &platform.issuer, nested)];
    let provider = provider(&people, &rules);
    let check = async |change: &dyn Fn(&mut Value)| {
        let mut claims = job(&platform);
        change(&mut claims);
        within(provider.verify_token(&platform.sign(&claims))).await.map(|program| program.user().to_owned())
    };
    let nested = json!({"namespace": "shop"});
    for (claim, value, fault) in [
        ("repository", json!("acme/shop2"), TokenFault::NoWorkload),
        ("repository", json!("acme/sho"), TokenFault::NoWorkload),
        ("repository", json!(["evil/shop"]), TokenFault::NoWorkload),
        ("repository", Value::Null, TokenFault::NoWorkload),
        ("kubernetes.io.namespace", json!({"x": 1}), TokenFault::NoWorkload),
        ("aud", json!("pgwitness"), TokenFault::Audience),
        ("exp", json!(now() - 31), TokenFault::Expired),
        ("iat", json!(now() - 3700), TokenFault::TooOld),
        ("nbf", json!(now() + 60), TokenFault::NotYet),
        ("events", json!({}), TokenFault::Kind),
        ("sub", json!(7), TokenFault::Claim("sub".to_owned())),
    ] {
        let change = |claims: &mut Value| {
            // A dotted claim by its whole name goes before the path.
            claims["kubernetes.io.namespace"] = json!("shop");
            claims["kubernetes.io"] = nested.clone();
            claims[claim] = value.clone();
        };
        assert_eq!(check(&change).await, Err(refused(fault)), "{claim} {value}");
    }
    // Another platform's key under this one's name; and this platform's key for a person of the provider.
    let claims = job(&platform);
    let result = within(provider.verify_token(&people.sign(&claims))).await;
    assert!(matches!(result, Err(LoginError::BadToken(TokenFault::UnknownKey | TokenFault::Signature))));
    let result = within(provider.verify_token(&platform.sign(&people.claims()))).await;
    assert!(matches!(result, Err(LoginError::BadToken(TokenFault::UnknownKey | TokenFault::Signature))));
}

#[tokio::test]
async fn the_peoples_own_provider_may_vouch_for_programs_too_and_nobody_else_is_named_like_one() {
    let people = Script::start().await;
    let provider = provider(&people, &[rule("nightly", &people.issuer, &[("client_id", &["nightly"])])]);
    let claims = json!({
        "iss": people.issuer, "aud": ["witness"], "sub": "nightly", "iat": now(), "exp": now() + 300,
        "client_id": "nightly",
    });
    let program = within(provider.verify_token(&people.key.sign("at+jwt", &claims))).await.unwrap();
    assert_eq!(program.user(), "workload:nightly");
    let mut claims = people.claims();
    claims["email"] = json!("workload:nightly");
    let result = within(provider.verify_token(&people.sign(&claims))).await;
    assert_eq!(result, Err(refused(TokenFault::Claim("email".to_owned()))));
}

#[tokio::test]
async fn a_platform_that_is_away_is_told_as_such_and_people_still_log_in() {
    let (people, platform) = (Script::start().await, Script::start().await);
    platform.always("/.well-known/openid-configuration", 503, &json!({}));
    let provider = provider(&people, &[rule("deploy", &platform.issuer, &[("repository", &["acme/shop"])])]);
    let result = within(provider.verify_token(&platform.sign(&job(&platform)))).await;
    assert!(matches!(result, Err(LoginError::Unreachable { .. })), "{result:?}");
    assert!(within(provider.verify_token(&people.sign(&people.claims()))).await.is_ok());
}
