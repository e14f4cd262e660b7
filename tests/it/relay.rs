//! What is relayed and what is recorded of it, statement by statement.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use futures_util::{SinkExt, TryStreamExt, pin_mut};
use serde_json::{Value, json};

use super::support::gateway::TestGateway;

fn outcomes(records: &[Value]) -> Vec<(String, String, String)> {
    let word = |record: &Value, name: &str| record[name].as_str().unwrap_or("").to_owned();
    records.iter().map(|r| (word(r, "command"), word(r, "outcome"), word(r, "txn_outcome"))).collect()
}

fn expected(list: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    list.iter().map(|(a, b, c)| (a.to_string(), b.to_string(), c.to_string())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_recorded_with_person_tables_columns_rows_and_outcome() {
    let gateway = TestGateway::start().await;
    let client = gateway.connect("ann@example.com").await;
    let rows = client.query("SELECT * FROM customers WHERE id < $1", &[&4]).await.unwrap();
    let records = gateway.records("event:query column:customers.email", 1).await;
    let record = &records[0];
    assert_eq!(record["user"], "ann@example.com");
    assert_eq!(record["role"], "app_write");
    assert_eq!(record["db"], gateway.database());
    assert_eq!(record["sql"], "SELECT * FROM customers WHERE id < $1");
    assert_eq!(record["params"], json!([4]));
    assert_eq!(record["command"], "SELECT");
    assert_eq!(record["outcome"], "ok");
    assert_eq!(record["txn_outcome"], "committed");
    assert_eq!(record["rows"], rows.len());
    assert_eq!(record["tables"], json!(["public.customers"]));
    assert_eq!(record["analysis"], "exact");
    assert_eq!(record["app"], "psql");
    assert_eq!(record["ip"], "127.0.0.1");
    let reads: Vec<_> = record["reads"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
    assert!(reads.contains(&"public.customers.email"), "{reads:?}");
    assert!(record["tags"].as_array().unwrap().contains(&json!("pii")), "{record}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_execution_of_a_prepared_statement_is_one_record_with_its_parameters() {
    let gateway = TestGateway::start().await;
    let client = gateway.connect("ann@example.com").await;
    let statement = client.prepare("SELECT name FROM customers WHERE id = $1 AND name <> $2").await.unwrap();
    for id in 1..=3 {
        client.query(&statement, &[&id, &"nobody"]).await.unwrap();
    }
    let records = gateway.records("event:query sql:\"SELECT name FROM customers\"", 3).await;
    let params: Vec<_> = records.iter().map(|record| record["params"].clone()).collect();
    assert_eq!(params, [json!([1, "nobody"]), json!([2, "nobody"]), json!([3, "nobody"])]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_statements_in_one_string_the_failed_one_undoes_the_first_and_skips_the_third() {
    let gateway = TestGateway::start().await;
    let client = gateway.connect("ann@example.com").await;
    client.batch_execute("SELECT 1; SELECT 1/0; SELECT 3").await.unwrap_err();
    let records = gateway.records("event:query app:psql", 3).await;
    let expected = expected(&[
        ("SELECT", "ok", "rolled_back"),
        ("SELECT", "error", "rolled_back"),
        ("SELECT", "skipped", "rolled_back"),
    ]);
    assert_eq!(outcomes(&records), expected);
    assert_eq!(records[1]["sqlstate"], "22012");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_tells_each_of_its_statements_how_it_ended() {
    let gateway = TestGateway::start().await;
    let client = gateway.connect("ann@example.com").await;
    for sql in [
        "BEGIN",
        "SELECT id FROM customers LIMIT 1",
        "SAVEPOINT a",
        "SELECT 1/0",
        "ROLLBACK TO a",
        "COMMIT",
        "BEGIN",
        "SELECT id FROM products LIMIT 1",
        "ROLLBACK",
    ] {
        let _ = client.batch_execute(sql).await;
    }
    let records = gateway.records("event:query app:psql", 9).await;
    let told: Vec<_> = records.iter().map(|record| record["txn_outcome"].as_str().unwrap()).collect();
    let (c, r) = ("committed", "rolled_back");
    assert_eq!(told, [c, c, c, r, c, c, r, r, r]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_both_ways_is_counted() {
    let gateway = TestGateway::start().await;
    let client = gateway.connect("ann@example.com").await;
    client.batch_execute("CREATE TEMP TABLE t (a int, b text)").await.unwrap();
    let sink = client.copy_in("COPY t FROM STDIN").await.unwrap();
    pin_mut!(sink);
    sink.send(bytes::Bytes::from_static(b"1\tone\n2\ttwo\n")).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 2);
    let out: Vec<_> =
        client.copy_out("COPY t TO STDOUT").await.unwrap().try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(out.concat(), b"1\tone\n2\ttwo\n");
    let records = gateway.records("event:query sql:copy", 2).await;
    for record in &records {
        assert_eq!((&record["rows"], &record["bytes"]), (&json!(2), &json!(12)), "{record}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_statement_is_recorded_as_cancelled_and_so_is_the_request() {
    let gateway = TestGateway::start().await;
    let client = gateway.connect("ann@example.com").await;
    let token = client.cancel_token();
    let (slept, canceled) = tokio::join!(client.batch_execute("SELECT pg_sleep(60)"), async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        token.cancel_query(tokio_postgres::NoTls).await
    });
    canceled.unwrap();
    assert_eq!(slept.unwrap_err().code().unwrap().code(), "57014");
    let records = gateway.records("sql:pg_sleep", 1).await;
    assert_eq!(records[0]["outcome"], "canceled");
    let records = gateway.records("event:cancel", 1).await;
    assert_eq!((&records[0]["outcome"], &records[0]["user"]), (&json!("ok"), &json!("ann@example.com")));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_id_is_the_backends_own_and_startup_settings_pass() {
    let gateway = TestGateway::start().await;
    let client = gateway.connect("ann@example.com").await;
    let row = client
        .query_one("SELECT split_part(current_setting('application_name'), ' ', 1), current_user::text", &[])
        .await
        .unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("psql", "app_write"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_effective_role_and_the_search_path_are_recorded_and_undone_with_their_transaction() {
    let gateway = TestGateway::start().await;
    let client = gateway.connect("ann@example.com").await;
    for sql in [
        "SET search_path = billing, public",
        "BEGIN",
        "SET LOCAL ROLE app_read",
        "SELECT 'inside'",
        "ROLLBACK",
        "SELECT 'after'",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    let inside = &gateway.records("sql:inside", 1).await[0];
    let after = &gateway.records("sql:after", 1).await[0];
    assert_eq!((&inside["role"], &after["role"]), (&json!("app_read"), &json!("app_write")));
    assert_eq!(after["search_path"], "billing, public");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_prepare_and_cursors_are_resolved_to_what_they_touch() {
    let gateway = TestGateway::start().await;
    let client = gateway.connect("ann@example.com").await;
    for sql in [
        "PREPARE p AS SELECT email FROM customers",
        "EXECUTE p",
        "BEGIN",
        "DECLARE c CURSOR FOR SELECT name FROM products",
        "FETCH 2 FROM c",
        "COMMIT",
    ] {
        client.batch_execute(sql).await.unwrap();
    }
    let executed = &gateway.records("command:execute", 1).await[0];
    assert_eq!(executed["tables"], json!(["public.customers"]), "{executed}");
    let fetched = &gateway.records("command:fetch", 1).await[0];
    assert_eq!((&fetched["tables"], &fetched["rows"]), (&json!(["public.products"]), &json!(2)), "{fetched}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_made_a_moment_ago_is_known() {
    let gateway = TestGateway::start().await;
    let ann = gateway.connect("ann@example.com").await;
    let owner = super::support::postgres::server();
    let admin = owner.connect(owner.superuser(), gateway.database()).await;
    admin.batch_execute("GRANT CREATE ON SCHEMA public TO app_write").await.unwrap();
    admin.close().await;
    ann.batch_execute("CREATE TABLE fresh (a int, b int)").await.unwrap();
    ann.batch_execute("SELECT * FROM fresh").await.unwrap();
    let record = &gateway.records("sql:\"from fresh\"", 1).await[0];
    assert_eq!(record["columns"], json!(["public.fresh.a", "public.fresh.b"]), "{record}");
    assert_eq!(record["analysis"], "exact");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_a_statement_never_reaches_the_record() {
    let gateway = TestGateway::start().await;
    let client = gateway.connect("ann@example.com").await;
    client.batch_execute("ALTER ROLE app_write PASSWORD 'hunter2hunter2' nonsense").await.unwrap_err();
    let record = &gateway.records("event:query sql:alter", 1).await[0];
    assert!(!record.to_string().contains("hunter2"), "{record}");
    assert_eq!(record["sql"], "ALTER ROLE app_write PASSWORD '[redacted]' nonsense");
    gateway.stop().await;
}
