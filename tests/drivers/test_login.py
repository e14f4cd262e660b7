"""Login by link: a real psql, a real provider, its real pages."""

import time

import pytest

from support.gateway import email, link_and_code
from support.provider import Browser
from support.wire import Wire, fatal


def test_a_login_by_link_leads_to_a_record_that_is_soon_found(gateway, auditor, mark):
    with gateway.psql(email("ann"), "-c", f"select /* {mark} */ email from customers where id = 7") as psql:
        link, code = psql.prompted()
        assert "WARNING" in psql.messages
        assert link.startswith(gateway.provider.issuer)
        psql.approve("ann")
        assert psql.expect_success() == "c7@example.org"
    [record] = auditor.wait(f"column:customers.email {mark}")
    assert record["event"] == "query"
    assert record["outcome"] == "ok"
    assert record["user"] == email("ann")
    assert record["sub"] == "ann"
    assert record["iss"] == gateway.provider.issuer
    assert record["groups"] == ["engineering"]
    assert record["role"] == "app_write"
    assert record["db"] == "shop"
    assert record["ip"] == "127.0.0.1"
    assert record["app"] == "psql"
    assert record["command"] == "SELECT"
    assert record["class"] == ["read"]
    assert record["tables"] == ["public.customers"]
    assert record["reads"] == ["public.customers.email"]
    assert record["filters"] == ["public.customers.id"]
    assert sorted(record["columns"]) == ["public.customers.email", "public.customers.id"]
    assert record["analysis"] == "exact"
    assert record["rows"] == 1
    assert record["duration_us"] > 0
    assert record["sql"] == f"select /* {mark} */ email from customers where id = 7"
    assert record["txn_outcome"] == "committed"


def test_login_and_session_are_records_too(gateway, auditor, mark):
    with gateway.psql(email("bob"), "-c", f"select /* {mark} */ 1") as psql:
        psql.approve("bob")
        psql.expect_success()
    [query] = auditor.wait(mark)
    session = auditor.wait(f"session:{query['session']} event:session.start,session.end", count=2)
    assert [each["event"] for each in session] == ["session.end", "session.start"]
    assert {each["user"] for each in session} == {email("bob")}
    [login] = [each for each in auditor.search(f"event:login.ok user:{email('bob')}")
               if each["login"] == query["login"]]
    assert login["seq"] < query["seq"]
    assert auditor.search("event:login.prompted")


def test_an_interactive_psql_shows_the_link_and_then_its_prompt(gateway, auditor, mark):
    import os
    import pty
    import select

    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "dumb"
        os.environ["PSQL_PAGER"] = ""
        os.execvp("psql", ["psql", "-X", gateway.dsn(email("ann"))])
    seen = ""

    def read_until(found, seconds=30):
        nonlocal seen
        end = time.monotonic() + seconds
        while not found(seen):
            assert time.monotonic() < end, f"the terminal shows only {seen!r}"
            if select.select([terminal], [], [], 0.2)[0]:
                seen += os.read(terminal, 65536).decode(errors="replace")

    try:
        read_until(link_and_code)
        Browser("ann").approve(*link_and_code(seen))
        read_until(lambda text: "shop=>" in text)
        os.write(terminal, f"select /* {mark} */ count(*) from customers;\n".encode())
        read_until(lambda text: "(1 row)" in text)
        os.write(terminal, b"\\q\n")
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    [record] = auditor.wait(mark)
    assert record["tables"] == ["public.customers"]


def test_the_persons_name_and_a_role_are_both_good_users(gateway):
    for user in ("ann", email("ann"), "app_write", "app_read"):
        with gateway.psql(user, "-c", "select current_user") as psql:
            psql.approve("ann")
            expected = "app_read" if user == "app_read" else "app_write"
            assert psql.expect_success() == expected


def test_a_denied_login_ends_with_a_sentence_that_says_so(gateway, auditor):
    with gateway.psql(email("ann"), "-c", "select 1") as psql:
        psql.deny("ann")
        messages = psql.expect_refusal()
    assert "FATAL" in messages
    assert "denied" in messages.lower()
    assert auditor.wait("event:login.denied")


def test_a_refused_login_has_sqlstate_28000(gateway):
    with Wire(gateway.port) as wire:
        wire.startup(user=email("ann"), database="shop", application_name="psql")
        seen = wire.until("N", "E")
        assert [seen[0].kind, seen[-1].kind] == ["R", "N"]
        notice = seen[-1].fields()
        assert notice["S"] == "WARNING"
        link, code = link_and_code(notice["M"])
        Browser("ann").deny(link, code)
        error = fatal(wire.until("E"))
        assert error["S"] == "FATAL"
        assert error["C"] == "28000"
        assert wire.next() is None


