"""Ten thousand mixed statements: one record for each execution, no more and no fewer.

What was executed is told by the server's own statement log, not by the gateway.
"""

import collections
import concurrent.futures
import random
import subprocess

import psycopg
import pytest

from support.gateway import email
from support.processes import HOST

PGBENCH_CLIENTS = 8
PGBENCH_TRANSACTIONS = 60
PSYCOPG_WORKERS = 4
PSYCOPG_ROUNDS = 65


def contiguous(records):
    """The sequence numbers have neither holes nor doubles."""
    numbers = [record["seq"] for record in records]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len({record["id"] for record in records}) == len(records)


def script(folder, mark):
    """One pgbench transaction of seven statements; \\set makes each text or parameter differ."""
    path = folder / "mixed.sql"
    path.write_text("\n".join([
        "\\set id random(1, 40)",
        f"begin /* {mark} */ read write;",
        f"select /* {mark} */ email from customers where id = :id;",
        f"insert into ledger values (:client_id, :id, '{mark}');",
        f"update /* {mark} */ customers set country = country where id = :id;",
        f"select /* {mark} */ count(*) from orders where customer_id = :id;",
        f"end /* {mark} */ work;",
        f"select /* {mark} */ total from customer_totals where id = :id;",
    ]))
    return path


def run_pgbench(gateway, secret, path, protocol):
    done = subprocess.run(
        ["pgbench", "-n", "-f", str(path), "-M", protocol, "-c", str(PGBENCH_CLIENTS), "-j", "2",
         "-t", str(PGBENCH_TRANSACTIONS), "-h", HOST, "-p", str(gateway.port), "-U", "app_write", "shop"],
        env=gateway.environment(secret), capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr


def simple_texts(mark, number):
    return [f"select /* {mark} */ {number}", f"select /* {mark} */ id from customers where id < {number % 40}"]


def work(gateway, secret, mark, worker):
    """One psycopg client that does everything by turns."""
    chance = random.Random(worker)
    dsn = gateway.secret_dsn("app_write", secret)
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=3) as connection:
        for number in range(PSYCOPG_ROUNDS):
            for text in simple_texts(mark, number):
                connection.execute(text, prepare=False)
            connection.execute(f"select /* {mark} */ %s::int + 1", [number])
            with connection.transaction(force_rollback=chance.random() < 0.5):
                connection.execute(f"insert into ledger values (%s, %s, '{mark}')", [worker, number])
            with connection.pipeline():
                for each in range(3):
                    connection.execute(f"select /* {mark} */ %s::int", [each])
            with pytest.raises(psycopg.errors.DivisionByZero):
                connection.execute(f"select /* {mark} */ 1 / (n - 1) from generate_series(1, %s::int) n", [1])
            with connection.cursor() as cursor:
                cursor.executemany(f"select /* {mark} */ %s::text", [("a",), (None,)])
                with cursor.copy(f"copy /* {mark} */ (select id from customers where id < 5) to stdout") as copy:
                    assert len(list(copy.rows())) == 4
                cursor.execute(f"select /* {mark} */ 1", binary=True)
            connection.pgconn.exec_(f"select /* {mark} */ 7".encode())


def test_ten_thousand_mixed_statements_have_one_record_each(own_gateway, cluster, mark, ground):
    gateway = own_gateway()
    secret = gateway.pair("ann", "app_write")
    path = script(ground, mark)
    for protocol in ("simple", "extended", "prepared"):
        run_pgbench(gateway, secret, path, protocol)
    with concurrent.futures.ThreadPoolExecutor(PSYCOPG_WORKERS) as pool:
        for result in [pool.submit(work, gateway, secret, mark, each) for each in range(PSYCOPG_WORKERS)]:
            result.result()

    executed = collections.Counter(cluster.executed(mark))
    assert executed.total() >= 10_000
    records = gateway.api().all()
    contiguous(records)
    marked = [record for record in records if record["event"] == "query" and mark in record["sql"]]
    # A simple query is logged with its closing semicolon, if the client sent one; a record's text
    # may leave it out.
    recorded = collections.Counter(record["sql"].rstrip("; ") for record in marked)
    expected = collections.Counter()
    for text, count in executed.items():
        expected[text.rstrip("; ")] += count
    assert recorded - expected == collections.Counter(), "recorded, but the server never ran it"
    assert expected - recorded == collections.Counter(), "the server ran it, but there is no record"
    assert collections.Counter(record["outcome"] for record in marked) == {
        "ok": executed.total() - PSYCOPG_WORKERS * PSYCOPG_ROUNDS, "error": PSYCOPG_WORKERS * PSYCOPG_ROUNDS}
    assert {record["user"] for record in marked} == {email("ann")}

    checked = gateway.verify()
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert gateway.stop() == 0
    again = gateway.verify()
    assert again.returncode == 0, again.stdout + again.stderr
    gateway.start()
    after = gateway.api().all()
    assert [record["id"] for record in after[:len(records)]] == [record["id"] for record in records]
    contiguous(after)


def test_every_answer_that_the_database_gave_is_counted(own_gateway, mark):
    """Rows over the wire equal the rows of the record, for results of every small size."""
    gateway = own_gateway()
    secret = gateway.pair("ann")
    with psycopg.connect(gateway.secret_dsn(email("ann"), secret), autocommit=True) as connection:
        for size in range(200):
            rows = connection.execute(f"select /* {mark} */ n from generate_series(1, %s) n", [size]).fetchall()
            assert len(rows) == size
    records = [record for record in gateway.api().all(f"event:query {mark}")]
    assert [(record["params"], record["rows"]) for record in records] == [([size], size) for size in range(200)]
