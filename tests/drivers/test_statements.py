"""psycopg 3 through the gateway: every way to execute, and the record of each execution."""

import datetime
import decimal
import select
import socket
import threading
import time
import uuid

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from support.gateway import email


def one(records):
    assert len(records) == 1, [(each["seq"], each.get("sql")) for each in records]
    return records[0]


def in_order(records):
    return sorted(records, key=lambda record: record["seq"])


# Parameters

@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_parameters_are_recorded_by_their_types(connect, auditor, mark, binary):
    placeholder = "%b" if binary else "%t"
    kinds = ["int4", "int8", "float8", "bool", "text", "text", "text"]
    values = [7, 2**40, 1.5, True, "grüße", "", None]
    text = f"select /* {mark} */ " + ", ".join(f"{placeholder}::{kind}" for kind in kinds)
    with connect().cursor(binary=binary) as cursor:
        assert list(cursor.execute(text, values).fetchone()) == values
    record = one(auditor.wait(mark))
    assert record["params"] == values


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_richer_types_pass_unchanged(connect, auditor, mark, binary):
    values = [decimal.Decimal("12.50"), datetime.date(2026, 2, 3), uuid.UUID(int=7), b"\x00\xff",
              datetime.datetime(2026, 2, 3, 4, 5, tzinfo=datetime.timezone.utc), [1, 2, 3]]
    kinds = ["numeric", "date", "uuid", "bytea", "timestamptz", "int4[]"]
    placeholder = "%b" if binary else "%t"
    text = f"select /* {mark} */ " + ", ".join(f"{placeholder}::{kind}" for kind in kinds)
    with connect().cursor(binary=binary) as cursor:
        assert list(cursor.execute(text, values).fetchone()) == values
        assert cursor.execute("select %s::jsonb", [Jsonb({"a": [1, None]})]).fetchone() == ({"a": [1, None]},)
    record = one(auditor.wait(mark))
    assert len(record["params"]) == len(values)
    assert record["params"][2].replace("-", "") == values[2].hex  # psycopg sends its text without dashes


def test_null_is_not_the_empty_string(connect, auditor, mark):
    connect().execute(f"select /* {mark} */ %s::text is null, %s::text is null", [None, ""])
    assert one(auditor.wait(mark))["params"] == [None, ""]


# Statements and portals

def test_a_prepared_statement_has_one_record_for_each_execution(connect, auditor, mark):
    connection = connect()
    for number in range(10):
        connection.execute(f"select /* {mark} */ name from customers where id = %s", [number + 1], prepare=True)
    records = in_order(auditor.wait(mark, count=10))
    assert len(records) == 10
    assert [record["params"] for record in records] == [[number + 1] for number in range(10)]
    assert len({record["fingerprint"] for record in records}) == 1
    assert {record["rows"] for record in records} == {1}


def test_parsing_alone_is_not_an_execution(connect, auditor, mark):
    connection = connect()
    connection.pgconn.prepare(b"kept", f"select /* {mark} */ ssn from customers".encode())
    connection.pgconn.describe_prepared(b"kept")
    connection.execute("select 1")
    auditor.settle()
    assert auditor.search(f"event:query {mark}") == []
    connection.pgconn.exec_prepared(b"kept", [])
    assert one(auditor.wait(f"event:query {mark}"))["rows"] == 40


def test_executemany_has_one_record_for_each_row_of_parameters(connect, auditor, mark):
    with connect().cursor() as cursor:
        cursor.executemany(f"insert into ledger values (1, %s, '{mark}')", [(n,) for n in range(25)])
        assert cursor.rowcount == 25
    records = auditor.wait(mark, count=25)
    assert len(records) == 25
    assert sorted(record["params"][0] for record in records) == list(range(25))
    assert {(record["rows"], record["command"], record["outcome"]) for record in records} == {(1, "INSERT", "ok")}
    assert {tuple(record["writes"]) for record in records} == {
        ("public.ledger.n", "public.ledger.note", "public.ledger.worker")}


