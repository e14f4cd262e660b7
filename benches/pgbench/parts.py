"""What is measured: one function for each part, each in interleaved rounds over its sides."""

import glob
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from support.cluster import Cluster
from support.processes import HOST

from raw import Raw
from sides import DATABASE, ROLE, Side

# Beyond its own time, pgbench gets this long.
PATIENCE_SECONDS = 120
SECONDS_MAX = 60
ROW = b"0123456789" * 100 + b"\n"
RELATIVE_LOAD = 0.5
IDLE_SECONDS = 2.0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def turns(rounds: int, names: list[str], groups: list) -> Iterator[tuple[int, object, str]]:
    """Each round goes through all groups; within a group every side has its turn, first another each round."""
    for number in range(rounds):
        order = names[number % len(names):] + names[:number % len(names)]
        for group in groups:
            for name in order:
                yield number, group, name


# pgbench

class Bench:
    """pgbench -S with its log of single transactions."""

    def __init__(self, folder: pathlib.Path):
        self._prefix = folder / "latencies"

    def run(self, side: Side, protocol: str, clients: int, tls: str, seconds: int, *more: str) -> dict:
        command = ["pgbench", "-n", "-S", "-M", protocol, "-c", str(clients), "-j", str(min(clients, 2)),
                   "-T", str(seconds), "-h", HOST, "-p", str(side.port), "-U", ROLE,
                   "--log", f"--log-prefix={self._prefix}", *more, DATABASE]
        before = side.cpu_seconds()
        done = subprocess.run(command, env=side.environment(tls), capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=seconds + PATIENCE_SECONDS)
        at_end = side.cpu_seconds()
        rss = side.rss_kib()
        if done.returncode != 0:
            raise SystemExit(f"pgbench through {side.name} failed: {done.stderr}")
        side.settle()
        settled = side.cpu_seconds()
        latencies, waits = self._log()
        count = len(latencies)
        if count == 0:  # so busy a machine that connecting took all the time
            if seconds > SECONDS_MAX:
                raise SystemExit(f"pgbench through {side.name} did nothing: {done.stdout}{done.stderr}")
            return self.run(side, protocol, clients, tls, seconds * 3, *more)
        tps = next(float(line.split()[2]) for line in done.stdout.splitlines() if line.startswith("tps = "))
        result = {
            "tps": tps, "transactions": count, "mean_us": sum(latencies) / count,
            "p50_us": at(latencies, 50), "p99_us": at(latencies, 99),
            "cpu_us": (at_end - before) / count * 1e6, "cpu_settled_us": (settled - before) / count * 1e6,
            "rss_mib": rss / 1024,
        }
        if waits:
            result["p99_late_us"] = at(waits, 99)
        return result

    def _log(self) -> tuple[list[int], list[int]]:
        """How long each transaction took, from its start; with --rate also how late it started."""
        took, late = [], []
        for path in glob.glob(f"{self._prefix}.*"):
            with open(path) as log:
                for line in log:
                    fields = line.split()
                    lag = int(fields[6]) if len(fields) > 6 else None
                    took.append(int(fields[2]) - (lag or 0))
                    if lag is not None:
                        late.append(lag)
            os.unlink(path)
        took.sort()
        late.sort()
        return took, late


def at(ordered: list[int], percent: int) -> int:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def matrix(given, sides: dict[str, Side], bench: Bench) -> list[dict]:
    """Throughput, latency and CPU of every combination."""
    names = [name for name in given.sides if name in sides]
    groups = [(protocol, clients, tls) for tls in given.tls for clients in given.clients for protocol in given.protocols]
    for name in names:  # once without counting: caches, connections, lazily loaded pages
        bench.run(sides[name], given.protocols[0], max(given.clients), given.tls[0], 1)
    results = []
    for number, (protocol, clients, tls), name in turns(given.rounds, names, groups):
        result = bench.run(sides[name], protocol, clients, tls, given.seconds)
        results.append({"side": name, "protocol": protocol, "clients": clients, "tls": tls, "round": number, **result})
        say(f"matrix {number + 1}/{given.rounds}: {protocol} {clients} tls {tls} {name}: "
            f"{result['tps']:.0f} tps, {result['cpu_us']:.1f} µs CPU")
    return results


def half(given, sides: dict[str, Side], bench: Bench, known: list[dict]) -> list[dict]:
    """Latency where every side can keep up: at half of the slowest side's throughput."""
    names = [name for name in given.sides if name in sides]
    clients = given.half_clients
    results = []
    for tls in given.tls:
        for protocol in given.half_protocols:
            rate = half_rate(given, sides, bench, known, (protocol, clients, tls))
            for number, _, name in turns(given.rounds, names, [None]):
                result = bench.run(sides[name], protocol, clients, tls, given.seconds, f"--rate={rate}")
                results.append({"side": name, "protocol": protocol, "clients": clients, "tls": tls, "round": number,
                                "rate": rate, **result})
                say(f"half load {number + 1}/{given.rounds}: {protocol} tls {tls} {rate}/s {name}: p99 {result['p99_us']} µs")
    return results


