"""Tokens that the gateway gives out: by a login in a browser, printed, in a passfile, listed, ended, kept over a restart."""

import json
import os
import stat
import subprocess

import psycopg
import pytest

from support.gateway import PASSWORD_PROMPT, email, program
from support.processes import until
from support.provider import Browser, claims


def clean() -> dict:
    return {key: value for key, value in os.environ.items() if not key.startswith(("PG", "XDG_"))}


class Cli:
    """The program as a person uses it, in a home of its own."""

    def __init__(self, home, url: str):
        self.home = home
        self.environment = {**clean(), "HOME": str(home), "PGWITNESS_URL": url}

    def run(self, *arguments, expect: int = 0, **changes) -> str:
        done = subprocess.run([str(program()), *arguments], env={**self.environment, **changes}, capture_output=True,
                              text=True, stdin=subprocess.DEVNULL, timeout=60)
        assert done.returncode == expect, f"{arguments}: {done.returncode} {done.stdout} {done.stderr}"
        return done.stdout

    def log_in(self, person: str) -> None:
        """By a browser on this machine: a program that writes down where it is sent, and a person who goes there."""
        address, browser = self.home / "address", self.home / "browser"
        address.unlink(missing_ok=True)
        browser.write_text(f"#!/bin/sh\nprintf %s \"$1\" > '{address}.part' && mv '{address}.part' '{address}'\n")
        browser.chmod(0o755)
        login = subprocess.Popen([str(program()), "login", "--browser"], stdin=subprocess.DEVNULL,
                                 env={**self.environment, "BROWSER": str(browser)}, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True)
        try:
            until("the browser to be sent somewhere", address.exists, 20)
            assert "Go back to the terminal" in Browser(person).visit(address.read_text())
            _, messages = login.communicate(timeout=60)
        finally:
            login.kill()
            login.wait()
        assert login.returncode == 0, messages
        assert "pgw_" not in messages and "eyJ" not in messages


@pytest.fixture
def cli(gateway, tmp_path):
    cli = Cli(tmp_path, gateway.url)
    cli.log_in("ann")
    return cli


