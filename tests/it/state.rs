//! What the session has set, as the record knows it: compared, statement by statement, with what the server says.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use serde_json::{Value, json};

use super::support::gateway::{OtherServer, Settings, TestGateway};
use super::support::postgres::{TestPostgres, server};
use super::support::wire::{Messages, Wire, bind, execute, parse, query, rows, sync};

/// Asks the server what holds for a statement while it runs.
const PROBE: &str = "current_user, session_user, current_setting('search_path'), \
                     current_setting('standard_conforming_strings'), current_schemas(true)::text";

/// A probe under a name of its own.
fn probe(number: usize) -> String {
    format!("SELECT 'probe{number:03}', {PROBE}")
}

fn plain(path: &str) -> String {
    path.replace(", ", ",")
}

/// After each of the statements, the record of the next one says the role and the path that the server says.
async fn check_against(gateway: &TestGateway, wire: &mut Wire, statements: &[&str]) {
    let mut said = Vec::new();
    for (number, sql) in statements.iter().enumerate() {
        wire.run(sql).await;
        let answer = wire.run(&probe(number)).await;
        said.push(rows(&answer).pop().unwrap_or_else(|| panic!("no answer after {sql}: {answer:?}")));
    }
    let records = gateway.records("event:query sql:probe*", statements.len()).await;
    for ((record, said), sql) in records.iter().zip(&said).zip(statements) {
        let server = |at: usize| said[at].clone().unwrap();
        assert!(record["sql"].as_str().unwrap().contains(&server(0)));
        let sure = record["analysis"] == "exact";
        let known =
            (record["role"].as_str().unwrap_or(""), plain(record["search_path"].as_str().unwrap_or("")));
        let right = (server(1), plain(&server(3)));
        assert!(!sure || (known.0 == right.0 && known.1 == right.1), "after {sql}: {known:?}, not {right:?}");
        assert!(sure || !record["analysis_notes"].as_array().unwrap().is_empty(), "{record}");
    }
}

