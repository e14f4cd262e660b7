//! Statements with PostgreSQL's own answer.
//!
//! `schema.sql` is the database, `catalog.jsonl` the rows that the catalog query returned for it (system objects that no
//! statement names were left out), `statements.jsonl` the permission sets that PostgreSQL 15 checked, after views were
//! rewritten. The tests here need no server. To add a statement: add it to the file and write what the server says.

mod kinds;

use serde_json::Value;

use super::{
    Analysis, Certainty, Class, Effect, First, Grammar, InProcess, Own, Sets, Settings, What, analyze,
};
use crate::catalog::{self, Schema};

const CATALOG: &str = include_str!("catalog.jsonl");
const STATEMENTS: &str = include_str!("statements.jsonl");

fn schema() -> Schema {
    let rows: Vec<Vec<Option<String>>> =
        CATALOG.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    catalog::read(&rows).unwrap()
}

fn path() -> Vec<String> {
    ["pg_catalog", "shop", "public"].map(str::to_owned).to_vec()
}

fn ask(text: &str) -> Analysis {
    let path = path();
    analyze(text, &schema(), &Settings::new(&path, &Own::default(), &InProcess))
}

fn union(a: &[String], b: &[String]) -> Vec<String> {
    let mut all = [a, b].concat();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn every_statement_touches_what_postgresql_checks() {
    touches_what_postgresql_checks(&InProcess);
}

#[test]
fn the_second_reader_alone_gives_the_same_answers() {
    touches_what_postgresql_checks(&First);
}

#[track_caller]
fn touches_what_postgresql_checks(grammar: &dyn Grammar) {
    let (schema, path) = (schema(), path());
    let own = Own::default();
    let settings = Settings::new(&path, &own, grammar);
    let mut wrong = Vec::new();
    for line in STATEMENTS.lines() {
        let truth: Value = serde_json::from_str(line).unwrap();
        let list = |field: &str| -> Vec<String> { serde_json::from_value(truth[field].clone()).unwrap() };
        let text = truth["statement"].as_str().unwrap();
        let found = analyze(text, &schema, &settings);
        let made = matches!(found.effect, Effect::Ddl);
        let tables: Vec<String> =
            found.tables.iter().filter(|name| !made || schema_has(&schema, name)).cloned().collect();
        let ours = (tables, union(&found.reads, &found.filters), found.writes.clone());
        let theirs = (list("tables"), list("reads"), list("writes"));
        // What a function of one's own touches inside, the server does not tell of the statement that calls it.
        let within = found.notes.iter().any(|note| note.contains(" may touch more: its body names "));
        let holds = |mine: &[String], theirs: &[String]| theirs.iter().all(|name| mine.contains(name));
        let more =
            within && holds(&ours.0, &theirs.0) && holds(&ours.1, &theirs.1) && holds(&ours.2, &theirs.2);
        if ours != theirs && !more {
            wrong.push(format!(
                "{text}\n  ours   {ours:?}\n  theirs {theirs:?}\n  {:?} {:?}",
                found.certainty, found.notes
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        STATEMENTS.lines().count(),
        wrong.join("\n")
    );
}

/// A table that a statement makes is not in the catalog yet.
fn schema_has(schema: &Schema, full: &str) -> bool {
    schema.relations().any(|relation| relation.full_name() == full)
}

#[track_caller]
fn kinds(text: &str, reads: &[&str], filters: &[&str]) {
    let found = ask(text);
    let short = |names: &[String]| -> Vec<String> {
        names.iter().map(|name| name.strip_prefix("shop.").unwrap_or(name).to_owned()).collect()
    };
    assert_eq!((short(&found.reads), short(&found.filters)), (own(reads), own(filters)), "{text}");
}

fn own(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn columns_that_only_choose_rows_are_filters() {
    kinds("select name from customers where ssn like '1%'", &["customers.name"], &["customers.ssn"]);
    kinds("select name from products order by price", &["products.name"], &["products.price"]);
    kinds("select count(*) from products group by owner", &[], &["products.owner"]);
    kinds(
        "select name from products where id in (select product_id from orders)",
        &["products.name"],
        &["orders.product_id", "products.id"],
    );
    kinds("select exists (select note from orders)", &[], &["orders.note"]);
    kinds("select (select note from orders where id = 1)", &["orders.note"], &["orders.id"]);
    kinds("select rank() over (order by price) from products", &[], &["products.price"]);
    kinds("delete from orders where note = 'x' returning id", &["orders.id"], &["orders.note"]);
}

#[test]
fn values_flow_through_subselects_and_ctes_to_the_result() {
    kinds(
        "select x from (select name as x, price as y from products) p where y > 1",
        &["products.name"],
        &["products.price"],
    );
    kinds(
        "with a as (select name, price from products) select name from a",
        &["products.name"],
        &["products.price"],
    );
    kinds(
        "with a as (select name, price from products) select 1 from a where price > 1",
        &[],
        &["products.name", "products.price"],
    );
    kinds("select id from orders join products using (id)", &["orders.id", "products.id"], &[]);
    kinds(
        "with recursive t as (select id, parent from tree union all select c.id, c.parent from tree c join t on c.parent = t.id) select id from t",
        &["tree.id"],
        &["tree.parent"],
    );
    kinds(
        "insert into products (name) select email from customers where ssn = 'x'",
        &["customers.email"],
        &["customers.ssn"],
    );
    kinds(
        "update products set name = note from orders where product_id = products.id",
        &["orders.note"],
        &["orders.product_id", "products.id"],
    );
}

#[test]
fn views_name_themselves_and_their_base_tables() {
    let found = ask("select email from customer_emails");
    assert_eq!(found.tables, ["shop.customer_emails", "shop.customers"]);
    assert_eq!(found.via, ["shop.customer_emails"]);
    assert_eq!(found.certainty, Certainty::Exact);
    let found = ask("select 1 from big_names");
    assert_eq!(found.via, ["shop.big_names", "shop.big_orders"]);
    assert!(found.reads.is_empty(), "{:?}", found.reads);
}

#[test]
fn what_is_not_known_is_never_silent() {
    for text in [
        "select x from nowhere",
        "select nothing from products",
        "select p.nothing from products p",
        "select nofunction(name) from products",
        "select query_to_xml($1, true, true, '')",
        "select * from cheap(3)",
        "insert into products (nothing) values (1)",
        "do $$ begin delete from shop.orders; end $$",
        "call nothing()",
        "create table x as execute p",
    ] {
        let found = ask(text);
        assert_ne!(found.certainty, Certainty::Exact, "{text}");
        assert!(!found.notes.is_empty(), "{text}");
    }
}

#[test]
fn functions_are_doubted_only_when_they_may_touch_something() {
    for (text, certainty) in [
        ("select plain(name) from products", Certainty::Exact),
        ("select double(owner) from products", Certainty::Exact),
        ("select count_orders()", Certainty::Partial),
        ("select name from cheap(10)", Certainty::Partial),
        ("update audited set note = 'x'", Certainty::Exact),
        ("update watched set note = 'x'", Certainty::Partial),
        ("delete from watched", Certainty::Exact),
    ] {
        let found = ask(text);
        assert_eq!(found.certainty, certainty, "{text}: {:?}", found.notes);
    }
    let found = ask("select name from cheap(10)");
    assert_eq!((found.tables, found.functions), (own(&["shop.products"]), own(&["shop.cheap"])));
    assert!(found.reads.contains(&"shop.products.price".to_owned()), "{:?}", found.reads);
    let found = ask("update watched set note = 'x'");
    assert_eq!((found.tables, found.via), (own(&["shop.audited", "shop.watched"]), own(&["shop.watch"])));
    let found = ask("select plain(name) from products");
    assert_eq!((found.functions, found.class), (own(&["shop.plain"]), vec![Class::Read, Class::Function]));
}

#[test]
fn text_that_is_not_understood_shows_the_tables_it_seems_to_name() {
    let found = ask("select from from customers where ((");
    assert_eq!((found.certainty, found.tables), (Certainty::Partial, own(&["shop.customers"])));
    let found = ask("selec ssn fro customers");
    assert_eq!((found.certainty, found.tables), (Certainty::Unresolved, own(&[])));
    assert_eq!(ask("").command, "EMPTY");
}

#[test]
fn the_path_decides_and_pg_catalog_comes_first() {
    let path = ["billing".to_owned()];
    let own = Own::default();
    let settings = Settings::new(&path, &own, &InProcess);
    let schema = schema();
    assert_eq!(analyze("select pan from cards", &schema, &settings).tables, ["billing.cards"]);
    assert_eq!(analyze("select id from orders", &schema, &settings).certainty, Certainty::Partial);
    assert_eq!(analyze("select relname from pg_class", &schema, &settings).tables, ["pg_catalog.pg_class"]);
}

#[test]
fn a_hidden_statement_is_seen_when_backslashes_escape() {
    let path = path();
    let own = Own::default();
    let settings = Settings { standard_conforming_strings: false, ..Settings::new(&path, &own, &InProcess) };
    let found = analyze(r"select 'a\'', ssn from customers --'", &schema(), &settings);
    assert_eq!(found.reads, ["shop.customers.ssn"]);
}

#[track_caller]
fn effect(text: &str, command: &str, effect: Effect) {
    let found = ask(text);
    assert_eq!((found.command.as_str(), found.effect), (command, effect), "{text}");
}

fn set(name: &str, value: &str, local: bool) -> Effect {
    Effect::Set(vec![Sets {
        name: Some(name.to_owned()),
        value: What::Text(value.to_owned()),
        local: Some(local),
    }])
}

#[test]
fn the_session_learns_of_parameters_and_roles() {
    effect("set search_path to a, \"B c\", 'd'", "SET", set("search_path", "a, \"B c\", d", false));
    effect("SET LOCAL Search_Path = x", "SET", set("search_path", "x", true));
    effect(
        "set session standard_conforming_strings = off",
        "SET",
        set("standard_conforming_strings", "off", false),
    );
    effect("set schema 'x'", "SET", set("search_path", "x", false));
    effect("set role billing", "SET", set("role", "billing", false));
    effect("set local role \"B\"", "SET", set("role", "B", true));
    effect("set session authorization 'x'", "SET", set("session_authorization", "x", false));
    effect("set local session authorization x", "SET", set("session_authorization", "x", true));
    effect("set names 'latin1'", "SET", set("client_encoding", "latin1", false));
    effect("set time zone 'utc'", "SET", set("timezone", "utc", false));
    effect("set work_mem = '64MB'", "SET", set("work_mem", "64MB", false));
    effect("set my.own = -1", "SET", set("my.own", "-1", false));
    effect(
        "select set_config('search_path', 'billing', true)",
        "SELECT",
        set("search_path", "billing", true),
    );
    let unknown = Sets { name: None, value: What::Unknown, local: Some(false) };
    effect("select set_config($1, $2, false)", "SELECT", Effect::Set(vec![unknown]));
    let default = Sets { name: Some("search_path".to_owned()), value: What::Default, local: Some(false) };
    effect("set search_path to default", "SET", Effect::Set(vec![default]));
    effect("reset search_path", "RESET", Effect::Reset { name: "search_path".to_owned() });
    effect(
        "reset session authorization",
        "RESET",
        Effect::Reset { name: "session_authorization".to_owned() },
    );
    effect("reset all", "RESET", Effect::ResetAll);
    effect("discard all", "DISCARD ALL", Effect::DiscardAll);
}

#[test]
fn the_session_learns_of_transactions() {
    let name = || "s".to_owned();
    effect("begin isolation level serializable", "BEGIN", Effect::Begin);
    effect("start transaction read only", "START TRANSACTION", Effect::Begin);
    effect("end", "COMMIT", Effect::Commit { chain: false });
    effect("commit and chain", "COMMIT", Effect::Commit { chain: true });
    effect("commit and no chain", "COMMIT", Effect::Commit { chain: false });
    effect("abort", "ROLLBACK", Effect::Rollback { chain: false });
    effect("savepoint s", "SAVEPOINT", Effect::Savepoint { name: name() });
    effect("release savepoint s", "RELEASE", Effect::Release { name: name() });
    effect("release s", "RELEASE", Effect::Release { name: name() });
    effect("rollback work to savepoint S", "ROLLBACK", Effect::RollbackTo { name: name() });
    effect("rollback to s", "ROLLBACK", Effect::RollbackTo { name: name() });
    effect("prepare transaction 'x'", "PREPARE TRANSACTION", Effect::PrepareTransaction);
    effect("set transaction read only", "SET", Effect::TransactionModes);
}

#[test]
fn the_session_learns_of_prepared_statements_cursors_and_copies() {
    let text = "prepare P (int) as select ssn from customers where id = $1;";
    let found = ask(text);
    let Effect::Prepare { name, text: range } = found.effect else { panic!("{:?}", found.effect) };
    assert_eq!((name.as_str(), &text[range]), ("p", "select ssn from customers where id = $1"));
    effect("execute p (1)", "EXECUTE", Effect::ExecutePrepared { name: "p".to_owned() });
    effect("deallocate prepare p", "DEALLOCATE", Effect::Deallocate { name: Some("p".to_owned()) });
    effect("deallocate all", "DEALLOCATE ALL", Effect::Deallocate { name: None });
    let declared = Effect::Declare { cursor: "c".to_owned(), hold: true };
    effect("declare c cursor with hold for select ssn from customers", "DECLARE CURSOR", declared);
    effect("fetch forward 10 from c", "FETCH", Effect::Fetch { cursor: "c".to_owned() });
    effect("move c", "MOVE", Effect::Move { cursor: "c".to_owned() });
    effect("close all", "CLOSE CURSOR ALL", Effect::CloseCursor { cursor: None });
    effect("copy orders from stdin", "COPY", Effect::CopyFromStdin);
    effect("copy (select 1) to stdout", "COPY", Effect::CopyToStdout);
    effect("copy orders to program 'x'", "COPY", Effect::CopyServerSide);
    effect("create table t (id int)", "CREATE TABLE", Effect::Ddl);
    effect("select email into x from customers", "SELECT INTO", Effect::Ddl);
    effect("do 'x'", "DO", Effect::MayHideDdl);
    effect("select 1", "SELECT", Effect::None);
}

#[test]
fn objects_are_named_and_classed() {
    let check = |text: &str, command: &str, class: Class, tables: &[&str]| {
        let found = ask(text);
        assert_eq!((found.command.as_str(), found.tables), (command, own(tables)), "{text}");
        assert!(found.class.contains(&class), "{text}: {:?}", found.class);
    };
    check(
        "create table billing.t (id int references products)",
        "CREATE TABLE",
        Class::Ddl,
        &["billing.t", "shop.products"],
    );
    check(
        "create temp view v as select email from customers",
        "CREATE VIEW",
        Class::Ddl,
        &["pg_temp.v", "shop.customers"],
    );
    check(
        "create unique index concurrently i on only orders (id)",
        "CREATE INDEX",
        Class::Ddl,
        &["shop.orders"],
    );
    check(
        "drop table if exists orders, billing.cards cascade",
        "DROP TABLE",
        Class::Ddl,
        &["billing.cards", "shop.orders"],
    );
    check("alter table only orders add column x int", "ALTER TABLE", Class::Ddl, &["shop.orders"]);
    check("create rule r as on insert to orders do nothing", "CREATE RULE", Class::Ddl, &["shop.orders"]);
    check("grant select (ssn) on customers to x", "GRANT", Class::Role, &["shop.customers"]);
    check("create role x password 'y'", "CREATE ROLE", Class::Role, &[]);
    check(
        "truncate orders, only products",
        "TRUNCATE TABLE",
        Class::Write,
        &["shop.orders", "shop.products"],
    );
    check("lock table orders in share mode", "LOCK TABLE", Class::Misc, &["shop.orders"]);
    check("comment on column customers.ssn is 'x'", "COMMENT", Class::Ddl, &["shop.customers"]);
    check("vacuum (full) orders (id), products", "VACUUM", Class::Misc, &["shop.orders", "shop.products"]);
    check(
        "refresh materialized view concurrently spending",
        "REFRESH MATERIALIZED VIEW",
        Class::Ddl,
        &["shop.orders", "shop.spending"],
    );
    check("explain (analyze false) delete from orders", "EXPLAIN", Class::Misc, &["shop.orders"]);
    check("explain (analyze) delete from orders", "EXPLAIN", Class::Write, &["shop.orders"]);
}

#[test]
fn sql_given_as_text_to_a_built_in_is_read_too() {
    let found = ask("select query_to_xml('select email from customers', true, true, '')");
    assert_eq!((found.certainty, found.reads), (Certainty::Exact, vec!["shop.customers.email".to_owned()]));
    assert_eq!(ask("select table_to_xml('tree', true, true, '')").tables, ["shop.tree"]);
    for unsure in [
        "select query_to_xml(note, true, true, '') from orders",
        "select query_to_xml('nonsense', true, true, '')",
    ] {
        assert_eq!(ask(unsure).certainty, Certainty::Partial, "{unsure}");
    }
}

#[test]
fn hostile_text_ends_soon_on_a_small_stack() {
    let deep = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    let texts = [
        format!("select {}", deep("(", ")", 10_000)),
        format!("select {}", deep("(", ")", 140)),
        format!("select {}", deep("(select ", ")", 140)),
        format!("select * from {}customers{}", "(".repeat(40), ")".repeat(40)),
        format!("select 1{}", " + 1".repeat(15_000)),
        format!("select 1{}", " or id = 1".repeat(19_000)),
        format!("select 1{}", " union select 1".repeat(3_000)),
        format!("select {} 1", "not ".repeat(3_000)),
        format!("select {}1", "- ".repeat(5_000)),
        format!("select 1{}", "::int".repeat(5_000)),
        format!("select {}1", "case when ".repeat(3_000)),
        format!("select id from orders where id in ({})", vec!["1"; 100_000].join(",")),
        format!("select {}", "x".repeat(1_000_000)),
        format!("select '{}", "x".repeat(100_000)),
        "/*".repeat(20_000),
        format!("select * from orders{}", " join orders on true".repeat(300)),
        "select \u{1}\u{0} \u{feff} ;; ''' \" $a$".to_owned(),
    ];
    let run = move || {
        let schema = schema();
        let path = path();
        let own = Own::default();
        let settings = Settings::new(&path, &own, &InProcess);
        for text in &texts {
            let start = std::time::Instant::now();
            std::hint::black_box(analyze(text, &schema, &settings));
            let head: String = text.chars().take(30).collect();
            assert!(start.elapsed().as_secs() < 20, "{head} took {:?}", start.elapsed());
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "[a-z0-9 '\"$;:,.()*/\\\\&U\\[\\]=<>-]{0,80}", standard: bool) {
        let path = path();
        let own = Own::default();
        let settings = Settings { standard_conforming_strings: standard, ..Settings::new(&path, &own, &InProcess) };
        std::hint::black_box(analyze(&text, &Schema::default(), &settings));
        for range in super::split(text.as_bytes(), standard) {
            proptest::prop_assert!(range.start < range.end && range.end <= text.len());
        }
        std::hint::black_box(super::fingerprint(text.as_bytes(), standard));
    }

    #[test]
    fn no_shuffle_of_real_words_panics(words in proptest::collection::vec(0usize..WORDS.len(), 0..24)) {
        let text: Vec<&str> = words.into_iter().map(|at| WORDS[at]).collect();
        let path = path();
        let own = Own::default();
        let settings = Settings::new(&path, &own, &InProcess);
        std::hint::black_box(analyze(&text.join(" "), &Schema::default(), &settings));
    }
}

const WORDS: &[&str] = &[
    "select",
    "from",
    "where",
    "(",
    ")",
    "*",
    ",",
    "a",
    "b",
    ".",
    "insert",
    "into",
    "values",
    "update",
    "set",
    "=",
    "with",
    "as",
    "copy",
    "to",
    "stdout",
    "explain",
    "analyze",
    "create",
    "table",
    "view",
    "declare",
    "cursor",
    "for",
    "prepare",
    "execute",
    "fetch",
    "close",
    "all",
    "rollback",
    "savepoint",
    "release",
    "local",
    "session",
    "authorization",
    "role",
    "only",
    "of",
    "update",
    "exclude",
    "ties",
    "U&\"x\"",
    "uescape",
    "'!'",
    "E'\\x'",
    "grant",
    "on",
    "comment",
    "column",
    "rule",
    "do",
    "call",
    "refresh",
    "truncate",
    "lock",
    "alter",
    "drop",
    "1",
    "$1",
    "::",
    "[",
    "]",
    "join",
    "using",
    "no",
    "data",
];
