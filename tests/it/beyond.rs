//! What a statement reaches beyond its text: rules, row security, triggers; and how a changed catalog is read again.
#![allow(clippy::unwrap_used, reason = "these are tests, which the lint sees only inside test functions")]

use serde_json::{Value, json};

use super::support::gateway::TestGateway;
use super::support::postgres::server;
use super::support::wire::{Wire, succeeded};

async fn start(script: &str) -> TestGateway {
    let gateway = TestGateway::start().await;
    change(&gateway, script).await;
    gateway
}

/// Runs a script past the gateway.
async fn change(gateway: &TestGateway, script: &str) {
    let admin = server().connect(server().superuser(), gateway.database()).await;
    admin.batch_execute(script).await.unwrap();
    admin.close().await;
}

/// Runs a statement, which must succeed, and gives its record.
async fn record(gateway: &TestGateway, wire: &mut Wire, statement: &str, word: &str) -> Value {
    assert!(succeeded(&wire.run(statement).await), "{statement}");
    gateway.records(&format!("event:query sql:{word}"), 1).await.remove(0)
}

fn touched(record: &Value) -> Value {
    json!([record["analysis"], record["tables"], record["reads"], record["filters"], record["writes"]])
}

const POLICIES: &str = "\
    CREATE TABLE members (person text, team int); \
    CREATE TABLE notes (id int, team int, body text); \
    CREATE TABLE forced (id int, team int); \
    ALTER TABLE forced OWNER TO app_write; \
    CREATE VIEW shown AS SELECT id, body FROM notes; \
    CREATE VIEW asked WITH (security_invoker = on) AS SELECT id, body FROM notes; \
    GRANT ALL ON members, notes, shown, asked, forced TO app_write; \
    CREATE POLICY own_team ON notes USING (team IN (SELECT team FROM members WHERE person = current_user)); \
    CREATE POLICY none ON forced USING (EXISTS (SELECT FROM members WHERE members.team = forced.team)); \
    ALTER TABLE notes ENABLE ROW LEVEL SECURITY; \
    ALTER TABLE forced ENABLE ROW LEVEL SECURITY";

