"""Folders of statements with the truth beside them: schema.sql and statements.jsonl."""

import json
import pathlib
import subprocess

from sides import SECRET, SUPERUSER
from support.cluster import Cluster
from support.gateway import program
from support.processes import HOST
from truth import Touched, Truth
from verdict import Verdict, judge

EXPLAIN_SECONDS_MAX = 300


def score(cluster: Cluster, folder: pathlib.Path) -> list[Verdict]:
    database = f"truth_{folder.name}"
    cluster.psql(f'create database "{database}" template template0')
    subprocess.run(["psql", "-X", "-q", "-h", str(cluster.socket_dir), "-p", str(cluster.port), "-U", SUPERUSER, "-d",
                    database, "-f", str(folder / "schema.sql")], capture_output=True, check=True)
    with open(folder / "statements.jsonl") as lines:
        items = [json.loads(line) for line in lines]
    url = f"postgres://{SUPERUSER}:{SECRET}@{HOST}:{cluster.port}/{database}?sslmode=disable"
    asked = "".join(json.dumps({"statement": item["statement"]}) + "\n" for item in items)
    done = subprocess.run([str(program()), "explain", "--lines", "--database", url], input=asked, capture_output=True,
                          text=True, timeout=EXPLAIN_SECONDS_MAX)
    if done.returncode != 0:
        raise RuntimeError(f"explain failed: {done.stderr}")
    verdicts = []
    for item, line in zip(items, done.stdout.splitlines(), strict=True):
        said = item["truth"]
        # Of other utilities the truth is what they lock.
        if "error" in said or said.get("action") == "UTILITY" or said.get("wrapper") == "UTILITY":
            continue
        verdicts.append(judge(folder.name, item.get("src", ""), {**json.loads(line), "sql": item["statement"]}, truth(item)))
    return verdicts


def truth(item: dict) -> Truth:
    said = item["truth"]
    named = touched(said)
    target = said.get("target")
    return Truth(item["statement"], named, named | touched(said.get("expanded", said)),
                 target.replace('"', "").rpartition(".")[2] if target else None)


def touched(said: dict) -> Touched:
    return Touched({each["rel"] for each in said["relations"]}, set(said["reads"]), set(said["writes"]))
