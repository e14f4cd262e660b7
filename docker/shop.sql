-- Roles that the gateway logs in with (their password is role.password), and something to look at.
create role app_write login password 'try-only';
create role app_read login password 'try-only';
create table customers (id int primary key, name text not null, email text not null, country text not null);
create table orders (id int primary key, customer_id int not null references customers (id), total numeric(10, 2) not null);
insert into customers
    select i, 'Customer ' || i, 'c' || i || '@example.org', (array['DE', 'FR', 'PL'])[1 + i % 3]
    from generate_series(1, 40) i;
insert into orders select i, 1 + i % 40, 10 + i from generate_series(1, 120) i;
grant select on customers, orders to app_read, app_write;
grant insert, update, delete on customers, orders to app_write;
