//! Pairing.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::{
    Asked, LoginError, Logins, Mode, PairingEntry as Entry, Pairings, Principal, Provider, Waiter, Wanted,
};
use super::script::Script;
use super::{demo, provider, within};
use crate::config::Secret;

fn secret(text: &str) -> Secret {
    Secret::new(text.repeat(8))
}

async fn enter(
    pairings: &Pairings,
    secret: &Secret,
    user: &str,
    database: &str,
    provider: &Provider,
) -> Result<Entry, LoginError> {
    enter_from(pairings, secret, Wanted { user, database, address: None }, provider).await
}

async fn enter_from(
    pairings: &Pairings,
    secret: &Secret,
    wanted: Wanted<'_>,
    provider: &Provider,
) -> Result<Entry, LoginError> {
    let logins = Logins::new(provider.clone(), None, (1000, 1000));
    let asked = Asked::from([127, 0, 0, 1].into()).saying("psql", wanted.user, wanted.database);
    pairings.enter(secret, wanted, asked, &logins).await
}

fn pairings() -> Pairings {
    Pairings::new(TaskTracker::new(), CancellationToken::new())
}

#[track_caller]
fn waiting(entry: Result<Entry, LoginError>) -> Waiter {
    match entry.unwrap() {
        Entry::Waiting(waiter) => waiter,
        Entry::Approved(principal) => panic!("already approved: {principal:?}"),
    }
}

#[track_caller]
fn approved(entry: Result<Entry, LoginError>) -> Principal {
    match entry.unwrap() {
        Entry::Approved(principal) => principal,
        Entry::Waiting(waiter) => panic!("still waiting: {waiter:?}"),
    }
}

#[tokio::test]
async fn two_hundred_connections_with_one_secret_need_one_approval() {
    let demo = demo().await;
    let (pairings, provider, secret) = (pairings(), provider(demo.issuer()), secret("abcdefgh"));
    let entries = (0..200).map(|_| enter(&pairings, &secret, "app", "shop", &provider));
    let mut waiters: Vec<_> = within(join_all(entries)).await.into_iter().map(waiting).collect();
    assert_eq!(demo.pending(), 1);
    assert_eq!(waiters.iter().filter(|waiter| waiter.is_first).count(), 1);
    demo.approve(waiters[0].login.user_code(), "alice").unwrap();
    let people = within(join_all(waiters.iter_mut().map(Waiter::wait))).await;
    let first = people[0].clone().unwrap();
    assert_eq!((first.user(), first.mode()), ("alice@example.com", Mode::Pairing));
    assert!(people.into_iter().all(|person| person.unwrap().login() == first.login()));
    let later = approved(within(enter(&pairings, &secret, "app", "shop", &provider)).await);
    assert_eq!(later.login(), first.login());
    assert!(!format!("{pairings:?}").contains("abcdefgh"));
}

#[tokio::test]
async fn a_login_goes_on_when_the_client_has_left() {
    let demo = demo().await;
    let (pairings, provider, secret) = (pairings(), provider(demo.issuer()), secret("abcdefgh"));
    let waiter = waiting(within(enter(&pairings, &secret, "app", "shop", &provider)).await);
    let code = waiter.login.user_code().to_owned();
    drop(waiter);
    demo.approve(&code, "alice").unwrap();
    let principal = match within(enter(&pairings, &secret, "app", "shop", &provider)).await.unwrap() {
        Entry::Approved(principal) => principal,
        Entry::Waiting(mut waiter) => {
            assert!(!waiter.is_first);
            within(waiter.wait()).await.unwrap()
        }
    };
    assert_eq!(principal.user(), "alice@example.com");
}

#[tokio::test]
async fn another_user_database_or_secret_is_another_login() {
    let demo = demo().await;
    let (pairings, provider) = (pairings(), provider(demo.issuer()));
    let one = secret("abcdefgh");
    for (secret, user, database) in [
        (&one, "app", "shop"),
        (&one, "app", "billing"),
        (&one, "admin", "shop"),
        (&one, "apps", "hop"),
        (&secret("hgfedcba"), "app", "shop"),
    ] {
        assert!(waiting(within(enter(&pairings, secret, user, database, &provider)).await).is_first);
    }
    assert_eq!(demo.pending(), 5);
}

