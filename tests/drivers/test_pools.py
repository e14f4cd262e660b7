"""Many connections of one person: pgbench and connection pools need one approval."""

import re
import secrets
import subprocess

import psycopg_pool
import sqlalchemy
from sqlalchemy import orm

from support.gateway import PASSWORD_PROMPT, email, link_and_code
from support.processes import HOST
from support.provider import Browser

ROLE = "app_write"


def pgbench(gateway, secret, *arguments, seconds=120):
    return subprocess.run(["pgbench", "-h", HOST, "-p", str(gateway.port), "-U", ROLE, *arguments, "shop"],
                          env=gateway.environment(secret), capture_output=True, text=True, timeout=seconds,
                          stdin=subprocess.DEVNULL)


def test_pgbench_with_eight_clients_needs_one_approval(gateway, provider, auditor):
    secret = secrets.token_urlsafe(32)
    asked = provider.approvals_asked()
    # pgbench itself shows the link: it is the first to come with this secret.
    process = subprocess.Popen(
        ["pgbench", "-h", HOST, "-p", str(gateway.port), "-U", ROLE, "-i", "-s", "1", "-q", "shop"],
        env=gateway.environment(secret), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        stdin=subprocess.DEVNULL)
    try:
        shown = ""
        while not link_and_code(shown):
            line = process.stderr.readline()
            assert line, f"pgbench ended without a link: {shown}"
            shown += line
        Browser("ann").approve(*link_and_code(shown))
        _, messages = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, messages
    for protocol in ("simple", "extended", "prepared"):
        run = pgbench(gateway, secret, "-n", "-c", "8", "-j", "2", "-T", "2", "-M", protocol)
        assert run.returncode == 0, run.stderr
        assert re.search(r"number of failed transactions: 0 ", run.stdout), run.stdout
    assert provider.approvals_asked() == asked + 1
    [copy] = [each for each in auditor.wait("table:pgbench_accounts command:COPY") if each["rows"]]
    assert copy["rows"] == 100_000
    assert copy["writes"]
    auditor.settle(120)  # tens of thousands of records: the tests that follow wait for their own only


def test_a_sqlalchemy_pool_of_twenty_needs_one_approval(gateway, provider, auditor, mark):
    asked = provider.approvals_asked()
    secret = gateway.pair("ann")
    engine = sqlalchemy.create_engine(
        sqlalchemy.URL.create("postgresql+psycopg", email("ann"), secret, HOST, gateway.port, "shop",
                              query={"options": PASSWORD_PROMPT}),
        pool_size=20, max_overflow=0, pool_pre_ping=True)
    try:
        connections = [engine.connect() for _ in range(20)]
        for number, connection in enumerate(connections):
            assert connection.execute(sqlalchemy.text(f"select /* {mark} */ :n + 0"), {"n": number}).scalar() == number
        for connection in connections:
            connection.close()
        with engine.begin() as connection:  # and once more from the pool
            assert connection.execute(sqlalchemy.text("select count(*) from customers")).scalar() == 40
    finally:
        engine.dispose()
    assert provider.approvals_asked() == asked + 1
    records = auditor.wait(mark, count=20)
    assert len(records) == 20
    assert len({each["session"] for each in records}) == 20
    assert {each["user"] for each in records} == {email("ann")}


def test_an_orm_session_reads_and_writes(gateway, secrets_of, auditor):
    engine = sqlalchemy.create_engine(
        sqlalchemy.URL.create("postgresql+psycopg", email("ann"), secrets_of("ann"), HOST, gateway.port, "shop",
                              query={"options": PASSWORD_PROMPT}))
    registry = orm.registry()
    metadata = sqlalchemy.MetaData()
    try:
        table = sqlalchemy.Table("customers", metadata, autoload_with=engine)  # reflection: catalog queries
        assert [column.name for column in table.columns] == ["id", "name", "email", "ssn", "country"]

        class Customer:
            pass

        registry.map_imperatively(Customer, table)
        with orm.Session(engine) as session:
            customer = session.get(Customer, 1)
            before = customer.name
            customer.name = "Renamed"
            session.commit()
            customer.name = before
            session.commit()
    finally:
        engine.dispose()
    records = auditor.wait("table:customers class:write", count=2)
    assert records[0]["command"] == "UPDATE"
    assert records[0]["writes"] == ["public.customers.name"]
    assert records[0]["txn_outcome"] == "committed"


def test_a_psycopg_pool_works(gateway, secrets_of, auditor, mark):
    dsn = gateway.secret_dsn(email("ann"), secrets_of("ann"))
    with psycopg_pool.ConnectionPool(dsn, min_size=4, max_size=4, timeout=20) as pool:
        pool.wait(20)
        for number in range(12):
            with pool.connection() as connection:
                assert connection.execute(f"select /* {mark} */ %s::int", [number]).fetchone() == (number,)
    assert len(auditor.wait(mark, count=12)) == 12
