//! Minted tokens and paired secrets over the API: giving them out, listing and ending them.

use pgwitness_index::record::Event;
use serde_json::{Value, json};

use super::{ANA, House, MARIA, TOM};
use crate::config::Secret;
use crate::identity::{Asked, Opens, PairingEntry, Wanted};

async fn post(house: &House, token: &str, path: &str, body: &Value) -> (u16, Value) {
    let answer = house.http.post(house.at(path)).bearer_auth(token).json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn listed(house: &House, token: &str) -> Vec<Value> {
    let (status, answer) = house.get(token, "/api/v1/logins").await;
    assert_eq!(status, 200);
    answer["items"].as_array().unwrap().clone()
}

/// A secret that Maria approved at the page.
async fn paired(house: &House, secret: &str) {
    let wanted = Wanted { user: "app_read", database: "shop", address: None };
    let asked = Asked::from([10, 1, 2, 3].into()).saying("worker", wanted.user, wanted.database);
    let asked = asked.opening(Opens::Secret);
    let entry = house.pairings.enter(&Secret::new(secret), wanted, asked, &house.logins).await.unwrap();
    let PairingEntry::Waiting(mut waiter) = entry else { panic!("nobody approved it yet") };
    house.provider.point(waiter.login.user_code(), waiter.login.link());
    house.provider.approve_anywhere(waiter.login.user_code(), MARIA).await.unwrap();
    waiter.wait().await.unwrap();
}

#[tokio::test]
async fn a_token_is_given_out_once_recorded_and_stands_for_its_person_until_it_is_ended() {
    let house = House::open().await;
    let maria = house.token(MARIA).await;
    let (status, given) = post(&house, &maria, "/api/v1/tokens", &json!({ "life": 600, "name": "ci" })).await;
    assert_eq!(status, 200);
    let (token, id) = (given["token"].as_str().unwrap(), given["id"].as_str().unwrap());
    assert!(token.starts_with(&format!("pgw_{id}_")));
    let (_, me) = house.get(token, "/api/v1/me").await;
    assert_eq!(
        (&me["user"], &me["mode"], &me["expires"]),
        (&json!(MARIA), &json!("minted"), &given["expires"])
    );
    let recorded = house.book.readings(Event::LoginOk).pop().unwrap();
    assert_eq!(recorded.0, MARIA);
    assert!(recorded.1.starts_with(&format!("gave out token {id} until 20")) && !recorded.1.contains(token));
    let list = listed(&house, &maria).await;
    assert_eq!((list.len(), &list[0]["id"], &list[0]["name"]), (1, &json!(id), &json!("ci")));
    assert_eq!((&list[0]["kind"], list[0]["last_used"].is_string()), (&json!("minted"), true));
    assert!(!json!(list).to_string().contains(token));
    let (status, _) = post(&house, &maria, &format!("/api/v1/logins/{id}/revoke"), &json!({})).await;
    assert_eq!((status, house.get(token, "/api/v1/me").await.0), (200, 401));
    assert_eq!(house.book.readings(Event::LoginRevoked)[0].1, format!("ended minted secret {id} of {MARIA}"));
    assert!(listed(&house, &maria).await.is_empty());
}

#[tokio::test]
async fn a_token_does_not_outlive_the_login_that_asked_for_it() {
    let house = House::open().await;
    let maria = house.token(MARIA).await;
    let (_, login) = house.get(&maria, "/api/v1/me").await;
    let (_, given) = post(&house, &maria, "/api/v1/tokens", &json!({ "life": 30 * 24 * 3600 })).await;
    assert_eq!(given["expires"], login["expires"]);
    let (_, again) = post(&house, given["token"].as_str().unwrap(), "/api/v1/tokens", &json!({})).await;
    assert_eq!(again["expires"], login["expires"]);
}

#[tokio::test]
async fn secrets_are_seen_and_ended_by_their_owner_and_by_administrators_alone() {
    let house = House::open().await;
    paired(&house, "b7f3e2a1c4d59687aa01bc23de45f678").await;
    let [maria, ana, tom] = [house.token(MARIA).await, house.token(ANA).await, house.token(TOM).await];
    let list = listed(&house, &maria).await;
    assert_eq!(list.len(), 1);
    let told = ["kind", "user", "role", "db", "ip", "app"].map(|name| list[0][name].as_str().unwrap());
    assert_eq!(told, ["paired", MARIA, "app_read", "shop", "10.1.2.3", "worker"]);
    assert!(listed(&house, &ana).await.is_empty(), "an auditor is no administrator");
    assert_eq!(listed(&house, &tom).await, list);
    let path = format!("/api/v1/logins/{}/revoke", list[0]["id"].as_str().unwrap());
    assert_eq!(post(&house, &ana, &path, &json!({})).await.0, 404);
    assert_eq!(post(&house, &tom, &path, &json!({})).await.0, 200);
    assert_eq!(post(&house, &tom, &path, &json!({})).await.0, 404);
    assert!(listed(&house, &maria).await.is_empty());
    assert_eq!(house.book.readings(Event::LoginRevoked)[0].0, TOM);
}

#[tokio::test]
async fn a_token_that_cannot_be_recorded_is_not_given_out() {
    let house = House::open().await;
    let maria = house.token(MARIA).await;
    house.book.set_full(true);
    let (status, answer) = post(&house, &maria, "/api/v1/tokens", &json!({})).await;
    assert_eq!((status, answer.get("token")), (503, None));
    house.book.set_full(false);
    assert!(listed(&house, &maria).await.is_empty());
}

#[tokio::test]
async fn wishes_that_cannot_be_are_refused() {
    let house = House::open().await;
    let maria = house.token(MARIA).await;
    for body in [json!({ "life": 0 }), json!({ "life": 1e9 }), json!({ "life": -1 }), json!({ "user": ANA })]
    {
        assert_eq!(post(&house, &maria, "/api/v1/tokens", &body).await.0, 400, "{body}");
    }
    assert_eq!(post(&house, &maria, "/api/v1/logins/x/revoke", &json!({ "scope": "all" })).await.0, 400);
    let form = house.http.post(house.at("/api/v1/tokens")).bearer_auth(&maria).form(&[("life", "1")]);
    assert_eq!(form.send().await.unwrap().status(), 415);
    let nobody = house.http.post(house.at("/api/v1/tokens")).json(&json!({}));
    assert_eq!(nobody.send().await.unwrap().status(), 401);
}
