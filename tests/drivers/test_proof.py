"""The signed log, checked by somebody who has nothing of ours but files and the key."""

import base64
import http.server
import json
import os
import pathlib
import stat
import subprocess
import threading

import pytest

from support import tlog
from support.gateway import email, program
from support.processes import HOST, until


def show(gateway, provider, record, *arguments):
    return subprocess.run([str(program()), "show", record["id"], "--proof", *arguments], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=60, cwd=gateway.folder,
                          env={**os.environ, "PGWITNESS_URL": gateway.url, "PGWITNESS_TOKEN": provider.id_token("carol")})


def signed(api, path, **params):
    """An answer about what a head covers: the newest records are covered within a second."""
    answers = []

    def asked():
        status, answer = api.try_get(path, **params)
        answers.append(answer)
        return status == 200

    until("a signed head", asked, 10)
    return json.loads(answers[-1])


@pytest.fixture
def known(connect, auditor, mark):
    connect().execute(f"select email from customers where id = %s /* {mark} */", [3])
    [record] = auditor.wait(mark)
    return record


def test_a_record_is_proven_by_files_that_need_nothing_of_ours(gateway, provider, auditor, known, tmp_path):
    signed(auditor, f"/events/{known['id']}/proof")
    key = auditor.get("/status")["proof"]["key"]
    until("its end to be signed", lambda: auditor.get(f"/events/{known['id']}/proof")["final"], 10)
    done = show(gateway, provider, known, "--proof-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    files = {path.name.split("-")[1].split(".")[0]: path.read_text() for path in tmp_path.iterdir()}
    assert set(files) == {"record", "completion"}

    entry, values = tlog.proven_leaf(files["record"], key)
    said = tlog.record(entry)
    assert (said["seq"], said["id"], said["event"]) == (known["seq"], known["id"].replace("-", ""), "query")
    assert {name: said[name] for name in values} == {name: commitment for name, (_, commitment) in values.items()}
    assert values["sql"][0].decode() == known["sql"]
    assert tlog.strings(values["who"][0], 1) == [email("ann")]
    assert said["end"] is None

    entry, values = tlog.proven_leaf(files["completion"], key)
    said = tlog.completion(entry)
    assert (said["seq"], said["outcome"], said["rows"]) == (known["seq"], "ok", 1)
    assert values == {}


def test_a_proof_with_anything_changed_shows_nothing(gateway, provider, auditor, known, tmp_path):
    signed(auditor, f"/events/{known['id']}/proof")
    assert show(gateway, provider, known, "--proof-dir", str(tmp_path)).returncode == 0
    key = auditor.get("/status")["proof"]["key"]
    [path] = tmp_path.glob("*-record.tlog-proof")
    lines = path.read_text().splitlines(keepends=True)
    extra = json.loads(base64.b64decode(lines[1].removeprefix("extra ")))
    entry = bytearray(base64.b64decode(extra["entry"]))
    entry[20] ^= 1
    extra["entry"] = base64.b64encode(entry).decode()
    lines[1] = f"extra {base64.b64encode(json.dumps(extra).encode()).decode()}\n"
    with pytest.raises(AssertionError):
        tlog.proven_leaf("".join(lines), key)


def test_the_whole_log_is_exported_as_tiles(gateway, auditor, known, tmp_path):
    signed(auditor, f"/events/{known['id']}/proof")
    key = auditor.get("/status")["proof"]["key"]
    done = gateway.run("verify", "--dir", str(gateway.log_dir), "--key", key, "--tiles", str(tmp_path), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["tree"]["key"] == key
    size = tlog.checkpoint((tmp_path / "checkpoint").read_text(), key).size
    # The gateway goes on: the export holds what the head in it covers, and maybe more.
    entries = tlog.tiled(tmp_path, key)
    records = [tlog.record(entry) for entry in entries if entry[1] == 1]
    assert len(entries) == size
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    assert known["id"].replace("-", "") in {record["id"] for record in records}


def test_every_head_continues_the_one_before(gateway, auditor, connect, mark, tmp_path):
    first = auditor.get("/log/head")
    key = first["key"]
    earlier = tlog.checkpoint(first["checkpoint"], key)
    connect().execute(f"select 1 /* {mark} */")

    def later():
        return tlog.checkpoint(auditor.get("/log/head")["checkpoint"], key)

    until("a later head", lambda: later().size > earlier.size, 10)
    proof = auditor.get("/log/consistency", **{"from": earlier.size})
    head = tlog.checkpoint(proof["checkpoint"], key)
    assert proof["to"] == head.size
    path = [base64.b64decode(line) for line in proof["proof"]]
    assert tlog.roots_from_consistency(earlier.size, head.size, earlier.root, path) == (earlier.root, head.root)
    assert auditor.try_get("/log/consistency", **{"from": head.size + 100_000})[0] == 400

    # Both forms of a kept head.
    for name, content in [("head.json", json.dumps(first)), ("head", first["checkpoint"])]:
        (tmp_path / name).write_text(content)
        done = gateway.run("verify", "--dir", str(gateway.log_dir), "--head", str(tmp_path / name), "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["given_head"] == "found"


class Webhook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.received.append((self.headers["Content-Type"], body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def webhook():
    server = http.server.ThreadingHTTPServer((HOST, 0), Webhook)
    server.received = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_heads_are_kept_in_a_file_and_sent_to_a_webhook(own_gateway, webhook, tmp_path):
    kept = tmp_path / "heads"
    places = [kept, f"http://{HOST}:{webhook.server_address[1]}/heads"]
    gateway = own_gateway(log={"anchor": {"every": "1s", "to": [str(place) for place in places]}})
    gateway.pair("ann")
    until("a head to be sent", lambda: webhook.received, 20)
    key = gateway.api().get("/status")["proof"]["key"]
    assert gateway.stop() == 0
    last = (gateway.log_dir / "tiles" / "checkpoint").read_text()
    kind, body = webhook.received[-1]
    assert kind.startswith("text/plain")
    assert body == last, "the last head is sent at the end"
    assert kept.read_text().endswith(last + "\n")
    heads = [tlog.checkpoint(body, key) for _, body in webhook.received]
    assert [head.size for head in heads] == sorted({head.size for head in heads})


def test_the_key_is_made_for_its_owner_alone_and_a_lost_one_is_not_replaced(own_gateway, cluster, provider):
    gateway = own_gateway()
    key = gateway.log_dir / "sign.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    until("a signed head", lambda: (gateway.log_dir / "tiles" / "checkpoint").exists(), 10)
    gateway.stop()
    kept = key.read_text()
    key.unlink()
    refused = gateway.run("run", "--config", str(gateway.config))
    assert refused.returncode != 0
    assert "signing key" in refused.stderr and "missing" in refused.stderr
    assert kept.split("+")[4] not in refused.stderr
    key.write_text(kept)
    gateway.start()
    gateway.stop()
    assert gateway.verify().returncode == 0


def test_a_journal_that_lost_its_end_is_not_signed_and_says_so(own_gateway):
    gateway = own_gateway()
    gateway.pair("ann")
    gateway.stop()
    [segment] = gateway.log_dir.glob("*.journal")
    early = segment.read_bytes()
    gateway.start()
    gateway.pair("ben")
    gateway.stop()
    published = (gateway.log_dir / "tiles" / "checkpoint").read_text()
    segment.write_bytes(early)
    report = gateway.verify()
    assert report.returncode == 1 and "its end was cut off" in report.stdout
    gateway.start()
    api = gateway.api()
    until("the trouble to be told", lambda: api.get("/status")["proof"]["trouble"], 10)
    assert "Nothing is signed" in api.get("/status")["proof"]["trouble"]
    [alert] = api.wait("event:alert")
    assert "Nothing is signed" in alert["detail"]
    assert pathlib.Path(gateway.log_dir / "tiles" / "checkpoint").read_text() == published
