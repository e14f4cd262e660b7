"""The log's API: who may ask, what they find, and that asking is recorded."""

import json
import urllib.error
import urllib.parse
import urllib.request

import pytest

from support.gateway import Api, email
from support.processes import until
from support.provider import Browser


@pytest.fixture
def known(connect, auditor, mark):
    """Three statements by two people; their records."""
    connect("ann").execute(f"select /* {mark} */ email from customers where id = 1")
    connect("ann").execute(f"insert into ledger values (8, 1, '{mark}')")
    connect("bob").execute(f"select /* {mark} */ total from orders limit 3")
    return auditor.wait(mark, count=3)


@pytest.mark.parametrize("query, count", [
    ("user:ann@example.com", 2),
    ("user:bob@example.com", 1),
    ("-user:bob@example.com", 2),
    ("table:customers", 1),
    ("table:public.customers", 1),
    ("table:customers,orders", 2),
    ("column:customers.email", 1),
    ("column:*.email", 1),
    ("column:customers.ssn", 0),
    ("class:write", 1),
    ("class:read", 2),
    ("outcome:ok", 3),
    ("outcome:error", 0),
    ("role:app_write", 2),
    ("role:app_read", 1),
    ("db:shop", 3),
    ("db:nowhere", 0),
    ("rows:3", 1),
    ("rows:>=3", 1),
    ("rows:1..2", 2),
    ("duration:<60s", 3),
    ("ip:127.0.0.0/8", 3),
    ("ip:10.0.0.0/8", 0),
    ("table:customers OR table:orders", 2),
    ("(table:customers OR table:orders) user:bob@example.com", 1),
    ("NOT class:write", 2),
    ("is:write", 1),
    ("is:ddl", 0),
    ("time:>-15m", 3),
    ("insert", 1),
    ('"into ledger"', 1),
])
def test_a_query_finds_exactly_what_it_says(known, auditor, mark, query, count):
    found = auditor.search(f"{mark} ({query})")
    assert len(found) == count, [each["sql"] for each in found]


def test_the_order_is_newest_first_and_pages_do_not_overlap(known, auditor, mark):
    seen, cursor = [], None
    while True:
        page = auditor.get("/events", q=f"event:query {mark}", limit=2, cursor=cursor)
        seen += [record["seq"] for record in page["items"]]
        cursor = page.get("next_cursor")
        if not cursor:
            break
    assert seen == sorted((record["seq"] for record in known), reverse=True)


def test_one_record_by_its_id(known, auditor):
    assert auditor.get(f"/events/{known[0]['id']}")["sql"] == known[0]["sql"]
    assert auditor.try_get("/events/00000000-0000-7000-8000-000000000000")[0] == 404


def test_the_histogram_counts_what_the_search_finds(known, auditor, mark):
    assert sum(auditor.get("/events/histogram", q=mark)["counts"]) == 3


def test_the_head_of_the_log_moves_on(auditor, connect):
    before = auditor.get("/log/head")
    connect().execute("select 1")
    assert auditor.get("/log/head") != before


def test_an_unknown_field_is_an_error_with_its_place_and_a_suggestion(auditor):
    status, body = auditor.try_get("/events", q="tabel:customers")
    problem = json.loads(body)
    assert status == 400
    assert "table" in json.dumps(problem)
    assert "span" in json.dumps(problem)


@pytest.mark.parametrize("query", ["(", "a)", "user:", '"', "rows:>x", "time:>never", "ip:1.2.3.4/99", "a " * 5000])
def test_a_wrong_query_is_an_error_and_not_a_crash(auditor, query):
    status, _ = auditor.try_get("/events", q=query)
    assert status == 400


def test_without_a_token_nothing_is_told(gateway, known):
    for token in ("", "garbage", "eyJhbGciOiJub25lIn0.e30."):
        assert Api(gateway.url, token).try_get("/events")[0] == 401


def test_a_person_who_is_no_auditor_sees_only_their_own_records(gateway, known, mark):
    bob = gateway.api("bob")
    assert {record["user"] for record in bob.search(mark)} == {email("bob")}
    anns = next(record for record in known if record["user"] == email("ann"))
    assert bob.try_get(f"/events/{anns['id']}")[0] == 404
    assert bob.search(f"{mark} user:{email('ann')}") == []
    assert bob.search(f"{mark} OR user:{email('ann')}", limit=1000)
    assert {record["user"] for record in bob.search(f"{mark} OR user:{email('ann')}")} == {email("bob")}


def test_a_search_is_itself_a_record(auditor, mark):
    auditor.search(f"table:customers {mark}")
    question = f"event:audit.search user:{email('carol')}"
    until("the record of the search",
          lambda: any(f"table:customers {mark}" in record["detail"] for record in auditor.search(question)), 5, every=0.1)


def test_tokens_of_another_client_are_refused(gateway, provider):
    assert Api(gateway.url, provider.id_token("carol", "somebody-else")).try_get("/events")[0] == 401


class Redirected(urllib.request.HTTPRedirectHandler):
    """Stops at redirects, so that a test sees them."""

    def redirect_request(self, *_):
        return None


def fetch(url: str, cookies: dict[str, str]) -> tuple[int, str, dict[str, str], str]:
    """One page without following: status, where it leads, the cookies then, its text."""
    status, headers, body = request_page(url, cookies)
    return status, headers.get("Location", ""), cookies, body


def request_page(url: str, cookies: dict[str, str]):
    request = urllib.request.Request(url)
    if cookies:
        request.add_header("Cookie", "; ".join(f"{name}={value}" for name, value in cookies.items()))
    try:
        answer = urllib.request.build_opener(Redirected).open(request, timeout=10)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        for line in answer.headers.get_all("Set-Cookie") or []:
            name, _, value = line.partition(";")[0].partition("=")
            cookies[name.strip()] = value.strip()
        return answer.status, answer.headers, answer.read().decode(errors="replace")


def test_a_browser_signs_in_at_the_provider_and_gets_a_session(gateway, provider):
    cookies: dict[str, str] = {}
    status, location, cookies, _ = fetch(gateway.url + "/", cookies)
    assert (status, location) == (303, "/auth/login?next=%2F")
    status, location, cookies, _ = fetch(gateway.url + "/auth/login", cookies)
    assert status in (302, 303, 307)
    assert location.startswith(provider.issuer)
    asked = urllib.parse.parse_qs(urllib.parse.urlparse(location).query)
    assert asked["code_challenge_method"] == ["S256"]
    back = Browser("carol").sign_in(location, stop_at=gateway.url + "/auth/callback")
    status, _, cookies, body = fetch(back, cookies)
    assert status in (302, 303), body
    status, _, _, body = fetch(gateway.url + "/api/v1/me", cookies)
    assert status == 200, body
    assert email("carol") in body
    status, headers, page = request_page(gateway.url + "/", cookies)
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy or "default-src 'self'" in policy
    assert "unsafe-inline" not in policy
    assert "<script>" not in page
    # The code and its state are spent.
    assert fetch(back, {})[0] >= 400
