//! What surrounds a record, a session, a table, a person: for whom it is there, and what is recorded.

use pgwitness_index::record::Event;
use serde_json::{Value, json};

use super::house::ended;
use super::{ANA, House, MARIA, TOM};

fn texts<'a>(items: &'a Value, name: &str) -> Vec<&'a str> {
    items.as_array().unwrap().iter().filter_map(|item| item[name].as_str()).collect()
}

#[tokio::test]
async fn a_record_is_shown_with_its_session_and_its_transaction() {
    let house = House::open().await;
    let maria = house.token(MARIA).await;
    for (command, sql) in [
        ("BEGIN", "begin"),
        ("UPDATE", "update orders set total = 1"),
        ("SELECT", "select 'inside'"),
        ("COMMIT", "commit"),
        ("SELECT", "select 'after'"),
    ] {
        house.say(MARIA, command, sql, ended());
    }
    house.say(ANA, "SELECT", "select 'another session'", ended());
    let (_, found) = house.get(&maria, "/api/v1/events?q=inside&fields=id").await;
    let path = format!("/api/v1/events/{}/context", found["items"][0]["id"].as_str().unwrap());
    let (status, context) = house.get(&maria, &format!("{path}?before=3&after=5")).await;
    assert_eq!((status, &context["record"]["sql"]), (200, &json!("select 'inside'")), "{context}");
    let session = &context["session"];
    assert_eq!(
        texts(&session["before"], "sql"),
        ["select pg_sleep(60)", "begin", "update orders set total = 1"]
    );
    assert_eq!(texts(&session["after"], "sql"), ["commit", "select 'after'"]);
    assert_eq!((&session["more_before"], &session["more_after"]), (&json!(true), &json!(false)));
    let block = &context["transaction"];
    assert_eq!(
        texts(&block["events"], "sql"),
        ["begin", "update orders set total = 1", "select 'inside'", "commit"]
    );
    assert_eq!(block["complete"], true);
    let (_, found) = house.get(&maria, "/api/v1/events?q=after&fields=id").await;
    let alone = format!("/api/v1/events/{}/context", found["items"][0]["id"].as_str().unwrap());
    assert_eq!(house.get(&maria, &alone).await.1["transaction"], Value::Null);
    assert_eq!(house.get(&maria, &format!("{path}?before=101")).await.0, 400);
}

#[tokio::test]
async fn a_context_is_recorded_and_out_of_scope_it_is_not_there() {
    let house = House::open().await;
    let (maria, ana, tom) = (house.token(MARIA).await, house.token(ANA).await, house.token(TOM).await);
    let (_, found) = house.get(&ana, "/api/v1/events?q=user:ana%20event:query&fields=id").await;
    let id = found["items"][0]["id"].as_str().unwrap();
    let path = format!("/api/v1/events/{id}/context");
    for token in [&maria, &tom] {
        assert_eq!(house.get(token, &path).await.0, 404);
    }
    assert_eq!(house.get(&ana, &path).await.0, 200);
    let asked = house.book.readings(Event::AuditSearch);
    assert_eq!(asked.last().unwrap().1, format!("read id:{id} and what its session did around it"));
    house.book.set_full(true);
    assert_eq!(house.get(&ana, &path).await.0, 503);
}

#[tokio::test]
async fn a_session_is_told_with_its_counts_and_its_records() {
    let house = House::open().await;
    let (maria, ana) = (house.token(MARIA).await, house.token(ANA).await);
    let path = format!("/api/v1/sessions/session-{MARIA}");
    for token in [&maria, &ana] {
        let (status, session) = house.get(token, &path).await;
        assert_eq!(
            (status, &session["user"], &session["records"]),
            (200, &json!(MARIA), &json!(43)),
            "{session}"
        );
        assert_eq!(session["counts"]["tables"], json!({ "public.orders": 40, "public.customers": 1 }));
        assert!(session["first"].as_str() < session["last"].as_str());
        let (_, events) = house.get(token, &format!("{path}/events?q=orders&limit=1000")).await;
        assert_eq!(events["items"].as_array().unwrap().len(), 40);
    }
    let anas = format!("/api/v1/sessions/session-{ANA}");
    assert_eq!(house.get(&maria, &anas).await.0, 404);
    assert_eq!(house.get(&maria, &format!("{anas}/events")).await.1["items"], json!([]));
    assert_eq!(house.get(&maria, "/api/v1/sessions/a%22%20OR%20user:ana").await.0, 404);
    let asked: Vec<String> = house.book.readings(Event::AuditSearch).into_iter().map(|one| one.1).collect();
    assert_eq!(
        asked,
        [format!("read session:session-{MARIA}"), format!("read session:session-{MARIA} orders")]
    );
}

