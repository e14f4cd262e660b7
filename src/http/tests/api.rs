//! What the API answers, to whom, and what is recorded of it.

use pgwitness_index::record::Event;
use serde_json::{Value, json};

use super::{ANA, House, MARIA, TOM};

fn statements(answer: &Value) -> Vec<&str> {
    answer["items"].as_array().unwrap().iter().filter_map(|item| item["sql"].as_str()).collect()
}

#[tokio::test]
async fn everybody_reads_their_own_records_and_an_auditor_reads_all() {
    let house = House::open().await;
    let (maria, ana, tom) = (house.token(MARIA).await, house.token(ANA).await, house.token(TOM).await);
    let path = "/api/v1/events?q=column:customers.email";
    let (status, own) = house.get(&maria, path).await;
    assert_eq!((status, statements(&own).len()), (200, 1), "{own}");
    assert!(own["items"].as_array().unwrap().iter().all(|item| item["user"] == MARIA));
    let (_, all) = house.get(&ana, path).await;
    assert_eq!(statements(&all).len(), 2);
    let (status, none) = house.get(&tom, "/api/v1/events").await;
    assert_eq!((status, statements(&none).len()), (200, 0));
    assert_eq!(house.get(&tom, "/api/v1/me").await.1["roles"], json!(["self", "admin"]));
}

#[tokio::test]
async fn a_record_out_of_scope_is_as_if_it_were_not_there() {
    let house = House::open().await;
    let (maria, ana) = (house.token(MARIA).await, house.token(ANA).await);
    let (_, all) = house.get(&ana, "/api/v1/events?q=user:ana%20event:query").await;
    let path = format!("/api/v1/events/{}", all["items"][0]["id"].as_str().unwrap());
    let (status, problem) = house.get(&maria, &path).await;
    let (missing, same) = house.get(&maria, "/api/v1/events/01970000-0000-7000-8000-000000000000").await;
    assert_eq!((status, missing), (404, 404));
    assert_eq!(problem, same);
    let (status, record) = house.get(&ana, &path).await;
    assert_eq!((status, record["user"].as_str()), (200, Some(ANA)));
    assert_eq!(house.get(&ana, "/api/v1/events/not-an-id").await.0, 404);
}

#[tokio::test]
async fn a_forged_scope_in_the_query_shows_nothing_more() {
    let house = House::open().await;
    let maria = house.token(MARIA).await;
    for q in ["user:ana OR user:maria", "a) OR (user:ana", "NOT user:maria", "*) OR (*"] {
        let path: String = format!("/api/v1/events?{}", query(&[("q", q), ("limit", "1000")]));
        let (_, answer) = house.get(&maria, &path).await;
        let items = answer["items"].as_array().cloned().unwrap_or_default();
        assert!(items.iter().all(|item| item["user"] == MARIA), "{q}: {answer}");
        let (_, after) = house.get(&maria, &format!("{path}&after=0")).await;
        let items = after["items"].as_array().cloned().unwrap_or_default();
        assert!(items.iter().all(|item| item["user"] == MARIA), "{q}: {after}");
    }
}

#[tokio::test]
async fn an_auditors_reading_is_recorded_before_it_is_answered_or_not_answered() {
    let house = House::open().await;
    let (maria, ana) = (house.token(MARIA).await, house.token(ANA).await);
    house.get(&maria, "/api/v1/events?q=orders").await;
    assert!(house.book.readings(Event::AuditSearch).is_empty());
    let (_, page) = house.get(&ana, "/api/v1/events?q=orders&from=-1h").await;
    assert_eq!(
        house.book.readings(Event::AuditSearch),
        [(ANA.to_owned(), "read orders [from -1h]".to_owned())]
    );
    let id = page["items"][0]["id"].as_str().unwrap();
    house.get(&ana, &format!("/api/v1/events/{id}")).await;
    assert_eq!(house.book.readings(Event::AuditSearch)[1].1, format!("read id:{id}"));
    let (_, found) = house.get(&ana, "/api/v1/events?q=event:audit.search").await;
    assert_eq!(found["items"][0]["user"], ANA, "{found}");
    house.book.set_full(true);
    for path in
        ["/api/v1/events", "/api/v1/events/histogram?q=x", "/api/v1/export", &format!("/api/v1/events/{id}")]
    {
        let (status, problem) = house.get(&ana, path).await;
        assert_eq!(status, 503, "{path}: {problem}");
        assert!(problem.get("items").is_none() && !problem.to_string().contains("disk"), "{problem}");
    }
    assert_eq!(house.get(&maria, "/api/v1/events").await.0, 200);
}

#[tokio::test]
async fn a_page_that_looks_again_is_covered_by_the_record_of_its_search() {
    let house = House::open().await;
    let ana = house.token(ANA).await;
    let count = || house.book.readings(Event::AuditSearch).len();
    for path in [
        "events?q=orders&from=-1h&after=0",
        "events/histogram?q=orders&from=-1h",
        "events?q=orders&from=-1h&after=7",
    ] {
        house.get(&ana, &format!("/api/v1/{path}")).await;
        assert_eq!(count(), 1, "{path}");
    }
    house.get(&ana, "/api/v1/events?q=orders&from=-1h").await;
    assert_eq!(count(), 2);
    house.get(&ana, "/api/v1/events?q=customers&from=-1h&after=0").await;
    assert_eq!(count(), 3);
}

