//! What DDL changes, as the records of what follows know it: names mean what they mean for the server, or the record
//! says that it is not sure.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use serde_json::{Value, json};

use super::state::own_server;
use super::support::gateway::{Settings, TestGateway};
use super::support::postgres::{TestPostgres, server};
use super::support::wire::{Wire, bind, execute, parse, succeeded, sync};

/// A gateway before a copy of the shop that its sessions may change.
async fn start() -> TestGateway {
    let gateway = TestGateway::start().await;
    let admin = server().connect(server().superuser(), gateway.database()).await;
    admin
        .batch_execute(
            "GRANT CREATE ON SCHEMA public TO app_write; \
             ALTER TABLE public.products OWNER TO app_write; \
             CREATE VIEW public.seen AS SELECT email AS word FROM public.customers; \
             ALTER VIEW public.seen OWNER TO app_write",
        )
        .await
        .unwrap();
    admin.close().await;
    gateway
}

const TO_PHONE: &str = "CREATE OR REPLACE VIEW seen AS SELECT phone AS word FROM customers";
const TO_EMAIL: &str = "CREATE OR REPLACE VIEW seen AS SELECT email AS word FROM customers";

/// Whether the record of the statement with this word in it is sure, and what it says was read.
async fn read(gateway: &TestGateway, word: &str) -> (bool, Value) {
    let record = gateway.records(&format!("event:query sql:{word}"), 1).await.remove(0);
    assert_eq!(record["outcome"], "ok", "{record}");
    (record["analysis"] == "exact", record["reads"].clone())
}

async fn look(wire: &mut Wire, word: &str) {
    assert!(succeeded(&wire.run(&format!("SELECT '{word}', word FROM seen LIMIT 1")).await), "{word}");
}

