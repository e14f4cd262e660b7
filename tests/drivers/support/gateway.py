"""The gateway as a process: its configuration, its life, and the API of its log."""

import json
import os
import pathlib
import re
import secrets
import select
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

from .cluster import Cluster
from .processes import HOST, ROOT, STOP_SECONDS_MAX, Child, free_port, listening, until, watch
from .provider import Browser, Provider

START_SECONDS_MAX = 30
PROMPT_SECONDS_MAX = 20
API_SECONDS_MAX = 30
PAGE = 1000
END_SECONDS_MAX = 10

# Who may be what. Nobody is `app_admin`, and mallory is in no group.
ROLE_MAP = [
    {"groups": ["engineering"], "roles": ["app_write", "app_read"]},
    {"groups": ["support"], "roles": ["app_read"]},
    {"groups": ["security"], "roles": ["app_read"]},
]

PASSWORD_PROMPT = "-c pgwitness.login=password"


def email(person: str) -> str:
    """The verified name that records carry."""
    return f"{person}@example.com"


def program() -> pathlib.Path:
    """The binary under test: `$PGWITNESS_BIN`, else the debug or release build, whichever is newer."""
    named = os.environ.get("PGWITNESS_BIN")
    if named:
        return pathlib.Path(named)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [path for path in (target / "debug" / "pgwitness", target / "release" / "pgwitness") if path.exists()]
    if not built:
        raise RuntimeError("found no pgwitness. Build it: cargo build, or name one with PGWITNESS_BIN")
    return max(built, key=lambda path: path.stat().st_mtime)