def half_rate(given, sides: dict[str, Side], bench: Bench, known: list[dict], group: tuple) -> int:
    slowest = None
    for name in [name for name in given.sides if name in sides]:
        seen = [each["tps"] for each in known
                if (each["side"], each["protocol"], each["clients"], each["tls"]) == (name, *group)]
        tps = statistics.median(seen) if seen else bench.run(sides[name], *group, 2)["tps"]
        slowest = tps if slowest is None else min(slowest, tps)
    return max(1, int(slowest * RELATIVE_LOAD))


def churn(given, sides: dict[str, Side], bench: Bench) -> list[dict]:
    """A connection for each transaction: a pool of none."""
    names = [name for name in given.sides if name in sides and name not in ("pgaudit", "pgwitness-held", "pgwitness-strict")]
    results = []
    groups = [(clients, tls) for tls in given.tls for clients in given.churn_clients]
    for number, (clients, tls), name in turns(given.rounds, names, groups):
        result = bench.run(sides[name], "simple", clients, tls, given.seconds, "--connect")
        results.append({"side": name, "clients": clients, "tls": tls, "round": number, **result})
        say(f"churn {number + 1}/{given.rounds}: {clients} tls {tls} {name}: {result['tps']:.0f} connections/s")
    return results


# Much data

def fill_transfer(cluster: Cluster, size: int) -> None:
    text = ROW.decode().strip()
    cluster.psql(f"set role {ROLE}; create unlogged table wide as select '{text}'::text as line "
                 f"from generate_series(1, {size // len(ROW)}); create unlogged table sink (line text)", DATABASE)
    cluster.psql("vacuum analyze wide", DATABASE)


def transfer(given, sides: dict[str, Side], cluster: Cluster) -> list[dict]:
    """COPY both ways and a large result, through a client that costs nothing."""
    size = given.transfer_mb * 1_000_000
    fill_transfer(cluster, size)
    names = [name for name in ["direct", "haproxy", "pgbouncer", "pgwitness-paused", "pgwitness"] if name in sides]
    results = []
    groups = [(kind, tls) for tls in given.tls for kind in ("copy out", "copy in", "result")]
    for number, (kind, tls), name in turns(given.rounds, names, groups):
        if name == "haproxy" and tls == "on":
            continue  # it would hand TLS through to the database: another comparison
        result = carry(sides[name], kind, tls, size, cluster)
        results.append({"side": name, "kind": kind, "tls": tls, "round": number, **result})
        say(f"transfer {number + 1}/{given.rounds}: {kind} tls {tls} {name}: {result['mb_s']:.0f} MB/s")
    return results


def carry(side: Side, kind: str, tls: str, size: int, cluster: Cluster) -> dict:
    cluster.psql("truncate sink", DATABASE)
    with Raw(side, tls) as raw:
        before, began = side.cpu_seconds(), time.perf_counter()
        match kind:
            case "copy out":
                carried = raw.receive("copy wide to stdout")
            case "copy in":
                carried = raw.copy_in("copy sink from stdin", ROW, size)
            case _:
                carried = raw.receive("select line from wide")
        seconds = time.perf_counter() - began
        cpu = side.cpu_seconds() - before
    side.settle()
    if carried < size * 0.9:
        raise SystemExit(f"{kind} through {side.name} carried {carried} bytes of {size}")
    return {"mb_s": carried / seconds / 1e6, "cpu_us_per_mb": cpu / carried * 1e12, "bytes": carried}


# Many connections that do nothing

def idle(given, start) -> list[dict]:
    """Memory of each connection; `start` begins a side afresh, so that each is measured from its first byte."""
    results = []
    for name in ("pgbouncer", "pgwitness-paused"):
        if name not in given.sides:
            continue
        for tls in given.tls:
            side = start(name)
            try:
                result = hold(side, tls, given.idle)
            finally:
                side.stop()
            results.append({"side": name, "tls": tls, "connections": given.idle, **result})
            say(f"idle: {given.idle} tls {tls} {name}: {result['kib']:.1f} KiB each")
    return results


def hold(side: Side, tls: str, count: int) -> dict:
    with Raw(side, tls) as first:  # what the first connection of all costs is not each one's
        first.query(b"select 1")
    before = quiet_rss(side)
    held: list[Raw] = []
    try:
        for _ in range(count):
            held.append(Raw(side, tls))
            held[-1].query(b"select 1")
        after = quiet_rss(side)
        cpu = side.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        cpu = side.cpu_seconds() - cpu
    finally:
        for each in held:
            each.socket.close()
    return {"kib": (after - before) / count, "rss_before_kib": before, "rss_kib": after,
            "cpu_ms_per_s": cpu / IDLE_SECONDS * 1000}


def quiet_rss(side: Side) -> int:
    """Resident memory once the process has come to rest."""
    side.indexes, indexes = True, side.indexes
    side.settle()
    side.indexes = indexes
    return side.rss_kib()
