"""PostgreSQL's clients as people use them: programs in seven languages, each behind the same few words.

A client opens its connections at once, reads a word over each of them and ends. Where it must log in by link, a person reads what it
shows, follows the link, and runs it again if it gave up meanwhile.
"""

import concurrent.futures
import os
import pathlib
import re
import secrets
import sys
from typing import NamedTuple

from .gateway import PASSWORD_PROMPT, Api, Gateway, link_and_code
from .libpq import POSTGRES_18
from .processes import HOST, ROOT, watch
from .provider import Browser

HERE = ROOT / "tests" / "drivers" / "clients"
JDBC = pathlib.Path("/usr/share/java/postgresql.jar")
TRIES_MAX = 2
AT_ONCE_MAX = 8
PERSON = "ann"
ROLE = "app_write"

# The first that a person is told.
TOLD = re.compile(r"to log in, open \S+ and [^\n]*?\b[A-Z0-9]{4}-[A-Z0-9]{4}\b(, then connect again)?")

# How the person learned of the link.
AT_ONCE = "link and code at once"
BY_ERROR = "after 12 s an error with link and code; connect again once approved"
BY_LOG = "after 12 s a line in its log with link and code; goes on by itself once approved"
NOTHING = "nothing"


class Client(NamedTuple):
    """One client. `shows` is how its user learns of the link."""

    name: str
    command: list[str]
    connections: int
    shows: str
    # What the client calls itself, unless it is told by the tests.
    own_app: str | None = None
    # Some say their name only when they are in.
    is_named_at_login: bool = True

    @property
    def app(self) -> str:
        return self.own_app or f"tried {self.name}"

    @property
    def prompts(self) -> str:
        """Finds the records of its prompts."""
        return "event:login.prompted " + (f'app:"{self.app}"' if self.is_named_at_login else "-app:*")

    def arguments(self, folder: pathlib.Path, word: str) -> list[str]:
        """Its command, with what it must do."""
        program = pathlib.Path(self.command[0]).name
        if program == "psql":
            return [self.command[0], "-X", "-c", f"select '{word}'"]
        if program == "pg_dump":
            return ["pg_dump", "-j4", "-Fd", "-t", "customers", "-t", "orders", "-f", str(folder / word)]
        if program == "pgbench":
            script = folder / f"{word}.sql"
            script.write_text(f"select '{word}';\n")
            return ["pgbench", "-n", "-c", str(self.connections), "-j", "2", "-t", "2", "-f", str(script)]
        return [*self.command, str(self.connections), word]


def python(client: str) -> list[str]:
    return [sys.executable, str(HERE / "python.py"), client]


def node(client: str) -> list[str]:
    return ["node", str(HERE / "node.mjs"), client]