BEFORE_EXECUTION = [
    ("select /* {} */ $1::int from pg_authid", "42501"),  # permission denied: when the portal starts
    ("select /* {} */ 1 / ($1::int - 1)", "22012"),  # while planning
    ("select /* {} */ nothing + $1::int from customers", "42703"),  # while parsing
    ("selec /* {} */ $1", "42601"),
    ("select /* {} */ * from nowhere where $1::int = 1", "42P01"),
]


@pytest.mark.parametrize("text, sqlstate", BEFORE_EXECUTION, ids=[each[1] for each in BEFORE_EXECUTION])
def test_an_extended_query_that_fails_before_it_runs_is_an_error(connect, auditor, mark, text, sqlstate):
    result = connect().pgconn.exec_params(text.format(mark).encode(), [b"1"])
    assert result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == sqlstate.encode()
    record = one(auditor.wait(mark))
    assert (record["outcome"], record["sqlstate"], record["txn_outcome"]) == ("error", sqlstate, "rolled_back")
    assert record["error"]


def test_a_pipeline_with_an_error_says_which_ran_and_which_were_skipped(connect, auditor, mark):
    connection = connect()
    texts = ["1", "2", "1 / 0", "4", "5"]
    with pytest.raises(psycopg.errors.DivisionByZero), connection.pipeline() as pipeline:
        for text in texts:
            connection.execute(f"select /* {mark} */ {text}", prepare=False)
        pipeline.sync()
    records = in_order(auditor.wait(mark, count=5))
    assert [record["outcome"] for record in records] == ["ok", "ok", "error", "skipped", "skipped"]
    assert records[2]["sqlstate"] == "22012"
    assert {record["txn_outcome"] for record in records[:3]} == {"rolled_back"}


def test_a_pipeline_without_errors_is_recorded_in_order(connect, auditor, mark):
    connection = connect()
    with connection.pipeline():
        cursors = [connection.execute(f"select /* {mark} */ %s::int", [number]) for number in range(50)]
    assert [cursor.fetchone()[0] for cursor in cursors] == list(range(50))
    records = in_order(auditor.wait(mark, count=50))
    assert [record["params"] for record in records] == [[number] for number in range(50)]
    assert {record["outcome"] for record in records} == {"ok"}


def test_a_row_limit_and_its_resumption_are_one_execution(gateway, secrets_of, auditor, mark):
    import struct

    from support.gateway import PASSWORD_PROMPT
    from support.wire import Wire

    with Wire(gateway.port) as wire:
        seen = wire.log_in(secrets_of("ann"), user=email("ann"), database="shop", options=PASSWORD_PROMPT)
        assert seen[-1].kind == "Z", seen
        wire.message("P", b"\0" + f"select /* {mark} */ id from orders".encode() + b"\0\0\0")
        wire.message("B", b"\0\0" + b"\0\0" * 3)
        for _ in range(3):
            wire.message("E", b"\0" + struct.pack("!i", 50))
        wire.message("S")
        kinds = [message.kind for message in wire.until("Z")]
    assert kinds.count("D") == 120
    assert kinds.count("s") == 2
    assert kinds.count("C") == 1
    assert one(auditor.wait(mark))["rows"] == 120


def test_a_server_side_cursor_says_what_each_fetch_took(connect, auditor, mark):
    connection = connect(autocommit=False)
    with connection.cursor(name=f"c_{mark}") as cursor:
        cursor.execute(f"select /* {mark} */ email from customers order by id")
        assert len(cursor.fetchmany(15)) == 15
        assert len(cursor.fetchall()) == 25
    connection.commit()
    declared = auditor.wait(f"column:customers.email {mark}")
    assert any(record["sql"].startswith("DECLARE") for record in declared)
    fetches = in_order(record for record in auditor.wait(f"c_{mark}", count=3) if "FETCH" in record["sql"].upper())
    assert sum(record["rows"] for record in fetches) == 40


# Transactions

def test_commit_and_rollback_decide_what_became_of_a_statement(connect, auditor, mark):
    connection = connect(autocommit=False)
    connection.execute(f"insert /* kept */ into ledger values (2, 1, '{mark}')")
    connection.commit()
    connection.execute(f"insert /* undone */ into ledger values (2, 2, '{mark}')")
    connection.rollback()
    kept = one(auditor.wait(f"{mark} kept"))
    assert (kept["outcome"], kept["txn_outcome"]) == ("ok", "committed")
    undone = one(auditor.wait(f"{mark} undone"))
    assert (undone["outcome"], undone["txn_outcome"]) == ("ok", "rolled_back")


