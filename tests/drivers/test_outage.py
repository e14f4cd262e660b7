"""Many clients at once, and a provider that goes away, takes its keys along, or takes its word back."""

import concurrent.futures
import secrets
import threading

import psycopg
import pytest

from support.cluster import Cluster
from support.gateway import PASSWORD_PROMPT, email, link_and_code
from support.processes import until
from support.provider import Browser
from support.wire import Wire, fatal
from support import shop

MANY = 200
TOGETHER_SECONDS_MAX = 120
ENDED_SECONDS_MAX = 30
SCOPES = ["openid", "email", "groups", "offline_access"]


@pytest.fixture
def large_cluster(ground):
    cluster = Cluster(ground / "large", settings=f"max_connections = {MANY + 50}")
    cluster.start()
    shop.build(cluster)
    yield cluster
    cluster.remove()


def test_two_hundred_clients_at_once_with_one_secret_need_one_approval(own_gateway, large_cluster, provider):
    # A debug build takes its time for two hundred SCRAM logins at the database.
    gateway = own_gateway(large_cluster, limits={"connect_timeout": "60s", "max_pending_logins_of_address": 50})
    auditor = gateway.api("carol")
    asked = provider.approvals_asked()
    secret, mark = secrets.token_urlsafe(32), f"mark{secrets.token_hex(6)}"
    shown: set[tuple[str, str]] = set()
    everybody_waits, everybody_is_in = threading.Barrier(MANY + 1), threading.Barrier(MANY)

    def client(_) -> None:
        with Wire(gateway.port) as wire:
            wire.startup(user="app_write", database="shop", application_name="psql", options=PASSWORD_PROMPT)
            wire.until("R")
            wire.message("p", secret.encode() + b"\0")
            notice = wire.until("N", "E", "Z")[-1]
            shown.add(link_and_code(notice.fields()["M"]))
            everybody_waits.wait(TOGETHER_SECONDS_MAX)
            last = wire.until("Z", "E")[-1]
            assert last.kind == "Z", last
            everybody_is_in.wait(TOGETHER_SECONDS_MAX)
            assert wire.query(f"select '{mark}'".encode())[-1].kind == "Z"

    with concurrent.futures.ThreadPoolExecutor(MANY) as pool:
        clients = [pool.submit(client, number) for number in range(MANY)]
        everybody_waits.wait(TOGETHER_SECONDS_MAX)
        [told] = shown
        Browser("ann").approve(*told)
        for each in concurrent.futures.as_completed(clients):
            if each.exception():
                everybody_is_in.abort()
            each.result()
    assert provider.approvals_asked() == asked + 1
    assert len(auditor.all("event:login.prompted")) == 1
    records = auditor.all(f"event:query {mark}")
    assert len({each["session"] for each in records}) == MANY
    assert {(each["user"], each["auth"]["mode"]) for each in records} == {(email("ann"), "pairing")}
    assert len({each["login"] for each in records}) == 1


def in_by_secret(gateway, secret: str) -> bool:
    """Whether a secret opens a session without a prompt; the error is of the provider otherwise."""
    with Wire(gateway.port) as wire:
        last = wire.log_in(secret, user="app_write", database="shop", options=PASSWORD_PROMPT)[-1]
        assert last.kind == "Z" or "provider" in last.fields()["M"], last
        return last.kind == "Z"


def test_while_the_provider_is_away_sessions_live_and_new_logins_are_told_so(own_gateway, provider):
    gateway = own_gateway(oidc={"scopes": SCOPES, "refresh_every": "1s", "outage_grace": "3s"})
    auditor = gateway.api("carol")
    secret, token = gateway.pair("ann", "app_write"), provider.id_token("bob")
    with psycopg.connect(gateway.secret_dsn("app_write", secret), autocommit=True) as running:
        provider.down()
        try:
            assert in_by_secret(gateway, secret), "there is a grace"
            with Wire(gateway.port) as wire:
                wire.startup(user="app_write", database="shop", application_name="psql")
                error = fatal(wire.until("E"))
            assert error["C"] == "28000"
            assert "identity provider" in error["M"]
            running.execute("select 'within the grace'")
            until("the grace to end", lambda: not in_by_secret(gateway, secret), ENDED_SECONDS_MAX, every=0.5)
            running.execute("select 'after the grace'")
            with psycopg.connect(gateway.secret_dsn("app_read", token)) as by_token:  # the keys are in hand
                by_token.execute("select 'by a token'")
        finally:
            provider.up()
        running.execute("select 'it is back'")
        assert gateway.pair("ann", "app_write", secret=secret) == secret
    assert auditor.wait("event:login.failed")
    records = auditor.all(f"event:query user:{email('ann')} sql:select")
    said = [each["sql"] for each in records if each["sql"].startswith("select '")]
    assert said == [f"select '{word}'" for word in ("within the grace", "after the grace", "it is back")]
    assert {each["outcome"] for each in records} == {"ok"}


def test_a_login_is_refreshed_again_and_again_by_tokens_that_are_used_once(own_gateway, provider):
    gateway = own_gateway(oidc={"scopes": SCOPES, "refresh_every": "1s"})
    secret = gateway.pair("ann", "app_write")
    with psycopg.connect(gateway.secret_dsn("app_write", secret)) as connection:
        before = provider.requests("/token")
        until("five refreshes", lambda: provider.requests("/token") >= before + 5, ENDED_SECONDS_MAX)
        assert connection.execute("select 1").fetchone() == (1,)
        assert in_by_secret(gateway, secret)


def test_whom_the_provider_disables_loses_sessions_and_secret(own_gateway, provider):
    gateway = own_gateway(oidc={"scopes": SCOPES, "refresh_every": "1s"})
    auditor = gateway.api("carol")
    secret = gateway.pair("ann", "app_write")
    with psycopg.connect(gateway.secret_dsn("app_write", secret), autocommit=True) as connection:
        provider.disable("ann")
        with pytest.raises(psycopg.errors.AdminShutdown, match="identity provider"):
            until("the session to end", lambda: connection.execute("select 1") and False, ENDED_SECONDS_MAX, every=0.2)
    assert auditor.wait(f"event:login.revoked user:{email('ann')}")
    with Wire(gateway.port) as wire:
        wire.startup(user="app_write", database="shop", application_name="psql", options=PASSWORD_PROMPT)
        wire.until("R")
        wire.message("p", secret.encode() + b"\0")
        assert link_and_code(wire.until("N", "E", "Z")[-1].fields()["M"]), "the secret asks for a person again"


def test_whom_the_provider_puts_into_another_group_loses_the_role_that_the_old_one_gave(own_gateway, provider):
    gateway = own_gateway(oidc={"scopes": SCOPES, "refresh_every": "1s"})
    secret = gateway.pair("ann", "app_write")
    with psycopg.connect(gateway.secret_dsn("app_write", secret), autocommit=True) as connection:
        provider.regroup("ann", ["support"])
        with pytest.raises(psycopg.errors.AdminShutdown, match="role was withdrawn"):
            until("the session to end", lambda: connection.execute("select 1") and False, ENDED_SECONDS_MAX, every=0.2)
    told = gateway.api("carol").wait(f"event:login.refreshed user:{email('ann')}")[0]
    assert told["groups"] == ["support"]
    assert told["iss"] == provider.issuer
