"""What goes wrong around the gateway: each ends in a clear error, a record where one is due, and a
gateway that stays up."""

import os
import pathlib
import random
import socket
import ssl
import struct
import subprocess
import tempfile
import time

import psycopg
import pytest

from support import shop
from support.cluster import Cluster
from support.gateway import PASSWORD_PROMPT, email
from support.processes import HOST, until
from support.wire import Message, Wire, fatal

DISK = "24m"


# The database

@pytest.fixture
def own_cluster(ground, request):
    cluster = Cluster(ground / f"postgres-{request.node.name}")
    cluster.start()
    shop.build(cluster)
    yield cluster
    cluster.remove()


def test_a_stopped_database_is_told_and_recorded(own_gateway, own_cluster, mark):
    gateway = own_gateway(database=own_cluster)
    secret = gateway.pair("ann")
    dsn = gateway.secret_dsn(email("ann"), secret)
    connection = psycopg.connect(dsn, autocommit=True)
    connection.execute(f"select /* {mark} before */ 1")
    own_cluster.stop()
    with pytest.raises(psycopg.OperationalError) as lost:
        connection.execute(f"select /* {mark} during */ 2")
    assert lost.value.sqlstate in (None, "57P01")
    with pytest.raises(psycopg.OperationalError) as refused:
        psycopg.connect(dsn, connect_timeout=20)
    message = str(refused.value)
    assert "FATAL" in message
    assert "database" in message.lower()
    own_cluster.start()
    with psycopg.connect(dsn, autocommit=True) as again:
        assert again.execute(f"select /* {mark} after */ 3").fetchone() == (3,)
    api = gateway.api()
    assert api.wait(f"{mark} after")
    api.settle()
    kinds = {record["event"] for record in api.search(f"user:{email('ann')}", limit=200)}
    assert kinds & {"denied", "login.failed", "session.end"}
    assert gateway.verify().returncode == 0


def test_a_terminated_backend_gives_its_own_error(connect, cluster, gateway):
    connection = connect()
    cluster.psql(f"select pg_terminate_backend({connection.info.backend_pid})")
    with pytest.raises(psycopg.errors.AdminShutdown):
        connection.execute("select 1")


def test_an_uncommitted_change_of_a_view_makes_nobody_wait(own_gateway):
    gateway = own_gateway()
    secret = gateway.pair("ann", user="app_write")
    with psycopg.connect(gateway.secret_dsn("app_write", secret)) as connection:
        connection.execute("create view changed as select 1 as a")
        connection.commit()
        connection.execute("create or replace view changed as select 2 as a")
        # The view is locked now; the catalog, which has changed, is read before this runs.
        assert connection.execute("select a from changed").fetchone() == (2,)
        connection.execute("drop view changed")
    assert "could not load the catalog" not in gateway.said()


def test_the_servers_own_views_are_known_after_the_catalog_has_changed(connect, auditor, mark):
    connection = connect(role="app_write")
    connection.execute(f"create table {mark} (a int)")
    connection.execute(f"select /* {mark} view */ tablename from pg_tables where tablename = '{mark}'")
    connection.execute(f"select /* {mark} table */ a from {mark}")
    connection.execute(f"drop table {mark}")
    [record] = auditor.wait(f"{mark} view pg_tables")
    assert {"pg_catalog.pg_tables", "pg_catalog.pg_class"} <= set(record["tables"])
    [record] = auditor.wait(f"{mark} table a reads:*.a")
    assert record["tables"] == [f"public.{mark}"]
    assert record["analysis"] == "exact"


def test_a_database_that_does_not_exist_gives_its_own_error(gateway, provider):
    with Wire(gateway.port) as wire:
        error = fatal(wire.log_in(provider.id_token("ann"), user=email("ann"), database="nowhere", options=PASSWORD_PROMPT))
    assert error["S"] == "FATAL"
    assert error["C"] == "3D000"
    assert "nowhere" in error["M"]


# The disk

