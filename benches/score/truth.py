"""What is true of each statement: the module that makes the server say it, and what it said."""

import collections
import dataclasses
import datetime
import json
import pathlib
import re
import subprocess

from log import plain

HERE = pathlib.Path(__file__).resolve().parent
SESSION_PREFIX = 18
SLACK_US = 5_000
# The gateway's label of a session: {app} {session}.
LABEL = "{app} {session}"


def module(folder: pathlib.Path, programs: pathlib.Path) -> pathlib.Path:
    """Compiles the module for the server of these programs into a folder that it can read."""
    include = subprocess.run([str(programs / "pg_config"), "--includedir-server"], capture_output=True, text=True, check=True).stdout
    made = folder / "truth.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", f"-I{include.strip()}", "-o", str(made),
                    str(HERE / "truth.c")], check=True)
    made.chmod(0o755)
    return made


@dataclasses.dataclass
class Touched:
    """Relations, columns read (in whatever way) and columns written."""

    tables: set[str] = dataclasses.field(default_factory=set)
    reads: set[str] = dataclasses.field(default_factory=set)
    writes: set[str] = dataclasses.field(default_factory=set)

    def __or__(self, other: "Touched") -> "Touched":
        return Touched(self.tables | other.tables, self.reads | other.reads, self.writes | other.writes)

    def parts(self) -> dict[str, set[str]]:
        return {"tables": self.tables, "reads": self.reads, "writes": self.writes}

    def shown(self) -> dict[str, list[str]]:
        return {name: sorted(part) for name, part in self.parts().items()}


@dataclasses.dataclass
class Truth:
    """`named`: what the text names. `all`: also what views, rules and policies add, unless the server refuses to put
    that in (`refused`). `target`: what is made."""

    text: str
    named: Touched
    all: Touched
    target: str | None = None
    utility: str | None = None
    time_us: int = 0
    refused: bool = False


def quoted(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_$]*", name) else '"' + name.replace('"', '""') + '"'


def touched(relations: list[dict]) -> Touched:
    all = Touched()
    for each in relations:
        table = f"{quoted(each['schema'])}.{quoted(each['name'])}"
        all.tables.add(table)
        all.reads.update(f"{table}.{quoted(column)}" for column in each["reads"])
        all.writes.update(f"{table}.{quoted(column)}" for column in each["writes"])
    return all


def read(folder: pathlib.Path) -> dict[tuple[str, str], list[Truth]]:
    """What the module wrote, by session (the beginning of its id) and text, in order."""
    found = collections.defaultdict(list)
    for path in folder.glob("*.jsonl"):
        with open(path, errors="replace") as lines:
            for each in map(json.loads, lines):
                named = touched(each["relations"])
                everything = touched(each["expanded"]) if "expanded" in each else named
                refused = each.get("refused", False)
                session = each["app"].rpartition(" ")[2]
                found[session, plain(each["text"])].append(Truth(
                    each["text"], named, named | everything, each.get("target"),
                    str(each["utility"]) if each["utility"] else None, each["time"], refused))
    for truths in found.values():
        truths.sort(key=lambda truth: truth.time_us)
    return found


def match(records: list[dict], truths: dict[tuple[str, str], list[Truth]]):
    """Pairs of a record and what is true of it.

    A statement is analysed once for each time that it is sent; if it was prepared, once for all. So what was last said
    before an execution ended is true of it. Records of statements that failed before that have no truth.
    """
    groups = collections.defaultdict(list)
    for record in sorted(records, key=lambda record: record["seq"]):
        if record["event"] == "query" and record["outcome"] in ("ok", "error", "canceled") and record.get("sql"):
            groups[record["session"][:SESSION_PREFIX], plain(record["sql"])].append(record)
    for key, group in groups.items():
        said = truths.get(key, [])
        if len(said) == len(group):
            yield from zip(group, said)
            continue
        times = [microseconds(record["time"]) for record in group]
        for record, begun, next_begun in zip(group, times, [*times[1:], float("inf")]):
            end = begun + (record.get("duration_us") or 0)
            # A duration begins a little after the time that the record tells.
            end = max(end, min(end + SLACK_US, next_begun))
            before = [truth for truth in said if truth.time_us <= end]
            if before and (record["outcome"] == "ok" or before[-1].time_us >= begun):
                yield record, before[-1]


def microseconds(time: str) -> int:
    return round(datetime.datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp() * 1_000_000)