#[tokio::test]
async fn who_touched_a_table_is_counted_with_first_and_last_times() {
    let house = House::open().await;
    let (maria, ana, tom) = (house.token(MARIA).await, house.token(ANA).await, house.token(TOM).await);
    for name in ["customers", "public.customers", "customers.email", "public.customers.email"] {
        let (status, access) = house.get(&ana, &format!("/api/v1/objects/{name}/access")).await;
        assert_eq!((status, &access["count"], &access["object"]), (200, &json!(2), &json!(name)), "{access}");
        let mut users = texts(&access["users"], "name");
        users.sort_unstable();
        assert_eq!(users, [ANA, MARIA]);
        assert_eq!(access["counts"]["outcome"], json!({ "ok": 2 }));
        let (first, last) = (access["first"].as_str().unwrap(), access["last"].as_str().unwrap());
        let firsts = texts(&access["users"], "first");
        assert!(first < last && firsts.contains(&first) && firsts.contains(&last), "{access}");
    }
    assert_eq!(house.get(&maria, "/api/v1/objects/customers/access").await.1["count"], 1);
    assert_eq!(house.get(&tom, "/api/v1/objects/customers/access").await.0, 404);
    assert_eq!(house.get(&ana, "/api/v1/objects/customers/access?to=-2h").await.0, 404);
    assert_eq!(house.get(&ana, "/api/v1/objects/nothing/access").await.0, 404);
    let (_, objects) = house.get(&maria, "/api/v1/objects").await;
    assert_eq!(objects["items"][0], json!({ "table": "public.orders", "count": 40 }));
    assert_eq!(
        house.get(&ana, "/api/v1/objects?q=user:ana&limit=1").await.1["items"],
        json!([{ "table": "public.customers", "count": 1 }])
    );
    let asked = house.book.readings(Event::AuditSearch);
    assert_eq!(asked[0].1, "read everything [access of object customers]");
}

#[tokio::test]
async fn what_a_person_touched_is_counted() {
    let house = House::open().await;
    let (maria, ana) = (house.token(MARIA).await, house.token(ANA).await);
    let (_, users) = house.get(&ana, "/api/v1/users?q=event:query").await;
    assert_eq!(users["items"], json!([{ "user": MARIA, "count": 43 }, { "user": ANA, "count": 1 }]));
    let (_, access) = house.get(&ana, &format!("/api/v1/users/{MARIA}/access?from=-2h")).await;
    assert_eq!(texts(&access["tables"], "name"), ["public.orders", "public.customers"], "{access}");
    assert_eq!(access["tables"][0]["count"], 40);
    assert_eq!(house.get(&maria, &format!("/api/v1/users/{ANA}/access")).await.0, 404);
}

#[tokio::test]
async fn suggestions_are_of_what_the_caller_may_see() {
    let house = House::open().await;
    let (maria, ana) = (house.token(MARIA).await, house.token(ANA).await);
    let suggest = async |token: &str, q: &str| {
        let (status, answer) = house.get(token, &format!("/api/v1/suggest?q={q}")).await;
        assert_eq!(status, 200, "{answer}");
        let span = answer["span"].clone();
        (span, texts(&answer["suggestions"], "text").into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    assert_eq!(
        suggest(&maria, "outcome:ok%20tab").await,
        (json!([11, 14]), vec!["table:".into(), "tables:".into()])
    );
    assert_eq!(suggest(&maria, "table:cus").await, (json!([6, 9]), vec!["public.customers".into()]));
    assert_eq!(suggest(&maria, "txn_outcome:co").await.1, ["committed"]);
    assert_eq!(suggest(&maria, "user:").await.1, [MARIA]);
    assert!(house.book.readings(Event::AuditSearch).is_empty());
    assert_eq!(suggest(&ana, "user:").await.1, [MARIA, ANA]);
    suggest(&ana, "user:m").await;
    assert_eq!(house.book.readings(Event::AuditSearch).len(), 1);
}

#[tokio::test]
async fn relative_times_mean_the_same_on_every_page() {
    let house = House::open().await;
    let maria = house.token(MARIA).await;
    let (_, first) = house.get(&maria, "/api/v1/events?q=orders&from=-1h&limit=39").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let (_, second) =
        house.get(&maria, &format!("/api/v1/events?q=orders&from=-1h&limit=39&cursor={cursor}")).await;
    assert_eq!(second["items"].as_array().unwrap().len(), 1);
    // The same page, asked for when nothing of it is that young any more.
    let (place, now) = cursor.split_once('.').unwrap();
    let later = i64::from_str_radix(now, 16).unwrap() + 3_600_000_000;
    let path = format!("/api/v1/events?q=orders&from=-1h&cursor={place}.{later:x}");
    assert_eq!(house.get(&maria, &path).await.1["items"], json!([]));
    for wrong in [place, "x.y", &format!("{place}.zz"), &format!("{place}.")] {
        assert_eq!(house.get(&maria, &format!("/api/v1/events?q=orders&cursor={wrong}")).await.0, 400);
    }
}

#[tokio::test]
async fn the_api_describes_itself_and_each_change_of_that_is_seen() {
    let house = House::open().await;
    let maria = house.token(MARIA).await;
    let answer = house.http.get(house.at("/api/v1/openapi.json")).send().await.unwrap();
    let text = answer.text().await.unwrap();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/openapi.json");
    if std::env::var_os("PGWITNESS_BLESS").is_some() {
        std::fs::write(golden, &text).unwrap();
    }
    assert!(
        text == std::fs::read_to_string(golden).unwrap(),
        "it changed: look at it with PGWITNESS_BLESS=1"
    );
    let described: Value = serde_json::from_str(&text).unwrap();
    for (path, operations) in described["paths"].as_object().unwrap() {
        assert!(operations.as_object().unwrap().len() == 1);
        let path = path.replace(['{', '}'], "x");
        let unknown = format!("{path}?no_such_parameter=1");
        let request = house.http.get(house.at(&unknown)).bearer_auth(&maria).send().await.unwrap();
        let expected = if operations.get("post").is_some() { 405 } else { 400 };
        assert_eq!(request.status().as_u16(), expected, "{path}");
    }
}
