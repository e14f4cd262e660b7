//! The tail: everything once, in order, to those who may see it, and recorded.

use std::time::Duration;

use pgwitness_index::record::{Event, Outcome};
use serde_json::Value;

use super::house::ended;
use super::{ANA, House, MARIA, TOM};

/// Longer than anything here takes; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open tail.
struct Tail {
    response: reqwest::Response,
    text: String,
}

impl Tail {
    async fn open(house: &House, token: &str, query: &str, last: Option<&str>) -> Self {
        let mut request =
            house.http.get(house.at(&format!("/api/v1/events/tail?{query}"))).bearer_auth(token);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next record and the id of its event.
    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let line =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let found = line("id: ").zip(line("data: "));
                self.text = rest.to_owned();
                if let Some((id, data)) = found {
                    return (id, serde_json::from_str(&data).unwrap());
                }
                continue;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            let chunk = chunk.expect("nothing came").unwrap().expect("the tail ended");
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn sql(&mut self) -> String {
        self.next().await.1["sql"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_tail_sends_what_comes_in_order_and_goes_on_where_it_ended() {
    let house = House::open().await;
    let maria = house.token(MARIA).await;
    let mut tail = Tail::open(&house, &maria, "q=class:read", None).await;
    for n in 0..3 {
        house.say(MARIA, "SELECT", &format!("select {n}"), ended());
        house.say(ANA, "SELECT", "select 'of another'", ended());
    }
    let mut last = String::new();
    for n in 0..3 {
        let (id, record) = tail.next().await;
        assert_eq!(
            (record["sql"].as_str().unwrap(), record["user"].as_str().unwrap()),
            (format!("select {n}").as_str(), MARIA)
        );
        last = id;
    }
    drop(tail);
    house.say(MARIA, "SELECT", "select 'while away'", ended());
    let mut again = Tail::open(&house, &maria, "q=class:read", Some(&last)).await;
    assert_eq!(again.sql().await, "select 'while away'");
    let mut from_start = Tail::open(&house, &maria, "q=table:orders&after=0&fields=sql,seq", None).await;
    for n in 0..40 {
        let (_, record) = from_start.next().await;
        assert!(record["sql"].as_str().unwrap().contains(&format!("customer_id = {n} ")), "{record}");
        assert_eq!(record.as_object().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_statement_that_runs_is_sent_when_it_ended_if_it_matches_then() {
    let house = House::open().await;
    let maria = house.token(MARIA).await;
    let mut tail = Tail::open(&house, &maria, "q=is:failed", None).await;
    let slow = house.say(MARIA, "SELECT", "select 'slow'", None);
    let fine = house.say(MARIA, "SELECT", "select 'fine'", None);
    house.end(fine, Outcome::Ok);
    house.say(MARIA, "SELECT", "select 'later'", super::house::failed());
    let (id, record) = tail.next().await;
    assert_eq!(record["sql"], "select 'later'");
    assert!(id.parse::<u64>().unwrap() < slow, "who comes again with {id} must not miss {slow}");
    house.end(slow, Outcome::Error);
    let (_, record) = tail.next().await;
    assert_eq!((&record["sql"], &record["outcome"]), (&"select 'slow'".into(), &"error".into()));
}

#[tokio::test]
async fn a_tail_is_recorded_before_it_begins_and_bounded_for_each_caller() {
    let house = House::open().await;
    let (ana, tom) = (house.token(ANA).await, house.token(TOM).await);
    let mut tails = Vec::new();
    for _ in 0..4 {
        tails.push(Tail::open(&house, &ana, "q=orders", None).await);
    }
    assert_eq!(house.book.readings(Event::AuditSearch)[0], (ANA.to_owned(), "read orders [tail]".to_owned()));
    let fifth =
        house.http.get(house.at("/api/v1/events/tail?q=orders")).bearer_auth(&ana).send().await.unwrap();
    assert_eq!((fifth.status().as_u16(), fifth.headers()["retry-after"].as_bytes()), (429, &b"1"[..]));
    assert_eq!(fifth.headers()["content-type"], "application/problem+json");
    assert_eq!(house.get(&ana, "/api/v1/events?q=orders").await.0, 200);
    let _toms = Tail::open(&house, &tom, "", None).await;
    drop(tails);
    house.book.set_full(true);
    let (status, _) = house.get(&ana, "/api/v1/events/tail?q=customers").await;
    assert!(matches!(status, 503 | 429), "{status}");
    for wrong in ["q=tabel:x", "limit=5", "after=x"] {
        assert_eq!(house.get(&tom, &format!("/api/v1/events/tail?{wrong}")).await.0, 400, "{wrong}");
    }
}
