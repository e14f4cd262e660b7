"""Tokens and pairing secrets as passwords."""

import base64
import concurrent.futures
import hashlib
import hmac
import json
import secrets
import time

import psycopg
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from support.gateway import Api, email, link_and_code
from support.provider import Browser, claims
from support.wire import Wire, fatal

OPTIONS = "-c pgwitness.login=password"


def attempt(gateway, password: str, user: str = email("ann")) -> dict[str, str]:
    """A login with this password that must fail; its error."""
    with Wire(gateway.port) as wire:
        return fatal(wire.log_in(password, user=user, database="shop", options=OPTIONS))


def test_an_id_token_as_password_needs_no_prompt(gateway, auditor, provider, mark):
    token = provider.id_token("ann")
    asked = provider.approvals_asked()
    with psycopg.connect(gateway.secret_dsn(email("ann"), token)) as connection:
        connection.execute(f"select /* {mark} */ 1")
    assert provider.approvals_asked() == asked
    [record] = auditor.wait(mark)
    assert record["user"] == email("ann")


def encode(value) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def garbage(provider):
    return "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.AAAA"


def tampered(provider):
    head, body, signature = provider.id_token("bob").split(".")
    return f"{head}.{encode({**claims(f'{head}.{body}.'), 'email': email('ann'), 'sub': 'ann'})}.{signature}"


def for_somebody_else(provider):
    return provider.id_token("ann", client_id="somebody-else")


def of_another_issuer(provider):
    return provider.sign({**claims(provider.id_token("ann")), "iss": "http://127.0.0.1:1"})


def expired(provider):
    return provider.sign({**claims(provider.id_token("ann")), "iat": int(time.time()) - 7200,
                          "exp": int(time.time()) - 3600})


def unsigned(provider):
    return f"{encode({'alg': 'none'})}.{encode(claims(provider.id_token('ann')))}."


def signed_with_the_public_key(provider):
    token = provider.id_token("ann")
    text = f"{encode({**header_of(token), 'alg': 'HS256'})}.{encode(claims(token))}"
    key = json.dumps(provider.key_set()["keys"][0]).encode()
    return f"{text}.{encode(hmac.new(key, text.encode(), hashlib.sha256).digest())}"


def of_an_unknown_key(provider):
    return provider.sign(claims(provider.id_token("ann")), kid="never-heard-of")


def changed(**differences):
    """A token that is good but for these claims (None: without it), signed by the provider's own key."""

    def make(provider):
        own = {**claims(provider.id_token("ann")), **differences}
        return provider.sign({name: value for name, value in own.items() if value is not None})

    make.__name__ = "with_" + "_".join(differences)
    return make


def from_now(**seconds: int):
    """The same with times so many seconds from now."""

    def make(provider):
        return changed(**{name: int(time.time()) + offset for name, offset in seconds.items()})(provider)

    make.__name__ = "_".join(f"{name}_{'in' if offset > 0 else 'since'}_{abs(offset)}_s" for name, offset in seconds.items())
    return make


def signed_by(key, header: dict, text: dict) -> str:
    signed = f"{encode(header)}.{encode(text)}"
    return f"{signed}.{encode(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def with_its_own_key_in_the_header(provider):
    key = rsa.generate_private_key(65537, 2048)
    numbers = key.public_key().public_numbers()
    own = {"kty": "RSA", "e": "AQAB", "n": encode(numbers.n.to_bytes(256, "big"))}
    kid = header_of(provider.id_token("ann"))["kid"]
    return signed_by(key, {"alg": "RS256", "kid": kid, "jwk": own, "jku": "http://127.0.0.1:1/jwks"},
                     claims(provider.id_token("ann")))


def header_of(token: str) -> dict:
    return json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))


def of_another_algorithm_than_its_key(provider):
    return provider.sign(claims(provider.id_token("ann")), alg="PS256")


def with_an_extension_that_must_be_understood(provider):
    return provider.sign(claims(provider.id_token("ann")), crit=["b64"], b64=False)


def unsigned_in_capitals(provider):
    return f"{encode({'alg': 'NONE'})}.{encode(claims(provider.id_token('ann')))}."


HALF_A_DAY = 13 * 3600
WRONG = [garbage, tampered, for_somebody_else, of_another_issuer, expired, unsigned, unsigned_in_capitals,
         signed_with_the_public_key, of_an_unknown_key, with_its_own_key_in_the_header, of_another_algorithm_than_its_key,
         with_an_extension_that_must_be_understood, from_now(iat=60), from_now(nbf=60), from_now(exp=-40), from_now(iat=-HALF_A_DAY),
         changed(exp=None), changed(iat=None), changed(sub=None), changed(azp="somebody-else"), changed(events={}),
         changed(email_verified=False), changed(email=None)]


