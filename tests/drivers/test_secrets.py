"""No secret is in anything that a gateway writes or says: its log at its most talkative, journal, index, exports, proofs, answers, and what
clients show. Every code and token is known from the provider that gave it out.
"""

import base64
import http.cookiejar
import json
import os
import pathlib
import re
import secrets
import subprocess
import urllib.parse
import urllib.request

import psycopg
import pytest

from support.gateway import Api, Gateway, program
from support.provider import Browser
from support.wire import Wire

# Shorter words than this are found by chance.
SECRET_LENGTH_MIN = 16
PATHS = ["/events", "/events/facets?fields=user", "/me", "/status", "/fields", "/sessions", "/objects", "/users", "/log/head", "/openapi.json"]


def disguises(secret: str) -> set[bytes]:
    """A secret as it may stand in a file: itself, in hex, percent-encoded, in JSON, and in base64 wherever it begins."""
    raw = secret.encode()
    found = {raw, raw.hex().encode(), urllib.parse.quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode()}
    for before in range(3):
        # Of base64, the characters that are of the secret alone.
        text = base64.b64encode(b"\0" * before + raw).rstrip(b"=")
        inner = text[(8 * before + 5) // 6:-2]
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    # A token that is whole but for its signature's end is of no use; one that lacks its head can be guessed.
    if secret.count(".") == 2:
        found.add(secret.split(".")[2].encode())
    if secret.startswith("pgw_"):
        found.add(secret.split("_", 2)[2].encode())
    return {each for each in found if len(each) >= SECRET_LENGTH_MIN - 4}


def leaks(where: dict[str, bytes], hidden: list[str]) -> list[str]:
    """Where a secret stands that must stand nowhere."""
    assert all(len(each) >= SECRET_LENGTH_MIN for each in hidden)
    # One pattern for all: there are hundreds.
    pattern = re.compile(b"|".join(re.escape(each) for secret in set(hidden) for each in disguises(secret)))
    return [f"{name}: …{content[max(0, found.start() - 60):found.end()]!r}"
            for name, content in where.items() for found in [pattern.search(content)] if found]


def written(folder: pathlib.Path, but: set[pathlib.Path]) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and path not in but and not any(each in path.parents for each in but)}


def decoded(gateway: Gateway, auditor: Api, folder: pathlib.Path) -> dict[str, bytes]:
    """The journal as others get it: exported in each format, verified, proved."""
    folder.mkdir()
    environment = {**os.environ, "HOME": str(folder), "PGWITNESS_URL": gateway.url, "PGWITNESS_TOKEN": auditor.token}
    told = {}
    [newest] = auditor.search("event:query", limit=1)
    for name, arguments in {
        **{form: ["export", "", "--format", form, "-o", str(folder / f"all.{form}")] for form in ("csv", "jsonl", "parquet", "ocsf")},
        "show": ["show", newest["id"], "--proof", "--proof-dir", str(folder)],
        "verify": ["verify", "--dir", str(gateway.log_dir), "--tiles", str(folder / "tiles")],
        "status": ["status", "--json"],
    }.items():
        done = subprocess.run([str(program()), *arguments], env=environment, capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        told[f"what {name} says"] = done.stdout + done.stderr
    return {**told, **written(folder, set())}


def answers(auditor: Api) -> dict[str, bytes]:
    return {path: auditor.try_get(path)[1].encode() for path in PATHS}


def test_the_search_finds_a_secret_in_each_disguise():
    secret = "pgw_0123_" + secrets.token_urlsafe(32)
    for disguise in (secret, secret[9:], secret.encode().hex(), base64.b64encode(f"client:{secret}".encode()).decode(),
                     base64.urlsafe_b64encode(b"a" + secret.encode()).decode(), json.dumps({"password": secret})):
        assert leaks({"here": f"something {disguise} else".encode()}, [secret])
    assert not leaks({"here": secret[:12].encode()}, [secret])


def test_no_secret_of_any_client_is_in_what_was_written_or_shown(matrix, cluster, provider, tmp_path):
    gateway = matrix.gateway
    hidden = [*matrix.passwords, *cluster.passwords.values(), *provider.secrets(), sign_key(gateway), matrix.auditor.token]
    where = {**written(gateway.folder, own_files(gateway)),
             **decoded(gateway, matrix.auditor, tmp_path / "out"), **answers(matrix.auditor),
             "what clients showed": "".join(seen.output for seen in matrix.seen.values()).encode()}
    assert len(where["gateway.out"]) > 10_000 and b"TRACE" in where["gateway.out"]
    assert all(word.encode() in where["all.jsonl"] for (_, mode), word in matrix.words.items() if "pg_dump" not in _)
    assert leaks(where, hidden) == []


def own_files(gateway: Gateway) -> set[pathlib.Path]:
    """Where secrets belong: the configuration, the key, and what people's own command line keeps for them."""
    return {gateway.config, gateway.log_dir / "sign.key", *gateway.folder.glob("home-of-*")}


def sign_key(gateway: Gateway) -> str:
    """The secret part of the key that signs the log's heads."""
    return (gateway.log_dir / "sign.key").read_text().strip().split("+", 4)[4]


@pytest.fixture
def talkative(own_gateway, provider, tmp_path):
    """A gateway with a secret of each kind, and those secrets."""
    client, client_secret = provider.confidential()
    made = {name: secrets.token_urlsafe(24) for name in ("nightly", "hmac")}
    paths = {name: tmp_path / name for name in ("client", "nightly", "hmac")}
    for name, text in {"client": client_secret, "nightly": made["nightly"], "hmac": made["hmac"].encode().hex()}.items():
        paths[name].write_text(text)
    gateway = own_gateway(
        oidc={"client_id": client, "audience": "pgwitness", "client_secret_file": paths["client"], "scopes": ["openid", "email", "groups", "offline_access"],
              "refresh_every": "1s"},
        capture={"parameters": "hmac", "hmac_key_file": paths["hmac"]},
        login=[{"users": ["nightly"], "mode": "scram"}],
        service=[{"name": "nightly", "password_file": paths["nightly"]}],
        role_map=[{"groups": ["engineering"], "roles": ["app_write", "app_read"]}, {"groups": ["security"], "roles": ["app_read"]},
                  {"users": ["service:nightly"], "roles": ["app_read"]}],
        verbosity="trace")
    return gateway, [client_secret, made["nightly"], made["hmac"].encode().hex()]


def signed_in(gateway: Gateway) -> tuple[str, dict[str, bytes]]:
    """Carol at the page: her cookie's value, and what the page answered."""
    jar = http.cookiejar.CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar), Unfollowed())
    begun = opener.open(gateway.url + "/auth/login")
    back = Browser("carol").sign_in(begun.headers["Location"], stop_at=gateway.url + "/auth/callback")
    said = [begun, opener.open(back), opener.open(gateway.url + "/api/v1/me"), opener.open(gateway.url + "/")]
    [cookie] = [each.value for each in jar if "session" in each.name or "pgwitness" in each.name]
    return cookie, {f"page {number}": each.read() for number, each in enumerate(said)}


