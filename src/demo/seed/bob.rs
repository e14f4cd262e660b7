//! Bob, analyst, may read orders, views and invoices: reports, a notebook, a dashboard that asks the same
//! things again and again.

use super::Value::{Int, Text};
use super::{Sitting, Step, copy_out, each, each_fails, fails, ok, pieces};
use crate::demo::shop::BOB;

pub(super) const SITTINGS: &[Sitting] = &[
    Sitting { person: &BOB, application_name: "psql", steps: REPORT },
    Sitting { person: &BOB, application_name: "Jupyter", steps: NOTEBOOK },
    Sitting { person: &BOB, application_name: "Metabase", steps: DASHBOARD },
];

/// The monthly report.
const REPORT: &[Step] = &[
    ok("SELECT * FROM revenue_by_month ORDER BY month, category;"),
    ok("SELECT month, sum(revenue) AS revenue FROM revenue_by_month GROUP BY month ORDER BY month;"),
    ok("SELECT * FROM customer_overview ORDER BY spent DESC LIMIT 10;"),
    ok("SELECT city, count(*), sum(spent)::numeric(12,2), avg(orders)::numeric(5,2) FROM customer_overview GROUP BY city ORDER BY 3 DESC;"),
    ok("SELECT status, count(*) FROM orders GROUP BY status ORDER BY 2 DESC;"),
    fails("SELECT status, placed_at, count(*) FROM orders GROUP BY status;", "42803"),
    ok("SELECT date_trunc('week', placed_at) AS week, count(*) AS orders, count(DISTINCT customer_id) AS customers
FROM orders GROUP BY 1 ORDER BY 1;"),
    ok("SELECT i.id, i.amount, i.due_on, c.name, c.email
FROM billing.invoices i JOIN customers c ON c.id = i.customer_id
WHERE i.paid_on IS NULL AND i.due_on < '2026-11-01' ORDER BY i.due_on;"),
    ok("SELECT extract(month FROM issued_on) AS month, sum(amount), sum(amount) FILTER (WHERE paid_on IS NULL) AS open
FROM billing.invoices GROUP BY 1 ORDER BY 1;"),
    fails("SELECT holder, last4 FROM billing.cards LIMIT 5;", "42501"),
    fails("SELECT c.name, k.last4 FROM customers c JOIN billing.cards k ON k.customer_id = c.id;", "42501"),
    fails("SELECT title, avg(salary) FROM employees GROUP BY title;", "42501"),
    fails("UPDATE orders SET status = 'paid' WHERE id = 1;", "42501"),
    fails("SELECT * FROM order_lines;", "42P01"),
    ok("SELECT p.category, c.city, sum(i.quantity * i.price) AS revenue, count(DISTINCT o.id) AS orders
FROM order_items i
JOIN orders o ON o.id = i.order_id
JOIN products p ON p.id = i.product_id
JOIN customers c ON c.id = o.customer_id
JOIN billing.invoices b ON b.order_id = o.id
WHERE o.placed_at >= '2026-01-01' AND b.paid_on IS NOT NULL
GROUP BY ROLLUP (p.category, c.city) ORDER BY 1 NULLS FIRST, 3 DESC;"),
    ok("EXPLAIN (ANALYZE, BUFFERS) SELECT count(*) FROM orders WHERE placed_at > '2026-06-01';"),
    copy_out("COPY (SELECT * FROM revenue_by_month ORDER BY 1, 2) TO STDOUT WITH (FORMAT csv, HEADER)"),
    copy_out("COPY billing.invoices (id, customer_id, amount, paid_on) TO STDOUT WITH CSV HEADER"),
];

/// An afternoon of questions.
const NOTEBOOK: &[Step] = &[
    ok("SET search_path TO billing, public"),
    ok("SELECT customer_id, sum(amount) AS total FROM invoices GROUP BY customer_id ORDER BY total DESC LIMIT 25"),
    ok("RESET search_path"),
    ok("WITH first_order AS (
    SELECT customer_id, min(placed_at) AS at FROM orders GROUP BY customer_id
), cohort AS (
    SELECT customer_id, date_trunc('month', at) AS month FROM first_order
)
SELECT cohort.month, date_trunc('month', o.placed_at) AS active, count(DISTINCT o.customer_id)
FROM cohort JOIN orders o USING (customer_id)
GROUP BY 1, 2 ORDER BY 1, 2"),
    ok("WITH RECURSIVE day(d) AS (
    SELECT date '2026-10-01' UNION ALL SELECT d + 1 FROM day WHERE d < date '2026-10-31'
)
SELECT day.d, count(o.id) FROM day LEFT JOIN orders o ON o.placed_at::date = day.d GROUP BY day.d ORDER BY day.d"),
    ok("SELECT customer_id, placed_at, placed_at - lag(placed_at) OVER (PARTITION BY customer_id ORDER BY placed_at) AS gap
FROM orders WHERE status = 'delivered'"),
    ok("SELECT percentile_cont(ARRAY[0.5, 0.9, 0.99]) WITHIN GROUP (ORDER BY amount) FROM billing.invoices"),
    ok("SELECT c.id, c.name, latest.id, latest.placed_at
FROM customers c CROSS JOIN LATERAL (
    SELECT id, placed_at FROM orders o WHERE o.customer_id = c.id ORDER BY placed_at DESC LIMIT 1
) AS latest WHERE c.city = 'Wien'"),
    ok("SELECT p.name FROM products p WHERE NOT EXISTS (SELECT FROM reviews r WHERE r.product_id = p.id)"),
    ok("SELECT jsonb_agg(jsonb_build_object('id', id, 'city', city) ORDER BY id) FROM customers WHERE id <= 10"),
    ok("SELECT name FROM customers WHERE email LIKE 'a%' UNION SELECT name FROM customer_overview WHERE spent > 1500"),
    ok("SELECT id FROM orders WHERE status = 'returned' EXCEPT SELECT order_id FROM billing.invoices WHERE paid_on IS NULL"),
    ok("SELECT corr(rating, length(body)) FROM reviews WHERE body IS NOT NULL"),
    fails("SELECT sum(amount) / count(*) FILTER (WHERE amount < 0) FROM billing.invoices", "22012"),
    fails("SELECT id, cast(note AS integer) FROM orders WHERE note IS NOT NULL", "22P02"),
    // A big result in pieces, by a cursor and by a portal.
    ok("BEGIN READ ONLY"),
    ok("DECLARE lines NO SCROLL CURSOR FOR SELECT o.id, o.placed_at, i.product_id, i.quantity, i.price FROM orders o JOIN order_items i ON i.order_id = o.id ORDER BY o.id, i.line"),
    ok("FETCH FORWARD 500 FROM lines"),
    ok("FETCH FORWARD 500 FROM lines"),
    ok("MOVE FORWARD 500 FROM lines"),
    ok("FETCH ALL FROM lines"),
    ok("CLOSE lines"),
    ok("COMMIT"),
    pieces("SELECT id, customer_id, amount, issued_on FROM billing.invoices WHERE amount > $1 ORDER BY id", &[Text("100")], 250),
    ok("CREATE TEMP TABLE cohort AS SELECT customer_id, min(placed_at)::date AS first_day FROM orders GROUP BY customer_id"),
    ok("ANALYZE cohort"),
    ok("SELECT date_trunc('month', first_day), count(*) FROM cohort GROUP BY 1 ORDER BY 1"),
    fails("INSERT INTO orders SELECT * FROM orders LIMIT 1", "42501"),
    ok("DROP TABLE cohort"),
];

/// A dashboard: prepared statements, other parameters each time.
const DASHBOARD: &[Step] = &[
    each(
        "SELECT count(*), sum(amount) FROM billing.invoices WHERE issued_on BETWEEN $1 AND $2",
        &[
            &[Text("2026-08-01"), Text("2026-08-31")],
            &[Text("2026-09-01"), Text("2026-09-30")],
            &[Text("2026-10-01"), Text("2026-10-31")],
        ],
    ),
    each(
        "SELECT category, sum(revenue) FROM revenue_by_month WHERE month >= $1 GROUP BY category ORDER BY 2 DESC",
        &[&[Text("2026-01-01")], &[Text("2026-07-01")], &[Text("2026-10-01")]],
    ),
    each(
        "SELECT p.id, p.name, sum(i.quantity) AS sold FROM order_items i JOIN products p ON p.id = i.product_id
JOIN orders o ON o.id = i.order_id WHERE o.placed_at >= $1 AND p.category = ANY($2::text[]) GROUP BY p.id ORDER BY sold DESC LIMIT $3",
        &[
            &[Text("2026-06-01 00:00:00+00"), Text("{lamp,chair}"), Int(10)],
            &[Text("2026-10-01 00:00:00+00"), Text("{mug}"), Int(3)],
        ],
    ),
    each(
        "SELECT id, name, email, orders, spent FROM customer_overview WHERE city = $1 AND spent > $2",
        &[&[Text("Berlin"), Text("500")], &[Text("Zürich"), Text("900.00")], &[Text("København"), Text("0")]],
    ),
    each("SELECT order_total($1)", &[&[Int(1)], &[Int(500)], &[Int(1_000)], &[Int(-1)]]),
    each(
        "SELECT width_bucket(amount, $1, $2, $3) AS bucket, count(*) FROM billing.invoices GROUP BY 1 ORDER BY 1",
        &[&[Text("0"), Text("500"), Int(10)]],
    ),
    each_fails(
        "SELECT amount / $1::numeric FROM billing.invoices WHERE customer_id = $2",
        &[&[Text("1.19"), Int(30)], &[Text("0"), Int(30)]],
        "22012",
    ),
    each_fails("SELECT last4 FROM billing.cards WHERE customer_id = $1", &[&[Int(30)]], "42501"),
];
