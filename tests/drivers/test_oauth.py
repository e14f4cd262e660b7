"""SASL OAUTHBEARER as libpq 18 speaks it: the library of psycopg 3 and PostgreSQL 18's own programs, with a flow for tokens of the test's
own: no registry has libpq-oauth, which is PostgreSQL's.

libpq connects, is told where tokens come from, gets one, and connects again. What is said on the wire byte by byte, `tests/it/modes.rs`
holds against.
"""

import os
import subprocess

import psycopg
import psycopg_pool
import pytest

from support.gateway import email
from support.libpq import by_device, flow, library, program_18
from support.provider import Browser, claims

CLIENT = "pgwitness"


@pytest.fixture
def gateway(own_gateway):
    return own_gateway(login=[{"mode": "oauth"}])


@pytest.fixture
def auditor(gateway):
    return gateway.api("carol")


@pytest.fixture
def dsn(gateway, provider):
    return f"{gateway.dsn('app_write')} oauth_issuer={provider.issuer} oauth_client_id={CLIENT} require_auth=oauth"


def test_libpq_18_is_told_where_tokens_come_from_gets_one_and_is_let_in(gateway, auditor, provider, dsn, mark):
    def approved(asked):
        return by_device(asked, CLIENT, lambda link: Browser("ann").approve(link))

    with flow(approved) as asked, psycopg.connect(dsn) as connection:
        assert connection.execute(f"select /* {mark} */ current_user").fetchone() == ("app_write",)
    assert [each.discovery for each in asked] == [f"{provider.issuer}/.well-known/openid-configuration"]
    assert "openid" in asked[0].scope.split()
    [record] = auditor.wait(mark)
    assert (record["user"], record["sub"], record["auth"]["mode"]) == (email("ann"), "ann", "oauth")
    assert len(auditor.all("event:login.prompted")) == 1
    assert len(auditor.all("event:login.ok")) == 1


def test_a_pool_of_libpq_18_gets_in_by_one_approval(gateway, auditor, provider, dsn, mark):
    tokens = []

    def kept(asked):
        if not tokens:
            tokens.append(by_device(asked, CLIENT, lambda link: Browser("ann").approve(link)))
        return tokens[0]

    before = provider.approvals_asked()
    with flow(kept), psycopg_pool.ConnectionPool(dsn, min_size=8, max_size=8, num_workers=1) as pool:
        pool.wait(60)
        borrowed = [pool.getconn() for _ in range(8)]
        for connection in borrowed:
            connection.execute(f"select /* {mark} */ 1")
            pool.putconn(connection)
    assert provider.approvals_asked() == before + 1
    records = auditor.wait(mark, count=8)
    assert len({each["session"] for each in records}) == 8
    assert {each["auth"]["mode"] for each in records} == {"oauth"}


@pytest.mark.parametrize("program", ["psql", "pg_dump"])
def test_postgresql_18s_own_programs_get_in_by_a_token(gateway, auditor, provider, dsn, tmp_path, program):
    more = {"psql": ["-X", "-A", "-t", "-c", "select count(*) from customers"],
            "pg_dump": ["-j4", "-Fd", "-t", "customers", "-t", "orders", "-f", str(tmp_path / "dump")]}[program]
    path, environment = program_18(program, gateway.folder, provider.id_token("ann"))
    done = subprocess.run([path, "-d", dsn, *more], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    records = auditor.all(f"event:query app:{program}")
    assert {(each["user"], each["auth"]["mode"]) for each in records} == {(email("ann"), "oauth")}
    assert len({each["session"] for each in records}) == (1 if program == "psql" else 5)


def test_a_token_that_does_not_help_is_refused_and_libpq_says_so(gateway, auditor, provider, dsn):
    token = provider.sign({**claims(provider.id_token("ann")), "aud": "somebody-else"})
    with flow(lambda _: token), pytest.raises(psycopg.OperationalError) as refused:
        psycopg.connect(dsn)
    assert "the token is not meant for this gateway" in str(refused.value)
    assert token not in str(refused.value)
    assert auditor.wait("event:login.failed")


def test_libpq_18_asks_no_token_of_an_issuer_that_the_person_did_not_name(gateway, auditor, dsn):
    with flow(lambda _: "never") as asked, pytest.raises(psycopg.OperationalError) as refused:
        psycopg.connect(f"{dsn} oauth_issuer=http://127.0.0.1:1")
    assert "incompatible with oauth_issuer" in str(refused.value)
    assert asked == []


def test_libpq_18_without_a_way_to_tokens_says_what_is_missing(gateway, dsn, monkeypatch):
    monkeypatch.setenv("PGOAUTHDEBUG", "UNSAFE")
    with pytest.raises(psycopg.OperationalError, match="no OAuth flows are available"):
        psycopg.connect(dsn)
    with pytest.raises(psycopg.OperationalError, match="oauth_issuer and oauth_client_id are not both set"):
        psycopg.connect(gateway.dsn("app_write"))
    assert library().PQlibVersion() >= 180000


def test_another_method_than_the_rules_is_not_tried(gateway, dsn):
    with pytest.raises(psycopg.OperationalError, match="require"):
        psycopg.connect(dsn.replace("require_auth=oauth", "require_auth=scram-sha-256"))
