"""The identity provider as a process, and people who use its pages as a browser would."""

import base64
import http.cookiejar
import json
import pathlib
import re
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from html.parser import HTMLParser

from .processes import ROOT, Child, until

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
PAGES_MAX = 12
HTTP_SECONDS_MAX = 10


class _Forms(HTMLParser):
    """The forms of a page: where they go, what they carry."""

    def __init__(self):
        super().__init__()
        self.forms: list[dict] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "form":
            self.forms.append({"action": given.get("action", ""), "fields": {}})
        elif tag == "input" and self.forms and given.get("name"):
            self.forms[-1]["fields"][given["name"]] = given.get("value") or ""


class _Arrived(Exception):
    """A redirect led to the address that the visit was to end at."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, except to `stop_at`."""

    stop_at: str | None = None

    def redirect_request(self, request, body, code, message, headers, url):
        if self.stop_at and url.startswith(self.stop_at):
            raise _Arrived(url)
        return super().redirect_request(request, body, code, message, headers, url)


class Browser:
    """One person at the provider: cookies, and the patience to fill in forms.

    The provider's pages are its authors' own; nothing here knows more of them than a person sees.
    """

    def __init__(self, person: str):
        self.person = person
        self._redirects = _Redirects()
        self._opener = urllib.request.build_opener(
            self._redirects, urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))

    def _open(self, url: str, fields: dict | None = None) -> tuple[str, str]:
        data = urllib.parse.urlencode(fields).encode() if fields is not None else None
        try:
            answer = self._opener.open(url, data, timeout=HTTP_SECONDS_MAX)
        except urllib.error.HTTPError as error:
            answer = error  # the pages of errors matter too
        with answer:
            return answer.geturl(), answer.read().decode(errors="replace")

    def sign_in(self, url: str, stop_at: str) -> str:
        """Signs in for a web page; the address that the provider sends the browser back to."""
        self._redirects.stop_at = stop_at
        try:
            page = self.visit(url)
        except _Arrived as arrived:
            return str(arrived)
        raise RuntimeError(f"{self.person} was not sent back to {stop_at}: {_text(page)}")

    def visit(self, url: str, code: str = "", deny: bool = False) -> str:
        """Goes through every form until a page has none; that last page."""
        at, page = self._open(url)
        for _ in range(PAGES_MAX):
            reader = _Forms()
            reader.feed(page)
            if not reader.forms:
                return page
            form = reader.forms[0]
            fields = form["fields"]
            if "login" in fields:
                fields.update(login=self.person, password="any")
            if "user_code" in fields and not fields["user_code"]:
                fields["user_code"] = code
            if deny and "confirm" in fields:
                del fields["confirm"]
                fields["abort"] = "yes"
                return self._open(urllib.parse.urljoin(at, form["action"]), fields)[1]
            at, page = self._open(urllib.parse.urljoin(at, form["action"]), fields)
        raise RuntimeError(f"still forms after {PAGES_MAX} pages, at {at}: {page[:500]}")

    def approve(self, url: str, code: str = "") -> None:
        page = self.visit(url, code)
        if "Sign-in Success" not in page:
            raise RuntimeError(f"{self.person} could not approve {url}: {_text(page)}")

    def deny(self, url: str, code: str = "") -> None:
        page = self.visit(url, code, deny=True)
        if "interrupted" not in page.lower():
            raise RuntimeError(f"{self.person} could not deny {url}: {_text(page)}")


def _text(page: str) -> str:
    page = re.sub(r"(?s)<(style|script).*?</\1>", " ", page)
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())[:500]


class Provider:
    """npm `oidc-provider` on loopback, with the controls that provider.mjs offers."""

    def __init__(self, folder: pathlib.Path):
        folder.mkdir(parents=True, exist_ok=True)
        script = ROOT / "tests" / "providers" / "provider.mjs"
        if not (script.parent / "node_modules").exists():
            raise RuntimeError("the provider is not installed. Run `npm ci` in tests/providers, or tests/run")
        self._child = Child(["node", str(script)], folder / "provider.log",
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        ready: list[bytes] = []
        reader = threading.Thread(target=lambda: ready.append(self._child.process.stdout.readline()), daemon=True)
        reader.start()
        until("the identity provider", lambda: ready or not self._child.alive(), 30)
        if not ready or not ready[0]:
            raise RuntimeError(f"the identity provider did not start: {self._child.said()}")
        line = json.loads(ready[0])
        self.issuer: str = line["issuer"]
        self._control: str = line["control"]

    def stop(self) -> None:
        self._child.process.stdin.close()  # its sign to end
        self._child.stop()

    # Controls of the tests

    def _call(self, method: str, path: str, body: dict | None = None):
        request = urllib.request.Request(self._control + path, method=method,
                                         data=json.dumps(body or {}).encode() if method == "POST" else None)
        try:
            with urllib.request.urlopen(request, timeout=HTTP_SECONDS_MAX) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.read().decode()}") from error

    def faults(self, **wanted) -> None:
        self._call("POST", "/faults", wanted)

    def reset(self) -> None:
        self._call("POST", "/reset")

    def disable(self, person: str) -> None:
        self._call("POST", "/person", {"name": person})

    def regroup(self, person: str, groups: list[str]) -> None:
        self._call("POST", "/person", {"name": person, "groups": groups})

    def confidential(self) -> tuple[str, str]:
        """The client that proves itself by a secret: its id and the secret."""
        given = self._call("GET", "/confidential")
        return given["id"], given["secret"]

    def secrets(self) -> list[str]:
        """Every code and token that was given out, ever."""
        return self._call("GET", "/secrets")

    def rotate(self) -> None:
        self._call("POST", "/rotate")

    def sign(self, claims: dict, **header) -> str:
        """A JWT with these claims under the provider's own key."""
        return self._call("POST", "/sign", {"claims": claims, "header": header})["token"]

    def down(self) -> None:
        self._call("POST", "/down")

    def up(self) -> None:
        self._call("POST", "/up")

    def requests(self, path: str) -> int:
        """How often `path` was asked for since the last reset."""
        return sum(1 for each in self._call("GET", "/requests") if each["path"] == path)

    def approvals_asked(self) -> int:
        """How many device logins were begun since the last reset."""
        return self.requests("/device/auth")

    # What a client of the provider does

    def _form(self, path: str, **fields) -> tuple[int, dict]:
        data = urllib.parse.urlencode(fields).encode()
        try:
            with urllib.request.urlopen(self.issuer + path, data, timeout=HTTP_SECONDS_MAX) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def key_set(self) -> dict:
        """The published keys."""
        with urllib.request.urlopen(self.issuer + "/jwks", timeout=HTTP_SECONDS_MAX) as answer:
            return json.load(answer)

    def id_token(self, person: str, client_id: str = "pgwitness") -> str:
        """An ID token by a real device login of `person`."""
        _, begun = self._form("/device/auth", client_id=client_id, scope="openid email groups")
        Browser(person).approve(begun["verification_uri_complete"])
        status, tokens = self._form("/token", client_id=client_id, grant_type=DEVICE_GRANT,
                                    device_code=begun["device_code"])
        if status != 200:
            raise RuntimeError(f"no token for {person}: {tokens}")
        return tokens["id_token"]


def claims(token: str) -> dict:
    """What a JWT says, unverified."""
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
