//! From the first byte to the first query: startup packets of every shape, and what the database hears.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use std::time::Duration;

use pgwitness::config::AppLabel;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::gateway::{Settings, TestGateway};
use super::support::postgres::server;
use super::support::wire::{
    GSSENC_REQUEST, PATIENCE, SSL_REQUEST, Wire, connect, error_code, error_text, query, startup,
};

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
    assert_eq!(shown(&gateway, "SELECT ''mine''").await, std::slice::from_ref(&expected));
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

/// What comes back of a packet up to the end of the connection.
async fn told(gateway: &TestGateway, packet: &[u8]) -> Vec<u8> {
    let mut stream = connect(gateway).await;
    stream.write_all(packet).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_options_are_negotiated_as_postgresql_18_does() {
    let gateway = TestGateway::start().await;
    let own = [("user", "ann@example.com"), ("database", gateway.database())];
    let unknown = [own[0], own[1], ("_pq_.first", "x"), ("_pq_.second", "y")];
    for (minor, parameters, expected) in [
        (0, &own[..], None),
        (1, &own, None),
        (2, &own, None),
        (9, &own, Some(&b"\0\x03\0\x02\0\0\0\0"[..])),
        (2, &unknown, Some(b"\0\x03\0\x02\0\0\0\x02_pq_.first\0_pq_.second\0")),
        (0, &unknown, Some(b"\0\x03\0\0\0\0\0\x02_pq_.first\0_pq_.second\0")),
    ] {
        let mut wire = Wire::silent(&gateway).await;
        wire.send(&startup(minor, parameters)).await;
        let greeting = wire.ready().await;
        let negotiated = greeting.iter().find(|(tag, _)| *tag == b'v').map(|(_, body)| body.as_slice());
        assert_eq!(negotiated, expected, "3.{minor} {parameters:?}");
        assert!(expected.is_none() || greeting[0].0 == b'v', "before anything else");
        let key = &greeting.iter().find(|(tag, _)| *tag == b'K').unwrap().1;
        assert_eq!(key.len(), if minor >= 2 { 36 } else { 8 });
        assert_eq!(wire.value("SELECT 'works'").await, "works");
    }
    // Protocol 2 is told in its own form, as the database does.
    let packet = [&16_u32.to_be_bytes()[..], &(2_u32 << 16).to_be_bytes(), b"user\0a\0\0"].concat();
    let text = String::from_utf8(told(&gateway, &packet).await).unwrap();
    assert_eq!(text, "EFATAL:  unsupported frontend protocol 2.0: server supports 3.0 to 3.2\n\0");
    gateway.records("event:denied error:\"unsupported frontend protocol\"", 1).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn startup_packets_of_bad_shape_are_refused_in_clear_words_and_recorded() {
    let gateway = TestGateway::start().await;
    let of =
        |length: u32, code: u32, body: &[u8]| [&length.to_be_bytes()[..], &code.to_be_bytes(), body].concat();
    let whole = |code: u32, body: &[u8]| of(body.len() as u32 + 8, code, body);
    let three = 3 << 16;
    for (packet, code, words) in [
        (whole(three, b"\0"), "28000", "no PostgreSQL user name"),
        (whole(three, b"user\0\0\0"), "28000", "no PostgreSQL user name"),
        (whole(three, b"database\0shop\0\0"), "28000", "no PostgreSQL user name"),
        (whole(three, b"user\0\xff\xfe\0\0"), "22021", "not UTF-8"),
        (whole(three, b""), "08P01", "terminator"),
        (whole(three, b"user\0ann"), "08P01", "terminator"),
        (whole(three, b"user\0ann\0"), "08P01", "terminator"),
        (whole(three, b"user\0ann\0\0more"), "08P01", "terminator"),
        (of(4, three, b""), "08P01", "invalid length"),
        (of(7, three, b""), "08P01", "invalid length"),
        (of(0, three, b""), "08P01", "invalid length"),
        (of(u32::MAX, three, b"user"), "08P01", "invalid length"),
        (of(10_001, three, b"user"), "08P01", "invalid length"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "08P01", "invalid length"),
        (whole(4 << 16, b"user\0ann\0\0"), "0A000", "unsupported frontend protocol 4.0"),
        (whole(80_877_103, b"x"), "08P01", "encryption request"),
        (whole(80_877_102, b"\0\0\0\x01"), "08P01", "cancel request"),
    ] {
        let answer = told(&gateway, &packet).await;
        assert_eq!(answer.first(), Some(&b'E'), "{packet:?}: {answer:?}");
        assert_eq!(error_code(&answer[5..]), code, "{packet:?}");
        assert!(error_text(&answer[5..]).contains(words), "{packet:?}: {}", error_text(&answer[5..]));
    }
    let records = gateway.records("event:denied", 17).await;
    assert!(records.iter().all(|record| record["ip"] == "127.0.0.1" && record["user"] == json!(null)));
    // Who says nothing, or half of it, and leaves: nobody asked for anything.
    for packet in [&b""[..], b"\0\0\0", b"\0\0\0\x20\0\x03\0\0user"] {
        let mut stream = connect(&gateway).await;
        stream.write_all(packet).await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(matches!(stream.read(&mut [0; 8]).await, Ok(0) | Err(_)));
    }
    assert_eq!(gateway.found("event:denied").await.len(), 17);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encryption_may_be_asked_for_once_of_each_kind() {
    let gateway = TestGateway::start().await;
    let own = [("user", "ann@example.com"), ("database", gateway.database())];
    let mut stream = connect(&gateway).await;
    for request in [GSSENC_REQUEST, SSL_REQUEST] {
        stream.write_all(&request).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'N');
    }
    let mut wire = Wire { stream: Box::new(stream) };
    wire.send(&startup(0, &own)).await;
    wire.ready().await;
    assert_eq!(wire.value("SELECT 'plain'").await, "plain");
    for request in [GSSENC_REQUEST, SSL_REQUEST] {
        let answer = told(&gateway, &[request, request].concat()).await;
        assert_eq!((answer[0], answer[1]), (b'N', b'E'));
        assert_eq!(error_code(&answer[6..]), "0A000");
        assert!(error_text(&answer[6..]).starts_with("unsupported frontend protocol 1234."));
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_nothing_is_not_waited_for_for_ever() {
    let settings = Settings { login_timeout: Duration::from_millis(500), ..Settings::default() };
    let gateway = TestGateway::with(settings).await;
    for packet in [&b""[..], &startup(0, &[("user", "ann")])[..12]] {
        assert!(told(&gateway, packet).await.is_empty());
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_refusals_is_bounded_in_the_log_and_counted() {
    const STORM: u64 = 300;
    let gateway = TestGateway::start().await;
    for _ in 0..STORM {
        told(&gateway, b"GET / HTTP/1.1\r\n\r\n").await;
    }
    let records = gateway.counted("event:denied", STORM).await;
    assert!(records < 70, "{records} records");
    // Whoever is welcome is let in meanwhile.
    assert_eq!(Wire::with(&gateway, &[]).await.value("SELECT 'in'").await, "in");
    gateway.stop().await;
}
