"""kill -9 in the middle of work: nothing that was executed is missing from the log."""

import collections
import threading
import time

import psycopg
import pytest

from support.gateway import email
from support.processes import until

from test_completeness import contiguous

WORKERS = 6
STATEMENTS_BEFORE_KILL = 600


class Worker(threading.Thread):
    """Inserts one numbered row after the other until the connection breaks."""

    def __init__(self, gateway, secret, mark, number):
        super().__init__(daemon=True)
        self.answered: list[str] = []
        self.failure: Exception | None = None
        self._dsn = gateway.secret_dsn(email("ann"), secret)
        self._mark = mark
        self._number = number

    def run(self):
        try:
            with psycopg.connect(self._dsn, autocommit=True) as connection:
                for n in range(1_000_000):
                    text = f"insert into ledger values ({self._number}, {n}, '{self._mark}')"
                    connection.execute(text, prepare=False)
                    self.answered.append(text)
        except psycopg.OperationalError as error:
            self.failure = error


def start_workers(gateway, secret, mark):
    workers = [Worker(gateway, secret, mark, number) for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    return workers


@pytest.mark.parametrize("durability", ["batch", "held", "strict"])
def test_after_kill_9_every_executed_statement_is_in_the_log(own_gateway, cluster, mark, durability):
    gateway = own_gateway(log={"durability": durability})
    secret = gateway.pair("ann")
    with psycopg.connect(gateway.secret_dsn(email("ann"), secret), autocommit=True) as sleeper:
        asleep = threading.Thread(target=lambda: attempt(sleeper, f"select /* {mark} asleep */ pg_sleep(30)"))
        asleep.start()
        workers = start_workers(gateway, secret, mark)
        until("some work", lambda: sum(len(each.answered) for each in workers) >= STATEMENTS_BEFORE_KILL, 60)
        killed_at = time.time()
        gateway.kill()
        for thread in [*workers, asleep]:
            thread.join(20)
    assert all(worker.failure for worker in workers)

    # The journal is whole as it lies on disk, and the gateway starts on it.
    gateway.start()
    api = gateway.api()
    records = api.all()
    contiguous(records)
    marked = [record for record in records if record["event"] == "query" and mark in record["sql"]]
    recorded = collections.Counter(record["sql"] for record in marked)
    assert set(recorded.values()) == {1}

    answered = {text for worker in workers for text in worker.answered}
    assert len(answered) >= STATEMENTS_BEFORE_KILL
    assert answered <= recorded.keys()
    executed = set(cluster.executed(mark))
    assert executed <= recorded.keys()

    unfinished = [record for record in marked if record["outcome"] == "unknown"]
    assert any("asleep" in record["sql"] for record in unfinished)
    # One statement of each connection can be under way, and the ends of the last moments may not
    # have reached the disk.
    early = [record for record in unfinished
             if "asleep" not in record["sql"] and seconds(record["time"]) < killed_at - 2.0]
    assert early == []
    assert len(unfinished) <= WORKERS * 20
    assert any(record["event"] == "gap" for record in records)

    checked = gateway.verify()
    assert checked.returncode == 0, checked.stdout + checked.stderr


def attempt(connection, text):
    try:
        connection.execute(text)
    except psycopg.OperationalError:
        pass


def seconds(time_text: str) -> float:
    import datetime

    return datetime.datetime.fromisoformat(time_text).timestamp()


def test_three_kills_in_a_row_leave_one_contiguous_log(own_gateway, mark):
    gateway = own_gateway()
    answered: set[str] = set()
    for round_number in range(3):
        secret = gateway.pair("ann")
        workers = start_workers(gateway, secret, f"{mark}r{round_number}")
        until("some work", lambda: sum(len(each.answered) for each in workers) >= 100, 60)
        gateway.kill()
        for worker in workers:
            worker.join(20)
        answered |= {text for worker in workers for text in worker.answered}
        gateway.start()
    records = gateway.api().all()
    contiguous(records)
    recorded = collections.Counter(record["sql"] for record in records if mark in (record.get("sql") or ""))
    assert answered <= recorded.keys()
    assert set(recorded.values()) == {1}
    assert sum(1 for record in records if record["event"] == "gap") == 3
    assert gateway.verify().returncode == 0


def test_a_lost_index_is_built_again_from_the_journal(own_gateway, mark):
    import shutil

    gateway = own_gateway()
    secret = gateway.pair("ann")
    with psycopg.connect(gateway.secret_dsn(email("ann"), secret), autocommit=True) as connection:
        for number in range(300):
            connection.execute(f"select /* {mark} */ {number}")
    before = gateway.api().all(f"event:query {mark}")
    assert len(before) == 300
    assert gateway.stop() == 0
    shutil.rmtree(gateway.folder / "index")
    gateway.start()
    after = gateway.api().all(f"event:query {mark}")
    assert [record["id"] for record in after] == [record["id"] for record in before]


def test_a_changed_byte_of_the_journal_is_found(own_gateway, mark):
    gateway = own_gateway()
    secret = gateway.pair("ann")
    with psycopg.connect(gateway.secret_dsn(email("ann"), secret), autocommit=True) as connection:
        for number in range(50):
            connection.execute(f"select /* {mark} */ {number}")
    assert gateway.stop() == 0
    assert gateway.verify().returncode == 0
    [changed] = [path for path in gateway.log_dir.rglob("*") if path.is_file() and mark.encode() in path.read_bytes()]
    content = changed.read_bytes()
    at = content.index(mark.encode())
    changed.write_bytes(content[:at] + b"X" + content[at + 1:])
    checked = gateway.verify()
    assert checked.returncode == 1
    assert checked.stdout + checked.stderr


def test_a_client_that_vanishes_leaves_a_record_and_no_backend(gateway, secrets_of, cluster, auditor, mark):
    from support.gateway import PASSWORD_PROMPT
    from support.wire import Wire

    wire = Wire(gateway.port)
    assert wire.log_in(secrets_of("ann"), user=email("ann"), database="shop", options=PASSWORD_PROMPT)[-1].kind == "Z"
    wire.query(b"begin")
    wire.message("Q", f"select /* {mark} */ pg_sleep(2), count(*) from customers\0".encode())
    time.sleep(0.5)
    wire.socket.close()
    until("the backend to end", lambda: cluster.psql(
        f"select count(*) from pg_stat_activity where query like '%{mark}%' and pid <> pg_backend_pid()") == "0", 20)
    auditor.settle()
    [record] = auditor.wait(mark)
    assert record["outcome"] in ("unknown", "ok", "canceled", "error")
    assert record["txn_outcome"] != "committed"
    assert gateway.alive()