@pytest.fixture
def small_disk(ground):
    """A tmpfs that fills up quickly."""
    if os.geteuid() != 0:
        print("skipped: only root can mount a small disk")
        pytest.skip("only root can mount a small disk")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="disk-", dir=ground))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)],
                             capture_output=True, text=True)
    if mounted.returncode != 0:
        print(f"skipped: could not mount a small disk: {mounted.stderr}")
        pytest.skip(f"could not mount a small disk: {mounted.stderr}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: pathlib.Path) -> pathlib.Path:
    """Takes the rest of the disk."""
    filler = folder / "filler"
    with open(filler, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                pass
    return filler


@pytest.mark.parametrize("durability", ["batch", "held", "strict"])
def test_a_full_disk_refuses_statements_until_there_is_space(own_gateway, small_disk, cluster, mark, durability):
    gateway = own_gateway(log={"dir": small_disk / "log", "durability": durability})
    secret = gateway.pair("ann")
    dsn = gateway.secret_dsn(email("ann"), secret)
    connection = psycopg.connect(dsn, autocommit=True)
    connection.execute(f"select /* {mark} before */ 1")
    filler = fill(small_disk)

    refused = None
    padding = "x" * 4000
    for _ in range(5000):  # whatever was set aside is used up first
        try:
            connection.execute(f"select /* {mark} full {padding} */ 2", prepare=False)
        except psycopg.Error as error:
            refused = error
            break
    assert refused is not None, "statements pass though nothing can be written"
    assert refused.sqlstate == "58030"
    assert "log" in str(refused) or "journal" in str(refused) or "disk" in str(refused)
    assert gateway.alive()

    # Whatever the database ran has a record: refused statements never reached it.
    ran = len(cluster.executed(f"{mark} full"))
    filler.unlink()

    def works():
        try:
            with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as again:
                return again.execute(f"select /* {mark} after */ 3").fetchone() == (3,)
        except psycopg.Error:
            return False

    until("the gateway to work again", works, 30, every=0.5)
    connection.close()
    api = gateway.api()
    assert api.wait(f"{mark} after")
    full = api.all(f"event:query {mark} full")
    assert len([record for record in full if record["outcome"] != "denied"]) == ran
    # The refusal itself is recorded, in space that was set aside.
    assert "58030" in [record["sqlstate"] for record in full if record["outcome"] == "denied"]
    checked = gateway.verify()
    assert checked.returncode == 0, checked.stdout + checked.stderr


# Garbage

def answer_to(port: int, data: bytes, seconds: float = 8.0) -> bytes:
    """What comes back for these bytes, until the other side closes or says nothing more."""
    with socket.create_connection((HOST, port), timeout=seconds) as wire:
        try:
            wire.sendall(data)
            wire.shutdown(socket.SHUT_WR)
        except OSError:
            return b""
        seen = b""
        try:
            while chunk := wire.recv(65536):
                seen += chunk
        except OSError:
            pass
        return seen


def hello() -> bytes:
    """The first bytes of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


GARBAGE = {
    "nothing": b"",
    "zeros": b"\0" * 100,
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": hello(),
    "half a length": b"\0\0",
    "a huge length": struct.pack("!ii", 2**31 - 1, 196608),
    "a negative length": struct.pack("!ii", -5, 196608),
    "a tiny length": struct.pack("!i", 4),
    "protocol 2": struct.pack("!ii", 8, 131072),
    "protocol 9": struct.pack("!ii", 9, 9 << 16) + b"\0",
    "no terminator": struct.pack("!ii", 12, 196608) + b"user",
    "no user": struct.pack("!ii", 9, 196608) + b"\0",
    "ssl and then nothing": struct.pack("!ii", 8, 80877103),
    "ssl twice": struct.pack("!ii", 8, 80877103) * 2,
    "gss": struct.pack("!ii", 8, 80877104),
    "cancel of nobody": struct.pack("!iiii", 16, 80877102, 1, 1),
    "short cancel": struct.pack("!ii", 8, 80877102),
    "many parameters": struct.pack("!ii", 8 + 9000, 196608) + (b"k\0v\0" * 2250),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_on_the_port_harms_nobody(gateway, connect, data):
    bystander = connect()
    answer_to(gateway.port, data)
    assert bystander.execute("select 1").fetchone() == (1,)


def test_random_bytes_on_the_port_harm_nobody(gateway, connect):
    bystander = connect()
    chance = random.Random(7)
    for _ in range(100):
        answer_to(gateway.port, chance.randbytes(chance.randrange(1, 400)), seconds=2)
    assert bystander.execute("select 1").fetchone() == (1,)


def session(gateway, secret) -> Wire:
    wire = Wire(gateway.port)
    seen = wire.log_in(secret, user=email("ann"), database="shop", options=PASSWORD_PROMPT)
    assert seen[-1].kind == "Z", seen
    return wire


MESSAGES = {
    "an unknown type": b"\x01\0\0\0\4",
    "a query without terminator": b"Q\0\0\0\x0cselect 1",
    "a query with a tail": b"Q\0\0\0\x0f" + b"select 1\0XX",
    "a negative length": b"Q\xff\xff\xff\xff",
    "a length of three": b"Q\0\0\0\3",
    "a gigabyte": b"Q" + struct.pack("!i", 1 << 30),
    "a truncated parse": b"P\0\0\0\5\0",
    "a lying bind": b"B\0\0\0\x0c\0\0\xff\xff\0\0\0\0",
    "a server's message": b"Z\0\0\0\5I",
    "copy data outside a copy": b"d\0\0\0\5x",
}


@pytest.mark.parametrize("data", MESSAGES.values(), ids=MESSAGES.keys())
def test_a_broken_message_in_a_session_harms_only_that_session(gateway, secrets_of, connect, auditor, mark, data):
    bystander = connect()
    with session(gateway, secrets_of("ann")) as wire:
        wire.send(data)
        wire.socket.shutdown(socket.SHUT_WR)
        seen = wire.until("never")
        assert not any(message.kind == "D" for message in seen), "a broken message returned rows"
    assert bystander.execute(f"select /* {mark} */ 1").fetchone() == (1,)
    assert auditor.wait(mark)


def test_one_byte_at_a_time_is_as_good_as_all_at_once(gateway, secrets_of, auditor, mark):
    with session(gateway, secrets_of("ann")) as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        text = f"select /* {mark} */ 42\0".encode()
        for byte in b"Q" + struct.pack("!i", len(text) + 4) + text:
            wire.send(bytes([byte]))
        assert any(message.kind == "D" and b"42" in message.body for message in wire.until("Z"))
    assert len(auditor.wait(mark)) == 1


def test_half_a_message_and_then_silence_executes_nothing(gateway, secrets_of, auditor, mark):
    with session(gateway, secrets_of("ann")) as wire:
        text = f"delete /* {mark} */ from ledger\0".encode()
        wire.send(b"Q" + struct.pack("!i", len(text) + 4) + text[:20])
    time.sleep(0.5)
    auditor.settle()
    assert auditor.search(mark) == []


def test_function_calls_pass_and_are_recorded(gateway, secrets_of, auditor):
    length_of_text = 1317
    with session(gateway, secrets_of("ann")) as wire:
        body = struct.pack("!ihhi", length_of_text, 0, 1, 5) + b"hello" + struct.pack("!h", 0)
        wire.message("F", body)
        seen = wire.until("Z")
    assert seen[0] == Message("V", struct.pack("!i", 1) + b"5"), seen

    def calls():
        found = auditor.search(f"event:query user:{email('ann')}")
        return [each for each in found if each["command"] == "FUNCTION CALL" and not each.get("running")]

    [call] = until("the record of the call", calls, 5, every=0.1)
    assert call["outcome"] == "ok"
    assert str(length_of_text) in call["detail"]


def test_replication_is_refused(gateway, secrets_of):
    with Wire(gateway.port) as wire:
        error = fatal(wire.log_in(secrets_of("ann"), user=email("ann"), database="shop", replication="database",
                                  options=PASSWORD_PROMPT))
    assert error["S"] == "FATAL"
    assert "replication" in error["M"].lower()


def test_garbage_on_the_http_port_harms_nobody(gateway, auditor):
    for data in (b"\0" * 50, b"GET", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", hello(),
                 b"POST /api/v1/events/search HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{{{{{"):
        answer_to(gateway.http_port, data, seconds=3)
    assert auditor.search("event:login.ok") is not None


# Its own life

def test_a_wrong_configuration_stops_the_start_with_a_reason(own_gateway):
    gateway = own_gateway()
    assert gateway.stop() == 0
    good = gateway.config.read_text()
    for wrong, hint in ((good + "\n[nonsense]\nx = 1\n", "nonsense"),
                        (good.replace('tls = "off"', 'tls = "perhaps"'), "tls"),
                        (good.replace("[oidc]", "[oidc]\nissuers = 1"), "issuers"),
                        ("= = =", "")):
        gateway.config.write_text(wrong)
        done = gateway.run("run", "--config", str(gateway.config), seconds=20)
        assert done.returncode == 78, done.stdout + done.stderr
        assert hint in done.stderr
    gateway.config.write_text(good)
    assert gateway.run("run", "--config", str(gateway.config), "--check", seconds=20).returncode == 0


def test_a_password_of_the_database_is_not_shown_by_an_error(own_gateway, cluster):
    gateway = own_gateway()
    shown = gateway.said()
    for password in cluster.passwords.values():
        assert password not in shown


def test_sigterm_ends_sessions_and_leaves_a_whole_log(own_gateway, mark):
    gateway = own_gateway()
    secret = gateway.pair("ann")
    connection = psycopg.connect(gateway.secret_dsn(email("ann"), secret), autocommit=True)
    connection.execute(f"select /* {mark} */ 1")
    begun = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - begun < 15
    with pytest.raises(psycopg.OperationalError):
        connection.execute("select 2")
    assert gateway.verify().returncode == 0
    gateway.start()
    records = gateway.api().all()
    assert len([record for record in records if mark in (record.get("sql") or "")]) == 1
    assert not any(record["outcome"] == "unknown" for record in records if record["event"] == "query")