@pytest.mark.parametrize("make", WRONG, ids=lambda make: make.__name__)
def test_a_wrong_token_is_refused_clearly_and_recorded(gateway, auditor, provider, make):
    token = make(provider)
    before = {each["id"] for each in auditor.search("event:login.failed")}
    error = attempt(gateway, token)
    assert error["S"] == "FATAL"
    assert error["C"] in ("28000", "28P01")
    assert "token" in error["M"].lower() or "not verified this e-mail address" in error["M"]
    assert token.split(".")[1] not in json.dumps(error)
    auditor.settle()
    [record] = [each for each in auditor.search("event:login.failed") if each["id"] not in before]
    assert token not in json.dumps(record)
    assert record["ip"] == "127.0.0.1"


@pytest.mark.parametrize("make", [from_now(iat=20), from_now(nbf=20), from_now(exp=-20)], ids=lambda make: make.__name__)
def test_clocks_may_differ_by_half_a_minute(gateway, provider, make):
    with psycopg.connect(gateway.secret_dsn(email("ann"), make(provider))) as connection:
        assert connection.execute("select current_user").fetchone() == ("app_write",)


def test_a_storm_of_unknown_keys_at_the_api_does_not_storm_the_provider(gateway, provider):
    token_claims = claims(provider.id_token("carol"))
    before = provider.requests("/jwks")
    for number in range(20):
        status, _ = Api(gateway.url, provider.sign(token_claims, kid=f"unknown-{number}")).try_get("/me")
        assert status == 401
    assert provider.requests("/jwks") - before <= 5


def test_a_storm_of_unknown_keys_does_not_storm_the_provider(gateway, provider):
    token_claims = claims(provider.id_token("ann"))
    before = provider.requests("/jwks")
    for number in range(20):
        attempt(gateway, provider.sign(token_claims, kid=f"unknown-{number}"))
    assert provider.requests("/jwks") - before <= 5


def test_a_second_psql_with_the_same_secret_connects_without_a_prompt(gateway, provider):
    secret = gateway.pair("ann")
    assert provider.approvals_asked() == 1
    for _ in range(3):
        with gateway.psql(email("ann"), "-c", "select current_user",
                          environment=gateway.environment(secret)) as psql:
            assert psql.expect_success(15) == "app_write"
            assert "http" not in psql.messages
    assert provider.approvals_asked() == 1


def test_another_secret_asks_again(gateway, provider):
    gateway.pair("ann")
    gateway.pair("ann")
    assert provider.approvals_asked() == 2


def test_a_weak_secret_is_refused(gateway):
    error = attempt(gateway, "hunter2")
    assert error["C"] in ("28000", "28P01")
    assert "22" in error["M"] + error.get("H", "") + error.get("D", "")


def test_a_secret_gives_no_role_of_another_person(gateway, secrets_of):
    assert attempt(gateway, secrets_of("bob"), user="app_write")["S"] == "FATAL"
    assert attempt(gateway, secrets_of("bob"), user=email("ann"))["S"] == "FATAL"


def test_ten_connections_at_once_with_a_new_secret_need_one_approval(gateway, provider):
    secret = secrets.token_urlsafe(32)

    def connect(_):
        with gateway.psql(email("ann"), "-c", "select 1", environment=gateway.environment(secret)) as psql:
            return psql.expect_success(60)

    with concurrent.futures.ThreadPoolExecutor(11) as pool:
        first = gateway.psql(email("ann"), "-c", "select 1", environment=gateway.environment(secret))
        with first:
            link, code = first.prompted()
            waiting = [pool.submit(connect, number) for number in range(9)]
            time.sleep(1)
            Browser("ann").approve(link, code)
            assert first.expect_success() == "1"
        assert [each.result() for each in waiting] == ["1"] * 9
    assert provider.approvals_asked() == 1


def test_an_impatient_driver_is_told_the_link_and_may_come_back(gateway, provider):
    dsn = gateway.secret_dsn(email("ann"), secrets.token_urlsafe(32)) + " application_name=worker"
    begun = time.monotonic()
    with pytest.raises(psycopg.OperationalError) as refused:
        psycopg.connect(dsn, connect_timeout=30)
    assert time.monotonic() - begun < 28
    assert "FATAL" in str(refused.value)
    link, code = link_and_code(str(refused.value))
    Browser("ann").approve(link, code)
    with psycopg.connect(dsn, connect_timeout=30) as connection:
        assert connection.execute("select current_user").fetchone() == ("app_write",)
    assert provider.approvals_asked() == 1


def test_no_secret_or_token_is_left_on_disk(gateway, auditor, provider):
    secret = gateway.pair("ann")
    token = provider.id_token("ann")
    with psycopg.connect(gateway.secret_dsn(email("ann"), token)) as connection:
        connection.execute("select 1")
    attempt(gateway, "x" * 8 + secret[8:] + "y")
    auditor.settle()
    for path in gateway.folder.rglob("*"):
        if path.is_file() and path != gateway.config:
            content = path.read_bytes()
            for word in (secret.encode(), token.encode(), b"secret-of-app_write"):
                assert word not in content, f"{path} holds a secret"
