-- The database that the statements of this corpus were asked in.
CREATE SCHEMA shop;
CREATE SCHEMA billing;
CREATE SCHEMA "Mixed Case";
CREATE TYPE shop.address AS (street text, city text);
CREATE TABLE shop.customers (
    id integer PRIMARY KEY, gone text, name text NOT NULL, email text UNIQUE, ssn text, home shop.address,
    tags text[], profile jsonb, created timestamptz DEFAULT now(), search text GENERATED ALWAYS AS (lower(email)) STORED);
ALTER TABLE shop.customers DROP COLUMN gone;
CREATE TABLE shop.products (id integer PRIMARY KEY, name text, price numeric, owner integer);
CREATE TABLE shop.orders (
    id integer PRIMARY KEY, customer_id integer REFERENCES shop.customers, product_id integer REFERENCES shop.products,
    quantity integer, placed date, note text, CONSTRAINT orders_once UNIQUE (customer_id, product_id, placed));
CREATE TABLE billing.cards (id integer PRIMARY KEY, customer_id integer, pan text, expires date);
CREATE TABLE "Mixed Case"."Odd Table" ("Id" integer, "a""b" text, plain text);
CREATE TABLE shop.tree (id integer, parent integer, label text);
CREATE TABLE shop.events (at timestamptz, kind text, payload jsonb) PARTITION BY RANGE (at);
CREATE TABLE shop.events_2026 PARTITION OF shop.events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE VIEW shop.customer_emails AS SELECT id, email FROM shop.customers WHERE ssn IS NOT NULL;
CREATE VIEW shop.big_orders AS
    SELECT o.id, c.name, o.quantity * p.price AS total
    FROM shop.orders o JOIN shop.customers c ON c.id = o.customer_id JOIN shop.products p ON p.id = o.product_id
    WHERE o.quantity > 10;
CREATE VIEW shop.big_names AS SELECT name, total FROM shop.big_orders;
CREATE MATERIALIZED VIEW shop.spending AS
    SELECT customer_id, sum(quantity) AS items FROM shop.orders GROUP BY customer_id;
CREATE FUNCTION shop.cheap(most numeric) RETURNS SETOF shop.products LANGUAGE sql STABLE
    AS 'SELECT * FROM shop.products WHERE price < most';
CREATE FUNCTION shop.double(n integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT n * 2';
CREATE FUNCTION shop.pair(OUT low integer, OUT high integer) LANGUAGE sql IMMUTABLE AS 'SELECT 1, 2';
CREATE FUNCTION shop.plain(word text) RETURNS text LANGUAGE sql VOLATILE AS 'SELECT lower(word)';
CREATE FUNCTION shop.count_orders() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM shop.orders';
CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TABLE shop.audited (id integer, note text);
CREATE TRIGGER audit BEFORE UPDATE ON shop.audited FOR EACH ROW EXECUTE FUNCTION shop.touch();
CREATE FUNCTION shop.watch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM shop.audited; RETURN NEW; END';
CREATE TABLE shop.watched (id integer, note text);
CREATE TRIGGER watch BEFORE UPDATE ON shop.watched FOR EACH ROW EXECUTE FUNCTION shop.watch();
CREATE UNIQUE INDEX customers_lower ON shop.customers (lower(email)) WHERE ssn IS NOT NULL;
