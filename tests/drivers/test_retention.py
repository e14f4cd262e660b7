"""What goes after its time, and what stays provable to somebody who has nothing of ours but files and the key."""

import base64
import json
import os
import pathlib
import subprocess

import psycopg
import pytest

from support import tlog
from support.gateway import email, program
from support.processes import until

# The gateway looks every `full`, a head is signed each second.
SECONDS_MAX = 60


def pgwitness(gateway, provider, person, *arguments):
    return subprocess.run([str(program()), *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=90,
                          cwd=gateway.folder, env={**os.environ, "PGWITNESS_URL": gateway.url,
                                                   "PGWITNESS_TOKEN": provider.id_token(person)})


def said(gateway, person, sql, params=None):
    dsn = gateway.secret_dsn(email(person), gateway.pair(person))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql, params)


def proof_files(gateway, provider, auditor, record, folder: pathlib.Path) -> dict:
    until("its end to be signed", lambda: signed_whole(auditor, record), SECONDS_MAX)
    done = pgwitness(gateway, provider, "carol", "show", record["id"], "--proof", "--proof-dir", str(folder))
    assert done.returncode == 0, done.stderr
    return {path.name.split("-")[1].split(".")[0]: path.read_text() for path in folder.iterdir()}


def signed_whole(auditor, record) -> bool:
    status, answer = auditor.try_get(f"/events/{record['id']}/proof")
    return status == 200 and json.loads(answer)["final"]


def head(auditor) -> dict:
    until("a head", lambda: auditor.get("/log/head")["checkpoint"], 10)
    return auditor.get("/log/head")


def verified(gateway, kept: dict, folder: pathlib.Path) -> dict:
    """What `verify` says, against a head that was kept."""
    (folder / "head").write_text(json.dumps(kept))
    done = gateway.run("verify", "--dir", str(gateway.log_dir), "--key", kept["key"], "--head", str(folder / "head"), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_record_is_proven_before_and_after_its_text_went(own_gateway, provider, mark, tmp_path):
    gateway = own_gateway(retention={"full": "3s", "metadata": "7y"})
    said(gateway, "ann", f"select email from customers where id = %s /* {mark} */", [3])
    auditor = gateway.api("carol")
    [record] = auditor.wait(mark)
    old = head(auditor)
    key = old["key"]
    (tmp_path / "before").mkdir()
    before = proof_files(gateway, provider, auditor, record, tmp_path / "before")
    entry, values = tlog.proven_leaf(before["record"], key)
    assert values["sql"][0].decode() == record["sql"] and "params" in values

    until("its text to go", lambda: auditor.search(mark) == [], SECONDS_MAX)
    until("the record to be found again", lambda: auditor.search(f"seq:{record['seq']}"), SECONDS_MAX)
    shown = pgwitness(gateway, provider, "carol", "show", record["id"])
    assert "erased" in shown.stdout and "retention.full = 3s" in shown.stdout and mark not in shown.stdout

    (tmp_path / "after").mkdir()
    after = proof_files(gateway, provider, auditor, record, tmp_path / "after")
    entry_after, values_after = tlog.proven_leaf(after["record"], key)
    assert entry_after == entry, "the leaf is the same, under a later head"
    assert set(values_after) == {"who"}
    # Whoever kept the text can still show that it is what was recorded.
    assert tlog.record(entry_after)["sql"] == values["sql"][1]

    # Every earlier head is one that the log continues.
    proof = auditor.get("/log/consistency", **{"from": tlog.checkpoint(old["checkpoint"], key).size})
    early, late = tlog.checkpoint(old["checkpoint"], key), tlog.checkpoint(proof["checkpoint"], key)
    path = [base64.b64decode(line) for line in proof["proof"]]
    assert tlog.roots_from_consistency(early.size, late.size, early.root, path) == (early.root, late.root)
    # The gateway is stopped so that nothing is rewritten while it is read.
    assert gateway.stop() == 0
    report = verified(gateway, old, tmp_path)
    assert report["given_head"] == "found" and report["classes"]["metadata"] > 0


def test_dropped_records_are_gone_and_the_log_still_continues_every_head(own_gateway, provider, mark, tmp_path):
    gateway = own_gateway(retention={"full": "1s", "metadata": "3s"})
    said(gateway, "ann", f"select 1 /* {mark} */")
    auditor = gateway.api("carol")
    [record] = auditor.wait(mark)
    old = head(auditor)
    until("its segment to go", lambda: auditor.try_get(f"/events/{record['id']}/proof")[0] == 404, SECONDS_MAX)
    assert not (gateway.log_dir / "00000000000000000001.journal").exists()
    assert gateway.stop() == 0
    report = verified(gateway, old, tmp_path)
    assert report["given_head"] == "found" and report["classes"]["dropped"] > 0
    # A file that nobody says was dropped is missing.
    left = sorted(gateway.log_dir.glob("*.journal"))
    left[0].rename(tmp_path / "hidden")
    done = gateway.run("verify", "--dir", str(gateway.log_dir), "--json")
    assert done.returncode == 1
    assert "no signed record says that it was dropped" in json.loads(done.stdout)["broken"]["reason"]


def test_an_administrator_has_values_erased_and_a_hold_forbids_it(own_gateway, provider, mark):
    gateway = own_gateway(retention={"legal_hold": ["user:bob@example.com"]}, access={"admin": ["mallory@example.com"]})
    for person in ["ann", "bob"]:
        said(gateway, person, f"select %s::text /* {mark} {person} */", [f"value-{person}"])
    auditor = gateway.api("carol")
    records = {record["user"]: record for record in auditor.wait(mark, 2)}

    def erase(person, record, *fields):
        return pgwitness(gateway, provider, person, "erase", record["id"], "--fields", ",".join(fields), "--reason", "case 4711")

    ann, bob = records[email("ann")], records[email("bob")]
    assert erase("carol", ann, "params").returncode == 1, "to read all is not to operate"
    held = erase("mallory", bob, "sql", "params")
    assert held.returncode != 0 and "legal hold" in held.stderr
    done = erase("mallory", ann, "params")
    assert done.returncode == 0, done.stderr
    assert "value-ann" not in done.stdout
    until("it to be forgotten", lambda: auditor.search("value-ann") == [], SECONDS_MAX)
    until("the others to be found", lambda: len(auditor.search(mark)) == 2, SECONDS_MAX)
    shown = pgwitness(gateway, provider, "carol", "show", ann["id"]).stdout
    assert "case 4711" in shown and email("mallory") in shown and "value-ann" not in shown
    assert "value-bob" in pgwitness(gateway, provider, "carol", "show", bob["id"]).stdout
    status = json.loads(pgwitness(gateway, provider, "mallory", "status").stdout)["retention"]
    assert status["legal_hold"] == ["user:bob@example.com"] and status["trouble"] is None
    assert any("user:bob@example.com" in record["detail"] for record in auditor.search("event:retention"))
    assert gateway.verify().returncode == 0


@pytest.mark.parametrize("wrong", [{"legal_hold": ["nofield:x"]}, {"legal_hold": ["time:>-15m"]}, {"full": "9d", "metadata": "8d"}])
def test_a_rule_that_cannot_be_kept_stops_the_start(own_gateway, wrong):
    with pytest.raises(Exception, match="retention"):
        own_gateway(retention=wrong)
