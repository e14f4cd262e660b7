//! Who may have values of a record erased.

use pgwitness_index::record::Event;
use serde_json::{Value, json};

use super::house::{ANA, House, MARIA, TOM, ended};

async fn erase(house: &House, who: &str, id: &str, body: Value) -> (u16, Value) {
    let path = house.at(&format!("/api/v1/events/{id}/erase"));
    let asked = house.http.post(path).bearer_auth(house.token(who).await).json(&body);
    let answer = asked.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn administrators_alone_have_values_erased_and_see_nothing_of_the_record() {
    let house = House::open().await;
    let seq = house.say(MARIA, "SELECT", "select 'a secret'", ended());
    let id = seq.to_string();
    let body = json!({ "fields": ["sql", "params"], "reason": "art. 17" });
    assert_eq!(erase(&house, ANA, &id, body.clone()).await.0, 404, "to read all is not to operate");
    assert_eq!(erase(&house, MARIA, &id, body.clone()).await.0, 404, "not one's own either");
    let (status, answer) = erase(&house, TOM, &id, body.clone()).await;
    assert_eq!((status, &answer["seq"]), (200, &json!(seq)));
    assert!(!answer.to_string().contains("secret"));
    let (status, refused) = erase(&house, TOM, &id, json!({ "fields": ["sql"], "reason": "held" })).await;
    assert_eq!((status, refused["detail"].as_str()), (409, Some("the record is under a legal hold")));
    for (id, body, status) in [
        (id.as_str(), json!({ "fields": ["who"], "reason": "x" }), 400),
        (&id, json!({ "fields": [], "reason": "x" }), 400),
        (&id, json!({ "fields": ["sql"], "reason": "" }), 400),
        (&id, json!({ "fields": ["sql"], "reason": "x".repeat(1001) }), 400),
        (&id, json!({ "fields": ["sql"] }), 400),
        ("not-an-id", body.clone(), 404),
        ("01890000-0000-7000-8000-000000000000", body.clone(), 404),
    ] {
        assert_eq!(erase(&house, TOM, id, body).await.0, status);
    }
    assert!(house.book.readings(Event::AuditErase).is_empty(), "the gateway's own part records it");
}