def test_a_savepoint_undoes_only_what_came_after_it(connect, auditor, mark):
    connection = connect(autocommit=False)
    connection.execute(f"insert /* before */ into ledger values (3, 1, '{mark}')")
    connection.execute("savepoint here")
    connection.execute(f"insert /* within */ into ledger values (3, 2, '{mark}')")
    connection.execute("rollback to savepoint here")
    connection.execute(f"insert /* after */ into ledger values (3, 3, '{mark}')")
    connection.commit()
    outcomes = {word: one(auditor.wait(f"{mark} {word}"))["txn_outcome"] for word in ("before", "within", "after")}
    assert outcomes == {"before": "committed", "within": "rolled_back", "after": "committed"}


def test_commit_of_a_failed_transaction_is_a_rollback(connect, auditor, mark):
    connection = connect()
    connection.execute("begin")
    connection.execute(f"insert /* good */ into ledger values (4, 1, '{mark}')")
    with pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute(f"select /* {mark} bad */ * from no_such_table")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        connection.execute(f"select /* {mark} late */ 1")
    connection.execute("commit")
    assert one(auditor.wait(f"{mark} good"))["txn_outcome"] == "rolled_back"
    bad = one(auditor.wait(f"{mark} bad"))
    assert (bad["outcome"], bad["sqlstate"], bad["txn_outcome"]) == ("error", "42P01", "rolled_back")
    assert "no_such_table" in bad["error"]
    assert one(auditor.wait(f"{mark} late"))["sqlstate"] == "25P02"


def test_a_statement_string_ends_at_its_first_error(connect, auditor, mark):
    connection = connect()
    result = connection.pgconn.exec_(
        f"insert into ledger values (5, 1, '{mark}'); select /* {mark} */ 1/0; select /* {mark} */ 3".encode())
    assert result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"22012"
    records = in_order(auditor.wait(mark, count=3))
    assert [record["outcome"] for record in records] == ["ok", "error", "skipped"]
    assert records[0]["txn_outcome"] == "rolled_back"
    assert connection.execute("select count(*) from ledger where note = %s", [mark]).fetchone() == (0,)


def test_a_statement_string_has_one_record_for_each_statement(connect, auditor, mark):
    cursor = connect().execute(f"select /* {mark} */ 1; select /* {mark} */ email from customers; ; select /* {mark} */ 3")
    sets = []
    while True:
        sets.append(len(cursor.fetchall()))
        if not cursor.nextset():
            break
    assert sets == [1, 40, 1]
    records = in_order(auditor.wait(mark, count=3))
    assert [record["rows"] for record in records] == [1, 40, 1]
    assert [record["tables"] for record in records] == [[], ["public.customers"], []]


@pytest.mark.parametrize("text", ["/* {} first */ select 1", "select 1 /* {} last */", "  select 1 -- {} line\n ;"])
def test_the_recorded_text_is_exact_with_its_comments(connect, auditor, mark, text):
    connection = connect()
    text = text.format(mark)
    connection.pgconn.exec_(text.encode())
    connection.pgconn.exec_params(text.encode(), [])
    simple, extended = in_order(auditor.wait(mark, count=2))
    assert simple["sql"].strip("; \n") == text.strip("; \n")
    assert extended["sql"] == text


def test_empty_queries_are_answered(connect, gateway):
    connection = connect()
    for text in (b"", b" ", b";", b"-- nothing", b"/* nothing */"):
        assert connection.pgconn.exec_(text).status == psycopg.pq.ExecStatus.EMPTY_QUERY
        assert connection.pgconn.exec_params(text, []).status == psycopg.pq.ExecStatus.EMPTY_QUERY
    assert connection.execute("select 1").fetchone() == (1,)


# COPY

