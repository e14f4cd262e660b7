-- Objects of every kind, for programs that look at catalogs.
create role reader;
create role writer in role reader;
create schema shop authorization postgres;
create schema "Odd Schema";
comment on schema shop is 'what is sold';
create extension if not exists hstore;
create extension if not exists citext with schema shop;
create extension if not exists postgres_fdw;
create extension if not exists file_fdw;
set search_path = shop, public;

create type mood as enum ('sad', 'ok', 'happy');
create type address as (street text, city varchar(40), zip char(5));
create type floats as range (subtype = float8, subtype_diff = float8mi);
create domain positive as numeric(12, 2) check (value > 0) default 1 not null;
create domain mail as citext constraint has_at check (value ~ '@');
create collation german (provider = libc, locale = 'C.UTF-8');
create sequence numbers as bigint start 100 increment 5 minvalue 100 maxvalue 100000 cache 3 cycle;

create table customers (
    id bigint generated always as identity primary key, name text not null, email mail unique, home address,
    tags text[] default '{}', feeling mood default 'ok', profile jsonb, extra hstore, born date, photo bytea,
    longer text generated always as (upper(name)) stored, created timestamptz default now(), note text collate german,
    constraint named check (length(name) > 0) no inherit
);
comment on table customers is 'who buys';
comment on column customers.email is 'where to reach them';
create table products (id serial primary key, code varchar(20) not null, price positive, weight real, stock integer default 0,
    constraint products_code unique (code) deferrable initially deferred);
create table orders (id bigserial primary key, customer_id bigint not null references customers on delete cascade,
    product_id integer references products (id) match full on update set null, quantity integer check (quantity > 0),
    placed timestamp(3) default localtimestamp);
create table parts (order_id bigint, line integer, body xml, span int4range, at point, primary key (order_id, line),
    constraint of_order foreign key (order_id) references orders not valid, exclude using gist (span with &&));
create table events (at timestamptz not null, kind text, payload json) partition by range (at);
create table events_2025 partition of events for values from ('2025-01-01') to ('2026-01-01');
create table events_2026 partition of events for values from ('2026-01-01') to ('2027-01-01') partition by list (kind);
create table events_2026_a partition of events_2026 for values in ('a');
create table events_rest partition of events default;
create index on events (at, kind);
create table base (a integer not null, b text);
create table derived (c integer) inherits (base) with (fillfactor = 70);
create unlogged table scratch (x integer);
create table "Odd Schema"."Odd Table" ("Id" integer primary key, "a ""b" text, "select" integer);
create table typed of address (primary key (street));
create table dropped (a integer, b integer, c integer);
alter table dropped drop column b;

create index customers_lower on customers (lower(name) text_pattern_ops desc nulls last) include (born) where name <> '';
create index customers_tags on customers using gin (tags);
create index customers_hash on customers using hash (feeling);
create unique index products_price on products (price, stock, id) nulls not distinct;
create statistics customers_stats (ndistinct, dependencies, mcv) on name, feeling from customers;
create statistics customers_names on (lower(name)), born from customers;
alter table customers cluster on customers_pkey;
alter table products replica identity using index products_pkey;
alter table customers alter column name set statistics 500, alter column name set (n_distinct = -0.5);
alter table customers alter column profile set storage external;

create view names as select id, name, email from customers where name <> '' with local check option;
comment on view names is 'the short list';
create recursive view counting (n) as values (1) union all select n + 1 from counting where n < 3;
create materialized view totals as select customer_id, sum(quantity) as items from orders group by customer_id;
create unique index on totals (customer_id);
create rule log_names as on update to names do also notify names;
create rule no_delete as on delete to derived do instead nothing;

create function total(customer bigint) returns bigint language sql stable strict parallel safe cost 10
    as 'select sum(quantity) from shop.orders where customer_id = $1';
create function pair(out low integer, out high integer) language sql as 'select 1, 2';
create function listing(variadic names text[] default '{}') returns table (id bigint, name text) language sql rows 7 as
    'select id, name from shop.customers where name = any ($1)';
create function touch() returns trigger language plpgsql security definer set search_path = shop as
    $$ begin new.created := now(); return new; end $$;
create function silent() returns trigger language plpgsql as $$ begin return null; end $$;
create function watch() returns event_trigger language plpgsql as $$ begin null; end $$;
create function cursors() returns setof refcursor language plpgsql as
    $$ declare c refcursor; begin open c for select id, name from shop.customers; return next c; end $$;
create procedure restock(product integer, inout amount integer) language plpgsql as
    $$ begin update shop.products set stock = stock + amount where id = product returning stock into amount; end $$;
create aggregate longest (text) (sfunc = textcat, stype = text, initcond = '');
create function later(integer, integer) returns boolean language sql immutable as 'select $1 > $2';
create operator >>>> (leftarg = integer, rightarg = integer, procedure = later, commutator = operator (shop.<<<<));
create operator family odd_ops using btree;
create operator class odd for type integer using btree family odd_ops as operator 1 <, operator 2 <=, operator 3 =,
    operator 4 >=, operator 5 >, function 1 btint4cmp(integer, integer);
create conversion odd_conversion for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8;
create trigger touched before insert or update of name, email on customers for each row when (new.name <> '') execute function touch();
create constraint trigger checked after insert on orders deferrable initially deferred for each row execute function silent();
create event trigger watching on ddl_command_start when tag in ('CREATE TABLE') execute function watch();
create text search dictionary plain (template = pg_catalog.simple, stopwords = english);
create text search configuration searching (copy = pg_catalog.english);
create text search parser odd_parser (start = prsd_start, gettoken = prsd_nexttoken, end = prsd_end, lextypes = prsd_lextype);
create text search template odd_template (init = dsimple_init, lexize = dsimple_lexize);

create server files foreign data wrapper file_fdw;
create server elsewhere type 'postgres' version '15' foreign data wrapper postgres_fdw options (host '127.0.0.1', dbname 'none');
create user mapping for reader server elsewhere options (user 'nobody');
create foreign table passwd (line text options (force_not_null 'true')) server files options (filename '/etc/passwd', delimiter E'\x01');

alter table customers enable row level security;
create policy own on customers as permissive for select to reader using (name = current_user);
create policy not_sad on customers as restrictive to public using (feeling <> 'sad') with check (true);
grant usage on schema shop to reader;
grant select on all tables in schema shop to reader;
grant update (name, email), insert on customers to writer with grant option;
grant execute on function total to reader;
alter default privileges in schema shop grant select on tables to reader;
alter role reader in database :"DBNAME" set search_path = shop;
create publication chosen for table customers (id, name) where (id > 0), products with (publish = 'insert');
create publication everything for all tables with (publish = 'insert');
create publication of_schema for tables in schema shop with (publish = 'insert, truncate');
create subscription never connection 'host=127.0.0.1 dbname=none' publication chosen with (connect = false);
do $$ begin perform lo_create(4711); end $$;
comment on large object 4711 is 'large';
insert into products (code, price) values ('p1', 1), ('p2', 2), ('p3', 3);
insert into customers (name, email) select 'c' || i, 'c' || i || '@example.com' from generate_series(1, 250) i;
insert into orders (customer_id, product_id, quantity) select 1 + i % 200, 1 + i % 3, 1 + i from generate_series(1, 500) i;
refresh materialized view totals;
analyze;