class Unfollowed(urllib.request.HTTPRedirectHandler):
    """Redirects are answers."""

    def http_error_303(self, _request, answer, *_):
        return answer

    http_error_302 = http_error_307 = http_error_303


def test_no_secret_of_a_gateway_is_in_anything_that_it_writes_or_says(talkative, cluster, provider, tmp_path):
    gateway, hidden = talkative
    auditor = gateway.api("carol")
    cookie, pages = signed_in(gateway)
    secret, token = gateway.pair("ann", "app_write"), provider.id_token("ann")
    given = gateway.run("token", env={**os.environ, "HOME": str(tmp_path), "PGWITNESS_URL": gateway.url, "PGWITNESS_TOKEN": token})
    minted = given.stdout.strip()
    assert minted.startswith("pgw_"), given.stderr
    guesses = [secrets.token_urlsafe(24), secret[:-2] + "zz", token[:-6] + "AAAAAA", "pgw_" + secrets.token_hex(16) + "_" + secrets.token_urlsafe(32)]
    passwords = {name: secrets.token_urlsafe(20) for name in ("alter", "failing", "broken", "mapping", "dblink", "parameter")}
    shown = []
    with psycopg.connect(gateway.secret_dsn("app_write", secret), autocommit=True) as connection:
        connection.add_notice_handler(lambda notice: shown.append(notice.message_primary))
        for sql in (f"begin; alter role app_write password '{passwords['alter']}'; rollback", f"alter role nobody password '{passwords['failing']}'",
                    f"alter role app_write passwort '{passwords['broken']}'",
                    f"create user mapping for app_write server nowhere options (user 'x', password '{passwords['mapping']}')",
                    f"select dblink_connect('host=nowhere password={passwords['dblink']}')"):
            try:
                connection.execute(sql)
            except psycopg.Error as error:
                shown.append(error.sqlstate or "")
        connection.execute("select %s::text", [passwords["parameter"]])
    for password in (token, minted):
        psycopg.connect(gateway.secret_dsn("app_write", password)).close()
    psycopg.connect(f"{gateway.dsn('nightly')} password={hidden[1]}").close()
    for guess in guesses:
        with Wire(gateway.port) as wire:
            wire.socket.settimeout(5)
            wire.startup(user="app_write", database="shop", options="-c pgwitness.login=password")
            wire.until("R")
            wire.message("p", guess.encode() + b"\0")
            shown.append(str(wire.until("E", "N")[-1].fields()))
        shown.append(Api(gateway.url, guess).try_get("/me")[1])
    auditor.settle()
    hidden += [secret, token, minted, cookie, sign_key(gateway), auditor.token, *guesses, *passwords.values(), *cluster.passwords.values(),
               *provider.secrets()]
    where = {**written(gateway.folder, own_files(gateway)), **decoded(gateway, auditor, tmp_path / "out"),
             **answers(auditor), **pages, "what clients were told": "\n".join(shown).encode()}
    assert b"TRACE" in where["gateway.out"]
    assert leaks(where, hidden) == []
