//! Device login.

use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use serde_json::json;

use super::super::{Ending, LoginError, Mode, TokenFault};
use super::script::Script;
use super::{TICK, config, demo, provider, provider_with, within};
use crate::config::Secret;
use crate::demo::provider::ApproveError;

#[tokio::test]
async fn an_approved_login_is_its_person() {
    let demo = demo().await;
    let provider = provider(demo.issuer());
    let login = within(provider.start_device()).await.unwrap();
    assert!(login.link().contains(&login.user_code) && login.link().starts_with(demo.issuer()));
    let code = login.user_code.replace('-', "").to_lowercase();
    let (principal, ()) = within(async {
        tokio::join!(provider.wait_device(&login), async {
            assert!(matches!(demo.approve(&code, "mallory"), Err(ApproveError::NoSuchPerson { .. })));
            assert_eq!(demo.approve(&code, "alice").unwrap().email, "alice@example.com");
            assert_eq!(demo.approve(&code, "bob"), Err(ApproveError::Answered));
        })
    })
    .await;
    let principal = principal.unwrap();
    assert_eq!((principal.user(), principal.mode()), ("alice@example.com", Mode::Device));
    assert_eq!(principal.groups(), ["support", "dev"]);
    assert_eq!(principal.iss(), demo.issuer());
    assert!(principal.expires() <= SystemTime::now() + Duration::from_secs(12 * 3600));
    // The code was used: a second client with the same code gets nothing.
    assert!(matches!(within(provider.wait_device(&login)).await, Err(LoginError::Refused { .. })));
    assert!(!format!("{login:?}{principal:?}").contains("eyJ"));
}

#[tokio::test]
async fn a_denied_login_says_so() {
    let demo = demo().await;
    let provider = provider(demo.issuer());
    let login = within(provider.start_device()).await.unwrap();
    demo.deny(&login.user_code).unwrap();
    let error = within(provider.wait_device(&login)).await.unwrap_err();
    assert_eq!((error.clone(), error.event()), (LoginError::Denied, Ending::Denied));
}

#[tokio::test]
async fn two_hundred_logins_that_wait_do_not_storm_a_slow_provider_and_all_end_in_time() {
    let script = Script::start().await;
    let provider = provider(&script.issuer);
    let mut device = script.device();
    device["expires_in"] = json!(100);
    script.always("/device", 200, &device);
    script.always_slowly("/token", 400, &json!({"error": "authorization_pending"}), 10 * TICK);
    let logins = (0..200).map(|_| provider.start_device());
    let logins: Vec<_> = within(join_all(logins)).await.into_iter().map(Result::unwrap).collect();
    let ends = within(join_all(logins.iter().map(|login| provider.wait_device(login)))).await;
    assert!(ends.into_iter().all(|end| end == Err(LoginError::Expired)));
    let most = script.most_at_once("/token");
    assert!((1..=16).contains(&most), "{most} at once");
}

#[tokio::test]
async fn faults_of_the_provider_do_not_end_the_wait() {
    let script = Script::start().await;
    let provider = provider(&script.issuer).impatient(Duration::from_millis(200));
    script.say("/token", 503, &json!({}));
    script.say("/token", 502, &json!("<html>"));
    script.say("/token", 400, &json!({"error": "authorization_pending"}));
    script.say_slowly("/token", 200, &json!({}), Duration::from_secs(5));
    script.say("/token", 404, &json!("a proxy in between"));
    script.say("/token", 200, &json!("not tokens"));
    script.say("/token", 400, &json!({"error": "temporarily_unavailable"}));
    script.say("/token", 429, &json!({}));
    script.say("/token", 200, &script.tokens(&script.claims()));
    // Approved, but the keys are not to be had for a moment.
    for _ in 0..3 {
        script.say("/jwks", 503, &json!({}));
    }
    let login = within(provider.start_device()).await.unwrap();
    let principal = within(provider.wait_device(&login)).await.unwrap();
    assert_eq!(principal.sub(), "alice-1");
    assert_eq!(script.hits("/token"), 9);
    assert!(script.heard("/token").1.contains("device_code=device-code"));
}

