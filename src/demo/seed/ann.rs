//! Ann, engineer, may write: looks into a complaint in psql, runs the shop's back end, imports a delivery.

use super::Value::{Bool, Int, Null, Text};
use super::{Sitting, Step, copy_in, copy_out, each, each_fails, fails, ok, pieces};
use crate::demo::shop::ANN;

pub(super) const SITTINGS: &[Sitting] = &[
    Sitting { person: &ANN, application_name: "psql", steps: COMPLAINT },
    Sitting { person: &ANN, application_name: "shop-backend", steps: BACKEND },
    Sitting { person: &ANN, application_name: "import-delivery", steps: IMPORT },
    Sitting { person: &ANN, application_name: "psql", steps: CLEANING },
];

/// A customer says that order 417 came twice.
const COMPLAINT: &[Step] = &[
    ok("SELECT version()"),
    ok("SELECT n.nspname AS \"Schema\", c.relname AS \"Name\", pg_catalog.pg_get_userbyid(c.relowner) AS \"Owner\"
FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r','p','') AND n.nspname <> 'pg_catalog' AND n.nspname !~ '^pg_toast'
  AND n.nspname <> 'information_schema' AND pg_catalog.pg_table_is_visible(c.oid)
ORDER BY 1,2;"),
    fails("SELEC * FROM customers;", "42601"),
    ok("SELECT * FROM customers WHERE name ILIKE '%costa%' LIMIT 20;"),
    ok("SELECT id, name, email, phone FROM customers WHERE id = 90;"),
    fails("SELECT id, mail FROM customers WHERE id = 90;", "42703"),
    ok("SELECT * FROM orders WHERE customer_id = 90 ORDER BY placed_at DESC;"),
    ok("SELECT * FROM orders WHERE id = 417;"),
    ok("SELECT i.line, p.name, i.quantity, i.price, i.quantity * i.price AS sum
FROM order_items i JOIN products p ON p.id = i.product_id
WHERE i.order_id = 417 ORDER BY i.line;"),
    ok("SELECT c.name, c.email, o.id, o.status, p.name AS product, i.quantity, r.rating
FROM customers c
JOIN orders o ON o.customer_id = c.id
JOIN order_items i ON i.order_id = o.id
JOIN products p ON p.id = i.product_id
LEFT JOIN reviews r ON r.product_id = p.id AND r.customer_id = c.id
WHERE c.id = 30 ORDER BY o.placed_at, i.line;"),
    ok("SELECT order_total(417);"),
    ok("SELECT * FROM orders_of('ida.costa@example.com');"),
    ok("EXPLAIN SELECT * FROM orders WHERE customer_id = 90;"),
    ok("BEGIN;"),
    ok("SELECT status FROM orders WHERE id = 417 FOR UPDATE;"),
    ok("UPDATE orders SET status = 'returned', note = 'sent twice, second parcel comes back' WHERE id = 417;"),
    ok("SELECT old_status, new_status, changed_by FROM order_events WHERE order_id = 417;"),
    ok("COMMIT;"),
    ok("SELECT o.id, o.status, o.note, e.old_status, e.new_status, e.changed_at
FROM orders o LEFT JOIN order_events e ON e.order_id = o.id WHERE o.id = 417;"),
    // An experiment that is taken back.
    ok("BEGIN;"),
    ok("UPDATE products SET stock = stock + 2 WHERE id IN (SELECT product_id FROM order_items WHERE order_id = 417);"),
    ok("SELECT p.id, p.name, p.stock FROM products p JOIN order_items i ON i.product_id = p.id WHERE i.order_id = 417;"),
    ok("ROLLBACK;"),
    // Curiosity has limits.
    fails("SELECT name, salary FROM employees ORDER BY salary DESC;", "42501"),
    fails("SELECT * FROM billing.cards WHERE customer_id = 90;", "42501"),
    // The reading role for the rest.
    ok("SET ROLE app_read;"),
    fails("UPDATE orders SET status = 'delivered' WHERE id = 417;", "42501"),
    ok("SELECT count(*) FROM reviews WHERE rating <= 2;"),
    ok("RESET ROLE;"),
];

/// What the shop's own software sends on an ordinary day.
const BACKEND: &[Step] = &[
    ok("SET TIME ZONE 'Europe/Berlin'"),
    ok("SHOW transaction_isolation"),
    each(
        "SELECT id, sku, name, price, stock FROM products WHERE category = $1 AND price < $2 ORDER BY price",
        &[&[Text("lamp"), Text("60.00")], &[Text("chair"), Text("120")], &[Text("mug"), Text("25.5")]],
    ),
    each(
        "SELECT id, name, email, city FROM customers WHERE email = $1",
        &[
            &[Text("ada.adler@example.net")],
            &[Text("greta.becker@example.org")],
            &[Text("nobody@example.com")],
            &[Text("")],
            &[Null],
        ],
    ),
    each(
        "SELECT o.id, o.status, o.placed_at FROM orders o WHERE o.customer_id = $1 ORDER BY o.placed_at DESC LIMIT $2",
        &[&[Int(12), Int(5)], &[Int(77), Int(5)], &[Int(140), Int(20)], &[Int(199), Int(1)]],
    ),
    // An order comes in.
    ok("BEGIN"),
    each(
        "WITH placed AS (
    INSERT INTO orders (customer_id, note) VALUES ($1, $2) RETURNING id
)
INSERT INTO order_items (order_id, line, product_id, quantity, price)
SELECT placed.id, 1, p.id, $3, p.price FROM placed, products p WHERE p.sku = $4
RETURNING order_id, price",
        &[&[Int(77), Text("ring twice"), Int(2), Text("LAM-0003")]],
    ),
    each(
        "UPDATE products SET stock = stock - $1 WHERE sku = $2 AND stock >= $1 RETURNING stock",
        &[&[Int(2), Text("LAM-0003")]],
    ),
    ok("COMMIT"),
    // Another one for more than there is: the check says no, the transaction is lost.
    ok("BEGIN"),
    each("INSERT INTO orders (customer_id) VALUES ($1) RETURNING id", &[&[Int(12)]]),
    each_fails("UPDATE products SET stock = stock - $1 WHERE id = $2", &[&[Int(100_000), Int(7)]], "23514"),
    fails("SELECT stock FROM products WHERE id = 7", "25P02"),
    ok("ROLLBACK"),
    // Reviews: once for each customer and product.
    each(
        "INSERT INTO reviews (product_id, customer_id, rating, body) VALUES ($1, $2, $3, $4)
ON CONFLICT (product_id, customer_id) DO UPDATE SET rating = excluded.rating, body = excluded.body",
        &[
            &[Int(3), Int(77), Int(5), Text("Warm light. 'Just right', says my daughter; 100 % recommended")],
            &[Int(3), Int(77), Int(4), Null],
            &[Int(41), Int(140), Int(2), Text("Der Henkel brach – schade! ☕")],
        ],
    ),
    each_fails(
        "INSERT INTO reviews (product_id, customer_id, rating, body) VALUES ($1, $2, $3, $4)",
        &[&[Int(8), Int(12), Int(3), Text("as expected")]],
        "23505",
    ),
    each_fails(
        "INSERT INTO reviews (product_id, customer_id, rating) VALUES ($1, $2, $3)",
        &[&[Int(9_999), Int(12), Int(3)]],
        "23503",
    ),
    // The nightly mail: thousands of lines in small pieces.
    pieces(
        "SELECT c.email, o.id, o.status FROM orders o JOIN customers c ON c.id = o.customer_id
WHERE o.status = $1 AND c.email IS NOT NULL",
        &[Text("delivered")],
        200,
    ),
    each(
        "SELECT p.name, avg(r.rating)::numeric(3,2) AS stars, count(*) FROM reviews r JOIN products p ON p.id = r.product_id
GROUP BY p.name HAVING count(*) >= $1 ORDER BY stars DESC",
        &[&[Int(3)], &[Int(6)]],
    ),
    each("SELECT $1::boolean AND EXISTS (SELECT FROM orders WHERE id = $2)", &[&[Bool(true), Int(417)]]),
    each("SELECT * FROM order_events WHERE changed_at > now() - $1::interval", &[&[Text("1 day")]]),
];

/// A supplier's delivery note, first into a temporary table.
const IMPORT: &[Step] = &[
    ok("BEGIN"),
    ok("CREATE TEMP TABLE delivery (sku text PRIMARY KEY, pieces integer NOT NULL) ON COMMIT DROP"),
    copy_in(
        "COPY delivery (sku, pieces) FROM STDIN WITH (FORMAT csv, HEADER true)",
        "sku,pieces\nLAM-0001,40\nCHA-0012,25\nTAB-0025,10\nMUG-0047,200\n",
    ),
    ok("SELECT d.sku FROM delivery d LEFT JOIN products p USING (sku) WHERE p.sku IS NULL"),
    ok("UPDATE products p SET stock = p.stock + d.pieces FROM delivery d WHERE d.sku = p.sku"),
    ok("COMMIT"),
    fails("SELECT count(*) FROM delivery", "42P01"),
    copy_out(
        "COPY (SELECT sku, name, stock FROM products WHERE stock < 20 ORDER BY stock) TO STDOUT WITH (FORMAT csv, HEADER)",
    ),
    copy_out("COPY order_items TO STDOUT"),
    Step {
        expect: super::Expect::Error("22P02"),
        ..copy_in(
            "COPY order_items (order_id, line, product_id, quantity, price) FROM STDIN",
            "417\tmany\t3\t1\t9.90\n",
        )
    },
    Step { expect: super::Expect::Error("42501"), ..copy_out("COPY employees TO STDOUT WITH (FORMAT csv)") },
    // Three statements in one message; the last one fails, so the first two never happened.
    fails(
        "INSERT INTO orders (customer_id, note) VALUES (5, 'test'); UPDATE customers SET city = 'Bern' WHERE id = 5; \
         UPDATE customers SET email = 'x@example.com' WHERE id = 5",
        "42501",
    ),
    ok("SELECT city FROM customers WHERE id = 5"),
    ok("SELECT 1; SELECT name FROM products WHERE id = 1; SELECT now()"),
];

/// Tidying up, with SQL's own prepared statements and a savepoint.
const CLEANING: &[Step] = &[
    ok("PREPARE move_customer(int, text) AS UPDATE customers SET city = $2 WHERE id = $1;"),
    ok("EXECUTE move_customer(31, 'Genève');"),
    ok("EXECUTE move_customer(32, 'Oslo');"),
    ok("DEALLOCATE move_customer;"),
    fails("EXECUTE move_customer(33, 'Oslo');", "26000"),
    ok("BEGIN;"),
    ok(
        "UPDATE orders SET status = 'cancelled' WHERE status = 'new' AND placed_at < now() - interval '400 days';",
    ),
    ok("SAVEPOINT before_deleting;"),
    ok(
        "DELETE FROM order_items USING orders WHERE orders.id = order_items.order_id AND orders.status = 'cancelled';",
    ),
    ok("SELECT count(*) FROM order_items;"),
    ok("ROLLBACK TO SAVEPOINT before_deleting;"),
    ok("DELETE FROM reviews WHERE rating = 1 AND body IS NULL RETURNING id, customer_id;"),
    ok("COMMIT;"),
    fails("DELETE FROM customers WHERE id = 200;", "42501"),
    fails("CREATE TABLE backup_orders AS SELECT * FROM orders;", "42501"),
    fails("DROP TABLE reviews;", "42501"),
    ok("CREATE TEMP TABLE old_reviews AS SELECT * FROM reviews WHERE created_at < '2026-03-01';"),
    ok("ALTER TABLE old_reviews ADD COLUMN checked boolean DEFAULT false;"),
    ok("CREATE INDEX ON old_reviews (product_id);"),
    ok("TRUNCATE old_reviews;"),
    ok("DROP TABLE old_reviews;"),
    ok("DO $$ BEGIN PERFORM order_total(id) FROM orders WHERE id < 5; END $$;"),
    ok("DISCARD ALL;"),
];
