"""Logins that are approved at the gateway's own page: real programs, the independent provider, a browser of plain HTTP."""

import secrets
import time

import psycopg
import pytest

from support.gateway import email, link_and_code
from support.page import PageBrowser


@pytest.fixture
def paged(own_gateway):
    return own_gateway(page=True)


def test_a_psql_goes_on_when_its_code_was_typed_and_its_person_approved(paged, provider, mark):
    with paged.psql(email("ann"), "-c", f"select /* {mark} */ current_user") as psql:
        link, code = psql.prompted()
        assert link.startswith(paged.url + "/device/")
        assert "enter the code" in psql.messages
        browser = PageBrowser("ann")
        first = browser.look(link)
        for fact in ("psql", "127.0.0.1", email("ann"), "shop", "this one connection"):
            assert fact in first
        assert code not in first
        said = browser.answer(link, code, "approve")
        assert "Approved" in said
        assert psql.expect_success() == "app_write"
    assert provider.approvals_asked() == 0, "the provider's own device login is not used"
    [record] = paged.api().wait(mark)
    assert record["user"] == email("ann")
    assert record["auth"]["mode"] == "device"
    assert record["auth"]["approved_from"] == "127.0.0.1"
    assert record["device"]
    assert "Approved" in PageBrowser("bob").look(link), "one use"


def test_the_page_says_whether_the_device_is_new(paged):
    def shown() -> str:
        with paged.psql(email("ann"), "-c", "select 1") as psql:
            link, code = psql.prompted()
            page = PageBrowser("ann").asked(link, code)[1]
            PageBrowser("ann").answer(link, code, "approve")
            psql.expect_success()
        paged.api().settle()
        return page

    assert "new: you never logged in" in shown()
    assert "known: your last login" in shown()


def test_whoever_approves_is_who_gets_in_whatever_the_terminal_says(paged, mark):
    with paged.psql("app_read", "-c", f"select /* {mark} */ 1") as psql:
        link, code = psql.prompted()
        PageBrowser("bob").answer(link, code, "approve")
        psql.expect_success()
    [record] = paged.api().wait(mark)
    assert record["user"] == email("bob")


def test_a_denied_login_says_who_denied(paged):
    with paged.psql(email("ann"), "-c", "select 1") as psql:
        link, code = psql.prompted()
        assert "Denied" in PageBrowser("bob").answer(link, code, "deny")
        messages = psql.expect_refusal()
    assert "denied" in messages and "bob" not in messages
    records = paged.api().wait("event:login.denied", count=2)
    assert {each.get("user") for each in records} == {email("bob"), None}


def test_a_phished_link_without_the_code_gets_nobody_in(paged):
    with paged.psql(email("ann"), "-c", "select 1") as psql:
        link, _ = psql.prompted()
        for _ in range(5):
            with pytest.raises(RuntimeError, match="was not taken"):
                PageBrowser("ann").asked(link, "BBBB-BBBB")
        messages = psql.expect_refusal()
    assert "typed wrongly too often" in messages
    assert "Too many wrong codes" in PageBrowser("ann").look(link)


def test_an_approval_after_the_client_left_is_not_taken(paged):
    with paged.psql(email("ann"), "-c", "select 1") as psql:
        link, code = psql.prompted()
        browser = PageBrowser("ann")
        browser.asked(link, code)
        psql.abandon()
    end = time.monotonic() + 10
    while "The client left" not in browser.look(link):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_an_impatient_driver_is_told_our_link_and_one_approval_serves_all_that_come_back(paged, mark):
    secret = secrets.token_urlsafe(32)
    dsn = paged.secret_dsn(email("ann"), secret) + " application_name=worker"
    with pytest.raises(psycopg.OperationalError) as refused:
        psycopg.connect(dsn, connect_timeout=30)
    link, code = link_and_code(str(refused.value))
    assert link.startswith(paged.url)
    browser = PageBrowser("ann")
    assert "every connection with the same password" in browser.look(link)
    assert "Approved" in browser.answer(link, code, "approve")
    for _ in range(3):
        with psycopg.connect(dsn, connect_timeout=30) as connection:
            connection.execute(f"select /* {mark} */ 1")
    records = paged.api().wait(mark, count=3)
    assert {each["auth"]["mode"] for each in records} == {"pairing"}
    assert len({each["login"] for each in records}) == 1


def test_a_program_with_a_hostile_name_is_shown_as_what_it_is(paged):
    name = "<b>x</b>\u202egnp.exe"
    with pytest.raises(psycopg.OperationalError) as refused:
        psycopg.connect(paged.secret_dsn("<i>app</i>", secrets.token_urlsafe(32)), application_name=name,
                        connect_timeout=30)
    link, _ = link_and_code(str(refused.value))
    page = PageBrowser("ann")._open(link)[1]
    assert "&lt;b&gt;x&lt;/b&gt;&lt;U+202E&gt;gnp.exe" in page
    assert "&lt;i&gt;app&lt;/i&gt;" in page
    assert "<b>x" not in page and "<i>app" not in page and "\u202e" not in page


def test_without_a_provider_nobody_is_sent_to_a_page_where_nobody_could_sign_in(paged, provider):
    provider.down()
    try:
        with paged.psql(email("ann"), "-c", "select 1") as psql:
            messages = psql.expect_refusal()
    finally:
        provider.up()
    assert "provider" in messages and "/device/" not in messages
