"""The command line against a running gateway: log in as a person, search, show, follow, export."""

import csv
import io
import json
import os
import signal
import subprocess

import psycopg
import pytest

from support.gateway import email, link_and_code, program
from support.processes import Child, until
from support.provider import Browser


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def environment(gateway, provider, home):
    """No stored login, but an auditor's token."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PGWITNESS_", "XDG_"))}
    return {**clean, "HOME": str(home), "PGWITNESS_URL": gateway.url, "PGWITNESS_TOKEN": provider.id_token("carol")}


@pytest.fixture
def cli(environment):
    def run(*arguments, **changes):
        return subprocess.run([str(program()), *arguments], env={**environment, **changes}, capture_output=True,
                              text=True, stdin=subprocess.DEVNULL, timeout=60)

    return run


@pytest.fixture
def known(connect, auditor, mark):
    """One statement and its record."""
    connect().execute(f"select /* {mark} */ email from customers where id < 4")
    [record] = auditor.wait(mark)
    return record


def test_search_prints_records_on_stdout(cli, known, mark):
    done = cli("search", f"column:customers.email {mark}", "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    [record] = map(json.loads, done.stdout.splitlines())
    assert (record["id"], record["user"], record["rows"]) == (known["id"], email("ann"), 3)
    table = cli("search", mark)
    assert table.returncode == 0
    assert email("ann") in table.stdout
    rows = list(csv.DictReader(io.StringIO(cli("search", mark, "--format", "csv").stdout)))
    assert [row["user"] for row in rows] == [email("ann")]


def test_the_exit_code_says_how_it_ended(cli, known, mark):
    assert cli("search", f"{mark}nothing").returncode == 1
    assert cli("search", "tabel:customers").returncode == 2
    assert cli("search", "--no-such-flag").returncode == 2
    assert cli("search", mark, PGWITNESS_TOKEN="garbage").returncode == 3
    assert cli("search", mark, PGWITNESS_URL="http://127.0.0.1:1").returncode == 3


def test_show_prints_one_record_whole(cli, known):
    done = cli("show", known["id"])
    assert done.returncode == 0, done.stderr
    assert known["sql"] in done.stdout
    assert json.loads(cli("show", known["id"], "--json").stdout)["id"] == known["id"]
    assert cli("show", "00000000-0000-7000-8000-000000000000").returncode == 1


def test_who_names_the_people_that_touched_a_column(cli, known):
    done = cli("who", "customers.email", "--since", "1d")
    assert done.returncode == 0, done.stderr
    assert email("ann") in done.stdout
    assert cli("who", "customers.country", "--since", "1d").returncode in (0, 1)


def test_tail_follows_what_happens(environment, connect, ground, mark):
    child = Child([str(program()), "tail", mark, "--format", "jsonl"], ground / f"tail-{mark}", env=environment)
    try:
        until("tail to ask", lambda: child.alive(), 5)
        connect().execute(f"select /* {mark} */ 1")
        until("tail to print the record", lambda: mark in child.said(), 15)
    finally:
        code = child.stop(signal.SIGINT)
    assert code == 0
    assert json.loads(child.said().splitlines()[-1])["user"] == email("ann")


def test_a_login_is_remembered_until_logout(cli, environment, gateway, known, mark):
    environment.pop("PGWITNESS_TOKEN")
    login = subprocess.Popen([str(program()), "login"], env=environment, stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        shown = ""
        while not link_and_code(shown):
            line = login.stderr.readline()
            assert line, f"login ended without a link: {shown}"
            shown += line
        Browser("carol").approve(*link_and_code(shown))
        _, messages = login.communicate(timeout=60)
    finally:
        login.kill()
    assert login.returncode == 0, messages
    assert email("carol") in cli("whoami").stdout
    assert cli("search", mark).returncode == 0
    assert cli("logout").returncode == 0
    assert cli("search", mark).returncode == 3


def test_export_writes_every_match(cli, connect, auditor, mark, tmp_path):
    connection = connect()
    for number in range(30):
        connection.execute(f"select /* {mark} */ {number}")
    auditor.wait(mark, count=30)
    for form, count in (("jsonl", 30), ("csv", 31)):
        path = tmp_path / f"out.{form}"
        done = cli("export", mark, "--format", form, "-o", str(path))
        assert done.returncode == 0, done.stderr
        assert len(path.read_text().splitlines()) == count
    until("the records of the exports",
          lambda: sum(mark in record["detail"] for record in auditor.search("event:audit.export")) == 2, 5, every=0.1)


def test_play_shows_a_session_in_order(cli, connect, auditor, mark):
    connection = connect()
    connection.execute("begin")
    connection.execute(f"select /* {mark} */ 1")
    connection.execute("rollback")
    connection.close()
    session = auditor.wait(mark)[0]["session"]
    until("the session to end", lambda: auditor.search(f"session:{session} event:session.end"), 5, every=0.1)
    done = cli("play", session)
    assert done.returncode == 0, done.stderr
    places = [done.stdout.find(word) for word in ("session.start", "begin", mark, "rollback", "session.end")]
    assert -1 not in places and places == sorted(places), done.stdout
    assert "ended" in done.stdout.split("\n\n")[0]
    records = [json.loads(line) for line in cli("play", session, "--json").stdout.splitlines()]
    assert [record["seq"] for record in records] == sorted(record["seq"] for record in records)
    assert {record["session"] for record in records} == {session}
    assert cli("play", session[:30]).stdout == done.stdout
    assert cli("play", "00000000-0000-7000-8000-000000000000").returncode == 1
    assert cli("play", "not a session").returncode == 2


def test_access_names_the_tables_that_a_person_touched(cli, known):
    done = cli("access", email("ann"), "--since", "1d")
    assert done.returncode == 0, done.stderr
    assert "public.customers" in done.stdout
    answer = json.loads(cli("access", email("ann"), "--json").stdout)
    assert any(table["name"] == "public.customers" for table in answer["tables"])
    assert cli("access", "nobody@example.com").returncode == 1


def test_the_index_is_told_about_and_shells_are_helped(cli, known):
    stats = json.loads(cli("index", "stats", "--json").stdout)
    assert stats["log_seq"] >= stats["indexed_seq"] >= known["seq"]
    for shell in ("bash", "zsh", "fish"):
        assert "pgwitness" in cli("completions", shell).stdout


def test_the_index_is_built_again_only_while_the_gateway_is_away(own_gateway):
    gateway = own_gateway()
    gateway.pair("ann")
    count = gateway.api("carol").settle()
    rebuild = ("index", "rebuild", "--config", str(gateway.config))
    refused = gateway.run(*rebuild)
    assert refused.returncode == 1
    assert "Stop the gateway first" in refused.stderr
    assert len(gateway.api("carol").all()) >= count
    gateway.stop()
    done = gateway.run(*rebuild)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= count
    gateway.start()
    assert len(gateway.api("carol").all()) >= count


def test_a_session_is_ended_by_whose_it_is(cli, connect, provider, gateway):
    connection = connect()
    [pid] = connection.execute("select pg_backend_pid()").fetchone()
    token = provider.id_token("ann")
    listed = json.loads(cli("sessions", PGWITNESS_TOKEN=token).stdout)["items"]
    [session] = [item["session"] for item in listed if item["pid"] == pid]
    assert cli("sessions", "kill", session, PGWITNESS_TOKEN=provider.id_token("bob")).returncode == 1
    done = cli("sessions", "kill", session, PGWITNESS_TOKEN=token)
    assert (done.returncode, done.stdout) == (0, "1 sessions ended\n"), done.stderr

    def ended() -> bool:
        try:
            connection.execute("select 1")
        except psycopg.OperationalError:
            return True
        return False

    until("the session to end", ended, 5, every=0.05)


CONFIGURATION = """
[listen]
address = "127.0.0.1:6432"
tls = "off"
[oidc]
issuer = "https://id.example.com"
client_id = "pgwitness"
client_secret = "hush"
[[upstream]]
name = "main"
url = "postgres://db.example.com"
credentials = [{ role = "app_read", password = "hush" }]
[[login]]
databases = ["bi"]
mode = "token"
[[role_map]]
users = ["eve@example.com"]
roles = ["dba"]
expires = "2020-01-01T00:00:00Z"
[[role_map]]
groups = ["engineering"]
databases = ["shop", "bi"]
require_acr = ["phr"]
roles = ["app_read"]
[access]
auditor = ["group:security"]
[log]
dir = "journal"
"""


@pytest.fixture
def configuration(tmp_path):
    file = tmp_path / "pgwitness.toml"
    file.write_text(CONFIGURATION)
    return file


def test_config_check_says_which_rule_decides_about_a_person(cli, configuration):
    def check(*arguments):
        done = cli("config", "check", str(configuration), *arguments)
        assert done.stderr == ""
        return done.returncode, done.stdout

    assert check() == (0, f"{configuration} is fine\n")
    ann = ["--as", "ann@example.com", "--group", "engineering", "--acr", "phr"]
    code, told = check(*ann, "--database", "bi", "--from", "10.0.0.9")
    assert code == 0
    assert "[[login]] 1 decides: a JWT as password" in told
    assert "[[role_map]] 1 does not: it is over" in told
    assert "[[role_map]] 2 decides: app_read" in told
    assert '"main", with a credential for app_read' in told
    code, told = check(*ann[:4], "--database", "shop")
    assert code == 1
    assert "refused: ann@example.com needs a stronger login" in told
    code, told = check(*ann, "--database", "billing", "--json")
    answer = json.loads(told)
    assert (code, answer["role"]["allowed"], answer["log"]) == (1, False, "self")
    assert len(answer["passed_over"]) == 2
    assert cli("config", "check", str(configuration), "--as", "ann").returncode == 2


def test_config_show_says_what_is_written_and_where_but_no_secret(cli, configuration):
    done = cli("config", "show", "--origin", str(configuration), PGWITNESS__LISTEN__ADDRESS="127.0.0.1:7")
    assert done.returncode == 0
    assert 'listen.address = "127.0.0.1:7"  # PGWITNESS__LISTEN__ADDRESS' in done.stdout
    assert f'role_map[2].roles = ["app_read"]  # {configuration}' in done.stdout
    assert "hush" not in done.stdout + done.stderr
    schema = json.loads(cli("config", "schema").stdout)
    assert set(schema["properties"]) >= {"listen", "oidc", "upstream", "role_map", "login", "workload", "log"}
    assert schema["additionalProperties"] is False