def toml(value) -> str:
    """A TOML value. JSON's strings, numbers, booleans and arrays are TOML's too."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(str(value) if isinstance(value, pathlib.Path) else value)


class Gateway:
    """`pgwitness run --config FILE` between a cluster and a provider.

    `settings` adds to or replaces the tables of the configuration, by their name; `upstream` stands for the only one.
    `role_map`, `login` and `service` are lists of tables. `verbosity` is what it says on its standard error. Logins by
    link are approved at the provider, with `page=True` at the gateway's own page.
    """

    def __init__(self, folder: pathlib.Path, cluster: Cluster, provider: Provider, role_map: list[dict] = ROLE_MAP,
                 login: list[dict] = (), service: list[dict] = (), verbosity: str | None = None, page: bool = False,
                 **settings: dict):
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.provider = provider
        self.port = free_port()
        self.http_port = free_port()
        self.url = f"http://{HOST}:{self.http_port}"
        self.log_dir = pathlib.Path(settings.get("log", {}).get("dir", folder / "log"))
        self.config = folder / "pgwitness.toml"
        self._child: Child | None = None
        tables = {
            "listen": {"address": f"{HOST}:{self.port}", "tls": "off"},
            "http": {"address": f"{HOST}:{self.http_port}", **({"public_url": self.url} if page else {})},
            "oidc": {"issuer": provider.issuer, "client_id": "pgwitness", "scopes": ["openid", "email", "groups"]},
            "access": {"auditor": ["group:security"]},
            "log": {"dir": self.log_dir, "durability": "batch"},
            "index": {"dir": folder / "index"},
            # Many tests fail to log in, all from one address.
            "limits": {"login_failures": 10_000, "login_failures_of_address": 10_000,
                       "max_pending_logins_of_address": 1000},
        }
        more = settings.pop("upstream", {})
        for name, values in settings.items():
            tables.setdefault(name, {}).update(values)
        credentials = [{"role": role, "password_file": cluster.password_file(role)} for role in cluster.passwords]
        upstream = {"name": "main", "url": f"postgres://{HOST}:{cluster.port}", "sslmode": "disable",
                    "credentials": credentials, **more}
        self._write(tables, {"upstream": [upstream], "role_map": role_map, "login": login, "service": service})
        self._environment = {**os.environ, **({"PGWITNESS_LOG": verbosity} if verbosity else {})}

    def _write(self, tables: dict, lists: dict) -> None:
        lines = []
        for name, values in tables.items():
            lines += [f"[{name}]"] + [f"{key} = {toml(value)}" for key, value in values.items()] + [""]
        for name, entries in lists.items():
            for entry in entries:
                lines += [f"[[{name}]]"] + [f"{key} = {toml(value)}" for key, value in entry.items()] + [""]
        self.config.write_text("\n".join(lines))

    # Its life

    def start(self) -> "Gateway":
        self._child = Child([str(program()), "run", "--config", str(self.config)], self.folder / "gateway.out",
                            cwd=self.folder, env=self._environment)
        until("the gateway to listen", self._serves, START_SECONDS_MAX)
        return self

    def _serves(self) -> bool:
        if not self._child.alive():
            raise RuntimeError(f"the gateway ended at once:\n{self.said()}")
        return listening(self.port) and listening(self.http_port)

    def stop(self) -> int:
        return self._child.stop(signal.SIGTERM)

    def kill(self) -> None:
        self._child.kill()

    def alive(self) -> bool:
        return self._child is not None and self._child.alive()

    @property
    def pid(self) -> int:
        return self._child.pid

    def said(self) -> str:
        return self._child.said()

    def run(self, *arguments: str, seconds: int = 120, env: dict | None = None) -> subprocess.CompletedProcess:
        """Another verb of the same binary."""
        return subprocess.run([str(program()), *arguments], cwd=self.folder, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=seconds, env=env)

    def verify(self) -> subprocess.CompletedProcess:
        return self.run("verify", "--dir", str(self.log_dir))

    # Ways in

    def dsn(self, user: str, dbname: str = "shop") -> str:
        return f"host={HOST} port={self.port} dbname={dbname} user={user}"

    def secret_dsn(self, user: str, secret: str, dbname: str = "shop") -> str:
        """A connection that presents a secret or a token as its password."""
        return f"{self.dsn(user, dbname)} password={secret} options='{PASSWORD_PROMPT}'"

    def environment(self, secret: str) -> dict:
        """The same for programs that read libpq's environment."""
        return {**os.environ, "PGPASSWORD": secret, "PGOPTIONS": PASSWORD_PROMPT}

    def psql(self, user: str, *arguments: str, dbname: str = "shop", environment: dict | None = None) -> "Psql":
        return Psql(self, self.dsn(user, dbname), arguments, environment)

    def pair(self, person: str, user: str | None = None, dbname: str = "shop", secret: str | None = None) -> str:
        """A secret of `person`, fresh unless given, approved once."""
        secret = secret or secrets.token_urlsafe(32)
        with self.psql(user or email(person), "-c", "select 1", dbname=dbname,
                       environment=self.environment(secret)) as psql:
            psql.approve(person)
            psql.expect_success()
        return secret

    def minted(self, person: str) -> str:
        """A password of the gateway's own making, as `pgwitness login` and `pgwitness token` give it to `person`."""
        home = self.folder / f"home-of-{person}"
        home.mkdir(exist_ok=True)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PGWITNESS_", "XDG_", "BROWSER"))}
        environment = {**clean, "HOME": str(home), "PGWITNESS_URL": self.url}
        shown = ""

        def read(chunk: str) -> None:
            nonlocal shown
            told = link_and_code(shown)
            shown += chunk
            if not told and link_and_code(shown):
                Browser(person).approve(*link_and_code(shown))

        assert watch([str(program()), "login"], environment, read) == 0, f"pgwitness login: {shown}"
        made = self.run("token", "--format", "plain", env=environment)
        assert made.returncode == 0, f"pgwitness token: {made.stderr}"
        return made.stdout.strip()

    def api(self, person: str = "carol") -> "Api":
        return Api(self.url, self.provider.id_token(person))


LINK = re.compile(r"https?://[^\s\"'<>]+")
CODE = re.compile(r"\b[A-Z0-9]{4}-[A-Z0-9]{4}\b")


def link_and_code(text: str) -> tuple[str, str] | None:
    """The link and the code in a message to a person."""
    link, code = LINK.search(text), CODE.search(text)
    return (link.group().rstrip(".,;)"), code.group()) if link and code else None