#[tokio::test]
async fn a_secret_stays_with_the_first_person_who_approved_it() {
    let demo = demo().await;
    let (pairings, provider, secret) = (pairings(), provider(demo.issuer()), secret("abcdefgh"));
    let mut alice = waiting(within(enter(&pairings, &secret, "app", "shop", &provider)).await);
    demo.approve(alice.login.user_code(), "alice").unwrap();
    within(alice.wait()).await.unwrap();

    let mut bob = waiting(within(enter(&pairings, &secret, "app", "billing", &provider)).await);
    demo.approve(bob.login.user_code(), "bob").unwrap();
    assert_eq!(within(bob.wait()).await, Err(LoginError::OtherPerson));

    let mut again = waiting(within(enter(&pairings, &secret, "app", "billing", &provider)).await);
    demo.approve(again.login.user_code(), "alice").unwrap();
    assert_eq!(within(again.wait()).await.unwrap().user(), "alice@example.com");
}

#[tokio::test]
async fn a_secret_that_is_bound_to_its_address_is_unknown_elsewhere() {
    let demo = demo().await;
    let (pairings, provider, secret) = (pairings(), provider(demo.issuer()), secret("abcdefgh"));
    let at = |last: u8| Wanted { user: "app", database: "shop", address: Some([10, 0, 0, last].into()) };
    let mut first = waiting(within(enter_from(&pairings, &secret, at(1), &provider)).await);
    demo.approve(first.login.user_code(), "alice").unwrap();
    within(first.wait()).await.unwrap();
    assert!(matches!(within(enter_from(&pairings, &secret, at(1), &provider)).await, Ok(Entry::Approved(_))));
    assert!(waiting(within(enter_from(&pairings, &secret, at(2), &provider)).await).is_first);
    assert!(waiting(within(enter(&pairings, &secret, "app", "shop", &provider)).await).is_first);
}

#[tokio::test]
async fn a_denied_secret_starts_anew() {
    let demo = demo().await;
    let (pairings, provider, secret) = (pairings(), provider(demo.issuer()), secret("abcdefgh"));
    let mut first = waiting(within(enter(&pairings, &secret, "app", "shop", &provider)).await);
    let mut second = waiting(within(enter(&pairings, &secret, "app", "shop", &provider)).await);
    demo.deny(first.login.user_code()).unwrap();
    assert_eq!(within(first.wait()).await, Err(LoginError::Denied));
    assert_eq!(within(second.wait()).await, Err(LoginError::Denied));
    let next = waiting(within(enter(&pairings, &secret, "app", "shop", &provider)).await);
    assert!(next.is_first && next.login.user_code() != first.login.user_code());
}

#[tokio::test]
async fn a_login_that_cannot_start_tells_all_and_leaves_nothing() {
    let script = Script::start().await;
    let (pairings, provider, secret) = (pairings(), provider(&script.issuer), secret("abcdefgh"));
    script.say("/device", 503, &json!({}));
    let entries = (0..20).map(|_| enter(&pairings, &secret, "app", "shop", &provider));
    for entry in within(join_all(entries)).await {
        assert!(matches!(entry, Err(LoginError::Unreachable { .. })));
    }
    assert_eq!(script.hits("/device"), 1);
    waiting(within(enter(&pairings, &secret, "app", "shop", &provider)).await);
}

#[tokio::test]
async fn an_ended_login_needs_a_new_approval() {
    let demo = demo().await;
    let mut config = super::config(demo.issuer());
    config.session_max_age = Duration::from_secs(3);
    let (pairings, provider, secret) = (pairings(), super::provider_with(config), secret("abcdefgh"));
    let mut first = waiting(within(enter(&pairings, &secret, "app", "shop", &provider)).await);
    demo.approve(first.login.user_code(), "alice").unwrap();
    let principal = within(first.wait()).await.unwrap();
    tokio::time::sleep(principal.time_left(std::time::SystemTime::now())).await;
    assert!(waiting(within(enter(&pairings, &secret, "app", "shop", &provider)).await).is_first);
}

#[tokio::test]
async fn a_stopping_gateway_ends_all_waits() {
    let demo = demo().await;
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let pairings = Pairings::new(tracker.clone(), stop.clone());
    let (provider, secret) = (provider(demo.issuer()), secret("abcdefgh"));
    let mut waiter = waiting(within(enter(&pairings, &secret, "app", "shop", &provider)).await);
    stop.cancel();
    assert_eq!(within(waiter.wait()).await, Err(LoginError::Canceled));
    tracker.close();
    within(tracker.wait()).await;
    assert_eq!(
        within(enter(&pairings, &secret, "x", "y", &provider)).await.err(),
        Some(LoginError::Canceled)
    );
}
