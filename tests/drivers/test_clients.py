"""Real clients of PostgreSQL: what a login asks of the person who uses them, and what the records say of it.

Every client logs in by a secret of its own, by a JWT and by a minted token; all do so at the same time, through a gateway of their own.
The table of README.md is made here.
"""

import pytest

from support.clients import AT_ONCE, CLIENTS, NOTHING, PERSON, PSQL, ROLE
from support.gateway import email
from support.processes import ROOT

HEAD = ["client", "connections", "prompts", "shown at first, with a secret of one's own", "with a JWT", "with a minted token"]


named = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)


@named
def test_a_client_tells_its_user_link_and_code_once_and_connects(matrix, client):
    seen = matrix.seen[client.name, "pairing"]
    assert seen.shown == client.shows, seen.output
    assert len(matrix.auditor.all(client.prompts)) == (2 if client is PSQL else 1)  # psql came without a password too


@named
def test_a_client_with_a_token_sees_no_prompt(matrix, client):
    for mode in ("token", "minted"):
        seen = matrix.seen[client.name, mode]
        assert (seen.shown, seen.tries) == (NOTHING, 1), seen.output


@named
def test_the_records_of_a_client_say_who_how_and_with_what(matrix, client):
    records = matrix.auditor.all(f'event:query app:"{client.app}"')
    assert {(each["user"], each["sub"], each["role"]) for each in records} == {(email(PERSON), PERSON, ROLE)}
    words = {mode: word for (name, mode), word in matrix.words.items() if name == client.name}
    assert {each["auth"]["mode"] for each in records} == set(words)
    for mode, word in words.items():
        own = [each for each in records if each["auth"]["mode"] == mode]
        if client.own_app == "pg_dump":
            assert {"public.customers", "public.orders"} <= {table for each in own for table in each["tables"]}
        else:
            own = [each for each in own if word in each["sql"] or word in str(each["params"])]
        assert len({each["session"] for each in own}) == client.connections
        if mode != "token":
            assert len({each["login"] for each in own}) == 1


def test_psql_without_a_password_shows_the_link_and_goes_on(matrix):
    seen = matrix.seen[PSQL.name, "device"]
    assert (seen.shown, seen.tries) == (AT_ONCE, 1)


def test_the_provider_was_asked_for_one_approval_a_client(matrix):
    assert matrix.asked == len(CLIENTS) + 1  # psql came twice


def test_the_readme_says_what_each_client_shows(matrix):
    lines = ["| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
    for client in CLIENTS:
        prompts = len(matrix.auditor.all(client.prompts)) - (client is PSQL)
        shown = [matrix.seen[client.name, mode].shown for mode in ("pairing", "token", "minted")]
        lines.append("| " + " | ".join([client.name, str(client.connections), str(prompts), *shown]) + " |")
    table = "\n".join(lines) + "\n"
    assert table in (ROOT / "README.md").read_text(), f"README.md must hold this table:\n\n{table}"
