"""One session of a driver: statements prepared by the protocol live on while names change their meaning; pipelines are read before
what stands before them has run. PGHOST and the like say where, with objects.sql in the database."""

import psycopg

LOOKS = ["select quantity from orders limit 1", "select * from orders limit 1", "select o from orders o limit 1"]
CHANGES = [
    "create temp table orders (quantity text, mine integer)",
    "drop table pg_temp.orders",
    "create table \"Odd Schema\".orders (odd integer, quantity integer)",
    "set search_path = \"Odd Schema\", shop",
    "alter table \"Odd Schema\".orders rename odd to even",
    "alter table \"Odd Schema\".orders add column more text, drop column even",
    "set search_path = shop",
    "set search_path = \"Odd Schema\"",
    "drop table \"Odd Schema\".orders cascade",
    "set search_path = shop, public",
    "create or replace view names as select id, name, email, note from customers",
    "create temp view orders as select stock as quantity, code from shop.products",
    "create or replace temp view orders as select stock as quantity, code, price from shop.products",
    "drop view pg_temp.orders",
]


def tried(connection: psycopg.Connection, statement: str, prepare: bool | None = None) -> None:
    try:
        cursor = connection.execute(statement, prepare=prepare)
        print(statement, "|", cursor.statusmessage)
    except psycopg.Error as error:
        print(statement, "|", type(error).__name__)


def main() -> None:
    with psycopg.connect(autocommit=True, prepare_threshold=1) as connection:
        tried(connection, "set search_path = shop, public")
        for _ in range(3):
            for look in LOOKS:
                tried(connection, look)
        for change in CHANGES:
            tried(connection, change, prepare=False)
            for look in [*LOOKS, "select * from names limit 1"]:
                tried(connection, look, prepare=True)
        for end in ("commit", "rollback"):
            tried(connection, "begin")
            for change in CHANGES:
                tried(connection, "savepoint before")
                tried(connection, change, prepare=False)
                for look in LOOKS:
                    tried(connection, "savepoint looking")
                    tried(connection, look, prepare=True)
                    tried(connection, "rollback to looking")
            tried(connection, end)
            for look in LOOKS:
                tried(connection, look, prepare=True)
    with psycopg.connect(autocommit=True) as connection:
        with connection.pipeline() as pipeline:
            connection.execute("set search_path = shop, public")
            connection.execute("create temp table piped (a integer, b text)")
            connection.execute("insert into piped values (1, 'x') returning b")
            connection.execute("select b from piped")
            connection.execute("select quantity from orders limit 1")
            connection.execute("create temp table orders (mine text)")
            connection.execute("select mine from orders")
            connection.execute("alter table piped rename b to c")
            connection.execute("select c, piped from piped")
            pipeline.sync()
            connection.execute("drop table pg_temp.orders")
            connection.execute("select quantity from orders limit 1")
            connection.execute("set search_path = \"Odd Schema\"")
            connection.execute("select \"Id\" from \"Odd Table\"")
            pipeline.sync()
            with connection.transaction():
                connection.execute("set local search_path = shop")
                connection.execute("alter table products rename code to label")
                connection.execute("select label from products limit 1")
                connection.execute("update products set label = label where id = 1 returning stock")
                raise psycopg.Rollback
        print(connection.execute("select count(code) from shop.products").fetchone())


main()