fn of(column: &str) -> Value {
    json!([format!("public.customers.{column}"), "public.seen.word"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_a_transaction_makes_anew_is_the_new_one_once_it_has_committed() {
    let gateway = start().await;
    let (mut wire, mut other) = (Wire::open(&gateway).await, Wire::open(&gateway).await);
    look(&mut wire, "beforehand").await;
    wire.run("BEGIN").await;
    assert!(succeeded(&wire.run(TO_PHONE).await));
    look(&mut wire, "inside").await;
    // The view itself is locked.
    assert!(succeeded(&other.run("SELECT 'elsewhere', email FROM customers").await));
    wire.run("COMMIT").await;
    look(&mut wire, "afterwards").await;
    look(&mut other, "likewise").await;
    assert_eq!(read(&gateway, "beforehand").await, (true, of("email")));
    assert_eq!(read(&gateway, "elsewhere").await, (true, json!(["public.customers.email"])));
    assert_eq!(read(&gateway, "inside").await, (true, of("phone")));
    assert_eq!(read(&gateway, "afterwards").await, (true, of("phone")));
    assert_eq!(read(&gateway, "likewise").await, (true, of("phone")));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_was_made_anew_and_rolled_back_is_the_old_one() {
    let gateway = start().await;
    let mut wire = Wire::open(&gateway).await;
    wire.run("BEGIN; SAVEPOINT a").await;
    assert!(succeeded(&wire.run(TO_PHONE).await));
    look(&mut wire, "within").await;
    wire.run("ROLLBACK TO a").await;
    look(&mut wire, "returned").await;
    assert!(succeeded(&wire.run(TO_PHONE).await));
    wire.run("ROLLBACK").await;
    look(&mut wire, "undone").await;
    assert_eq!(read(&gateway, "within").await, (true, of("phone")));
    assert_eq!(read(&gateway, "returned").await, (true, of("email")));
    assert_eq!(read(&gateway, "undone").await, (true, of("email")));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_within_a_string_or_a_chain_makes_a_change_known_too() {
    let gateway = start().await;
    let mut wire = Wire::open(&gateway).await;
    assert!(succeeded(&wire.run(&format!("BEGIN; {TO_PHONE}; COMMIT; BEGIN")).await));
    look(&mut wire, "stringed").await;
    assert!(succeeded(&wire.run(TO_EMAIL).await));
    wire.run("COMMIT AND CHAIN").await;
    look(&mut wire, "chained").await;
    wire.run("ROLLBACK").await;
    // Statements of a string are read before the first of them runs.
    assert!(succeeded(&wire.run(&format!("{TO_PHONE}; SELECT 'together', word FROM seen")).await));
    look(&mut wire, "apart").await;
    assert_eq!(read(&gateway, "stringed").await, (true, of("phone")));
    assert_eq!(read(&gateway, "chained").await, (true, of("email")));
    assert_eq!(read(&gateway, "together").await, (true, of("phone")));
    assert_eq!(read(&gateway, "apart").await, (true, of("phone")));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_out_of_sight_in_quick_succession_are_all_found() {
    let gateway = start().await;
    let (mut wire, mut other) = (Wire::open(&gateway).await, Wire::open(&gateway).await);
    look(&mut other, "fresh").await;
    for change in [TO_PHONE, TO_EMAIL, TO_PHONE] {
        assert!(succeeded(&wire.run(&format!("DO $$BEGIN {change}; END$$")).await));
    }
    // Not at once: a function may be called a thousand times a second.
    let mut tries = 0;
    let found = loop {
        look(&mut other, &format!("late{tries}")).await;
        let (sure, columns) = read(&gateway, &format!("late{tries}")).await;
        if columns == of("phone") || tries == 200 {
            break (sure, columns);
        }
        tries += 1;
    };
    assert_eq!(found, (true, of("phone")));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_makes_is_read_by_its_columns_before_anybody_else_sees_it() {
    let gateway = start().await;
    let mut wire = Wire::open(&gateway).await;
    let steps = [
        ("CREATE TEMP TABLE mine (id int PRIMARY KEY, \"Note\" text, CHECK (id > 0))", "", ""),
        ("SELECT 'one', * FROM mine WHERE id = 1", "one", "pg_temp.mine.\"Note\" pg_temp.mine.id"),
        ("ALTER TABLE mine ADD COLUMN extra numeric(5,2) DEFAULT 0, DROP COLUMN \"Note\"", "", ""),
        ("SELECT 'two', * FROM mine", "two", "pg_temp.mine.extra pg_temp.mine.id"),
        ("ALTER TABLE mine RENAME extra TO more", "", ""),
        ("ALTER TABLE mine RENAME TO ours", "", ""),
        ("SELECT 'three', more FROM ours", "three", "pg_temp.ours.more"),
        ("CREATE TEMP TABLE copied AS SELECT o.id AS key, c.email FROM ours o, customers c", "", ""),
        ("SELECT 'four', * FROM copied", "four", "pg_temp.copied.email pg_temp.copied.key"),
        ("BEGIN", "", ""),
        ("CREATE TABLE fresh (LIKE customers, more int)", "", ""),
        ("SELECT 'five', email, more FROM fresh", "five", "public.fresh.email public.fresh.more"),
        ("ALTER TABLE products ADD COLUMN colour text", "", ""),
        ("SELECT 'six', colour FROM products", "six", "public.products.colour"),
        ("CREATE VIEW mails AS SELECT email AS mail FROM customers", "", ""),
        ("SELECT 'seven', mail FROM mails", "seven", "public.customers.email public.mails.mail"),
        (
            "CREATE TABLE keyed (a int, b text, c int CONSTRAINT one UNIQUE, CONSTRAINT two UNIQUE (a, b))",
            "",
            "",
        ),
        ("ALTER TABLE keyed ADD CONSTRAINT three PRIMARY KEY (a)", "", ""),
        (
            "INSERT INTO keyed VALUES (1, 'x', 2) ON CONFLICT ON CONSTRAINT one DO UPDATE SET b = 'nine'",
            "",
            "",
        ),
        (
            "INSERT INTO keyed VALUES (1, 'x', 2) ON CONFLICT ON CONSTRAINT two DO UPDATE SET b = 'ten'",
            "",
            "",
        ),
        (
            "INSERT INTO keyed VALUES (1, 'x', 2) ON CONFLICT ON CONSTRAINT three DO UPDATE SET b = 'eleven'",
            "",
            "",
        ),
        ("ROLLBACK", "", ""),
        ("SELECT 'eight', name FROM products", "eight", "public.products.name"),
    ];
    for (statement, ..) in steps {
        assert!(succeeded(&wire.run(statement).await), "{statement}");
    }
    for (_, word, columns) in steps.into_iter().filter(|(_, word, _)| !word.is_empty()) {
        let record = gateway.records(&format!("event:query sql:\"SELECT {word}\""), 1).await.remove(0);
        let reads: Vec<_> = record["reads"].as_array().unwrap().iter().map(|r| r.as_str().unwrap()).collect();
        assert_eq!((reads.join(" "), &record["analysis"]), (columns.to_owned(), &json!("exact")), "{word}");
    }
    for (word, filters) in [("nine", json!(["c"])), ("ten", json!(["a", "b"])), ("eleven", json!(["a"]))] {
        let record = gateway.records(&format!("event:query sql:{word}"), 1).await.remove(0);
        let found: Vec<_> =
            record["filters"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
        let short: Vec<_> = found.iter().map(|name| name.strip_prefix("public.keyed.").unwrap()).collect();
        assert_eq!((json!(short), &record["analysis"]), (filters, &json!("exact")), "{word}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_differs_from_the_servers_answer_is_partial_counted_and_mended() {
    let gateway = start().await;
    let (mut wire, admin) =
        (Wire::open(&gateway).await, server().connect(server().superuser(), gateway.database()).await);
    assert!(succeeded(&wire.run("SELECT 'agreed', email FROM customers LIMIT 1").await));
    // Made past the gateway, which has no reason to look again.
    admin
        .batch_execute(
            "ALTER TABLE customers RENAME email TO swap; ALTER TABLE customers RENAME phone TO email; \
             ALTER TABLE customers RENAME swap TO phone",
        )
        .await
        .unwrap();
    assert!(succeeded(&wire.run("SELECT 'swapped', email FROM customers LIMIT 1").await));
    assert!(succeeded(&wire.run("SELECT 'mended', email FROM customers LIMIT 1").await));
    admin.batch_execute("DROP TABLE reviews CASCADE").await.unwrap();
    assert!(!succeeded(&wire.run("SELECT 'gone' FROM reviews").await));
    admin.close().await;
    let swapped = gateway.records("event:query sql:swapped", 1).await.remove(0);
    assert_eq!(swapped["analysis"], "partial");
    let notes = swapped["analysis_notes"].to_string();
    assert!(notes.contains("the server's answer holds public.customers.phone"), "{notes}");
    for word in ["agreed", "mended"] {
        assert_eq!(read(&gateway, word).await, (true, json!(["public.customers.email"])));
    }
    let gone = gateway.records("event:query sql:gone", 1).await.remove(0);
    assert_eq!((&gone["analysis"], &gone["sqlstate"]), (&json!("partial"), &json!("42P01")));
    let accuracy = gateway.get("/api/v1/status").await["accuracy"].clone();
    assert_eq!(accuracy["differing"], 2, "{accuracy}");
    assert_eq!(accuracy["last"][1]["fingerprint"], swapped["fingerprint"]);
    gateway.stop().await;
}

/// A session by a gateway that has a credential for `app_write` only, a superuser here, and a view.
async fn alone() -> (TestPostgres, TestGateway, Wire) {
    let (own, mut other) = own_server(&[]).await;
    let admin = own.connect(own.superuser(), "postgres").await;
    admin.batch_execute("ALTER ROLE app_write SUPERUSER").await.unwrap();
    admin.close().await;
    other.credentials.retain(|credential| credential.role == "app_write");
    let gateway = TestGateway::with(Settings { server: Some(other), ..Settings::default() }).await;
    let mut wire = Wire::open(&gateway).await;
    wire.run("CREATE VIEW seen AS SELECT email AS word FROM customers").await;
    (own, gateway, wire)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_made_into_somebody_without_a_credential_sees_changes_all_the_same() {
    let (_own, gateway, mut wire) = alone().await;
    wire.run("SET SESSION AUTHORIZATION postgres").await;
    wire.run("SELECT 1").await;
    assert!(succeeded(&wire.run(TO_PHONE).await));
    look(&mut wire, "become").await;
    assert_eq!(read(&gateway, "become").await, (true, of("phone")));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_catalog_cannot_be_loaded_after_a_change_records_are_not_sure() {
    let (_own, gateway, mut wire) = alone().await;
    look(&mut wire, "certain").await;
    wire.run("ALTER ROLE app_write NOLOGIN").await;
    // The connection of the last load may be open still.
    let leave = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'pgwitness catalog'";
    assert!(succeeded(&wire.run(leave).await));
    assert!(succeeded(&wire.run(TO_PHONE).await));
    look(&mut wire, "uncertain").await;
    assert_eq!(read(&gateway, "certain").await, (true, of("email")));
    assert!(!read(&gateway, "uncertain").await.0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_and_triggers_that_a_session_makes_count_before_anybody_else_sees_them() {
    let gateway = start().await;
    let admin = server().connect(server().superuser(), gateway.database()).await;
    let functions = "\
        CREATE TABLE trail (id int); GRANT ALL ON trail TO app_write; \
        CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS \
            $$BEGIN INSERT INTO trail VALUES (NEW.id); RETURN NEW; END$$; \
        CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.id := 7; RETURN NEW; END$$";
    admin.batch_execute(functions).await.unwrap();
    admin.close().await;
    let mut wire = Wire::open(&gateway).await;
    let steps = [
        ("CREATE TEMP TABLE mine (id int, note text)", ""),
        ("CREATE TEMP TABLE told (id int, note text)", ""),
        ("CREATE VIEW overtemp AS SELECT note FROM mine", ""),
        ("SELECT 'byview', note FROM overtemp", "exact byview pg_temp.mine pg_temp.overtemp"),
        ("CREATE RULE nothing AS ON DELETE TO mine WHERE OLD.id > 1 DO INSTEAD NOTHING", ""),
        ("DELETE FROM mine WHERE note = 'byone'", "exact byone pg_temp.mine"),
        (
            "CREATE OR REPLACE RULE tells AS ON INSERT TO mine DO ALSO (INSERT INTO told VALUES (NEW.id, 'x'); \
             UPDATE told SET note = NEW.note FROM customers WHERE customers.id = NEW.id)",
            "",
        ),
        ("INSERT INTO mine VALUES (1, 'bytwo')", "exact bytwo pg_temp.mine pg_temp.told public.customers"),
        ("DROP RULE tells ON mine", ""),
        ("INSERT INTO mine VALUES (1, 'bythree')", "exact bythree pg_temp.mine"),
        ("CREATE TRIGGER stamps BEFORE UPDATE ON mine FOR EACH ROW EXECUTE FUNCTION stamp()", ""),
        ("UPDATE mine SET note = 'byfour'", "exact byfour pg_temp.mine"),
        ("CREATE TRIGGER leaves AFTER INSERT OR UPDATE ON mine FOR EACH ROW EXECUTE FUNCTION leave()", ""),
        ("UPDATE mine SET note = 'byfive'", "partial byfive pg_temp.mine public.trail"),
        ("DELETE FROM mine WHERE note = 'bysix'", "exact bysix pg_temp.mine"),
        ("BEGIN", ""),
        (
            "CREATE TRIGGER leaves AFTER INSERT OR UPDATE ON products FOR EACH ROW EXECUTE FUNCTION leave()",
            "",
        ),
        ("UPDATE products SET name = 'byseven'", "partial byseven public.products public.trail"),
        ("ROLLBACK", ""),
        ("UPDATE products SET name = 'byeight'", "exact byeight public.products"),
    ];
    check(&gateway, &mut wire, &steps).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_and_types_that_a_transaction_makes_are_known_in_it() {
    let gateway = start().await;
    let admin = server().connect(server().superuser(), gateway.database()).await;
    admin
        .batch_execute(&format!("GRANT CREATE ON DATABASE {} TO app_write", gateway.database()))
        .await
        .unwrap();
    admin.close().await;
    let mut wire = Wire::open(&gateway).await;
    let steps = [
        ("BEGIN", ""),
        ("CREATE SCHEMA fresh", ""),
        ("SET LOCAL search_path = fresh, public", ""),
        ("CREATE TABLE products (secret text)", ""),
        ("SELECT 'newone', secret FROM products", "exact newone fresh.products"),
        ("SELECT 'oldone', name FROM public.products", "exact oldone public.products"),
        ("CREATE TYPE pair AS (x int, y text)", ""),
        ("CREATE TABLE pairs OF pair", ""),
        ("ALTER TABLE pairs DISABLE TRIGGER ALL", ""),
        ("INSERT INTO pairs VALUES (1, 'typed') RETURNING y", "exact typed fresh.pairs"),
        ("ALTER TABLE pairs ENABLE TRIGGER ALL", ""),
        ("INSERT INTO pairs VALUES (1, 'maybetriggered')", "partial maybetriggered fresh.pairs"),
        ("CREATE TABLE plain (a int, b text)", ""),
        ("CREATE VIEW through AS SELECT b AS shown, a FROM plain WHERE a > 0", ""),
        ("UPDATE through SET shown = 'writtenthrough'", "exact writtenthrough fresh.plain fresh.through"),
        ("CREATE DOMAIN word AS text", ""),
        ("SELECT 'afterdomain', name FROM public.products", "exact afterdomain public.products"),
        ("ROLLBACK", ""),
        ("SELECT 'atlast', name FROM products", "exact atlast public.products"),
    ];
    check(&gateway, &mut wire, &steps).await;
    gateway.stop().await;
}

/// Runs statements that must succeed; where a second text stands, the record of that word is as sure as it says and
/// names these tables.
async fn check(gateway: &TestGateway, wire: &mut Wire, steps: &[(&str, &str)]) {
    for (statement, _) in steps {
        assert!(succeeded(&wire.run(statement).await), "{statement}");
    }
    for (_, expected) in steps.iter().filter(|(_, expected)| !expected.is_empty()) {
        let word = expected.split(' ').nth(1).unwrap();
        let record = gateway.records(&format!("event:query sql:{word}"), 1).await.remove(0);
        let tables: Vec<_> =
            record["tables"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        let found = format!("{} {word} {}", record["analysis"].as_str().unwrap(), tables.join(" "));
        assert_eq!(found, *expected, "{}", record["analysis_notes"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_statement_means_what_its_names_mean_when_it_runs() {
    let gateway = start().await;
    let mut wire = Wire::open(&gateway).await;
    for statement in [
        // The first temporary table of a session adds their schema to those that are searched.
        "CREATE TEMP TABLE first (email text)",
        "CREATE TEMP TABLE customers (email text)",
        "SET search_path = public, pg_temp",
        "PREPARE ask AS SELECT email FROM customers LIMIT 1",
        "EXECUTE ask /* before */",
        "SET search_path = public",
        "EXECUTE ask /* afterwards */",
    ] {
        assert!(succeeded(&wire.run(statement).await), "{statement}");
    }
    assert_eq!(read(&gateway, "before").await, (true, json!(["public.customers.email"])));
    assert_eq!(read(&gateway, "afterwards").await, (true, json!(["pg_temp.customers.email"])));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_may_have_been_kept_leaves_a_record_unsure() {
    let gateway = start().await;
    let mut wire = Wire::open(&gateway).await;
    let kept = "SELECT count(c) FROM customers c";
    let again = [bind("", "kept", &[]), execute(""), sync()].concat();
    wire.run("CREATE TEMP TABLE first (email text)").await;
    wire.send(&[parse("kept", kept), sync()].concat()).await;
    wire.ready().await;
    for change in
        ["SELECT 1", "CREATE TEMP TABLE customers (email text)", "SET search_path = pg_temp, public"]
    {
        wire.run(change).await;
        wire.send(&again).await;
        assert!(succeeded(&wire.ready().await), "{change}");
    }
    let mut records = gateway.records("event:query sql:count", 3).await;
    records.sort_by_key(|record| record["seq"].as_u64());
    let told: Vec<_> = records.iter().map(|record| (&record["analysis"], &record["tables"])).collect();
    let [public, own] = ["public.customers", "pg_temp.customers"].map(|table| json!([table]));
    let both = json!(["pg_temp.customers", "public.customers"]);
    assert_eq!(told, [(&json!("exact"), &public), (&json!("partial"), &both), (&json!("exact"), &own)]);
    gateway.stop().await;
}