def test_copy_in_counts_rows_and_bytes(connect, auditor, mark):
    rows = [(6, number, mark) for number in range(5000)]
    with connect().cursor() as cursor:
        with cursor.copy("copy ledger (worker, n, note) from stdin") as copy:
            for row in rows:
                copy.write_row(row)
        assert cursor.rowcount == 5000
    record = one([each for each in auditor.wait("table:ledger command:COPY class:write") if each["rows"] == 5000])
    assert record["outcome"] == "ok"
    assert record["bytes"] >= 5000 * len(mark)
    assert record["writes"] == ["public.ledger.n", "public.ledger.note", "public.ledger.worker"]


@pytest.mark.parametrize("form", ["text", "csv", "binary"])
def test_copy_out_counts_rows_and_bytes(connect, auditor, mark, form):
    text = f"copy /* {mark} */ (select email from customers) to stdout (format {form})"
    with connect().cursor() as cursor, cursor.copy(text) as copy:
        data = b"".join(copy)
    assert b"c7@example.org" in data
    record = one(auditor.wait(mark))
    assert (record["rows"], record["outcome"], record["reads"]) == (40, "ok", ["public.customers.email"])
    assert record["bytes"] == pytest.approx(len(data), abs=400)


def test_a_copy_that_the_client_breaks_off_is_an_error(connect, auditor, mark):
    connection = connect()
    with pytest.raises(ZeroDivisionError):
        with connection.cursor() as cursor, cursor.copy(f"copy /* {mark} */ ledger from stdin") as copy:
            copy.write("7\t1\tx\n")
            raise ZeroDivisionError  # psycopg sends CopyFail
    record = one(auditor.wait(mark))
    assert record["outcome"] in ("error", "canceled")
    assert record["sqlstate"] == "57014"
    assert connection.execute("select 1").fetchone() == (1,)


def test_a_copy_with_bad_data_is_an_error(connect, auditor, mark):
    connection = connect()
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        with connection.cursor() as cursor, cursor.copy(f"copy /* {mark} */ ledger (worker) from stdin") as copy:
            for _ in range(10_000):
                copy.write("not a number\n")
    record = one(auditor.wait(mark))
    assert (record["outcome"], record["sqlstate"]) == ("error", "22P02")
    assert connection.execute("select 1").fetchone() == (1,)


# Cancel, notifications, notices

def test_a_cancelled_statement_is_recorded_as_cancelled(connect, auditor, mark):
    connection = connect()
    timer = threading.Timer(0.5, connection.cancel)
    timer.start()
    begun = time.monotonic()
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute(f"select /* {mark} */ pg_sleep(20)")
    timer.join()
    assert time.monotonic() - begun < 10
    record = one(auditor.wait(mark))
    assert (record["outcome"], record["sqlstate"]) == ("canceled", "57014")
    assert auditor.wait(f"event:cancel session:{record['session']}")
    assert connection.execute("select 1").fetchone() == (1,)


def test_a_cancel_with_a_wrong_key_stops_nobody(connect, gateway):
    import struct

    connection = connect()
    done = threading.Event()

    def sleep():
        connection.execute("select pg_sleep(1.5)")
        done.set()

    worker = threading.Thread(target=sleep)
    worker.start()
    time.sleep(0.3)
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as wire:
        wire.sendall(struct.pack("!iiii", 16, 80877102, connection.info.backend_pid, 12345))
        select.select([wire], [], [], 5)
    worker.join(10)
    assert done.is_set()


def test_the_backend_process_is_the_real_one(connect):
    connection = connect()
    assert connection.execute("select pg_backend_pid()").fetchone() == (connection.info.backend_pid,)


def test_notifications_arrive_while_idle(connect):
    listener, speaker = connect(), connect()
    listener.execute("listen news")
    speaker.execute("select pg_notify('news', 'hello')")
    [heard] = listener.notifies(timeout=5, stop_after=1)
    assert (heard.channel, heard.payload, heard.pid) == ("news", "hello", speaker.info.backend_pid)


def test_notices_arrive_with_the_statement(connect):
    connection = connect()
    heard = []
    connection.add_notice_handler(lambda notice: heard.append((notice.severity, notice.message_primary)))
    connection.execute("select notify_me('world')")
    assert heard == [("NOTICE", "hello world"), ("WARNING", "careful world")]


