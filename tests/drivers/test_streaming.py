"""Rows and COPY data far larger than memory may be: they stream through, in both directions."""

import os
import re
import struct

import pytest

from support.gateway import PASSWORD_PROMPT, email
from support.processes import until
from support.wire import Wire

# A gigabyte with PGWITNESS_SLOW=1 (which needs 4 GB of memory for the server), else a quarter.
SIZE = 1 << 30 if os.environ.get("PGWITNESS_SLOW") == "1" else 256 << 20
# One value: the server itself holds it several times, and may not make more than 1 GB - 1 of it.
ROW = SIZE - (1 << 20)
GROWTH_KB_MAX = 64 * 1024
CHUNK = 1 << 20


def most_memory_kb(pid: int) -> int:
    """The most that the process ever had resident."""
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read()).group(1))


@pytest.fixture
def wire(own_gateway):
    gateway = own_gateway()
    secret = gateway.pair("ann")
    with Wire(gateway.port) as wire:
        seen = wire.log_in(secret, user=email("ann"), database="shop", options=PASSWORD_PROMPT)
        assert seen[-1].kind == "Z", seen
        wire.query(b"select 1")
        wire.socket.settimeout(600)
        yield wire, gateway


def pass_over(wire: Wire, count: int) -> None:
    """Reads bytes without keeping them."""
    buffered, wire._buffer = len(wire._buffer[:count]), wire._buffer[count:]
    count -= buffered
    scratch = bytearray(CHUNK)
    while count:
        got = wire.socket.recv_into(scratch, min(count, CHUNK))
        assert got, "cut off"
        count -= got


def lengths(wire: Wire, *ends: str) -> list[tuple[str, int]]:
    """Kinds and lengths of messages up to one of `ends`; bodies of data are not kept."""
    seen = []
    while True:
        head = wire.read(5)
        kind, length = chr(head[0]), struct.unpack("!i", head[1:])[0] - 4
        pass_over(wire, length)
        seen.append((kind, length))
        if kind in ends:
            return seen


def the_record(gateway, mark):
    [record] = gateway.api().wait(mark, seconds=60)
    return record


def test_one_row_of_a_gigabyte_streams_through(wire, mark):
    wire, gateway = wire
    before = most_memory_kb(gateway.pid)
    wire.message("Q", f"select /* {mark} */ repeat('x', {ROW})\0".encode())
    seen = lengths(wire, "Z")
    assert ("D", ROW + 6) in seen
    assert most_memory_kb(gateway.pid) - before < GROWTH_KB_MAX
    record = the_record(gateway, mark)
    assert (record["outcome"], record["rows"], record["bytes"]) == ("ok", 1, ROW + 6)


def test_a_gigabyte_of_copy_out_streams_through_however_slowly_it_is_read(wire, cluster, mark):
    wire, gateway = wire
    before = most_memory_kb(gateway.pid)
    rows = SIZE // 1000
    wire.message("Q", f"copy (select /* {mark} */ repeat('y', 999) from generate_series(1, {rows})) to stdout\0".encode())
    waits = f"select count(*) from pg_stat_activity where wait_event = 'ClientWrite' and query like '%{mark}%'"
    until("the server to wait for its reader", lambda: cluster.psql(waits) == "1", 60)
    seen = lengths(wire, "Z")
    assert sum(length for kind, length in seen if kind == "d") == rows * 1000
    assert most_memory_kb(gateway.pid) - before < GROWTH_KB_MAX
    record = the_record(gateway, mark)
    assert (record["outcome"], record["rows"], record["bytes"]) == ("ok", rows, rows * 1000)


def test_a_gigabyte_of_copy_in_streams_through_however_slowly_it_is_stored(wire, cluster, mark):
    wire, gateway = wire
    # A lock keeps the server from reading on: the client must come to a halt, not the data into memory.
    wire.query(f"create temp table {mark} (a text)".encode())
    before = most_memory_kb(gateway.pid)
    wire.query(b"begin")
    wire.message("Q", f"copy {mark} from stdin\0".encode())
    assert wire.next().kind == "G"
    line = b"z" * 999 + b"\n"
    body = line * 1000
    frame = b"d" + struct.pack("!i", len(body) + 4) + body
    backend = f"select pid from pg_stat_activity where query like '%copy {mark}%' and pid <> pg_backend_pid()"
    pid = int(cluster.psql(backend))
    os.kill(pid, 19)  # SIGSTOP: the server reads nothing
    wire.socket.settimeout(2)
    sent = 0
    try:
        with pytest.raises(TimeoutError):
            while sent < SIZE:
                sent += wire.socket.send(frame[sent % len(frame):])
        assert sent < 64 << 20, "somebody took in what the server does not read"
    finally:
        os.kill(pid, 18)  # SIGCONT
    wire.socket.settimeout(600)
    frames = SIZE // len(body)
    while sent < frames * len(frame):
        sent += wire.socket.send(frame[sent % len(frame):])
    wire.message("c")
    assert [message.kind for message in wire.until("Z")] == ["C", "Z"]
    assert most_memory_kb(gateway.pid) - before < GROWTH_KB_MAX
    wire.query(b"rollback")
    [record] = [each for each in gateway.api().wait(f"command:copy {mark}", seconds=60) if each["command"] == "COPY"]
    assert (record["outcome"], record["txn_outcome"]) == ("ok", "rolled_back")
    assert (record["rows"], record["bytes"]) == (frames * 1000, frames * len(body))