def test_a_code_that_nobody_approves_expires(gateway, auditor, provider):
    provider.faults(device_code_seconds=3)
    with gateway.psql(email("ann"), "-c", "select 1") as psql:
        psql.prompted()
        messages = psql.expect_refusal()
    assert "FATAL" in messages
    assert "not approved in time" in messages or "expired" in messages
    assert auditor.wait("event:login.expired")


@pytest.mark.parametrize("faults", [
    {"token_503_times": 3}, {"token_slow_down_times": 1}, {"token_hang_times": 1}, {"jwks_503_times": 1},
], ids=lambda faults: next(iter(faults)))
def test_a_login_survives_a_provider_that_stumbles(gateway, provider, faults):
    provider.rotate()  # so that the key set is fetched again
    provider.faults(**faults)
    with gateway.psql(email("ann"), "-c", "select 1") as psql:
        psql.approve("ann")
        assert psql.expect_success(90) == "1"


def test_a_login_survives_a_provider_that_restarts_meanwhile(gateway, provider):
    with gateway.psql(email("ann"), "-c", "select 1") as psql:
        link, code = psql.prompted()
        provider.down()
        time.sleep(2.5)
        provider.up()
        Browser("ann").approve(link, code)
        assert psql.expect_success(90) == "1"


def test_without_a_provider_the_error_says_so_and_the_gateway_stays(gateway, auditor, provider):
    provider.down()
    try:
        with gateway.psql(email("ann"), "-c", "select 1") as psql:
            messages = psql.expect_refusal()
    finally:
        provider.up()
    assert "FATAL" in messages
    assert "provider" in messages.lower()
    assert auditor.wait("event:login.failed")
    with gateway.psql(email("ann"), "-c", "select 1") as psql:
        psql.approve("ann")
        assert psql.expect_success() == "1"


def test_a_provider_that_cannot_begin_a_login_is_named_and_the_next_one_works(gateway, provider):
    provider.faults(device_503_times=1)
    with gateway.psql(email("ann"), "-c", "select 1") as psql:
        assert "provider" in psql.expect_refusal()
    with gateway.psql(email("ann"), "-c", "select 1") as psql:
        psql.approve("ann")
        assert psql.expect_success() == "1"


def test_a_gateway_that_starts_before_its_provider_waits_for_it(own_gateway, provider):
    provider.faults(discovery_503_times=3)
    gateway = own_gateway()
    provider.faults(discovery_503_times=0)
    with gateway.psql(email("ann"), "-c", "select 1") as psql:
        psql.approve("ann")
        assert psql.expect_success() == "1"


def test_new_signing_keys_of_the_provider_are_found(gateway, provider):
    for _ in range(2):
        provider.rotate()
        with gateway.psql(email("ann"), "-c", "select 1") as psql:
            psql.approve("ann")
            assert psql.expect_success() == "1"


def test_tokens_signed_by_an_elliptic_curve_are_good(own_gateway):
    gateway = own_gateway(oidc={"client_id": "pgwitness-es256"})
    with gateway.psql(email("ann"), "-c", "select 1") as psql:
        psql.approve("ann")
        assert psql.expect_success() == "1"


def refusals(auditor, person):
    return [each for each in auditor.search(f"user:{email(person)}")
            if each["event"] in ("denied", "role.denied", "login.denied", "login.failed")]


def test_a_role_that_the_mapping_does_not_give_is_refused_and_recorded(gateway, auditor):
    before = len(refusals(auditor, "bob"))
    with gateway.psql("app_write", "-c", "select 1") as psql:
        psql.approve("bob")
        messages = psql.expect_refusal()
    assert "FATAL" in messages
    assert "app_write" in messages
    auditor.settle()
    assert len(refusals(auditor, "bob")) == before + 1


def test_a_person_without_a_group_is_refused_and_recorded(gateway, auditor):
    with gateway.psql(email("mallory"), "-c", "select 1") as psql:
        psql.approve("mallory")
        messages = psql.expect_refusal()
    assert "FATAL" in messages
    auditor.settle()
    assert refusals(auditor, "mallory")


def test_somebody_elses_name_gives_no_role(gateway):
    with gateway.psql(email("ann"), "-c", "select 1") as psql:
        psql.approve("bob")
        assert "FATAL" in psql.expect_refusal()


def test_an_approval_after_the_client_left_opens_nothing(gateway, auditor, mark):
    with gateway.psql(email("ann"), "-c", f"select /* {mark} */ 1") as psql:
        link, code = psql.prompted()
        psql.abandon()
    Browser("ann").approve(link, code)
    time.sleep(3)
    auditor.settle()
    assert auditor.search(mark) == []