def psql(target: str, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(["psql", "-X", "-A", "-t", "-w", target, "-c", "select current_user"], text=True,
                          env={**clean(), **environment}, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)


def test_a_login_in_a_browser_leaves_a_token_of_the_gateway_and_none_of_the_provider(cli, gateway, auditor):
    [stored] = [path for path in cli.home.rglob("credentials.json")]
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    token = json.loads(stored.read_text())["token"]
    assert token.startswith("pgw_")
    assert f"{email('ann')} (self)" in cli.run("whoami")
    assert json.loads(cli.run("whoami", "--json"))["mode"] == "minted"
    [record] = [each for each in auditor.wait(f"event:login.ok user:{email('ann')} ip:127.0.0.1")
                if token.split("_")[1] in json.dumps(each)][:1]
    assert token not in json.dumps(record)
    cli.run("logout")
    assert psql(gateway.dsn(email("ann")), PGPASSWORD=token, PGOPTIONS=PASSWORD_PROMPT).returncode != 0


def test_a_token_is_a_password_of_every_client_and_for_a_shell(cli, gateway):
    token = cli.run("token", "--life", "10m", "--name", "test").strip()
    with psycopg.connect(gateway.secret_dsn("app_read", token)) as connection:
        assert connection.execute("select current_user").fetchone() == ("app_read",)
    lines = cli.run("token", "--format", "env")
    shell = subprocess.run(["sh", "-c", f"{lines}\npsql -X -A -t -w \"{gateway.dsn('app_write')}\" -c 'select 1'"],
                           env=clean(), capture_output=True, text=True, timeout=60)
    assert shell.stdout.strip() == "1", shell.stderr
    cli.run("token", "--life", "0s", expect=2)


def test_a_passfile_gets_the_token_and_keeps_its_other_lines(cli, gateway):
    passfile = cli.home / "pgpass"
    passfile.write_text("elsewhere:5432:*:me:mine\n")
    for _ in range(2):
        assert cli.run("token", "--passfile", str(passfile)) == ""
    lines = passfile.read_text().splitlines()
    assert [line.startswith(f"127.0.0.1:{gateway.port}:*:*:pgw_") for line in lines] == [True, False]
    assert lines[1] == "elsewhere:5432:*:me:mine"
    assert stat.S_IMODE(passfile.stat().st_mode) == 0o600
    done = psql(gateway.dsn("app_read"), PGPASSFILE=str(passfile), PGOPTIONS=PASSWORD_PROMPT)
    assert done.stdout.strip() == "app_read", done.stderr
    cli.run("token", "--passfile")
    assert (cli.home / ".pgpass").exists()
    assert cli.run("token", "--format", "pgpass").startswith(f"127.0.0.1:{gateway.port}:*:*:pgw_")


def test_connect_info_is_what_programs_connect_with(cli, gateway):
    token = cli.run("token").strip()
    uri = cli.run("connect-info", "--database", "shop", "--format", "uri").strip()
    done = psql(uri, PGPASSWORD=token)
    assert done.stdout.strip() == "app_write", done.stderr
    with psycopg.connect(uri, password=token) as connection:
        assert connection.execute("select current_user").fetchone() == ("app_write",)
    service = cli.home / "service"
    service.write_text(cli.run("connect-info", "--database", "shop", "--role", "app_read", "--format", "service"))
    done = psql("service=pgwitness", PGPASSWORD=token, PGSERVICEFILE=str(service))
    assert done.stdout.strip() == "app_read", done.stderr
    told = json.loads(cli.run("connect-info", "--database", "shop", "--json"))
    assert told["port"] == gateway.port and told["jdbc"].startswith(f"jdbc:postgresql://127.0.0.1:{gateway.port}/shop?")
    settings: dict = {}
    exec(cli.run("connect-info", "--database", "shop", "--format", "django"),
         {"os": type("os", (), {"environ": {"PGPASSWORD": token}})}, settings)
    django = settings["DATABASES"]["default"]
    with psycopg.connect(host=django["HOST"], port=django["PORT"], dbname=django["NAME"], user=django["USER"],
                         password=django["PASSWORD"], **django["OPTIONS"]) as connection:
        assert connection.execute("select current_user").fetchone() == ("app_write",)
    assert token not in cli.run("connect-info")


def test_what_opens_sessions_is_listed_and_ended(cli, gateway, provider):
    token = cli.run("token", "--name", "listed").strip()
    listed = cli.run("logins")
    [line] = [line for line in listed.splitlines() if '"listed"' in line]
    assert token not in listed
    ident = line.split()[0]
    assert psql(gateway.dsn("app_read"), PGPASSWORD=token, PGOPTIONS=PASSWORD_PROMPT).returncode == 0
    # Somebody else, even an auditor, neither sees nor ends it.
    other = {"PGWITNESS_TOKEN": provider.id_token("carol")}
    assert ident not in cli.run("logins", "--json", **other)
    cli.run("logins", "revoke", ident, expect=1, **other)
    assert "ended" in cli.run("logins", "revoke", ident)
    refused = psql(gateway.dsn("app_read"), PGPASSWORD=token, PGOPTIONS=PASSWORD_PROMPT)
    assert refused.returncode != 0 and "not known, or its life is over" in refused.stderr


def test_a_restart_forgets_neither_tokens_nor_paired_secrets_and_keeps_no_secret(own_gateway, tmp_path):
    gateway = own_gateway()
    cli = Cli(tmp_path, gateway.url)
    cli.log_in("ann")
    token = cli.run("token").strip()
    secret = gateway.pair("bob")
    logins = gateway.log_dir / "logins"
    # An approval is written down soon after it let the client in, not before.
    until("the paired secret to be kept", lambda: '"pairings":[{' in logins.read_text(), 20)
    gateway.kill()
    kept = logins.read_text()
    assert token.split("_")[2] not in kept and secret not in kept
    gateway.start()
    for user, word, role in ((email("ann"), token, "app_write"), (email("bob"), secret, "app_read")):
        done = psql(gateway.dsn(user), PGPASSWORD=word, PGOPTIONS=PASSWORD_PROMPT)
        assert done.stdout.strip() == role, done.stderr
        assert "to log in" not in done.stderr


def test_the_api_says_where_to_log_in_to_who_has_no_token(gateway, provider):
    import urllib.error
    import urllib.request

    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{gateway.url}/api/v1/me", timeout=10)
    assert refused.value.code == 401
    challenge = refused.value.headers["WWW-Authenticate"]
    metadata = f"{gateway.url}/.well-known/oauth-protected-resource"
    assert challenge == f'Bearer resource_metadata="{metadata}"'
    with urllib.request.urlopen(metadata, timeout=10) as answer:
        told = json.load(answer)
    # RFC 9728, 3.3: the resource is the address whose metadata this is.
    assert told["resource"] == gateway.url
    assert told["authorization_servers"] == [provider.issuer]
    assert told["bearer_methods_supported"] == ["header"]
    assert claims(provider.id_token("ann"))["iss"] in told["authorization_servers"]


def test_the_command_line_logs_in_where_the_gateways_own_client_has_a_secret(own_gateway, provider, tmp_path):
    client, secret = provider.confidential()
    file = tmp_path / "client.secret"
    file.write_text(secret)
    gateway = own_gateway(oidc={"client_id": client, "client_secret_file": str(file), "native_client_id": "pgwitness",
                                "audience": client})
    cli = Cli(tmp_path, gateway.url)
    cli.log_in("ann")
    assert email("ann") in cli.run("whoami")
    token = cli.run("token").strip()
    done = psql(gateway.dsn("app_read"), PGPASSWORD=token, PGOPTIONS=PASSWORD_PROMPT)
    assert done.returncode == 0, done.stderr
