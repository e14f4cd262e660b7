//! The verbs that read, against a real API on loopback.

#![allow(clippy::unwrap_used)]

use serde_json::Value;

use super::client::{Client, ClientError};
use super::login::{obtain, obtain_by_browser};
use super::search::{Question, Range};
use crate::config::Secret;
use crate::http::tests::{ANA, House, MARIA};

async fn client(house: &House, who: &str) -> Client {
    Client::new(house.url.clone(), Some(Secret::new(house.token(who).await))).unwrap()
}

#[tokio::test]
async fn a_login_by_link_and_code_is_one_that_the_gateway_knows() {
    let house = House::open().await;
    let provider = house.provider.clone();
    let credentials = obtain(house.url.clone(), |link, code| {
        assert!(link.starts_with(provider.issuer()), "{link}");
        provider.approve(code, MARIA).unwrap();
    });
    let credentials = credentials.await.unwrap();
    assert_eq!((credentials.user.as_str(), &credentials.url), (MARIA, &house.url));
    let client = Client::new(credentials.url, Some(Secret::new(credentials.token))).unwrap();
    assert_eq!(client.get("/api/v1/me", &[]).await.unwrap()["user"], MARIA);
}

/// A person's browser, sent somewhere: signs in at the provider, and comes back to where that leads.
async fn browse(house: &House, url: &url::Url, who: &str) -> reqwest::Response {
    let mut form: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    form.push(("user".into(), who.into()));
    let post = house.http.post(format!("{}/authorize", house.provider.issuer())).form(&form);
    let led = post.send().await.unwrap().headers()["location"].to_str().unwrap().to_owned();
    house.http.get(led).send().await.unwrap()
}

#[tokio::test]
async fn a_login_by_a_browser_on_this_machine_comes_back_to_loopback_and_is_one_that_the_gateway_knows() {
    let house = House::open().await;
    let (sender, sent) = tokio::sync::oneshot::channel();
    let login = obtain_by_browser(house.url.clone(), |url| sender.send(url.clone()).unwrap());
    let person = async {
        let url = sent.await.unwrap();
        let said = |name: &str| url.query_pairs().find(|(known, _)| known == name).unwrap().1.into_owned();
        assert_eq!(said("code_challenge_method"), "S256");
        let back: url::Url = said("redirect_uri").parse().unwrap();
        assert_eq!((back.host_str(), back.path()), (Some("127.0.0.1"), "/auth/callback"));
        // Others who find the port get nothing, and end nothing.
        for path in ["/", "/auth/callback?code=x", "/auth/callback?code=x&state=guessed"] {
            assert_eq!(
                house.http.get(back.join(path).unwrap()).send().await.unwrap().status(),
                404,
                "{path}"
            );
        }
        let shown = browse(&house, &url, MARIA).await;
        assert_eq!(shown.status(), 200);
        assert!(shown.text().await.unwrap().contains("Go back to the terminal"));
    };
    let (credentials, ()) = tokio::join!(login, person);
    assert_eq!(credentials.unwrap().user, MARIA);
}

#[tokio::test]
async fn a_login_that_the_person_denies_in_the_browser_ends_and_says_so() {
    let house = House::open().await;
    let (sender, sent) = tokio::sync::oneshot::channel();
    let login = obtain_by_browser(house.url.clone(), |url| sender.send(url.clone()).unwrap());
    let person = async { browse(&house, &sent.await.unwrap(), "nobody").await.status() };
    let (denied, _) = tokio::join!(login, person);
    assert!(matches!(denied, Err(ClientError::Unauthenticated(why)) if why.contains("access_denied")));
}

#[tokio::test]
async fn a_denied_login_ends_and_says_so() {
    let house = House::open().await;
    let provider = house.provider.clone();
    let denied = obtain(house.url.clone(), |_, code| provider.deny(code).unwrap()).await;
    assert!(matches!(denied, Err(ClientError::Unauthenticated(why)) if why.contains("denied")));
}

#[tokio::test]
async fn a_question_is_answered_page_by_page_and_after_a_position() {
    let house = House::open().await;
    let client = client(&house, MARIA).await;
    let range = Range { since: Some("24h".into()), ..Range::default() };
    let mut question = Question::new(&["table:orders".into()], &range, &["seq".into(), "sql".into()]);
    let first = question.ask(&client, 30).await.unwrap();
    question.cursor = first.next_cursor;
    let second = question.ask(&client, 30).await.unwrap();
    assert_eq!((first.items.len(), second.items.len(), second.next_cursor), (30, 10, None));
    let newest = first.items[0].get("seq").and_then(Value::as_u64).unwrap();
    question.cursor = None;
    question.after = Some(newest - 5);
    assert_eq!(question.ask(&client, 30).await.unwrap().items.len(), 5);
}

#[tokio::test]
async fn errors_of_the_gateway_keep_their_kind() {
    let house = House::open().await;
    let ask = async |client: &Client, query: &str| {
        Question::new(&[query.to_owned()], &Range::default(), &[]).ask(client, 1).await.map(|_| ())
    };
    let known = client(&house, ANA).await;
    let Err(ClientError::Query(text)) = ask(&known, "tabel:users").await else { panic!("not a query error") };
    assert!(text.contains("tabel:users\n  ^^^^^\n  did you mean: table"), "{text}");
    let unknown = Client::new(house.url.clone(), Some(Secret::new("pgw_unknown"))).unwrap();
    assert!(matches!(ask(&unknown, "").await, Err(ClientError::Unauthenticated(_))));
    let nobody = Client::new("http://127.0.0.1:1".parse().unwrap(), None).unwrap();
    assert!(matches!(ask(&nobody, "").await, Err(ClientError::Unreachable(_))));
    house.book.set_full(true);
    assert!(matches!(ask(&known, "").await, Err(ClientError::Unreachable(why)) if why.contains("recorded")));
}

#[tokio::test]
async fn the_queries_that_the_page_and_the_verbs_write_are_understood() {
    let house = House::open().await;
    let client = client(&house, ANA).await;
    for query in [
        "table:\"users\"",
        "table:\"users.email\" OR column:\"users.email\"",
        "event:login.*",
        "reads:*.email writes:orders.*",
        "user:maria@shop.example OR role:app",
        "-outcome:ok",
        "rows>1000 duration>1.5s",
        "class:write,ddl is:sensitive",
        "ip:10.0.0.0/8",
        "-app:\"a \\\"b\\\" \\\\ c\"",
        "iss:\"http://127.0.0.1:7433\"",
        "seq:12",
        "id:01970000-0000-7000-8000-000000000000",
        "session:session-maria@shop.example",
    ] {
        let asked = Question::new(&[query.to_owned()], &Range::default(), &[]).ask(&client, 1).await;
        assert!(asked.is_ok(), "{query}: {:?}", asked.err());
    }
}