class Psql:
    """A real psql. Its messages are read while it waits to be let in."""

    def __init__(self, gateway: Gateway, dsn: str, arguments: tuple, environment: dict | None):
        self.messages = ""
        self.output = ""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        self._process = subprocess.Popen(
            ["psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", dsn, *arguments], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment or clean, cwd=gateway.folder)

    def __enter__(self) -> "Psql":
        return self

    def __exit__(self, *_exception) -> None:
        self.abandon()

    def abandon(self) -> None:
        """The person closes the terminal."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(STOP_SECONDS_MAX)
        self._process.stdout.close()
        self._process.stderr.close()

    def prompted(self, seconds: float = PROMPT_SECONDS_MAX) -> tuple[str, str]:
        """Waits for the link; the link and the code as shown."""
        stream = self._process.stderr.fileno()
        end = time.monotonic() + seconds
        while True:
            found = link_and_code(self.messages)
            if found:
                return found
            if not select.select([stream], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"psql showed no link in {seconds} s, only: {self.messages!r}")
            chunk = os.read(stream, 65536)
            if not chunk:
                raise RuntimeError(f"psql ended without a link: {self.messages!r}")
            self.messages += chunk.decode(errors="replace")

    def approve(self, person: str) -> None:
        link, code = self.prompted()
        Browser(person).approve(link, code)

    def deny(self, person: str) -> None:
        link, code = self.prompted()
        Browser(person).deny(link, code)

    def finish(self, seconds: float = 60) -> int:
        """Waits for its end; the exit code. Output and messages are complete then."""
        output, messages = self._process.communicate(timeout=seconds)
        self.output += output.decode(errors="replace")
        self.messages += messages.decode(errors="replace")
        return self._process.returncode

    def expect_success(self, seconds: float = 60) -> str:
        code = self.finish(seconds)
        assert code == 0, f"psql ended with {code}: {self.messages}"
        return self.output.strip()

    def expect_refusal(self, seconds: float = 60) -> str:
        code = self.finish(seconds)
        assert code != 0, f"psql was let in and said {self.output!r}"
        return self.messages


def ended(record: dict) -> bool:
    """Whether nothing more will be said of a record: it runs no longer, nor does its transaction."""
    return not record.get("running") and record["txn_outcome"] != "open"


class Api:
    """The log's HTTP API with one person's token."""

    def __init__(self, url: str, token: str):
        self.url = url
        self.token = token

    def get(self, path: str, **parameters) -> dict:
        status, body = self.try_get(path, **parameters)
        if status != 200:
            raise RuntimeError(f"GET {path} {parameters} answered {status}: {body}")
        return json.loads(body)

    def try_get(self, path: str, **parameters) -> tuple[int, str]:
        given = {key: value for key, value in parameters.items() if value is not None}
        query = f"?{urllib.parse.urlencode(given)}" if given else ""
        request = urllib.request.Request(f"{self.url}/api/v1{path}{query}")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=API_SECONDS_MAX) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def search(self, q: str, limit: int = 100) -> list[dict]:
        """The newest records that match, newest first."""
        return self.get("/events", q=q, limit=limit)["items"]

    def wait(self, q: str, count: int = 1, seconds: float = 5.0) -> list[dict]:
        """At least `count` records that match, as soon as they are found and have ended."""
        found: list[dict] = []

        def enough() -> bool:
            nonlocal found
            found = self.search(q)
            return len(found) >= count and all(map(ended, found))

        try:
            until(f"{count} records of {q}", enough, seconds, every=0.05)
        except TimeoutError as late:
            raise TimeoutError(f"{late}; found {len(found)}") from late
        return found

    def all(self, q: str = "") -> list[dict]:
        """Every record that matches, oldest first, page after page as the cursors lead."""
        self.settle()
        give_up = time.monotonic() + END_SECONDS_MAX
        while True:
            items = self._pages(q)
            if all(map(ended, items)) or time.monotonic() > give_up:
                return items
            time.sleep(0.2)

    def _pages(self, q: str) -> list[dict]:
        items: list[dict] = []
        cursor = None
        while True:
            page = self.get("/events", q=q, limit=PAGE, cursor=cursor)
            items += page["items"]
            cursor = page.get("next_cursor")
            if not cursor or not page["items"]:
                return items[::-1]

    def settle(self, seconds: float = 20.0) -> int:
        """Waits until the index has caught up with what is in the journal now; that position."""
        first = self.get("/events", limit=1)["as_of"]
        target = int(first["log_seq"])

        def indexed() -> bool:
            return int(self.get("/events", limit=1)["as_of"]["indexed_seq"]) >= target

        until(f"the index to reach {target}", indexed, seconds, every=0.1)
        return target