#[tokio::test(flavor = "multi_thread")]
async fn row_security_that_looks_into_another_table_is_recorded_for_whom_it_applies_to() {
    let gateway = start(POLICIES).await;
    let mut wire = Wire::open(&gateway).await;
    let direct = record(&gateway, &mut wire, "SELECT 'direct', body FROM notes", "direct").await;
    let members = ["public.members.person", "public.members.team"];
    assert_eq!(
        touched(&direct),
        json!(["exact", ["public.members", "public.notes"], ["public.notes.body"], members, []])
    );
    let added = record(&gateway, &mut wire, "DELETE FROM notes WHERE body = 'deleted'", "deleted").await;
    assert_eq!(added["tables"], json!(["public.members", "public.notes"]));
    // A view looks with its owner's rights, whom no policy binds, unless it asks for the invoker's.
    let shown = record(&gateway, &mut wire, "SELECT 'viewed', body FROM shown", "viewed").await;
    assert_eq!(
        (&shown["analysis"], &shown["tables"]),
        (&json!("exact"), &json!(["public.notes", "public.shown"]))
    );
    let asked = record(&gateway, &mut wire, "SELECT 'invoked', body FROM asked", "invoked").await;
    assert_eq!(asked["tables"], json!(["public.asked", "public.members", "public.notes"]));
    // An owner is exempt until the table forces them.
    let owner = record(&gateway, &mut wire, "SELECT 'exempt', id FROM forced", "exempt").await;
    assert_eq!((&owner["analysis"], &owner["tables"]), (&json!("exact"), &json!(["public.forced"])));
    assert!(succeeded(&wire.run("ALTER TABLE forced FORCE ROW LEVEL SECURITY").await));
    let forced = record(&gateway, &mut wire, "SELECT 'bound', id FROM forced", "bound").await;
    assert_eq!(forced["tables"], json!(["public.forced", "public.members"]));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locking_rows_and_updating_on_conflict_ask_the_policies_and_triggers_of_updates() {
    let gateway = start(
        "CREATE TABLE members (person text); \
         CREATE TABLE notes (id int PRIMARY KEY, body text); \
         CREATE TABLE trail (id int); \
         CREATE FUNCTION leave_trail() RETURNS trigger LANGUAGE plpgsql AS \
             $$BEGIN INSERT INTO trail VALUES (NEW.id); RETURN NEW; END$$; \
         CREATE TRIGGER leaves AFTER UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION leave_trail(); \
         GRANT ALL ON ALL TABLES IN SCHEMA public TO app_write; \
         CREATE POLICY looks ON notes FOR SELECT USING (true); \
         CREATE POLICY puts ON notes FOR INSERT WITH CHECK (true); \
         CREATE POLICY changes ON notes FOR UPDATE USING (EXISTS (SELECT FROM members)) WITH CHECK (true); \
         ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
    )
    .await;
    let mut wire = Wire::open(&gateway).await;
    let looked = record(&gateway, &mut wire, "SELECT id, 'onlylooked' FROM notes", "onlylooked").await;
    assert_eq!(looked["tables"], json!(["public.notes"]));
    let locked = record(&gateway, &mut wire, "SELECT id, 'locked' FROM notes FOR UPDATE", "locked").await;
    assert_eq!(locked["tables"], json!(["public.members", "public.notes"]));
    let put = record(&gateway, &mut wire, "INSERT INTO notes VALUES (1, 'onlyput')", "onlyput").await;
    assert_eq!((&put["analysis"], &put["tables"]), (&json!("exact"), &json!(["public.notes"])));
    let upsert = "INSERT INTO notes VALUES (2, 'upsert') ON CONFLICT (id) DO UPDATE SET body = excluded.body";
    let upsert = record(&gateway, &mut wire, upsert, "upsert").await;
    assert_eq!(upsert["analysis"], "partial");
    assert_eq!(upsert["tables"], json!(["public.members", "public.notes", "public.trail"]));
    gateway.stop().await;
}

const CALLS: &str = "\
    CREATE TABLE people (id int, name text); \
    CREATE TABLE secrets (id int, code text); \
    CREATE FUNCTION peeks(int) RETURNS text STABLE LANGUAGE plpgsql AS \
        $$BEGIN RETURN (SELECT code FROM secrets WHERE id = $1); END$$; \
    CREATE FUNCTION counts() RETURNS bigint STABLE LANGUAGE sql AS $$SELECT count(*) FROM secrets$$; \
    CREATE FUNCTION harmless(text) RETURNS text STABLE LANGUAGE sql AS $$SELECT upper($1)$$; \
    CREATE VIEW peeking AS SELECT name, peeks(id) AS code FROM people; \
    CREATE VIEW plain AS SELECT harmless(name) AS name FROM people; \
    CREATE TABLE numbered (id bigint DEFAULT counts(), label text DEFAULT harmless('a')); \
    CREATE TABLE checked (id int, CHECK (peeks(id) IS NULL)); \
    CREATE TABLE ruled (id int); \
    CREATE RULE rules AS ON DELETE TO ruled DO ALSO SELECT peeks(OLD.id); \
    CREATE MATERIALIZED VIEW kept AS SELECT peeks(1) AS code; \
    ALTER MATERIALIZED VIEW kept OWNER TO app_write; \
    GRANT ALL ON ALL TABLES IN SCHEMA public TO app_write";

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_views_defaults_checks_and_rules_call_make_a_record_unsure_and_are_looked_into() {
    let gateway = start(CALLS).await;
    let mut wire = Wire::open(&gateway).await;
    let seen = |record: &Value| {
        let tables = record["tables"].as_array().unwrap();
        (record["analysis"].as_str().unwrap().to_owned(), tables.contains(&json!("public.secrets")))
    };
    let unsure = ("partial".to_owned(), true);
    let sure = ("exact".to_owned(), false);
    for (statement, word, expected) in [
        ("SELECT name, 'peeked' FROM peeking", "peeked", &unsure),
        ("SELECT name, 'plainly' FROM plain", "plainly", &sure),
        ("INSERT INTO numbered (label) VALUES ('filled')", "filled", &unsure),
        ("INSERT INTO numbered VALUES (DEFAULT, 'bydefault')", "bydefault", &unsure),
        ("INSERT INTO numbered (id) VALUES (length('bygiven'))", "bygiven", &sure),
        ("INSERT INTO checked VALUES (length('bycheck'))", "bycheck", &unsure),
        ("DELETE FROM checked WHERE id = length('nocheck')", "nocheck", &sure),
        ("DELETE FROM ruled WHERE id = length('byrule')", "byrule", &unsure),
        ("SELECT id, 'norule' FROM ruled", "norule", &sure),
        ("REFRESH MATERIALIZED VIEW kept -- refreshed", "refreshed", &unsure),
    ] {
        let found = record(&gateway, &mut wire, statement, word).await;
        assert_eq!(&seen(&found), expected, "{statement}: {}", found["analysis_notes"]);
    }
    gateway.stop().await;
}

const RULES: &str = "\
    CREATE TABLE base (a int, b text); \
    CREATE TABLE journal (a int, note text); \
    CREATE VIEW lower_view AS SELECT a, b FROM base; \
    CREATE RULE puts AS ON INSERT TO lower_view DO INSTEAD INSERT INTO base VALUES (NEW.a, 'by rule'); \
    CREATE VIEW upper_view AS SELECT a, b FROM lower_view WHERE a > 0; \
    CREATE TABLE plain (a int, b text); \
    CREATE RULE keeps AS ON INSERT TO plain WHERE NEW.a > 100 DO INSTEAD NOTHING; \
    CREATE RULE copies AS ON UPDATE TO plain DO ALSO INSERT INTO journal VALUES (OLD.a, NEW.b); \
    ALTER TABLE plain ENABLE REPLICA RULE copies; \
    GRANT ALL ON ALL TABLES IN SCHEMA public TO app_write; \
    GRANT SET ON PARAMETER session_replication_role TO app_write";

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_below_a_view_is_followed_to_the_table_it_writes() {
    let gateway = start(RULES).await;
    let mut wire = Wire::open(&gateway).await;
    let put =
        record(&gateway, &mut wire, "INSERT INTO upper_view VALUES (1, 'rulebelow')", "rulebelow").await;
    assert_eq!(put["analysis"], "exact");
    assert_eq!(put["tables"], json!(["public.base", "public.lower_view", "public.upper_view"]));
    let written = ["base.a", "base.b", "lower_view.a", "lower_view.b", "upper_view.a", "upper_view.b"];
    assert_eq!(put["writes"], json!(written.map(|column| format!("public.{column}"))));
    // What a rule that does nothing looks at of the new row is no column that is read.
    let kept =
        record(&gateway, &mut wire, "INSERT INTO plain VALUES (1, 'rulenothing')", "rulenothing").await;
    assert_eq!(
        touched(&kept),
        json!(["exact", ["public.plain"], [], [], ["public.plain.a", "public.plain.b"]])
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_for_replicas_fire_in_sessions_that_say_they_are_one() {
    let gateway = start(RULES).await;
    let mut wire = Wire::open(&gateway).await;
    let origin = record(&gateway, &mut wire, "UPDATE plain SET b = 'asorigin'", "asorigin").await;
    assert_eq!(origin["tables"], json!(["public.plain"]));
    assert!(succeeded(&wire.run("SET session_replication_role = replica").await));
    let replica = record(&gateway, &mut wire, "UPDATE plain SET b = 'asreplica'", "asreplica").await;
    assert_eq!(replica["tables"], json!(["public.journal", "public.plain"]));
    assert!(succeeded(&wire.run("RESET session_replication_role").await));
    let again = record(&gateway, &mut wire, "UPDATE plain SET b = 'originagain'", "originagain").await;
    assert_eq!(again["tables"], json!(["public.plain"]));
    gateway.stop().await;
}

const TRIGGERS: &str = "\
    CREATE TABLE stamped (a int, at timestamptz); \
    CREATE TABLE trail (a int); \
    CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS \
        $$BEGIN NEW.at := now(); IF NEW.a IS NULL THEN RAISE EXCEPTION 'no %', 'a'; END IF; RETURN NEW; END$$; \
    CREATE FUNCTION leave_trail() RETURNS trigger LANGUAGE plpgsql AS \
        $$BEGIN INSERT INTO trail VALUES (OLD.a); RETURN OLD; END$$; \
    CREATE TRIGGER stamps BEFORE INSERT OR UPDATE ON stamped FOR EACH ROW EXECUTE FUNCTION stamp(); \
    CREATE TRIGGER leaves AFTER DELETE ON stamped FOR EACH ROW EXECUTE FUNCTION leave_trail(); \
    GRANT ALL ON ALL TABLES IN SCHEMA public TO app_write";

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_counts_where_it_fires_and_only_one_that_touches_more_makes_a_record_unsure() {
    let gateway = start(TRIGGERS).await;
    let mut wire = Wire::open(&gateway).await;
    let put =
        record(&gateway, &mut wire, "INSERT INTO stamped VALUES (1) RETURNING 'stampedrow'", "stampedrow")
            .await;
    assert_eq!(touched(&put), json!(["exact", ["public.stamped"], [], [], ["public.stamped.a"]]));
    assert_eq!(put["via"], json!(["public.stamp"]));
    let deleted =
        record(&gateway, &mut wire, "DELETE FROM stamped RETURNING 'trailedrow'", "trailedrow").await;
    assert_eq!((&deleted["analysis"], &deleted["via"]), (&json!("partial"), &json!(["public.leave_trail"])));
    assert_eq!(deleted["tables"], json!(["public.stamped", "public.trail"]));
    assert!(deleted["analysis_notes"].to_string().contains("its body names public.trail"), "{deleted}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_an_object_is_found_when_the_catalog_is_read_again() {
    let gateway = start(
        "CREATE SCHEMA side; CREATE TABLE side.first (a int); GRANT ALL ON SCHEMA side, public TO app_write; \
         GRANT ALL ON side.first TO app_write; ALTER TABLE side.first OWNER TO app_write",
    )
    .await;
    let mut wire = Wire::open(&gateway).await;
    let steps = [
        ("SELECT 'atfirst', * FROM side.first", "atfirst", "side.first.a"),
        ("ALTER TABLE side.first ADD COLUMN b int; ALTER TABLE side.first DROP COLUMN a", "", ""),
        ("SELECT 'columns', * FROM side.first", "columns", "side.first.b"),
        ("ALTER TABLE side.first RENAME COLUMN b TO c", "", ""),
        ("SELECT 'renamed', * FROM side.first", "renamed", "side.first.c"),
        ("CREATE TABLE public.second (d int); ALTER TABLE side.first RENAME TO third", "", ""),
        ("SELECT 'tables', * FROM side.third, public.second", "tables", "public.second.d side.third.c"),
        ("CREATE VIEW public.shown AS SELECT c FROM side.third", "", ""),
        ("SELECT 'seenview', * FROM public.shown", "seenview", "public.shown.c side.third.c"),
        ("CREATE OR REPLACE VIEW public.shown AS SELECT d AS c FROM public.second", "", ""),
        ("SELECT 'otherview', * FROM public.shown", "otherview", "public.second.d public.shown.c"),
        ("DROP VIEW public.shown; CREATE TABLE public.shown (e int)", "", ""),
        ("SELECT 'notaview', * FROM public.shown", "notaview", "public.shown.e"),
    ];
    for (statement, word, columns) in steps {
        assert!(succeeded(&wire.run(statement).await), "{statement}");
        if !word.is_empty() {
            let record = gateway.records(&format!("event:query sql:{word}"), 1).await.remove(0);
            let reads: Vec<_> =
                record["reads"].as_array().unwrap().iter().map(|read| read.as_str().unwrap()).collect();
            assert_eq!(
                (reads.join(" "), &record["analysis"]),
                (columns.to_owned(), &json!("exact")),
                "{word}"
            );
        }
    }
    // A schema that is renamed renames all that is in it.
    change(&gateway, "ALTER SCHEMA side RENAME TO beside; CREATE TABLE public.known_change (x int)").await;
    assert!(succeeded(&wire.run("DROP TABLE public.second").await));
    let moved = record(&gateway, &mut wire, "SELECT 'movedschema', * FROM beside.third", "movedschema").await;
    assert_eq!((&moved["analysis"], &moved["reads"]), (&json!("exact"), &json!(["beside.third.c"])));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_can_be_dropped_soon_after_the_gateway_looked_into_it() {
    let gateway = TestGateway::start().await;
    let mut wire = Wire::open(&gateway).await;
    let looked =
        record(&gateway, &mut wire, "SELECT 'lastlook', email FROM customers LIMIT 1", "lastlook").await;
    assert_eq!(looked["analysis"], "exact");
    assert!(succeeded(&wire.run("CREATE TEMP TABLE t (a int)").await));
    let database = gateway.database().to_owned();
    drop(wire);
    // PostgreSQL waits five seconds for others to leave.
    let admin = server().connect(server().superuser(), "postgres").await;
    admin.batch_execute(&format!("DROP DATABASE \"{database}\"")).await.unwrap();
    admin.close().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_made_past_the_gateway_is_known_to_the_first_statement_that_names_it() {
    let gateway = start("GRANT ALL ON SCHEMA public TO app_write").await;
    let mut wire = Wire::open(&gateway).await;
    record(&gateway, &mut wire, "SELECT 'warmup', email FROM customers LIMIT 1", "warmup").await;
    for number in 0..3 {
        // Longer than the gateway keeps between two looks for a name.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let table = format!("past{number}");
        change(&gateway, &format!("CREATE TABLE {table} (a int, b text); GRANT ALL ON {table} TO app_write"))
            .await;
        let word = format!("named{number}");
        let first =
            record(&gateway, &mut wire, &format!("SELECT '{word}', b FROM {table} WHERE a = 1"), &word).await;
        let (b, a) = (format!("public.{table}.b"), format!("public.{table}.a"));
        assert_eq!(touched(&first), json!(["exact", [format!("public.{table}")], [b], [a], []]));
    }
    // What is not there stays unknown, and the answer the same.
    assert!(!succeeded(&wire.run("SELECT 'absentname' FROM nowhere").await));
    let absent = gateway.records("event:query sql:absentname", 1).await.remove(0);
    assert_eq!((&absent["analysis"], &absent["outcome"]), (&json!("partial"), &json!("error")));
    gateway.stop().await;
}