/// The same, and every record is sure.
async fn check(more: &[(&str, &str)], statements: &[&str]) {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open_with(&gateway, more).await;
    check_against(&gateway, &mut wire, statements).await;
    let records = gateway.records("event:query sql:probe*", statements.len()).await;
    for (record, sql) in records.iter().zip(statements) {
        assert_eq!(record["analysis"], "exact", "after {sql}: {record}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_set_in_every_way_are_the_servers() {
    let statements = [
        "SELECT 1",
        "SET ROLE app_read",
        "SET ROLE NONE",
        "SET SESSION ROLE 'app_read'",
        "RESET ROLE",
        "SELECT set_config('role', 'app_read', false)",
        "RESET ALL",
        "SET role = DEFAULT",
        "BEGIN; SET LOCAL ROLE app_read",
        "COMMIT",
        "BEGIN; SELECT set_config('role', 'app_read', true)",
        "COMMIT",
        "BEGIN; SET ROLE app_read",
        "ROLLBACK",
        "BEGIN; SAVEPOINT a; SET ROLE app_read; SAVEPOINT b; RESET ROLE",
        "ROLLBACK TO b",
        "ROLLBACK TO a",
        "SET ROLE app_read; RELEASE a",
        "COMMIT",
        "SET ROLE nobody_at_all",
        "BEGIN; SET ROLE app_write; SELECT 1/0",
        "COMMIT",
        "SET ROLE \"app_read\"",
        "SET SESSION AUTHORIZATION app_write",
        "SET ROLE app_read; SET SESSION AUTHORIZATION DEFAULT",
        "SET ROLE app_read",
        "RESET SESSION AUTHORIZATION",
        "SET ROLE app_read",
        "DISCARD ALL",
    ];
    // The last error leaves a transaction block: the probes stand outside of it.
    let within_failed = statements.iter().position(|sql| sql.contains("1/0")).unwrap();
    let (mut first, mut last) = statements.split_at(within_failed);
    check(&[], first).await;
    first = &last[..1];
    last = &last[1..];
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.run("SET ROLE app_read").await;
    wire.run(first[0]).await;
    check_against(&gateway, &mut wire, last).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn search_paths_set_in_every_way_are_the_servers() {
    let statements = [
        "SELECT 1",
        "SET search_path = billing, public",
        "SET search_path TO 'billing'",
        "SET search_path = \"$user\", public, nowhere",
        "SET SCHEMA 'billing'",
        "RESET search_path",
        "SELECT set_config('search_path', 'billing, public', false)",
        "SET search_path TO DEFAULT",
        "BEGIN; SET LOCAL search_path = billing",
        "COMMIT",
        "BEGIN; SELECT set_config('search_path', 'billing', true)",
        "SET search_path = public; SET LOCAL search_path = billing",
        "COMMIT",
        "BEGIN; SET search_path = billing; SAVEPOINT a; SET search_path = public",
        "ROLLBACK TO a",
        "ROLLBACK",
        "BEGIN; SET search_path = billing",
        "END",
        "RESET ALL",
        "SET search_path = ''",
        "SET search_path = pg_catalog, public",
        "SET search_path = pg_temp, public",
        "DISCARD ALL",
        "SET SESSION search_path = billing; SELECT 1/0",
        "SET TIME ZONE 'UTC'; SET search_path = billing; SET statement_timeout = 0",
    ];
    check(&[], &statements).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn startup_options_hold_from_the_first_statement_and_reset_returns_to_them() {
    let statements = [
        "SELECT 1",
        "SET search_path = public",
        "RESET search_path",
        "SET ROLE app_write",
        "RESET ROLE",
        "SET search_path = public",
        "RESET ALL",
        "SET search_path TO DEFAULT",
        "SET search_path = public; SET ROLE NONE",
        "DISCARD ALL",
    ];
    check(&[("options", "-c search_path=billing,public -c role=app_read")], &statements).await;
    check(&[("search_path", "billing, \"$user\"")], &statements).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_role_and_the_database_prescribe_holds_at_login() {
    let gateway = TestGateway::start().await;
    let admin = server().connect(server().superuser(), "postgres").await;
    let database = gateway.database();
    for set in [
        format!("ALTER DATABASE {database} SET search_path = billing"),
        format!("ALTER ROLE app_write IN DATABASE {database} SET search_path = public, billing"),
        format!("ALTER ROLE app_read IN DATABASE {database} SET search_path = billing, public"),
    ] {
        admin.batch_execute(&set).await.unwrap();
    }
    let mut wire = Wire::open(&gateway).await;
    let statements = ["SELECT 1", "SET search_path = billing", "RESET search_path", "SET ROLE app_read"];
    check_against(&gateway, &mut wire, &statements).await;
    let first = &gateway.records("event:query sql:probe000", 1).await[0];
    assert_eq!((&first["analysis"], &first["search_path"]), (&json!("exact"), &json!("public, billing")));
    let reset = format!("ALTER ROLE app_write IN DATABASE {database} RESET search_path");
    admin.batch_execute(&reset).await.unwrap();
    let mut wire = Wire::open(&gateway).await;
    wire.run("SELECT 'by the database'").await;
    let record = &gateway.records("event:query sql:\"by the database\"", 1).await[0];
    assert_eq!(record["search_path"], "billing");
    admin.close().await;
    gateway.stop().await;
}

/// Makes functions as the shop's owner would, callable by everybody.
async fn define(gateway: &TestGateway, sql: &str) {
    let admin = server().connect(server().superuser(), gateway.database()).await;
    admin.batch_execute(sql).await.unwrap();
    admin.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_changed_out_of_sight_make_the_following_records_unsure() {
    let gateway = TestGateway::start().await;
    define(
        &gateway,
        "CREATE FUNCTION hop() RETURNS void LANGUAGE plpgsql AS \
           $$BEGIN PERFORM set_config('search_path', 'billing', false); END$$; \
         CREATE FUNCTION over() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM hop(); END$$; \
         CREATE FUNCTION act() RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE 'SET ROLE app_read'; END$$; \
         CREATE PROCEDURE go() LANGUAGE plpgsql AS $$BEGIN SET search_path = billing; END$$; \
         CREATE FUNCTION calm() RETURNS int LANGUAGE plpgsql AS \
           $$DECLARE n int; BEGIN SELECT count(*) INTO n FROM public.customers; RETURN n; END$$;",
    )
    .await;
    for hidden in [
        "DO $$BEGIN SET search_path = billing; END$$",
        "DO $$BEGIN EXECUTE 'SET ROLE app_read'; END$$",
        "SELECT hop()",
        "SELECT over()",
        "SELECT act()",
        "CALL go()",
    ] {
        let mut wire = Wire::open(&gateway).await;
        wire.run(hidden).await;
        wire.run("SELECT 'afterwards' FROM invoices LIMIT 0").await;
    }
    let records = gateway.records("event:query sql:afterwards", 6).await;
    for record in &records {
        let notes = record["analysis_notes"].to_string();
        assert_ne!(record["analysis"], "exact", "{record}");
        assert!(notes.contains("may have changed the role or search_path"), "{record}");
    }
    // What was set since is known again; and what calls nothing of the kind leaves no doubt.
    for known in [
        "DO $$BEGIN EXECUTE 'SET ROLE app_read'; END$$; SET ROLE app_read; SET search_path = billing",
        "DO $$BEGIN EXECUTE 'SET ROLE app_read'; END$$; DISCARD PLANS; RESET ROLE; RESET search_path",
        "BEGIN; SELECT hop(); ROLLBACK",
        "SELECT hop(); RESET ALL; SET ROLE app_write",
        "SELECT calm()",
        "DO $$DECLARE n int; BEGIN SELECT count(*) INTO n FROM public.customers; END$$",
    ] {
        let mut wire = Wire::open(&gateway).await;
        wire.run(known).await;
        wire.run("SELECT 'in the clear'").await;
    }
    let records = gateway.records("event:query sql:\"in the clear\"", 6).await;
    let sure: Vec<_> = records.iter().map(|record| record["analysis"].as_str().unwrap()).collect();
    assert_eq!(sure, ["exact"; 6]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_table_that_shadows_another_is_not_taken_for_it() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    let marked = async |wire: &mut Wire, word: &str| {
        wire.run(&format!("SELECT '{word}', email FROM customers LIMIT 1")).await;
    };
    marked(&mut wire, "beforehand").await;
    wire.run("CREATE TEMP TABLE customers (email text)").await;
    marked(&mut wire, "shadowed").await;
    wire.run("SELECT 'qualified', email FROM public.customers LIMIT 1").await;
    wire.run("DROP TABLE customers").await;
    marked(&mut wire, "dropped").await;
    wire.run("BEGIN; SELECT * INTO TEMP customers FROM products").await;
    wire.run("SELECT 'gathered' FROM customers").await;
    wire.run("ROLLBACK").await;
    marked(&mut wire, "undone").await;
    wire.run("BEGIN; CREATE TEMPORARY TABLE customers ON COMMIT DROP AS SELECT 'x' AS email").await;
    marked(&mut wire, "passing").await;
    wire.run("COMMIT").await;
    marked(&mut wire, "passed").await;
    wire.run("CREATE LOCAL TEMP VIEW customers AS SELECT 'x' AS email").await;
    marked(&mut wire, "veiled").await;
    wire.run("DISCARD TEMP").await;
    marked(&mut wire, "discarded").await;
    wire.run("CREATE TABLE pg_temp.customers (email text)").await;
    marked(&mut wire, "named").await;
    wire.run("SET search_path = public, pg_temp").await;
    marked(&mut wire, "behind").await;
    let tables = async |word: &str| {
        let record = gateway.records(&format!("event:query sql:\"SELECT {word}\""), 1).await.remove(0);
        (record["tables"].clone(), record["analysis"].as_str().unwrap().to_owned())
    };
    let public = (json!(["public.customers"]), "exact".to_owned());
    for word in ["beforehand", "qualified", "dropped", "undone", "passed", "discarded", "behind"] {
        assert_eq!(tables(word).await, public, "{word}");
    }
    for word in ["shadowed", "gathered", "passing", "veiled", "named"] {
        let (tables, sure) = tables(word).await;
        assert_eq!((tables, sure.as_str()), (json!(["pg_temp.customers"]), "exact"), "{word}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_with_hold_is_known_after_its_transaction_and_one_without_is_gone() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.run("BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT email FROM customers ORDER BY id").await;
    wire.run("DECLARE passing CURSOR FOR SELECT name FROM products").await;
    wire.run("COMMIT").await;
    wire.run("FETCH 3 FROM held").await;
    wire.run("FETCH 3 FROM passing").await;
    wire.run("MOVE 2 IN held; FETCH ABSOLUTE 1 FROM held; CLOSE held").await;
    wire.run("FETCH 1 FROM held").await;
    wire.run("BEGIN; DECLARE undone CURSOR WITH HOLD FOR SELECT 1; ROLLBACK").await;
    wire.run("FETCH undone").await;
    let records = gateway.records("event:query command:FETCH", 5).await;
    let told: Vec<_> = records.iter().map(|r| (&r["outcome"], &r["tables"], &r["rows"])).collect();
    let (ok, error, customers) = (json!("ok"), json!("error"), json!(["public.customers"]));
    assert_eq!(told[0], (&ok, &customers, &json!(3)));
    assert_eq!(told[1].0, &error);
    assert_eq!(told[2], (&ok, &customers, &json!(1)));
    assert_eq!((told[3].0, told[4].0), (&error, &error));
    assert_eq!(records[0]["reads"], json!(["public.customers.email"]));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepare_survives_a_rollback_and_ends_with_discard_all() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.run("BEGIN; PREPARE kept AS SELECT email FROM customers WHERE id = $1; ROLLBACK").await;
    wire.run("EXECUTE kept(1)").await;
    wire.run("DISCARD ALL").await;
    wire.run("EXECUTE kept(1)").await;
    wire.run("PREPARE kept AS SELECT name FROM products").await;
    wire.run("EXECUTE kept").await;
    wire.run("DEALLOCATE kept").await;
    wire.run("EXECUTE kept").await;
    let records = gateway.records("event:query command:EXECUTE", 4).await;
    let told: Vec<_> = records.iter().map(|r| r["outcome"].as_str().unwrap()).collect();
    assert_eq!(told, ["ok", "error", "ok", "error"]);
    assert_eq!(records[0]["tables"], json!(["public.customers"]));
    assert_eq!(records[2]["tables"], json!(["public.products"]));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_string_setting_of_the_moment_decides_where_a_statement_ends() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    let trap = r"SELECT 'a\'; SHOW server_version; --'";
    let commands = |answer: &Messages| answer.iter().filter(|(tag, _)| *tag == b'C').count();
    assert_eq!(commands(&wire.run(&format!("/* on */ {trap}")).await), 2);
    wire.run("SET standard_conforming_strings = off").await;
    assert_eq!(commands(&wire.run(&format!("/* off */ {trap}")).await), 1);
    wire.run("BEGIN; SET LOCAL standard_conforming_strings = on").await;
    assert_eq!(commands(&wire.run(&format!("/* local */ {trap}")).await), 2);
    wire.run("ROLLBACK").await;
    assert_eq!(commands(&wire.run(&format!("/* back */ {trap}")).await), 1);
    wire.run("SAVEPOINT nothing").await;
    wire.run("BEGIN; SAVEPOINT a; SET standard_conforming_strings = on; ROLLBACK TO a").await;
    assert_eq!(commands(&wire.run(&format!("/* inside */ {trap}")).await), 1);
    wire.run("COMMIT; RESET ALL").await;
    assert_eq!(commands(&wire.run(&format!("/* reset */ {trap}")).await), 2);
    for (word, deletes) in [("on", 1), ("off", 0), ("local", 1), ("back", 0), ("inside", 0), ("reset", 1)] {
        let first = &gateway.records(&format!("event:query command:SELECT sql:{word}"), 1).await[0];
        let (seq, session) = (first["seq"].as_u64().unwrap(), first["session"].as_str().unwrap());
        let all = gateway.records(&format!("event:query session:{session} command:SHOW"), 3).await;
        let next = all.iter().filter(|record| record["seq"] == seq + 1).count();
        assert_eq!(next, deletes, "{word}");
    }
    gateway.records("event:query -outcome:ok app:psql", 1).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_clients_encoding_is_followed() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.run("SELECT 'first: gr\u{fc}n'").await;
    wire.run("SET client_encoding = latin1").await;
    wire.send(&super::support::wire::message(
        b'Q',
        b"SELECT 'second: gr\xfcn', email FROM customers LIMIT 1\0",
    ))
    .await;
    let answer = wire.ready().await;
    assert!(answer.iter().any(|(tag, body)| *tag == b'D' && body.windows(4).any(|four| four == b"gr\xfcn")));
    wire.run("SET NAMES 'SJIS'").await;
    wire.send(&super::support::wire::message(
        b'Q',
        b"SELECT 'third: \x83\x5c', email FROM customers LIMIT 1\0",
    ))
    .await;
    wire.ready().await;
    wire.run("BEGIN; SET LOCAL client_encoding = utf8; ROLLBACK").await;
    wire.run("RESET client_encoding").await;
    wire.run("SELECT 'fourth: gr\u{fc}n', email FROM customers LIMIT 1").await;
    let one = async |word: &str| gateway.records(&format!("event:query sql:{word}"), 1).await.remove(0);
    assert_eq!(one("first").await["analysis"], "exact");
    let second = one("second").await;
    assert_eq!((&second["tables"], &second["outcome"]), (&json!(["public.customers"]), &json!("ok")));
    let third = one("third").await;
    assert_ne!(third["analysis"], "exact", "{third}");
    let fourth = one("fourth").await;
    assert_eq!((&fourth["analysis"], &fourth["tables"]), (&json!("exact"), &json!(["public.customers"])));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_leaves_by_an_error_or_a_notice_was_read() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    let answer = wire.run("SELECT CAST(email AS int) FROM customers").await;
    let text = String::from_utf8_lossy(&answer.iter().find(|(tag, _)| *tag == b'E').unwrap().1).into_owned();
    assert!(text.contains('@'), "the error shows an address: {text}");
    let record = &gateway.records("event:query sql:cast", 1).await[0];
    assert_eq!((&record["outcome"], &record["reads"]), (&json!("error"), &json!(["public.customers.email"])));
    // In a predicate only: the error shows it all the same.
    wire.run("SELECT 1 FROM customers WHERE phone::int = 7").await;
    let record = &gateway.records("event:query sql:phone", 1).await[0];
    assert_eq!((&record["reads"], &record["filters"]), (&json!([]), &json!(["public.customers.phone"])));
    let block = "DO $$DECLARE r record; BEGIN FOR r IN SELECT email FROM public.customers LIMIT 1 \
                 LOOP RAISE NOTICE '%', r.email; END LOOP; END$$";
    assert!(wire.run(block).await.iter().any(|(tag, _)| *tag == b'N'));
    let record = &gateway.records("event:query command:DO", 1).await[0];
    assert_ne!(record["analysis"], "exact", "{record}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_only_choose_join_group_or_order_are_filters() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.run(
        "SELECT count(*) FROM customers c JOIN orders o ON o.customer_id = c.id \
         WHERE c.email LIKE 'a%' GROUP BY c.city ORDER BY min(o.placed_at)",
    )
    .await;
    let record = &gateway.records("event:query sql:placed_at", 1).await[0];
    assert_eq!(record["reads"], json!([]), "{record}");
    let filters =
        ["customers.city", "customers.email", "customers.id", "orders.customer_id", "orders.placed_at"];
    assert_eq!(record["filters"], json!(filters.map(|name| format!("public.{name}"))));
    gateway.stop().await;
}

/// Name and ends of the records of statements that hold a word, in order.
async fn ends(gateway: &TestGateway, word: &str, count: usize) -> Vec<(String, String)> {
    let text = |record: &Value, name: &str| record[name].as_str().unwrap_or("").to_owned();
    let records = gateway.records(&format!("event:query sql:{word}"), count).await;
    records.iter().map(|record| (text(record, "outcome"), text(record, "txn_outcome"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_savepoints_tell_each_statement_its_own_end() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.run("BEGIN").await;
    wire.run("SELECT 'nested 1'").await;
    wire.run("SAVEPOINT a").await;
    wire.run("SELECT 'nested 2'").await;
    wire.run("SAVEPOINT b; SELECT 'nested 3'; RELEASE b").await;
    wire.run("SAVEPOINT a; SELECT 'nested 4'").await;
    wire.run("SELECT 'nested 5' FROM nowhere").await;
    wire.run("ROLLBACK TO a").await;
    wire.run("SELECT 'nested 6'; RELEASE a").await;
    wire.run("ROLLBACK TO SAVEPOINT a").await;
    wire.run("SELECT 'nested 7'").await;
    wire.run("COMMIT AND CHAIN").await;
    wire.run("SELECT 'nested 8'").await;
    wire.run("ROLLBACK AND CHAIN").await;
    wire.run("SELECT 'nested 9'").await;
    wire.run("COMMIT").await;
    let told = ends(&gateway, "nested", 9).await;
    let outcomes: Vec<_> = told.iter().map(|(outcome, end)| format!("{outcome} {end}")).collect();
    let (kept, undone) = ("ok committed", "ok rolled_back");
    let expected = [kept, undone, undone, undone, "error rolled_back", undone, kept, undone, kept];
    assert_eq!(outcomes, expected);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_string_of_many_statements_is_one_transaction_unless_it_says_otherwise() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.run("SELECT 'string 1'; COMMIT; SELECT 'string 2'; SELECT 1/0").await;
    wire.run("SELECT 'string 3'; BEGIN; SELECT 'string 4'").await;
    wire.run("ROLLBACK; SELECT 'string 5'").await;
    let told = ends(&gateway, "string", 5).await;
    let outcomes: Vec<_> = told.iter().map(|(_, end)| end.as_str()).collect();
    // BEGIN makes the statements before it in the same string part of its transaction.
    assert_eq!(outcomes, ["committed", "rolled_back", "rolled_back", "rolled_back", "committed"]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_one_transaction_up_to_each_sync() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    let one = |sql: &str| [parse("", sql), bind("", "", &[]), execute("")].concat();
    let bytes = [
        [one("SELECT 'synced 1'"), one("SELECT 'synced 2'"), sync()].concat(),
        [one("SELECT 'synced 3'"), one("SELECT 1/0"), sync()].concat(),
        [one("BEGIN"), one("SELECT 'synced 4'"), sync()].concat(),
        [one("SELECT 'synced 5'"), one("COMMIT"), one("SELECT 'synced 6'"), sync()].concat(),
    ];
    wire.send(&bytes.concat()).await;
    for _ in 0..4 {
        wire.ready().await;
    }
    let told = ends(&gateway, "synced", 6).await;
    let (kept, undone) = ("committed", "rolled_back");
    let outcomes: Vec<_> = told.iter().map(|(_, end)| end.as_str()).collect();
    assert_eq!(outcomes, [kept, kept, undone, kept, kept, kept]);
    gateway.stop().await;
}

/// A server of the test's own, with settings of its own.
pub(crate) async fn own_server(extra: &[(&str, &str)]) -> (TestPostgres, OtherServer) {
    let extra: Vec<_> = extra.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let own = tokio::task::spawn_blocking(move || TestPostgres::start(extra)).await.unwrap();
    let host = own.socket_dir().display().to_string();
    let other = OtherServer { host, port: own.port(), credentials: own.shop().credentials() };
    (own, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_prepared_for_later_has_an_end_that_is_not_seen_here() {
    let (_own, other) = own_server(&[("max_prepared_transactions", "5")]).await;
    let gateway = TestGateway::with(Settings { server: Some(other), ..Settings::default() }).await;
    let mut wire = Wire::open(&gateway).await;
    wire.run("BEGIN; SELECT 'two phase 1'").await;
    let answer = wire.run("PREPARE TRANSACTION 'later'").await;
    assert!(!answer.iter().any(|(tag, _)| *tag == b'E'), "{answer:?}");
    wire.run("SELECT 'two phase 2'").await;
    wire.run("COMMIT PREPARED 'later'").await;
    wire.run("BEGIN; SELECT 'two phase 3'; SELECT 1/0").await;
    // Of a failed transaction it becomes a ROLLBACK.
    wire.run("PREPARE TRANSACTION 'never'").await;
    wire.run("ROLLBACK PREPARED 'nobody'").await;
    let told = ends(&gateway, "\"two phase\"", 3).await;
    let outcomes: Vec<_> = told.iter().map(|(_, end)| end.as_str()).collect();
    assert_eq!(outcomes, ["unknown", "committed", "rolled_back"]);
    let ended = &gateway.records("event:query sql:\"commit prepared\"", 1).await[0];
    assert_eq!((&ended["command"], &ended["outcome"]), (&json!("COMMIT PREPARED"), &json!("ok")));
    gateway.records("event:query sql:nobody outcome:error", 1).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_the_session_is_made_into_is_recorded() {
    let (own, mut other) = own_server(&[]).await;
    // Only a superuser may become somebody else.
    let admin = own.connect(own.superuser(), "postgres").await;
    admin.batch_execute("ALTER ROLE app_write SUPERUSER").await.unwrap();
    admin.close().await;
    other.credentials.retain(|credential| credential.role == "app_write");
    let gateway = TestGateway::with(Settings { server: Some(other), ..Settings::default() }).await;
    let mut wire = Wire::open(&gateway).await;
    let statements = [
        "SET SESSION AUTHORIZATION app_read",
        "SET SESSION AUTHORIZATION DEFAULT",
        "SET SESSION AUTHORIZATION 'analyst'; SET ROLE NONE",
        "RESET SESSION AUTHORIZATION",
        "SELECT set_config('session_authorization', 'app_read', false)",
        "RESET ALL",
        "SET SESSION AUTHORIZATION DEFAULT; SET ROLE analyst",
        "BEGIN; SET LOCAL SESSION AUTHORIZATION app_read",
        "COMMIT",
        "BEGIN; SET SESSION AUTHORIZATION app_read",
        "ROLLBACK",
        "SET SESSION AUTHORIZATION app_read",
        "DISCARD ALL",
        "DO $$BEGIN SET SESSION AUTHORIZATION app_read; END$$",
    ];
    check_against(&gateway, &mut wire, &statements).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_sent_ahead_in_one_write_hold_for_what_stands_behind_them() {
    let gateway = TestGateway::start().await;
    define(
        &gateway,
        "GRANT USAGE ON SCHEMA billing TO app_write; GRANT SELECT ON billing.invoices TO app_write",
    )
    .await;
    let mut wire = Wire::open(&gateway).await;
    let queries = [
        "SET search_path = billing",
        "SELECT 'ahead 1' FROM invoices LIMIT 0",
        "SET search_path = nowhere; SELECT 1/0",
        "SELECT 'ahead 2' FROM invoices LIMIT 0",
        "BEGIN; SET LOCAL search_path = public",
        "SELECT 'ahead 3' FROM customers LIMIT 0; ROLLBACK",
        "SELECT 'ahead 4' FROM invoices LIMIT 0",
    ];
    wire.send(&queries.map(query).concat()).await;
    for _ in queries {
        wire.ready().await;
    }
    let records = gateway.records("event:query sql:ahead", 4).await;
    let tables: Vec<_> = records.iter().map(|record| record["tables"][0].as_str().unwrap_or("")).collect();
    assert!(!tables.contains(&""), "{records:#?}");
    assert_eq!(tables, ["billing.invoices", "billing.invoices", "public.customers", "billing.invoices"]);
    assert!(
        records.iter().all(|record| record["analysis"] == "exact" && record["outcome"] == "ok"),
        "{records:#?}"
    );
    gateway.stop().await;
}
