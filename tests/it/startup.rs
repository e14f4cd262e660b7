//! From the first byte to the first query: startup packets of every shape, and what the database hears.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use pgwitness::config::AppLabel;
use serde_json::json;

use super::support::gateway::{Settings, TestGateway};
use super::support::postgres::server;
use super::support::wire::{Wire, query, startup};

/// What the database itself shows of the backends in the test's database.
async fn shown(gateway: &TestGateway, sql: &str) -> Vec<String> {
    let admin = server().connect(server().superuser(), "postgres").await;
    let sql = format!("SELECT application_name FROM pg_stat_activity WHERE datname = $1 AND query = '{sql}'");
    let rows = admin.query(&sql, &[&gateway.database()]).await.unwrap();
    admin.close().await;
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_sees_who_is_there_and_the_record_keeps_the_programs_own_name() {
    let gateway = TestGateway::start().await;
    let client = gateway.connect("ann@example.com").await;
    client.batch_execute("SELECT 'mine'").await.unwrap();
    let record = &gateway.records("sql:mine", 1).await[0];
    assert_eq!(record["app"], "psql");
    let session = record["session"].as_str().unwrap();
    let expected = format!("psql ann@example.com {}", &session[..18]);
    assert_eq!(shown(&gateway, "SELECT ''mine''").await, [expected.clone()]);
    gateway.records(&format!("session:{}* sql:mine", &session[..18]), 1).await;
    // What the client says of itself later is followed, and so is its way back.
    for sql in
        ["SET application_name = 'other'", "SELECT 'second'", "RESET application_name", "SELECT 'third'"]
    {
        client.batch_execute(sql).await.unwrap();
    }
    assert_eq!(shown(&gateway, "SELECT ''third''").await, [expected]);
    assert_eq!(gateway.records("sql:second", 1).await[0]["app"], "other");
    assert_eq!(gateway.records("sql:third", 1).await[0]["app"], "psql");
    assert_eq!(gateway.records("event:session.start app:psql", 1).await[0]["app"], "psql");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_without_a_name_and_one_that_is_left_alone() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::with(&gateway, &[]).await;
    assert!(wire.value("SHOW application_name").await.starts_with("ann@example.com "));
    assert!(wire.value("SELECT 'nameless'").await.contains("nameless"));
    assert_eq!(gateway.records("sql:nameless", 1).await[0]["app"], json!(null));
    gateway.stop().await;
    let own = Settings { application_name: AppLabel::own(), ..Settings::default() };
    let gateway = TestGateway::with(own).await;
    let mut wire = Wire::with(&gateway, &[("application_name", "caf\u{e9}")]).await;
    assert_eq!(wire.value("SHOW application_name").await, "caf??");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn startup_parameters_pass_as_sent_and_reset_returns_to_them() {
    let gateway = TestGateway::start().await;
    let parameters = [
        ("options", r"-c work_mem=2MB --statement-timeout=77s -c my.text=a\ b"),
        ("DateStyle", "German, DMY"),
        ("client_encoding", "'utf-8'"),
        ("geqo", "off"),
        ("database", "nowhere"),
        ("database", gateway.database()),
        ("user", "nobody"),
        ("user", "ann@example.com"),
    ];
    let mut wire = Wire::with(&gateway, &parameters).await;
    for (name, value) in [
        ("work_mem", "2MB"),
        ("statement_timeout", "77s"),
        ("my.text", "a b"),
        ("DateStyle", "German, DMY"),
        ("client_encoding", "UTF8"),
        ("geqo", "off"),
    ] {
        assert_eq!(wire.value(&format!("SHOW {name}")).await, value);
    }
    wire.send(&query("SET work_mem = '9MB'; SET geqo = on; SET my.text = 'c'; SET client_encoding = latin1"))
        .await;
    wire.ready().await;
    wire.send(&query("RESET work_mem; RESET geqo; RESET my.text; RESET client_encoding")).await;
    wire.ready().await;
    let now = "SELECT concat_ws('|', current_setting('work_mem'), current_setting('geqo'), current_setting('my.text'), current_setting('client_encoding'))";
    assert_eq!(wire.value(now).await, "2MB|off|a b|UTF8");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_startup_packet_of_ten_thousand_bytes_is_legal_and_one_more_is_not() {
    let gateway = TestGateway::start().await;
    let own = [("user", "ann@example.com"), ("database", gateway.database()), ("my.pad", "")];
    for (length, legal) in [(8_000, true), (9_990, true), (10_000, true), (10_001, false)] {
        let pad = "x".repeat(length - startup(0, &own).len());
        let packet = startup(0, &[own[0], own[1], ("my.pad", &pad)]);
        assert_eq!(packet.len(), length);
        let mut wire = Wire::silent(&gateway).await;
        wire.send(&packet).await;
        if legal {
            wire.ready().await;
            assert_eq!(wire.value("SHOW my.pad").await, pad);
        } else {
            assert_eq!(wire.next().await.unwrap().0, b'E');
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_hidden_in_options_are_recorded_as_they_take_effect() {
    let gateway = TestGateway::start().await;
    let options = "-e -ec search_path=billing -c role=app_read";
    let mut wire = Wire::with(&gateway, &[("options", options)]).await;
    assert_eq!(
        wire.value("SELECT current_user || '|' || current_setting('search_path')").await,
        "app_read|billing"
    );
    let record = &gateway.records("event:query sql:current_user", 1).await[0];
    assert_eq!((&record["role"], &record["search_path"]), (&json!("app_read"), &json!("billing")));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wish_for_a_password_is_ours_alone_to_hear() {
    let gateway = TestGateway::start().await;
    let client = gateway.try_connect("ann@example.com", "b7f3e2a1c4d59687aa01bc23de45f678").await.unwrap();
    let row = client.query_one("SELECT current_setting('pgwitness.login', true)", &[]).await.unwrap();
    assert_eq!(row.get::<_, Option<&str>>(0), None);
    gateway.stop().await;
}
