//! Tokens that somebody presents.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::super::{LoginError, Mode, TokenFault};
use super::script::{Script, now};
use super::{config, provider, provider_with, within};
use crate::demo::provider::Key;
use crate::identity::keys::KeySet;
use crate::identity::token::Unverified;

fn bad<T>(fault: TokenFault) -> Result<T, LoginError> {
    Err(LoginError::BadToken(fault))
}

#[tokio::test]
async fn a_good_token_is_its_person() {
    let script = Script::start().await;
    let provider = provider(&script.issuer);
    let mut claims = script.claims();
    claims["amr"] = json!(["pwd", "otp"]);
    claims["acr"] = json!("gold");
    let principal = within(provider.verify_token(&script.sign(&claims))).await.unwrap();
    assert_eq!(
        (principal.iss(), principal.sub(), principal.user(), principal.mode()),
        (script.issuer.as_str(), "alice-1", "alice@example.com", Mode::Token)
    );
    assert_eq!(principal.groups(), ["support"]);
    let auth = principal.auth();
    let names: Vec<_> = auth.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["mode", "amr", "acr", "iat", "exp", "kid", "email", "email_verified", "groups_sha256"]
    );
    assert_eq!(auth[1].1, "pwd otp");
    assert!(principal.expires() <= SystemTime::now() + Duration::from_secs(12 * 3600));
}

#[tokio::test]
async fn a_token_is_refused_for_each_thing_that_is_wrong_with_it() {
    let script = Script::start().await;
    let mut config = config(&script.issuer);
    config.require_acr = vec!["gold".to_owned()];
    let provider = provider_with(config);
    let good = || {
        let mut claims = script.claims();
        claims["acr"] = json!("gold");
        claims
    };
    within(provider.verify_token(&script.sign(&good()))).await.unwrap();
    let cases: Vec<(&str, Value, TokenFault)> = vec![
        ("iss", json!("https://evil.example.com"), TokenFault::Issuer),
        ("iss", json!(format!("{}/", script.issuer)), TokenFault::Issuer),
        ("iss", Value::Null, TokenFault::Issuer),
        ("aud", json!("other"), TokenFault::Audience),
        ("aud", json!(["other", "pgwitness2"]), TokenFault::Audience),
        ("aud", json!({"pgwitness": true}), TokenFault::Audience),
        ("azp", json!("other"), TokenFault::Party),
        ("exp", json!(now() - 31), TokenFault::Expired),
        ("exp", json!("2099"), TokenFault::Claim("exp".to_owned())),
        ("exp", json!(1e300), TokenFault::Claim("exp".to_owned())),
        ("exp", json!(-1), TokenFault::Claim("exp".to_owned())),
        ("iat", json!(now() + 60), TokenFault::NotYet),
        ("iat", json!(now() - 13 * 3600), TokenFault::TooOld),
        ("nbf", json!(now() + 60), TokenFault::NotYet),
        ("acr", json!("silver"), TokenFault::Context),
        ("events", json!({}), TokenFault::Kind),
        ("email_verified", json!(false), TokenFault::EmailNotVerified),
        ("email", json!("a\nb@example.com"), TokenFault::Claim("email".to_owned())),
        ("email", json!("a\u{202e}b@example.com"), TokenFault::Claim("email".to_owned())),
        ("email", json!(["a@example.com"]), TokenFault::Claim("email".to_owned())),
        ("sub", json!(7), TokenFault::Claim("sub".to_owned())),
        ("sub", json!("x".repeat(300)), TokenFault::Claim("sub".to_owned())),
        ("groups", json!([1]), TokenFault::Claim("groups".to_owned())),
        ("groups", json!(vec!["g"; 1001]), TokenFault::Claim("groups".to_owned())),
    ];
    for (claim, value, fault) in cases {
        let mut claims = good();
        claims[claim] = value.clone();
        assert_eq!(within(provider.verify_token(&script.sign(&claims))).await, bad(fault), "{claim} {value}");
    }
    for claim in ["exp", "iat", "sub", "email"] {
        let mut claims = good();
        claims.as_object_mut().unwrap().remove(claim);
        let result = within(provider.verify_token(&script.sign(&claims))).await;
        assert_eq!(result, bad(TokenFault::Missing(claim.to_owned())));
    }
    let mut claims = good();
    claims.as_object_mut().unwrap().remove("email_verified");
    assert_eq!(within(provider.verify_token(&script.sign(&claims))).await, bad(TokenFault::EmailNotVerified));
}

#[tokio::test]
async fn clocks_may_differ_by_half_a_minute() {
    let script = Script::start().await;
    let provider = provider(&script.issuer);
    for (claim, at) in [("exp", now() - 20), ("iat", now() + 20), ("nbf", now() + 20)] {
        let mut claims = script.claims();
        claims[claim] = json!(at);
        let principal = within(provider.verify_token(&script.sign(&claims))).await.unwrap();
        assert!(principal.expires() <= SystemTime::now() + Duration::from_secs(12 * 3600), "{claim}");
    }
}

