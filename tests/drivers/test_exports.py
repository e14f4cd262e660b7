"""Exports as others read them: Parquet by DuckDB, OCSF by its published schema, and the manifest beside each."""

import hashlib
import json
import os
import subprocess

import duckdb
import jsonschema
import ocsf_json_schema
import pytest

from support.gateway import email, program
from support.processes import until


@pytest.fixture
def export(gateway, provider, tmp_path):
    """Writes an export by the command line: the file and its manifest."""

    def run(query: str, form: str, person: str = "carol", **changes):
        path = tmp_path / f"out.{form}"
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PGWITNESS_", "XDG_"))}
        environment = {**clean, "HOME": str(tmp_path), "PGWITNESS_URL": gateway.url,
                       "PGWITNESS_TOKEN": provider.id_token(person)}
        done = subprocess.run([str(program()), "export", query, "--format", form, "-o", str(path)], env=environment,
                              capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
        assert done.returncode == 0, done.stderr
        return path, json.loads(path.with_name(f"{path.name}.manifest.json").read_text())

    return run


@pytest.fixture
def known(connect, auditor, mark):
    """Statements of each kind: read, write, failed, in a transaction."""
    connection = connect()
    connection.execute(f"select /* {mark} */ email from customers where id < 4")
    connection.execute(f"insert into ledger values (9, 1, '{mark}')")
    connection.execute(f"delete from ledger where note = '{mark}'")
    with pytest.raises(Exception):
        connection.execute(f"select /* {mark} */ 1 / 0")
    connection.execute("select %s::text, %s::int", (mark, None))
    return auditor.wait(mark, count=5)


def test_parquet_is_read_by_duckdb_with_its_types(export, known, mark):
    path, manifest = export(f"event:query {mark}", "parquet")
    table = duckdb.read_parquet(str(path))
    types = dict(zip(table.columns, map(str, table.types)))
    assert types["time"] == "TIMESTAMP WITH TIME ZONE"
    assert types["tables"] == types["columns"] == "VARCHAR[]"
    assert types["rows"] == types["seq"] == types["duration_us"] == "BIGINT"
    assert types["sql"] == "VARCHAR"
    names = ["id", "seq", "user", "sql", "tables", "columns", "reads", "rows", "duration_us", "outcome", "sqlstate", "is"]
    chosen = ", ".join(f'"{name}"' for name in names)
    rows = table.select(f'{chosen}, strftime(time at time zone \'UTC\', \'%Y-%m-%dT%H:%M:%S.%fZ\'), params, auth').fetchall()
    assert len(rows) == manifest["rows"] == len(known)
    for record, (*values, time, params, auth) in zip(known, rows, strict=True):
        assert dict(zip(names, values)) == {name: record[name] for name in names}
        assert (time, json.loads(params), json.loads(auth)) == (record["time"], record["params"], record["auth"])


@pytest.mark.parametrize("version", ["1.5.0", "1.8.0"])
def test_ocsf_events_are_as_their_published_schema_says(export, known, auditor, mark, version):
    auditor.search(f"table:customers {mark}")
    ours = ocsf_json_schema.OcsfJsonSchemaEmbedded(ocsf_json_schema.get_ocsf_schema("1.5.0"))
    theirs = ocsf_json_schema.OcsfJsonSchemaEmbedded(ocsf_json_schema.get_ocsf_schema(version))
    path, manifest = export("", "ocsf")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(events) == manifest["rows"]
    assert manifest["file"]["schema"] == "OCSF 1.5.0"
    checks = {}
    for event in events:
        name = ours.lookup_class_name_from_uid(event["class_uid"])
        if name not in checks:
            checks[name] = jsonschema.Draft202012Validator(theirs.get_class_schema(name))
        mistakes = [f"{mistake.json_path}: {mistake.message}" for mistake in checks[name].iter_errors(event)]
        assert not mistakes, (mistakes, event)
    assert {"datastore_activity", "authentication"} <= set(checks)
    [read] = [event for event in events if event["metadata"]["uid"] == known[-1]["id"]]
    assert (read["actor"]["user"]["name"], read["query_info"]["query_string"]) == (email("ann"), known[-1]["sql"])


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "ocsf"])
def test_a_manifest_and_the_log_say_what_the_file_is(export, known, auditor, mark, form):
    path, manifest = export(f"event:query {mark}", form)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    seqs = [record["seq"] for record in known]
    assert manifest["file"]["sha256"] == digest
    assert manifest["file"]["name"] == path.name
    assert manifest["seq"] == {"first": min(seqs), "last": max(seqs)}
    assert manifest["exported_by"]["user"] == email("carol")
    assert manifest["head"]["seq"] >= max(seqs)
    until("the record of the file",
          lambda: any(digest in record["detail"] for record in auditor.search("event:audit.export")), 5, every=0.1)
