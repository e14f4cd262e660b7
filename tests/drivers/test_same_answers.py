"""Through the gateway and past it: the same statement, the same answer, down to the fields of errors."""

import re

import psycopg
import pytest
from psycopg import pq

STATEMENTS = [
    "select 1",
    "select 1 as a, 'x'::varchar(7) as b, null::numeric(10, 2) as c",
    "select * from customers order by id",
    "select * from orders order by id limit 5",
    "select country, count(*), min(email) from customers group by country order by country",
    "select c.name, o.total from customers c join orders o on o.customer_id = c.id order by o.id",
    "select * from customer_totals order by id limit 3",
    "select row_to_json(c) from customers c where id = 3",
    "select array_agg(id order by id) from customers",
    "select '\\x00ff'::bytea, 'NaN'::float8, 'infinity'::timestamptz, '{1,NULL,3}'::int[]",
    "select generate_series(1, 1000), repeat('é', 200)",
    "select 1 where false",
    "values (1, 'a'), (2, 'b')",
    "table customers",
    "with t as (select id from customers) select count(*) from t",
    "select E'a\\nb', U&'\\0061', $tag$ ' \" $tag$, 'it''s'",
    "explain (costs off) select * from customers where id = 1",
    "show search_path",
    "set local work_mem = '8MB'",
    "reset all",
    "begin; select 1; rollback",
    "select notify_me('world')",
    "",
    ";;",
    "-- only a comment",
    "select 1; select 2; select 3",
    "select 1; select 1/0; select 3",
    # Errors, with all their fields
    "select 1 / 0",
    "selec 1",
    "select nothing from customers",
    "select * from nowhere",
    "select 'abc'::int",
    "insert into customers (id, name, email) values (1, 'again', 'x')",
    "insert into orders values (999999, 999999, 1, now(), null)",
    "insert into customers (id) values (5000)",
    "drop table customers",
    "create role anybody",
    "select pg_read_file('/etc/passwd')",
    "do $$ begin raise exception 'custom' using errcode = 'P0042', detail = 'd', hint = 'h'; end $$",
    "commit",
    "select",
    "select * from (((select 1 as a) union all select 2)) s order by a",
    "select set_config('myapp.x', 'y', false), current_setting('myapp.x')",
    "prepare p as select 1; execute p; deallocate p",
    "begin; declare c cursor for select id from customers order by id; fetch 3 from c; close c; commit",
    "create temp table t_same (a int); insert into t_same values (1), (2) returning a + 0; drop table t_same",
    "update customers set country = country where id < 4 returning id, country",
    "delete from ledger where worker = -1",
    "merge into ledger l using (select -5 as w) s on l.worker = s.w when matched then delete",
    "select current_user, session_user, current_database()",
    "select \"id\" as \"Ärger \"\"x\"\"\" from customers limit 1",
]

FIELDS = [field for field in pq.DiagnosticField
          if field not in (pq.DiagnosticField.SOURCE_FILE, pq.DiagnosticField.SOURCE_LINE)]


def describe(result: pq.abc.PGresult) -> dict:
    """Everything a client can see of one result."""
    columns = range(result.nfields)
    return {
        "status": result.status,
        "tag": result.command_status,
        "columns": [(result.fname(i), result.ftype(i), result.fmod(i), result.fsize(i), result.fformat(i),
                     result.ftable(i), result.ftablecol(i)) for i in columns],
        "rows": [[result.get_value(row, column) for column in columns] for row in range(result.ntuples)],
        "error": {field.name: result.error_field(field) for field in FIELDS} if result.error_message else {},
    }


def simple(connection, text) -> list[dict]:
    wire = connection.pgconn
    wire.send_query(text.encode())
    return collect(wire)


def extended(connection, text, form) -> list[dict]:
    wire = connection.pgconn
    wire.send_query_params(text.encode(), [], result_format=form)
    return collect(wire)


def collect(wire) -> list[dict]:
    results = []
    while (result := wire.get_result()) is not None:
        results.append(describe(result))
    return results


class Pair:
    """The same client twice: past the gateway, and through it."""

    def __init__(self, direct, through):
        self.both = (direct, through)
        self.notices = ([], [])
        for connection, heard in zip(self.both, self.notices):
            connection.add_notice_handler(
                lambda notice, heard=heard: heard.append((notice.severity, notice.sqlstate, notice.message_primary)))

    def ask(self, way, text, *arguments):
        answers = []
        for connection, heard in zip(self.both, self.notices):
            heard.clear()
            answer = way(connection, text, *arguments)
            answers.append((answer, list(heard), connection.info.transaction_status))
            connection.pgconn.exec_(b"rollback")
            connection.pgconn.exec_(b"discard all")
        return answers


@pytest.fixture
def pair(cluster, connect):
    with psycopg.connect(cluster.dsn("app_write", "shop"), autocommit=True) as direct:
        yield Pair(direct, connect())


@pytest.mark.parametrize("text", STATEMENTS, ids=lambda text: text[:40] or "empty")
def test_a_simple_query_is_answered_the_same(pair, text):
    direct, through = pair.ask(simple, text)
    assert through == direct


@pytest.mark.parametrize("form", [pq.Format.TEXT, pq.Format.BINARY], ids=["text", "binary"])
@pytest.mark.parametrize("text", STATEMENTS, ids=lambda text: text[:40] or "empty")
def test_an_extended_query_is_answered_the_same(pair, text, form):
    direct, through = pair.ask(extended, text, form)
    assert through == direct


def test_the_session_parameters_are_the_same(pair):
    names = ["server_version", "server_encoding", "client_encoding", "is_superuser", "session_authorization",
             "DateStyle", "IntervalStyle", "TimeZone", "integer_datetimes", "standard_conforming_strings"]
    direct, through = ([connection.pgconn.parameter_status(name.encode()) for name in names]
                       for connection in pair.both)
    assert dict(zip(names, through)) == dict(zip(names, direct))
    # The one that differs: it tells the database who is there.
    direct, through = (connection.pgconn.parameter_status(b"application_name") for connection in pair.both)
    assert direct == b""
    assert re.fullmatch(rb"ann@example\.com [0-9a-f-]{18}", through)


def test_startup_parameters_reach_the_database(gateway, secrets_of):
    from support.gateway import PASSWORD_PROMPT, email

    options = f"{PASSWORD_PROMPT} -c statement_timeout=54321 -c search_path=pg_catalog"
    with psycopg.connect(gateway.dsn(email("ann")), password=secrets_of("ann"), options=options,
                         application_name="my app", client_encoding="LATIN1") as connection:
        assert connection.execute("show statement_timeout").fetchone() == ("54321ms",)
        connection.execute("set search_path to public")
        connection.execute("reset search_path")  # returns to what the startup packet said
        assert connection.execute("show search_path").fetchone() == ("pg_catalog",)
        [name] = connection.execute("show application_name").fetchone()
        assert re.fullmatch(r"my app ann@example\.com [0-9a-f-]{18}", name)
        assert connection.execute("show client_encoding").fetchone() == ("LATIN1",)


def test_letters_outside_utf8_pass_byte_for_byte(gateway, secrets_of, auditor, mark):
    with psycopg.connect(gateway.secret_dsn("ann@example.com", secrets_of("ann")),
                         client_encoding="LATIN1") as connection:
        result = connection.pgconn.exec_(b"select /* " + mark.encode() + b" */ 'caf\xe9'")
        assert result.get_value(0, 0) == b"caf\xe9"
    [record] = auditor.wait(mark)
    assert "caf" in record["sql"]