#[tokio::test]
async fn a_signature_that_is_not_by_the_providers_key_proves_nothing() {
    let script = Script::start().await;
    let provider = provider(&script.issuer);
    let good = script.sign(&script.claims());
    let claims = script.claims();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let kid = script.key.jwk()["kid"].clone();

    // `none`, with and without a signature, in every spelling.
    for alg in ["none", "None", "NONE", ""] {
        let head = part(&json!({"alg": alg, "kid": kid}));
        for signature in ["", "AAAA"] {
            let token = format!("{head}.{}.{signature}", part(&claims));
            assert_eq!(within(provider.verify_token(&token)).await, bad(TokenFault::Algorithm), "{alg}");
        }
    }
    // HS256 with the public key as the shared secret.
    let public = URL_SAFE_NO_PAD.decode(script.key.jwk()["x"].as_str().unwrap()).unwrap();
    let signed = format!("{}.{}", part(&json!({"alg": "HS256", "kid": kid})), part(&claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(&public).unwrap();
    mac.update(signed.as_bytes());
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));
    assert_eq!(within(provider.verify_token(&token)).await, bad(TokenFault::Algorithm));
    // Another key under the same name; another algorithm than the key's; a key brought along.
    let other = Key::new();
    let token = other.seal(&json!({"alg": "EdDSA", "kid": kid}), &claims);
    assert_eq!(within(provider.verify_token(&token)).await, bad(TokenFault::Signature));
    let token = script.key.seal(&json!({"alg": "RS256", "kid": kid}), &claims);
    assert_eq!(within(provider.verify_token(&token)).await, bad(TokenFault::UnknownKey));
    let token = other.seal(&json!({"alg": "EdDSA", "jwk": other.jwk()}), &claims);
    assert_eq!(within(provider.verify_token(&token)).await, bad(TokenFault::UnknownKey));
    // Other claims under a good signature.
    let (head, signature) = (good.split('.').next().unwrap(), good.rsplit('.').next().unwrap());
    let mut forged = claims.clone();
    forged["email"] = json!("admin@example.com");
    let token = format!("{head}.{}.{signature}", part(&forged));
    assert_eq!(within(provider.verify_token(&token)).await, bad(TokenFault::Signature));
    // What must be understood and is not; what is not meant to log anybody in.
    let token = script.key.seal(&json!({"alg": "EdDSA", "kid": kid, "crit": ["x"], "x": 1}), &claims);
    assert!(matches!(
        within(provider.verify_token(&token)).await,
        Err(LoginError::BadToken(TokenFault::Malformed(_)))
    ));
    let token = script.key.sign("logout+jwt", &claims);
    assert_eq!(within(provider.verify_token(&token)).await, bad(TokenFault::Kind));
}

#[tokio::test]
async fn garbage_is_malformed_and_never_a_panic_or_a_request() {
    let script = Script::start().await;
    let provider = provider(&script.issuer);
    let huge = "a".repeat(70_000);
    let deep = URL_SAFE_NO_PAD.encode("[".repeat(10_000));
    let deep = format!("{deep}.{deep}.{deep}");
    for text in
        ["", ".", "..", "...", "a.b.c", "é.é.é", "e30.e30.", "e30.W10.AA", "bnVsbA.e30.AA", &huge, &deep]
    {
        assert!(
            matches!(within(provider.verify_token(text)).await, Err(LoginError::BadToken(_))),
            "{text:.20}"
        );
    }
    assert_eq!(script.hits("/jwks"), 0);
}

#[tokio::test]
async fn access_tokens_are_for_the_audience_and_id_tokens_for_the_client() {
    let script = Script::start().await;
    let mut config = config(&script.issuer);
    config.audience = "https://pgwitness.example.com".to_owned();
    let provider = provider_with(config);
    let check = async |typ: &str, aud: Value, azp: &str| {
        let mut claims = script.claims();
        claims["aud"] = aud;
        claims["azp"] = json!(azp);
        within(provider.verify_token(&script.key.sign(typ, &claims))).await.map(|_| ())
    };
    let ours = json!(["x", "https://pgwitness.example.com"]);
    assert_eq!(check("at+jwt", ours.clone(), "some-cli").await, Ok(()));
    assert_eq!(check("JWT", ours, "some-cli").await, Ok(()));
    assert_eq!(check("JWT", json!("pgwitness"), "pgwitness").await, Ok(()));
    assert_eq!(check("JWT", json!("pgwitness"), "some-app").await, bad(TokenFault::Party));
    // The command line's own client, which keeps no secret.
    assert_eq!(check("JWT", json!("pgwitness-cli"), "pgwitness-cli").await, Ok(()));
    assert_eq!(check("JWT", json!("pgwitness-cli"), "some-app").await, bad(TokenFault::Party));
    assert_eq!(
        check("at+jwt", json!("https://other.example.com"), "pgwitness").await,
        bad(TokenFault::Audience)
    );
}

