"""The answers: a table of what was promised, then every measurement, as Markdown and JSON."""

import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

from support.processes import ROOT

OUT = pathlib.Path(__file__).resolve().parent / "out"
BEGAN = time.monotonic()

# What the gateway is to keep, relative to its peers.
CPU_MAX = 1.25
TPS_MIN = 1.0
P99_ADDED_US_MAX = 100
TRANSFER_MIN = 0.95
CHURN_MIN = 1.0
IDLE_KIB_MAX = 20


def machine() -> dict:
    cpu = next((line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(memory / 2**20, 1),
        "kernel": platform.release(), "pgbench": version("pgbench", "--version"),
        "pgbouncer": version("pgbouncer", "--version"), "haproxy": version("haproxy", "-v"),
        "commit": version("git", "rev-parse", "--short", "HEAD"), "load_before": os.getloadavg()[0],
    }


def version(*command: str) -> str:
    path = f"{os.environ['PATH']}:/usr/sbin"
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PATH": path})
        return done.stdout.splitlines()[0].split(" - ")[0]
    except (OSError, IndexError):
        return "unknown"


# Numbers

def spread(values: list[float], digits: int = 0) -> str:
    """Median, with the smallest and the largest."""
    low, middle, high = min(values), statistics.median(values), max(values)
    if len(values) == 1:
        return f"{middle:.{digits}f}"
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


class Group:
    """The measurements of one combination, by side and in the order of rounds."""

    def __init__(self, key: tuple, results: list[dict]):
        self.key = key
        self._by_side: dict[str, list[dict]] = {}
        for each in sorted(results, key=lambda each: each["round"]):
            self._by_side.setdefault(each["side"], []).append(each)
        self.sides = list(self._by_side)

    def values(self, side: str, name: str) -> list[float]:
        return [each[name] for each in self._by_side[side]]

    def ratios(self, side: str, base: str, name: str) -> list[float]:
        """Within each round."""
        return [mine / theirs for mine, theirs in zip(self.values(side, name), self.values(base, name))]

    def added(self, side: str, base: str, name: str) -> list[float]:
        return [mine - theirs for mine, theirs in zip(self.values(side, name), self.values(base, name))]

    def ratio(self, side: str, base: str, name: str, digits: int = 2) -> str:
        if side == base or base not in self._by_side:
            return "–"
        return spread(self.ratios(side, base, name), digits)


def groups(results: list[dict], *names: str) -> list[Group]:
    keys = list(dict.fromkeys(tuple(each[name] for name in names) for each in results))
    return [Group(key, [each for each in results if tuple(each[name] for name in names) == key]) for key in keys]


# What was promised

def promises(results: dict) -> list[tuple[str, str, str, float, bool]]:
    """Each promise in each combination: part, combination, what, the median, whether it is kept."""
    kept = []

    def judge(part: str, key: tuple, what: str, values: list[float], fits) -> None:
        value = statistics.median(values)
        kept.append((part, " ".join(map(str, key)).strip(), what, value, fits(value)))

    for group in groups(results.get("matrix", []), "protocol", "clients", "tls"):
        key = (group.key[0], group.key[1], "TLS" if group.key[2] == "on" else "")
        if {"pgwitness-paused", "pgbouncer"} <= set(group.sides):
            judge("matrix", key, f"CPU to pgbouncer, index paused (at most {CPU_MAX})",
                  group.ratios("pgwitness-paused", "pgbouncer", "cpu_us"), lambda value: value <= CPU_MAX)
            judge("matrix", key, f"TPS to pgbouncer, index paused (at least {TPS_MIN})",
                  group.ratios("pgwitness-paused", "pgbouncer", "tps"), lambda value: value >= TPS_MIN)
        if {"pgwitness", "pgaudit"} <= set(group.sides):
            judge("matrix", key, f"TPS to pgaudit, index on (at least {TPS_MIN})",
                  group.ratios("pgwitness", "pgaudit", "tps"), lambda value: value >= TPS_MIN)
    for group in groups(results.get("half", []), "protocol", "tls"):
        if {"pgwitness-paused", "pgbouncer"} <= set(group.sides):
            judge("half load", (group.key[0], "TLS" if group.key[1] == "on" else ""),
                  f"p99 above pgbouncer's, µs (below {P99_ADDED_US_MAX})",
                  group.added("pgwitness-paused", "pgbouncer", "p99_us"), lambda value: value < P99_ADDED_US_MAX)
    for group in groups(results.get("transfer", []), "kind", "tls"):
        if {"pgwitness-paused", "haproxy"} <= set(group.sides):
            judge("transfer", (group.key[0],), f"throughput to haproxy (at least {TRANSFER_MIN})",
                  group.ratios("pgwitness-paused", "haproxy", "mb_s"), lambda value: value >= TRANSFER_MIN)
    for group in groups(results.get("churn", []), "clients", "tls"):
        if {"pgwitness-paused", "pgbouncer"} <= set(group.sides):
            judge("churn", (group.key[0], "TLS" if group.key[1] == "on" else ""),
                  f"connections to pgbouncer (at least {CHURN_MIN})",
                  group.ratios("pgwitness-paused", "pgbouncer", "tps"), lambda value: value >= CHURN_MIN)
    for each in results.get("idle", []):
        if each["side"].startswith("pgwitness") and each["tls"] == "off":
            judge("idle", (each["connections"],), f"KiB for each connection (at most {IDLE_KIB_MAX})",
                  [each["kib"]], lambda value: value <= IDLE_KIB_MAX)
    return kept


def promised(results: dict) -> list[str]:
    kept = promises(results)
    if not kept:
        return []
    lines = [f"### What was promised: {sum(each[4] for each in kept)} of {len(kept)} kept", "",
             "| part | combination | promise | median | kept |", "|---|---|---|---|---|"]
    for part, key, what, value, fits in sorted(kept, key=lambda each: each[4]):
        lines.append(row(part, key, what, f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}", "yes" if fits else "**no**"))
    return [*lines, ""]


# The parts

def matrix(results: list[dict]) -> list[str]:
    lines = []
    for group in groups(results, "protocol", "clients", "tls"):
        protocol, clients, tls = group.key
        lines += [f"### {protocol}, {clients} client{'s' if clients > 1 else ''}{', TLS' if tls == 'on' else ''}", "",
                  "| | TPS | to direct | to pgbouncer | mean µs | p99 µs | CPU µs/txn | CPU to pgbouncer | with indexing after | RSS MiB |",
                  "|---|---|---|---|---|---|---|---|---|---|"]
        for side in group.sides:
            proxy = side != "direct"
            lines.append(row(
                side, spread(group.values(side, "tps")), group.ratio(side, "direct", "tps"),
                group.ratio(side, "pgbouncer", "tps") if proxy else "–",
                spread(group.values(side, "mean_us")), spread(group.values(side, "p99_us")),
                spread(group.values(side, "cpu_us"), 1) if proxy else "–",
                group.ratio(side, "pgbouncer", "cpu_us") if proxy else "–",
                spread(group.values(side, "cpu_settled_us"), 1) if proxy else "–",
                spread(group.values(side, "rss_mib")) if proxy else "–"))
        lines.append("")
    return lines


def half(results: list[dict]) -> list[str]:
    lines = []
    for group in groups(results, "protocol", "tls", "clients", "rate"):
        protocol, tls, clients, rate = group.key
        lines += [f"### Half load: {protocol}{', TLS' if tls == 'on' else ''}, {rate}/s over {clients} clients", "",
                  "Latency from the start of a transaction; how late pgbench started it stands beside.", "",
                  "| | mean µs | p50 µs | p99 µs | p99 above direct | p99 above pgbouncer | p99 started late µs |",
                  "|---|---|---|---|---|---|---|"]
        for side in group.sides:
            above = lambda base: spread(group.added(side, base, "p99_us")) if side != base and base in group.sides else "–"  # noqa: E731
            lines.append(row(side, spread(group.values(side, "mean_us")), spread(group.values(side, "p50_us")),
                             spread(group.values(side, "p99_us")), above("direct"), above("pgbouncer"),
                             spread(group.values(side, "p99_late_us"))))
        lines.append("")
    return lines


def named(group) -> str:
    """What was measured, and whether through TLS."""
    return f"{group.key[0]}{', TLS' if group.key[1] == 'on' else ''}"


def transfer(results: list[dict]) -> list[str]:
    lines = ["### Much data, one connection", "", "| | | MB/s | to haproxy | to direct | CPU µs/MB |", "|---|---|---|---|---|---|"]
    for group in groups(results, "kind", "tls"):
        for side in group.sides:
            lines.append(row(named(group), side,
                             spread(group.values(side, "mb_s")), group.ratio(side, "haproxy", "mb_s"),
                             group.ratio(side, "direct", "mb_s"),
                             spread(group.values(side, "cpu_us_per_mb")) if side != "direct" else "–"))
    return [*lines, ""]


def churn(results: list[dict]) -> list[str]:
    lines = ["### A connection for each transaction", "",
             "| clients | | connections/s | to pgbouncer | to direct | CPU µs/connection |", "|---|---|---|---|---|---|"]
    for group in groups(results, "clients", "tls"):
        for side in group.sides:
            lines.append(row(named(group), side,
                             spread(group.values(side, "tps")), group.ratio(side, "pgbouncer", "tps"),
                             group.ratio(side, "direct", "tps"),
                             spread(group.values(side, "cpu_us")) if side != "direct" else "–"))
    return [*lines, ""]


def idle(results: list[dict]) -> list[str]:
    lines = ["### Idle connections, each after one query", "",
             "| | TLS | connections | KiB for each | RSS before, KiB | RSS, KiB | idle CPU ms/s |", "|---|---|---|---|---|---|---|"]
    lines += [row(each["side"], each["tls"], str(each["connections"]), f"{each['kib']:.1f}", str(each["rss_before_kib"]),
                  str(each["rss_kib"]), f"{each['cpu_ms_per_s']:.1f}") for each in results]
    return [*lines, ""]


def perf(found: dict | None) -> list[str]:
    if not found:
        return []
    lines = [f"### Where its CPU goes: prepared, 8 clients, index paused ({found['samples']} samples)", ""]
    for title, name in (("kind of work", "kinds"), ("symbol", "symbols"), ("thread", "threads")):
        lines += [f"| {title} | share |", "|---|---|"]
        lines += [row(f"`{what}`" if name != "kinds" else what, f"{share:.1%}") for what, share in found[name]]
        lines.append("")
    return lines


TABLES = {"matrix": matrix, "half": half, "transfer": transfer, "churn": churn, "idle": idle, "perf": perf}


def write(about: dict, given, results: dict) -> str:
    command = " ".join(["benches/pgbench/run", *sys.argv[1:]])
    minutes = (time.monotonic() - BEGAN) / 60
    lines = [
        "## pgwitness beside its peers", "",
        f"Machine: {about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, Linux {about['kernel']}; databases, "
        f"proxies and clients share it; load {about['load_before']:.1f} before the run. {about['pgbench']}; "
        f"{about['pgbouncer']}; {about['haproxy']}; pgwitness {about['commit']}.",
        f"Command: `{command}` ({minutes:.0f} min). `pgbench -S`, scale {given.scale}, {given.rounds} interleaved rounds "
        f"of {given.seconds} s each.",
        "Each cell: median (smallest–largest) of the rounds; ratios are formed within a round. CPU is user plus system "
        "time of all threads of the proxy. pgwitness writes its journal (durability batch) and, where not paused, its index.",
        ""]
    lines += promised(results)
    for name, table in TABLES.items():
        if results.get(name):
            lines += table(results[name])
    text = "\n".join(lines)
    OUT.mkdir(exist_ok=True)
    kept = [dict(zip(("part", "combination", "promise", "median", "kept"), each)) for each in promises(results)]
    (OUT / "results.json").write_text(json.dumps(
        {"machine": about, "command": command, "minutes": minutes, "promises": kept, "results": results}, indent=1))
    (OUT / "results.md").write_text(text)
    return text