#[tokio::test]
async fn slow_down_adds_five_seconds_each_time() {
    let script = Script::start().await;
    let provider = provider(&script.issuer);
    script.say("/token", 400, &json!({"error": "slow_down"}));
    script.say("/token", 400, &json!({"error": "slow_down"}));
    script.say("/token", 200, &script.tokens(&script.claims()));
    let login = within(provider.start_device()).await.unwrap();
    let begun = Instant::now();
    within(provider.wait_device(&login)).await.unwrap();
    assert!(begun.elapsed() >= TICK * (1 + 6 + 11), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_login_ends_with_its_code_by_the_providers_word_or_by_our_clock() {
    let script = Script::start().await;
    let provider = provider(&script.issuer);
    script.say("/token", 400, &json!({"error": "expired_token"}));
    let login = within(provider.start_device()).await.unwrap();
    let error = within(provider.wait_device(&login)).await.unwrap_err();
    assert_eq!((error.clone(), error.event()), (LoginError::Expired, Ending::Expired));

    let mut device = script.device();
    device["expires_in"] = json!(100);
    script.always("/device", 200, &device);
    let login = within(provider.start_device()).await.unwrap();
    assert_eq!(within(provider.wait_device(&login)).await, Err(LoginError::Expired));
    // Out of reach until the end: that is what is said.
    script.always("/token", 503, &json!({}));
    let login = within(provider.start_device()).await.unwrap();
    assert!(matches!(within(provider.wait_device(&login)).await, Err(LoginError::Unreachable { .. })));
}

#[tokio::test]
async fn what_the_provider_says_against_us_reaches_the_log_and_not_the_client() {
    let script = Script::start().await;
    let provider = provider(&script.issuer);
    let refusal = json!({"error": "invalid_client", "error_description": "secret\nof the house"});
    script.say("/device", 401, &refusal);
    script.say("/token", 401, &refusal);
    let started = within(provider.start_device()).await.unwrap_err();
    let login = within(provider.start_device()).await.unwrap();
    let waited = within(provider.wait_device(&login)).await.unwrap_err();
    for error in [started, waited] {
        assert_eq!(
            error.to_string(),
            "the identity provider refused the gateway: invalid_client: secret\u{fffd}of the house"
        );
        assert!(!error.client_text().contains("house"));
        assert_eq!(error.event(), Ending::Failed);
    }
}

#[tokio::test]
async fn a_strange_answer_shows_no_link() {
    let script = Script::start().await;
    let provider = provider(&script.issuer);
    let cases = [
        ("user_code", json!("AB\nCD")),
        ("user_code", json!("")),
        ("user_code", json!("x".repeat(100))),
        ("verification_uri", json!("javascript:alert(1)")),
        ("verification_uri", json!("http://phish.example.com/")),
        ("verification_uri", json!("https://example.com/\u{1b}[0m")),
        ("expires_in", json!("soon")),
    ];
    for (name, value) in cases {
        let mut device = script.device();
        device[name] = value;
        script.say("/device", 200, &device);
        assert!(
            matches!(within(provider.start_device()).await, Err(LoginError::Unreachable { .. })),
            "{name}"
        );
    }
    let mut device = script.device();
    device["verification_uri_complete"] = json!("data:text/html,x");
    script.say("/device", 200, &device);
    let login = within(provider.start_device()).await.unwrap();
    assert_eq!(login.link(), format!("{}/verify", script.issuer));
}

#[tokio::test]
async fn the_token_of_an_approved_login_is_verified_too() {
    let script = Script::start().await;
    let provider = provider(&script.issuer);
    let mut claims = script.claims();
    claims["aud"] = json!("another-client");
    script.say("/token", 200, &script.tokens(&claims));
    script.say("/token", 200, &json!({"access_token": "x"}));
    let login = within(provider.start_device()).await.unwrap();
    assert_eq!(within(provider.wait_device(&login)).await, Err(LoginError::BadToken(TokenFault::Audience)));
    assert!(matches!(within(provider.wait_device(&login)).await, Err(LoginError::Refused { .. })));
    let access = json!({"id_token": script.key.sign("at+jwt", &script.claims())});
    script.say("/token", 200, &access);
    assert_eq!(within(provider.wait_device(&login)).await, Err(LoginError::BadToken(TokenFault::Kind)));
}

#[tokio::test]
async fn userinfo_is_asked_for_what_the_id_token_does_not_say() {
    let script = Script::start().await;
    let provider = provider(&script.issuer);
    let mut claims = script.claims();
    for name in ["email", "email_verified", "groups"] {
        claims.as_object_mut().unwrap().remove(name);
    }
    let info =
        json!({"sub": "alice-1", "email": "alice@example.com", "email_verified": true, "groups": ["dev"]});
    script.always("/userinfo", 200, &info);
    script.say("/token", 200, &script.tokens(&claims));
    let login = within(provider.start_device()).await.unwrap();
    let principal = within(provider.wait_device(&login)).await.unwrap();
    assert_eq!((principal.user(), principal.groups()), ("alice@example.com", &["dev".to_owned()][..]));
    assert_eq!(script.heard("/userinfo").0, "Bearer access");

    let mut other = info.clone();
    other["sub"] = json!("bob-2");
    script.say("/userinfo", 200, &other);
    script.say("/token", 200, &script.tokens(&claims));
    let result = within(provider.wait_device(&login)).await;
    assert_eq!(result, Err(LoginError::BadToken(TokenFault::Claim("sub".to_owned()))));
    // A token that says everything needs no second question.
    script.say("/token", 200, &script.tokens(&script.claims()));
    within(provider.wait_device(&login)).await.unwrap();
    assert_eq!(script.hits("/userinfo"), 2);
}

#[tokio::test]
async fn a_confidential_client_proves_itself_the_way_the_provider_wants() {
    let script = Script::start().await;
    let mut config = config(&script.issuer);
    config.client_secret = Some(Secret::new("s3:cr%t"));
    within(provider_with(config.clone()).start_device()).await.unwrap();
    let (authorization, body) = script.heard("/device");
    // "pgwitness:s3%3Acr%25t": form-encoded first, then base64.
    assert_eq!(authorization, "Basic cGd3aXRuZXNzOnMzJTNBY3IlMjV0");
    assert!(!body.contains("secret") && body.contains("scope=openid+email+groups"), "{body}");

    let mut discovery = script.discovery();
    discovery["token_endpoint_auth_methods_supported"] = json!(["client_secret_post"]);
    script.always("/.well-known/openid-configuration", 200, &discovery);
    let provider = provider_with(config);
    within(provider.start_device()).await.unwrap();
    let (authorization, body) = script.heard("/device");
    assert!(authorization.is_empty() && body.contains("client_secret=s3%3Acr%25t"), "{body}");
    assert!(!format!("{provider:?}{:?}", provider.config()).contains("s3:cr"));
}

#[tokio::test]
async fn waiting_logins_are_bounded_and_give_their_place_back() {
    let script = Script::start().await;
    let provider = provider(&script.issuer).with_pending_limit(2);
    let first = within(provider.start_device()).await.unwrap();
    let second = within(provider.start_device()).await.unwrap();
    let copy = second.clone();
    assert!(matches!(within(provider.start_device()).await, Err(LoginError::TooMany { .. })));
    drop(second);
    assert!(matches!(within(provider.start_device()).await, Err(LoginError::TooMany { .. })));
    drop(copy);
    let third = within(provider.start_device()).await.unwrap();
    // A wait that is dropped in the middle leaves nothing behind.
    let cut = tokio::time::timeout(TICK * 3, provider.wait_device(&third)).await;
    assert!(cut.is_err());
    drop((first, third));
    within(provider.start_device()).await.unwrap();
}

#[tokio::test]
async fn a_provider_without_device_login_or_without_an_answer_is_named_in_the_log() {
    let script = Script::start().await;
    let mut discovery = script.discovery();
    discovery.as_object_mut().unwrap().remove("device_authorization_endpoint");
    script.always("/.well-known/openid-configuration", 200, &discovery);
    let error = within(provider(&script.issuer).start_device()).await.unwrap_err();
    assert!(error.to_string().contains("device_authorization_endpoint"), "{error}");
    // Nobody listens there: the port was free a moment ago.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = within(provider(&format!("http://{free}")).start_device()).await.unwrap_err();
    assert!(matches!(error, LoginError::Unreachable { .. }), "{error}");
    assert!(super::Provider::new(config("http://id.example.com")).is_err());
}