#[tokio::test]
async fn a_storm_of_unknown_keys_costs_one_fetch() {
    let script = Script::start().await;
    let provider = provider(&script.issuer).hurried(super::TICK, Duration::from_secs(3600));
    within(provider.verify_token(&script.sign(&script.claims()))).await.unwrap();
    let stranger = Key::new().seal(&json!({"alg": "EdDSA", "kid": "stranger"}), &script.claims());
    let (_, rest) = stranger.split_once('.').unwrap();
    let storm = (0..200).map(|n| {
        let head = json!({"alg": "EdDSA", "kid": format!("k{n}")});
        let token = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(head.to_string()));
        let provider = provider.clone();
        async move { provider.verify_token(&token).await }
    });
    for result in within(futures_util::future::join_all(storm)).await {
        assert_eq!(result, bad(TokenFault::UnknownKey));
    }
    assert_eq!(script.hits("/jwks"), 1);
    assert_eq!(script.hits("/.well-known/openid-configuration"), 1);
}

#[tokio::test]
async fn a_rotated_key_is_found_and_a_withdrawn_one_forgotten() {
    let script = Script::start().await;
    let provider = super::provider(&script.issuer).hurried(super::TICK, Duration::ZERO);
    let old = script.sign(&script.claims());
    within(provider.verify_token(&old)).await.unwrap();
    let next = Key::new();
    script.publish(&next);
    within(provider.verify_token(&next.sign("JWT", &script.claims()))).await.unwrap();
    assert_eq!(within(provider.verify_token(&old)).await, bad(TokenFault::UnknownKey));
    // A token that does not name its key.
    let third = Key::new();
    script.publish(&third);
    within(provider.verify_token(&third.seal(&json!({"alg": "EdDSA"}), &script.claims()))).await.unwrap();
}

#[tokio::test]
async fn keys_in_hand_outlive_a_provider_that_is_down() {
    let script = Script::start().await;
    let provider = super::provider(&script.issuer).hurried(super::TICK, Duration::ZERO);
    let token = script.sign(&script.claims());
    within(provider.verify_token(&token)).await.unwrap();
    script.always("/jwks", 503, &json!({}));
    within(provider.verify_token(&token)).await.unwrap();
    let unknown = Key::new().sign("JWT", &script.claims());
    assert!(matches!(within(provider.verify_token(&unknown)).await, Err(LoginError::Unreachable { .. })));
    within(provider.verify_token(&token)).await.unwrap();
}

#[tokio::test]
async fn many_who_wait_for_a_hanging_provider_wait_one_time_out_together() {
    let script = Script::start().await;
    for _ in 0..100 {
        let slow = Duration::from_secs(20);
        script.say_slowly("/.well-known/openid-configuration", 200, &script.discovery(), slow);
    }
    let provider = provider(&script.issuer).impatient(Duration::from_millis(300));
    let begun = std::time::Instant::now();
    let waiting = (0..50).map(|_| provider.check());
    for result in within(futures_util::future::join_all(waiting)).await {
        let error = result.unwrap_err();
        assert!(!error.client_text().contains("127.0.0.1"), "{}", error.client_text());
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_provider_that_misdescribes_itself_is_not_believed() {
    let script = Script::start().await;
    let cases = [
        ("issuer", json!("https://other.example.com")),
        ("issuer", json!(format!("{}/", script.issuer))),
        ("jwks_uri", json!("http://10.1.2.3/jwks")),
        ("token_endpoint", json!("file:///etc/passwd")),
        ("token_endpoint", json!(7)),
    ];
    for (name, value) in cases {
        let mut discovery = script.discovery();
        discovery[name] = value;
        script.always("/.well-known/openid-configuration", 200, &discovery);
        let result = within(provider(&script.issuer).check()).await;
        assert!(matches!(result, Err(LoginError::Unreachable { .. })), "{name}");
    }
    // No redirect is followed, and no answer read without end.
    let path = "/.well-known/openid-configuration";
    let elsewhere = format!("{}/elsewhere", script.issuer);
    script.always("/elsewhere", 200, &script.discovery());
    script.always_raw(path, 302, Vec::new(), Some(&elsewhere));
    assert!(within(provider(&script.issuer).check()).await.is_err());
    assert_eq!(script.hits("/elsewhere"), 0);
    script.always_raw(path, 200, vec![b' '; 300_000], None);
    let error = within(provider(&script.issuer).check()).await.unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
}

#[test]
fn every_algorithm_on_the_list_is_really_verified() {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("vectors.json")).unwrap();
    assert_eq!(vectors.len(), 6);
    for vector in vectors {
        let set = json!({"keys": [vector["jwk"]]}).to_string();
        let set = KeySet::read(set.as_bytes()).unwrap();
        let jwt = vector["jwt"].as_str().unwrap();
        assert!(Unverified::read(jwt).unwrap().verify(set.keys()).is_ok(), "{}", vector["alg"]);
        // One bit of the signature, then of the claims.
        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes[10] ^= 1;
        let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bytes));
        assert!(matches!(Unverified::read(&forged).unwrap().verify(set.keys()), Err(TokenFault::Signature)));
        let (head, _) = signed.split_once('.').unwrap();
        let forged = format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(r#"{"sub":"victor"}"#));
        assert!(matches!(Unverified::read(&forged).unwrap().verify(set.keys()), Err(TokenFault::Signature)));
    }
}