def rust(client: str) -> list[str]:
    """The crate's program, as tests/run builds it."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return [str(target / "clients/debug/pgwitness-test-clients"), client]


CLIENTS = [
    Client("psql", ["psql"], 1, AT_ONCE, "psql"),
    Client("psql 18", [str(POSTGRES_18 / "bin/psql")], 1, AT_ONCE),
    Client("pg_dump -j4", ["pg_dump"], 5, AT_ONCE, "pg_dump"),
    Client("pgbench -c8", ["pgbench"], 8, AT_ONCE, "pgbench"),
    Client("psycopg2", python("psycopg2"), 4, AT_ONCE),
    Client("psycopg 3", python("psycopg"), 4, BY_ERROR),
    Client("psycopg_pool", python("psycopg_pool"), 8, BY_LOG),
    Client("asyncpg", python("asyncpg"), 4, BY_ERROR),
    Client("asyncpg's pool", python("asyncpg_pool"), 8, BY_ERROR),
    Client("pg8000", python("pg8000"), 4, BY_ERROR),
    Client("SQLAlchemy's pool (psycopg 3)", python("sqlalchemy"), 30, BY_ERROR),
    Client("Django", python("django"), 4, BY_ERROR),
    Client("node-postgres", node("pg"), 4, BY_ERROR),
    Client("node-postgres' pool", node("pg-pool"), 8, BY_ERROR),
    Client("postgres.js", node("postgres"), 8, AT_ONCE),
    Client("pgjdbc", ["java", "-XX:TieredStopAtLevel=1", "-cp", str(JDBC), str(HERE / "Jdbc.java")], 4,
           BY_ERROR, is_named_at_login=False),
    Client("tokio-postgres", rust("tokio-postgres"), 4, BY_ERROR),
    Client("sqlx", rust("sqlx"), 8, AT_ONCE),
    Client("DBD::Pg", ["perl", str(HERE / "dbd.pl")], 4, AT_ONCE),
    Client("ruby-pg", ["ruby", str(HERE / "pg.rb")], 4, AT_ONCE),
]


PSQL = CLIENTS[0]


class Seen(NamedTuple):
    """What a person saw of one use of a client."""

    output: str
    tries: int
    shown: str


def use(client: Client, gateway: Gateway, user: str, password: str, approver: str, word: str) -> Seen:
    """A person's whole use of a client: until it has read its word, or cannot. No password: none is asked for."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment |= {"PGHOST": HOST, "PGPORT": str(gateway.port), "PGDATABASE": "shop", "PGUSER": user,
                    "PGPASSWORD": password, "PGOPTIONS": PASSWORD_PROMPT if password else ""}
    if not client.own_app:
        environment["PGAPPNAME"] = client.app
    folder = gateway.folder / "clients"
    folder.mkdir(exist_ok=True)
    output, approved = "", False

    def read(chunk: str) -> None:
        nonlocal output, approved
        output += chunk
        told = None if approved else link_and_code(output)
        if told:
            approved = True
            Browser(approver).approve(*told)

    for tries in range(1, TRIES_MAX + 1):
        code = watch(client.arguments(folder, word), environment, read)
        with open(folder / f"{word}.out", "w") as kept:
            kept.write(output)
        if code == 0:
            return Seen(output, tries, how_shown(output, tries))
        if not approved:
            break
    raise RuntimeError(f"{client.name} did not get in:\n{output}")


def how_shown(output: str, tries: int) -> str:
    """By the gateway's own words: its error says what to do then, its notice does not."""
    told = TOLD.search(output)
    if not told:
        return NOTHING
    if not told.group(1):
        return AT_ONCE
    return BY_LOG if tries == 1 else BY_ERROR


class Matrix(NamedTuple):
    """What all clients did, by name of the client and mode: the words that they read, and what their user saw."""

    gateway: Gateway
    auditor: Api
    words: dict[tuple[str, str], str]
    seen: dict[tuple[str, str], Seen]
    passwords: list[str]
    asked: int


def passwords(client: Client, token: str, minted: str) -> list[tuple[str, str]]:
    """What a client logs in with, one after the other, by the mode that its records will name."""
    ways = [("pairing", secrets.token_urlsafe(32)), ("token", token), ("minted", minted)]
    return [("device", ""), *ways] if client is PSQL else ways


def try_all(gateway: Gateway) -> Matrix:
    """Every client in every way, several at a time."""
    token, minted, auditor = gateway.provider.id_token(PERSON), gateway.minted(PERSON), gateway.api("carol")
    before = gateway.provider.approvals_asked()
    words, seen, used = {}, {}, []

    def try_one(client: Client) -> None:
        for mode, password in passwords(client, token, minted):
            key = (client.name, mode)
            words[key] = "w" + secrets.token_hex(8)
            used.append(password)
            seen[key] = use(client, gateway, ROLE, password, PERSON, words[key])

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE_MAX) as pool:
        failed = [task.exception() for task in [pool.submit(try_one, client) for client in CLIENTS]]
    assert not any(failed), "\n".join(str(error) for error in failed if error)
    return Matrix(gateway, auditor, words, seen, [each for each in used if each], gateway.provider.approvals_asked() - before)
