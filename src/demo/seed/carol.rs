//! Carol, security officer, may read: answers what the shop knows about somebody, checks who may do what,
//! and tries the doors that must be locked.

use super::Value::{Int, Text};
use super::{Sitting, Step, copy_out, each, each_fails, fails, ok};
use crate::demo::shop::CAROL;

pub(super) const SITTINGS: &[Sitting] = &[
    Sitting { person: &CAROL, application_name: "psql", steps: SUBJECT_ACCESS },
    Sitting { person: &CAROL, application_name: "psql", steps: DOORS },
    Sitting { person: &CAROL, application_name: "access-review", steps: REVIEW },
];

/// A customer asks what we store about them.
const SUBJECT_ACCESS: &[Step] = &[
    ok("SELECT id, name, email, phone, city, created_at FROM customers WHERE email = 'elena.fischer@example.org';"),
    ok("SELECT id, name, email FROM customers WHERE name = 'Elena Fischer';"),
    ok("SELECT o.* FROM orders o JOIN customers c ON c.id = o.customer_id WHERE c.name = 'Elena Fischer';"),
    ok("SELECT o.id, p.name, i.quantity, i.price
FROM customers c JOIN orders o ON o.customer_id = c.id JOIN order_items i ON i.order_id = o.id JOIN products p ON p.id = i.product_id
WHERE c.name = 'Elena Fischer' ORDER BY o.id, i.line;"),
    ok("SELECT p.name, r.rating, r.body FROM reviews r JOIN products p ON p.id = r.product_id
WHERE r.customer_id = (SELECT id FROM customers WHERE name = 'Elena Fischer');"),
    ok("SELECT * FROM customer_overview WHERE name = 'Elena Fischer';"),
    copy_out("COPY (SELECT o.* FROM orders o JOIN customers c ON c.id = o.customer_id WHERE c.name = 'Elena Fischer') TO STDOUT WITH (FORMAT csv, HEADER)"),
    fails("SELECT * FROM billing.invoices WHERE customer_id = 85;", "42501"),
    ok("SELECT count(*) FROM customers WHERE phone IS NULL;"),
    ok("SELECT email, count(*) FROM customers GROUP BY email HAVING count(*) > 1;"),
    ok("TABLE products;"),
];

/// What must not work.
const DOORS: &[Step] = &[
    fails("SELECT * FROM employees;", "42501"),
    fails("SELECT count(*) FROM employees WHERE salary > 90000;", "42501"),
    fails("SELECT last4 FROM billing.cards;", "42501"),
    fails("INSERT INTO orders (customer_id) VALUES (1);", "42501"),
    fails("DELETE FROM order_events;", "42501"),
    fails("UPDATE products SET price = 0.01 WHERE id = 1;", "42501"),
    fails("TRUNCATE orders;", "42501"),
    fails("SET ROLE app_write;", "42501"),
    fails("SET ROLE shop_owner;", "42501"),
    fails("SET SESSION AUTHORIZATION postgres;", "42501"),
    fails("ALTER ROLE app_read SUPERUSER;", "42501"),
    fails("CREATE ROLE backdoor LOGIN;", "42501"),
    fails("GRANT SELECT ON employees TO app_read;", "42501"),
    fails("SELECT pg_read_file('postgresql.conf');", "42501"),
    fails("SELECT rolname, rolpassword FROM pg_authid;", "42501"),
    fails("COPY customers TO '/tmp/customers.csv';", "42501"),
    fails("COPY customers TO PROGRAM 'cat';", "42501"),
    fails(
        "CREATE FUNCTION public.peek() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM customers';",
        "42501",
    ),
    fails("DO $$ BEGIN EXECUTE 'SELECT * FROM employees'; END $$;", "42501"),
    fails("WITH customers AS (SELECT * FROM employees) SELECT * FROM customers;", "42501"),
    fails("SELECT query_to_xml('SELECT * FROM employees', true, false, '');", "42501"),
    ok("SELECT query_to_xml('SELECT id, city FROM customers WHERE id < 3', true, false, '');"),
    ok("BEGIN;"),
    fails("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE;", "42501"),
    fails("SELECT 1;", "25P02"),
    // PostgreSQL answers this with ROLLBACK, and no error.
    ok("COMMIT;"),
];

/// Who may do what.
const REVIEW: &[Step] = &[
    ok("SELECT current_user, session_user, current_database()"),
    ok("SELECT grantee, table_schema, table_name, privilege_type FROM information_schema.role_table_grants
WHERE grantee IN ('app_read', 'app_write', 'analyst') ORDER BY 1, 2, 3, 4"),
    ok("SELECT rolname, rolsuper, rolcanlogin FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY rolname"),
    ok(
        "SELECT r.rolname AS member, g.rolname AS of FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member JOIN pg_roles g ON g.oid = m.roleid WHERE r.rolname = 'app_write'",
    ),
    each(
        "SELECT has_table_privilege($1, $2, 'SELECT')",
        &[
            &[Text("app_read"), Text("public.customers")],
            &[Text("app_read"), Text("public.employees")],
            &[Text("analyst"), Text("public.customers")],
            &[Text("app_write"), Text("public.reviews")],
        ],
    ),
    each(
        "SELECT usename, application_name, state FROM pg_stat_activity WHERE datname = current_database() AND backend_type = $1",
        &[&[Text("client backend")]],
    ),
    each(
        "SELECT order_id, old_status, new_status, changed_by, changed_at FROM order_events WHERE changed_by = $1 ORDER BY id DESC LIMIT $2",
        &[&[Text("app_write"), Int(20)], &[Text("shop_owner"), Int(20)]],
    ),
    each_fails("SELECT salary FROM employees WHERE email = $1", &[&[Text("carol@example.com")]], "42501"),
    each_fails("SELECT id, $2::date FROM customers WHERE id = $1", &[&[Int(1), Text("31.02.2026")]], "22008"),
    ok("LISTEN access_review"),
    ok("NOTIFY access_review, 'done'"),
    ok("UNLISTEN *"),
];