#[tokio::test]
async fn pages_follow_each_other_without_doubles_or_holes() {
    let house = House::open().await;
    let maria = house.token(MARIA).await;
    let (mut seqs, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!(
            "/api/v1/events?{}",
            query(&[("q", "table:orders"), ("limit", "7"), ("cursor", &cursor)])
        );
        let (status, page) = house.get(&maria, &path).await;
        assert_eq!(status, 200, "{page}");
        seqs.extend(page["items"].as_array().unwrap().iter().filter_map(|item| item["seq"].as_u64()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seqs.len(), 40);
    assert!(seqs.is_sorted_by(|a, b| a > b), "{seqs:?}");
    let other = query(&[("q", "table:customers"), ("cursor", &cursor)]);
    assert_eq!(house.get(&maria, &format!("/api/v1/events?{other}")).await.0, 400);
}

#[tokio::test]
async fn a_wrong_request_is_refused_with_its_reason() {
    let house = House::open().await;
    let maria = house.token(MARIA).await;
    for (parameters, reason) in [
        ("limt=5", "unknown here"),
        ("q=a&q=b", "given twice"),
        ("limit=0", "from 1 to 1000"),
        ("limit=1001", "from 1 to 1000"),
        ("order=asc", "newest first"),
        ("tz=Europe/Lisbon", "UTC"),
        ("from=tomorrow", "not a time"),
        ("from=now&to=-1h", "after to"),
        ("cursor=x", "cursor"),
        ("count=all", "none, capped, exact"),
        ("fields=id,sqll", "Did you mean sql?"),
    ] {
        let (status, problem) = house.get(&maria, &format!("/api/v1/events?{parameters}")).await;
        assert_eq!(status, 400, "{parameters}");
        assert!(problem["detail"].as_str().unwrap().contains(reason), "{parameters}: {problem}");
    }
    let answer =
        house.http.get(house.at("/api/v1/events?q=tabel:users")).bearer_auth(&maria).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let problem: Value = answer.json().await.unwrap();
    assert_eq!((&problem["status"], &problem["span"]), (&json!(400), &json!([0, 5])), "{problem}");
    assert_eq!(problem["suggestion"], "table");
}

#[tokio::test]
async fn chosen_fields_come_alone_and_in_order_and_counts_on_request() {
    let house = House::open().await;
    let maria = house.token(MARIA).await;
    let (_, page) =
        house.get(&maria, "/api/v1/events?q=table:orders&limit=1&fields=sql,table,id&count=exact").await;
    let names: Vec<&String> = page["items"][0].as_object().unwrap().keys().collect();
    assert_eq!(names, ["sql", "tables", "id"]);
    assert_eq!((&page["total"], &page["query"]), (&json!(40), &json!("table:orders")));
    assert_eq!(page["as_of"]["log_seq"], page["as_of"]["indexed_seq"]);
    let body = json!({ "q": "table:orders", "limit": 2, "fields": ["id"] });
    let request = house.http.post(house.at("/api/v1/events/search")).bearer_auth(&maria);
    let answer: Value = request.json(&body).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["items"].as_array().unwrap().len(), 2, "{answer}");
}

#[tokio::test]
async fn summaries_count_what_the_caller_may_see() {
    let house = House::open().await;
    let (maria, ana) = (house.token(MARIA).await, house.token(ANA).await);
    let sum = |bars: &Value| bars["counts"].as_array().unwrap().iter().filter_map(Value::as_u64).sum::<u64>();
    let path = "/api/v1/events/histogram?q=table:customers&from=-1h&buckets=12";
    let (own, all) = (house.get(&maria, path).await.1, house.get(&ana, path).await.1);
    assert_eq!((sum(&own), sum(&all)), (1, 2), "{own} {all}");
    let (_, facets) = house.get(&ana, "/api/v1/events/facets?q=table:customers&fields=user,outcome").await;
    assert_eq!(facets["facets"]["user"].as_array().unwrap().len(), 2, "{facets}");
    assert_eq!(facets["facets"]["outcome"], json!([{ "value": "ok", "count": 2 }]));
    assert_eq!(house.get(&ana, "/api/v1/events/facets?fields=sql").await.0, 400);
    assert_eq!(house.get(&ana, "/api/v1/events/facets").await.0, 400);
}

#[tokio::test]
async fn sessions_show_their_text_to_auditors_alone() {
    let house = House::open().await;
    let (maria, ana, tom) = (house.token(MARIA).await, house.token(ANA).await, house.token(TOM).await);
    house.get(&ana, "/api/v1/events").await; // the house learns its issuer
    let sessions = async |token: &str| house.get(token, "/api/v1/sessions").await.1["items"].clone();
    let (own, all, operated) = (sessions(&maria).await, sessions(&ana).await, sessions(&tom).await);
    assert_eq!((own.as_array().unwrap().len(), all.as_array().unwrap().len()), (1, 2));
    assert_eq!((&own[0]["user"], &all[1]["sql"]), (&json!(MARIA), &json!("select 2")));
    assert_eq!(operated.as_array().unwrap().len(), 2);
    assert!(!operated.to_string().contains("select"), "{operated}");
}

#[tokio::test]
async fn the_small_answers_are_there_for_those_who_are_known() {
    let house = House::open().await;
    let maria = house.token(MARIA).await;
    assert!(house.get(&maria, "/api/v1/log/head").await.1["seq"].as_u64().unwrap() >= 44);
    assert_eq!(house.get(&maria, "/api/v1/status").await.1["state"], "serving");
    let (_, fields) = house.get(&maria, "/api/v1/fields").await;
    assert!(fields["fields"].as_array().unwrap().iter().any(|field| field["name"] == "tables"), "{fields}");
    for path in [
        "/api/v1/events",
        "/api/v1/me",
        "/api/v1/log/head",
        "/api/v1/fields",
        "/api/v1/status",
        "/api/v1/sessions",
    ] {
        let answer = house.http.get(house.at(path)).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{path}");
        let challenge = answer.headers()["www-authenticate"].to_str().unwrap().to_owned();
        let metadata = house.at("/.well-known/oauth-protected-resource");
        assert!(
            challenge.starts_with("Bearer ")
                && challenge.contains(&format!("resource_metadata=\"{metadata}\""))
        );
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        assert_eq!(house.get("eyJh.eyJp.c2ln", path).await.0, 401, "{path}");
        assert_eq!(house.get("pgw_unknown", path).await.0, 401, "{path}");
    }
    assert_eq!(house.get(&maria, "/api/v1/nothing").await.0, 404);
    let (_, resource) = house.get(&maria, "/.well-known/oauth-protected-resource").await;
    assert_eq!(resource["resource"], house.url.as_str().trim_end_matches('/'));
    assert_eq!(resource["authorization_servers"], json!([house.provider.issuer()]));
    assert_eq!(resource["pgwitness_client_id"], "pgwitness");
}

#[tokio::test]
async fn a_body_too_large_or_not_json_is_refused() {
    let house = House::open().await;
    let maria = house.token(MARIA).await;
    let post = async |kind: &str, body: String| {
        let request = house.http.post(house.at("/api/v1/events/search")).bearer_auth(&maria);
        request.header("content-type", kind).body(body).send().await.unwrap().status().as_u16()
    };
    assert_eq!(post("text/plain", "{}".into()).await, 415);
    assert_eq!(post("application/json", "{".into()).await, 400);
    assert_eq!(post("application/json", format!("{{\"q\":\"{}\"}}", "x".repeat(70_000))).await, 413);
    assert_eq!(post("application/json", "{}".into()).await, 200);
}

fn query(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

#[tokio::test]
async fn a_record_is_proven_to_whoever_may_see_it_once_it_is_signed() {
    let house = House::open().await;
    let (maria, ana) = (house.token(MARIA).await, house.token(ANA).await);
    let (_, all) = house.get(&ana, "/api/v1/events?q=user:ana%20event:query").await;
    let path = format!("/api/v1/events/{}/proof", all["items"][0]["id"].as_str().unwrap());
    assert_eq!(house.get(&ana, &path).await.0, 503, "nothing is signed yet");
    assert_eq!(house.get(&ana, "/api/v1/log/head").await.1["checkpoint"], Value::Null);
    house.book.sign();
    assert_eq!(house.get(&maria, &path).await.0, 404);
    let before = house.book.readings(Event::AuditSearch).len();
    let (status, proof) = house.get(&ana, &path).await;
    assert_eq!((status, &proof["seq"]), (200, &all["items"][0]["seq"]), "{proof}");
    assert_eq!(house.book.readings(Event::AuditSearch).len(), before + 1);
    let (_, head) = house.get(&ana, "/api/v1/log/head").await;
    assert_eq!((&head["checkpoint"], &head["key"]), (&proof["checkpoint"], &proof["key"]));
    house.book.set_full(true);
    assert_eq!(house.get(&ana, &path).await.0, 503, "what cannot be recorded is not shown");
}

#[tokio::test]
async fn a_signed_tree_continues_every_earlier_one_and_no_later_one() {
    let house = House::open().await;
    let maria = house.token(MARIA).await;
    house.book.sign();
    let (_, head) = house.get(&maria, "/api/v1/log/head").await;
    let size: u64 = head["checkpoint"].as_str().unwrap().lines().nth(1).unwrap().parse().unwrap();
    let (status, proof) = house.get(&maria, "/api/v1/log/consistency?from=1").await;
    assert_eq!((status, proof["to"].as_u64()), (200, Some(size)), "{proof}");
    for wrong in ["", "?from=x", "?from=2&to=1", "?from=1&to=100000", "?from=1&until=2"] {
        assert_eq!(house.get(&maria, &format!("/api/v1/log/consistency{wrong}")).await.0, 400, "{wrong}");
    }
}
