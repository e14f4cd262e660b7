//! Death in every place: whoever goes, there is one record with the right outcome, and nothing is left over.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgwitness::config::SslMode;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;

use super::state::own_server;
use super::support::gateway::{Settings, TestGateway};
use super::support::postgres::{TestPostgres, server};
use super::support::wire::{
    PATIENCE, Wire, bind, connect, error_code, execute, message, parse, query, rows, terminate,
};

/// How many backends of a database run, or ran last, a statement with a word in it.
async fn backends(on: &TestPostgres, database: &str, word: &str) -> i64 {
    let admin = on.connect(on.superuser(), "postgres").await;
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND query LIKE '%{word}%' \
         AND pid <> pg_backend_pid()"
    );
    let count = admin.query_one(&sql, &[]).await.unwrap().get(0);
    admin.close().await;
    count
}

async fn until(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !probe().await {
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until so many backends run it.
pub(crate) async fn running(gateway: &TestGateway, word: &str, count: i64) {
    until(word, async || backends(server(), gateway.database(), word).await == count).await;
}

/// Waits until no backend runs it or ran it last.
pub(crate) async fn gone(database: &str, word: &str) {
    until("its backend to go", async || backends(server(), database, word).await == 0).await;
}

/// Nothing is left of the sessions: no backend, no live session, and as many ends as there were beginnings.
async fn nothing_left(gateway: &TestGateway, word: &str, sessions: usize) {
    gone(gateway.database(), word).await;
    until("the session to end", async || gateway.sessions().await.is_empty()).await;
    gateway.records("event:session.start", sessions).await;
    gateway.records("event:session.end", sessions).await;
}

async fn the_record(gateway: &TestGateway, word: &str) -> (String, String) {
    let record = gateway.records(&format!("event:query sql:{word}"), 1).await.remove(0);
    let text = |name: &str| record[name].as_str().unwrap_or("").to_owned();
    (text("outcome"), text("txn_outcome"))
}

fn said(outcome: &str, txn: &str) -> (String, String) {
    (outcome.to_owned(), txn.to_owned())
}

// The client

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_while_its_query_runs_has_it_cancelled() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&query("SELECT 'midquery' FROM pg_sleep(300)")).await;
    running(&gateway, "midquery", 1).await;
    drop(wire);
    assert_eq!(the_record(&gateway, "midquery").await, said("canceled", "rolled_back"));
    nothing_left(&gateway, "midquery", 1).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_while_it_sends_copy_data_leaves_an_undone_copy() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.run("CREATE TEMP TABLE t (a text)").await;
    wire.send(&[query("COPY t FROM STDIN"), message(b'd', b"sent\n")].concat()).await;
    assert_eq!(wire.next().await.unwrap().0, b'G');
    drop(wire);
    let record = gateway.records("event:query command:COPY", 1).await.remove(0);
    assert_ne!(record["outcome"], "ok", "{record}");
    assert!(["rolled_back", "unknown"].contains(&record["txn_outcome"].as_str().unwrap()), "{record}");
    nothing_left(&gateway, "COPY t", 1).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_while_it_is_sent_rows_or_copy_data_stops_them() {
    let gateway = TestGateway::start().await;
    for (word, text) in [
        ("torrent", "COPY (SELECT repeat('torrent', 1000) FROM generate_series(1, 10000000)) TO STDOUT"),
        ("flood", "SELECT repeat('flood', 1000) FROM generate_series(1, 10000000)"),
    ] {
        let mut wire = Wire::open(&gateway).await;
        wire.send(&query(text)).await;
        for _ in 0..10 {
            wire.next().await.unwrap();
        }
        drop(wire);
        let record = gateway.records(&format!("event:query sql:{word}"), 1).await.remove(0);
        assert_eq!(record["outcome"], "canceled", "{record}");
        assert!(record["bytes"].as_u64().unwrap() > 10_000, "{record}");
        gone(gateway.database(), word).await;
    }
    nothing_left(&gateway, "flood", 2).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_in_the_middle_of_a_message_executed_nothing() {
    let gateway = TestGateway::start().await;
    let whole = query("SELECT 'halved'");
    for cut in [1, 3, 5, whole.len() - 1] {
        let mut wire = Wire::open(&gateway).await;
        wire.send(&whole[..cut]).await;
    }
    let mut wire = Wire::open(&gateway).await;
    wire.send(&[parse("", "SELECT 'halved'"), bind("", "", &[]), execute("")[..4].to_vec()].concat()).await;
    drop(wire);
    nothing_left(&gateway, "halved", 5).await;
    gateway.records("event:query", 0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_inside_a_transaction_frees_its_locks() {
    let gateway = TestGateway::start().await;
    let mut other = Wire::open(&gateway).await;
    let mut wire = Wire::open(&gateway).await;
    wire.run("BEGIN").await;
    wire.run("SELECT pg_advisory_xact_lock(11) AS locked").await;
    drop(wire);
    assert!(
        !other.run("SET lock_timeout = '20s'; SELECT pg_advisory_lock(11)").await.iter().any(|m| m.0 == b'E')
    );
    assert_eq!(the_record(&gateway, "locked").await, said("ok", "rolled_back"));
    drop(other);
    nothing_left(&gateway, "advisory", 2).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cut_off_by_a_reset_is_gone_as_one_that_closed() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire { stream: Box::new(connect(&gateway).await) };
    wire.log_in(&gateway).await;
    wire.send(&query("SELECT repeat('resetting', 1000) FROM generate_series(1, 1000000)")).await;
    wire.next().await.unwrap();
    // Unread bytes make the kernel send a reset.
    drop(wire);
    assert_eq!(the_record(&gateway, "resetting").await, said("canceled", "rolled_back"));
    nothing_left(&gateway, "resetting", 1).await;
    gateway.stop().await;
}

// The backend

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_terminated_in_the_middle_of_a_result_or_a_copy_is_an_error_in_its_own_words() {
    let gateway = TestGateway::start().await;
    let slow = "repeat('x', 10000), pg_sleep(0.001) FROM generate_series(1, 1000000)";
    for (word, text) in [
        ("midresult", format!("SELECT 'midresult', {slow}")),
        ("midcopyout", format!("COPY (SELECT 'midcopyout', {slow}) TO STDOUT")),
    ] {
        let mut wire = Wire::open(&gateway).await;
        wire.send(&query(&text)).await;
        for _ in 0..5 {
            wire.next().await.unwrap();
        }
        terminate(&gateway, word).await;
        let last = wire.rest().await;
        assert_eq!(error_code(&last.last().unwrap().1), "57P01");
        // A server that says FATAL may have committed before: it waits for its replicas after the fact.
        assert_eq!(the_record(&gateway, word).await, said("error", "unknown"));
    }
    let mut wire = Wire::open(&gateway).await;
    wire.run("CREATE TEMP TABLE t (a text)").await;
    wire.send(&[query("COPY t FROM STDIN /* midcopyin */"), message(b'd', b"1\n")].concat()).await;
    assert_eq!(wire.next().await.unwrap().0, b'G');
    terminate(&gateway, "midcopyin").await;
    let last = wire.rest().await;
    assert_eq!(error_code(&last.last().unwrap().1), "57P01");
    assert_eq!(the_record(&gateway, "midcopyin").await, said("error", "unknown"));
    nothing_left(&gateway, "mid", 3).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_terminated_inside_a_transaction_undoes_what_it_did() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.run("BEGIN").await;
    wire.run("SELECT 'idleintxn'").await;
    terminate(&gateway, "idleintxn").await;
    assert_eq!(error_code(&wire.rest().await.last().unwrap().1), "57P01");
    assert_eq!(the_record(&gateway, "idleintxn").await, said("ok", "rolled_back"));
    nothing_left(&gateway, "idleintxn", 1).await;
    gateway.stop().await;
}

/// Ends a backend as the kernel does when memory runs out.
async fn kill_9(on: &TestPostgres, word: &str) {
    let admin = on.connect(on.superuser(), "postgres").await;
    let sql =
        format!("SELECT pid FROM pg_stat_activity WHERE query LIKE '%{word}%' AND pid <> pg_backend_pid()");
    let mut pid = None;
    until("the backend to run", async || {
        pid = admin.query_opt(&sql, &[]).await.unwrap().map(|row| row.get::<_, i32>(0));
        pid.is_some()
    })
    .await;
    // The server falls with it, and this connection too.
    let _ = admin.batch_execute(&format!("COPY (SELECT 1) TO PROGRAM 'kill -9 {}'", pid.unwrap())).await;
    admin.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_leaves_one_unknown_record_and_the_gateway_goes_on() {
    let (own, other) = own_server(&[]).await;
    let gateway = TestGateway::with(Settings { server: Some(other), ..Settings::default() }).await;
    let mut idle = Wire::open(&gateway).await;
    idle.run("SELECT 'atrest'").await;
    let mut within = Wire::open(&gateway).await;
    within.run("BEGIN; SELECT 'within'").await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&query("SELECT 'killed' FROM pg_sleep(300)")).await;
    kill_9(&own, "killed").await;
    for mut wire in [idle, within, wire] {
        wire.rest().await;
    }
    assert_eq!(the_record(&gateway, "killed").await, said("unknown", "unknown"));
    assert_eq!(the_record(&gateway, "atrest").await, said("ok", "committed"));
    assert_eq!(the_record(&gateway, "within").await, said("ok", "rolled_back"));
    gateway.records("event:session.end", 3).await;
    assert!(gateway.sessions().await.is_empty());
    // The server is back after its recovery, and so is everybody.
    until("the server to be back", async || {
        let Ok(client) = gateway.try_connect("ann@example.com", "").await else { return false };
        client.batch_execute("SELECT 'again'").await.is_ok()
    })
    .await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&query("SELECT 'immediate' FROM pg_sleep(300)")).await;
    until("it to run", async || backends(&own, gateway.database(), "immediate").await == 1).await;
    let stopped = tokio::task::spawn_blocking(move || own.stop());
    wire.rest().await;
    stopped.await.unwrap();
    let (outcome, _) = the_record(&gateway, "immediate").await;
    assert!(["unknown", "error"].contains(&outcome.as_str()), "{outcome}");
    // Nobody is let in while there is no server; each is told why.
    let refused = gateway.try_connect("ann@example.com", "").await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "08001");
    gateway.stop().await;
}

// The network

/// A wire between the gateway and the database, or a client and the gateway, that can be cut.
struct Cable {
    port: u16,
    /// No byte passes any more, and nobody is told.
    frozen: CancellationToken,
    /// Both ends are closed.
    cut: CancellationToken,
}

async fn pump(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    frozen: CancellationToken,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if frozen.is_cancelled() {
            std::future::pending::<()>().await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

impl Cable {
    async fn to_database() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (frozen, cut) = (CancellationToken::new(), CancellationToken::new());
        let socket = server().socket_dir().join(format!(".s.PGSQL.{}", server().port()));
        let (freeze, end) = (frozen.clone(), cut.clone());
        #[allow(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (freeze, end, socket) = (freeze.clone(), end.clone(), socket.clone());
                tokio::spawn(async move { carry(near, &socket, freeze, end).await });
            }
        });
        Self { port, frozen, cut }
    }
}