# Sizes

def test_a_large_result_passes_whole(connect, auditor, mark):
    with connect().cursor() as cursor:
        cursor.execute(f"select /* {mark} */ n, repeat('x', 100) from generate_series(1, 200000) n")
        total = sum(len(text) for _, text in cursor)
    assert total == 20_000_000
    record = one(auditor.wait(mark))
    assert record["rows"] == 200_000
    assert record["bytes"] >= 20_000_000


def test_a_large_row_and_a_large_parameter_pass_whole(connect):
    connection = connect()
    assert connection.execute("select length(repeat('y', 30000000)), repeat('y', 30000000)").fetchone()[0] == 30_000_000
    text = "z" * 4_000_000
    assert connection.execute("select md5(%s) = md5(repeat('z', 4000000))", [text]).fetchone() == (True,)


def test_a_long_statement_passes_and_is_recorded(connect, auditor, mark):
    numbers = ", ".join(map(str, range(100_000)))
    cursor = connect().execute(f"select /* {mark} */ count(*) from customers where id in ({numbers})")
    assert cursor.fetchone() == (40,)
    record = one(auditor.wait(mark))
    assert len(record["sql"]) > 500_000
    assert (record["outcome"], record["analysis"], record["tables"]) == ("ok", "exact", ["public.customers"])


# Tables and columns, in a few everyday shapes

SHAPES = [
    ("select * from customers",
     ["public.customers"],
     [f"public.customers.{name}" for name in ("country", "email", "id", "name", "ssn")], []),
    ("select c.email from customers c join orders o on o.customer_id = c.id where o.total > 20",
     ["public.customers", "public.orders"], ["public.customers.email"],
     ["public.customers.id", "public.orders.customer_id", "public.orders.total"]),
    ("with big as (select id from orders where total > 100) select count(*) from big",
     ["public.orders"], None, None),
    ("select total from customer_totals where id = 1",
     ["public.customer_totals", "public.customers", "public.orders"], None, None),
]


@pytest.mark.parametrize("text, tables, reads, filters", SHAPES, ids=["star", "join", "cte", "view"])
def test_tables_and_columns_are_those_of_the_database(connect, auditor, mark, text, tables, reads, filters):
    connect().execute(text.replace("select", f"select /* {mark} */", 1))
    record = one(auditor.wait(mark))
    assert record["analysis"] == "exact"
    assert record["tables"] == tables
    if reads is not None:
        assert record["reads"] == reads
    if filters is not None:
        assert record["filters"] == filters


def test_the_search_path_decides_which_table_is_meant(connect, auditor, mark):
    connection = connect()
    connection.execute("set search_path to other, public")
    connection.execute(f"select /* {mark} */ * from customers")
    record = one(auditor.wait(mark))
    assert record["tables"] == ["other.customers"]
    assert record["search_path"].replace(" ", "").startswith("other,public")


def test_a_table_made_a_moment_ago_is_known(connect, auditor, mark):
    connection = connect()
    connection.execute(sql.SQL("create table {} (a int, b text)").format(sql.Identifier(mark)))
    connection.execute(sql.SQL("select /* fresh */ * from {}").format(sql.Identifier(mark)))
    connection.execute(sql.SQL("drop table {}").format(sql.Identifier(mark)))
    record = one(auditor.wait(f"table:{mark} class:read"))
    assert record["reads"] == [f"public.{mark}.a", f"public.{mark}.b"]


def test_what_cannot_be_parsed_is_recorded_as_unresolved(connect, auditor, mark):
    with pytest.raises(psycopg.errors.SyntaxError):
        connect().execute(f"selec /* {mark} */ 1")
    record = one(auditor.wait(mark))
    assert (record["outcome"], record["sqlstate"], record["analysis"]) == ("error", "42601", "unresolved")


def test_the_role_that_acts_is_recorded(connect, auditor, mark):
    connection = connect("ann", role="app_read")
    connection.execute(f"select /* {mark} */ 1")
    record = one(auditor.wait(mark))
    assert (record["role"], record["user"]) == ("app_read", email("ann"))
