//! Who the claims say it is.

use serde_json::{Value, json};

use super::super::TokenFault;
use super::config;
use crate::config::Oidc;
use crate::identity::claims::Claims;
use crate::identity::principal::Verified;
use crate::identity::token::Kind;

fn claims(value: &Value) -> Claims {
    Claims::new(value.as_object().unwrap().clone(), None, Kind::Plain)
}

fn person(value: &Value, change: impl FnOnce(&mut Oidc)) -> Result<Verified, TokenFault> {
    let mut config = config("https://id.example.com");
    change(&mut config);
    claims(value).person(&config)
}

#[test]
fn an_address_names_somebody_only_if_the_provider_vouches_for_it() {
    let with = |verified: Value| json!({"sub": "1", "email": "a@example.com", "email_verified": verified});
    for yes in [json!(true), json!("true")] {
        assert!(person(&with(yes), |_| ()).unwrap().email_verified);
    }
    for no in [json!(false), json!("false"), json!(1), json!("yes"), Value::Null] {
        assert_eq!(person(&with(no.clone()), |_| ()), Err(TokenFault::EmailNotVerified), "{no}");
    }
}

#[test]
fn another_claim_may_name_people_and_then_an_unmarked_address_stays_unverified() {
    let claims = json!({"sub": "1", "preferred_username": "alice", "email": "boss@example.com"});
    let who = person(&claims, |config| config.user_claim = "preferred_username".to_owned()).unwrap();
    assert_eq!((who.user.as_str(), who.email.as_deref()), ("alice", Some("boss@example.com")));
    assert!(!who.email_verified);
}

#[test]
fn groups_are_a_list_or_one_text_or_lie_deeper() {
    let base =
        |name: &str, value: Value| json!({"sub": "1", "email": "a@b", "email_verified": true, name: value});
    let groups = |claims: &Value, claim: &str| {
        person(claims, |config| config.group_claim = claim.to_owned()).map(|who| who.groups)
    };
    assert_eq!(groups(&base("groups", json!(["a", "b"])), "groups").unwrap(), ["a", "b"]);
    assert_eq!(groups(&base("groups", json!("a")), "groups").unwrap(), ["a"]);
    assert_eq!(groups(&base("realm", json!({"roles": ["a"]})), "realm.roles").unwrap(), ["a"]);
    assert_eq!(groups(&base("https://x.y/g", json!(["a"])), "https://x.y/g").unwrap(), ["a"]);
    assert!(groups(&base("realm", json!({"roles": ["a"]})), "realm.others").unwrap().is_empty());
    assert!(groups(&base("groups", json!({"a": true})), "groups").is_err());
    assert!(groups(&base("groups", json!(["a", "b\u{0}"])), "groups").is_err());
}

#[test]
fn userinfo_completes_the_same_person_and_never_vouches_for_another_address() {
    let config = config("https://id.example.com");
    let mut token = claims(&json!({"sub": "1"}));
    assert!(token.lacks_person(&config));
    let info = json!({"sub": "1", "email": "a@example.com", "email_verified": true, "groups": []});
    token.complete(info.as_object().unwrap().clone()).unwrap();
    assert!(!token.lacks_person(&config));
    assert_eq!(token.person(&config).unwrap().user, "a@example.com");

    let other = json!({"sub": "2", "email": "a@example.com", "email_verified": true});
    assert!(claims(&json!({"sub": "1"})).complete(other.as_object().unwrap().clone()).is_err());
    assert!(claims(&json!({})).complete(serde_json::Map::new()).is_err());

    let mut token = claims(&json!({"sub": "1", "email": "boss@example.com"}));
    token.complete(info.as_object().unwrap().clone()).unwrap();
    assert_eq!(token.person(&config), Err(TokenFault::EmailNotVerified));

    let mut token = claims(&json!({"sub": "1", "email_verified": true}));
    let info = json!({"sub": "1", "email": "boss@example.com"});
    token.complete(info.as_object().unwrap().clone()).unwrap();
    assert_eq!(token.person(&config), Err(TokenFault::EmailNotVerified));
}
