//! The relay byte by byte: a client that speaks the protocol itself, and badly where that matters.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use std::time::Duration;

use pgwitness::config::{ListenTls, SslMode, TlsFiles};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::support::gateway::{Settings, TestGateway};
use super::support::postgres::server;
use super::support::wire::{
    Bytes, SSL_REQUEST, Wire, bind, close, connect, describe, error_code, execute, message, parse, query,
    sync, terminate,
};

fn tls_files() -> TlsFiles {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
    TlsFiles { cert: folder.join("server.crt"), key: folder.join("server.key") }
}

fn connector(alpn: &[&str]) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(tls_files().cert).unwrap()).unwrap();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(std::sync::Arc::new(config))
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// Writes the SSLRequest in one write with what comes first, then swallows the answer to it.
struct Coalesced {
    stream: TcpStream,
    asked: bool,
    answered: bool,
}

impl AsyncRead for Coalesced {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if !this.answered {
            let mut byte = [0];
            let mut one = tokio::io::ReadBuf::new(&mut byte);
            std::task::ready!(std::pin::Pin::new(&mut this.stream).poll_read(cx, &mut one))?;
            assert_eq!(one.filled(), b"S");
            this.answered = true;
        }
        std::pin::Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Coalesced {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        let head: &[u8] = if this.asked { &[] } else { &SSL_REQUEST };
        let both = [head, bytes].concat();
        let written = std::task::ready!(std::pin::Pin::new(&mut this.stream).poll_write(cx, &both))?;
        assert!(written >= head.len());
        this.asked = true;
        std::task::Poll::Ready(Ok(written - head.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bind_that_fails_rolls_back_what_ran_before_it_in_its_pipeline() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    let insert = "SELECT 'piped' WHERE $1::int > 0";
    let bytes =
        [parse("s", insert), bind("", "s", &["1"]), execute(""), bind("", "s", &["x"]), execute(""), sync()];
    wire.send(&bytes.concat()).await;
    assert_eq!(wire.tags().await, "12DCEZ");
    let records = gateway.records("event:query sql:piped", 2).await;
    let told: Vec<_> = records.iter().map(|r| (&r["outcome"], &r["txn_outcome"])).collect();
    let (ok, error, back) = (json!("ok"), json!("error"), json!("rolled_back"));
    assert_eq!(told, [(&ok, &back), (&error, &back)]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_recorded_as_what_the_server_ran_whatever_their_names_did() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    let name = |last: &str| "n".repeat(63) + last;
    // The server keeps 63 bytes: all three are one name.
    let bytes = [
        parse(&name("1"), "SELECT 'first'"),
        close('S', &name("2")),
        parse(&name("3"), "SELECT 'second'"),
        bind("", &name("1"), &[]),
        execute(""),
        sync(),
    ];
    wire.send(&bytes.concat()).await;
    let answer = wire.ready().await;
    assert!(answer.iter().any(|(tag, body)| *tag == b'D' && body.ends_with(b"second")), "{answer:?}");
    gateway.records("sql:second", 1).await;
    gateway.records("sql:first", 0).await;
    // Renamed by SQL, all in one write.
    wire.send(&[parse("s", "SELECT 'harmless'"), sync()].concat()).await;
    wire.ready().await;
    let renamed = "DEALLOCATE s; PREPARE s AS SELECT email FROM customers LIMIT 1";
    wire.send(&[query(renamed), bind("", "s", &[]), execute(""), sync()].concat()).await;
    assert_eq!((wire.tags().await, wire.tags().await), ("CCZ".to_owned(), "2DCZ".to_owned()));
    gateway.records("sql:harmless", 0).await;
    let records = gateway.records("event:query rows:1 table:customers", 1).await;
    assert_eq!(records[0]["reads"], json!(["public.customers.email"]), "{records:?}");
    // Made by the protocol, run by SQL.
    wire.send(&[parse("t", "SELECT name FROM products LIMIT 1"), sync()].concat()).await;
    wire.ready().await;
    wire.send(&query("EXECUTE t")).await;
    assert_eq!(wire.tags().await, "TDCZ");
    let records = gateway.records("command:execute table:products", 1).await;
    assert_eq!(records[0]["analysis"], "exact", "{records:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_took_a_portals_name_is_recorded_when_it_is_executed() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&query("BEGIN")).await;
    wire.ready().await;
    wire.send(&[parse("", "SELECT 'harmless'"), bind("c", "", &[]), execute("c"), sync()].concat()).await;
    assert_eq!(wire.tags().await, "12DCZ");
    wire.send(&query("CLOSE c; DECLARE c CURSOR FOR SELECT email FROM customers LIMIT 3")).await;
    assert_eq!(wire.tags().await, "CCZ");
    wire.send(&[execute("c"), sync()].concat()).await;
    assert_eq!(wire.tags().await, "DDDCZ");
    wire.send(&query("COMMIT")).await;
    wire.ready().await;
    gateway.records("sql:harmless", 1).await;
    let fetched = gateway.records("event:query rows:3", 1).await;
    assert_eq!(fetched[0]["tables"], json!(["public.customers"]), "{fetched:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_set_role_is_not_believed_by_the_statement_sent_right_behind_it() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&[query("SET ROLE postgres"), query("SELECT 'behind'")].concat()).await;
    assert_eq!((wire.tags().await, wire.tags().await), ("EZ".to_owned(), "TDCZ".to_owned()));
    assert_eq!(gateway.records("sql:behind", 1).await[0]["role"], "app_write");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_side_still_gets_its_answer() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&query("SELECT 'last' FROM pg_sleep(0.5)")).await;
    wire.stream.shutdown().await.unwrap();
    assert_eq!(wire.tags().await, "TDCZ");
    assert!(wire.rest().await.is_empty());
    assert_eq!(gateway.records("sql:last", 1).await[0]["outcome"], "ok");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_leaves_running_is_cancelled_and_recorded_once() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&query("SELECT 'orphan' FROM pg_sleep(300)")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(wire);
    let records = gateway.records("event:query sql:orphan", 1).await;
    assert_eq!(records[0]["outcome"], "canceled");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_a_pipeline_without_sync_holds_no_locks() {
    let gateway = TestGateway::start().await;
    let other = gateway.connect("ann@example.com").await;
    for leave in [
        [parse("", "SELECT pg_advisory_xact_lock(7)"), bind("", "", &[]), execute("")].concat(),
        query("BEGIN; SELECT pg_advisory_xact_lock(7)"),
    ] {
        let mut wire = Wire::open(&gateway).await;
        wire.send(&query("BEGIN")).await;
        wire.ready().await;
        wire.send(&leave).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(wire);
        let sql = "SET lock_timeout = '1500ms'; BEGIN; SELECT pg_advisory_xact_lock(7); ROLLBACK";
        other.batch_execute(sql).await.unwrap();
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_terminated_says_so_to_the_client_in_its_own_words() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&query("SELECT 'busy', pg_sleep(300)")).await;
    terminate(&gateway, "busy").await;
    let last = wire.rest().await;
    let (tag, body) = last.last().unwrap();
    assert_eq!((*tag, error_code(body).as_str()), (b'E', "57P01"), "{last:?}");
    let text = String::from_utf8_lossy(body);
    assert!(text.contains("FATAL") && text.contains("Fpostgres.c"), "{text}");
    let records = gateway.records("event:query sql:busy", 1).await;
    assert_eq!((&records[0]["outcome"], &records[0]["sqlstate"]), (&json!("error"), &json!("57P01")));

    let mut idle = Wire::open(&gateway).await;
    idle.send(&query("SELECT 'resting'")).await;
    idle.ready().await;
    terminate(&gateway, "resting").await;
    let last = idle.rest().await;
    assert_eq!(error_code(&last.last().unwrap().1), "57P01");
    gateway.records("event:session.end", 2).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_odd_traffic_passes_unchanged() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&query("SELECT repeat('x', 64 * 1024 * 1024)")).await;
    let answer = wire.ready().await;
    assert_eq!(answer.iter().find(|(tag, _)| *tag == b'D').unwrap().1.len(), (64 << 20) + 6);
    wire.send(&query(&format!("SELECT length('{}')", "y".repeat(16 << 20)))).await;
    let answer = wire.ready().await;
    assert!(answer.iter().any(|(tag, body)| *tag == b'D' && body.ends_with(b"16777216")));
    for byte in [parse("", "SELECT 'slow'"), bind("", "", &[]), execute(""), sync()].concat() {
        wire.send(&[byte]).await;
    }
    assert_eq!(wire.tags().await, "12DCZ");
    wire.send(&sync().repeat(100)).await;
    for _ in 0..100 {
        assert_eq!(wire.tags().await, "Z");
    }
    let list: Vec<_> = (1..=65_535).map(|index| format!("${index}")).collect();
    let many = format!("SELECT array_length(ARRAY[{}]::text[], 1)", list.join(","));
    wire.send(&[parse("", &many), bind("", "", &vec!["v"; 65_535]), execute(""), sync()].concat()).await;
    let answer = wire.ready().await;
    assert!(answer.iter().any(|(tag, body)| *tag == b'D' && body.ends_with(b"65535")));
    // More than can be bound: a statement all the same, whose description counts them modulo 65,536.
    wire.send(&[parse("many", &format!("{many}, $65536")), describe('S', "many"), sync()].concat()).await;
    assert_eq!(wire.tags().await, "1tTZ");
    wire.send(&query("DO $$BEGIN FOR i IN 1..20000 LOOP RAISE NOTICE 'n'; END LOOP; END$$")).await;
    assert_eq!(wire.ready().await.iter().filter(|(tag, _)| *tag == b'N').count(), 20_000);
    wire.send(&[parse("", "SELECT 'flushed'"), bind("", "", &[]), execute(""), message(b'H', b"")].concat())
        .await;
    for tag in *b"12DC" {
        assert_eq!(wire.next().await.unwrap().0, tag);
    }
    wire.send(&sync()).await;
    assert_eq!(wire.tags().await, "Z");
    gateway.records("event:query app:psql", 6).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_pipeline_behind_an_error_is_skipped_without_a_hitch() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&parse("", "selec")).await;
    let one = [bind("", "", &[]), close('P', ""), close('P', "")].concat();
    for _ in 0..50 {
        wire.send(&one.repeat(1000)).await;
    }
    wire.send(&sync()).await;
    assert_eq!(wire.tags().await, "EZ");
    wire.send(&query("SELECT 1")).await;
    assert_eq!(wire.tags().await, "TDCZ");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_fail_midway_or_are_synced_early_stay_in_step() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&query("CREATE TEMP TABLE t (a int)")).await;
    wire.ready().await;
    // The server refuses a row while the client still sends.
    let (row, done) = (message(b'd', b"x\n"), message(b'c', b""));
    wire.send(&[query("COPY t FROM STDIN"), row.repeat(1000), done.clone()].concat()).await;
    assert_eq!(wire.tags().await, "GEZ");
    // A Sync right behind the Execute: the server ignores it.
    let copy = [parse("", "COPY t FROM STDIN"), bind("", "", &[]), execute(""), sync()].concat();
    wire.send(&copy).await;
    for tag in *b"12G" {
        assert_eq!(wire.next().await.unwrap().0, tag);
    }
    wire.send(&[message(b'd', b"1\n"), done.clone(), sync()].concat()).await;
    assert_eq!(wire.tags().await, "CZ");
    // Given up by the client; then two in one string.
    wire.send(&[query("COPY t FROM STDIN"), message(b'f', b"no\0")].concat()).await;
    assert_eq!(wire.tags().await, "GEZ");
    let two = [message(b'd', b"2\n"), done.clone()].concat().repeat(2);
    wire.send(&[query("COPY t FROM STDIN; COPY t FROM STDIN"), two].concat()).await;
    assert_eq!(wire.tags().await, "GCGCZ");
    wire.send(&query("SELECT count(*) FROM t")).await;
    let answer = wire.ready().await;
    assert!(answer.iter().any(|(tag, body)| *tag == b'D' && body.ends_with(b"3")));
    let records = gateway.records("event:query command:copy", 5).await;
    let outcomes: Vec<_> = records.iter().map(|record| record["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["error", "ok", "canceled", "ok", "ok"]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_behind_a_copy_that_fails_before_it_reads_is_recorded_as_it_ended() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&query("CREATE TEMP TABLE t (a int); CREATE TEMP VIEW v AS SELECT count(*) FROM t")).await;
    wire.ready().await;
    // The Sync behind the COPY is answered: the server has read no data.
    let copy = [parse("", "COPY v FROM STDIN"), bind("", "", &[]), execute(""), sync()].concat();
    let hidden = [parse("", "INSERT INTO t VALUES (1)"), bind("", "", &[]), execute(""), sync()].concat();
    // An empty query leaves the unnamed portal as it is.
    let portal =
        [query("BEGIN"), parse("", "DELETE FROM t"), bind("", "", &[]), query(""), execute(""), sync()];
    wire.send(&[copy, hidden, portal.concat()].concat()).await;
    assert_eq!(wire.tags().await, "12GEZ");
    assert_eq!(wire.tags().await, "12CZ");
    assert_eq!(wire.tags().await, "CZ");
    assert_eq!(wire.tags().await, "12IZ");
    assert_eq!(wire.tags().await, "CZ");
    for (query, outcome) in [("command:copy", "error"), ("command:insert", "ok"), ("command:delete", "ok")] {
        let records = gateway.records(&format!("event:query {query}"), 1).await;
        assert_eq!(records[0]["outcome"], outcome, "{records:#?}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_no_known_type_ends_the_session_at_once() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&[query("SELECT 'before'"), message(b'?', b"")].concat()).await;
    let last = wire.rest().await;
    assert_eq!(error_code(&last.last().unwrap().1), "08P01");
    gateway.records("sql:before", 0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_constraint_undoes_its_transaction_at_commit_and_at_sync() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&query("CREATE TEMP TABLE u (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)")).await;
    wire.ready().await;
    wire.send(&query("BEGIN; INSERT INTO u VALUES (1), (1)")).await;
    assert_eq!(wire.tags().await, "CCZ");
    wire.send(&query("COMMIT")).await;
    assert_eq!(wire.tags().await, "EZ");
    let piped = [parse("", "INSERT INTO u VALUES (2), (2)"), bind("", "", &[]), execute(""), sync()];
    wire.send(&piped.concat()).await;
    assert_eq!(wire.tags().await, "12CEZ");
    wire.send(&query("INSERT INTO u VALUES (3); COMMIT AND CHAIN")).await;
    wire.ready().await;
    wire.send(&query("INSERT INTO u VALUES (4); BEGIN; INSERT INTO u VALUES (5); ROLLBACK")).await;
    wire.ready().await;
    let records = gateway.records("event:query command:insert", 5).await;
    let told: Vec<_> = records.iter().map(|record| record["txn_outcome"].as_str().unwrap()).collect();
    assert_eq!(told[..2], ["rolled_back"; 2]);
    assert_eq!(told[3..], ["rolled_back"; 2]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_lets_a_running_query_finish_and_then_ends_the_session() {
    let gateway = TestGateway::with(Settings::default()).await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&query("SELECT 'finishing' FROM pg_sleep(1)")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (answer, ()) = tokio::join!(wire.rest(), gateway.stop());
    let tags: String = answer.iter().map(|(tag, _)| char::from(*tag)).collect();
    assert_eq!(tags, "TDCZE");
    assert_eq!(error_code(&answer.last().unwrap().1), "57P01");
}

async fn one_query(stream: impl Bytes + 'static, gateway: &TestGateway) {
    let mut wire = Wire { stream: Box::new(stream) };
    wire.log_in(gateway).await;
    wire.send(&query("SELECT 'hidden'")).await;
    assert_eq!(wire.tags().await, "TDCZ");
    wire.send(&message(b'X', b"")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_on_request_in_one_packet_with_it_and_directly() {
    let settings = Settings { tls: ListenTls::Require(tls_files()), ..Settings::default() };
    let gateway = TestGateway::with(settings).await;
    let mut stream = connect(&gateway).await;
    stream.write_all(&SSL_REQUEST).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'S');
    one_query(connector(&[]).connect(localhost(), stream).await.unwrap(), &gateway).await;
    let stream = Coalesced { stream: connect(&gateway).await, asked: false, answered: false };
    one_query(connector(&["postgresql"]).connect(localhost(), stream).await.unwrap(), &gateway).await;
    let stream = connect(&gateway).await;
    one_query(connector(&["postgresql"]).connect(localhost(), stream).await.unwrap(), &gateway).await;
    gateway.records("event:query sql:hidden", 3).await;
    // Direct TLS needs the protocol's name; plain text is refused in clear words.
    let stream = connect(&gateway).await;
    if let Ok(mut stream) = connector(&[]).connect(localhost(), stream).await {
        assert!(!matches!(stream.read(&mut [0; 8]).await, Ok(1..)));
    }
    let mut wire = Wire { stream: Box::new(connect(&gateway).await) };
    wire.ask_in(&gateway).await;
    let last = wire.rest().await;
    assert_eq!(error_code(&last[0].1), "28000");
    assert!(String::from_utf8_lossy(&last[0].1).contains("only encrypted connections"));
    gateway.stop().await;
}

/// TLS in front of the database's socket, as the database itself would speak it.
async fn tls_database() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let files = tls_files();
    let chain = vec![CertificateDer::from_pem_file(&files.cert).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(std::sync::Arc::new(config));
    let socket = server().socket_dir().join(format!(".s.PGSQL.{}", server().port()));
    #[allow(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (acceptor, socket) = (acceptor.clone(), socket.clone());
            tokio::spawn(async move {
                let mut request = [0; 8];
                stream.read_exact(&mut request).await.unwrap();
                assert_eq!(request, SSL_REQUEST);
                stream.write_all(b"S").await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut database = UnixStream::connect(socket).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut database).await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_reached_over_tls_and_only_under_a_trusted_certificate() {
    let port = tls_database().await;
    let root = Some(tls_files().cert);
    for (mode, root) in
        [(SslMode::Require, None), (SslMode::VerifyCa, root.clone()), (SslMode::VerifyFull, root)]
    {
        let settings = Settings { upstream_tls: Some((port, mode, root)), ..Settings::default() };
        let gateway = TestGateway::with(settings).await;
        one_query(connect(&gateway).await, &gateway).await;
        gateway.records("event:query sql:hidden", 1).await;
        gateway.stop().await;
    }
    let other = tls_files().cert.with_file_name("other.crt");
    let settings =
        Settings { upstream_tls: Some((port, SslMode::VerifyFull, Some(other))), ..Settings::default() };
    let gateway = TestGateway::with(settings).await;
    let mut wire = Wire { stream: Box::new(connect(&gateway).await) };
    wire.ask_in(&gateway).await;
    assert_eq!(error_code(&wire.rest().await.last().unwrap().1), "08001");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_its_login_waits_is_recorded_once_and_lets_go() {
    let gateway = TestGateway::with(Settings { auto_approve: false, ..Settings::default() }).await;
    let mut wire = Wire { stream: Box::new(connect(&gateway).await) };
    wire.ask_in(&gateway).await;
    // Bytes that come early are kept, not read.
    wire.send(&query("SELECT 'early'")).await;
    assert_eq!((wire.next().await.unwrap().0, wire.next().await.unwrap().0), (b'R', b'N'));
    drop(wire);
    let records = gateway.records("event:login.failed", 1).await;
    assert_eq!(records[0]["outcome"], "canceled");
    assert_eq!(records[0]["user"], json!(null), "nobody was identified");
    gateway.records("sql:early", 0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_gateway_says_so_and_still_cancels() {
    let gateway = TestGateway::with(Settings { max_clients: 1, ..Settings::default() }).await;
    let client = gateway.connect("ann@example.com").await;
    let mut wire = Wire { stream: Box::new(connect(&gateway).await) };
    wire.ask_in(&gateway).await;
    assert_eq!(error_code(&wire.rest().await[0].1), "53300");
    let token = client.cancel_token();
    let (slept, canceled) = tokio::join!(client.batch_execute("SELECT pg_sleep(20)"), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        token.cancel_query(tokio_postgres::NoTls).await
    });
    canceled.unwrap();
    assert_eq!(slept.unwrap_err().code().unwrap().code(), "57014");
    gateway.stop().await;
}
