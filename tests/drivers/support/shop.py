"""The sample database: customers, orders, a view, and the roles that applications use."""

from .cluster import Cluster

ROLES = ["app_read", "app_write", "app_admin"]
CUSTOMERS = 40
ORDERS = 120

SCHEMA = f"""
create table customers (
    id int primary key, name text not null, email text not null, ssn text, country text not null default 'DE');
create table orders (
    id int primary key, customer_id int not null references customers (id), total numeric(10, 2) not null,
    placed timestamptz not null, note text);
create view customer_totals as
    select c.id, c.name, sum(o.total) as total from customers c join orders o on o.customer_id = c.id
    group by c.id, c.name;
create schema other;
create table other.customers (id int, secret text);
create table ledger (worker int not null, n int not null, note text);
insert into customers
    select i, 'Customer ' || i, 'c' || i || '@example.org', '000-00-' || lpad(i::text, 4, '0'),
           (array['DE', 'FR', 'PL'])[1 + i % 3]
    from generate_series(1, {CUSTOMERS}) i;
insert into orders
    select i, 1 + i % {CUSTOMERS}, 10 + i, timestamptz '2026-01-01 00:00 UTC' + i * interval '1 hour', null
    from generate_series(1, {ORDERS}) i;
create function notify_me(word text) returns void language plpgsql as
    $$ begin raise notice 'hello %', word; raise warning 'careful %', word; end $$;
grant select on all tables in schema public to app_read, app_write;
grant insert, update, delete on customers, orders, ledger to app_write;
grant usage on schema other to app_write;
grant select on other.customers to app_write;
grant usage, create on schema public to app_write;
"""


def build(cluster: Cluster) -> None:
    """Makes the roles and the database `shop`."""
    for role in ROLES:
        cluster.add_role(role, f"secret-of-{role}")
    cluster.psql("create database shop")
    cluster.psql(SCHEMA, "shop")
