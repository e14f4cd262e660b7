"""Where the gateway's records differ from the server's own log of the same run."""

import collections
import csv
import dataclasses
import importlib.util
import json
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.request

if importlib.util.find_spec("pglast") is None:  # PostgreSQL's own scanner
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "pglast"], check=True)

import pglast  # noqa: E402

from sides import Side  # noqa: E402
from support.processes import until  # noqa: E402

# Columns of the server's CSV log.
FROM, SESSION, SEVERITY, SQLSTATE, MESSAGE, QUERY, APPLICATION = 4, 5, 11, 12, 13, 19, 22
SHOWN_MAX = 40
TEXT_MAX = 100_000


@dataclasses.dataclass
class Account:
    statements: int
    complaints: list[str]


def compare(side: Side, out: pathlib.Path) -> Account:
    """Reads both logs; writes what differs to `log.txt`."""
    gateway = side.gateway
    api = gateway.api("carol")
    # What clients left running is cancelled, and its end recorded.
    until("the sessions to end", lambda: not api.get("/sessions")["items"], 60)
    api.settle(300)
    records = fetch_records(gateway, out / "records.jsonl")
    queries = [record for record in records if record["event"] == "query"]
    complaints = []
    said = (gateway.folder / "gateway.out").read_text(errors="replace")
    for line in re.findall(r"(?m)^.*(?:WARN|ERROR|panick).*$", said)[:SHOWN_MAX]:
        complaints.append(f"gateway said: {line[:400]}")
    gateway.stop()
    done = gateway.verify()
    if done.returncode != 0:
        complaints.append(f"verify: {done.stdout}{done.stderr}")
    for record in queries:
        if record.get("outcome") in (None, "unknown") or record.get("running"):
            complaints.append(f"unknown outcome: {brief(record)}")
    numbers = sorted(record["seq"] for record in records)
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        complaints.append("sequence numbers have holes or doubles")
    side.cluster.stop()
    shutil.copy(side.cluster.data / "log" / "server.csv", out / "server.csv")
    complaints += texts(side, queries)
    complaints += errors(side, queries)
    (out / "log.txt").write_text("\n".join(complaints))
    return Account(len(queries), complaints)


def brief(record: dict) -> str:
    return json.dumps({key: record.get(key) for key in ("seq", "session", "outcome", "txn_outcome", "sqlstate", "error",
                                                       "detail", "sql")})[:500]


def fetch_records(gateway, path: pathlib.Path) -> list[dict]:
    token = gateway.provider.id_token("carol")
    request = urllib.request.Request(f"{gateway.url}/api/v1/export?q=&format=jsonl",
                                     headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=600) as answer, open(path, "wb") as out:
        while part := answer.read(1 << 20):
            out.write(part)
    with open(path) as lines:
        return [json.loads(line) for line in lines]


def server_log(side: Side):
    """What sessions of the suite were logged for: not the gateway's own, nor ours over the socket."""
    with open(side.cluster.data / "log" / "server.csv", newline="", errors="replace") as log:
        for row in csv.reader(log):
            if row[FROM].startswith("127.") and row[APPLICATION] != "pgwitness catalog":
                yield row


def split(text: str) -> list[str]:
    """As PostgreSQL's own scanner cuts a query string."""
    for with_parser in (True, False):
        try:
            return [piece.strip() for piece in pglast.split(text, with_parser=with_parser)]
        except Exception:
            continue
    return [text.strip().rstrip(";")]


def plain(text: str) -> str:
    """To compare by: without what a splitter may leave at either end, letters outside ASCII (the server logs
    them in its own encoding), passwords (never recorded), or more than both logs keep of it."""
    text = re.sub(r"[^\x00-\x7f]+", "?", text[:TEXT_MAX])
    text = re.sub(r"(?i)(password\s+)'(?:[^']|'')*'", r"\1'[redacted]'", text)
    return re.sub(r"\s+", " ", text[_blank(text):]).strip(" ;")


def _blank(text: str) -> int:
    """Where the statement begins, behind blanks and comments, which nest."""
    depth, line = 0, False
    for found in re.finditer(r"/\*|\*/|--|\n|[^\s;]", text):
        word = found.group()
        if line or word == "\n":
            line = line and word != "\n"
        elif word in ("/*", "*/"):
            depth = max(0, depth + (1 if word == "/*" else -1))
        elif depth == 0 and word == "--":
            line = True
        elif depth == 0:
            return found.start()
    return len(text)


def texts(side: Side, queries: list[dict]) -> list[str]:
    """Statements that only one of the two logs knows, or knows more often."""
    server: collections.Counter = collections.Counter()
    refused: collections.Counter = collections.Counter()
    last: dict[str, str] = {}
    for row in server_log(side):
        kind, colon, text = row[MESSAGE].partition(": ")
        if row[SEVERITY] == "LOG" and kind == "statement":
            last[row[SESSION]] = text
            server.update(map(plain, split(text)))
        elif row[SEVERITY] == "LOG" and kind.startswith("execute ") and not kind.startswith("execute fetch from"):
            last[row[SESSION]] = text
            server[plain(text)] += 1
        elif row[SEVERITY] == "ERROR" and row[QUERY] and (
                last.get(row[SESSION]) != row[QUERY] or row[MESSAGE].startswith("cached plan must not change")):
            # Turned down before it ran: not logged as a statement, yet recorded as an error.
            refused.update(map(plain, {row[QUERY], *split(row[QUERY]), *row[QUERY].split(";")}))
    said = [record for record in queries if record["command"] != "FUNCTION CALL"]
    ran = collections.Counter(plain(each.get("sql") or "") for each in said if each["outcome"] != "skipped")
    skipped = collections.Counter(plain(each.get("sql") or "") for each in said if each["outcome"] == "skipped")
    # A terminated backend says so in answer to whatever comes next, which it does not run.
    lost = collections.Counter(plain(each.get("sql") or "") for each in said
                               if each["outcome"] == "unknown" or (each["sqlstate"] or "").startswith("57P"))
    complaints = []
    for text in (server.keys() | ran.keys()) - {""}:
        more = ran[text] - server[text]
        if more < 0:
            more = min(0, more + skipped[text])
        elif more > 0:
            more = max(0, more - refused[text] - lost[text])
        if more:
            complaints.append(f"{more:+d} records of {text[:300]!r} (server {server[text]}, ours {ran[text]}, "
                              f"skipped {skipped[text]}, refused {refused[text]})")
    return sorted(complaints)


def errors(side: Side, queries: list[dict]) -> list[str]:
    """Errors by code: as the server logged them, and as recorded. A Parse that fails and is never executed is no
    access, and the errors of a session's begin and end are no statement's: of those the server may know more."""
    least: collections.Counter = collections.Counter()
    most: collections.Counter = collections.Counter()
    last: dict[str, str] = {}
    for row in server_log(side):
        kind, _, text = row[MESSAGE].partition(": ")
        if row[SEVERITY] == "LOG" and (kind == "statement" or kind.startswith("execute ")):
            last[row[SESSION]] = text
        elif row[SEVERITY] in ("ERROR", "FATAL"):
            most[row[SQLSTATE]] += 1
            least[row[SQLSTATE]] += row[SEVERITY] == "ERROR" and last.get(row[SESSION]) == row[QUERY]
    seen = collections.Counter(record["sqlstate"] for record in queries if record.get("sqlstate"))
    return [f"sqlstate {code}: {least[code]} to {most[code]} in the server's log, {seen[code]} records"
            for code in sorted(most.keys() | seen.keys()) if not least[code] <= seen[code] <= most[code]]
