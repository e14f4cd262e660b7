//! How a query gets lost, case by case: statements, portals, pipelines, COPY, function calls, notifications.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use std::path::Path;

use pgwitness::grammar::{self, Processes};
use pgwitness::sql::Grammar;
use pgwitness_index::record::{Outcome, TxnOutcome};
use serde_json::{Value, json};

use super::support::gateway::TestGateway;
use super::support::wire::{
    Wire, bind, call, close, describe, error_code, execute, message, parse, query, rows, sync,
};

/// One word of each record.
fn told<'a>(records: &'a [Value], field: &str) -> Vec<&'a str> {
    records.iter().map(|record| record[field].as_str().unwrap_or("")).collect()
}

fn size_of(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files.map(|file| file.metadata().unwrap().len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_was_closed_runs_no_more_and_its_execution_is_an_error() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&[parse("s", "SELECT 'closed'"), parse("t", "SELECT 'kept'"), sync()].concat()).await;
    assert_eq!(wire.tags().await, "11Z");
    wire.send(&[close('S', "s"), bind("", "t", &[]), execute(""), sync()].concat()).await;
    assert_eq!(wire.tags().await, "32DCZ");
    wire.send(&[bind("", "s", &[]), execute(""), sync()].concat()).await;
    let answer = wire.ready().await;
    assert_eq!(error_code(&answer[0].1), "26000");
    gateway.records("sql:closed", 0).await;
    let records = gateway.records("event:query app:psql", 2).await;
    assert_eq!(told(&records, "outcome"), ["ok", "error"]);
    assert_eq!(
        (records[0]["sql"].as_str(), &records[1]["sqlstate"]),
        (Some("SELECT 'kept'"), &json!("26000"))
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unnamed_statement_is_the_one_parsed_last() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&[parse("", "SELECT 'replaced'"), parse("", "SELECT 'standing'"), sync()].concat()).await;
    wire.ready().await;
    wire.send(&[bind("", "", &[]), execute(""), sync()].concat()).await;
    assert_eq!(wire.tags().await, "2DCZ");
    // A simple query takes it away.
    wire.run("SELECT 1").await;
    wire.send(&[bind("", "", &[]), execute(""), sync()].concat()).await;
    assert_eq!(wire.tags().await, "EZ");
    gateway.records("sql:replaced", 0).await;
    gateway.records("sql:standing", 1).await;
    gateway.records("event:query sqlstate:26000", 1).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_parsed_again_after_an_error_stands_for_what_the_server_took() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&[parse("s", "SELECT nothing FROM customers"), sync()].concat()).await;
    assert_eq!(wire.tags().await, "EZ");
    wire.send(&[parse("s", "SELECT 'second try'"), bind("", "s", &[]), execute(""), sync()].concat()).await;
    assert_eq!(wire.tags().await, "12DCZ");
    // A name that stands is not given up by a Parse that fails.
    wire.send(&[parse("s", "SELECT 'third try'"), bind("", "s", &[]), execute(""), sync()].concat()).await;
    assert_eq!(wire.tags().await, "EZ");
    wire.send(&[bind("", "s", &[]), execute(""), sync()].concat()).await;
    assert_eq!(wire.tags().await, "2DCZ");
    let records = gateway.records("event:query app:psql", 3).await;
    assert_eq!(told(&records, "sql"), ["SELECT 'second try'", "SELECT 'third try'", "SELECT 'second try'"]);
    assert_eq!(told(&records, "outcome"), ["ok", "error", "ok"]);
    assert_eq!(records[1]["sqlstate"], "42P05");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn describing_a_statement_or_a_portal_is_no_access() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    let asked = [parse("s", "SELECT email FROM customers"), describe('S', "s"), bind("p", "s", &[])];
    wire.send(&[asked.concat(), describe('P', "p"), close('P', "p"), sync()].concat()).await;
    assert_eq!(wire.tags().await, "1tT2T3Z");
    wire.run("SELECT 'afterwards'").await;
    gateway.records("sql:afterwards", 1).await;
    gateway.records("event:query app:psql", 1).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_third_of_five_fails_within_a_transaction_and_alone() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    let five: Vec<u8> = ["1", "2", "1/0", "4", "5"]
        .iter()
        .flat_map(|what| {
            [parse("", &format!("SELECT {what} AS piped")), bind("", "", &[]), execute("")].concat()
        })
        .collect();
    wire.send(&[five.clone(), sync()].concat()).await;
    assert_eq!(wire.tags().await, "12DC12DC1EZ");
    wire.run("BEGIN").await;
    wire.send(&[five, sync()].concat()).await;
    let answer = wire.ready().await;
    assert_eq!(answer.last().unwrap().1, b"E");
    wire.run("COMMIT").await;
    let records = gateway.records("sql:piped", 10).await;
    let five = ["ok", "ok", "error", "skipped", "skipped"];
    assert_eq!(told(&records, "outcome"), [five, five].concat());
    assert_eq!(told(&records, "txn_outcome"), ["rolled_back"; 10]);
    let commit = &gateway.records("event:query sql:COMMIT", 1).await[0];
    assert_eq!((&commit["outcome"], &commit["txn_outcome"]), (&json!("ok"), &json!("rolled_back")));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_thousand_statements_of_one_string_are_stored_once_each() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    let statements: Vec<_> =
        (0..50_000).map(|number| format!("SELECT {number:06} AS many, '{}'", "x".repeat(190))).collect();
    let text = statements.join(";\n");
    assert!(text.len() > 10_500_000);
    let before = size_of(&gateway.dir().join("journal"));
    let answer = wire.run(&text).await;
    assert_eq!(answer.iter().filter(|(tag, _)| *tag == b'C').count(), 50_000);
    let grown = size_of(&gateway.dir().join("journal")) - before;
    // Text once, and a few hundred bytes for who, when, and how it ended.
    assert!(grown < text.len() as u64 + 50_000 * 500, "{grown} bytes of journal for {} of text", text.len());
    let found = gateway.stop_and_read("AS many").await;
    assert!(found.iter().all(|(_, outcome, txn)| (*outcome, *txn) == (Outcome::Ok, TxnOutcome::Committed)));
    assert!(found.iter().map(|(text, ..)| text).eq(&statements), "as many, each its own text, in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_call_names_its_function_and_arguments() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    let int = i32::to_be_bytes;
    let value = async |wire: &mut Wire, bytes: Vec<u8>| {
        wire.send(&bytes).await;
        let answer = wire.ready().await;
        assert_eq!(answer[0].0, b'V', "{answer:?}");
        answer[0].1[4..].to_vec()
    };
    wire.run("BEGIN").await;
    let object = value(&mut wire, call(957, &[&int(0x60000)])).await;
    value(&mut wire, call(3460, &[&object, &0i64.to_be_bytes(), b"kept apart"])).await;
    let file = value(&mut wire, call(952, &[&object, &int(0x60000)])).await;
    assert_eq!(value(&mut wire, call(954, &[&file, &int(4)])).await, b"kept");
    value(&mut wire, call(955, &[&file, b"!"])).await;
    wire.run("COMMIT").await;
    wire.send(&call(1317, &[b"hello"])).await;
    assert_eq!(wire.tags().await, "VZ");
    wire.send(&call(4_000_000_000, &[])).await;
    assert_eq!(wire.tags().await, "EZ");
    let object = u32::from_be_bytes(object.try_into().unwrap());
    let file = i32::from_be_bytes(file.try_into().unwrap());
    let records = gateway.records("event:query command:\"FUNCTION CALL\"", 7).await;
    let names = [
        "pg_catalog.lo_creat (function 957)",
        "pg_catalog.lo_put (function 3460)",
        "pg_catalog.lo_open (function 952)",
        "pg_catalog.loread (function 954)",
        "pg_catalog.lowrite (function 955)",
        "pg_catalog.length (function 1317)",
        "function 4000000000",
    ];
    assert_eq!(told(&records, "detail"), names);
    let hex = |text: &str| json!({ "hex": text.bytes().map(|b| format!("{b:02x}")).collect::<String>() });
    assert_eq!(records[0]["params"], json!([0x60000]));
    assert_eq!(records[1]["params"], json!([object, 0, hex("kept apart")]));
    assert_eq!(records[3]["params"], json!([file, 4]));
    assert_eq!(records[5]["params"], json!(["hello"]));
    assert_eq!(records[3]["via"], json!(["pg_catalog.loread"]));
    assert_eq!(told(&records[..5], "txn_outcome"), ["committed"; 5]);
    assert_eq!(told(&records, "outcome")[5..], ["ok", "error"]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_objects_by_sql_are_recorded_with_what_they_call() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    let made = rows(&wire.run("SELECT lo_from_bytea(0, 'blob')").await);
    let object = made[0][0].clone().unwrap();
    assert_eq!(
        rows(&wire.run(&format!("SELECT lo_get({object})")).await)[0][0].as_deref(),
        Some("\\x626c6f62")
    );
    wire.run(&format!("SELECT lo_unlink({object})")).await;
    let read = &gateway.records("event:query sql:lo_get", 1).await[0];
    assert_eq!((&read["via"], &read["rows"]), (&json!(["pg_catalog.lo_get"]), &json!(1)));
    gateway.records("event:query outcome:ok sql:lo_unlink", 1).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_mixed_with_other_statements_in_one_string_are_told_apart() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.run("CREATE TEMP TABLE t (a int)").await;
    let text =
        "COPY t FROM STDIN; INSERT INTO t VALUES (7); COPY t FROM STDIN; COPY t TO STDOUT; SELECT 'end'";
    let (row, done) = (message(b'd', b"1\n2\n"), message(b'c', b""));
    wire.send(&[query(text), row.clone(), done.clone(), row, done].concat()).await;
    assert_eq!(wire.tags().await, "GCCGCHdddddcCTDCZ");
    let records = gateway.records("event:query -command:\"CREATE TABLE\" app:psql", 5).await;
    assert_eq!(told(&records, "command"), ["COPY", "INSERT", "COPY", "COPY", "SELECT"]);
    let counted: Vec<_> = records.iter().map(|record| record["rows"].as_u64().unwrap()).collect();
    assert_eq!(counted, [2, 1, 2, 5, 1]);
    let bytes: Vec<_> = records.iter().map(|record| record["bytes"].as_u64().unwrap_or(0)).collect();
    assert_eq!((bytes[0], bytes[2], bytes[3]), (4, 4, 10));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_cancelled_midway_is_canceled_and_counts_what_had_passed() {
    let gateway = TestGateway::start().await;
    let client = gateway.connect("ann@example.com").await;
    let copy = "COPY (SELECT repeat('x', 100), pg_sleep(0.001) FROM generate_series(1, 1000000)) TO STDOUT";
    let stream = client.copy_out(copy).await.unwrap();
    let mut stream = std::pin::pin!(stream);
    let first = futures_util::StreamExt::next(&mut stream).await.unwrap().unwrap();
    assert!(!first.is_empty());
    client.cancel_token().cancel_query(tokio_postgres::NoTls).await.unwrap();
    let end = loop {
        if let Err(end) = futures_util::StreamExt::next(&mut stream).await.expect("it ends by an error") {
            break end;
        }
    };
    assert_eq!(end.code().unwrap().code(), "57014");
    let out = &gateway.records("event:query sql:generate_series", 1).await[0];
    assert_eq!(out["outcome"], "canceled");
    assert!(out["bytes"].as_u64().unwrap() > 100, "{out}");
    // And the other way: the server has got nothing yet when it is cancelled.
    let mut wire = Wire::open(&gateway).await;
    wire.run("CREATE TEMP TABLE t (a int)").await;
    let pid = rows(&wire.run("SELECT pg_backend_pid()").await)[0][0].clone().unwrap();
    wire.send(&query("COPY t FROM STDIN")).await;
    assert_eq!(wire.next().await.unwrap().0, b'G');
    client.batch_execute(&format!("SELECT pg_cancel_backend({pid})")).await.unwrap();
    // The server looks up when a row comes.
    wire.send(&message(b'd', b"1\n")).await;
    let answer = wire.ready().await;
    assert_eq!(error_code(&answer[0].1), "57014");
    // What was on its way is ignored by the server, and by the record.
    wire.send(&[message(b'd', b"2\n"), message(b'c', b"")].concat()).await;
    wire.run("SELECT 'in step'").await;
    let into = &gateway.records("event:query sql:\"COPY t FROM STDIN\"", 1).await[0];
    assert_eq!(into["outcome"], "canceled");
    gateway.records("event:query outcome:ok sql:\"in step\"", 1).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_understand_after_a_failed_copy_ends_the_session_instead_of_waiting_for_ever() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.run("CREATE TEMP TABLE numbers (n int)").await;
    wire.send(&[parse("", "COPY numbers FROM STDIN"), bind("", "", &[]), execute("")].concat()).await;
    wire.send(&message(b'H', b"")).await;
    while wire.next().await.unwrap().0 != b'G' {}
    wire.send(&[sync(), message(b'd', b"none\n")].concat()).await;
    assert_eq!(error_code(&wire.next().await.unwrap().1), "22P02");
    // The database ignores it, and says nothing; but it might have heeded the Sync.
    wire.send(&[parse("", "SELECT 'behind'"), sync()].concat()).await;
    assert_eq!(error_code(&wire.next().await.unwrap().1), "08P01");
    gateway.records("event:query command:copy outcome:error", 1).await;
    gateway.records("sql:behind", 0).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_executions_before_the_first_read_are_as_many_records() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.send(&[parse("s", "SELECT 'unread' WHERE $1::int > 0"), sync()].concat()).await;
    wire.ready().await;
    let one = [bind("", "s", &["0"]), execute("")].concat();
    let (mut read, mut write) = tokio::io::split(wire.stream);
    let sent = async {
        use tokio::io::AsyncWriteExt;
        for _ in 0..100 {
            write.write_all(&one.repeat(1000)).await.unwrap();
        }
        write.write_all(&sync()).await.unwrap();
    };
    // Nothing is read before all is written: 700 kB of answers fit no buffer, so the kernel's are
    // the only slack, and the gateway must not stop reading for want of it.
    let unread = tokio::time::timeout(std::time::Duration::from_secs(60), sent).await;
    let mut answer = Vec::new();
    if unread.is_err() {
        panic!("a client that writes before it reads is stuck");
    }
    use tokio::io::AsyncReadExt;
    while !answer.ends_with(b"Z\0\0\0\x05I") {
        read.read_buf(&mut answer).await.unwrap();
    }
    assert_eq!(answer.len(), 100_000 * (5 + "C\0\0\0\x0dSELECT 0\0".len()) + 6);
    let found = gateway.stop_and_read("unread").await;
    assert_eq!(found.iter().filter(|(_, outcome, _)| *outcome == Outcome::Ok).count(), 100_000);
    assert_eq!(found.len(), 100_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_prepared_statements_of_one_connection_keep_their_texts() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    for block in 0..100 {
        let parsed: Vec<u8> = (0..100)
            .flat_map(|at| {
                parse(&format!("s{}", block * 100 + at), &format!("SELECT {} AS kept", block * 100 + at))
            })
            .collect();
        wire.send(&[parsed, sync()].concat()).await;
        assert_eq!(wire.ready().await.len(), 101);
    }
    for number in [0, 4_999, 9_999] {
        wire.send(&[bind("", &format!("s{number}"), &[]), execute(""), sync()].concat()).await;
        assert_eq!(rows(&wire.ready().await), [[Some(number.to_string())]]);
    }
    let records = gateway.records("sql:kept", 3).await;
    assert_eq!(told(&records, "sql"), ["SELECT 0 AS kept", "SELECT 4999 AS kept", "SELECT 9999 AS kept"]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flush_for_ever_without_a_sync_answers_and_records_as_it_goes() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    for number in 0..20 {
        let asked =
            [parse("", &format!("SELECT {number} AS flushed")), bind("", "", &[]), execute("")].concat();
        wire.send(&[asked, message(b'H', b"")].concat()).await;
        for tag in *b"12DC" {
            assert_eq!(wire.next().await.unwrap().0, tag);
        }
    }
    // Their transaction is open: no Sync has come.
    wire.send(&[parse("", "SELECT 1/0"), bind("", "", &[]), execute(""), message(b'H', b"")].concat()).await;
    while wire.next().await.unwrap().0 != b'E' {}
    wire.send(&sync()).await;
    assert_eq!(wire.tags().await, "Z");
    let records = gateway.records("sql:flushed", 20).await;
    assert_eq!(told(&records, "txn_outcome"), ["rolled_back"; 20]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_carry_the_real_process_and_payload_idle_and_in_transactions() {
    let gateway = TestGateway::start().await;
    let mut listener = Wire::open(&gateway).await;
    let mut speaker = Wire::open(&gateway).await;
    listener.run("LISTEN news").await;
    let pid = rows(&speaker.run("SELECT pg_backend_pid()").await)[0][0].clone().unwrap();
    let pid: u32 = pid.parse().unwrap();
    let heard = |body: &[u8]| {
        assert_eq!(u32::from_be_bytes(body[..4].try_into().unwrap()), pid);
        String::from_utf8(body[4..].to_vec()).unwrap()
    };
    speaker.run("NOTIFY news, 'while idle'").await;
    let (tag, body) = listener.next().await.unwrap();
    assert_eq!((tag, heard(&body).as_str()), (b'A', "news\0while idle\0"));
    // Within a transaction of the speaker: heard when it commits. Of the listener: after its end.
    listener.run("BEGIN").await;
    speaker
        .run("BEGIN; NOTIFY news, 'undone'; ROLLBACK; BEGIN; SELECT pg_notify('news', 'kept'); COMMIT")
        .await;
    let within: Vec<_> = listener.run("SELECT 'within'").await.iter().map(|(tag, _)| *tag).collect();
    assert!(!within.contains(&b'A'), "{within:?}");
    let mut after = listener.run("COMMIT").await;
    if !after.iter().any(|(tag, _)| *tag == b'A') {
        after.push(listener.next().await.unwrap());
    }
    let bodies: Vec<_> = after.iter().filter(|(tag, _)| *tag == b'A').map(|(_, body)| heard(body)).collect();
    assert_eq!(bodies, ["news\0kept\0"]);
    let records = gateway.records("event:query command:NOTIFY", 2).await;
    assert_eq!(told(&records, "txn_outcome"), ["committed", "rolled_back"]);
    gateway.records("event:query command:LISTEN outcome:ok", 1).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_that_changes_on_its_own_reaches_the_client_and_the_record() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    let changed =
        wire.run("DO $$BEGIN PERFORM set_config('application_name', 'renamed', false); END$$").await;
    assert!(
        changed.iter().any(|(tag, body)| *tag == b'S' && body == b"application_name\0renamed\0"),
        "{changed:?}"
    );
    wire.run("SELECT 'under the new name'").await;
    assert_eq!(gateway.records("sql:\"under the new name\"", 1).await[0]["app"], "renamed");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_a_failed_transaction_are_errors_and_nothing_is_lost_on_the_way_out() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.run("BEGIN").await;
    wire.run("SELECT 1/0 AS failed").await;
    for sql in ["SELECT 'late' AS failed", "SAVEPOINT failed", "PREPARE failed AS SELECT 1"] {
        let answer = wire.run(sql).await;
        assert_eq!(error_code(&answer[0].1), "25P02");
    }
    wire.run("END").await;
    let records = gateway.records("event:query sql:failed", 4).await;
    assert_eq!(told(&records, "sqlstate"), ["22012", "25P02", "25P02", "25P02"]);
    assert_eq!(told(&records, "txn_outcome"), ["rolled_back"; 4]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_second_reader_understands_is_exact() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.run("SELECT 'symmetric' FROM customers WHERE email BETWEEN SYMMETRIC 'z' AND 'a'").await;
    let record = gateway.records("event:query sql:symmetric", 1).await.remove(0);
    assert_eq!(
        (&record["analysis"], &record["filters"]),
        (&json!("exact"), &json!(["public.customers.email"]))
    );
    gateway.stop().await;
}

#[test]
fn a_reader_that_dies_or_hangs_costs_one_reading_and_another_is_started() {
    grammar::start_by(env!("CARGO_BIN_EXE_pgwitness").into());
    let readers = Processes::default();
    assert!(readers.raw_tree("SELECT 1", true).is_ok());
    assert!(readers.raw_tree("selekt", true).unwrap_err().contains("syntax error"));
    for signal in ["-KILL", "-STOP"] {
        let [only] = readers.idle()[..] else { panic!("one process has answered all") };
        assert!(
            std::process::Command::new("kill").args([signal, &only.to_string()]).status().unwrap().success()
        );
        assert!(readers.raw_tree("SELECT 1", true).unwrap_err().contains("did not answer"));
        assert!(readers.raw_tree("SELECT 1", true).is_ok());
    }
}
