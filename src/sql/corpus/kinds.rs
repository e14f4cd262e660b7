//! How sure the reading of each kind of statement is: the table in README.md, made from what is checked here.

use super::{Certainty, ask};

/// A kind of statement, and one of it.
const KINDS: &[(&str, &str)] = &[
    (
        "SELECT, VALUES, TABLE, with joins, sub-selects, LATERAL, windows, grouping sets",
        "select name from shop.customers c, lateral (select count(*) over () from shop.orders o where o.customer_id = c.id group by grouping sets ((), (id))) n",
    ),
    (
        "WITH, recursive, SEARCH and CYCLE, data-modifying",
        "with recursive t as (select id, parent from shop.tree union all select k.id, k.parent from shop.tree k join t on k.parent = t.id) search depth first by id set o cycle id set c using p select * from t",
    ),
    (
        "INSERT, ON CONFLICT, RETURNING, `excluded`",
        "insert into shop.products (id, name) values (1, 'x') on conflict (id) do update set name = excluded.name returning price",
    ),
    (
        "UPDATE … FROM, DELETE … USING, MERGE",
        "merge into shop.products p using shop.orders o on o.product_id = p.id when matched then update set price = o.quantity",
    ),
    ("COPY of a table or query, with columns and WHERE", "copy shop.customers (id, email) to stdout"),
    ("views, and views on views: themselves and the columns below", "select name from shop.big_names"),
    (
        "partitioned tables, materialised views, sequences, system catalogs and columns",
        "select e.tableoid, s.items, c.relname from shop.events e, shop.spending s, pg_class c",
    ),
    (
        "functions in FROM, JSON_TABLE, XMLTABLE, SQL/JSON, XML",
        "select j.a from shop.customers c, json_table(c.profile, '$' columns (a int path '$.a')) j",
    ),
    (
        "CREATE, ALTER, DROP, TRUNCATE, LOCK, GRANT, COMMENT, VACUUM …",
        "alter table shop.orders add column colour text",
    ),
    (
        "EXPLAIN, DECLARE CURSOR, PREPARE, CREATE TABLE AS, CREATE VIEW",
        "create view v as select email from shop.customers",
    ),
    (
        "immutable functions, and SQL functions that name no table",
        "select shop.double(quantity) from shop.orders",
    ),
    (
        "functions, procedures and triggers that may touch more: named, with what their bodies name",
        "select shop.count_orders()",
    ),
    ("triggers in PL/pgSQL that run no query", "update shop.audited set note = 'x'"),
    ("other triggers that the change fires", "update shop.watched set note = 'x'"),
    (
        "built-ins that run SQL which is not a constant, or read files or whole schemas",
        "select query_to_xml($1, true, true, '')",
    ),
    ("names that the catalog does not know (yet)", "select x from shop.not_there"),
    ("DO: what its text names", "do $$begin delete from shop.orders; end$$"),
    ("DO that names nothing known", "do $$begin perform 1; end$$"),
    (
        "text beyond the limits: 1 MiB, 300,000 tokens, 150 open parentheses",
        "(((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((select 1)))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))",
    ),
    ("text that is not PostgreSQL's grammar", "selekt everything"),
];

#[test]
fn the_readme_says_how_sure_each_kind_of_statement_is() {
    let mut table = "| statement | `analysis` |\n| --- | --- |\n".to_owned();
    for (kind, statement) in KINDS {
        let certainty = match ask(statement).certainty {
            Certainty::Exact => "exact",
            Certainty::Partial => "partial",
            Certainty::Unresolved => "unresolved",
        };
        table.push_str(&format!("| {kind} | {certainty} |\n"));
    }
    let readme = include_str!("../../../README.md");
    assert!(readme.contains(&table), "README.md must hold this table:\n\n{table}");
}
