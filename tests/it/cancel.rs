//! Cancel requests: the right session, from anywhere, at once, and nobody else's.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::support::gateway::{Settings, TestGateway};
use super::support::wire::{PATIENCE, Wire, error_code, message, query, startup};

/// A session of its own protocol version, with what BackendKeyData gave it.
async fn open(gateway: &TestGateway, minor: u16) -> (Wire, Vec<u8>) {
    let mut wire = Wire::silent(gateway).await;
    let parameters =
        [("user", "ann@example.com"), ("database", gateway.database()), ("application_name", "psql")];
    wire.send(&startup(minor, &parameters)).await;
    let greeting = wire.ready().await;
    let key = greeting.into_iter().find(|(tag, _)| *tag == b'K').unwrap().1;
    (wire, key)
}

fn request(key: &[u8]) -> Vec<u8> {
    let length = (key.len() as u32 + 8).to_be_bytes();
    [&length, &80_877_102_u32.to_be_bytes()[..], key].concat()
}

/// Sends a request, and waits until it has been passed on.
async fn cancel(gateway: &TestGateway, key: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).await.unwrap();
    stream.write_all(&request(key)).await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, stream.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
}

/// Waits until the gateway has recorded, and so forwarded, a statement.
async fn running(gateway: &TestGateway, sql: &str, count: usize) {
    gateway.seen(&format!("event:query sql:{sql}"), count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_as_long_as_the_protocols_version_says_and_both_cancel() {
    let gateway = TestGateway::start().await;
    for (minor, length) in [(0, 8), (1, 8), (2, 36)] {
        let (mut wire, key) = open(&gateway, minor).await;
        assert_eq!(key.len(), length, "3.{minor}");
        let pid = wire.value("SELECT pg_backend_pid()").await;
        assert_eq!(u32::from_be_bytes(*key.first_chunk().unwrap()).to_string(), pid);
        wire.send(&query(&format!("SELECT 'minor{minor}', pg_sleep(60)"))).await;
        running(&gateway, &format!("minor{minor}"), 1).await;
        // From another address of this machine.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut stream = socket.connect(([127, 0, 0, 1], gateway.port).into()).await.unwrap();
        stream.write_all(&request(&key)).await.unwrap();
        let answer = wire.ready().await;
        let error = answer.iter().find(|(tag, _)| *tag == b'E').unwrap();
        assert_eq!(error_code(&error.1), "57014");
    }
    let records = gateway.records("event:cancel", 3).await;
    for record in records {
        assert_eq!((&record["outcome"], &record["user"]), (&json!("ok"), &json!("ann@example.com")));
        assert_eq!(record["ip"], "127.0.0.2");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_and_a_replay_after_the_end_find_nobody_and_are_recorded() {
    let gateway = TestGateway::start().await;
    let (mut wire, key) = open(&gateway, 2).await;
    wire.send(&query("SELECT 'survivor', pg_sleep(1)")).await;
    running(&gateway, "survivor", 1).await;
    let mut wrong = key.clone();
    *wrong.last_mut().unwrap() ^= 1;
    cancel(&gateway, &wrong).await;
    // The beginning of the key is not the key.
    cancel(&gateway, &key[..8]).await;
    assert_eq!(wire.tags().await, "TDCZ");
    wire.send(&message(b'X', b"")).await;
    assert!(wire.rest().await.is_empty());
    gateway.records("event:session.end", 1).await;
    cancel(&gateway, &key).await;
    let records = gateway.records("event:cancel outcome:denied", 3).await;
    assert!(records.iter().all(|record| record["user"] == json!(null)), "{records:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_requests_at_once_none_is_lost_and_no_bystander_is_hit() {
    const SLEEPERS: usize = 25;
    let gateway = TestGateway::with(Settings { max_clients: 60, ..Settings::default() }).await;
    let mut sleepers = Vec::new();
    for _ in 0..SLEEPERS {
        sleepers.push(open(&gateway, 2).await);
    }
    let mut bystanders = Vec::new();
    for _ in 0..5 {
        bystanders.push(open(&gateway, 0).await);
    }
    for (wire, _) in &mut sleepers {
        wire.send(&query("SELECT 'sleeper', pg_sleep(60)")).await;
    }
    for (wire, _) in &mut bystanders {
        wire.send(&query("SELECT 'bystander', pg_sleep(3)")).await;
    }
    running(&gateway, "sleeper", SLEEPERS).await;
    running(&gateway, "bystander", bystanders.len()).await;
    let port = gateway.port;
    let requests = (0..200).map(|number| {
        let packet = request(&sleepers[number % SLEEPERS].1);
        async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            // Closed at once, as clients do.
            stream.write_all(&packet).await.unwrap();
        }
    });
    futures_util::future::join_all(requests).await;
    for (wire, _) in &mut sleepers {
        assert!(wire.tags().await.ends_with("EZ"));
    }
    for (wire, _) in &mut bystanders {
        assert_eq!(wire.tags().await, "TDCZ");
    }
    gateway.records("event:cancel outcome:ok", 200).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_wrong_keys_cannot_fill_the_log_and_is_counted() {
    const STORM: u64 = 500;
    let gateway = TestGateway::start().await;
    for _ in 0..STORM {
        cancel(&gateway, &[0, 0, 0, 1, 9, 9, 9, 9]).await;
    }
    let records = gateway.counted("event:cancel outcome:denied", STORM).await;
    assert!(records < 70, "{records} records");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_ends_only_when_it_was_passed_on() {
    let gateway = TestGateway::start().await;
    let (mut wire, key) = open(&gateway, 0).await;
    for _ in 0..5 {
        wire.send(&query("SELECT pg_sleep(60)")).await;
        // Too early is lost, as without us: so until it hits.
        let hit = async {
            loop {
                cancel(&gateway, &key).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            tags = wire.tags() => assert!(tags.ends_with("EZ"), "{tags}"),
            () = hit => {}
        }
        // Nothing of it is left over to hit the next statement.
        assert_eq!(wire.value("SELECT 'next'").await, "next");
    }
    gateway.stop().await;
}
