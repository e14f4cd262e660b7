//! Who may end whose sessions.

use pgwitness_index::record::Event;
use serde_json::{Value, json};

use super::house::{ANA, House, MARIA, TOM};

async fn terminate(house: &House, who: &str, session: &str, body: &str) -> (u16, Value) {
    let path = house.at(&format!("/api/v1/sessions/{session}/terminate"));
    let asked = house.http.post(path).bearer_auth(house.token(who).await);
    let answer = asked.header("content-type", "application/json").body(body.to_owned()).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn people_end_their_own_sessions_and_administrators_any_and_all_of_it_is_recorded() {
    let house = House::open().await;
    // The house learns its issuer from what it records.
    house.http.get(house.at("/api/v1/events")).bearer_auth(house.token(ANA).await).send().await.unwrap();
    let (ana, maria) = (format!("s-{ANA}"), format!("s-{MARIA}"));
    assert_eq!(terminate(&house, MARIA, &maria, "").await, (200, json!({ "ended": 1 })));
    assert_eq!(terminate(&house, MARIA, &ana, "{}").await.0, 404, "it is as if it were not there");
    assert_eq!(terminate(&house, ANA, &maria, "{}").await.0, 404, "to read all is not to operate");
    assert_eq!(terminate(&house, TOM, &ana, r#"{"scope":"person"}"#).await.0, 200);
    assert_eq!(terminate(&house, TOM, "s-nobody", "{}").await.0, 404);
    assert_eq!(terminate(&house, TOM, &ana, r#"{"scope":"all"}"#).await.0, 400);
    let told = |event| house.book.readings(event);
    assert_eq!(told(Event::Cancel), [(MARIA.to_owned(), format!("ended session {maria}"))]);
    assert_eq!(told(Event::LoginRevoked), [(TOM.to_owned(), format!("ended all logins of {ANA}"))]);
    house.book.set_full(true);
    assert_eq!(terminate(&house, TOM, &ana, "{}").await.0, 503, "what cannot be recorded is not done");
}