async fn carry(near: TcpStream, socket: &std::path::Path, frozen: CancellationToken, cut: CancellationToken) {
    let far = UnixStream::connect(socket).await.unwrap();
    let ((near_read, near_write), (far_read, far_write)) = (tokio::io::split(near), tokio::io::split(far));
    let both = async {
        tokio::join!(pump(near_read, far_write, frozen.clone()), pump(far_read, near_write, frozen.clone()));
    };
    tokio::select! {
        () = both => {}
        () = cut.cancelled() => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_the_database_that_breaks_is_an_unknown_end() {
    let cable = Cable::to_database().await;
    let upstream_tls = Some((cable.port, SslMode::Disable, None));
    let gateway = TestGateway::with(Settings { upstream_tls, ..Settings::default() }).await;
    let mut idle = Wire::open(&gateway).await;
    idle.run("SELECT 'quiet'").await;
    let mut within = Wire::open(&gateway).await;
    within.run("BEGIN; SELECT 'inside'").await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&query("SELECT 'severed' FROM pg_sleep(300)")).await;
    running(&gateway, "severed", 1).await;
    cable.cut.cancel();
    for mut wire in [idle, within, wire] {
        wire.rest().await;
    }
    assert_eq!(the_record(&gateway, "severed").await, said("unknown", "unknown"));
    assert_eq!(the_record(&gateway, "quiet").await, said("ok", "committed"));
    assert_eq!(the_record(&gateway, "inside").await, said("ok", "rolled_back"));
    gateway.records("event:session.end", 3).await;
    assert!(gateway.sessions().await.is_empty());
    // The server finds out by itself (client_connection_check_interval, keepalive): here, the test does.
    terminate(&gateway, "severed").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_silent_for_ever_does_not_keep_a_client_that_goes() {
    let cable = Cable::to_database().await;
    let upstream_tls = Some((cable.port, SslMode::Disable, None));
    let mut settings = Settings { upstream_tls, ..Settings::default() };
    settings.limits.connect_timeout = Duration::from_secs(3);
    let gateway = TestGateway::with(settings).await;
    let mut wire = Wire::open(&gateway).await;
    cable.frozen.cancel();
    wire.send(&query("SELECT 'frozen'")).await;
    drop(wire);
    assert_eq!(the_record(&gateway, "frozen").await, said("unknown", "unknown"));
    until("the session to end", async || gateway.sessions().await.is_empty()).await;
    let refused = gateway.try_connect("ann@example.com", "").await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "08001");
    cable.cut.cancel();
    gateway.stop().await;
}

// The gateway itself

/// A drain time that no clock can hold: adding it to the present is a defect in the session's own task.
const IMPOSSIBLE: Duration = Duration::from_secs(u64::MAX / 2);

#[tokio::test(flavor = "multi_thread")]
async fn a_defect_in_a_session_settles_its_records_and_cancels_what_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings { dir: Some(dir.path().to_owned()), ..Settings::default() };
    settings.limits.drain_timeout = IMPOSSIBLE;
    let gateway = TestGateway::with(settings).await;
    let mut wire = Wire::open(&gateway).await;
    wire.run("BEGIN; SELECT 'opened'").await;
    wire.send(&query("SELECT 'defect' FROM pg_sleep(300)")).await;
    running(&gateway, "defect", 1).await;
    let database = gateway.database().to_owned();
    let ((), _) = tokio::join!(gateway.stop(), wire.rest());
    gone(&database, "defect").await;
    let gateway =
        TestGateway::with(Settings { dir: Some(dir.path().to_owned()), ..Settings::default() }).await;
    assert_eq!(the_record(&gateway, "defect").await, said("unknown", "unknown"));
    assert_eq!(the_record(&gateway, "opened").await, said("ok", "unknown"));
    let ends: Vec<Value> = gateway.records("event:session.end", 1).await;
    assert!(ends[0]["detail"].as_str().unwrap().contains("defect of the gateway"), "{ends:?}");
    gateway.records("event:gap", 0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_come_and_go_in_every_way_leave_nothing() {
    let gateway = Arc::new(TestGateway::start().await);
    let each = async |number: usize| {
        let mut wire = Wire::open(&gateway).await;
        match number % 4 {
            0 => wire.send(&message(b'X', b"")).await,
            1 => wire.send(&query("SELECT 'throng' FROM pg_sleep(60)")).await,
            2 => wire.send(&query("BEGIN")[..3]).await,
            _ => {
                wire.run("BEGIN; SELECT 'throng'").await;
            }
        }
    };
    futures_util::future::join_all((0..24).map(each)).await;
    nothing_left(&gateway, "throng", 24).await;
    let records = gateway.records("event:query sql:throng", 12).await;
    let ended = |outcome: &str| records.iter().filter(|record| record["outcome"] == outcome).count();
    assert_eq!((ended("canceled") + ended("unknown") + ended("ok"), ended("ok")), (12, 6));
    assert!(records.iter().all(|record| record["txn_outcome"] != json!("committed")));
    assert_eq!(rows(&Wire::open(&gateway).await.run("SELECT 1").await).len(), 1);
    Arc::into_inner(gateway).unwrap().stop().await;
}
